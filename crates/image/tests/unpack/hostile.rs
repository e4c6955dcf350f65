//! Archives that are out to do harm: nothing leaves the root, everything has a limit, and the error names the entry.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use stead_image::unpack::{BadLayer, Form, Limits, UnpackOptions, unpack_layer};

use crate::support::{Item, Tar, flat, overlay, scratch, show_without_times, unpack, xattrs};

/// Unpacks beside a directory that must stay as it is.
fn beside(archive: &[u8], options: &UnpackOptions) -> (Result<String, String>, String) {
    let world = scratch();
    let [into, outside] = ["into", "outside"].map(|name| world.path().join(name));
    fs::create_dir(&into).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "untouched").unwrap();
    let outcome = unpack(archive, &into, options);
    if let Err(error) = &outcome {
        assert!(error.chain().any(<dyn std::error::Error>::is::<BadLayer>), "{error:#}");
    }
    let outcome = outcome.map(|_| show_without_times(&into)).map_err(|error| format!("{error:#}"));
    (outcome, show_without_times(&outside))
}

#[track_caller]
fn refused(tar: Tar, why: &str) {
    for options in [overlay(), flat()] {
        let (outcome, outside) = beside(&tar.clone().end(), &options);
        let error = outcome.unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!(outside, "precious file 644 \"untouched\"\n");
    }
}

#[track_caller]
fn contained(tar: Tar, inside: &str) {
    for options in [overlay(), flat()] {
        let (outcome, outside) = beside(&tar.clone().end(), &options);
        assert_eq!(outside, "precious file 644 \"untouched\"\n");
        assert_eq!(
            outcome.unwrap().replace(" trusted.overlay.opaque=y", "").replace(" user.overlay.opaque=y", ""),
            inside
        );
    }
}

#[test]
fn names_do_not_lead_out() {
    refused(
        Tar::default().file("../outside/precious", "x"),
        "entry `../outside/precious`: its name leads out",
    );
    refused(Tar::default().file("a/../../outside/precious", "x"), "leads out");
    refused(Tar::default().file("/../outside/precious", "x"), "leads out");
    refused(Tar::default().pax(&[("path", b"../outside/new")]).file("fine", "x"), "entry `../outside/new`");
    refused(Tar::default().file("../outside/.wh.precious", ""), "leads out");
    refused(Tar::default().file("../outside/.wh..wh..opq", ""), "leads out");
    refused(Tar::default().directory(".."), "leads out");
    contained(Tar::default().file("/abs", "x"), "abs file 644 \"x\"\n");
}

#[test]
fn symlinks_do_not_lead_out() {
    let outside = "out -> ../outside\n";
    contained(
        Tar::default().symlink("out", "../outside").directory("outside").file("out/precious", "mine"),
        &format!("{outside}outside directory 755\noutside/precious file 644 \"mine\"\n"),
    );
    contained(
        Tar::default().symlink("out", "../outside").directory("outside").file("out/.wh..wh..note", ""),
        &format!("{outside}outside directory 755\n"),
    );
    // What a symlink leads to is made within the root, as everybody does it.
    contained(
        Tar::default().symlink("etc", "/etc-of-the-host").file("etc/passwd", "root::0:0"),
        "etc -> /etc-of-the-host\netc-of-the-host directory 755\netc-of-the-host/passwd file 644 \"root::0:0\"\n",
    );
    contained(
        Tar::default().symlink("a", "..").symlink("b", "a/../a/..").directory("b/x").hard_link("y", "b/b"),
        "a -> ..\nb -> a/../a/.. links 2\nx directory 755\ny -> a/../a/.. links 2\n",
    );
    // An entry in place of a symlink replaces it and does not write through it.
    contained(Tar::default().symlink("f", "../outside/precious").file("f", "mine"), "f file 644 \"mine\"\n");
    refused(
        Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", ""),
        "entry `a/x`: symlinks lead in a circle",
    );
    refused(Tar::default().symlink("a", "a/a").file("a/x", ""), "circle");
    refused(Tar::default().symlink("a", ""), "entry `a`: a symlink to nothing");
}

