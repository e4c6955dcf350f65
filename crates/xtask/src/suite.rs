//! `cargo xtask suite CHECKOUT`: the validation suite of the OCI runtime specification
//! (<https://github.com/opencontainers/runtime-tools>), run against `stead oci` as root in namespaces of its own.
//!
//! `docs/oci.md` explains the programs that have remarks; remarks of any other are a failure.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::Outcome;
use crate::inside::{self, Role};
use crate::programs::{cargo, command, find, root, run as run_program};
use crate::setup::{self, Chore};

/// Some of its programs wait for good for what does not come.
const LIMIT_S: &str = "60";

/// Files that its programs look for where they are run.
const ROOTS: [&str; 2] = ["rootfs-amd64.tar.gz", "rootfs-386.tar.gz"];

/// The chore.
pub(crate) fn run(checkout: &Path) -> Result<Outcome> {
    if !setup::ensure(&[Chore::Demo])? {
        return Ok(Outcome::Refused);
    }
    run_program(&mut cargo(&["build", "--package", "stead"]))?;
    let place = root().join("target/suite");
    let programs = build(checkout, &place)?;
    let document = fs::read_to_string(root().join("docs/oci.md")).context("could not read docs/oci.md")?;
    let explained = explained(&document);
    let mut unexplained = Vec::new();
    for name in &programs {
        let remarks = remarks_of(name, &place)?;
        match (remarks.is_empty(), explained.contains(name.as_str())) {
            (true, false) => println!("{name}: ok"),
            (true, true) => println!("{name}: ok, though docs/oci.md has a remark"),
            (false, true) => println!("{name}: as docs/oci.md explains"),
            (false, false) => {
                println!("{name}:");
                remarks.iter().for_each(|remark| println!("    {remark}"));
                unexplained.push(name);
            }
        }
    }
    let good = programs.len() - unexplained.len();
    println!("{good} passed, {} failed", unexplained.len());
    Ok(if unexplained.is_empty() { Outcome::Good } else { Outcome::Bad })
}

/// Builds its programs, and puts what they need beside them. Their names.
fn build(checkout: &Path, place: &Path) -> Result<Vec<String>> {
    let Some(go) = find("go") else { bail!("there is no `go`, in which the suite is written: install it") };
    let checkout = fs::canonicalize(checkout).with_context(|| format!("no {}", checkout.display()))?;
    let validation = checkout.join("validation");
    let entries = fs::read_dir(&validation).with_context(|| format!("no {}", validation.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && name != "util" {
            names.push(name);
        }
    }
    names.sort();
    fs::create_dir_all(place)?;
    let go = go.to_string_lossy().into_owned();
    let make = |output: &str, source: &str| {
        let mut go = command(&go, &["build", "-mod=vendor", "-o"]);
        run_program(go.arg(place.join(output)).arg(source).env("CGO_ENABLED", "0").current_dir(&checkout))
    };
    println!("building {} programs", names.len() + 1);
    make("runtimetest", "./cmd/runtimetest")?;
    for name in &names {
        make(&format!("{name}.t"), &format!("./validation/{name}"))?;
    }
    for name in ROOTS {
        fs::copy(checkout.join(name), place.join(name)).with_context(|| format!("no {name}"))?;
    }
    let runtime = runtime(place);
    let _ = fs::remove_file(&runtime);
    symlink(root().join("target/debug/stead"), runtime).context("could not link the runtime")?;
    Ok(names)
}

/// Called so, the program is a runtime and nothing else.
fn runtime(place: &Path) -> PathBuf {
    place.join("stead-oci")
}

/// What a program has to say.
fn remarks_of(name: &str, place: &Path) -> Result<Vec<String>> {
    let scratch = inside::scratch()?;
    let mut command = inside::command(Role::Root, scratch.path())?;
    command.args(["timeout", "--kill-after=5", LIMIT_S]).arg(place.join(format!("{name}.t")));
    command.current_dir(place).env("RUNTIME", runtime(place)).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().with_context(|| format!("could not start {name}"))?;
    let mut remarks = remarks(&String::from_utf8_lossy(&output.stdout));
    let leaves = output.status.code() == Some(i32::from(inside::LEFTOVERS));
    if !output.status.success() && !leaves && remarks.is_empty() {
        remarks.push(output.status.to_string());
    }
    Ok(remarks)
}

/// What is not as it should be, of a report in the Test Anything Protocol.
fn remarks(report: &str) -> Vec<String> {
    let is_excused = |line: &str| {
        let excuse = line.split_once('#').map_or("", |(_, excuse)| excuse).trim().to_ascii_uppercase();
        excuse.starts_with("SKIP") || excuse.starts_with("TODO")
    };
    let lines = report.lines().filter_map(|line| line.strip_prefix("not ok"));
    lines.filter(|line| !is_excused(line)).map(|line| line.trim().to_owned()).collect()
}

/// The programs in the first column of the document's table of remarks.
fn explained(document: &str) -> BTreeSet<&str> {
    let section = document.split_once("own suite says").map_or("", |(_, section)| section);
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.flat_map(|(names, _)| names.split("`, `")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ok_and_not_excused_is_a_remark() {
        let report = "TAP version 13\nok 1 - a\nnot ok 2 - b\n  ---\nnot ok 3 - c # TODO later\n\
            not ok 4 # skip no apparmor\n1..4\n";
        assert_eq!(remarks(report), ["2 - b"]);
        assert_eq!(remarks("ok 1\n1..1\n"), [""; 0]);
    }

    #[test]
    fn the_document_says_which_programs_have_remarks() {
        let document = "| `x` | before |\n## What its own suite says\n| program | why |\n|---|---|\n\
            | `a_b`, `c` | because | `d` |\n| `e` | so | so |\n";
        assert_eq!(explained(document), ["a_b", "c", "e"].into());
        let ours = include_str!("../../../docs/oci.md");
        assert!(explained(ours).contains("misc_props"));
        assert!(!explained(ours).contains("create"));
    }
}
