//! The store: unpacking, sharing, names, removal, and where images come from.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use stead_image::catalogue::Catalogue;
use stead_image::registry::Pull;
use stead_image::unpack::UnpackOptions;
use stead_image::{
    Client, DebianSettings, Event, Fetch, Import, Origins, Pruned, Removal, Store, Wanted, Which, digest_of,
};
use stead_model::image::{Digest, Image, Platform, Reference};

use crate::support::*;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Pulls an image of these layers into a store.
fn filled(store: &Store, name: &str, layers: &[(Vec<u8>, &str)]) -> Image {
    let mut layout = Layout::default();
    let entry = layout.image("amd64", layers);
    let server = Server::start(hold(&layout, "x", &entry));
    let source = reference(&format!("{}/x", server.at));
    let pull = Pull { source, name: reference(name), platform: amd64() };
    store.pull(&client(|_| {}), &pull, &silent).unwrap().image
}

fn unpack(store: &Store, image: &Image) -> anyhow::Result<()> {
    store.unpack_missing(image, &UnpackOptions::default(), &silent)
}

fn files(paths: &[PathBuf]) -> Vec<String> {
    let names = |path: &PathBuf| {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    paths.iter().map(names).collect()
}

#[test]
fn layers_are_unpacked_once_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (a, b, c) = (tar("a", b"one"), tar("b", b"two"), tar("c", b"three"));
    let first = filled(&store, "one:1", &[(a.clone(), "gzip"), (b.clone(), "zstd"), (a.clone(), "gzip")]);
    assert_eq!(store.layer_paths(&first), Vec::<PathBuf>::new());
    unpack(&store, &first).unwrap();
    // What occurs twice counts at its upper place.
    assert_eq!(files(&store.layer_paths(&first)), ["b", "a"]);
    let second = filled(&store, "two:1", &[(a.clone(), "gzip"), (c.clone(), "")]);
    assert_eq!(store.missing_layers(&second), [digest_of(&c)]);
    let events = Mutex::new(Vec::new());
    let told = |event| {
        if let Event::Unpacked { layer, .. } = event {
            events.lock().unwrap().push(layer);
        }
    };
    store.unpack_missing(&second, &UnpackOptions::default(), &told).unwrap();
    assert_eq!(events.into_inner().unwrap(), [digest_of(&c)]);
    assert_eq!(files(&store.layer_paths(&second)), ["a", "c"]);
    assert_eq!(store.layer_paths(&first)[1], store.layer_paths(&second)[0]);
    assert!(leftovers(dir.path()).is_empty(), "{:?}", leftovers(dir.path()));

    let sizes = store.sizes().unwrap();
    let (one, two) = (sizes[&first.digest], sizes[&second.digest]);
    assert!(one.shared_bytes > 0 && one.shared_bytes == two.shared_bytes, "{one:?} {two:?}");
    assert!(one.unique_bytes > 0 && two.unique_bytes > 0);
}

#[test]
fn a_layer_that_needs_those_below_is_kept_for_its_stack() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    // The upper layer has a hard link to a file of the lower one, and not the file.
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    fs::write(at("file"), "content").unwrap();
    fs::hard_link(at("file"), at("link")).unwrap();
    let whole = pack(work.path(), &["file", "link"]);
    // Two blocks: the file's header and what is in it.
    let link = whole[1024..].to_vec();
    for below in ["one", "two"] {
        fs::write(at("file"), below).unwrap();
        let lower = pack(work.path(), &["file"]);
        let image = filled(&store, &format!("{below}:1"), &[(lower, "gzip"), (link.clone(), "gzip")]);
        unpack(&store, &image).unwrap();
        let paths = store.layer_paths(&image);
        // A hard link is within one layer: the file has come up, too.
        assert_eq!(files(&paths), ["file", "file link"]);
        assert_eq!(fs::read_to_string(paths[1].join("link")).unwrap(), below);
    }
}

