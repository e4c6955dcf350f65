//! Pulling.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use stead_image::registry::{Pull, Pulled};
use stead_image::{Client, Event, Store, digest_of};
use stead_model::image::Platform;

use crate::support::*;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn pull(store: &Store, client: &Client, source: &str, platform: &str) -> anyhow::Result<Pulled> {
    let source = source.parse().unwrap();
    let name = "web:1".parse().unwrap();
    store.pull(client, &Pull { source, name, platform: platform.parse().unwrap() }, &silent)
}

#[test]
fn what_skopeo_pushed_is_pulled_in_every_format() {
    let registry = Registry::start("");
    let at = &registry.at;
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    let layers = [
        (tar("a", b"one"), "gzip"),
        (tar("b", b"two"), "zstd"),
        (tar("c", b"three"), ""),
        (tar("a", b"one"), "gzip"),
    ];
    let entry = layout.image("amd64", &layers);
    layout.write(&dir.path().join("oci"), &entry);
    let from = format!("oci:{}:latest", dir.path().join("oci").display());
    let docker = ["--dest-compress-format=gzip", "--format=v2s2"];
    for (tag, options) in [("oci", &[][..]), ("docker", &docker)] {
        let to = format!("docker://{at}/lab/web:{tag}");
        // Docker's format has no zstd: skopeo converts that only from a directory without it.
        if tag == "docker" {
            let mut plain = Layout::default();
            let plain_layers: Vec<_> = layers.iter().map(|(tar, _)| (tar.clone(), "gzip")).collect();
            let entry = plain.image("amd64", &plain_layers);
            plain.write(&dir.path().join("plain"), &entry);
        }
        let from = if tag == "docker" { from.replace("/oci:", "/plain:") } else { from.clone() };
        run("skopeo", &[&["copy", "-q", "--dest-tls-verify=false"], options, &[&from, &to]].concat());
        let store = Store::open(&dir.path().join(format!("store-{tag}"))).unwrap();
        let pulled = pull(&store, &client(|_| {}), &format!("{at}/lab/web:{tag}"), "amd64").unwrap();
        let diff_ids: Vec<_> = layers.iter().map(|(tar, _)| digest_of(tar)).collect();
        assert_eq!(pulled.image.layers, diff_ids);
        assert_eq!(pulled.missing, diff_ids[..3]);
        assert_eq!(pulled.image.config.cmd, ["/bin/hello"]);
        let found = store.find(&"web:1".parse().unwrap(), &amd64()).unwrap().unwrap();
        assert_eq!(found, pulled.image);
        let by_digest = format!("anything@{}", found.digest).parse().unwrap();
        assert_eq!(store.find(&by_digest, &amd64()).unwrap().unwrap().digest, found.digest);
        let kind = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &to]);
        assert_eq!(kind.contains("docker.distribution.manifest.v2"), tag == "docker", "{kind}");
        assert!(leftovers(store.root()).is_empty());
    }
}

#[test]
fn the_platform_is_chosen_out_of_indexes_within_indexes() {
    let registry = Registry::start("");
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    let amd = layout.image("amd64", &[(tar("a", b"amd64"), "gzip")]);
    let arm = layout.image("arm64", &[(tar("a", b"arm64"), "gzip")]);
    let index = layout.index(&[arm, amd]);
    layout.write(&dir.path().join("oci"), &index);
    let to = format!("docker://{}/lab/multi:1", registry.at);
    let from = format!("oci:{}:latest", dir.path().join("oci").display());
    run("skopeo", &["copy", "-q", "--all", "--dest-tls-verify=false", &from, &to]);
    let store = Store::open(&dir.path().join("store")).unwrap();
    let source = format!("{}/lab/multi:1", registry.at);
    for platform in ["amd64", "arm64"] {
        let pulled = pull(&store, &client(|_| {}), &source, platform).unwrap();
        assert_eq!(pulled.image.platform.architecture, platform);
        assert_eq!(pulled.image.layers, [digest_of(&tar("a", platform.as_bytes()))]);
    }
    // One name, two platforms, and the index knows both.
    let index_digest = index["digest"].as_str().unwrap();
    for platform in ["amd64", "arm64"] {
        for name in ["web:1".to_owned(), format!("x@{index_digest}")] {
            let found = store.find(&name.parse().unwrap(), &platform.parse().unwrap()).unwrap().unwrap();
            assert_eq!(found.platform.architecture, platform);
        }
    }
    let error = pull(&store, &client(|_| {}), &source, "riscv64").unwrap_err();
    assert!(format!("{error:#}").contains("not to be had for linux/riscv64"), "{error:#}");
    // An index in an index, whose entry does not say what it is for.
    let mut outer = index.clone();
    outer.as_object_mut().unwrap().remove("platform");
    let outer = layout.index(&[outer]);
    let server = Server::start(hold(&layout, "x", &outer));
    let pulled = pull(&store, &client(|_| {}), &format!("{}/x", server.at), "arm64").unwrap();
    assert_eq!(pulled.image.platform.architecture, "arm64");
}

