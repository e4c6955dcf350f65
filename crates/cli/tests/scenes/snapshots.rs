//! Machines' files kept as they are, and the way back to them: stopped, running, in a microVM, and when the command that
//! does it is killed.

use std::time::{Duration, Instant};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, said, said_within};

/// Each name in a machine's directory with what is in it, and what it hides of its image.
const LOOK: &str = "cd /etc; ls; cat state; stat -c %a /work /; ls /work";

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// Starts machine `web`.
#[track_caller]
fn web(world: &World) {
    let line = "trap exit TERM; while :; do sleep 1; done";
    stead(world, &["run", "-d", "--name", "web", BUSYBOX, "sh", "-c", line]).ok();
}

#[track_caller]
fn inside(world: &World, line: &str) -> String {
    stead(world, &["exec", "web", "sh", "-c", line]).ok()
}

/// The names of snapshots, in their order.
#[track_caller]
fn names(world: &World) -> Vec<String> {
    let rows = world.stead("snapshot ls web --format json").json();
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_stopped_machine_goes_back_to_what_it_was() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world);
    let image = inside(&world, "ls -a /etc; cat /etc/group");
    inside(
        &world,
        "echo one > /etc/state; rm /etc/group; mkdir -m 711 /work; touch /work/a; ln /work/a /work/b",
    );
    inside(&world, "chmod 2750 /work; mkfifo /work/pipe");
    let [diff, before] = [world.stead("diff web").ok(), inside(&world, LOOK)];
    world.stead("stop --time 0 web").ok();
    stead(&world, &["snapshot", "create", "web", "before", "-d", "clean, at last"]).ok();
    assert_eq!(world.stead("diff web").ok(), diff, "it is held against the image");
    stead(&world, &["cp", "web:/etc/state", "state"]).ok();
    world.stead("start web").ok();
    assert_eq!(inside(&world, LOOK), before);
    // What was hidden stays so; what is written from now on is over it.
    inside(
        &world,
        "echo two > /etc/state; rm -r /work; mkdir /work; touch /work/new; echo x > /etc/more; echo back > /etc/group",
    );
    let later = world.stead("diff web").ok();
    assert!(later.contains("A /etc/more\n") && later.contains("C /etc/group\n"), "{later}");
    assert!(later.contains("A /work/new\n") && !later.contains("/work/a"), "{later}");
    world.stead("stop --time 0 web").ok();
    assert_eq!(world.stead("snapshot create web").ok(), "snap0\n");
    world.stead("start web").ok();
    let rows = world.stead("snapshot ls --format json").json();
    assert_eq!((&rows[0]["description"], &rows[0]["parent"]), (&"clean, at last".into(), &().into()));
    assert_eq!((&rows[1]["parent"], &rows[1]["is_current"]), (&"before".into(), &true.into()));
    assert!(rows[0]["size_bytes"].as_u64().unwrap() > 0 && rows[1]["size_bytes"].as_u64().unwrap() > 0);
    assert!(world.stead("snapshot ls web").ok().contains("snap0 *"));
    assert_eq!(
        world.stead("ps --format json").json()[0]["snapshots"],
        serde_json::json!(["before", "snap0"])
    );
    assert!(world.stead("inspect web").ok().contains("before, snap0"));
    // One that runs is ended and started again.
    world.stead("snapshot restore web before").ok();
    assert_eq!(inside(&world, LOOK), before);
    assert_eq!(world.stead("diff web").ok(), diff);
    world.stead("snapshot restore web snap0").ok();
    assert_eq!(inside(&world, "cat /etc/state /etc/group; ls /etc/more"), "two\nback\n/etc/more\n");
    // What is below others stays when its name goes; one without a snapshot `initial` is set back to its image.
    world.stead("snapshot rm web before").ok();
    world.stead("snapshot restore web snap0").ok();
    assert_eq!(inside(&world, "cat /etc/state; ls /work"), "two\nnew\n");
    // Also while it runs, with layers of its own below.
    assert_eq!(world.stead("rename web www").ok(), "www\n");
    assert_eq!(world.stead("rename www web").ok(), "web\n");
    world.stead("stop --time 0 web").ok();
    assert_eq!(world.stead("rename web www").ok(), "www\n");
    assert_eq!(world.stead("rename www web").ok(), "web\n");
    assert_eq!(names(&world), ["snap0"]);
    world.stead("reset web").ok();
    world.stead("start web").ok();
    assert_eq!(inside(&world, "ls -a /etc; cat /etc/group"), image);
    inside(&world, "echo first > /etc/state");
    world.stead("stop --time 0 web").ok();
    world.stead("snapshot create web initial").ok();
    world.stead("start web").ok();
    inside(&world, "echo next > /etc/state");
    world.stead("reset web").ok();
    assert_eq!(inside(&world, "cat /etc/state"), "first\n");
    world.stead("reset web snap0").ok();
    assert_eq!(inside(&world, "cat /etc/state"), "two\n");
    world.stead("snapshot create web initial").code(2).says("has a snapshot `initial` already");
    world.stead("snapshot restore web nosuch").code(2).says("has no snapshot `nosuch`");
    world.stead("snapshot rm web nosuch").code(2).says("has no snapshot `nosuch`");
    world.stead("reset web nosuch").code(2).says("has no snapshot `nosuch`");
    let events = world.stead("events --no-stream --since 1h --filter event=restore --format json").ok();
    assert_eq!(events.lines().count(), 6, "{events}");
    world.stead("rm --force web").ok();
    assert_eq!(world.stead("snapshot ls --format json").json(), serde_json::json!([]));
}

