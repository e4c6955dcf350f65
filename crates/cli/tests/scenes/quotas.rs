//! Volumes that are limited. Many kernels have no quotas of projects: so the real thing is in a whole computer of its own,
//! whose kernel has them, with `stead` in it. All of that is translated: no machine is started there, which takes minutes.

use std::path::Path;
use std::process::Command;

use crate::support::{Role, World, role};
use crate::vms::{disk, get_kernel, slowly};

#[test]
fn a_size_that_nothing_would_hold_is_refused_before_anything_is_made() {
    let mut world = World::offline();
    // It has no quotas of projects, whatever the computer's disk has.
    world.keep_on_small_disk("64m");
    let why = match role() {
        Role::Root => "has no quotas of projects",
        Role::User => "only root may limit what a directory holds",
    };
    world.stead("volume create --size 1g data").code(2).says("`--size`: ").says(why).says("hint: ");
    world.stead("volume create --size 0 data").code(2).says("`0` leaves no room at all");
    let shop = world.project("shop", "volumes:\n  data: { size: 1g }\n  free: {}\n");
    for line in ["plan", "up"] {
        shop.stead(line).code(2).says("stead.yaml:2:17: ").says(why).says("hint: ");
    }
    assert_eq!(world.stead("volume ls --format json").json(), serde_json::json!([]));
    shop.write("volumes: { data: {}, free: {} }\n");
    shop.stead("up").ok();
    assert_eq!(shop.stead("plan").ok(), "nothing to do\n");
    let listed = world.stead("volume ls --format json data.shop").json();
    assert_eq!((&listed[0]["limit_bytes"], &listed[0]["used_bytes"]), (&().into(), &().into()), "{listed}");
    shop.write("volumes: { data: { size: 512m }, free: {} }\n");
    shop.stead("up").code(2).says(why);
    shop.stead("down --volumes --yes").ok();
}

/// The computer in which it is tried. Its own modules do not reach so far.
const LAB: &str = "
machines:
  lab:
    kind: vm
    image: DISK
    disk: 1g
    mem_limit: 1g
    stop_grace_period: 5m
    volumes: [./given:/srv/given]
    healthcheck: { test: [CMD, test, -x, /srv/given/stead], interval: 2s, timeout: 1m, retries: 100 }
";

/// What is tried in it. Who writes is root without the right to go beyond quotas, as in containers; what is not so ends it.
const GUEST: &str = r#"
    set -e; export STEAD_HOME=/srv/home/stead; cd /srv
    is() { [ "$1" = "$2" ] || { echo "not \`$2\` but \`$1\`"; exit 1; }; }
    depmod -b /srv/given; mount --bind /srv/given/lib/modules /lib/modules
    modprobe loop; modprobe quota_v2
    truncate -s 256M disk; mkfs.ext4 -qF -O quota,project -E quotatype=prjquota disk
    mkdir home; mount -o loop,prjquota disk home
    cp given/stead /usr/local/bin/stead
    v=$STEAD_HOME/state/volumes
    fill() {
        setpriv --bounding-set=-sys_resource dd if=/dev/zero of=$1 bs=64k count=800 2>/dev/null && echo done || echo held
    }
    limit() { stead volume ls --format json $1 | grep -o '"limit_bytes": *[0-9nul]*' | grep -o '[0-9nul]*$'; }
    tells() { grep -qF -- "$1" told || { cat told; exit 1; }; }

    # Made by command: it is held to its size, and another one is not.
    stead volume create --size 8m data; stead volume create free
    is "$(stead volume create --size 8192k data)" data
    is "$(fill $v/default/data/more)" held
    is "$(fill $v/default/free/more)" done
    rm $v/default/free/more
    is "$(limit data)" 8388608; is "$(limit free)" null
    stead volume inspect data > told; tells 'limit     8MiB ('

    # Of a file: what is there counts; it is changed in place.
    mkdir shop; cd shop
    file() { echo "volumes: { store: { $1 } }" > stead.yaml; }
    file ''; stead up; s=$v/shop/store
    mkdir -p $s/deep/er; dd if=/dev/zero of=$s/deep/er/old bs=1M count=3 2>/dev/null
    ln -s /etc/passwd $s/link; mkfifo $s/deep/pipe
    file 'size: 8m'; stead plan > told; tells '~ volume store.shop size none -> 8MiB'
    stead up; is "$(stead plan)" 'nothing to do'
    is "$(fill $s/deep/er/more)" held
    [ $(stat -c %s $s/deep/er/more) -lt 5500000 ]
    file 'size: 100m'; stead up > told; tells '~ volume store.shop size 8MiB -> 100MiB'
    is "$(fill $s/more)" done
    # Less than what is there: nothing is lost, and nothing more is written.
    file 'size: 4m'; stead up; is "$(stead plan)" 'nothing to do'
    is "$(fill $s/another)" held
    is $(stat -c %s $s/deep/er/old) 3145728
    file ''; stead up > told; tells '~ volume store.shop size 4MiB -> none'
    is "$(fill $s/another)" done
    is "$(limit store.shop)" null

    # The number of one that goes is free again.
    number() { lsattr -pd $v/default/data | tr -s ' ' | sed 's/^ //' | cut -d' ' -f1; }
    first=$(number)
    stead volume rm --yes data; stead volume create --size 4m data
    is "$(number)" "$first"
    stead down --volumes --yes; stead volume prune --yes
    is "$(stead volume ls -q)" ''
    echo all of it is so
"#;

#[test]
fn nobody_writes_more_into_a_volume_than_it_may_hold() {
    if role() == Role::User {
        // Nobody but root limits anything: that is the test above.
        return;
    }
    let world = World::offline();
    get_kernel(&world);
    let project = world.project("lab", &LAB.replace("DISK", &disk()));
    let given = project.directory.join("given");
    std::fs::create_dir(&given).unwrap();
    // What it has for debuggers would be read as well.
    let args =
        ["-S", "-o", given.join("stead").to_str().unwrap(), crate::support::stead()].map(str::to_owned);
    assert!(Command::new("strip").args(args).status().unwrap().success());
    std::fs::write(given.join("guest.sh"), GUEST).unwrap();
    give_modules(&given);
    slowly(&world, &project.directory, &["up", "--wait=healthy"]).ok();
    let said = slowly(&world, &project.directory, &["exec", "lab", "sh", "/srv/given/guest.sh"]).ok();
    assert!(said.ends_with("all of it is so\n"), "{said}");
    slowly(&world, &project.directory, &["down", "--yes"]).ok();
}

/// The modules that are needed, of those of the kernel that the computer has.
fn give_modules(given: &Path) {
    const NEEDED: [&str; 6] = [
        "modules.builtin",
        "modules.order",
        "kernel/crypto",
        "kernel/drivers/block/loop.ko",
        "kernel/fs/quota",
        "kernel/lib",
    ];
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kernel/lib/modules");
    let version = std::fs::read_dir(modules).unwrap().next().unwrap().unwrap().path();
    let to = given.join("lib/modules").join(version.file_name().unwrap());
    std::fs::create_dir_all(&to).unwrap();
    let said =
        Command::new("cp").args(["-r", "--parents"]).args(NEEDED).arg(&to).current_dir(version).status();
    assert!(said.unwrap().success());
}
