//! Containers with an init of their own: Debian with systemd, from an image that stead made of Debian's packages.

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Role, Said, World, role, said, stead as program};

/// What people call it.
const IMAGE: &str = "lab/system:12";

/// Has the image in a world, and that of busybox in an archive.
fn load(world: &mut World) {
    world.keep_in_memory();
    let archive = std::env::var("STEAD_TEST_SYSTEM")
        .expect("`cargo xtask test system` makes the image that this test needs");
    stead(world, &["image", "load", &archive]).ok();
    let registry = registry(world);
    stead(world, &["image", "pull", BUSYBOX]).ok();
    drop(registry);
    stead(world, &["image", "save", BUSYBOX, "--output", "busybox.tar"]).ok();
}

#[track_caller]
fn stead(world: &World, words: &[&str]) -> Said {
    said(world.stead_command("home", world.path(), words))
}

#[track_caller]
fn exec(world: &World, line: &str) -> Said {
    stead(world, &["exec", "dev", "sh", "-ec", line])
}

/// Starts the system, with this program in it, and waits until all of its services are up.
#[track_caller]
fn boot(world: &World) {
    let bound = format!("{}:/usr/bin/stead:ro", program());
    stead(world, &["run", "-d", "--system", "--name", "dev", "-v", &bound, IMAGE]).ok();
    until_up(world);
    stead(world, &["cp", "busybox.tar", "dev:/root/busybox.tar"]).ok();
}

#[track_caller]
fn until_up(world: &World) {
    // Nobody there yet, or just going down.
    let state = world.until("the system is up", || {
        let state = exec(world, "systemctl is-system-running --wait || :").out;
        ["running\n", "degraded\n"].contains(&state.as_str()).then_some(state)
    });
    let failed = exec(world, "systemctl --failed --no-legend --plain").out;
    assert_eq!((state.as_str(), failed.as_str()), ("running\n", ""));
}

#[test]
fn roots_system_has_services_and_runs_containers_of_others_and_of_ours() {
    if role() != Role::Root {
        return;
    }
    let mut world = World::offline();
    load(&mut world);
    boot(&world);
    has_services(&world);
    runs_podman(&world);
    runs_stead(&world);
    reboots_and_goes_off(&world);
}

#[test]
fn a_users_system_has_services_and_runs_containers_of_ours() {
    let Some(mut world) = World::with_subids() else {
        eprintln!("not tried: it takes root to make somebody with subordinate ids and a cgroup");
        return;
    };
    load(&mut world);
    boot(&world);
    has_services(&world);
    runs_stead(&world);
    reboots_and_goes_off(&world);
}

#[track_caller]
fn has_services(world: &World) {
    let line =
        "cat /proc/1/comm; systemd-detect-virt; systemctl is-active dbus systemd-journald systemd-logind";
    assert_eq!(exec(world, line).ok(), "systemd\ncontainer-other\nactive\nactive\nactive\n");
    let line =
        "echo hello from here | systemd-cat -t scene; journalctl --sync; journalctl -b -t scene -o cat";
    assert_eq!(exec(world, line).ok(), "hello from here\n");
    // A service of its own, in a cgroup of its own, as a user of its own.
    let line = "useradd -m joe
        printf '[Service]\\nUser=joe\\nRuntimeDirectory=joe\\nExecStart=/bin/sh -c \"id -un > /run/joe/who; exec sleep 1000\"\\n' > /etc/systemd/system/own.service
        systemctl start own
        while ! [ -s /run/joe/who ]; do sleep 0.1; done; cat /run/joe/who
        grep -q own.service /proc/$(systemctl show --value -p MainPID own)/cgroup && echo own";
    assert_eq!(exec(world, line).ok(), "joe\nown\n");
    // Somebody logs in.
    assert_eq!(exec(world, "su -l joe -c 'id -un; pwd'").ok(), "joe\n/home/joe\n");
    // What it says on its console is its log.
    let log = stead(world, &["logs", "dev"]).ok();
    assert!(log.contains("Welcome to") && log.contains("Login Management"), "{log}");
}

/// For others than root this takes controllers that are delegated to them, and a `/dev/fuse` for everybody.
#[track_caller]
fn runs_podman(world: &World) {
    exec(world, "podman load -q -i /root/busybox.tar").ok();
    for options in ["", "--cgroup-manager=cgroupfs --runtime=runc"] {
        let line = format!(
            "podman {options} run --rm {BUSYBOX}:latest sh -c 'cat /proc/1/comm /data/seed; ls /sys/class/net'"
        );
        assert_eq!(exec(world, &line).ok(), "sh\nfrom-the-image\neth0\nlo\n", "{options}");
    }
}

#[track_caller]
fn runs_stead(world: &World) {
    exec(world, "stead image load /root/busybox.tar").ok();
    // The system's root is an overlay, and on an overlay none can be mounted: the image is copied.
    let run = |options: &str, line: &str| {
        exec(world, &format!("stead run {options} --network none {BUSYBOX} {line}")).ok()
    };
    assert_eq!(run("--rm", "sh -c 'cat /data/seed; touch /new && ls /new'"), "from-the-image\n/new\n");
    assert_eq!(run("-d --init --name kept", "sleep 1000"), "kept\n");
    exec(world, "stead exec kept sh -c 'echo mine > /mine'").ok();
    exec(world, "stead stop kept; echo in > /root/in; stead cp /root/in kept:/in; stead start kept").ok();
    assert_eq!(exec(world, "stead exec kept cat /mine /in").ok(), "mine\nin\n");
    exec(world, "stead diff kept").code(2).says("overlayfs cannot be used");
    exec(world, "stead purge --yes").ok();
}

#[track_caller]
fn reboots_and_goes_off(world: &World) {
    exec(world, "touch /run/mark /var/mark; systemctl reboot").ok();
    world.until("it has come up again", || {
        (exec(world, "test -e /var/mark && ! test -e /run/mark").code == 0).then_some(())
    });
    until_up(world);
    // This may end with it.
    exec(world, "systemctl poweroff");
    assert_eq!(stead(world, &["wait", "dev"]).ok(), "0\n");
    stead(world, &["start", "dev"]).ok();
    until_up(world);
    stead(world, &["stop", "--time", "50", "dev"]).ok();
    assert_eq!(stead(world, &["wait", "dev"]).ok(), "0\n");
}