/// Archives of a directory `d` that only its user and group may enter, and of a file in `d` that takes `d` for granted.
fn directory_and_file(file: &str) -> (Vec<u8>, Vec<u8>) {
    let work = tempfile::tempdir().unwrap();
    let directory = work.path().join("d");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o750)).unwrap();
    let alone = pack(work.path(), &["d"]);
    fs::write(directory.join(file), file).unwrap();
    (alone, pack(work.path(), &[&format!("d/{file}")]))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_layer_that_waits_for_those_below_is_unpacked_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (directory, file) = directory_and_file("file");
    let layers = [tar("a", &noise(1 << 20)), directory, file, tar("b", b"two")];
    let image = filled(&store, "one:1", &layers.clone().map(|layer| (layer, "gzip")));
    let begun = Mutex::new(Vec::new());
    let told = |event| {
        if let Event::Unpacking { layer } = event {
            begun.lock().unwrap().push(layer);
        }
    };
    store.unpack_missing(&image, &UnpackOptions::default(), &told).unwrap();
    let mut begun = begun.into_inner().unwrap();
    let mut expected: Vec<Digest> = layers.iter().map(|layer| digest_of(layer)).collect();
    begun.sort();
    expected.sort();
    assert_eq!(begun, expected);
    let paths = store.layer_paths(&image);
    assert_eq!(files(&paths), ["a", "d", "d", "b"]);
    assert_eq!((mode(&paths[2].join("d")), mode(&paths[2])), (0o750, 0o755));
    assert!(leftovers(dir.path()).is_empty(), "{:?}", leftovers(dir.path()));
    for path in paths {
        let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 2, "something besides `tree` and `about.json`");
    }
}

#[test]
fn what_a_lowest_layer_takes_for_granted_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (directory, file) = directory_and_file("file");
    let alone = filled(&store, "alone:1", &[(file.clone(), "gzip")]);
    unpack(&store, &alone).unwrap();
    assert_eq!(mode(&store.layer_paths(&alone)[0].join("d")), 0o755);
    let over = filled(&store, "over:1", &[(directory, "gzip"), (file, "gzip")]);
    unpack(&store, &over).unwrap();
    assert_eq!(mode(&store.layer_paths(&over)[1].join("d")), 0o750);
}

#[test]
fn of_layers_that_wait_for_one_that_fails_the_cause_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (directory, file) = directory_and_file("file");
    let image = filled(&store, "one:1", &[(directory.clone(), "gzip"), (file, "gzip")]);
    let lowest = store.inspect(&image.digest).unwrap().unwrap().manifest.layers[0].digest.clone();
    let whole = fs::read(store.blob_path(&lowest)).unwrap();
    fs::write(store.blob_path(&lowest), &whole[..whole.len() / 2]).unwrap();
    let error = format!("{:#}", unpack(&store, &image).unwrap_err());
    let name = format!("cannot unpack layer {}: ", digest_of(&directory).short());
    assert!(error.starts_with(&name) && !error.contains("below"), "{error}");
    assert_eq!(store.missing_layers(&image).len(), 2);
    fs::write(store.blob_path(&lowest), whole).unwrap();
    unpack(&store, &image).unwrap();
    store.prune(Which::Nameless, &BTreeSet::new()).unwrap();
    assert!(leftovers(dir.path()).is_empty());
}

#[test]
fn stacks_of_the_same_layers_in_another_order_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ((_, x), (_, y)) = (directory_and_file("x"), directory_and_file("y"));
    let base = tar("base", &noise(1 << 20));
    for _ in 0..5 {
        let orders = [[&base, &x, &y, &x], [&base, &y, &x, &y]];
        let images = orders.map(|layers| {
            let name = if layers[1] == &x { "x:1" } else { "y:1" };
            filled(&store, name, &layers.map(|layer| (layer.clone(), "gzip")))
        });
        let (done, is_done) = std::sync::mpsc::channel();
        for image in images.clone() {
            let (store, done) = (store.clone(), done.clone());
            std::thread::spawn(move || done.send(unpack(&store, &image)).unwrap());
        }
        for _ in images {
            is_done.recv_timeout(Duration::from_secs(120)).expect("they wait for each other").unwrap();
        }
        store.prune(Which::All, &BTreeSet::new()).unwrap();
    }
}

