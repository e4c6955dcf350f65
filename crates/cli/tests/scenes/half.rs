//! What a command leaves that is killed within a step, made by hand: the next one finishes it, or takes it away.
//! (`kill_steps` kills between steps and at random moments; these are the moments that are too short to hit.)

use crate::support::{Place, Project, Role, World, role, untested};

const LAB: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static, reach: isolated } }
machines:
  web: { kind: container, driver: external, networks: [lan] }
  box: { kind: vm, driver: external, networks: [lan] }
";

/// A line of shell beside all machines, where the bridges are.
#[track_caller]
fn inside(project: &Project<'_>, line: &str) -> String {
    let words = ["network", "enter", "--", "sh", "-e", "-c", line];
    project.world.stead_at(&project.home, &project.directory, &words).ok()
}

/// The link of a machine's only nic.
#[track_caller]
fn link(project: &Project<'_>, machine: &str) -> String {
    let rows = project.stead(&format!("ps {machine} --format json")).json();
    rows[0]["nics"][0]["link"].as_str().unwrap().to_owned()
}

/// The next `up` finishes, and nothing is left to do.
#[track_caller]
fn arrives(project: &Project<'_>) {
    assert_ne!(project.stead("plan").ok(), "nothing to do\n", "nothing is half done");
    project.stead("up").ok();
    assert_eq!(project.stead("plan").ok(), "nothing to do\n");
}

#[test]
fn a_nic_without_its_settings_is_made_anew() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let link = link(&lab, "web");
    // Its end in the machine was not set up yet, and so it is on no bridge.
    inside(&lab, &format!("ip link set {link} nomaster down"));
    lab.on("web", "ip address flush dev eth0; ip link set eth0 down").ok();
    arrives(&lab);
    lab.on("web", "ping -c 1 -W 5 10.0.5.1").ok();
    assert!(lab.on("web", "ip route show default").ok().is_empty(), "isolated, and yet a router");
    // The same, and then it is not wanted any more.
    inside(&lab, &format!("ip link set {link} nomaster down"));
    lab.stead("down").ok();
}

#[test]
fn a_nic_whose_far_end_has_gone_is_made_anew() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    lab.on("web", "ip link delete eth0").ok();
    arrives(&lab);
    lab.on("web", "ping -c 1 -W 5 10.0.5.1").ok();
}

#[test]
fn a_tap_that_was_made_and_not_kept_is_made_anew_with_its_guard() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let link = link(&lab, "box");
    let guard = "nft list ruleset | grep -o 'stt-[a-z0-9-]*\"[^,}]*' | sort";
    let before = inside(&lab, guard);
    assert!(before.contains(&link), "{before}");
    // It goes with the descriptor of who was killed; what the rules say of it stays.
    inside(&lab, &format!("ip link delete {link}"));
    arrives(&lab);
    assert_eq!(inside(&lab, guard), before);
    assert!(inside(&lab, &format!("ip -d link show {link}")).contains("persist on"));
    // Or nobody wants it any more: the rules forget it as well.
    inside(&lab, &format!("ip link delete {link}"));
    lab.stead("up").ok();
    inside(&lab, &format!("ip link delete {link}"));
    let (head, _) = LAB.split_once("  box").unwrap();
    lab.write(head);
    lab.stead("up").ok();
    assert_eq!(lab.stead("plan").ok(), "nothing to do\n");
    lab.write(LAB);
    lab.stead("up").ok();
    assert_eq!(inside(&lab, guard), before);
}

#[test]
fn a_tap_that_is_on_no_bridge_is_put_there() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let link = link(&lab, "box");
    inside(&lab, &format!("ip link set {link} nomaster"));
    arrives(&lab);
    let shown = inside(&lab, &format!("ip -d link show {link}"));
    assert!(shown.contains("persist on") && shown.contains("master stb-lan-"), "{shown}");
}

#[test]
fn a_volume_that_was_half_deleted_is_gone_with_the_next_command() {
    let world = World::offline();
    let lab = world.project("lab", &format!("{LAB}volumes: [data]\n"));
    lab.stead("up").ok();
    let state = world.path().join("home/state");
    let line = format!(
        "mkdir -p {state}/going/data.lab.0/deep && echo 1 > {state}/going/data.lab.0/deep/file && echo 2 > {state}/volumes/lab/data/kept",
        state = state.display()
    );
    world.sh(Place::Person, &line);
    // To look deletes nothing.
    lab.stead("plan").ok();
    assert!(state.join("going").exists());
    lab.stead("up").ok();
    assert!(!state.join("going").exists());
    assert!(state.join("volumes/lab/data/kept").exists());
    lab.stead("down --volumes --yes").ok();
    assert!(!state.join("volumes/lab").exists());
}

fn claims(world: &World) -> String {
    world.sh(Place::Computer, "grep -o '@stead/subnet/.*' /proc/net/unix | sort || true")
}

#[test]
fn the_claims_of_a_home_that_was_killed_go_with_it() {
    let world = World::offline();
    let text = "networks: { lan: { subnet: 10.0.5.0/24, subnet6: off, reach: isolated } }";
    let (one, two) = (world.project_at("one", "lab", text), world.project_at("two", "lab", text));
    one.stead("up").ok();
    assert_eq!(claims(&world), "@stead/subnet/10.0.5.0/24\n");
    two.stead("up").code(2).says("10.0.5.0/24").says("stead.yaml:1:");
    let run = world.path().join("one/run");
    let line = format!("kill -9 $(cut -d ' ' -f 1 {}/anchor.pid)", run.display());
    world.sh(Place::Person, &line);
    world.until("the claim has gone", || claims(&world).is_empty().then_some(()));
    two.stead("up").ok();
    // Who comes back finds it taken, and is told so.
    one.stead("up").code(2).says("10.0.5.0/24").says("another home");
    one.stead("down").ok();
    assert_eq!(two.stead("plan").ok(), "nothing to do\n");
}

