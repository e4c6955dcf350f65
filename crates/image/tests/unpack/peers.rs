//! The same image unpacked by `umoci` and by us, compared file by file.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stead_image::unpack::{UnpackOptions, flatten, unpack_layer};

use crate::support::{Item, Tar, flat, is_real_root, scratch, show, show_without_links, space};
use crate::untested::untested;

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Shows only what differs: there are many lines.
#[track_caller]
fn same(ours: &str, theirs: &str) {
    let without = |some: &str, others: &str| -> Vec<String> {
        some.lines().filter(|line| !others.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    assert!(
        ours == theirs,
        "only ours: {:#?}, only theirs: {:#?}",
        without(ours, theirs),
        without(theirs, ours)
    );
}

/// Layers with all that umoci 0.4 gets right.
fn layers() -> [Tar; 3] {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let body = [b'x'; 70_000];
    let base = Tar::default()
        .item(&Item { mode: 0o755, mtime: 11, ..Item::new(b'5', "./") })
        .item(&Item { mode: 0o1777, ..Item::new(b'5', "./tmp/") })
        .directory("usr")
        .directory("usr/lib")
        .item(&Item { owner: (1, 2), mode: 0o6755, body: &body, ..Item::new(b'0', "usr/lib/big") })
        .hard_link("usr/lib/big2", "usr/lib/big")
        .symlink("lib", "usr/lib")
        .item(&Item { owner: (3, 4), link: b"/etc/../nowhere", ..Item::new(b'2', "dangling") })
        .pax(&[("SCHILY.xattr.security.capability", capability), ("mtime", b"1700000000.5")])
        .item(&Item { mode: 0o755, ..Item::new(b'0', "usr/ping") })
        .pax(&[("SCHILY.xattr.user.note", b"a=b\0c")])
        .directory("etc")
        .file("etc/a", "1")
        .file("etc/b", "2")
        .item(&Item { device: (1, 3), mode: 0o666, ..Item::new(b'3', "null") })
        .item(&Item { device: (7, 0), mode: 0o660, owner: (0, 6), ..Item::new(b'4', "loop") })
        .item(&Item { mode: 0o600, ..Item::new(b'6', "pipe") })
        .directory("opaque")
        .file("opaque/old", "1");
    // Whoever makes up directories that have no entry says something else of their times.
    let base = (1..40)
        .fold(base, |tar, depth| tar.pax(&[("path", "long/".repeat(depth).as_bytes())]).directory("x"));
    let second = Tar::default()
        .directory("etc")
        .file("etc/.wh.a", "")
        .file("etc/c", "3")
        .file(".wh.dangling", "")
        .directory("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "2")
        .directory("usr")
        .directory("usr/lib")
        .file("lib/through", "a symlinked parent");
    let third = Tar::default()
        .file("etc", "a file now")
        .item(&Item { mtime: 77, ..Item::new(b'5', "null") })
        .file("null/in", "a directory now")
        .hard_link("big3", "usr/lib/big");
    [base, second, third]
}

/// An image in a directory, made by `umoci`.
fn image(at: &Path, layers: &[Vec<u8>]) {
    let (oci, tag) = (at.join("oci"), format!("{}:x", at.join("oci").display()));
    run(Command::new("umoci").args(["init", "--layout"]).arg(&oci));
    run(Command::new("umoci").args(["new", "--image", &tag]));
    for (number, layer) in layers.iter().enumerate() {
        let file = at.join(format!("{number}.tar"));
        fs::write(&file, layer).unwrap();
        run(Command::new("umoci").args(["raw", "add-layer", "--image", &tag]).arg(&file));
    }
}

/// The blobs of its layers and their digests.
fn blobs(oci: &Path) -> Vec<(std::path::PathBuf, String)> {
    let blob = |digest: &str| oci.join("blobs").join(digest.replace(':', "/"));
    let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = json(&oci.join("index.json"));
    let manifest = json(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let config = json(&blob(manifest["config"]["digest"].as_str().unwrap()));
    let digests = config["rootfs"]["diff_ids"].as_array().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), digests.len());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    layers.iter().zip(digests).map(|(layer, digest)| (blob(&text(&layer["digest"])), text(digest))).collect()
}

#[test]
fn umoci_makes_the_same_of_the_same_image() {
    if !is_real_root() {
        return untested("only root of the computer can make devices");
    }
    let at = scratch();
    image(at.path(), &layers().map(Tar::end));
    run(Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:x", at.path().join("oci").display())])
        .arg(at.path().join("bundle")));
    let (one, over, merged) = (scratch(), scratch(), scratch());
    let mut lower = Vec::new();
    for (number, (blob, diff_id)) in blobs(&at.path().join("oci")).into_iter().enumerate() {
        let open = || fs::File::open(&blob).unwrap();
        let unpacked = unpack_layer(open(), one.path(), &flat()).unwrap();
        assert_eq!((unpacked.diff_id.as_str(), unpacked.skips.count), (diff_id.as_str(), 0));
        let layer = over.path().join(number.to_string());
        fs::create_dir(&layer).unwrap();
        let options = UnpackOptions { lower: lower.clone(), ..UnpackOptions::default() };
        unpack_layer(open(), &layer, &options).unwrap();
        lower.insert(0, layer);
    }
    lower.reverse();
    flatten(&lower, space(), merged.path(), stead_image::unpack::Owners::Keep).unwrap();
    let theirs = show(&at.path().join("bundle/rootfs"));
    same(&show(one.path()), &theirs);
    // Files that were linked over layers are not the same file any more.
    same(&show_without_links(merged.path()), &show_without_links(&at.path().join("bundle/rootfs")));
}

#[test]
fn umoci_reads_what_we_pack() {
    if !is_real_root() {
        return untested("only root of the computer can make devices");
    }
    let root = scratch();
    for layer in layers() {
        stead_image::unpack::unpack_layer(layer.end().as_slice(), root.path(), &flat()).unwrap();
    }
    let big = fs::File::create(root.path().join("sparse")).unwrap();
    big.set_len(50 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&big, b"end", (50 << 20) - 3).unwrap();
    drop(big);
    let mut archive = Vec::new();
    stead_image::unpack::pack_tree(root.path(), &mut archive).unwrap();
    let at = scratch();
    image(at.path(), &[archive]);
    run(Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:x", at.path().join("oci").display())])
        .arg(at.path().join("bundle")));
    same(&show(&at.path().join("bundle/rootfs")), &show(root.path()));
}

/// How long it takes to unpack the archive that `STEAD_TEST_LAYER` names, beside `umoci`: build it with `--release`.
#[test]
#[ignore = "measures, and needs an archive"]
fn how_long_a_layer_takes() {
    let file = std::env::var("STEAD_TEST_LAYER").unwrap();
    let mut ours = Vec::new();
    for _ in 0..5 {
        let into = scratch();
        let start = std::time::Instant::now();
        let unpacked =
            unpack_layer(fs::File::open(&file).unwrap(), into.path(), &UnpackOptions::default()).unwrap();
        ours.push(start.elapsed().as_secs_f64());
        assert!(unpacked.entries > 0);
        let start = std::time::Instant::now();
        let packed = stead_image::unpack::pack_tree(into.path(), std::io::sink()).unwrap();
        println!("packed {} bytes in {:.2} s", packed.bytes, start.elapsed().as_secs_f64());
    }
    ours.sort_by(f64::total_cmp);
    println!("unpacked in {ours:.2?} s");
}
