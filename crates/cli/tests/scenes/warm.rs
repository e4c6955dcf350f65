//! MicroVMs that go on from where another one was saved: as quick as that is, each is a machine of its own. A boot takes
//! seconds, and on a busy computer far longer: there are few, and all waits are long.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::microvms::{get_kernel, slowly};
use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, World, untested};

/// Goes on until it is told to end. First of all it draws numbers, one of them as what it is known by for good.
const IDLE: &str = "trap exit TERM; head -c 16 /dev/urandom | od -An -tx1 > /first; \
    [ -s /etc/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id; while :; do sleep 1; done";

/// A microVM that goes on, and the stages of its start.
#[track_caller]
pub(crate) fn runs(world: &World, name: &str, more: &[&str]) -> Vec<String> {
    slowly(world, world.path(), &words(name, more)).ok();
    stages(world, name)
}

/// What makes and starts a microVM that goes on.
pub(crate) fn words<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["run", "-d", "--kind", "microvm", "--name", name];
    [&words[..], more, &[BUSYBOX, "sh", "-c", IDLE]].concat()
}

#[track_caller]
pub(crate) fn stages(world: &World, machine: &str) -> Vec<String> {
    let told = world.stead(&format!("inspect {machine} --format json")).json();
    let stages = told[0]["stages"].as_array().unwrap();
    stages.iter().map(|stage| stage["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
pub(crate) fn within(world: &World, machine: &str, line: &str) -> String {
    slowly(world, world.path(), &["exec", machine, "sh", "-c", line]).ok()
}

/// The templates that are in their places.
pub(crate) fn templates(world: &World) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(world.path().join("home/state/templates")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

pub(crate) const SAVED: [&str; 10] =
    ["prepared", "vmm", "kernel", "modules", "agent", "hello", "saved", "disks", "network", "started"];
pub(crate) const BOOTED: [&str; 9] =
    ["prepared", "vmm", "kernel", "modules", "agent", "hello", "disks", "network", "started"];
pub(crate) const RESTORED: [&str; 6] = ["prepared", "vmm", "restored", "disks", "network", "started"];

/// What a machine must not have in common with another one, a line each.
const IDENTITY: &str = "cat /first; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid; \
    head -c 16 /dev/urandom | od -An -tx1; cat /sys/class/net/eth0/address; hostname; \
    ip -4 -o addr show eth0 | awk '{print $4}'; ip -6 -o addr show eth0 | awk '/fe80/ {print $4}'; \
    awk '/stack/ {print $1}' /proc/self/maps";

#[test]
fn those_that_go_on_from_one_that_was_saved_are_machines_of_their_own() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    assert_eq!(runs(&world, "one", &[]), SAVED);
    assert_eq!(runs(&world, "two", &[]), RESTORED);
    assert_eq!(runs(&world, "three", &[]), RESTORED);
    let mut seen = BTreeSet::new();
    for name in ["one", "two", "three"] {
        let before = SystemTime::now();
        let time: u64 = within(&world, name, "date +%s").trim().parse().unwrap();
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!((since(before) - 1..=since(SystemTime::now()) + 1).contains(&time), "{name}: {time}");
        let told = within(&world, name, IDENTITY);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 10, "{told}");
        for line in lines {
            assert!(seen.insert(line.to_owned()), "`{line}` of {name} is another one's as well");
        }
        // What is sent with another MAC than the machine's own is dropped.
        let mac = &world.stead(&format!("inspect {name} --format json")).json()[0];
        assert!(mac.to_string().contains(told.lines().nth(5).unwrap()), "{mac}");
    }
    within(&world, "three", "ping -c 1 -W 5 two && ping -c 1 -W 5 one");
    // Who wants it boots, and nothing is saved of it.
    assert_eq!(runs(&world, "four", &["--cold"]), BOOTED);
    slowly(&world, world.path(), &["restart", "--cold", "two"]).ok();
    assert_eq!(stages(&world, "two"), BOOTED);
    refuses_to_be_cold(&world);
    let kept = world.stead("kernel ls --format json").json()[0]["templates"].clone();
    assert_eq!((kept.as_array().unwrap().len(), &kept[0]["nics"]), (1, &1.into()), "{kept}");
    world.stead("kernel prune").ok();
    assert!(templates(&world).is_empty());
    // Those that went on from it do.
    within(&world, "two", "true");
    for name in ["one", "two", "three", "four", "box"] {
        slowly(&world, world.path(), &["rm", "-f", name]).ok();
    }
}

/// What has no kernel of its own is not begun in another way, and says so.
#[track_caller]
fn refuses_to_be_cold(world: &World) {
    let say = |words: &[&str]| slowly(world, world.path(), words);
    say(&["run", "--cold", BUSYBOX, "true"]).code(125).says("a container has none");
    say(&["create", "--name", "box", BUSYBOX, "sleep", "1000"]).ok();
    for word in ["start", "restart"] {
        say(&[word, "--cold", "box"]).code(2).says("`--cold` is about microVMs").says("none is meant");
    }
    let file = format!("machines: {{ web: {{ image: {BUSYBOX}, command: sleep 1000 }} }}\n");
    let project = world.project("shop", &file);
    project.stead("up --cold").code(2).says("none is meant");
    assert_eq!(
        say(&["ps", "--all", "--format", "json"]).json().as_array().unwrap().len(),
        5,
        "nothing was made"
    );
}

#[test]
fn what_a_machine_wrote_is_there_when_it_is_restored() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    assert_eq!(runs(&world, "web", &[]), SAVED);
    let write = "head -c 3000000 /dev/urandom > /srv/file && echo text >> /etc/passwd && md5sum /srv/file /etc/passwd";
    let mut sums = within(&world, "web", write);
    for round in 0..2 {
        slowly(&world, world.path(), &["stop", "web"]).ok();
        slowly(&world, world.path(), &["start", "web"]).ok();
        assert_eq!(stages(&world, "web"), RESTORED, "{round}");
        assert_eq!(within(&world, "web", "md5sum /srv/file /etc/passwd"), sums);
        sums = within(&world, "web", write);
    }
    slowly(&world, world.path(), &["stop", "web"]).ok();
    let disk = world.sh(
        Place::Computer,
        &format!("find {} -name '*.ext4' -o -name disk", world.path().join("home/state/machines").display()),
    );
    let disk = disk.lines().next().expect("it has a disk");
    world.sh(Place::Computer, &format!("e2fsck -fn {disk}"));
    // A disk of another size is found as it is: the image is another one, and so is its root.
    slowly(&world, world.path(), &["start", "--cold", "web"]).ok();
    assert_eq!(stages(&world, "web"), BOOTED);
    assert_eq!(within(&world, "web", "md5sum /srv/file /etc/passwd"), sums);
    slowly(&world, world.path(), &["rm", "-f", "web"]).ok();
}

#[test]
fn a_vmm_that_is_another_user_lets_go_of_what_it_was_saved_to() {
    let Some(world) = World::with_subids() else {
        return untested("it takes root to make somebody with subordinate ids and a cgroup");
    };
    let _registry = registry(&world);
    get_kernel(&world);
    assert_eq!(runs(&world, "one", &[]), SAVED);
    assert_eq!(runs(&world, "two", &[]), RESTORED);
    slowly(&world, world.path(), &["rm", "-f", "one", "two"]).ok();
}