#[test]
fn a_claim_without_a_network_is_let_go() {
    let world = World::offline();
    let text = "networks: { lan: { subnet: 10.0.5.0/24, subnet6: off, reach: isolated } }";
    let lab = world.project("lab", text);
    let other = world.project("other", &text.replace("10.0.5", "10.0.6"));
    other.stead("up").ok();
    let bridge = lab.plan();
    assert!(bridge.contains("+ network lan.lab 10.0.5.0/24"), "{bridge}");
    // Something that is not ours has the bridge's name: the step fails after its claim.
    lab.stead("up").ok();
    let rows = world.stead("network ls --format json").json();
    let link = rows[0]["link"].as_str().unwrap().to_owned();
    lab.stead("down").ok();
    inside(&other, &format!("ip link add {link} type veth peer name other"));
    lab.stead("up").code(1).says(&format!("{link} is there already, and no bridge")).says("hint: delete it");
    assert_eq!(claims(&world), "@stead/subnet/10.0.6.0/24\n");
    lab.write(&text.replace("10.0.5", "10.0.7").replace("lan:", "wan:"));
    lab.stead("up").ok();
    assert_eq!(claims(&world), "@stead/subnet/10.0.6.0/24\n@stead/subnet/10.0.7.0/24\n");
    inside(&other, &format!("ip link delete {link}"));
}

const BRIDGED: &str = "
networks: { wire: { reach: { bridged: LINK } } }
defaults: { kind: container, driver: external }
machines: { web: { networks: [wire] } }
";

/// A computer with a real network behind `eth1`, which is up.
fn real_network(set_up: &str) -> World {
    let mut world = World::online();
    let add = format!("ip link add eth1 type veth peer name eth1 netns {}", world.outside_pid());
    world.sh(Place::Computer, &add);
    world.sh(Place::Outside, "ip address add 198.51.100.1/24 dev eth1; ip link set eth1 up");
    world.sh(Place::Computer, set_up);
    world.settle();
    world
}

#[track_caller]
fn reaches_the_wire(lab: &Project<'_>) {
    lab.on("web", "ip address replace 198.51.100.9/24 dev eth0; ip link set eth0 up").ok();
    lab.until_on("web", "ping -c 1 -W 1 198.51.100.1");
}

#[test]
fn a_nic_that_was_half_lent_or_half_given_back_is_not_lost() {
    if role() == Role::User {
        return untested("only root lends a computer's nic");
    }
    let world = real_network(
        "ip link set eth1 up; until ip address show dev eth1 | grep -q 'inet6 fe80'; do sleep 0.02; done",
    );
    let lab = world.project("lab", &BRIDGED.replace("LINK", "eth1"));
    lab.stead("up").ok();
    reaches_the_wire(&lab);
    // Moved to the engine, and on no bridge yet.
    inside(&lab, "ip link set eth1 nomaster down");
    arrives(&lab);
    reaches_the_wire(&lab);
    // The same, and the network is not wanted any more.
    inside(&lab, "ip link set eth1 nomaster down");
    lab.stead("down").ok();
    let is_as_before = "ip -o link show eth1 | grep UP | grep -v stead: && ! ip link show eth1 | grep alias";
    world.sh(Place::Computer, is_as_before);
    // Moved back, and not yet what it was before: the way between namespaces takes a link down.
    for line in ["up", "down", "purge --yes"] {
        lab.stead("up").ok();
        inside(&lab, "ip link set eth1 nomaster; ip link set eth1 netns /proc/$(cut -d ' ' -f 1 RUN/switchboard.pid)/ns/net".replace("RUN", &world.path().join("home/run").display().to_string()).as_str());
        world.sh(Place::Computer, "ip link show eth1 | grep -q 'alias stead:bridged wire.lab eth1 up'");
        lab.stead(line).ok();
        if line == "up" {
            reaches_the_wire(&lab);
            lab.stead("down").ok();
        }
        world.sh(Place::Computer, is_as_before);
    }
}

#[test]
fn a_joint_of_two_bridges_that_was_half_made_is_mended() {
    if role() == Role::User {
        return untested("only root lends a computer's nic");
    }
    let bridge = "ip link add br0 type bridge; ip link set br0 up; ip link set eth1 master br0 up; \
        until ip link show br0 | grep -q 'state UP'; do sleep 0.02; done";
    let world = real_network(bridge);
    let lab = world.project("lab", &BRIDGED.replace("LINK", "br0"));
    let near = "ip -o link show master br0 | grep -o 'stp-[a-z0-9-]*' | head -1";
    lab.stead("up").ok();
    reaches_the_wire(&lab);
    // Both ends are there, the computer's without a bridge, a mark, and down.
    let near = world.sh(Place::Computer, near).trim().to_owned();
    world.sh(Place::Computer, &format!("ip link set {near} nomaster down alias ''"));
    arrives(&lab);
    reaches_the_wire(&lab);
    world.sh(Place::Computer, &format!("ip link set {near} nomaster down alias ''"));
    lab.stead("down").ok();
    assert_ne!(world.sh_said(Place::Computer, &format!("ip link show {near}")).code, 0);
}