/// A tar archive of these files of a directory.
fn pack(dir: &Path, names: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .args(["--format=ustar", "--mtime=@0", "-C"])
        .arg(dir)
        .args(["-cf", "-"])
        .args(names)
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_layer_is_never_kept_under_the_name_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (good, evil) = (tar("a", b"good"), tar("a", b"evil"));
    // The configuration claims the digest of the good layer for the evil one.
    let mut layout = Layout::default();
    layout.image("amd64", &[(evil.clone(), "gzip")]);
    let (evil_id, good_id) = (digest_of(&evil).to_string(), digest_of(&good).to_string());
    let config =
        layout.blobs.values().find(|bytes| bytes.starts_with(b"{") && contains(bytes, &evil_id)).unwrap();
    let config = String::from_utf8(config.clone()).unwrap().replace(&evil_id, &good_id);
    let config = layout.add("application/vnd.oci.image.config.v1+json", config.as_bytes());
    let layer = layout.add("application/vnd.oci.image.layer.v1.tar+gzip", &pipe("gzip", &["-n"], &evil));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let entry = layout.add(kind, manifest.to_string().as_bytes());
    let server = Server::start(hold(&layout, "x", &entry));
    let source = reference(&format!("{}/x", server.at));
    let pull = Pull { source, name: reference("evil:1"), platform: amd64() };
    let image = store.pull(&client(|_| {}), &pull, &silent).unwrap().image;
    let error = unpack(&store, &image).unwrap_err();
    assert!(format!("{error:#}").contains("the image says"), "{error:#}");
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
    let image = filled(&store, "good:1", &[(good, "gzip")]);
    unpack(&store, &image).unwrap();
    assert_eq!(fs::read_to_string(store.layer_paths(&image)[0].join("a")).unwrap(), "good");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

#[test]
fn names_are_given_moved_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = filled(&store, "one:1", &[(tar("a", b"one"), "gzip")]);
    let second = filled(&store, "two:1", &[(tar("b", b"two"), "gzip")]);
    store.tag(&first.digest, &reference("also:1")).unwrap();
    store.tag(&second.digest, &reference("one:1")).unwrap();
    let found = |name: &str| store.find(&reference(name), &amd64()).unwrap().map(|image| image.digest);
    assert_eq!(found("one:1"), Some(second.digest.clone()));
    assert_eq!(found("also:1"), Some(first.digest.clone()));
    assert_eq!(found(&format!("any@{}", first.digest)), Some(first.digest.clone()));
    assert_eq!(store.find_by_id(first.digest.short()).unwrap().len(), 1);
    assert_eq!(store.find_by_id("zz").unwrap(), []);
    assert_eq!(store.list().unwrap().len(), 2);
    // The very name counts first; otherwise the one that is longer or shorter.
    assert_eq!(found("docker.io/library/also:1"), Some(first.digest.clone()));
    store.tag(&second.digest, &reference("docker.io/library/also:1")).unwrap();
    assert_eq!(found("docker.io/library/also:1"), Some(second.digest.clone()));
    assert_eq!(found("also:1"), Some(first.digest.clone()));
    store.remove(&reference("docker.io/library/also:1"), &second, &BTreeSet::new()).unwrap();
    assert_eq!(found("localhost/also:1"), None);

    let unused = BTreeSet::new();
    let by_digest = reference(&format!("any@{}", second.digest));
    assert!(
        matches!(store.remove(&by_digest, &second, &unused).unwrap(), Removal::Named(names) if names.len() == 2)
    );
    let Removal::Done(pruned) = store.remove(&reference("one:1"), &second, &unused).unwrap() else {
        panic!()
    };
    assert!(pruned.images.is_empty() && found("one:1").is_none());
    let in_use = BTreeSet::from([second.digest.clone()]);
    assert_eq!(
        store.remove(&reference("two:1"), &second, &in_use).unwrap(),
        Removal::InUse(second.digest.clone())
    );
    assert!(found("two:1").is_some());
    let Removal::Done(pruned) = store.remove(&by_digest, &second, &unused).unwrap() else { panic!() };
    assert!(pruned.images.contains(&second.digest) && pruned.freed_bytes.unwrap() > 0);
    assert_eq!(store.remove(&by_digest, &second, &unused).unwrap(), Removal::Absent);
    assert!(store.tag(&second.digest, &reference("x:1")).is_err());
}

