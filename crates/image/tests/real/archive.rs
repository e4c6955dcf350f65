//! Images in files.

use std::fs::{self, File};
use std::path::Path;

use stead_image::unpack::UnpackOptions;
use stead_image::{Load, Store, digest_of};
use stead_model::image::{Image, Platform, Reference};

use crate::support::*;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn load(name: Option<&str>) -> Load {
    Load { platform: amd64(), name: name.map(|name| name.parse().unwrap()) }
}

fn store(dir: &Path, name: &str) -> Store {
    Store::open(&dir.join(name)).unwrap()
}

fn names(image: &Image) -> Vec<String> {
    image.names.iter().map(Reference::to_string).collect()
}

/// An image of two layers, one of which occurs twice.
fn layers() -> Vec<(Vec<u8>, &'static str)> {
    vec![(tar("a", b"one"), "gzip"), (tar("b", b"two"), "gzip"), (tar("a", b"one"), "gzip")]
}

fn layout(dir: &Path) -> (Layout, serde_json::Value) {
    let mut layout = Layout::default();
    let entry = layout.image("amd64", &layers());
    layout.write(dir, &entry);
    (layout, entry)
}

#[test]
fn what_was_saved_is_loaded_by_us_and_by_skopeo() {
    let dir = tempfile::tempdir().unwrap();
    let (_, entry) = layout(&dir.path().join("oci"));
    let first = store(dir.path(), "first");
    let image = first.load_directory(&dir.path().join("oci"), &load(Some("lab/web:1"))).unwrap().remove(0);
    assert_eq!(image.digest.as_str(), entry["digest"].as_str().unwrap());
    assert_eq!(names(&image), ["lab/web:1"]);
    first.tag(&image.digest, &"r.example/web:2".parse().unwrap()).unwrap();

    let saved = dir.path().join("saved.tar");
    // The third name is nobody's whom we give it to.
    first.tag(&image.digest, &"lab/own:3".parse().unwrap()).unwrap();
    let wanted = ["lab/web:1", "r.example/web:2"].map(|name| name.parse().unwrap());
    let chosen = [(image.digest.clone(), wanted.into())];
    first.save_archive(&chosen, File::create(&saved).unwrap()).unwrap();
    for (at, bytes) in
        [fs::read(&saved).unwrap(), pipe("gzip", &[], &fs::read(&saved).unwrap())].iter().enumerate()
    {
        let second = store(dir.path(), &format!("second-{at}"));
        second.load_archive(bytes.as_slice(), &load(None)).unwrap();
        let loaded = second.find(&"lab/web:1".parse().unwrap(), &amd64()).unwrap().unwrap();
        assert_eq!(loaded.digest, image.digest);
        assert_eq!(names(&loaded), ["lab/web:1", "r.example/web:2"]);
        second.unpack_missing(&loaded, &UnpackOptions::default(), &silent).unwrap();
        assert_eq!(second.layer_paths(&loaded).len(), 2);
    }
    for kind in ["oci-archive", "docker-archive"] {
        let name = if kind == "oci-archive" { ":lab/web:1" } else { "" };
        let from = format!("{kind}:{}{name}", saved.display());
        let shown = run("skopeo", &["inspect", "--config", &from]);
        assert!(shown.contains(digest_of(&layers()[1].0).as_str()), "{kind}: {shown}");
        let to = dir.path().join(kind);
        run("skopeo", &["copy", "-q", &from, &format!("dir:{}", to.display())]);
    }
    let again = dir.path().join("again");
    first.save_directory(&chosen, &again).unwrap();
    first.save_directory(&chosen, &again).unwrap_err();
    run("skopeo", &["inspect", "--raw", &format!("oci:{}:lab/web:1", again.display())]);
    // What is saved twice is the same.
    let twice = dir.path().join("twice.tar");
    first.save_archive(&chosen, File::create(&twice).unwrap()).unwrap();
    assert!(fs::read(saved).unwrap() == fs::read(twice).unwrap());
}

#[test]
fn what_skopeo_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    layout(&dir.path().join("oci"));
    let from = format!("oci:{}:latest", dir.path().join("oci").display());
    for (kind, name) in [("docker-archive", "r.example/web:1"), ("oci-archive", "web:1")] {
        let file = dir.path().join(kind);
        run("skopeo", &["copy", "-q", &from, &format!("{kind}:{}:{name}", file.display())]);
        let store = store(dir.path(), &format!("store-{kind}"));
        let images = store.load_archive(File::open(&file).unwrap(), &load(None)).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(names(&images[0]), [name]);
        let expected: Vec<_> = layers().iter().map(|(tar, _)| digest_of(tar)).collect();
        assert_eq!(images[0].layers, expected);
        store.unpack_missing(&images[0], &UnpackOptions::default(), &silent).unwrap();
    }
}

