//! The long-lived processes are killed, one by one and all at once: the next command starts what is missing, and
//! what does not hang on the dead goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kill_support;

use std::fs;

use kill_support::{FULL, Outside, World, is_root, signal, untested, until};
use rustix::process::Signal;

/// The machine's own view of its links, which a new switchboard must not change.
fn links_of_web(world: &World) -> String {
    world.ok("network enter -m web -- ip -o link")
}

#[test]
fn a_dead_switchboard_is_started_again_and_machines_do_not_notice() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let before = links_of_web(&world);
    world.kill("__watcher");
    world.kill("__switchboard");
    let inspected = world.run("network inspect lan.shop");
    assert!(inspected.code == 0 && inspected.err.contains("no switchboard runs"), "{inspected:?}");
    let plan = world.ok("plan");
    assert!(plan.starts_with("+ switchboard "), "{plan}");
    assert_eq!(plan.lines().filter(|line| !line.contains("port ")).count(), 1, "{plan}");
    world.arrives();
    assert_eq!(links_of_web(&world), before);
    world.serves();
    world.leaves_nothing();
}

#[test]
fn a_dead_watcher_is_started_again_and_open_connections_do_not_notice() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let board = world.process("__switchboard");
    world.kill("__watcher");
    let plan = world.ok("plan");
    assert!(plan.starts_with("+ switchboard ") && plan.lines().count() == 1, "{plan}");
    world.arrives();
    let watcher = world.process("__watcher");
    assert_eq!(world.process("__switchboard"), board);
    // It starts it again, though it is not its child; and not where that was told to end.
    signal(board, Signal::KILL);
    let board = another_than(&world, board);
    assert_eq!((world.process("__watcher"), world.process("__switchboard")), (watcher, board));
    world.serves();
    world.kill("__watcher");
    world.ok("up");
    world.ok("down");
    let watched = |(_, words): &(u32, String)| words.contains("__watcher") || words.contains("__switchboard");
    assert!(!world.processes().iter().any(watched), "{:?}", world.processes());
    world.leaves_nothing();
}

/// Waits for another switchboard than this one, which listens.
fn another_than(world: &World, before: u32) -> u32 {
    let recorded = || {
        let record = fs::read_to_string(world.run_file("switchboard.pid")).unwrap_or_default();
        record.split(' ').next().and_then(|pid| pid.parse::<u32>().ok()).unwrap_or(before)
    };
    until("another switchboard", || recorded() != before);
    recorded()
}

#[test]
fn a_dead_switchboard_comes_back_without_a_command() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let before = links_of_web(&world);
    let watcher = world.process("__watcher");
    let mut board = world.process("__switchboard");
    for how in [Signal::KILL, Signal::TERM, Signal::KILL] {
        signal(board, how);
        board = another_than(&world, board);
        assert_eq!((world.process("__watcher"), world.process("__switchboard")), (watcher, board));
    }
    world.stands();
    assert_eq!(links_of_web(&world), before);
    world.serves();
    // Told to end, it is not started again.
    world.ok("down");
    let left = || {
        let mut left = world.processes();
        left.retain(|(_, words)| words.contains("__watcher") || words.contains("__switchboard"));
        left
    };
    assert_eq!(left(), []);
    // Nor while it is taken away.
    for _ in 0..8 {
        world.ok("up");
        signal(world.process("__switchboard"), Signal::KILL);
        world.ok("down");
        assert_eq!(left(), []);
    }
    world.leaves_nothing();
}

#[test]
fn a_dead_switchboard_of_a_home_that_is_gone_stays_dead() {
    let world = World::new(Outside::Offline, FULL);
    world.ok("up");
    let watcher = world.process("__watcher");
    fs::remove_file(world.run_file("served.json")).unwrap();
    world.kill("__switchboard");
    until("the watcher to go", || kill_support::is_gone(watcher));
    world.arrives();
    world.leaves_nothing();
}

/// A container whose nic may speak with any MAC, such as those of machines inside it.
const LOOSE: &str = "\
name: shop
networks: { lan: {} }
machines:
  web: { kind: container, driver: external, networks: { lan: { guard: off } } }
";

#[test]
fn what_strangers_were_given_outlives_the_switchboard() {
    let world = World::new(Outside::Offline, LOOSE);
    world.ok("up");
    world.ok("network enter -m web -- ip link add link eth0 name strange type macvlan mode bridge");
    world.ok("network enter -m web -- ip link set strange up");
    let ask = || {
        let ran = world.run("network enter -m web -- busybox udhcpc -n -q -f -i strange -s /bin/true");
        let word =
            ran.err.lines().find(|line| line.contains("obtained")).unwrap_or_else(|| panic!("{ran:?}"));
        word.split(' ').nth(3).unwrap().to_owned()
    };
    let address = ask();
    let file = world.run_file("strangers.json");
    until("the lease to be stored", || fs::read_to_string(&file).unwrap_or_default().contains(&address));
    for _ in 0..3 {
        world.kill("__switchboard");
        world.ok("up");
        assert!(world.ok("network inspect lan.shop --format json").contains(&address));
        assert_eq!(ask(), address);
    }
    world.leaves_nothing();
}