#[test]
fn what_no_image_has_goes_and_what_is_shared_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (a, b) = (tar("a", b"one"), tar("b", b"two"));
    let first = filled(&store, "one:1", &[(a.clone(), "gzip")]);
    let second = filled(&store, "two:1", &[(a.clone(), "gzip"), (b, "gzip")]);
    unpack(&store, &second).unwrap();
    // What killed processes leave.
    fs::write(dir.path().join("partial/new-1-0"), "x").unwrap();
    fs::create_dir_all(dir.path().join("unpacking/abc/tree")).unwrap();
    let count = |part: &str| fs::read_dir(dir.path().join(part)).unwrap().count();
    let Removal::Done(_) = store.remove(&reference("two:1"), &second, &BTreeSet::new()).unwrap() else {
        panic!()
    };
    assert_eq!((count("blobs/sha256"), count("layers")), (3, 1));
    assert!(leftovers(dir.path()).is_empty());
    assert_eq!(files(&store.layer_paths(&first)), ["a"]);

    // Without a name an image is taken away, unless a machine has it.
    filled(&store, "one:1", &[(tar("c", b"new"), "gzip")]);
    let in_use = BTreeSet::from([first.digest.clone()]);
    assert_eq!(
        store.prune(Which::Nameless, &in_use).unwrap(),
        Pruned { freed_bytes: Some(0), ..Pruned::default() }
    );
    assert!(store.inspect(&first.digest).unwrap().is_some());
    let pruned = store.prune(Which::Nameless, &BTreeSet::new()).unwrap();
    assert_eq!(pruned.images, in_use);
    let pruned = store.prune(Which::All, &BTreeSet::new()).unwrap();
    assert_eq!(pruned.names, BTreeSet::from([reference("one:1")]));
    assert_eq!((count("blobs/sha256"), count("layers")), (0, 0));
}

#[test]
fn a_damaged_image_counts_as_absent_and_is_pulled_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layers = [(tar("a", b"one"), "gzip")];
    let image = filled(&store, "one:1", &layers);
    for part in [
        image.digest.clone(),
        store.inspect(&image.digest).unwrap().unwrap().manifest.layers[0].digest.clone(),
    ] {
        fs::remove_file(store.blob_path(&part)).unwrap();
        assert_eq!(store.find(&reference("one:1"), &amd64()).unwrap(), None);
        filled(&store, "one:1", &layers);
        assert!(store.find(&reference("one:1"), &amd64()).unwrap().is_some());
    }
    fs::write(store.blob_path(&image.digest), "{}").unwrap();
    assert_eq!(store.find(&reference("one:1"), &amd64()).unwrap(), None);
    filled(&store, "one:1", &layers);
    assert!(store.find(&reference("one:1"), &amd64()).unwrap().is_some());
}

#[test]
fn an_archive_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let archive = tar("a", b"one");
    let import = |name: &str, bytes: &[u8]| {
        let import = Import {
            name: reference(name),
            platform: amd64(),
            command: vec!["sh".into()],
            created_by: "import".into(),
        };
        store.import(bytes, &import)
    };
    let compressed = [archive.clone(), pipe("gzip", &[], &archive), pipe("zstd", &["-q"], &archive)];
    for (name, bytes) in ["plain:1", "gzip:1", "zstd:1"].iter().zip(compressed) {
        let image = import(name, &bytes).unwrap();
        assert_eq!(image.layers, [digest_of(&archive)]);
        assert_eq!(image.config.cmd, ["sh"]);
        unpack(&store, &image).unwrap();
        assert_eq!(files(&store.layer_paths(&image)), ["a"]);
        let history = store.inspect(&image.digest).unwrap().unwrap().history();
        assert_eq!(history[0].change.created_by, "import");
    }
    for bytes in [&b"no archive"[..], &[0x1f, 0x8b, 0, 0], &[7; 2000]] {
        import("bad:1", bytes).unwrap_err();
    }
    assert_eq!(store.find(&reference("bad:1"), &amd64()).unwrap(), None);
    store.prune(Which::Nameless, &BTreeSet::new()).unwrap();
    assert!(leftovers(dir.path()).is_empty());
}

