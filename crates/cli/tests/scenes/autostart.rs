//! Machines that run again when the computer has started. What a reboot leaves is had by killing all of a home, and taking away
//! what goes with the computer. With systemd itself it is in `systems`.

use serde_json::{Value, json};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, World, said};

/// `db` is well only when somebody says so.
const SHOP: &str = "\
name: shop
defaults: { restart: unless-stopped }
machines:
  web: { image: IMAGE, init: true, command: sleep 1000, depends_on: { db: { condition: service_healthy } } }
  db:
    image: IMAGE
    command: sleep 1000
    init: true
    restart: always
    healthcheck: { test: test -e /kept/well, interval: 1s, start_period: 60s, start_interval: 100ms }
    volumes: [\"kept:/kept\"]
  shy: { image: IMAGE, init: true, command: sleep 1000 }
  once: { image: IMAGE, init: true, command: sleep 1000, restart: on-failure }
volumes: [kept]
";

/// Says that it was asked to end.
const ENDS: &str = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.1; done";

#[track_caller]
fn run(world: &World, words: &[&str], line: &str) {
    let words = [words, &[BUSYBOX, "sh", "-c", line]].concat();
    said(world.stead_command("home", world.path(), &words)).ok();
}

/// What is decided of each machine.
#[track_caller]
fn decided(world: &World) -> Value {
    let status = world.stead("autostart status --format json").json();
    let machines = status["machines"].as_array().unwrap().iter();
    Value::Object(
        machines.map(|one| (one["machine"].as_str().unwrap().to_owned(), one["why"].clone())).collect(),
    )
}

/// The names of those that run.
#[track_caller]
fn running(world: &World) -> Vec<String> {
    let rows = world.stead("ps --all --filter status=running").ok();
    rows.lines().skip(1).map(|row| row.split(' ').next().unwrap().to_owned()).collect()
}

/// Ends all at once, as the power does, and takes away what is in memory.
#[track_caller]
fn reboot(world: &World) {
    let line = "for word in __watcher __switchboard __keeper __anchor; do pkill -9 -f \"^[^ ]*stead $word\" || :; done
        while pgrep -f '^[^ ]*stead __' | xargs -r ps -o stat= -p | grep -qv Z; do sleep 0.02; done; rm -rf home/run";
    world.sh(Place::Computer, &format!("cd {}; {line}", world.path().display()));
}

#[test]
fn machines_run_again_when_the_computer_has_started_unless_somebody_stopped_them() {
    let world = World::offline();
    let _registry = registry(&world);
    assert_eq!(world.stead("autostart start").ok(), "");
    let shop = world.project("shop", &SHOP.replace("IMAGE", BUSYBOX));
    shop.stead("up db shy once").ok();
    shop.stead("exec db touch /kept/well").ok();
    shop.stead("up").ok();
    run(&world, &["run", "-d", "--name", "lone", "--restart", "unless-stopped"], ENDS);
    run(&world, &["run", "-d", "--name", "off", "--restart", "always"], ENDS);
    run(&world, &["run", "-d", "--name", "waits", "--restart", "unless-stopped"], "exit 1");
    run(&world, &["create", "--name", "new", "--restart", "always"], ENDS);
    // Stopped in whichever way.
    world.until("it is up", || (world.stead("logs off").ok() == "up\n").then_some(()));
    world.stead("stop off shy.shop").ok();
    world.until("it waits", || {
        let seen = world.stead("inspect waits --format json").json()[0].clone();
        (seen["restarts"].as_u64() >= Some(3)).then_some(())
    });
    world.stead("stop waits").ok();
    let after = json!({
        "web.shop": "starts", "db.shop": "starts", "shy.shop": "stopped", "once.shop": "policy",
        "lone.default": "starts", "off.default": "starts", "waits.default": "stopped", "new.default": "new",
    });
    assert_eq!(decided(&world), after);
    // Where there is no systemd nothing is changed, and what to do is told.
    world.stead("autostart enable").code(1).says("systemd does not run").says("stead autostart start");
    let status = world.stead("autostart status --format json").json();
    assert_eq!(
        (&status["found"], &status["enabled"], &status["systemd"]),
        (&json!("absent"), &json!(false), &json!(false))
    );

    reboot(&world);
    assert_eq!(decided(&world), after);
    let started = world.stead("autostart start").ok();
    let place = |step: &str| started.find(step).unwrap_or_else(|| panic!("no `{step}`: {started}"));
    assert!(place("> start db.shop\n") < place("> start web.shop\n"), "{started}");
    let back = ["lone.default", "off.default", "db.shop", "web.shop"];
    assert_eq!(running(&world), back);
    shop.stead("exec web ping -c 1 db").ok();
    assert_eq!(world.stead("autostart start").ok(), "");

    // They are asked to end before the computer goes off, and that is nobody's wish.
    world.until("it is up", || world.stead("logs lone").ok().ends_with("up\n").then_some(()));
    let ended = world.stead("autostart stop").ok();
    assert_eq!(ended, "lone.default\noff.default\nweb.shop\ndb.shop\n");
    assert!(world.stead("logs lone").ok().ends_with("asked\n"));
    let exit = world.stead("inspect lone --format json").json()[0]["exit"].clone();
    assert_eq!((&exit["asked"], &exit["with_computer"]), (&json!(true), &json!(true)));
    assert_eq!(decided(&world), after);

    holds_up_nothing_else(&world, &shop, &back);
    stays_stopped_without_power(&world);
    world.stead("purge --yes").ok();
}

/// What fails holds up nothing else, and is told of each.
#[track_caller]
fn holds_up_nothing_else(world: &World, shop: &Project<'_>, back: &[&str]) {
    reboot(world);
    let file = shop.directory.join("stead.yaml");
    let aside = shop.directory.join("aside");
    std::fs::rename(&file, &aside).unwrap();
    let failed = world.stead("autostart start").code(1);
    failed
        .says("error: machine `db.shop` was not started")
        .says("error: machine `web.shop` was not started")
        .says("cause: there is no stead.yaml");
    assert_eq!(running(world), ["lone.default", "off.default"]);
    std::fs::rename(&aside, &file).unwrap();
    world.stead("autostart start").ok();
    assert_eq!(running(world), back);
}

/// The power goes while one is being stopped: it stays so, whatever comes of it.
#[track_caller]
fn stays_stopped_without_power(world: &World) {
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    run(
        world,
        &["run", "-d", "--name", "deaf", "--stop-timeout", "100", "--restart", "unless-stopped"],
        deaf,
    );
    world.until("it is up", || (world.stead("logs deaf").ok() == "up\n").then_some(()));
    let mut stop = world.spawn_stead(world.path(), &["stop", "deaf"]);
    let mark = world.path().join("home/state/machines/deaf.default/stopping");
    world.until("it is being stopped", || mark.exists().then_some(()));
    world.sh(Place::Computer, "pkill -9 -f '[s]tead stop deaf'");
    world.until("nobody waits", || (!stop.is_alive()).then_some(()));
    reboot(world);
    assert_eq!(decided(world)["deaf.default"], "stopped");
    world.stead("start deaf").ok();
    assert_eq!(decided(world)["deaf.default"], "starts");
    // So does one that is stopped before anything started it again.
    reboot(world);
    assert_eq!(decided(world)["deaf.default"], "starts");
    world.stead("stop deaf").ok();
    assert_eq!(decided(world)["deaf.default"], "stopped");
    world.stead("rm --force deaf").ok();
}