#[test]
fn a_switchboard_that_hangs_is_replaced() {
    let world = World::new(Outside::Offline, FULL);
    world.ok("up");
    let hung = world.process("__switchboard");
    signal(hung, Signal::STOP);
    world.ok("up");
    assert_ne!(world.process("__switchboard"), hung);
    // Also where the first step is to take something away.
    signal(world.process("__switchboard"), Signal::STOP);
    world.write(&FULL.replace("PORT:80", "PORT:81"));
    world.ok("up");
    world.write(FULL);
    world.ok("up");
    world.stands();
    world.serves();
    world.leaves_nothing();
}

#[test]
fn an_anchor_that_hangs_is_named() {
    let world = World::new(Outside::Offline, FULL);
    world.ok("up");
    let hung = world.process("__anchor");
    signal(hung, Signal::STOP);
    let error = world.fails("up");
    assert!(
        error.contains(&format!("process {hung}, which holds the engine's namespaces, does not answer")),
        "{error}"
    );
    assert!(error.contains(&format!("`kill -CONT {hung}`")), "{error}");
    signal(hung, Signal::CONT);
    world.stands();
    world.serves();
    world.leaves_nothing();
}

#[test]
fn a_dead_anchor_takes_the_engine_with_it_and_up_makes_another() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    world.kill("__anchor");
    let plan = world.ok("plan");
    assert!(plan.starts_with("- engine "), "{plan}");
    world.arrives();
    world.serves();
    world.kill("__anchor");
    world.leaves_nothing();
}

#[test]
fn a_dead_pasta_is_replaced() {
    if !is_root() {
        return untested("there is no way out of the ordinary user's namespaces here");
    }
    let world = World::new(Outside::ForwardsNot, FULL);
    world.ok("up");
    let before = links_of_web(&world);
    world.kill("pasta.pid");
    let plan = world.ok("plan");
    assert!(plan.starts_with("+ uplink pasta"), "{plan}");
    world.arrives();
    assert_eq!(links_of_web(&world), before);
    world.serves();
    world.kill("pasta.pid");
    world.leaves_nothing();
}

#[test]
fn everything_dies_at_once() {
    for outside in [Outside::Forwards, Outside::ForwardsNot] {
        let world = World::new(outside, FULL);
        world.ok("up");
        world.kill_all();
        world.arrives();
        world.serves();
        world.kill_all();
        world.leaves_nothing();
    }
}

/// The run directory is on a tmpfs, and empty after a restart. The lease and the volume are what they were.
#[test]
fn the_computer_restarts() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    let before = world.ok("ps");
    fs::write(world.home().join("state/volumes/shop/data/precious"), "1").unwrap();
    world.kill_all();
    fs::remove_dir_all(world.home().join("run")).unwrap();
    world.arrives();
    assert_eq!(world.ok("ps"), before);
    assert!(world.home().join("state/volumes/shop/data/precious").exists());
    world.serves();
    world.kill_all();
    fs::remove_dir_all(world.home().join("run")).unwrap();
    world.leaves_nothing();
}

/// As a janitor of `/run` or `/tmp` does: the processes live, their files are gone.
#[test]
fn the_run_directory_is_deleted_under_living_processes() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    fs::remove_dir_all(world.home().join("run")).unwrap();
    world.arrives();
    world.serves();
    fs::remove_dir_all(world.home().join("run")).unwrap();
    world.leaves_nothing();
}

#[test]
fn a_command_that_dies_waiting_for_the_lock_changes_nothing() {
    let world = World::new(Outside::Offline, FULL);
    world.ok("up");
    let lock = fs::File::options().write(true).open(world.run_file("lock")).unwrap();
    lock.lock().unwrap();
    let mut waiting = world.start("down");
    let mut heir = world.start("up");
    for child in [&waiting.child, &heir.child] {
        let files = format!("/proc/{}/fd", child.id());
        let is_lock =
            |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("run/lock"));
        until("a command to wait", || fs::read_dir(&files).unwrap().flatten().any(is_lock));
    }
    waiting.child.kill().unwrap();
    assert_eq!(heir.child.try_wait().unwrap(), None);
    drop(lock);
    let heir = heir.end();
    assert_eq!((heir.code, heir.out.as_str()), (0, "nothing to do\n"), "{}", heir.err);
    let dead = waiting.end();
    assert_eq!(dead.out, "");
    world.leaves_nothing();
}

/// Whoever holds the lock dies: the next in the queue goes on at once.
#[test]
fn the_lock_of_a_dead_command_is_free() {
    let world = World::new(Outside::Offline, FULL);
    for _ in 0..5 {
        let mut first = world.start("up");
        until("the first to hold the lock", || fs::metadata(world.run_file("lock")).is_ok());
        let second = world.start("up");
        first.child.kill().unwrap();
        assert_eq!(second.end().code, 0);
        first.end();
        world.stands();
        world.ok("down");
    }
    world.leaves_nothing();
}
