//! Every kind of entry, in every dialect.

use std::fs;
use std::os::unix::fs::MetadataExt;

use expect_test::{Expect, expect};

use crate::support::{Item, Tar, flat, is_real_root, overlay, scratch, shown, unpack};
use crate::untested::untested;

#[track_caller]
fn check(tar: Tar, expected: &Expect) {
    let archive = tar.end();
    let overlay = shown(&archive, &overlay());
    expected.assert_eq(&overlay);
    assert_eq!(shown(&archive, &flat()), overlay, "flat and for overlayfs");
}

#[test]
fn files_directories_and_links() {
    check(
        Tar::default()
            .item(&Item { mtime: 77, mode: 0o1777, ..Item::new(b'5', "./tmp/") })
            .file("tmp/a", "hello")
            .item(&Item { mode: 0o4755, ..Item::new(b'0', "tmp/su") })
            .item(&Item { mode: 0o2711, ..Item::new(b'7', "tmp/sg") })
            .hard_link("b", "tmp/a")
            .hard_link("c", "/./b")
            .symlink("tmp/up", "../../../etc/passwd")
            .hard_link("up", "tmp/up")
            .item(&Item { mode: 0o2755, ..Item::new(b'5', "group") })
            .file("group/in", "")
            .item(&Item { mode: 0o600, ..Item::new(b'6', "pipe") })
            .item(&Item { mode: 0, ..Item::new(b'5', "closed") })
            .file("closed/x", "x"),
        &expect![[r#"
            b file 644 "hello" links 3 at 1000
            c file 644 "hello" links 3 at 1000
            closed directory 0 at 1000
            closed/x file 644 "x" at 1000
            group directory 2755 at 1000
            group/in file 644 "" at 1000
            pipe fifo 600 at 1000
            tmp directory 1777 at 77
            tmp/a file 644 "hello" links 3 at 1000
            tmp/sg file 2711 "" at 1000
            tmp/su file 4755 "" at 1000
            tmp/up -> ../../../etc/passwd links 2 at 1000
            up -> ../../../etc/passwd links 2 at 1000
        "#]],
    );
}

#[test]
fn owners_modes_and_nodes() {
    if !is_real_root() {
        return untested("only root of the computer can: it is tested in `rootless` what others do");
    }
    check(
        Tar::default()
            .item(&Item { owner: (1, 2), mode: 0o4750, ..Item::new(b'0', "a") })
            .pax(&[("uid", b"4000000000"), ("gid", b"3000000")])
            .item(&Item::new(b'5', "d"))
            .item(&Item { owner: (7, 8), link: b"a", ..Item::new(b'2', "l") })
            .item(&Item { device: (1, 3), mode: 0o666, ..Item::new(b'3', "null") })
            .item(&Item { device: (259, 1_000_000), mode: 0o660, owner: (0, 6), ..Item::new(b'4', "disk") }),
        &expect![[r#"
            a file 4750 "" of 1:2 at 1000
            d directory 755 of 4000000000:3000000 at 1000
            disk block 259:1000000 660 of 0:6 at 1000
            l -> a of 7:8 at 1000
            null character 1:3 666 at 1000
        "#]],
    );
}

#[test]
fn times_to_the_nanosecond_and_before_1970() {
    check(
        Tar::default()
            .pax(&[("mtime", b"1700000000.123456789")])
            .directory("d")
            .pax(&[("mtime", b"-1.5")])
            .file("d/old", "")
            .pax(&[("mtime", b"12.000000001")])
            .symlink("d/link", "x"),
        &expect![[r#"
            d directory 755 at 1700000000.123456789
            d/link -> x at 12.000000001
            d/old file 644 "" at -2.500000000
        "#]],
    );
}

#[test]
fn attributes_capabilities_and_access_lists() {
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x06\0\0\0\0\0\x04\0\x05\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let tar = Tar::default()
        .pax(&[("SCHILY.xattr.user.note", b"a\0b=c\n"), ("SCHILY.xattr.user.empty", b"")])
        .file("noted", "x")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .item(&Item { mode: 0o755, body: b"ping", ..Item::new(b'0', "ping") })
        .pax(&[("SCHILY.xattr.system.posix_acl_default", acl), ("SCHILY.xattr.system.posix_acl_access", acl)])
        .item(&Item { mode: 0o775, ..Item::new(b'5', "shared") })
        // Made after its directory, but it must not inherit from it: it has no list of its own.
        .item(&Item { mode: 0o640, ..Item::new(b'0', "shared/file") });
    check(
        tar,
        &expect![[r#"
            noted file 644 "x" user.empty= user.note=a\x00b=c\n at 1000
            ping file 755 "ping" security.capability=\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00 at 1000
            shared directory 775 system.posix_acl_access=\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x06\x00\x00\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff \x00\x05\x00\xff\xff\xff\xff system.posix_acl_default=\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x06\x00\x00\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff \x00\x05\x00\xff\xff\xff\xff at 1000
            shared/file file 640 "" at 1000
        "#]],
    );
    if is_real_root() {
        let tar = Tar::default().pax(&[("SCHILY.xattr.trusted.x", b"y")]).symlink("link", "noted");
        check(
            tar,
            &expect![[r#"
            link -> noted trusted.x=y at 1000
        "#]],
        );
    }
}

#[test]
fn long_names_and_names_that_are_no_text() {
    let long = "d".repeat(90);
    let name = format!("{long}/{long}/{long}");
    let posix = {
        let mut block = Item::new(b'0', "in-prefix").block();
        block[345..345 + 5].copy_from_slice(b"usr/x");
        block
    };
    let gnu = |kind, body: &str| {
        let mut block = Item { body: body.as_bytes(), ..Item::new(kind, "././@LongLink") }.block();
        block[257..265].copy_from_slice(b"ustar  \0");
        block
    };
    check(
        Tar::default()
            .raw(posix, b"")
            .pax(&[("path", name.as_bytes()), ("linkpath", b"\xff\xfe target")])
            .symlink("short", "short")
            .raw(gnu(b'L', &format!("{name}-gnu\0")), format!("{name}-gnu\0").as_bytes())
            .raw(gnu(b'K', &format!("{name}\0")), format!("{name}\0").as_bytes())
            .symlink("short", "short")
            .item(&Item::new(b'0', b"\xff\xfe\n\x1b"))
            .pax(&[("path", b"gr\xc3\xbc\xc3\x9fe")])
            .file("x", "y"),
        &expect![[r#"
            dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd directory 755 at 1000
            dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd directory 755 at 1000
            dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd -> \xff\xfe target at 1000
            dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd-gnu -> dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd at 1000
            gr\xc3\xbc\xc3\x9fe file 644 "y" at 1000
            usr directory 755 at 1000
            usr/x directory 755 at 1000
            usr/x/in-prefix file 644 "" at 1000
            \xff\xfe\n\x1b file 644 "" at 1000
        "#]],
    );
}

#[test]
fn old_archives_and_unusual_ones() {
    let mut v7 = Item::new(0, "v7/").block();
    v7[257..265].fill(0);
    let mut file = Item::new(0, "v7/file").block();
    file[257..265].fill(0);
    let mut binary = Item { body: b"12345", ..Item::new(b'0', "binary") }.block();
    binary[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x05");
    binary[108..116].copy_from_slice(b"       \0");
    // A size says nothing where there can be no contents.
    let mut sized = Item { link: b"binary", ..Item::new(b'2', "sized") }.block();
    sized[124..135].copy_from_slice(b"00000001000");
    check(
        Tar::default()
            .item(&Item { body: b"16 comment=abcd\n", ..Item::new(b'g', "pax_global_header") })
            .raw(v7, b"")
            .raw(file, b"")
            .raw(binary, b"12345")
            .raw(sized, b""),
        &expect![[r#"
            binary file 644 "12345" at 1000
            sized -> binary at 1000
            v7 directory 644 at 1000
            v7/file file 644 "" at 1000
        "#]],
    );
}

#[test]
fn sparse_files_of_all_four_formats_have_their_holes() {
    const SIZE: u64 = 1 << 30;
    let (at, body) = (SIZE - 4096, [b'x'; 4096]);
    let mut gnu = Item { body: &body, ..Item::new(b'S', "gnu") }.block();
    gnu[257..265].copy_from_slice(b"ustar  \0");
    gnu[329..345].fill(0);
    gnu[386..398].copy_from_slice(format!("{at:011o}\0").as_bytes());
    gnu[398..410].copy_from_slice(format!("{:011o}\0", 4096).as_bytes());
    gnu[483..495].copy_from_slice(format!("{SIZE:011o}\0").as_bytes());
    let size = SIZE.to_string();
    let map = format!("1\n{at}\n4096\n");
    let with_map = [map.as_bytes(), &vec![0; 512 - map.len()], &body].concat();
    let archive = Tar::default()
        .raw(gnu, &body)
        .pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.offset", at.to_string().as_bytes()),
            ("GNU.sparse.numbytes", b"4096"),
        ])
        .item(&Item { body: &body, ..Item::new(b'0', "pax00") })
        .pax(&[
            ("GNU.sparse.name", b"pax01"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", format!("{at},4096").as_bytes()),
        ])
        .item(&Item { body: &body, ..Item::new(b'0', "GNUSparseFile.0/pax01") })
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax10"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .item(&Item { body: &with_map, ..Item::new(b'0', "GNUSparseFile.0/pax10") })
        .file("after", "still in step")
        .end();
    let into = scratch();
    unpack(&archive, into.path(), &overlay()).unwrap();
    assert_eq!(fs::read(into.path().join("after")).unwrap(), b"still in step");
    for name in ["gnu", "pax00", "pax01", "pax10"] {
        use std::os::unix::fs::FileExt;
        let file = fs::File::open(into.path().join(name)).unwrap();
        let about = file.metadata().unwrap();
        assert_eq!(about.size(), SIZE, "{name}");
        assert!(about.blocks() * 512 < 1 << 20, "{name}");
        let mut end = [0; 8192];
        file.read_exact_at(&mut end, SIZE - 8192).unwrap();
        assert!(end[..4096] == [0; 4096] && end[4096..] == body, "{name}");
    }
}

#[test]
fn maps_of_sparse_files_go_on_in_more_blocks() {
    // Parts of one block each, more than fit into one header.
    let parts: Vec<u64> = (0..30).map(|number| number << 20).collect();
    let mut extended = Item::new(b'S', "extended").block();
    extended[257..265].copy_from_slice(b"ustar  \0");
    extended[329..345].fill(0);
    extended[124..135].copy_from_slice(format!("{:011o}", parts.len() * 512).as_bytes());
    let field = |number: u64| format!("{number:011o}\0").into_bytes();
    let pairs: Vec<u8> = parts.iter().flat_map(|offset| [field(*offset), field(512)].concat()).collect();
    extended[386..482].copy_from_slice(&pairs[..96]);
    extended[482] = 1;
    extended[483..495].copy_from_slice(&field(30 << 20));
    let mut more = Vec::new();
    for chunk in pairs[96..].chunks(504) {
        more.extend(chunk);
        more.resize(more.len().next_multiple_of(512), 0);
        let flag = more.len() - 8;
        more[flag] = u8::from(more.len() / 512 < 2);
    }
    more.extend(parts.iter().enumerate().flat_map(|(number, _)| [u8::try_from(number).unwrap() + 1; 512]));
    let archive = Tar::default().raw(extended, &more).file("after", "still in step").end();
    let into = scratch();
    unpack(&archive, into.path(), &overlay()).unwrap();
    assert_eq!(fs::read(into.path().join("after")).unwrap(), b"still in step");
    let file = fs::read(into.path().join("extended")).unwrap();
    for (number, offset) in parts.iter().enumerate() {
        let at = usize::try_from(*offset).unwrap();
        assert_eq!(file[at..at + 512], [u8::try_from(number).unwrap() + 1; 512]);
        assert_eq!(file[at + 512..at + 1024], [0; 512]);
    }
}

#[test]
fn what_comes_later_replaces_what_came_before() {
    check(
        Tar::default()
            .file("a", "one")
            .hard_link("b", "a")
            .file("a", "two")
            .directory("d")
            .directory("d/e")
            .file("d/e/f", "gone")
            .file("d", "a file now")
            .file("g", "gone")
            .symlink("g", "a")
            .symlink("h", "nowhere")
            .directory("h2")
            .file("h", "no link any more")
            .directory("h2")
            .item(&Item { mode: 0o700, mtime: 5, ..Item::new(b'5', "h2") }),
        &expect![[r#"
            a file 644 "two" at 1000
            b file 644 "one" at 1000
            d file 644 "a file now" at 1000
            g -> a at 1000
            h file 644 "no link any more" at 1000
            h2 directory 700 at 5
        "#]],
    );
}

#[test]
fn symlinked_parents_are_followed_within_the_root() {
    check(
        Tar::default()
            .directory("usr")
            .directory("usr/lib")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/usr/../../../usr/lib/")
            .symlink("usr/self", ".")
            .file("lib/a", "1")
            .file("abs/b", "2")
            .file("usr/self/self/lib/c", "3")
            .hard_link("d", "abs/c"),
        &expect![[r#"
            abs -> /usr/../../../usr/lib/ at 1000
            d file 644 "3" links 2 at 1000
            lib -> usr/lib at 1000
            usr directory 755 at 1000
            usr/lib directory 755 at 1000
            usr/lib/a file 644 "1" at 1000
            usr/lib/b file 644 "2" at 1000
            usr/lib/c file 644 "3" links 2 at 1000
            usr/self -> . at 1000
        "#]],
    );
}

#[test]
fn archives_without_an_end_are_read_as_others_read_them() {
    let whole = Tar::default().file("a", "1").file("b", "2");
    let into = scratch();
    let unpacked = unpack(&whole.0, into.path(), &overlay()).unwrap();
    assert_eq!(unpacked.entries, 2);
    let after = [whole.clone().end(), b"whatever follows belongs to the digest".to_vec()].concat();
    let other = unpack(&after, scratch().path(), &overlay()).unwrap();
    assert!(other.entries == 2 && other.diff_id != unpacked.diff_id);
}