#[test]
fn hard_links_do_not_lead_out() {
    refused(Tar::default().hard_link("mine", "../outside/precious"), "entry `mine`: its name leads out");
    refused(
        Tar::default().hard_link("mine", "/etc/hostname"),
        "a hard link to `/etc/hostname`, which is not there",
    );
    refused(
        Tar::default().symlink("out", "../outside").hard_link("mine", "out/precious"),
        "a hard link to `out/precious`, which is not there",
    );
    refused(Tar::default().directory("d").hard_link("mine", "d"), "a hard link to the directory `d`");
    refused(Tar::default().hard_link("self", "self"), "which is not there");
    contained(Tar::default().file("a", "1").hard_link("a", "a"), "a file 644 \"1\"\n");
    // A link to a symlink is the symlink, not what it leads to; and a file in its place leaves that alone.
    contained(
        Tar::default().symlink("out", "../outside/precious").hard_link("mine", "out").file("mine", "x"),
        "mine file 644 \"x\"\nout -> ../outside/precious\n",
    );
}

#[test]
fn whiteouts_take_away_nothing_but_what_they_name() {
    refused(Tar::default().directory("d").file("d/.wh.", ""), "entry `d/.wh.`: a whiteout of nothing");
    refused(Tar::default().directory("d").file("d/.wh..", ""), "a whiteout of nothing");
    refused(Tar::default().directory("d").file("d/.wh...", ""), "a whiteout of nothing");
    refused(Tar::default().file(".wh.d/x", ""), "inside of a whiteout");
    refused(
        Tar::default().symlink("a", ".wh.b").file("a/x", ""),
        "entry `a/x`: `.wh.b` is named like a whiteout",
    );
    refused(Tar::default().file("a", "").file("a/b", ""), "entry `a/b`: `a` is no directory");
    contained(
        Tar::default()
            .symlink("out", "../outside")
            .directory("outside")
            .file("outside/precious", "mine")
            .file("out/.wh..wh..opq", "")
            .file("out/.wh.precious", "")
            .file(".wh..wh.plnk", ""),
        "out -> ../outside\noutside directory 755\noutside/precious file 644 \"mine\"\n",
    );
}

#[test]
fn overlayfs_is_not_given_orders_by_attributes() {
    let keys = [
        "trusted.overlay.redirect",
        "user.overlay.redirect",
        "trusted.overlay.metacopy",
        "user.overlay.opaque",
    ];
    let records: Vec<(String, &[u8])> =
        keys.iter().map(|key| (format!("SCHILY.xattr.{key}"), &b"/etc"[..])).collect();
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let archive = Tar::default().pax(&records).directory("d").item(&Item::new(b'3', "gone")).end();
    let into = scratch();
    unpack(&archive, into.path(), &overlay()).unwrap();
    let Form::Overlay { space, .. } = overlay().form else { unreachable!("it is for overlayfs") };
    let own =
        if space == stead_image::unpack::XattrSpace::Trusted { "trusted.overlay." } else { "user.overlay." };
    for (key, _) in xattrs(&into.path().join("d")) {
        assert!(!key.starts_with(own) || key.starts_with(&format!("{own}overlay.")), "{key}");
    }
    // A device 0/0 would be a whiteout.
    assert!(!into.path().join("gone").exists());
    let into = scratch();
    let unpacked = unpack(&archive, into.path(), &flat()).unwrap();
    assert_eq!(xattrs(&into.path().join("d")), []);
    assert!(unpacked.skips.count >= 4, "{:?}", unpacked.skips);
}

/// umoci's `insert` ends its archives with the last byte of the last file.
#[test]
fn an_archive_may_end_with_its_last_contents() {
    let whole = Tar::default().file("a", "some contents").end();
    let into = scratch();
    unpack(&whole[..512 + "some contents".len()], into.path(), &flat()).unwrap();
    assert_eq!(fs::read_to_string(into.path().join("a")).unwrap(), "some contents");
}