#[test]
fn a_running_machine_is_kept_as_it_was_at_one_moment_and_goes_on() {
    let world = World::offline();
    let _registry = registry(&world);
    // It writes two files, one after the other, all the time: the second is never ahead.
    let line = "cd /etc; i=0; while :; do i=$((i+1)); echo $i > a.new; mv a.new a; echo $i > b.new; mv b.new b; done";
    stead(&world, &["run", "-d", "--name", "web", BUSYBOX, "sh", "-c", line]).ok();
    let number = |text: String| text.trim().parse::<u64>().unwrap();
    world.until("it has begun", || (stead(&world, &["exec", "web", "ls", "/etc/b"]).code == 0).then_some(()));
    let said = world.stead("snapshot create web early");
    if role() == Role::User && said.err.contains("cannot be held still") {
        // Without a control group of one's own nothing can be copied that changes meanwhile.
        said.code(1).says("hint: `stead stop` it first");
        assert_eq!(world.stead("snapshot ls --format json").json(), serde_json::json!([]));
        return;
    }
    said.ok();
    let then = number(inside(&world, "cat /etc/b"));
    world.until("it goes on", || (number(inside(&world, "cat /etc/b")) > then).then_some(()));
    // One that is paused stays so.
    world.stead("pause web").ok();
    world.stead("snapshot create web held").ok();
    assert_eq!(world.stead("ps --format json").json()[0]["phase"], "paused");
    world.stead("unpause web").ok();
    world.stead("stop --time 0 web").ok();
    for name in ["held", "early"] {
        world.stead(&format!("snapshot restore web {name}")).ok();
        let read = |file: &str| {
            stead(&world, &["cp", &format!("web:/etc/{file}"), file]).ok();
            number(std::fs::read_to_string(world.path().join(file)).unwrap())
        };
        let (a, b) = (read("a"), read("b"));
        assert!(a == b || a == b + 1, "{name}: {a} {b}");
        assert!(name == "held" || b <= then, "{b} {then}");
    }
}

const SHOP: &str = "
machines:
  web: { image: '127.0.0.1:5000/lab/busybox', command: [sleep, '1000'], environment: { N: 'one' } }
";

#[test]
fn snapshots_are_no_difference_to_a_file_and_are_lost_only_with_consent() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    shop.stead("exec web touch /etc/kept").ok();
    shop.stead("stop --time 0 web").ok();
    shop.stead("snapshot create web before").ok();
    shop.stead("start web").ok();
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    shop.write(&SHOP.replace("one", "two"));
    assert!(shop.stead("plan").ok().contains("- machine web.shop (its snapshots are lost: before)"));
    shop.stead("up").code(3).says("its snapshots are lost: before").says("--yes");
    shop.stead("down").code(3).says("its snapshots are lost: before");
    assert_eq!(shop.stead("snapshot ls --format json").json()[0]["name"], "before");
    shop.stead("up --yes").ok();
    assert_eq!(shop.stead("snapshot ls --format json").json(), serde_json::json!([]));
    shop.stead("down").ok();
}

