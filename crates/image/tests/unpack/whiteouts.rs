//! What a layer takes away, in directories for overlayfs and in flat ones, which must come to the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::{Expect, expect};
use stead_image::unpack::{Form, Owners, UnpackOptions, Whiteouts, flatten};
use tempfile::TempDir;

use crate::support::{
    Item, Tar, flat, overlay, scratch, show_without_links, show_without_times, space, unpack,
};
use crate::untested::untested;

/// A lower layer with a bit of everything.
fn lower() -> Tar {
    Tar::default()
        .directory("usr")
        .directory("usr/lib")
        .file("usr/lib/a", "lower a")
        .symlink("lib", "usr/lib")
        .item(&Item { mode: 0o700, mtime: 4, ..Item::new(b'5', "d") })
        .file("d/x", "lower x")
        .file("d/y", "lower y")
        .directory("d/e")
        .file("d/e/deep", "lower deep")
        .file("f", "lower f")
        .file("g", "lower g")
        .hard_link("g2", "g")
}

struct World {
    directories: Vec<TempDir>,
    is_standalone: bool,
}

impl World {
    /// Layers one over the other, the lowest first.
    fn new(layers: &[Vec<u8>], options: &UnpackOptions) -> Self {
        let mut directories: Vec<TempDir> = Vec::new();
        let mut is_standalone = true;
        for layer in layers {
            let lower = directories.iter().rev().map(|directory| directory.path().to_owned()).collect();
            let directory = scratch();
            let unpacked =
                unpack(layer, directory.path(), &UnpackOptions { lower, ..options.clone() }).unwrap();
            is_standalone = unpacked.is_standalone;
            directories.push(directory);
        }
        Self { directories, is_standalone }
    }

    fn top(&self) -> &Path {
        self.directories.last().unwrap().path()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.path().to_owned()).collect()
    }

    /// What overlayfs makes of it.
    fn mounted(&self) -> String {
        let at = scratch();
        let lower: Vec<String> = self.paths().iter().rev().map(|path| path.display().to_string()).collect();
        let userxattr = if space() == stead_image::unpack::XattrSpace::User { ",userxattr" } else { "" };
        let empty = scratch();
        let options = format!("lowerdir={}:{}{userxattr}", lower.join(":"), empty.path().display());
        // In a mount namespace of its own, so that nothing is left if the test dies.
        let script = "mount --make-rprivate / && mount -t overlay stead -o \"$1\" \"$2\" && exec tar --sort=name --xattrs --format=pax -C \"$2\" -cf - .";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", &options])
            .arg(at.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let copy = scratch();
        unpack(&output.stdout, copy.path(), &flat()).unwrap();
        show_without_links(copy.path())
    }

    fn flattened(&self) -> String {
        let into = scratch();
        let skips = flatten(&self.paths(), space(), into.path(), Owners::Keep).unwrap();
        assert_eq!(skips.count, 0);
        show_without_links(into.path())
    }
}

/// Shows the upper layer as a directory for overlayfs, and holds that all ways come to the same.
#[track_caller]
fn check(upper: Tar, expected: &Expect, merged: &Expect) -> bool {
    let layers = [lower().end(), upper.end()];
    let world = World::new(&layers, &overlay());
    expected.assert_eq(&show_without_times(world.top()).replace("user.overlay", "trusted.overlay"));
    let mounted = world.mounted();
    merged.assert_eq(&mounted);
    assert_eq!(world.flattened(), mounted, "flattened and mounted");
    let one = scratch();
    for layer in &layers {
        unpack(layer, one.path(), &flat()).unwrap();
    }
    assert_eq!(show_without_links(one.path()), mounted, "one after the other and mounted");
    world.is_standalone
}

