//! MicroVMs that go on from where another one was saved: as quick as that is, each is a machine of its own. A boot takes
//! seconds, and on a busy computer far longer: there are few, and all waits are long.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Said, World, said_within};

/// What boots a guest takes this long at most.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// The kernel's package, taken apart, which `cargo xtask setup` gets.
const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kernel");

/// Goes on until it is told to end.
const IDLE: &str = "trap exit TERM; while :; do sleep 1; done";

#[track_caller]
fn slowly(world: &World, directory: &Path, words: &[&str]) -> Said {
    said_within(world.stead_command("home", directory, words), BOOT_LIMIT)
}

#[track_caller]
fn get_kernel(world: &World) {
    slowly(world, world.path(), &["kernel", "pull", KERNEL]).ok();
}

/// A microVM that goes on, and the stages of its start.
#[track_caller]
fn runs(world: &World, name: &str, more: &[&str]) -> Vec<String> {
    let words = ["run", "-d", "--kind", "microvm", "--name", name];
    let words = [&words[..], more, &[BUSYBOX, "sh", "-c", IDLE]].concat();
    slowly(world, world.path(), &words).ok();
    stages(world, name)
}

#[track_caller]
fn stages(world: &World, machine: &str) -> Vec<String> {
    let told = world.stead(&format!("inspect {machine} --format json")).json();
    let stages = told[0]["stages"].as_array().unwrap();
    stages.iter().map(|stage| stage["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn within(world: &World, machine: &str, line: &str) -> String {
    slowly(world, world.path(), &["exec", machine, "sh", "-c", line]).ok()
}

/// The templates that are in their places.
fn templates(world: &World) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(world.path().join("home/state/templates")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

const SAVED: [&str; 10] =
    ["prepared", "vmm", "kernel", "modules", "agent", "hello", "saved", "disks", "network", "started"];
const BOOTED: [&str; 9] =
    ["prepared", "vmm", "kernel", "modules", "agent", "hello", "disks", "network", "started"];
const RESTORED: [&str; 6] = ["prepared", "vmm", "restored", "disks", "network", "started"];

/// What a machine must not have in common with another one, a line each.
const IDENTITY: &str = "cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid; \
    head -c 16 /dev/urandom | od -An -tx1; cat /sys/class/net/eth0/address; hostname; \
    ip -4 -o addr show eth0 | awk '{print $4}'; ip -6 -o addr show eth0 | awk '/fe80/ {print $4}'";

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
        assert_eq!(lines.len(), 7, "{told}");
        for line in lines {
            assert!(seen.insert(line.to_owned()), "`{line}` of {name} is another one's as well");
        }
        // What is sent with another MAC than the machine's own is dropped.
        let mac = &world.stead(&format!("inspect {name} --format json")).json()[0];
        assert!(mac.to_string().contains(told.lines().nth(3).unwrap()), "{mac}");
    }
    within(&world, "three", "ping -c 1 -W 5 two && ping -c 1 -W 5 one");
    // Who wants it boots, and nothing is saved of it.
    assert_eq!(runs(&world, "four", &["--cold"]), BOOTED);
    slowly(&world, world.path(), &["run", "--cold", BUSYBOX, "true"]).code(125).says("a container has none");
    let kept = world.stead("kernel ls --format json").json()[0]["templates"].clone();
    assert_eq!((kept.as_array().unwrap().len(), &kept[0]["nics"]), (1, &1.into()), "{kept}");
    world.stead("kernel prune").ok();
    assert!(templates(&world).is_empty());
    // Those that went on from it do.
    within(&world, "two", "true");
    for name in ["one", "two", "three", "four"] {
        slowly(&world, world.path(), &["rm", "-f", name]).ok();
    }
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
fn a_template_that_is_cut_short_or_damaged_is_no_reason_not_to_start() {
    let world = World::offline();
    let _registry = registry(&world);
    get_kernel(&world);
    // Killed while it is made: nothing is in its place, and the next one makes it.
    let words = ["run", "-d", "--kind", "microvm", "--name", "one", BUSYBOX, "sh", "-c", IDLE];
    let left = world.spawn_stead(world.path(), &words);
    let unfinished = world.path().join("home/state/templates/.new/state");
    world.until("one is being made", || unfinished.exists().then_some(()));
    let keeper = world.path().join("home/run/machines/one.default/keeper.pid");
    let pid = world.until("it has a keeper", || fs::read_to_string(&keeper).ok());
    world.sh(Place::Computer, &format!("kill -KILL {}", pid.split(' ').next().unwrap()));
    left.end();
    assert!(templates(&world).is_empty());
    slowly(&world, world.path(), &["start", "one"]).ok();
    assert_eq!(stages(&world, "one"), SAVED);
    assert!(!unfinished.exists());
    // Too short: that is seen, and it is made anew.
    let [template] = templates(&world).try_into().unwrap();
    let state = fs::File::options().write(true).open(template.join("state")).unwrap();
    let length = state.metadata().unwrap().len();
    state.set_len(length / 2).unwrap();
    assert_eq!(runs(&world, "two", &[]), SAVED);
    // As long as it was, and nonsense: it goes, and the machine boots.
    let [template] = templates(&world).try_into().unwrap();
    let state = fs::File::options().write(true).open(template.join("state")).unwrap();
    let length = state.metadata().unwrap().len();
    state.write_all_at(&[0x5a; 4096], 0).unwrap();
    state.write_all_at(&[0x5a; 4096], length / 2).unwrap();
    let told = runs(&world, "three", &[]);
    assert_eq!(told, [&["prepared", "vmm", "not-restored", "vmm"], &BOOTED[2..]].concat());
    assert!(templates(&world).is_empty());
    let log = world.path().join("home/run/machines/three.default/keeper.log");
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("its template is of no use and goes, it boots instead").count(), 1, "{log}");
    for name in ["one", "two", "three"] {
        slowly(&world, world.path(), &["rm", "-f", name]).ok();
    }
}
