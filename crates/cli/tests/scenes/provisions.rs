//! Scripts that are run in machines once they run: each once, before what depends on their machine, again when they failed or
//! are others by now, and to their end when the command that wanted them is killed.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Project, Role, World, role};

const SHOP: &str = "\
machines:
  web:
    image: IMAGE
    init: true
    command: sleep 1000
    provision:
      - { run: 'echo \"$$GREETING $$(id -u)\" | tee -a /etc/told; echo oops >&2', environment: { GREETING: hello } }
      - { path: ./setup.sh }
  after:
    image: IMAGE
    init: true
    command: sleep 1000
    depends_on: [web]
";

/// A machine with these scripts alone.
fn scripts(list: &str) -> String {
    format!(
        "machines:\n  web: {{ image: {BUSYBOX}, init: true, command: sleep 1000, provision: [{list}] }}\n"
    )
}

#[track_caller]
fn told(shop: &Project<'_>) -> String {
    shop.stead("exec web cat /etc/told").ok()
}

#[test]
fn scripts_are_run_once_and_again_when_they_are_others() {
    let world = World::offline();
    let _registry = registry(&world);
    let text = SHOP.replace("IMAGE", BUSYBOX);
    let shop = world.project("shop", &text);
    let setup = |text: &str| std::fs::write(shop.directory.join("setup.sh"), text).unwrap();
    setup("#!/bin/sh -e\nread -r line || echo \"no input, $0\" >>/etc/told\nfalse\necho never >>/etc/told\n");
    // What failed leaves the machine, and what depends on it waits.
    let said = shop.stead("up").code(1).says("web.shop | hello 0\n").says("web.shop | oops\n");
    let said = said.says("step `> provision web.shop (2 of 2)` failed").says("the script ended with 1");
    said.says("hint: `stead shell web.shop` to look around; the next `stead up` runs it again");
    assert_eq!(told(&shop), "hello 0\nno input, /proc/self/fd/3\n");
    let status =
        |machine: &str| shop.stead(&format!("ps --all {machine} --format json")).json()[0]["status"].clone();
    assert_eq!((status("web"), status("after")), ("running".into(), "created".into()));
    assert!(shop.plan().contains("> provision web.shop (2 of 2)  # machines.web.provision[1] (stead.yaml:"));
    shop.stead("up").code(1).says("it wrote nothing");
    setup("echo done >>/etc/told\nsleep 1000 &\nwhile :; do echo on; sleep 0.1; done &\n");
    let done = shop.stead("up").ok();
    assert!(
        done.starts_with("> provision web.shop (2 of 2)\n") && done.contains("> start after.shop\n"),
        "{done}"
    );
    assert_eq!(shop.stead("up").ok(), "nothing to do\n");
    let first = "hello 0\nno input, /proc/self/fd/3\nno input, /proc/self/fd/3\ndone\n";
    assert_eq!(told(&shop), first);
    // Neither a machine that is started again nor one whose scripts are others is made anew.
    shop.stead("stop --time 0 web").ok();
    assert!(!shop.stead("up").ok().contains("provision"));
    setup("echo other >>/etc/told\n");
    assert_eq!(
        shop.plan(),
        "> provision web.shop (2 of 2)  # machines.web.provision[1] (changed) (stead.yaml:8)\n"
    );
    shop.stead("up").ok();
    assert_eq!(told(&shop), format!("{first}other\n"));
    // What goes back to what it was is provisioned as it was then.
    shop.stead("stop --time 0 web").ok();
    shop.stead("snapshot create web whole").ok();
    shop.stead("reset web").ok();
    assert_eq!(shop.plan().matches("> provision web.shop").count(), 2);
    shop.stead("up").ok();
    assert_eq!(told(&shop), "hello 0\nother\n");
    shop.stead("stop --time 0 web").ok();
    shop.stead("snapshot restore web whole").ok();
    assert_eq!(shop.stead("up").ok(), "> start web.shop\n");
    assert_eq!(told(&shop), format!("{first}other\n"));
    shop.stead("down --yes").ok();
}

#[test]
fn a_script_comes_to_its_end_whoever_is_killed() {
    let world = World::offline();
    let _registry = registry(&world);
    let slow = "'echo begun >>/etc/told; while [ ! -e /etc/go ]; do sleep 0.1; done; echo ended >>/etc/told'";
    let shop = world.project("shop", &scripts(slow));
    let up = world.spawn_stead(&shop.directory, &["up"]);
    let is_told = |text: &str| {
        let said = shop.stead("exec web cat /etc/told");
        (said.code == 0 && said.out == text).then_some(())
    };
    world.until("it has begun", || is_told("begun\n"));
    // Others may change the home meanwhile.
    shop.stead("network create other").ok();
    shop.stead("network rm other").ok();
    up.end();
    shop.stead("exec web touch /etc/go").ok();
    // Whoever comes next waits for it, and has nothing left to run.
    shop.stead("up").ok();
    assert_eq!(told(&shop), "begun\nended\n");
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // Nobody would remember this one: it ends, with all that it has started.
    shop.write(&scripts("sleep 777; true"));
    let mut up = world.spawn_stead(&shop.directory, &["up"]);
    let runs = || shop.stead("exec web ps").ok().contains("sleep 777");
    world.until("it runs", || runs().then_some(()));
    world.sh(Place::Computer, "kill -9 $(pgrep -f '[_]_provision')");
    world.until("it has ended", || (!runs() && !up.is_alive()).then_some(()));
    assert!(shop.plan().contains("> provision web.shop (1 of 1)"));
    // One that ends with its machine has not succeeded.
    shop.write(&scripts("kill -TERM 1; sleep 1000"));
    shop.stead("up").code(1).says("step `> provision web.shop (1 of 1)` failed");
    assert!(shop.plan().contains("> provision web.shop (1 of 1)"));
    // As somebody else, where there is somebody else.
    shop.write(&scripts("{ run: 'id -u >/tmp/who', user: 'app' }"));
    match role() {
        Role::Root => {
            shop.stead("up").ok();
            assert_ne!(shop.stead("exec web cat /tmp/who").ok(), "0\n");
        }
        Role::User => drop(shop.stead("up").code(1).says("> provision web.shop")),
    }
    shop.stead("down").ok();
}

#[test]
fn what_runs_a_script_does_not_without_who_wants_it() {
    let world = World::offline();
    // As if who started it had been killed at once: somebody else is its parent by now.
    world.stead("__exec 1").code(125).says("who wanted the script to be run has gone");
}