#[test]
fn files_and_directories_go() {
    let standalone = check(
        Tar::default()
            .file(".wh.f", "")
            .file(".wh.d", "")
            .directory("usr")
            .file("usr/.wh.lib", "")
            .file(".wh.none", ""),
        &expect![[r#"
            d character 0:0 0
            f character 0:0 0
            none character 0:0 0
            usr directory 755
            usr/lib character 0:0 0
        "#]],
        &expect![[r#"
            g file 644 "lower g" at 1000
            g2 file 644 "lower g" at 1000
            lib -> usr/lib at 1000
            usr directory 755 at 1000
        "#]],
    );
    assert!(standalone);
}

#[test]
fn an_opaque_directory_has_only_what_its_layer_has_in_any_order() {
    for reverse in [false, true] {
        let directory = Tar::default().item(&Item { mtime: 9, ..Item::new(b'5', "d") });
        let parts = [
            Tar::default().file("d/.wh..wh..opq", ""),
            Tar::default().file("d/new", "upper").directory("d/e").file("d/e/new", "1"),
        ];
        let [first, last] = if reverse { [&parts[1], &parts[0]] } else { [&parts[0], &parts[1]] };
        let tar = Tar([directory.0, first.0.clone(), last.0.clone()].concat());
        check(
            tar,
            &expect![[r#"
                d directory 755 trusted.overlay.opaque=y
                d/e directory 755
                d/e/new file 644 "1"
                d/new file 644 "upper"
            "#]],
            &expect![[r#"
                d directory 755 at 9
                d/e directory 755 at 1000
                d/e/new file 644 "1" at 1000
                d/new file 644 "upper" at 1000
                f file 644 "lower f" at 1000
                g file 644 "lower g" at 1000
                g2 file 644 "lower g" at 1000
                lib -> usr/lib at 1000
                usr directory 755 at 1000
                usr/lib directory 755 at 1000
                usr/lib/a file 644 "lower a" at 1000
            "#]],
        );
    }
}

#[test]
fn a_whiteout_is_about_lower_layers_only_in_any_order() {
    for reverse in [false, true] {
        let marks = Tar::default().file(".wh.d", "").file(".wh.f", "").file(".wh.lib", "");
        let things = Tar::default()
            .item(&Item { mtime: 9, ..Item::new(b'5', "d") })
            .file("d/new", "upper")
            .file("f", "upper f")
            .directory("lib");
        let [first, last] = if reverse { [things, marks] } else { [marks, things] };
        check(
            Tar([first.0, last.0].concat()),
            &expect![[r#"
            d directory 755 trusted.overlay.opaque=y
            d/new file 644 "upper"
            f file 644 "upper f"
            lib directory 755 trusted.overlay.opaque=y
        "#]],
            &expect![[r#"
            d directory 755 at 9
            d/new file 644 "upper" at 1000
            f file 644 "upper f" at 1000
            g file 644 "lower g" at 1000
            g2 file 644 "lower g" at 1000
            lib directory 755 at 1000
            usr directory 755 at 1000
            usr/lib directory 755 at 1000
            usr/lib/a file 644 "lower a" at 1000
        "#]],
        );
    }
}

#[test]
fn kinds_change_over_a_lower_layer() {
    check(
        Tar::default()
            .file("d", "a file now")
            .item(&Item { mtime: 9, ..Item::new(b'5', "f") })
            .file("f/in", "a directory now")
            .item(&Item { mtime: 10, ..Item::new(b'5', "lib") })
            .file("lib/b", "no symlink any more")
            .symlink("g", "f"),
        &expect![[r#"
            d file 644 "a file now"
            f directory 755
            f/in file 644 "a directory now"
            g -> f
            lib directory 755
            lib/b file 644 "no symlink any more"
        "#]],
        &expect![[r#"
            d file 644 "a file now" at 1000
            f directory 755 at 9
            f/in file 644 "a directory now" at 1000
            g -> f at 1000
            g2 file 644 "lower g" at 1000
            lib directory 755 at 10
            lib/b file 644 "no symlink any more" at 1000
            usr directory 755 at 1000
            usr/lib directory 755 at 1000
            usr/lib/a file 644 "lower a" at 1000
        "#]],
    );
}

#[test]
fn a_directory_after_a_file_of_its_layer_shows_nothing_below() {
    check(
        Tar::default()
            .file("d", "for a moment")
            .item(&Item { mtime: 9, ..Item::new(b'5', "d") })
            .file("d/new", "1"),
        &expect![[r#"
            d directory 755 trusted.overlay.opaque=y
            d/new file 644 "1"
        "#]],
        &expect![[r#"
            d directory 755 at 9
            d/new file 644 "1" at 1000
            f file 644 "lower f" at 1000
            g file 644 "lower g" at 1000
            g2 file 644 "lower g" at 1000
            lib -> usr/lib at 1000
            usr directory 755 at 1000
            usr/lib directory 755 at 1000
            usr/lib/a file 644 "lower a" at 1000
        "#]],
    );
}

#[test]
fn what_a_layer_takes_for_granted_is_as_below() {
    let standalone = check(
        // No entries for `d`, `d/e`, and `lib` is a symlink of the lower layer.
        Tar::default()
            .file("d/e/new", "upper")
            .file("lib/b", "through a lower symlink")
            .hard_link("link", "lib/a")
            .hard_link("link2", "usr/lib/a")
            .hard_link("link3", "link"),
        &expect![[r#"
            d directory 700
            d/e directory 755
            d/e/new file 644 "upper"
            link file 644 "lower a" links 4
            link2 file 644 "lower a" links 4
            link3 file 644 "lower a" links 4
            usr directory 755
            usr/lib directory 755
            usr/lib/a file 644 "lower a" links 4
            usr/lib/b file 644 "through a lower symlink"
        "#]],
        &expect![[r#"
            d directory 700 at 4
            d/e directory 755 at 1000
            d/e/deep file 644 "lower deep" at 1000
            d/e/new file 644 "upper" at 1000
            d/x file 644 "lower x" at 1000
            d/y file 644 "lower y" at 1000
            f file 644 "lower f" at 1000
            g file 644 "lower g" at 1000
            g2 file 644 "lower g" at 1000
            lib -> usr/lib at 1000
            link file 644 "lower a" at 1000
            link2 file 644 "lower a" at 1000
            link3 file 644 "lower a" at 1000
            usr directory 755 at 1000
            usr/lib directory 755 at 1000
            usr/lib/a file 644 "lower a" at 1000
            usr/lib/b file 644 "through a lower symlink" at 1000
        "#]],
    );
    assert!(!standalone);
}

#[test]
fn a_whiteouts_place_can_be_taken_by_a_directory_nobody_named() {
    check(
        Tar::default().file(".wh.d", "").file("d/new", "1"),
        &expect![[r#"
        d directory 755 trusted.overlay.opaque=y
        d/new file 644 "1"
    "#]],
        &expect![[r#"
        d directory 755 at 1000
        d/new file 644 "1" at 1000
        f file 644 "lower f" at 1000
        g file 644 "lower g" at 1000
        g2 file 644 "lower g" at 1000
        lib -> usr/lib at 1000
        usr directory 755 at 1000
        usr/lib directory 755 at 1000
        usr/lib/a file 644 "lower a" at 1000
    "#]],
    );
}

#[test]
fn an_opaque_root_hides_all_that_is_below() {
    check(
        Tar::default().directory("usr").file(".wh..wh..opq", "").file("new", "1"),
        &expect![[r#"
            d character 0:0 0
            f character 0:0 0
            g character 0:0 0
            g2 character 0:0 0
            lib character 0:0 0
            new file 644 "1"
            usr directory 755 trusted.overlay.opaque=y
        "#]],
        &expect![[r#"
            new file 644 "1" at 1000
            usr directory 755 at 1000
        "#]],
    );
}

#[test]
fn hard_links_to_what_is_gone_or_not_there_are_refused() {
    for upper in [
        Tar::default().file(".wh.g", "").hard_link("link", "g"),
        Tar::default().hard_link("link", "none"),
        Tar::default().hard_link("link", "d"),
        Tar::default().directory("d").file("d/.wh..wh..opq", "").hard_link("link", "d/x"),
    ] {
        let world = World::new(&[lower().end()], &overlay());
        let lower = vec![world.top().to_owned()];
        let error =
            unpack(&upper.end(), scratch().path(), &UnpackOptions { lower, ..overlay() }).unwrap_err();
        assert!(format!("{error:#}").starts_with("entry `link`: a hard link to "), "{error:#}");
    }
}

#[test]
fn whiteouts_can_be_attributes() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or_default());
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        return untested(&format!("overlayfs of Linux {release} does not know them"));
    }
    let form = Form::Overlay { space: space(), whiteouts: Whiteouts::Attributes };
    let upper = Tar::default()
        .item(&Item { mode: 0o700, mtime: 4, ..Item::new(b'5', "d") })
        .file("d/.wh.x", "")
        .file("d/.wh.e", "")
        .file("d/new", "")
        .end();
    let layers = [lower().end(), upper];
    let world = World::new(&layers, &UnpackOptions { form, ..overlay() });
    let mark = show_without_times(world.top()).replace("user.overlay", "trusted.overlay");
    expect![[r#"
        d directory 700 trusted.overlay.opaque=x
        d/e file 0 "" trusted.overlay.whiteout=y
        d/new file 644 ""
        d/x file 0 "" trusted.overlay.whiteout=y
    "#]]
    .assert_eq(&mark);
    let as_devices = World::new(&layers, &overlay());
    assert_eq!(world.mounted(), as_devices.mounted());
    assert_eq!(world.flattened(), as_devices.flattened());
}

#[test]
fn parents_keep_their_times_and_lists_when_a_flat_directory_changes() {
    let into = scratch();
    unpack(&lower().end(), into.path(), &flat()).unwrap();
    let acl =
        b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let key = "system.posix_acl_default";
    rustix::fs::setxattr(into.path().join("d"), key, acl, rustix::fs::XattrFlags::empty()).unwrap();
    let before = fs::metadata(into.path().join("d")).unwrap().modified().unwrap();
    unpack(&Tar::default().file("d/z", "").file("d/.wh.x", "").end(), into.path(), &flat()).unwrap();
    assert_eq!(fs::metadata(into.path().join("d")).unwrap().modified().unwrap(), before);
    assert_eq!(crate::support::xattrs(&into.path().join("d")), [(key.to_owned(), acl.to_vec())]);
    assert!(crate::support::xattrs(&into.path().join("d/z")).is_empty());
    assert!(!into.path().join("d/x").exists());
}