#[test]
fn the_platform_is_chosen_also_where_an_archive_has_not_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    let amd = layout.image("amd64", &[(tar("a", b"amd64"), "gzip")]);
    let arm = layout.image("arm64", &[(tar("a", b"arm64"), "gzip")]);
    let index = layout.index(&[arm.clone(), amd.clone()]);
    // The other image is only named.
    layout.blobs.remove(arm["digest"].as_str().unwrap());
    layout.write(&dir.path().join("oci"), &index);
    let store = store(dir.path(), "store");
    let image = store.load_directory(&dir.path().join("oci"), &load(Some("x:1"))).unwrap().remove(0);
    assert_eq!(image.digest.as_str(), amd["digest"].as_str().unwrap());
    let by_index = format!("x@{}", index["digest"].as_str().unwrap()).parse().unwrap();
    assert!(store.find(&by_index, &amd64()).unwrap().is_some());
    let other = Load { platform: "arm64".parse().unwrap(), name: None };
    let error = store.load_directory(&dir.path().join("oci"), &other).unwrap_err();
    assert!(format!("{error:#}").contains("no image for linux/arm64"), "{error:#}");
}

/// An archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match bytes.strip_prefix(b"-> ") {
            Some(target) => {
                std::os::unix::fs::symlink(String::from_utf8_lossy(target).as_ref(), path).unwrap();
            }
            None => fs::write(path, bytes).unwrap(),
        }
    }
    let out =
        std::process::Command::new("tar").arg("-C").arg(dir.path()).args(["-cf", "-", "."]).output().unwrap();
    out.stdout
}

#[test]
fn links_between_the_layers_of_old_archives_are_followed_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let layer = tar("a", b"one");
    let id = digest_of(&layer);
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{id}","{id}"]}}}}"#
    );
    let list = br#"[{"Config":"c.json","RepoTags":["web:1"],"Layers":["x/layer.tar","y/layer.tar"]}]"#;
    let good = archive(&[
        ("manifest.json", list),
        ("c.json", config.as_bytes()),
        ("x/layer.tar", &layer),
        ("y/layer.tar", b"-> ../x/layer.tar"),
    ]);
    let store = store(dir.path(), "store");
    let image = store.load_archive(good.as_slice(), &load(None)).unwrap().remove(0);
    assert_eq!(image.layers, [id.clone(), id]);
    store.unpack_missing(&image, &UnpackOptions::default(), &silent).unwrap();
    for target in ["-> layer.tar", "-> ../../../../../etc/passwd", "-> /etc/passwd"] {
        let bad = archive(&[
            ("manifest.json", list),
            ("c.json", config.as_bytes()),
            ("x/layer.tar", &layer),
            ("y/layer.tar", target.as_bytes()),
        ]);
        let error = store.load_archive(bad.as_slice(), &load(None)).unwrap_err();
        assert!(format!("{error:#}").contains("it lacks"), "{error:#}");
    }
}

#[test]
fn what_is_no_archive_of_images_or_lacks_something_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), "store");
    for (bytes, expected) in [
        (b"nothing of the kind".repeat(100), "cannot read the archive"),
        (tar("a", b"one"), "neither"),
        (archive(&[("index.json", br#"{"manifests":[]}"#)]), "no image for"),
        (archive(&[("index.json", b"{")]), "its index"),
        (
            archive(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]),
            "it lacks `etc/passwd`",
        ),
    ] {
        let error = store.load_archive(bytes.as_slice(), &load(None)).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
    let (mut layout, entry) = layout(&dir.path().join("good"));
    let layer = digest_of(&pipe("gzip", &["-n"], &layers()[1].0)).to_string();
    layout.blobs.get_mut(&layer).unwrap()[20] ^= 1;
    layout.write(&dir.path().join("wrong"), &entry);
    let error = store.load_directory(&dir.path().join("wrong"), &load(None)).unwrap_err();
    assert!(format!("{error:#}").contains("instead of"), "{error:#}");
    fs::remove_file(dir.path().join("good/blobs/sha256").join(&layer[7..])).unwrap();
    let error = store.load_directory(&dir.path().join("good"), &load(None)).unwrap_err();
    assert!(format!("{error:#}").contains("it lacks"), "{error:#}");
    assert!(store.list().unwrap().is_empty());
}
