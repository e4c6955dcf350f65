//! What is made by command, and the projects beside it: nothing is touched that nobody named, and what was said is done.

use std::fs::OpenOptions;
use std::io::BufRead;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{LIMIT, Place, Said, World, said, said_after, untested};

/// Runs `stead` with these words, of which some have spaces.
#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

/// A machine that stays, with these options.
#[track_caller]
fn sleeper(world: &World, options: &str) -> Said {
    world.stead(&format!("run -d --init {options} {BUSYBOX} sleep 1000"))
}

/// All machines.
#[track_caller]
fn machines(world: &World) -> Value {
    world.stead("ps --all --format json").json()
}

/// The processes of all machines.
#[track_caller]
fn pids(world: &World) -> Vec<Value> {
    machines(world).as_array().unwrap().iter().map(|row| row["pid"].clone()).collect()
}

/// The nics that a machine has inside.
#[track_caller]
fn nics(world: &World, machine: &str) -> String {
    stead(world, &["exec", machine, "sh", "-c", "ip -o -4 addr | awk '$2 != \"lo\" { print $2, $4 }'"]).ok()
}

#[test]
fn networks_come_and_go_under_machines_that_run() {
    let world = World::offline();
    let _registry = registry(&world);
    sleeper(&world, "--name alone --network none").ok();
    sleeper(&world, "--name web").ok();
    let before = pids(&world);
    let lan = "network create lan --subnet 10.1.2.0/24 --subnet6 off --reach isolated";
    assert!(world.stead(lan).ok().contains("+ network lan.default"));
    // Whichever of the two comes first by its name.
    for name in ["aa", "zz"] {
        let overlapping = format!("network create {name} --subnet 10.1.0.0/16 --reach isolated");
        let said = world.stead(&overlapping).code(2);
        said.says("error: 10.1.0.0/16 (`--subnet`) overlaps 10.1.2.0/24 of network `lan`\n");
    }
    assert!(world.stead("network connect lan web").ok().contains("+ nic web/lan.default"));
    assert!(nics(&world, "web").contains("eth1 10.1.2.2/24"), "{}", nics(&world, "web"));
    assert!(world.stead("network connect lan alone").ok().contains("+ nic alone/lan.default"));
    assert_eq!(nics(&world, "alone"), "eth0 10.1.2.3/24\n");
    world.stead("network disconnect default web").ok();
    assert_eq!(nics(&world, "web"), "eth1 10.1.2.2/24\n", "what stays keeps its name");
    world.stead("network disconnect default web").code(2).says("has no nic on network `default`");
    world.stead("network rm lan").code(2).says("alone, web");
    assert!(world.stead("network rm lan --force").ok().contains("- network lan.default"));
    assert_eq!((nics(&world, "alone"), nics(&world, "web")), (String::new(), String::new()));
    assert_eq!(pids(&world), before, "they are the same all along");
    // The first one that is named is the first one inside.
    world.stead("network create zz --subnet 10.1.9.0/24 --subnet6 off --reach isolated").ok();
    sleeper(&world, "--name both --network zz --network default").ok();
    assert!(nics(&world, "both").starts_with("eth0 10.1.9."), "{}", nics(&world, "both"));
    // A published port needs an address.
    sleeper(&world, "--name served --publish 127.0.0.1:8080:80").ok();
    world.stead("network disconnect default served").code(2).says("machine `served` is on no network");
    assert!(nics(&world, "served").starts_with("eth0 "));
    world.stead("rm --force alone both served web").ok();
}

const TWO: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', reach: isolated } }
machines:
  a: { kind: container, driver: external, networks: [lan], profiles: [x] }
  b: { kind: container, driver: external, networks: [lan], profiles: [y] }
  c: { kind: container, driver: external, networks: [lan] }
";