#[test]
fn a_snapshot_that_is_cut_off_is_there_or_is_not() {
    let world = World::offline();
    let _registry = registry(&world);
    web(&world);
    inside(&world, "mkdir /etc/many; cd /etc/many; for i in $(seq 400); do echo $i > $i; done");
    let mut cut = 0;
    for (round, words) in [["snapshot", "create", "web"], ["snapshot", "restore", "web"]].iter().enumerate() {
        if round == 1 {
            world.stead("stop --time 0 web").ok();
            world.stead("snapshot create web base").ok();
        }
        for step in 0..12 {
            let words = if round == 1 { [&words[..], &["base"]].concat() } else { words.to_vec() };
            let mut command = world.spawn_stead(world.path(), &words);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(12 * step) {
                std::hint::spin_loop();
            }
            cut += u32::from(command.is_alive());
            drop(command);
            let all = world.stead("snapshot ls web --format json").json();
            if round == 0 {
                // Whoever was killed holds nobody still.
                assert_eq!(inside(&world, "ls /etc/many | wc -l").trim(), "400");
            } else {
                stead(&world, &["cp", "web:/etc/many/400", "many"]).ok();
            }
            assert!(all.as_array().unwrap().iter().all(|row| row["size_bytes"].is_u64()), "{all}");
        }
    }
    assert!(cut > 0, "no command was ever cut off");
    // Each that there is can be gone back to, and no other layer is left.
    world.stead("start web").ok();
    for name in names(&world) {
        world.stead(&format!("reset web {name}")).ok();
        assert_eq!(inside(&world, "ls /etc/many | wc -l").trim(), "400", "{name}");
    }
    let directory =
        world.stead("inspect web --format json").json()[0]["directory"].as_str().unwrap().to_owned();
    for name in names(&world) {
        world.stead(&format!("snapshot rm web {name}")).ok();
    }
    let left = world.sh_said(crate::support::Place::Computer, &format!("ls {directory}/layers")).ok();
    assert_eq!(left.lines().count(), 1, "{left}");
}

/// Whether the file system in this file says that its journal is to be replayed, as all do that somebody writes: ext4 takes
/// that back when it is unmounted, and while it stands still.
#[track_caller]
fn is_in_use(world: &World, path: &str) -> bool {
    // `INCOMPAT_RECOVER` of the superblock.
    let features = world.sh(crate::support::Place::Computer, &format!("od -An -tu4 -j1120 -N4 {path}"));
    features.trim().parse::<u32>().unwrap() & 4 != 0
}

/// What boots a guest takes this long at most.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

#[test]
fn a_microvm_goes_back_to_what_was_on_its_disk() {
    let world = World::offline();
    let _registry = registry(&world);
    let slowly = |words: &[&str]| said_within(world.stead_command("home", world.path(), words), BOOT_LIMIT);
    const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kernel");
    slowly(&["kernel", "pull", KERNEL]).ok();
    slowly(&["run", "-d", "--kind", "microvm", "--name", "web", BUSYBOX, "sleep", "10000"]).ok();
    let said =
        slowly(&["rename", "web", "other"]).code(2).says("its VMM has its files and its nics by its name");
    said.says("hint: `stead stop web` first");
    let exec = |line: &str| slowly(&["exec", "web", "sh", "-c", line]).ok();
    exec("echo one > /etc/state");
    let inspected = world.stead("inspect web --format json").json();
    let directory = inspected[0]["directory"].as_str().unwrap();
    assert!(is_in_use(&world, &format!("{directory}/disk.ext4")));
    // What is only in its memory is written first; and it goes on.
    slowly(&["snapshot", "create", "web", "before"]).ok();
    assert!(!is_in_use(&world, &format!("{directory}/layers/1/disk.ext4")));
    exec("echo two > /etc/state");
    slowly(&["snapshot", "restore", "web", "before"]).ok();
    assert_eq!(exec("cat /etc/state"), "one\n");
    let rows = world.stead("snapshot ls web --format json").json();
    assert!(rows[0]["size_bytes"].as_u64().unwrap() < 1 << 30, "{rows}");
    slowly(&["stop", "--time", "0", "web"]).ok();
    slowly(&["reset", "web"]).ok();
    slowly(&["start", "web"]).ok();
    assert_eq!(exec("ls /etc/state || echo none"), "none\n");
    slowly(&["rm", "--force", "web"]).ok();
}

#[test]
fn snapshots_of_which_nothing_is_known_are_not_taken_for_none() {
    let world = World::offline();
    let _registry = registry(&world);
    let shop = world.project(
        "shop",
        &format!("machines:\n  a: &a {{ image: {BUSYBOX}, command: sleep 1000, init: true }}\n  b: *a\n"),
    );
    shop.stead("up").ok();
    // Who has no freezer cannot hold one that runs.
    shop.stead("stop a b").ok();
    shop.stead("snapshot create a").ok();
    shop.stead("snapshot create b").ok();
    let find = format!("find {} -path '*/machines/a.shop/history.json'", world.path().display());
    let file = world.sh(Place::Computer, &find).trim().to_owned();
    std::fs::write(&file, "{").unwrap();
    let listed = shop.stead("snapshot ls").code(1).says("history.json is damaged");
    assert!(listed.out.contains("b.shop"), "{listed:?}");
    assert!(shop.stead("inspect a").ok().contains("nobody knows: its history is damaged"));
    shop.stead("down").code(3).says("its snapshots are lost: nobody knows which");
    shop.stead("down --yes").ok();
}
