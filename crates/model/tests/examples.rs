//! The project files that newcomers meet are right: those of `examples/` and those in README.md.

// Helpers of tests are tests, which clippy does not see here.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use stead_model::file::{Source, Variables, parse};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[track_caller]
fn check(what: &str, text: &str) {
    let env = Variables::default();
    let source = Source::new(what, text, &env, Path::new("/srv/example"));
    let problems = parse(&source).err().map(|problems| problems.to_string());
    assert_eq!(problems, None);
}

#[test]
fn every_example_is_a_project() {
    let directories = fs::read_dir(root().join("examples")).unwrap();
    let files: Vec<PathBuf> = directories
        .map(|entry| entry.unwrap().path().join("stead.yaml"))
        .filter(|path| path.exists())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        check(&file.to_string_lossy(), &fs::read_to_string(&file).unwrap());
    }
}

#[test]
fn every_project_file_in_the_readme_is_one() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        check("README.md", block);
    }
}

#[test]
fn the_readme_shows_the_file_of_the_tour() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let tour = fs::read_to_string(root().join("examples/shop/stead.yaml")).unwrap();
    // Its first line says whose file it is, which README needs not.
    let shown = tour.split_once('\n').unwrap().1;
    assert!(readme.contains(shown), "README.md and examples/shop/stead.yaml differ");
}
