//! Directories become archives, and the same directories come of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use proptest::prelude::*;
use stead_image::unpack::{Fate, Form, Whiteouts, XattrSpace, pack_diff, pack_diffs, pack_tree};

use crate::support::{
    Item, Tar, flat, is_real_root, overlay, scratch, show_marks_alike, show_without_links, space, unpack,
    xattrs,
};

/// The names in an archive, as another program lists them.
fn listed(archive: &[u8]) -> String {
    let at = scratch();
    let file = at.path().join("a.tar");
    fs::write(&file, archive).unwrap();
    let output = Command::new("tar")
        .args(["--numeric-owner", "--full-time", "-tvf"])
        .arg(&file)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn tree(root: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    let packed = pack_tree(root, &mut archive).unwrap();
    assert_eq!(packed.bytes, archive.len() as u64);
    let again = unpack(&archive, scratch().path(), &flat()).unwrap();
    assert_eq!((packed.diff_id, packed.entries), (again.diff_id, again.entries));
    archive
}

#[test]
fn a_diff_has_marks_for_what_is_gone() {
    let archive = Tar::default()
        .item(&Item { mode: 0o750, ..Item::new(b'5', "./") })
        .file(".wh.gone", "")
        .item(&Item { mode: 0o1777, ..Item::new(b'5', "d") })
        .file("d/.wh..wh..opq", "")
        .file("d/a", "1")
        .hard_link("d/b", "d/a")
        .file("d/.wh.x", "")
        .symlink("z", "d/a")
        .item(&Item { mode: 0o600, ..Item::new(b'6', "d/pipe") })
        .end();
    for whiteouts in [Whiteouts::Devices, Whiteouts::Attributes] {
        let upper = scratch();
        let form = Form::Overlay { space: space(), whiteouts };
        unpack(&archive, upper.path(), &stead_image::unpack::UnpackOptions { form, ..overlay() }).unwrap();
        let mut packed = Vec::new();
        pack_diff(upper.path(), space(), &mut packed).unwrap();
        expect![[r#"
            drwxr-x--- 0/0               0 1970-01-01 00:16:40 ./
            -rw------- 0/0               0 1970-01-01 00:00:00 .wh.gone
            drwxrwxrwt 0/0               0 1970-01-01 00:16:40 d/
            -rw------- 0/0               0 1970-01-01 00:00:00 d/.wh..wh..opq
            -rw------- 0/0               0 1970-01-01 00:00:00 d/.wh.x
            -rw-r--r-- 0/0               1 1970-01-01 00:16:40 d/a
            hrw-r--r-- 0/0               0 1970-01-01 00:16:40 d/b link to d/a
            prw------- 0/0               0 1970-01-01 00:16:40 d/pipe
            lrwxrwxrwx 0/0               0 1970-01-01 00:16:40 z -> d/a
        "#]]
        .assert_eq(&listed(&packed));
    }
}

#[test]
fn what_overlayfs_only_refers_to_is_refused() {
    for (name, words) in [("redirect", "`redirect`"), ("metacopy", "`metacopy`")] {
        let upper = scratch();
        fs::create_dir(upper.path().join("d")).unwrap();
        let prefix = if space() == XattrSpace::Trusted { "trusted" } else { "user" };
        let key = format!("{prefix}.overlay.{name}");
        rustix::fs::setxattr(upper.path().join("d"), key, b"/e", rustix::fs::XattrFlags::empty()).unwrap();
        let error = pack_diff(upper.path(), space(), Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

#[test]
fn an_overlay_in_use_becomes_a_layer_that_gives_the_same() {
    let world = scratch();
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| world.path().join(name));
    for directory in [&upper, &work, &merged, &lower] {
        fs::create_dir(directory).unwrap();
    }
    let below = Tar::default()
        .directory("d")
        .file("d/x", "1")
        .directory("e")
        .file("e/y", "2")
        .file("f", "3")
        .directory("g")
        .file("g/z", "4")
        .end();
    unpack(&below, &lower, &overlay()).unwrap();
    let script = r#"mount --make-rprivate / && mount -t overlay stead -o "$1" "$2" && cd "$2" &&
        rm d/x && rm -r e && mkdir e && echo new > e/new && ln f f2 && chmod 600 f && rm -r g && ln -s d g && mkfifo d/pipe &&
        setfattr -n user.a -v b d && exec tar --sort=name --xattrs --format=pax -cf - ."#;
    let userxattr = if space() == XattrSpace::User { ",userxattr" } else { "" };
    let options = format!(
        "lowerdir={},upperdir={},workdir={}{userxattr}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &options])
        .arg(&merged)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut layer = Vec::new();
    pack_diff(&upper, space(), &mut layer).unwrap();
    let (seen, made) = (scratch(), scratch());
    unpack(&output.stdout, seen.path(), &flat()).unwrap();
    unpack(&below, made.path(), &flat()).unwrap();
    unpack(&layer, made.path(), &flat()).unwrap();
    // Overlayfs of a user namespace breaks hard links, because it keeps no index.
    assert_eq!(show_without_links(made.path()), show_without_links(seen.path()));
}

#[test]
fn upper_directories_upon_each_other_are_packed_as_one_layer() {
    let scratch_dir = scratch();
    let at = |name: &str| scratch_dir.path().join(name);
    for name in ["lower", "first", "second", "work", "work2", "merged"] {
        fs::create_dir(at(name)).unwrap();
    }
    let below = Tar::default()
        .directory("d")
        .file("d/x", "1")
        .directory("e")
        .file("e/y", "2")
        .file("f", "3")
        .directory("g")
        .file("g/z", "4")
        .end();
    unpack(&below, &at("lower"), &overlay()).unwrap();
    let script = r#"mount --make-rprivate / && o=$1 && cd "$2" &&
        mount -t overlay stead -o "lowerdir=lower,upperdir=first,workdir=work$o" merged &&
        (cd merged && rm d/x && echo secret > d/s && rm -r e && mkdir n && echo 1 > n/a && echo 2 > n/b && rm f && rm -r g &&
            echo file > g && mkdir -p deep/er && echo 1 > deep/er/a && ln deep/er/a deep/b) && umount merged &&
        mount -t overlay stead -o "lowerdir=first:lower,upperdir=second,workdir=work2$o" merged && cd merged &&
        rm d/s && echo new > d/t && mkdir e && echo e > e/new && rm -r n && mkdir n && echo 3 > n/c && mkdir f && echo f > f/in &&
        rm g && mkdir g && echo g > g/new && chmod 700 deep && echo 2 > deep/er/c && exec tar --sort=name --format=pax -cf - ."#;
    let userxattr = if space() == XattrSpace::User { ",userxattr" } else { "" };
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", userxattr])
        .arg(scratch_dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (first, second) = (at("first"), at("second"));
    let mut layer = Vec::new();
    let all = |_: &[u8]| Fate::Kept;
    pack_diffs(&[&second, &first], &[&at("lower")], space(), &all, &mut layer).unwrap();
    let (seen, made) = (scratch(), scratch());
    unpack(&output.stdout, seen.path(), &flat()).unwrap();
    unpack(&below, made.path(), &flat()).unwrap();
    unpack(&layer, made.path(), &flat()).unwrap();
    assert_eq!(show_without_links(made.path()), show_without_links(seen.path()));
    let text = String::from_utf8_lossy(&layer);
    assert!(!text.contains("secret") && text.contains("d/.wh.x"));
    // Where there is nothing to hide there is no mark for it.
    assert!(!text.contains(".wh.s") && !text.contains(".wh.a"));
    // What is not to be in it is not, and what is to be empty is.
    let fate = |path: &[u8]| match path {
        b"deep/er" => Fate::LeftOut,
        b"e/new" => Fate::Emptied,
        _ => Fate::Kept,
    };
    let (mut layer, made) = (Vec::new(), scratch());
    pack_diffs(&[&second, &first], &[&at("lower")], space(), &fate, &mut layer).unwrap();
    unpack(&layer, made.path(), &flat()).unwrap();
    assert!(!made.path().join("deep/er").exists() && made.path().join("deep/b").exists());
    assert_eq!(fs::read_to_string(made.path().join("e/new")).unwrap(), "");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let archive = Tar::default()
        .item(&Item::new(b'5', "."))
        .file("b", "1")
        .directory("a")
        .file("a/z", "2")
        .file("a.b", "3")
        .hard_link("0", "b")
        .end();
    let (one, other) = (scratch(), scratch());
    unpack(&archive, one.path(), &flat()).unwrap();
    // Made in another order, read from another.
    let first = tree(one.path());
    unpack(&first, other.path(), &flat()).unwrap();
    assert!(tree(other.path()) == first);
    expect![[r#"
        drwxr-xr-x 0/0               0 1970-01-01 00:16:40 ./
        -rw-r--r-- 0/0               1 1970-01-01 00:16:40 0
        drwxr-xr-x 0/0               0 1970-01-01 00:16:40 a/
        -rw-r--r-- 0/0               1 1970-01-01 00:16:40 a/z
        -rw-r--r-- 0/0               1 1970-01-01 00:16:40 a.b
        hrw-r--r-- 0/0               0 1970-01-01 00:16:40 b link to 0
    "#]]
    .assert_eq(&listed(&first));
}

#[test]
fn holes_are_where_nothing_but_zeros_is_wherever_the_file_system_has_them() {
    const SIZE: usize = 20 << 20;
    let mut bytes = vec![0; SIZE];
    bytes[10 << 20] = 1;
    bytes[SIZE - 1] = 2;
    let (dense, sparse) = (scratch(), scratch());
    fs::write(dense.path().join("f"), &bytes).unwrap();
    let file = fs::File::create(sparse.path().join("f")).unwrap();
    file.set_len(SIZE as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2], SIZE as u64 - 1).unwrap();
    drop(file);
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    for root in [&dense, &sparse] {
        fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for path in [root.path().join("f"), root.path().to_owned()] {
            fs::File::open(path).unwrap().set_times(times).unwrap();
        }
    }
    let archive = tree(sparse.path());
    assert!(archive.len() < 1 << 20, "{}", archive.len());
    assert!(archive == tree(dense.path()));
    let into = scratch();
    unpack(&archive, into.path(), &flat()).unwrap();
    assert!(fs::read(into.path().join("f")).unwrap() == bytes);
    assert!(fs::metadata(into.path().join("f")).unwrap().blocks() * 512 < 1 << 20);
    // Another program reads it alike.
    let other = scratch();
    fs::write(other.path().join("a.tar"), &archive).unwrap();
    let status =
        Command::new("tar").arg("-C").arg(other.path()).arg("-xf").arg(other.path().join("a.tar")).status();
    assert!(status.unwrap().success());
    assert!(fs::read(other.path().join("f")).unwrap() == bytes);
}

#[test]
fn a_file_that_is_all_hole_keeps_its_size() {
    let root = scratch();
    fs::File::create(root.path().join("f")).unwrap().set_len(1 << 40).unwrap();
    let archive = tree(root.path());
    let into = scratch();
    unpack(&archive, into.path(), &flat()).unwrap();
    assert_eq!(fs::metadata(into.path().join("f")).unwrap().len(), 1 << 40);
}

#[test]
fn what_archives_cannot_hold_is_told() {
    let root = scratch();
    let socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    let mut archive = Vec::new();
    let packed = pack_tree(root.path(), &mut archive).unwrap();
    drop(socket);
    assert_eq!((packed.entries, packed.skips.count), (1, 1));
    assert_eq!(packed.skips.first[0].name, "socket");
    fs::write(root.path().join(".wh.x"), "").unwrap();
    let error = pack_tree(root.path(), Vec::new()).unwrap_err();
    assert!(format!("{error:#}").contains("would be a whiteout"), "{error:#}");
}

/// Something in a random tree.
#[derive(Clone, Debug)]
enum Thing {
    File(Vec<u8>),
    Directory(Vec<(Vec<u8>, Thing, About)>),
    Symlink(Vec<u8>),
    Fifo,
    Whiteout,
}

#[derive(Clone, Debug)]
struct About {
    mode: u32,
    owner: (u32, u32),
    seconds: i64,
    nanoseconds: u32,
    xattr: Option<Vec<u8>>,
    linked: bool,
    opaque: bool,
}

fn about() -> impl Strategy<Value = About> {
    (
        0u32..0o10000,
        (0u32..3_000_000, 0u32..70_000),
        -1_000_000i64..10_000_000_000,
        prop_oneof![Just(0u32), 0u32..1_000_000_000],
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        any::<bool>(),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(mode, owner, seconds, nanoseconds, xattr, linked, opaque)| About {
            mode,
            owner,
            seconds,
            nanoseconds,
            xattr,
            linked,
            opaque,
        })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{1,3}".prop_map(String::into_bytes),
        "[a-z]{90,250}".prop_map(String::into_bytes),
        proptest::collection::vec(1u8.., 1..20)
    ]
    .prop_filter("a name", |name| {
        !name.contains(&b'/') && name != b"." && name != b".." && !name.starts_with(b".wh.")
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let leaf = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Thing::File),
        1 => proptest::collection::vec(1u8.., 1..300).prop_map(Thing::Symlink),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Whiteout),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        proptest::collection::vec((name(), inner, about()), 0..6).prop_map(Thing::Directory)
    })
}

/// Makes it by the standard library's means.
fn make(path: &Path, thing: &Thing, about: &About, files: &mut Vec<PathBuf>) {
    match thing {
        Thing::File(bytes) => {
            fs::write(path, bytes).unwrap();
            if about.linked {
                files.push(path.to_owned());
            }
        }
        Thing::Directory(children) => {
            fs::create_dir_all(path).unwrap();
            for (name, thing, about) in children {
                use std::os::unix::ffi::OsStrExt;
                let child = path.join(std::ffi::OsStr::from_bytes(name));
                if child.symlink_metadata().is_err() {
                    make(&child, thing, about, files);
                }
            }
            if about.opaque && is_real_root() {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", flags).unwrap();
            }
        }
        Thing::Symlink(target) => {
            symlink(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(target), path).unwrap();
        }
        Thing::Fifo | Thing::Whiteout => {
            let (kind, mode) = if matches!(thing, Thing::Fifo) {
                (rustix::fs::FileType::Fifo, 0o600)
            } else {
                (rustix::fs::FileType::CharacterDevice, 0)
            };
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::from_raw_mode(mode), 0)
                .unwrap();
        }
    }
    if matches!(thing, Thing::Whiteout) {
        // Overlayfs gives them no more, and a layer neither.
        return;
    }
    if is_real_root() {
        std::os::unix::fs::lchown(path, Some(about.owner.0), Some(about.owner.1)).unwrap();
    }
    if !matches!(thing, Thing::Symlink(_)) {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(about.mode)).unwrap();
    }
    if let (Some(value), Thing::File(_) | Thing::Directory(_)) = (&about.xattr, thing) {
        rustix::fs::setxattr(path, "user.note", value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let time = rustix::fs::Timespec { tv_sec: about.seconds, tv_nsec: about.nanoseconds.into() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_and_unpacked_is_the_same(children in proptest::collection::vec((name(), thing(), about()), 0..8), links in proptest::collection::vec(name(), 0..4)) {
        let root = scratch();
        let mut files = Vec::new();
        let plain = About { mode: 0o755, owner: (0, 0), seconds: 1, nanoseconds: 0, xattr: None, linked: false, opaque: false };
        make(root.path(), &Thing::Directory(children), &plain, &mut files);
        for (file, name) in files.iter().zip(&links) {
            use std::os::unix::ffi::OsStrExt;
            fs::hard_link(file, root.path().join(std::ffi::OsStr::from_bytes(name))).ok();
        }
        let mut packed = Vec::new();
        let about = pack_diff(root.path(), space(), &mut packed).unwrap();
        let into = scratch();
        let unpacked = unpack(&packed, into.path(), &overlay()).unwrap();
        prop_assert_eq!(&unpacked.diff_id, &about.diff_id);
        prop_assert!(unpacked.is_standalone);
        prop_assert_eq!(unpacked.skips.count, 0);
        prop_assert_eq!(show_marks_alike(into.path()), show_marks_alike(root.path()));
        prop_assert_eq!(xattrs(into.path()), xattrs(root.path()));
        let mut again = Vec::new();
        pack_diff(into.path(), space(), &mut again).unwrap();
        prop_assert!(again == packed);
        // Another program agrees on what is in it.
        listed(&packed);
    }
}
