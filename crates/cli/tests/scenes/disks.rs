//! How fast containers may use disks.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, Said, World, role, untested};

#[track_caller]
fn run(world: &World, options: &str, line: &str) -> Said {
    let words: Vec<&str> =
        ["run", "--rm"].into_iter().chain(options.split(' ')).chain([BUSYBOX, "sh", "-c", line]).collect();
    world.stead_at("home", world.path(), &words)
}

/// The disk that the test's files are on, with its number; nothing if they are on none, or on what this computer does not show.
fn disk(world: &World) -> Option<(String, String)> {
    let device = std::fs::metadata(world.path()).unwrap().dev();
    let number = |device| format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mut place = std::fs::canonicalize(PathBuf::from("/sys/dev/block").join(number(device))).ok()?;
    if place.join("partition").exists() {
        place.pop();
    }
    let number = std::fs::read_to_string(place.join("dev")).ok()?.trim().to_owned();
    let disk = format!("/dev/{}", place.file_name()?.to_str()?);
    let is_there = world.sh_said(Place::Computer, &format!("test -b {disk}")).code == 0;
    is_there.then_some((disk, number))
}

#[test]
fn a_machine_uses_a_disk_no_faster_than_it_may() {
    let world = World::offline();
    let _registry = registry(&world);
    for (option, why) in [
        ("--device-read-bps=/dev/null:1mb", "`/dev/null` is no disk"),
        ("--device-write-iops=/dev/nosuch:9", "there is no disk `/dev/nosuch`"),
    ] {
        run(&world, option, "true").code(125).says(why).says("hint: name a whole disk");
    }
    let text = format!(
        "machines:\n  web:\n    image: {BUSYBOX}\n    blkio_config: {{ device_read_bps: [{{ path: /dev/zero, rate: 1mb }}] }}\n"
    );
    let shop = world.project("shop", &text);
    for line in ["plan", "up"] {
        shop.stead(line).code(2).says("stead.yaml:2:3: ").says("`/dev/zero` is no disk");
    }
    assert_eq!(world.stead("ps --all --format json").json(), json!([]));
    if role() == Role::User {
        let why = |word| format!("`{word}`: controller `blkio` is not delegated to this user");
        let said = run(&world, "--device-write-bps /dev/null:1mb --blkio-weight 50", "true").code(125);
        said.says(&why("device_write_bps")).says(&why("io_weight"));
        return;
    }
    let Some((disk, number)) = disk(&world) else {
        return untested("the test's files are on no disk that the kernel could slow down");
    };
    let line = "
        cd /sys/fs/cgroup; cat blkio/blkio.throttle.write_bps_device 2> /dev/null || cat io.max
        dd if=/dev/zero of=/file bs=4k count=1 oflag=direct 2> /said || {
            cat /said >&2
            grep -q 'Invalid argument' /said && exit 8
            exit 9
        }
        read before _ < /proc/uptime
        dd if=/dev/zero of=/file bs=256k count=8 oflag=direct 2> /dev/null || exit 9
        read after _ < /proc/uptime; echo $before $after";
    let said = run(&world, &format!("--device-write-bps {disk}:1mb"), line);
    if said.code == 8 {
        return untested("the file system of the test's files has no writes past its cache (O_DIRECT)");
    }
    let said = said.ok();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("{number} ")) && lines[0].contains("1048576"), "{said}");
    let seconds: Vec<f64> = lines[1].split(' ').map(|time| time.parse().unwrap()).collect();
    // Two of them take two; the kernel lets a little go ahead.
    assert!(seconds[1] - seconds[0] > 1.0, "{said}");
}
