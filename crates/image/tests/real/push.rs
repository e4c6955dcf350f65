//! Pushing.

use std::sync::atomic::{AtomicUsize, Ordering};

use stead_image::Store;
use stead_image::registry::Pull;
use stead_model::image::Image;

use crate::support::*;

/// A store with one image, which has two layers.
fn filled(dir: &std::path::Path) -> (Store, Image) {
    let mut layout = Layout::default();
    let layers =
        [(tar("a", &noise(300_000)), "gzip"), (tar("b", b"two"), "zstd"), (tar("b", b"two"), "zstd")];
    let entry = layout.image("amd64", &layers);
    let server = Server::start(hold(&layout, "x", &entry));
    let store = Store::open(dir).unwrap();
    let pull = Pull {
        source: format!("{}/x", server.at).parse().unwrap(),
        name: "web:1".parse().unwrap(),
        platform: "linux/amd64".parse().unwrap(),
    };
    let image = store.pull(&client(|_| {}), &pull, &silent).unwrap().image;
    (store, image)
}

#[test]
fn skopeo_pulls_what_was_pushed() {
    let registry = Registry::start("");
    let dir = tempfile::tempdir().unwrap();
    let (store, image) = filled(&dir.path().join("store"));
    let target = format!("{}/lab/new:1", registry.at);
    for _ in 0..2 {
        store.push(&client(|_| {}), &image.digest, &target.parse().unwrap(), &silent).unwrap();
    }
    let to = dir.path().join("back");
    let from = format!("docker://{target}");
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &format!("dir:{}", to.display())]);
    let manifest = std::fs::read(to.join("manifest.json")).unwrap();
    assert_eq!(stead_image::digest_of(&manifest), image.digest);
    // And so do we, elsewhere.
    let other = Store::open(&dir.path().join("other")).unwrap();
    let pull = Pull {
        source: target.parse().unwrap(),
        name: "web:2".parse().unwrap(),
        platform: image.platform.clone(),
    };
    assert_eq!(other.pull(&client(|_| {}), &pull, &silent).unwrap().image.digest, image.digest);
}

/// A registry that takes what it is sent, and forgets it.
fn taking(trouble: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Server {
    Server::start(move |asked| {
        if let Some(reply) = trouble(asked) {
            return reply;
        }
        match asked.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            "POST" => Reply::new(202, "").header("Location", "/upload/1?state=x"),
            "PUT" => Reply::new(201, ""),
            _ => Reply::new(200, ""),
        }
    })
}

#[test]
fn blobs_are_sent_once_and_whole_and_the_manifest_last() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image) = filled(dir.path());
    let failures = AtomicUsize::new(0);
    let server = taking(move |asked| {
        // The first upload of each kind is turned down.
        (asked.method == "PUT" && failures.fetch_add(1, Ordering::Relaxed) == 0).then(|| Reply::new(503, ""))
    });
    let target = format!("{}/lab/new:1", server.at).parse().unwrap();
    store.push(&client(|settings| settings.parallel = 1), &image.digest, &target, &silent).unwrap();
    let asked = server.asked.lock().unwrap();
    let puts: Vec<_> = asked.iter().filter(|asked| asked.method == "PUT").collect();
    assert_eq!(puts.len(), 5, "two layers, a configuration, a manifest, and one again");
    for put in &puts[..4] {
        let digest = stead_image::digest_of(&put.body);
        assert_eq!(put.path, format!("/upload/1?state=x&digest={digest}"));
    }
    assert_eq!(puts[4].path, "/v2/lab/new/manifests/1");
    assert_eq!(stead_image::digest_of(&puts[4].body), image.digest);
}

#[test]
fn what_the_registry_has_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image) = filled(dir.path());
    let server = taking(|asked| (asked.method == "HEAD").then(|| Reply::new(200, "")));
    let target = format!("{}/lab/new:1", server.at).parse().unwrap();
    store.push(&client(|_| {}), &image.digest, &target, &silent).unwrap();
    let lines = server.lines();
    let puts: Vec<_> = lines.iter().filter(|line| line.starts_with("PUT")).collect();
    assert_eq!(puts, ["PUT /v2/lab/new/manifests/1"]);
}

#[test]
fn a_push_that_is_refused_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image) = filled(dir.path());
    let denied = |asked: &Asked| {
        (asked.method == "POST").then(|| Reply::new(403, r#"{"errors":[{"message":"read only"}]}"#))
    };
    let server = taking(denied);
    let target = format!("{}/lab/new:1", server.at).parse().unwrap();
    let error = store.push(&client(|_| {}), &image.digest, &target, &silent).unwrap_err();
    let shown = format!("{error:#}");
    assert!(shown.contains("read only") && shown.contains("stead login"), "{shown}");
    for target in ["web:1", "a.example/web"] {
        let by_digest = format!("{target}@{}", image.digest);
        let target = if target.contains('/') { by_digest.as_str() } else { target };
        store.push(&client(|_| {}), &image.digest, &target.parse().unwrap(), &silent).unwrap_err();
    }
}
