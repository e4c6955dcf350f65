//! What is told while something takes longer than people like to look at nothing.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, World, said};

/// Ends only when it is killed, after its time of grace.
const STUBBORN: &str = "trap '' TERM INT; echo up; while :; do sleep 0.1; done";

/// Starts a machine that takes six seconds to end.
fn stubborn(world: &World, name: &str) {
    let words = ["run", "-d", "--name", name, "--stop-timeout", "6", BUSYBOX, "sh", "-c", STUBBORN];
    said(world.stead_command("home", world.path(), &words)).ok();
    // Before it says so it has not yet shut its ears.
    world.until("it is up", || (world.stead(&format!("logs {name}")).ok() == "up\n").then_some(()));
}

#[test]
fn steps_and_what_was_begun_before_are_told_when_they_take_long() {
    let world = World::offline();
    let _registry = registry(&world);
    stubborn(&world, "one");
    stubborn(&world, "two");
    let stopped = world.stead("stop one").code(0).says("working on `> stop one.default`\n");
    assert_eq!(stopped.out, "> stop one.default\n");
    // A plain line, whoever reads it.
    assert!(!stopped.err.contains(['\r', '\x1b']), "{:?}", stopped.err);
    world.stead("network create quick --reach isolated").ok();
    // A command that is killed leaves its work to the next one.
    let stop = world.spawn_stead(world.path(), &["stop", "two"]);
    let begun = world.path().join("home/state/machines/two.default/stopping");
    world.until("its end has begun", || begun.exists().then_some(()));
    stop.end();
    world.stead("network rm quick").code(0).says("working on what earlier commands had begun\n");
    assert_eq!(world.stead("wait two").ok(), "137\n");
    stubborn(&world, "three");
    world.stead("restart three --time 2").code(0).says("working on starting machines again\n");
    world.until("it is up again", || (world.stead("logs three").ok() == "up\nup\n").then_some(()));
    world.stead("stop three --time 1").code(0).says("working on ending machines\n");
}

#[test]
fn a_machine_that_is_removed_by_force_is_not_waited_for() {
    let world = World::offline();
    let _registry = registry(&world);
    for name in ["one", "two"] {
        let words = ["run", "-d", "--name", name, "--stop-timeout", "600", BUSYBOX, "sh", "-c", STUBBORN];
        said(world.stead_command("home", world.path(), &words)).ok();
        world.until("it is up", || (world.stead(&format!("logs {name}")).ok() == "up\n").then_some(()));
    }
    world.stead("rm one").code(2).says("machine `one.default` runs");
    // A command may take as long as a scene waits for it, which is less than they would.
    world.stead("rm --force one two").ok();
    assert_eq!(world.stead("ps --all --format json").json(), serde_json::json!([]));
}

#[test]
fn purge_tells_that_it_deletes() {
    let world = World::offline();
    world.stead("network create lan --reach isolated").ok();
    // More names than can be deleted in half a second.
    let many = "for $d (1..12) { mkdir qq(many$d); open F, qq(>many$d/0); \
                for (1..30000) { link qq(many$d/0), qq(many$d/$_) or die $! } }";
    world.sh(Place::Person, &format!("mkdir -p home/state/images; cd home/state/images; perl -e '{many}'"));
    world
        .stead("purge --yes")
        .code(0)
        .says("working on deleting images, volumes, disks and what machines wrote\n");
}
