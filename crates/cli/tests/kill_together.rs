//! Commands at once, in one home and in two: they queue or go on, and never spoil each other's work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kill_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Stdio;

use kill_support::{FULL, Outside, Started, World, is_root, judge};

fn ends_well(started: Vec<(String, Started)>) {
    for (line, started) in started {
        let ran = started.end();
        assert_eq!(ran.code, 0, "`stead {line}`:\n{}{}", ran.out, ran.err);
        assert!(!ran.err.contains("database"), "`stead {line}`: {}", ran.err);
    }
}

#[test]
fn commands_at_once_on_one_project_leave_it_whole() {
    let world = World::new(Outside::Forwards, FULL);
    let lines = ["up", "down", "plan", "ps", "up", "ls", "network ls", "up"];
    for round in 0..6 {
        let mut rotated = lines;
        rotated.rotate_left(round);
        ends_well(rotated.iter().map(|line| ((*line).to_owned(), world.start(line))).collect());
    }
    world.arrives();
    world.serves();
    world.leaves_nothing();
}

#[test]
fn commands_at_once_on_many_projects_do_not_disturb_each_other() {
    let world = World::new(Outside::Forwards, FULL);
    let other = |name: &str| {
        let path = world.project.join(format!("{name}.d"));
        fs::create_dir(&path).unwrap();
        let text = "networks: { lan: {} }\nmachines: { a: { kind: container, driver: external, networks: [lan] } }\n";
        fs::write(path.join("stead.yaml"), format!("name: {name}\n{text}")).unwrap();
        format!("-f {name}.d/stead.yaml")
    };
    let others = ["one", "two", "three"].map(other);
    for _ in 0..4 {
        let mut lines: Vec<String> = others.iter().map(|file| format!("{file} up")).collect();
        lines.extend(["up", "plan", "ps --all", "network create spare"].map(str::to_owned));
        ends_well(lines.iter().map(|line| (line.clone(), world.start(line))).collect());
        for file in &others {
            assert_eq!(world.ok(&format!("{file} plan")), "nothing to do\n");
        }
        world.stands();
        let mut lines: Vec<String> = others.iter().map(|file| format!("{file} down")).collect();
        lines.extend(["network rm spare", "ps", "up"].map(str::to_owned));
        ends_well(lines.iter().map(|line| (line.clone(), world.start(line))).collect());
        world.stands();
    }
    world.serves();
    fs::read_dir(&world.project).unwrap().flatten().filter(|entry| entry.path().is_dir()).for_each(|entry| {
        fs::remove_dir_all(entry.path()).unwrap();
    });
    world.leaves_nothing();
}

#[test]
fn a_purge_among_other_commands_leaves_a_whole_home() {
    let world = World::new(Outside::Forwards, FULL);
    for _ in 0..6 {
        let lines = ["up", "purge --yes", "up", "ps", "purge --yes", "plan"];
        ends_well(lines.iter().map(|line| ((*line).to_owned(), world.start(line))).collect());
    }
    world.arrives();
    world.leaves_nothing();
}

/// A command that has claimed a range and not yet given the claim to its anchor is no other home.
#[test]
fn a_plan_waits_for_what_another_command_has_half_made() {
    let world = World::new(Outside::Forwards, FULL);
    world.ok("up");
    world.ok("down");
    let lock = fs::File::open(world.run_file("lock")).unwrap();
    lock.lock().unwrap();
    let pinned = fs::read_to_string(world.project.join("stead.lock")).unwrap();
    let subnet = pinned.split('"').find(|word| word.ends_with(".0/24")).unwrap();
    let name = SocketAddr::from_abstract_name(format!("stead/subnet/{subnet}")).unwrap();
    let claim = UnixListener::bind_addr(&name).unwrap();
    let mut plan = world.command("plan").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(plan.stderr.take().unwrap()).lines();
    let first = told.next().unwrap().unwrap();
    assert!(first.contains("waiting for"), "{first}");
    drop((claim, lock));
    let planned = plan.wait_with_output().unwrap();
    assert!(planned.status.success(), "{told:?}");
    assert!(String::from_utf8(planned.stdout).unwrap().contains("+ network"));
    world.leaves_nothing();
}

/// The IPv4 addresses that `stead ps` shows.
fn addresses(world: &World) -> Vec<String> {
    let rows: serde_json::Value = serde_json::from_str(&world.ok("ps --format json")).unwrap();
    let nics = rows.as_array().unwrap().iter().flat_map(|row| row["nics"].as_array().unwrap());
    nics.filter_map(|nic| nic["address"].as_str().map(str::to_owned)).collect()
}

/// The subnets, which are all /24.
fn subnets(world: &World) -> Vec<String> {
    addresses(world).iter().map(|a| a.rsplit_once('.').unwrap().0.to_owned()).collect()
}

#[test]
fn two_homes_at_once_choose_different_subnets_and_do_not_see_each_other() {
    let one = World::new(Outside::Forwards, FULL);
    let two = World::beside(FULL);
    for _ in 0..10 {
        ends_well(vec![("up".to_owned(), one.start("up")), ("up".to_owned(), two.start("up"))]);
        one.stands();
        two.stands();
        let (of_one, of_two) = (subnets(&one), subnets(&two));
        assert!(of_one.iter().all(|subnet| !of_two.contains(subnet)), "{of_one:?} {of_two:?}");
        if is_root() {
            let rules = judge("nft", "list table inet stead");
            assert_eq!(rules.matches("chain fwd-").count(), 2, "{rules}");
        }
        one.ok("down");
        two.stands();
        two.serves();
        ends_well(vec![("up".to_owned(), one.start("up")), ("down".to_owned(), two.start("down"))]);
        one.stands();
        one.ok("down");
        for world in [&one, &two] {
            fs::remove_file(world.project.join("stead.lock")).unwrap();
        }
    }
    two.leaves_nothing();
    one.leaves_nothing();
}

#[test]
fn a_purge_of_one_home_leaves_the_other_alone() {
    let one = World::new(Outside::ForwardsNot, FULL);
    let two = World::beside(FULL);
    one.ok("up");
    two.ok("up");
    one.kill_all();
    one.ok("purge --yes");
    two.stands();
    two.serves();
    two.leaves_nothing();
    one.is_as_before();
}