#[test]
fn machines_of_other_profiles_stay_with_their_addresses() {
    let world = World::offline();
    let shop = world.project("shop", TWO);
    let addresses = || {
        let rows = machines(&world);
        let of = |row: &Value| (row["name"].clone(), row["nics"][0]["address"].clone());
        rows.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    shop.stead("--profile x up a").ok();
    shop.stead("--profile y up b").ok();
    shop.stead("up").ok();
    let all = [("a", "10.0.5.2"), ("b", "10.0.5.4"), ("c", "10.0.5.3")];
    let all = all.map(|(name, address)| (json!(name), json!(address)));
    assert_eq!(addresses(), all);
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    // Whichever comes first the next time.
    shop.stead("down").ok();
    shop.stead("--profile y up").ok();
    assert_eq!(addresses(), all[1..]);
    shop.stead("--profile * up").ok();
    assert_eq!(addresses(), all);
    // A file that was cut off is no wish to have nothing.
    for text in ["", "name: shop\n", "machines:\n"] {
        shop.write(text);
        shop.stead("plan").code(2);
        shop.stead("up").code(2);
    }
    shop.stead("up").code(2).says("names no machine, no network and no volume").says("`stead down`");
    assert_eq!(addresses(), all);
    shop.stead("down").ok();
    assert_eq!(machines(&world), json!([]));
}

#[test]
fn a_volume_goes_whosever_it_is() {
    // The root of a database's volume is the database's, who is nobody that we are.
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    let _registry = registry(&world);
    for removal in ["volume rm --yes theirs", "volume prune --yes"] {
        world.stead(&format!("run --rm -v theirs:/d {BUSYBOX} chown 70:70 /d")).ok();
        world.stead(removal).ok();
        assert_eq!(world.stead("volume ls -q").ok(), "");
    }
}

#[test]
fn what_a_command_took_back_stays_away() {
    let world = World::offline();
    let _registry = registry(&world);
    let volumes = || world.stead("volume ls -q").ok();
    for removal in ["volume rm gone --yes", "volume prune --yes --label none", "volume prune --yes"] {
        world.stead(&format!("run --rm -v gone:/d {BUSYBOX} true")).ok();
        assert_eq!(volumes(), "gone.default\n");
        world.stead(removal).ok();
        world.stead(&format!("run --rm {BUSYBOX} true")).ok();
        let is_kept = removal.ends_with("none");
        assert_eq!(volumes().is_empty(), !is_kept, "{removal}");
    }
    // One that was killed has ended.
    for _ in 0..5 {
        sleeper(&world, "--name gone").ok();
        world.stead("kill gone").ok();
        world.stead("rm gone").ok();
    }
    // A machine that did not become what was asked for does not run on unseen.
    let holder = world.spawn(Place::Person, &["socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork", "EXEC:cat"]);
    world.until("the port is taken", || {
        (world.sh_said(Place::Computer, "ss -Hltn sport = 8080 | grep -q 8080").code == 0).then_some(())
    });
    sleeper(&world, "-p 127.0.0.1:8080:80").code(125).says("8080");
    assert_eq!(machines(&world), json!([]));
    holder.end();
    // What is printed means the machine that was made, wherever it is said.
    let shop = world.project("shop", "machines: { web: { kind: container, driver: external } }\n");
    shop.stead("up").ok();
    let made = shop.stead(&format!("run -d --init --name web {BUSYBOX} sleep 1000")).ok();
    assert_eq!(made, "web.default\n");
    assert_eq!(shop.stead(&format!("create --name job {BUSYBOX} true")).ok(), "job\n");
    shop.stead("rm --force web.default job").ok();
    assert_eq!(machines(&world)[0]["project"], "shop");
    shop.stead("down").ok();
}

/// A program that says when it runs.
const SPEAKER: [&str; 3] = ["sh", "-c", "echo here; exec sleep 1000"];

/// `run --rm` of a machine that writes without end.
fn chatter(world: &World) -> Command {
    let line = "while echo line; do :; done";
    world.stead_command("home", world.path(), &["run", "--rm", "--init", BUSYBOX, "sh", "-c", line])
}

#[test]
fn what_was_to_go_goes_however_its_command_ends() {
    let world = World::offline();
    let _registry = registry(&world);
    // Whoever reads goes.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = chatter(&world).stdin(Stdio::null()).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(141));
    assert_eq!(machines(&world), json!([]));
    // There is no room.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = chatter(&world);
    let child = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot write to standard output"), "{text}");
    assert_eq!(machines(&world), json!([]));
    // The command is killed: its machine goes on, and goes when it ends.
    let mut words = vec!["run", "--rm", "--init", "--name", "gone", BUSYBOX];
    words.extend(SPEAKER);
    let mut command = world.spawn_stead(world.path(), &words);
    command.stdout().read_line(&mut String::new()).unwrap();
    command.end();
    world.stead("kill gone").ok();
    world.until("it has gone", || (machines(&world) == json!([])).then_some(()));
}

#[test]
fn who_was_to_remove_a_machine_removes_no_later_one_of_its_name() {
    let world = World::offline();
    let _registry = registry(&world);
    for how in ["run --rm", "run --rm -d"] {
        let line = format!("{how} --init --name box {BUSYBOX}");
        let words: Vec<&str> = line.split_whitespace().chain(SPEAKER).collect();
        let mut first = world.spawn_stead(world.path(), &words);
        first.stdout().read_line(&mut String::new()).unwrap();
        let theirs = "pgrep -f '[r]un --rm.*--name box|[_]_reap box.default'";
        if how.ends_with("-d") {
            world.until("the command has ended", || (!first.is_alive()).then_some(()));
        }
        world.sh(Place::Computer, &format!("kill -STOP $({theirs})"));
        world.stead("rm --force box").ok();
        sleeper(&world, "--name box").ok();
        let mine = pids(&world);
        world.sh(Place::Computer, &format!("kill -CONT $({theirs})"));
        world.until("they end", || (world.sh_said(Place::Computer, theirs).code == 1).then_some(()));
        assert_eq!(pids(&world), mine);
        world.stead("rm --force box").ok();
    }
}

#[test]
fn what_was_to_go_goes_wholly_once_nothing_hinders_it() {
    let world = World::offline();
    let _registry = registry(&world);
    sleeper(&world, "--rm --name gone").ok();
    let find = format!("find {} -path '*/default/stead.yaml'", world.path().display());
    let file = world.sh(Place::Computer, &find).trim().to_owned();
    let is_written = || std::fs::read_to_string(&file).unwrap().contains("gone");
    // Where that file is written before it takes its place: it cannot be.
    let hindrance = format!("{file}.new");
    std::fs::create_dir(&hindrance).unwrap();
    world.stead("kill gone").ok();
    let told = world.until("it is told that it cannot go", || {
        let events = world.stead("events --all --no-stream --since 1h --filter event=rm-failed").ok();
        (!events.is_empty()).then_some(events)
    });
    assert!(told.contains("rm-failed gone.default why=error: cannot write"), "{told}");
    assert!(machines(&world) == json!([]) && is_written());
    std::fs::remove_dir(&hindrance).unwrap();
    world.until("it has gone wholly", || (!is_written()).then_some(()));
    let reaper = "pgrep -f '[_]_reap gone.default'";
    world.until("nobody waits any more", || (world.sh_said(Place::Computer, reaper).code == 1).then_some(()));
    let again = world.stead("events --all --no-stream --since 1h --filter event=rm-failed").ok();
    assert_eq!(again.lines().count(), 1, "it is told once: {again}");
}

#[test]
fn a_name_that_was_written_down_for_nothing_is_free() {
    let world = World::offline();
    let _registry = registry(&world);
    let create = format!("create --name box {BUSYBOX} true");
    world.stead(&create).ok();
    let find = format!("find {} -path '*/default/stead.yaml'", world.path().display());
    let found = world.sh(Place::Computer, &find);
    let file = found.trim();
    // As a command leaves it that is killed before the machine is made.
    world.sh(Place::Person, &format!("cp {file} kept"));
    world.stead("rm box").ok();
    world.sh(Place::Person, &format!("cp kept {file}"));
    world.stead("network rm default").ok();
    world.stead(&create).ok();
    world.stead(&create).code(2).says("there is a machine `box` already");
}

#[test]
fn a_machine_is_started_and_watched_like_one_that_is_run() {
    let world = World::offline();
    let _registry = registry(&world);
    let line = "echo out; echo err >&2; exit 7";
    stead(&world, &["create", "--name", "job", "--network", "none", BUSYBOX, "sh", "-c", line]).ok();
    stead(
        &world,
        &["create", "--name", "ear", "-i", "--network", "none", BUSYBOX, "sh", "-c", "cat; exit 3"],
    )
    .ok();
    // Also the second time only what it writes this time.
    for _ in 0..2 {
        let said = world.stead("start -a job").code(7);
        // What takes long is told before.
        assert!(said.out == "out\n" && said.err.ends_with("err\n"), "{} {}", said.out, said.err);
    }
    assert_eq!(world.stead("logs job").ok(), "out\nout\n");
    for options in ["-i", "-ai"] {
        let command = world.stead_command("home", world.path(), &["start", options, "ear"]);
        let said = said_after(command, "typed\n", LIMIT).code(3);
        assert_eq!(said.out, "typed\n", "{options}");
    }
    // Without being asked to it reads nothing, and says nothing here.
    world.stead("start --attach job ear").code(125).says("`--attach` is about one machine, and 2 are meant");
    stead(&world, &["create", "--name", "broken", "--network", "none", BUSYBOX, "/nosuch"]).ok();
    world.stead("start -a broken").code(127).says("/nosuch");
    // What is sent to the command is for the machine.
    let line = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    stead(&world, &["create", "--name", "long", "--init", "--network", "none", BUSYBOX, "sh", "-c", line])
        .ok();
    let mut watching = world.spawn_stead(world.path(), &["start", "--attach", "long"]);
    let mut heard = watching.stdout();
    let mut next = || {
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "ready\n");
    world.sh(Place::Computer, "kill -TERM $(pgrep -f '[s]tart --attach long')");
    assert_eq!(next(), "bye\n");
}

#[test]
fn those_that_were_made_last_are_listed_first() {
    let world = World::offline();
    let _registry = registry(&world);
    let pulled = world.stead(&format!("image pull -q {BUSYBOX}")).ok();
    assert_eq!(pulled, world.stead("image ls -q").ok());
    let pulled = world.stead(&format!("image pull --quiet --format json {BUSYBOX}")).json();
    assert!(pulled[0].as_str().unwrap().starts_with("sha256:"), "{pulled}");
    assert_eq!(world.stead("ps -aql").ok(), "");
    for name in ["b", "c", "a"] {
        world.stead(&format!("create --name {name} --network none --label of={name} {BUSYBOX}")).ok();
    }
    assert_eq!(world.stead("ps -aq --latest").ok(), "a.default\n");
    assert_eq!(world.stead("ps -aq -n 2").ok(), "a.default\nc.default\n");
    assert_eq!(world.stead("ps -aq --last 9").ok(), "a.default\nc.default\nb.default\n");
    assert_eq!(world.stead("ps -aq -n 0").ok(), "");
    // Of those that are meant.
    assert_eq!(world.stead("ps -aql --filter label=of=c").ok(), "c.default\n");
    assert_eq!(world.stead("ps -ql b").ok(), "b.default\n");
    world.stead("ps -l -n 2").code(2);
}
