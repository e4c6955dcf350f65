//! The namespaces that tests run in, seen from within.

// Helpers of tests are tests, which clippy does not see here.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

#[path = "../../cli/tests/support/untested.rs"]
mod untested;

use untested::untested;

/// Runs a shell script as `role` in namespaces of its own.
#[track_caller]
fn inside(role: &str, script: &str) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = ["/bin/sh", "-c", script];
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["__enter", role]).arg(scratch.path()).args(program);
    command.env("TMPDIR", scratch.path().join("tmp")).output().unwrap()
}

/// Checks what it writes and that it ends well.
#[track_caller]
fn check(role: &str, script: &str, expected: &str) {
    let output = inside(role, script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{error}");
    assert!(output.status.success(), "{}: {error}", output.status);
}

#[test]
fn there_is_only_a_loopback_link_and_it_is_up() {
    for role in ["root", "user"] {
        check(
            role,
            "ip -brief link | awk '{print $1, $2}'; ip -brief address | awk '{print $3}'",
            "lo UNKNOWN\n127.0.0.1/8\n",
        );
    }
}

#[test]
fn root_owns_the_network_and_the_ordinary_user_does_not() {
    check("root", "id -u; ip link add br9 type bridge && ip link del br9 && echo made", "0\nmade\n");
    check(
        "user",
        "test $(id -u) -ne 0 && ! ip link add br9 type bridge 2>/dev/null && echo refused",
        "refused\n",
    );
}

#[test]
fn the_ordinary_user_makes_user_and_network_namespaces() {
    check("user", "unshare -rn sh -c 'id -u; ip link set lo up && echo up'", "0\nup\n");
}

#[test]
fn directories_of_ones_own_can_be_written() {
    for role in ["root", "user"] {
        check(role, "touch $TMPDIR/x && rm $TMPDIR/x && echo written", "written\n");
    }
    check("root", "ls -A /run; touch /run/x && rm /run/x", "");
}

#[test]
fn the_exit_code_is_the_programs() {
    assert_eq!(inside("root", "exit 7").status.code(), Some(7));
    assert_eq!(inside("user", "kill -9 $$").status.code(), Some(137));
}

#[test]
fn what_is_left_behind_is_named_and_fails_the_run() {
    let script = "ip link add left type bridge; touch $TMPDIR/left; mkdir /run/left; nft add table inet left;
                  mount -t tmpfs left /mnt; exec sleep 1000 >/dev/null 2>&1 & echo done";
    let output = inside("root", script);
    let said = String::from_utf8_lossy(&output.stderr);
    for thing in
        ["link left", "/tmp/left", "file /run/left", "nft table inet left", "mount /mnt", "sleep 1000"]
    {
        assert!(said.contains(thing), "{thing} is not among:\n{said}");
    }
    assert_eq!(output.status.code(), Some(70));
}

#[test]
fn a_process_that_is_just_ending_is_not_left_behind() {
    check("root", "(busybox usleep 300000) >/dev/null 2>&1 & echo done", "done\n");
}

#[test]
fn a_tun_device_opens() {
    if !Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n") {
        return untested("the tun device is as this computer has it, and this is not root");
    }
    for role in ["root", "user"] {
        check(role, "stat -c %a /dev/net/tun; : <>/dev/net/tun && echo opens", "666\nopens\n");
    }
}