#[test]
fn damage_is_told() {
    let good = Tar::default().file("a", "some contents").end();
    let cut = |at: usize| good[..at].to_vec();
    for (archive, why) in [
        (cut(100), "cut off"),
        (cut(520), "cut off"),
        (cut(513 + 512 + 100), "cut off"),
        (b"<html>not found</html>".repeat(50), "checksum"),
        (Tar::default().pax(&[("uid", b"-1")]).file("a", "").end(), "entry `a`: no owner has the number -1"),
        (
            Tar::default().pax(&[("uid", b"4294967295")]).file("a", "").end(),
            "no owner has the number 4294967295",
        ),
        (Tar::default().item(&Item::new(b'M', "a")).end(), "entry `a`: it is of unknown type `M`"),
        (Tar::default().pax(&[("uid", b"1")]).end(), "extends nothing"),
        (Tar::default().file("./", "x").end(), "the root can only be a directory"),
        ([vec![0; 512], good.clone()].concat(), "empty block"),
    ] {
        let error = unpack(&archive, scratch().path(), &overlay()).unwrap_err();
        assert!(format!("{error:#}").contains(why), "{error:#} instead of {why}");
    }
}

#[test]
fn lying_maps_of_sparse_files_are_refused() {
    let sparse = |size: &str, map: &str, body: &[u8]| {
        Tar::default()
            .pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())])
            .item(&Item { body, ..Item::new(b'0', "s") })
    };
    for (size, map) in [
        ("100", "0,4,2,4"),
        ("100", "50,4,0,4"),
        ("100", "0,4"),
        ("100", "0,4,96,5"),
        ("100", "18446744073709551615,8"),
        ("100", "0,4,4"),
        ("4", "0,8"),
    ] {
        refused(sparse(size, map, b"12345678"), "the map of a sparse file");
    }
    refused(sparse("18446744073709551615", "0,8", b"12345678"), "it has more than");
    let version_1 = |map: &[u8]| {
        Tar::default()
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100")])
            .item(&Item { body: map, ..Item::new(b'0', "s") })
    };
    for map in [&b"1\n0\n"[..], b"x", b"99999999999999999999\n", &[b'1'; 512], b"1000000\n"] {
        refused(version_1(map), "the map of a sparse file");
    }
}

#[test]
fn bombs_do_not_go_off() {
    let small = Limits {
        bytes: 1 << 20,
        entries: 10,
        file_bytes: 1 << 30,
        name_bytes: 100,
        depth: 5,
        extension_bytes: 1 << 10,
    };
    let options = UnpackOptions { limits: small, ..overlay() };
    let check = |archive: &[u8], why: &str| {
        let error = unpack_layer(archive, scratch().path(), &options).unwrap_err();
        assert!(error.chain().any(<dyn std::error::Error>::is::<BadLayer>), "{error:#}");
        assert!(format!("{error:#}").contains(why), "{error:#}");
    };
    let many = (0..11).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), ""));
    check(&many.end(), "it has more than 10 entries");
    check(&Tar::default().directory("a/b/c/d/e/f/g").end(), "more than 5 directories around");
    check(
        &Tar::default().pax(&[("path", "x/".repeat(60).as_bytes())]).file("a", "").end(),
        "more than 100 bytes of one name",
    );
    check(
        &Tar::default().pax(&[("comment", &[b'x'; 2000])]).file("a", "").end(),
        "more than 1024 bytes of one extension",
    );
    let sparse = [("GNU.sparse.size", &b"9999999999"[..]), ("GNU.sparse.map", b"")];
    check(&Tar::default().pax(&sparse).file("a", "").end(), "more than 1073741824 bytes of one file");
    // A gigabyte of zeros is a megabyte when packed.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = Item::new(b'0', "zeros").block();
    header[124..135].copy_from_slice(format!("{:011o}", 1u64 << 30).as_bytes());
    bomb.write_all(&Tar::default().raw(header, b"").0).unwrap();
    for _ in 0..64 {
        bomb.write_all(&[0; 1 << 20]).unwrap();
    }
    let start = Instant::now();
    check(&bomb.finish().unwrap(), "it has more than 1048576 bytes");
    assert!(start.elapsed() < Duration::from_secs(20));
    // Zeros after the end count as well.
    check(&[Tar::default().file("a", "").end(), vec![0; 1 << 20]].concat(), "it has more than 1048576 bytes");
}

#[test]
fn paths_deeper_than_the_kernel_takes_at_once_can_be_removed() {
    let deep = "d/".repeat(200);
    let tar =
        Tar::default().pax(&[("path", format!("a/{deep}x").as_bytes())]).file("x", "").file("a", "short now");
    contained(tar, "a file 644 \"short now\"\n");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    unpack(&Tar::default().end(), Path::new("/nonexistent/stead"), &overlay()).unwrap_err();
}
