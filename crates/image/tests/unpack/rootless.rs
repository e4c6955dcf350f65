//! What root of a user namespace with a single id can do: the tests run themselves again as such.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::{env, fs};

use expect_test::expect;
use stead_image::unpack::{Devices, Owners, Skip, UnpackOptions, pack_diff};

use crate::support::{
    Item, Tar, flat, is_real_root, overlay, scratch, show_marks_alike, show_without_times, space, unpack,
};
use crate::untested::untested;

const INSIDE: &str = "STEAD_TEST_INSIDE";

/// Runs the test of this name as mapped root, and is true where that is so already.
fn is_mapped(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Owners, bits, nodes and attributes that are not to be had.
fn demanding() -> Tar {
    Tar::default()
        .item(&Item { owner: (1000, 1000), mode: 0o4755, body: b"x", ..Item::new(b'0', "su") })
        .item(&Item { owner: (0, 42), mode: 0o2755, ..Item::new(b'0', "sg") })
        .item(&Item { mode: 0o6755, ..Item::new(b'0', "ours") })
        .item(&Item { owner: (5, 5), mode: 0o700, ..Item::new(b'5', "d") })
        .item(&Item { owner: (5, 5), link: b"su", ..Item::new(b'2', "link") })
        .item(&Item { device: (1, 3), mode: 0o666, ..Item::new(b'3', "null") })
        .item(&Item { mode: 0o600, ..Item::new(b'6', "pipe") })
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .item(&Item { mode: 0o755, ..Item::new(b'0', "ping") })
        .pax(&[("SCHILY.xattr.trusted.x", b"y"), ("SCHILY.xattr.user.x", b"y")])
        .file("noted", "")
}

#[test]
fn what_a_user_namespace_refuses_is_ours_or_left_out() {
    if !is_mapped("rootless::what_a_user_namespace_refuses_is_ours_or_left_out") {
        return;
    }
    let into = scratch();
    let unpacked = unpack(&demanding().end(), into.path(), &UnpackOptions::rootless()).unwrap();
    // The kernel shows version 2 of the capability again, which belongs to our root.
    expect![[r#"
        d directory 700
        link -> su
        noted file 644 "" user.x=y
        ours file 6755 ""
        ping file 755 "" security.capability=\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00
        pipe fifo 600
        sg file 755 ""
        su file 755 "x"
    "#]].assert_eq(&show_without_times(into.path()));
    let skip = |name: &str, what: &str| Skip { name: name.to_owned(), what: what.to_owned() };
    assert_eq!(
        unpacked.skips.first,
        [
            skip("null", "device node: Operation not permitted (os error 1)"),
            skip("noted", "attribute `trusted.x`: Operation not permitted (os error 1)"),
        ]
    );
    let strict = UnpackOptions { owners: Owners::Keep, ..UnpackOptions::rootless() };
    let error = unpack(&demanding().end(), scratch().path(), &strict).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("entry `su`: could not give it to 1000:1000: Invalid"),
        "{error:#}"
    );
}

#[test]
fn capabilities_of_files_are_of_the_namespaces_root() {
    if !is_real_root() {
        return untested("only root of the computer sees it from outside");
    }
    let into = scratch();
    let archive = scratch();
    fs::write(archive.path().join("layer.tar"), demanding().end()).unwrap();
    let map = format!("{} {}", archive.path().display(), into.path().display());
    // Somebody else's namespace, so that its root is not ours.
    let name = "rootless::inside_of_somebody_elses_namespace";
    std::os::unix::fs::chown(into.path(), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(archive.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = archive.path().join("test");
    // By another process: while this one held it open for writing, what another thread starts could hold it too.
    let copied =
        Command::new("install").args(["-m755".into(), env::current_exe().unwrap(), program.clone()]).status();
    assert!(copied.unwrap().success());
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "1000",
            "--regid",
            "1000",
            "--clear-groups",
            "unshare",
            "--user",
            "--map-root-user",
        ])
        .arg(&program)
        .args(["--exact", name, "--nocapture", "--ignored"])
        .env(INSIDE, map)
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let capability = crate::support::xattrs(&into.path().join("ping"));
    // Version 3, with the id of its root at the end.
    expect![[
        r#"\x01\x00\x00\x03\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00"#
    ]]
    .assert_eq(&format!("{}", capability[0].1.escape_ascii()));
    assert_eq!(fs::metadata(into.path().join("ping")).unwrap().uid(), 1000);
}

#[test]
#[ignore = "run by `capabilities_of_files_are_of_the_namespaces_root`"]
fn inside_of_somebody_elses_namespace() {
    let paths = env::var(INSIDE).unwrap();
    let (archive, into) = paths.split_once(' ').unwrap();
    let bytes = fs::read(format!("{archive}/layer.tar")).unwrap();
    unpack(&bytes, into.as_ref(), &UnpackOptions::rootless()).unwrap();
}

#[test]
fn whiteouts_of_a_user_namespace_come_back_as_they_were() {
    if !is_mapped("rootless::whiteouts_of_a_user_namespace_come_back_as_they_were") {
        return;
    }
    let archive = Tar::default()
        .item(&Item::new(b'5', "./"))
        .directory("d")
        .file("d/.wh..wh..opq", "")
        .file("d/new", "1")
        .file(".wh.gone", "");
    let into = scratch();
    let unpacked = unpack(&archive.end(), into.path(), &UnpackOptions::rootless()).unwrap();
    assert_eq!(unpacked.skips.count, 0);
    expect![[r#"
        d directory 755 user.overlay.opaque=y
        d/new file 644 "1"
        gone character 0:0 0
    "#]]
    .assert_eq(&show_without_times(into.path()));
    let mut packed = Vec::new();
    pack_diff(into.path(), space(), &mut packed).unwrap();
    let again = scratch();
    unpack(&packed, again.path(), &UnpackOptions::rootless()).unwrap();
    assert_eq!(show_marks_alike(again.path()), show_marks_alike(into.path()));
}

#[test]
fn device_nodes_can_be_left_out() {
    let options = UnpackOptions { devices: Devices::Skip, ..flat() };
    let archive = Tar::default()
        .file("null", "replaced all the same")
        .item(&Item { device: (1, 3), ..Item::new(b'3', "null") })
        .end();
    let into = scratch();
    let unpacked = unpack(&archive, into.path(), &options).unwrap();
    assert_eq!(unpacked.skips.first, [Skip { name: "null".to_owned(), what: "device node".to_owned() }]);
    assert_eq!(show_without_times(into.path()), "");
}

#[test]
fn who_runs_the_tests_is_told_right() {
    let id = if is_mapped("rootless::who_runs_the_tests_is_told_right") { Some(false) } else { None };
    if let Some(expected) = id {
        assert_eq!(is_real_root(), expected);
        assert_ne!(overlay().form, UnpackOptions::default().form);
    }
}