/// A program that is called as mmdebstrap is, and does this.
fn program(dir: &Path, script: &str) -> DebianSettings {
    let path = dir.join("mmdebstrap");
    executable(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
    let mirror = Some("http://m.example/debian".into());
    DebianSettings { mirror, program: Some(path), ..DebianSettings::default() }
}

fn obtain(store: &Store, client: &Client, catalogue: &str, debian: &DebianSettings) -> anyhow::Result<Image> {
    let catalogue: Catalogue = serde_json::from_str(catalogue).unwrap();
    let origins = Origins { client, catalogue: &catalogue, debian };
    let wanted = Wanted { name: reference("debian:12"), platform: amd64(), fetch: Fetch::Missing };
    Ok(store.obtain(&wanted, origins, &silent)?.image)
}

#[test]
fn sources_are_asked_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("root.tar"), tar("a", b"one")).unwrap();
    let root = dir.path().join("root.tar").display().to_string();
    let said = dir.path().join("said").display().to_string();
    let debian = program(dir.path(), &format!("(echo \"$*\"; cat) >> {said}; cat {root}"));
    let refusing = Server::start(|_| Reply::new(404, ""));
    // Nobody listens there: the port was ours a moment ago.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let catalogue = format!(
        r#"{{"debian:12":["{closed}/debian:12","{}/debian:12","debian-packages:bookworm"]}}"#,
        refusing.at
    );
    let store = Store::open(&dir.path().join("store")).unwrap();
    let built = obtain(&store, &client(|_| {}), &catalogue, &debian).unwrap();
    let expected = "--variant=minbase --format=tar --dpkgopt=force-unsafe-io --architectures=amd64 bookworm - -\ndeb http://m.example/debian bookworm main\ndeb http://m.example/debian bookworm-updates main\n";
    assert_eq!(fs::read_to_string(&said).unwrap(), expected);
    assert_eq!(built.config.cmd, ["bash"]);
    unpack(&store, &built).unwrap();
    assert_eq!(files(&store.layer_paths(&built)), ["a"]);
    // What is here is not looked for elsewhere.
    let asked = refusing.lines().len();
    assert_eq!(obtain(&store, &client(|_| {}), &catalogue, &debian).unwrap(), built);
    assert_eq!(refusing.lines().len(), asked);
    assert_eq!(fs::read_to_string(&said).unwrap(), expected);
}

#[test]
fn an_image_that_is_nowhere_is_told_with_every_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let refusing = Server::start(|_| Reply::new(404, r#"{"errors":[{"message":"not here"}]}"#));
    let root = dir.path().join("root.tar");
    fs::write(&root, tar("a", &noise(200_000))).unwrap();
    // Half an archive, and then a failure.
    let debian = program(
        dir.path(),
        &format!("head -c 100000 {}; echo 'E: no such package' >&2; exit 1", root.display()),
    );
    let catalogue = format!(r#"{{"debian:12":["{}/debian:12","debian-packages:bookworm"]}}"#, refusing.at);
    let error = format!("{:#}", obtain(&store, &client(|_| {}), &catalogue, &debian).unwrap_err());
    assert!(error.contains("not here") && error.contains("E: no such package"), "{error}");
    assert!(store.list().unwrap().is_empty());
    assert!(fs::read_dir(store.root().join("partial")).unwrap().next().is_none());
    let error = obtain(&store, &client(|_| {}), r#"{"debian:12":[]}"#, &debian).unwrap_err();
    assert!(error.to_string().contains("no source"), "{error}");
}

#[test]
fn contents_are_not_taken_away_from_a_pull() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut layout = Layout::default();
    let layer = tar("a", &noise(500_000));
    let entry = layout.image("amd64", &[(tar("b", b"two"), "gzip"), (layer, "")]);
    let holds = hold(&layout, "x", &entry);
    let (root, pruned) = (dir.path().to_path_buf(), Mutex::new(Vec::new()));
    let pruned = std::sync::Arc::new(pruned);
    let server = Server::start({
        let pruned = pruned.clone();
        move |asked| {
            // In the midst of the pull somebody cleans up.
            if asked.path.contains("/blobs/") {
                let store = Store::open(&root).unwrap();
                pruned.lock().unwrap().push(store.prune(Which::All, &BTreeSet::new()).unwrap());
            }
            holds(asked)
        }
    });
    let source = reference(&format!("{}/x", server.at));
    let pull = Pull { source, name: reference("one:1"), platform: amd64() };
    store.pull(&client(|_| {}), &pull, &silent).unwrap();
    assert!(store.find(&reference("one:1"), &amd64()).unwrap().is_some());
    let pruned = pruned.lock().unwrap();
    assert!(pruned.len() >= 3 && pruned.iter().all(|pruned| pruned.freed_bytes.is_none()), "{pruned:?}");
}

/// Takes minutes and a mirror, so it is not among those that always run: `cargo test -p stead-image -- --ignored`.
#[test]
#[ignore = "needs a Debian mirror"]
fn debian_is_built_from_its_packages() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let catalogue = r#"{"debian:12":["debian-packages:bookworm"]}"#;
    let image = obtain(&store, &client(|_| {}), catalogue, &DebianSettings::default()).unwrap();
    if rustix::process::geteuid().is_root() {
        unpack(&store, &image).unwrap();
        let root = &store.layer_paths(&image)[0];
        assert!(fs::read_to_string(root.join("etc/os-release")).unwrap().contains("bookworm"));
        assert!(root.join("usr/bin/dpkg").exists());
    }
}