/// A server with one image that has one layer of noise; and the image's layer.
fn noisy(bytes: usize) -> (Layout, serde_json::Value, String) {
    let mut layout = Layout::default();
    let layer = tar("noise", &noise(bytes));
    let entry = layout.image("amd64", &[(layer.clone(), "")]);
    (layout, entry, digest_of(&layer).to_string())
}

#[test]
fn a_cut_blob_goes_on_where_it_ended() {
    let (layout, entry, layer) = noisy(1_000_000);
    let hold = hold(&layout, "x", &entry);
    let server = Server::start(move |asked| {
        let reply = hold(asked);
        // Every connection ends after 300 kB.
        let cut_after = (asked.path.ends_with(&layer) && reply.body.len() > 300_000).then_some(300_000);
        Reply { cut_after, ..reply }
    });
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let retries = AtomicUsize::new(0);
    let pull = Pull {
        source: format!("{}/x", server.at).parse().unwrap(),
        name: "web:1".parse().unwrap(),
        platform: amd64(),
    };
    let count = |event| {
        if matches!(event, Event::Retry { .. }) {
            retries.fetch_add(1, Ordering::Relaxed);
        }
    };
    store.pull(&client(|_| {}), &pull, &count).unwrap();
    assert_eq!(retries.load(Ordering::Relaxed), 3);
    let ranges: Vec<String> =
        server.asked.lock().unwrap().iter().filter_map(|asked| asked.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=300000-", "bytes=600000-", "bytes=900000-"]);
}

#[test]
fn a_pull_that_failed_is_gone_on_with_by_the_next_one() {
    let (layout, entry, layer) = noisy(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let holds = hold(&layout, "x", &entry);
    let cutting = Server::start({
        let layer = layer.clone();
        move |asked| match asked.headers.get("range") {
            Some(_) => Reply::new(404, ""),
            None if asked.path.ends_with(&layer) => Reply { cut_after: Some(400_000), ..holds(asked) },
            None => holds(asked),
        }
    });
    pull(&store, &client(|_| {}), &format!("{}/x", cutting.at), "amd64").unwrap_err();
    assert!(store.list().unwrap().is_empty(), "nothing half is visible");
    assert!(store.find(&"web:1".parse().unwrap(), &amd64()).unwrap().is_none());
    let good = Server::start(hold(&layout, "x", &entry));
    pull(&store, &client(|_| {}), &format!("{}/x", good.at), "amd64").unwrap();
    let asked = good.asked.lock().unwrap();
    let blob = asked.iter().find(|asked| asked.path.ends_with(&layer)).unwrap();
    assert_eq!(blob.headers["range"], "bytes=400000-");
    assert!(leftovers(store.root()).is_empty());
}

#[test]
fn what_an_earlier_pull_left_wrong_is_fetched_anew() {
    let (layout, entry, layer) = noisy(100_000);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    fs::write(dir.path().join("partial").join(&layer[7..]), vec![7; 5000]).unwrap();
    let server = Server::start(hold(&layout, "x", &entry));
    pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap();
}

#[test]
fn registries_that_do_not_know_ranges_begin_anew() {
    let (layout, entry, layer) = noisy(500_000);
    let holds = hold(&layout, "x", &entry);
    let times = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let mut asked = asked.clone();
        asked.headers.remove("range");
        let reply = holds(&asked);
        let first = asked.path.ends_with(&layer) && times.fetch_add(1, Ordering::Relaxed) == 0;
        Reply { cut_after: first.then_some(1000), ..reply }
    });
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap();
}

