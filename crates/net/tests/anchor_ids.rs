//! The id maps of an ordinary user's anchor, with and without subordinate ids. Needs root, to be that user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use stead_net::process::ProcessId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_stead-net-anchor");

/// The maps of an anchor started by user 1234 while these are `/etc/subuid` and `/etc/subgid`.
#[track_caller]
fn check(sub_uids: &str, sub_gids: &str, expected: [&str; 2]) {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    #[expect(deprecated, reason = "the safe form; this thread shares nothing that these flags unshare")]
    rustix::thread::unshare(UnshareFlags::NEWNS).expect("this test needs namespaces");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    run("mount", &["--make-rprivate".as_ref(), "/".as_ref()]);
    let passwd = fs::read_to_string("/etc/passwd").unwrap() + "ann:x:1234:1234::/:/bin/sh\n";
    for (name, text) in [("passwd", passwd.as_str()), ("subuid", sub_uids), ("subgid", sub_gids)] {
        fs::write(path(name), text).unwrap();
        run("mount", &["--bind".as_ref(), &path(name), &Path::new("/etc").join(name)]);
    }
    // By another process: while this one held it open for writing, what another thread starts could hold it too,
    // and nobody could run it.
    run("install", &["-m755".as_ref(), PROGRAM.as_ref(), &path("anchor")]);
    fs::create_dir(path("run")).unwrap();
    chown(path("run"), Some(1234), Some(1234)).unwrap();
    let ids = ["--reuid=1234", "--regid=1234", "--clear-groups"].map(Path::new);
    run("setpriv", &[&ids[..], &[&path("anchor"), "spawn".as_ref(), &path("run")]].concat());
    let anchor = ProcessId::load(&path("run/anchor.pid")).unwrap().unwrap();
    let maps = ["uid_map", "gid_map"].map(|map| {
        let text = fs::read_to_string(format!("/proc/{}/{map}", anchor.pid)).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    assert!(anchor.kill(Signal::KILL).unwrap());
    assert!(anchor.wait_gone(Duration::from_secs(10)).unwrap());
    assert_eq!(maps, expected);
}

#[track_caller]
fn run(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn subordinate_ids_are_mapped_after_the_own_one() {
    check("ann:100000:65536\n", "1234:200000:1000\n", ["0 1234 1 1 100000 65536", "0 1234 1 1 200000 1000"]);
}

#[test]
fn without_subordinate_ids_only_the_own_one_is_mapped() {
    check("bob:100000:65536\n", "ann:100000:65536\n", ["0 1234 1", "0 1234 1"]);
}
