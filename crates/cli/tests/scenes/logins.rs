//! Logins by OpenSSH's client where they cannot be had, and the settings that are written for it. Those that work are in
//! `systems`, where there is somebody to log in to.

use std::os::unix::fs::PermissionsExt;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Place, Role, World, role};

/// `ssh` goes by accounts, and in a world the person's home is another.
fn give_account(world: &mut World) {
    let path = world.path().display().to_string();
    let line = format!(
        "grep -v -e :x:0: -e :x:1000: /etc/passwd > {path}/passwd || :
        for id in 0 1000; do echo \"person$id:x:$id:$id::{path}/nobody:/bin/sh\" >> {path}/passwd; done
        mkdir -p {path}/nobody; chmod 777 {path}/nobody; busybox mount --bind {path}/passwd /etc/passwd"
    );
    world.sh(Place::Computer, &line);
    world.settle();
}

#[test]
fn a_machine_that_cannot_be_logged_in_to_says_why() {
    let mut world = World::offline();
    give_account(&mut world);
    let _registry = registry(&world);
    world.stead(&format!("run -d --name box {BUSYBOX} sleep 1000")).ok();
    let why = match role() {
        Role::Root => "machine `box.default` has no sshd",
        Role::User => "machine `box.default` has a single id",
    };
    world.stead("ssh box").code(255).says(why).says("hint: ");
    world.stead("ssh nosuch").code(125).says("there is no machine `nosuch`");
    world.stead("__ssh-proxy box root").code(2).says("`box` is the name of no machine");
    world.stead("stop --time 0 box").ok();
    world
        .stead("ssh box")
        .code(125)
        .says("machine `box.default` does not run")
        .says("`stead start box.default`");
}

#[test]
fn settings_of_ssh_include_ours_by_one_line_until_that_is_taken_back() {
    let mut world = World::offline();
    give_account(&mut world);
    let settings = world.path().join("nobody/.ssh/config");
    let read = || std::fs::read_to_string(&settings).unwrap();
    world.stead("ssh-config --remove").ok();
    world.stead("ssh-config --install").ok();
    let ours = read();
    assert!(ours.starts_with("Include \"") && ours.ends_with("/home/state/ssh/stead-ssh.conf\"\n"), "{ours}");
    // Another program reads it so.
    let read_by_ssh = world.sh(Place::Person, "ssh -G root@dev.shop.stead");
    assert!(read_by_ssh.contains("__ssh-proxy"), "{read_by_ssh}");
    assert!(
        read_by_ssh.contains("identityfile ") && read_by_ssh.contains("/home/state/ssh/identity"),
        "{read_by_ssh}"
    );
    assert!(!world.sh(Place::Person, "ssh -G elsewhere").contains("__ssh-proxy"));
    // What a person has there stays, in a file that a link leads to, too.
    world.sh(
        Place::Person,
        "cd nobody/.ssh; mv config real; ln -s real config; printf 'Host x\n  Port 7' >> real; chmod 640 real",
    );
    world.stead("ssh-config --install").ok();
    assert_eq!(read(), format!("{ours}Host x\n  Port 7"));
    let another = world.stead_at("another", world.path(), &["ssh-config", "--install"]);
    another.code(2).says("includes the machines of another home").says("hint: ");
    world.stead("ssh-config --remove").ok();
    assert_eq!(read(), "Host x\n  Port 7");
    let real = world.path().join("nobody/.ssh/real");
    assert_eq!(std::fs::metadata(real).unwrap().permissions().mode() & 0o777, 0o640);
    world.stead("ssh-config --install").ok();
    world.stead("purge --yes").ok();
    assert_eq!(read(), "Host x\n  Port 7");
}