/// A pull from a registry that answers questions whose path ends with `what` in this way must fail with these words,
/// and leave nothing that is seen.
#[track_caller]
fn refused(expected: &str, change: impl Fn(&Asked, &str, Reply) -> Reply + Send + Sync + 'static) {
    let (layout, entry, layer) = noisy(100_000);
    let holds = hold(&layout, "x", &entry);
    let server = Server::start(move |asked| change(asked, &layer, holds(asked)));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap_err();
    assert!(format!("{error:#}").contains(expected), "{error:#}");
    assert!(store.list().unwrap().is_empty());
    let layers = fs::read_dir(dir.path().join("layers")).unwrap().count();
    assert_eq!(layers, 0);
}

#[test]
fn bytes_that_are_not_what_was_promised_are_refused() {
    refused("instead of", |asked, layer, mut reply| {
        if asked.path.ends_with(layer) {
            reply.body[50_000] ^= 1;
        }
        reply
    });
    refused("is larger than", |asked, layer, mut reply| {
        if asked.path.ends_with(layer) {
            reply.body.push(0);
        }
        reply
    });
    refused("cut off", |asked, layer, mut reply| {
        if asked.path.ends_with(layer) && !asked.headers.contains_key("range") {
            reply.body.truncate(50_000);
            return reply;
        }
        if asked.path.ends_with(layer) {
            Reply::new(206, "").header("Content-Range", "bytes 50000-0/0")
        } else {
            reply
        }
    });
    // The tag says one digest, the bytes have another.
    refused("instead of", |asked, _, reply| {
        if asked.path.ends_with("/latest") {
            return reply.header("Docker-Content-Digest", format!("sha256:{}", "0".repeat(64)));
        }
        reply
    });
    refused("cannot be read", |asked, _, reply| {
        if asked.path.ends_with("/latest") { Reply::new(200, "<html>") } else { reply }
    });
    refused("Helm", |asked, _, reply| {
        if asked.path.ends_with("/latest") {
            let digest = format!("sha256:{}", "0".repeat(64));
            let config = json!({"mediaType": "Helm", "digest": digest, "size": 1});
            return Reply::new(200, json!({"config": config, "layers": []}).to_string());
        }
        reply
    });
}

#[test]
fn endless_answers_end() {
    for (path, expected) in [("/latest", "more than 4194304 bytes"), ("layer", "is larger than")] {
        refused(expected, move |asked, layer, reply| {
            let endless = asked.path.ends_with(if path == "layer" { layer } else { path });
            let body = if endless { vec![b' '; 100_000] } else { reply.body.clone() };
            Reply { endless, body, ..reply }
        });
    }
    let mut layout = Layout::default();
    let mut entry = layout.image("amd64", &[]);
    for _ in 0..5 {
        entry.as_object_mut().unwrap().remove("platform");
        entry = layout.index(&[entry]);
    }
    let server = Server::start(hold(&layout, "x", &entry));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap_err();
    assert!(format!("{error:#}").contains("more than 3 deep"), "{error:#}");
    // Many entries that may be what is wanted, and are not.
    let mut layout = Layout::default();
    let entries: Vec<_> = (0..40)
        .map(|at| {
            let mut entry = layout.image("arm64", &[(tar("a", &[at]), "")]);
            entry.as_object_mut().unwrap().remove("platform");
            entry
        })
        .collect();
    let entry = layout.index(&entries);
    let server = Server::start(hold(&layout, "x", &entry));
    let error = pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap_err();
    assert!(format!("{error:#}").contains("too many manifests"), "{error:#}");
}

