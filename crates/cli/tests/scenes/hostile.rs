//! Machines that mean harm, and people who do not read: neither holds up the keeper, leaves anything behind, or learns
//! what is not theirs.

use std::time::{Duration, Instant};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, said, stead as program, untested};

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// Runs a line of shell in which `stead` is ours, in the first home.
fn with_stead(world: &World, line: &str) -> String {
    format!("stead() {{ STEAD_HOME={}/home {} \"$@\"; }}; {line}", world.path().display(), program())
}

#[test]
fn files_deeper_than_a_process_may_open_are_deleted() {
    let world = World::offline();
    let _registry = registry(&world);
    let line = "i=0; while [ $i -lt 600 ]; do mkdir d; cd d; i=$((i+1)); done; echo made";
    assert_eq!(stead(&world, &["run", "--name", "deep", BUSYBOX, "sh", "-c", line]).ok(), "made\n");
    // As many as the program itself needs, and far fewer than there are levels.
    let line = with_stead(&world, "ulimit -n 256; stead rm deep; ls home");
    let left = world.sh(Place::Person, &line);
    assert!(!left.contains("going"), "{left}");
}

#[test]
fn cgroups_whose_path_is_longer_than_one_may_be_go_with_their_machine() {
    if role() != Role::Root {
        return untested("others have no cgroups without delegation");
    }
    let world = World::offline();
    let _registry = registry(&world);
    let line = "n=$(head -c 200 /dev/zero | tr '\\0' n); cd /sys/fs/cgroup
        for top in . *; do mkdir $top/$n 2>/dev/null && cd $top && break; done
        while mkdir -p $n && cd $n; do :; done 2>/dev/null; pwd | wc -c; exec sleep 1000";
    stead(&world, &["run", "-d", "--system", "--name", "deep", BUSYBOX, "sh", "-c", line]).ok();
    let length = world
        .until("its cgroups are made", || stead(&world, &["logs", "deep"]).ok().trim().parse::<usize>().ok());
    assert!(length > 3000, "{length}");
    stead(&world, &["rm", "--force", "deep"]).ok();
}

#[test]
fn a_machine_that_holds_whoever_comes_in_is_not_well_and_can_be_stopped() {
    let world = World::offline();
    let _registry = registry(&world);
    let mut words = vec!["run", "-d", "--name", "evil", "--health-cmd", "true", "--health-interval", "100ms"];
    words.extend(["--health-timeout", "1s", "--health-retries", "1", BUSYBOX, "sh", "-c"]);
    words.push("while :; do kill -STOP -1; done");
    stead(&world, &words).ok();
    // Some tests may be quicker than it.
    world.until("a test was held", || {
        let told = world.sh(Place::Person, "grep -o '\"unhealthy\"' home/state/events.jsonl || :");
        (!told.is_empty()).then_some(())
    });
    // Its keeper answers.
    assert_eq!(world.stead("ps evil --format json").json()[0]["status"], "running");
    let begun = Instant::now();
    stead(&world, &["rm", "--force", "evil"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[test]
fn a_machine_goes_on_when_somebody_who_watches_does_not_read() {
    let world = World::offline();
    let _registry = registry(&world);
    let line = "i=0; while :; do head -c 100000 /dev/zero; i=$((i+1)); echo $i > /n; mv /n /count; done";
    stead(&world, &["run", "-d", "--name", "talk", BUSYBOX, "sh", "-c", line]).ok();
    let count = || stead(&world, &["exec", "talk", "cat", "/count"]).ok();
    let stuck = world.spawn_stead(world.path(), &["attach", "--no-stdin", "talk"]);
    // More than all that is between the two holds.
    let before = world.until("it writes", || count().trim().parse::<u64>().ok());
    let line = format!("until [ $(cat /count) -gt {} ]; do sleep 0.2; done", before + 200);
    stead(&world, &["exec", "talk", "sh", "-c", &line]).ok();
    drop(stuck);
    stead(&world, &["rm", "--force", "talk"]).ok();
}

#[test]
fn copying_tells_nobody_the_machines_secrets_and_takes_names_as_they_are() {
    let world = World::offline();
    let _registry = registry(&world);
    stead(&world, &["create", "--name", "box", "-e", "PASSWORD=hunter2", BUSYBOX, "sleep", "1"]).ok();
    world.sh(Place::Person, "mkfifo go; echo mine > .wh.seed; : > .wh..wh..opq; tar cf marks.tar .wh.*");
    let line = with_stead(&world, "cat go marks.tar | stead cp - box:/data; echo code=$?");
    let mut copying = world.spawn(Place::Person, &["sh", "-c", &line]);
    let mut out = copying.stdout();
    let seen = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '__copy.*' || :";
    let words = world.until("it copies", || {
        let words = world.sh(Place::Computer, seen).replace("__copy.*", "");
        words.contains("__copy").then_some(words)
    });
    assert!(!words.contains("hunter2"), "{words}");
    world.sh(Place::Person, ": > go");
    let mut code = String::new();
    std::io::BufRead::read_line(&mut out, &mut code).unwrap();
    assert_eq!(code, "code=0\n");
    stead(&world, &["cp", "box:/data", "copied"]).ok();
    let found = world.sh(Place::Person, "cd copied; cat seed .wh.seed; ls -A | grep -c opq");
    assert_eq!(found, "from-the-image\nmine\n1\n");
}
