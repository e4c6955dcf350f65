//! Killed at any moment: nothing half is ever seen, and the next one gets there.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use stead_image::registry::Pull;
use stead_image::unpack::UnpackOptions;
use stead_image::{Store, Which, digest_of};
use stead_model::image::{Platform, Reference};

use crate::support::*;

const SOURCE: &str = "STEAD_TEST_SOURCE";
const STORE: &str = "STEAD_TEST_STORE";
const KILLS: u32 = 40;

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn name() -> Reference {
    "web:1".parse().unwrap()
}

/// What is killed: it pulls and unpacks. Called by the test below, in a process of its own.
#[test]
#[ignore = "a part of the test below"]
fn worker() {
    let (Ok(source), Ok(store)) = (std::env::var(SOURCE), std::env::var(STORE)) else { return };
    let store = Store::open(store.as_ref()).unwrap();
    let pull = Pull { source: source.parse().unwrap(), name: name(), platform: platform() };
    let pulled = store.pull(&client(|_| {}), &pull, &silent).unwrap();
    store.unpack_missing(&pulled.image, &UnpackOptions::default(), &silent).unwrap();
    store.tag(&pulled.image.digest, &"done:1".parse().unwrap()).unwrap();
}

#[test]
fn nothing_half_is_seen_whenever_a_pull_is_killed() {
    let contents: Vec<Vec<u8>> = (0..4).map(|at| noise(200_000 + at)).collect();
    let layers: Vec<_> = contents.iter().map(|content| (tar("noise", content), "gzip")).collect();
    let mut layout = Layout::default();
    let entry = layout.image("amd64", &layers);
    let server = Server::start(hold(&layout, "x", &entry));
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kill::worker", "--test-threads=1"])
            .env(SOURCE, format!("{}/x", server.at))
            .env(STORE, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let store = Store::open(dir.path()).unwrap();
    let done = "done:1".parse().unwrap();
    let begun = Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = begun.elapsed();
    store.prune(Which::All, &BTreeSet::new()).unwrap();
    let mut seen = BTreeSet::new();
    for at in 0..KILLS {
        let mut child = start();
        // Over the whole time that it takes, and a little more.
        std::thread::sleep(whole * at / (KILLS * 9 / 10));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
            let entry = entry.unwrap();
            let hex = entry.file_name().into_string().unwrap();
            assert_eq!(digest_of(&fs::read(entry.path()).unwrap()).hex(), hex);
        }
        for entry in fs::read_dir(dir.path().join("layers")).unwrap() {
            let content = fs::read(entry.unwrap().path().join("tree/noise")).unwrap();
            assert!(contents.contains(&content));
        }
        let image = store.find(&name(), &platform()).unwrap();
        seen.insert((image.is_some(), image.map(|image| store.missing_layers(&image).len())));
        if store.find(&done, &platform()).unwrap().is_some() {
            // It got to its end: begin from nothing.
            store.prune(Which::All, &BTreeSet::new()).unwrap();
        }
    }
    assert!(seen.len() > 2, "the kills came at too few moments: {seen:?}");
    assert!(start().wait().unwrap().success());
    let image = store.find(&done, &platform()).unwrap().unwrap();
    assert!(store.missing_layers(&image).is_empty());
    store.prune(Which::Nameless, &BTreeSet::new()).unwrap();
    assert!(leftovers(dir.path()).is_empty());
}