#[test]
fn layers_are_fetched_beside_each_other() {
    let mut layout = Layout::default();
    let entry = layout.image("amd64", &[(tar("a", b"one"), "gzip"), (tar("b", b"two"), "zstd")]);
    let holds = hold(&layout, "x", &entry);
    let manifest: serde_json::Value =
        serde_json::from_slice(&layout.blobs[entry["digest"].as_str().unwrap()]).unwrap();
    let layers: Vec<String> =
        [0, 1].map(|place| manifest["layers"][place]["digest"].as_str().unwrap().to_owned()).into();
    // Neither comes before both are asked for.
    let both = std::sync::Barrier::new(2);
    let server = Server::start(move |asked| {
        if asked.method == "GET" && layers.iter().any(|layer| asked.path.ends_with(layer)) {
            both.wait();
        }
        holds(asked)
    });
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pulled = pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap();
    assert_eq!(pulled.missing.len(), 2);
    assert_eq!(server.lines().iter().filter(|line| line.contains("/blobs/")).count(), 3);
}

#[test]
fn a_server_that_says_nothing_more_is_not_waited_for() {
    let (layout, entry, layer) = noisy(100_000);
    let holds = hold(&layout, "x", &entry);
    let times = Mutex::new(0);
    let server = Server::start(move |asked| {
        let reply = holds(asked);
        let mut times = times.lock().unwrap();
        if asked.path.ends_with(&layer) && *times == 0 {
            *times += 1;
            let body = reply.body.clone();
            let reply = Reply { stalls: true, cut_after: Some(10_000), ..reply };
            return Reply { body, ..reply };
        }
        reply
    });
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap();
}

#[test]
fn what_may_work_another_time_is_tried_again_and_the_rest_is_not() {
    for status in [408, 429, 500, 502, 503, 504] {
        let (layout, entry, _) = noisy(1000);
        let holds = hold(&layout, "x", &entry);
        let failures = AtomicUsize::new(0);
        let server = Server::start(move |asked| {
            // Two failures of each question, one less than are too many.
            if asked.path != "/v2/" && failures.fetch_add(1, Ordering::Relaxed) % 3 != 2 {
                return Reply::new(status, "").header("Retry-After", "0");
            }
            holds(asked)
        });
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = client(|settings| settings.parallel = 1);
        pull(&store, &one, &format!("{}/x", server.at), "amd64").unwrap();
    }
    for status in [400, 403, 404, 410, 501] {
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => Reply::new(status, r#"{"errors":[{"code":"X","message":"because \u001b[0m"}]}"#),
        });
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let error = pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap_err();
        assert!(format!("{error:#}").contains(r"because \u{1b}[0m"), "{error:#}");
        assert_eq!(server.lines().len(), 2, "{:?}", server.lines());
    }
    // One that says "in an hour" is believed, and not waited for.
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(429, "").header("Retry-After", "3600"),
    });
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    pull(&store, &client(|_| {}), &format!("{}/x", server.at), "amd64").unwrap_err();
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn two_pulls_of_one_image_do_the_work_once() {
    let (layout, entry, layer) = noisy(2_000_000);
    let server = Server::start(hold(&layout, "x", &entry));
    let dir = tempfile::tempdir().unwrap();
    let source = format!("{}/x", server.at);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(dir.path()).unwrap();
                pull(&store, &client(|_| {}), &source, "amd64").unwrap();
            });
        }
    });
    let fetched = server.lines().iter().filter(|line| line.ends_with(&layer)).count();
    assert_eq!(fetched, 1);
    // And a further one asks for the tag only.
    let before = server.lines().len();
    let store = Store::open(dir.path()).unwrap();
    pull(&store, &client(|_| {}), &source, "amd64").unwrap();
    assert_eq!(server.lines()[before..], ["GET /v2/", "GET /v2/x/manifests/latest"]);
}
