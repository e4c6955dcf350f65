//! `cargo xtask check`: what a tool can check, a tool checks.

use anyhow::Result;

use crate::programs::{GUEST, cargo, succeeds};
use crate::setup::{self, Chore};
use crate::{Outcome, documents, source};

/// All checks, each to its end: a report names everything that is wrong.
pub(crate) fn run() -> Result<Outcome> {
    if !setup::ensure(&[Chore::Check])? {
        return Ok(Outcome::Refused);
    }
    let mut bad = Vec::new();
    for (name, arguments) in PROGRAMS {
        println!("check: {name}");
        if !succeeds(cargo(arguments).env("RUSTDOCFLAGS", "-D warnings"))? {
            bad.push((*name).to_owned());
        }
    }
    println!("check: house rules");
    bad.extend(source::broken_rules()?);
    println!("check: documents");
    bad.extend(documents::wrong()?);
    bad.iter().for_each(|what| println!("check failed: {what}"));
    Ok(if bad.is_empty() { Outcome::Good } else { Outcome::Bad })
}

/// Advisories are not among it: they are fetched by git from a server that not every computer can reach.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    (
        "lints",
        &["clippy", "--workspace", "--features", GUEST, "--all-targets", "--quiet", "--", "-D", "warnings"],
    ),
    // With the features of the lints, those that tests need included: else half of all would be compiled once more.
    (
        "documentation",
        &[
            "doc",
            "--workspace",
            "--features",
            GUEST,
            "--no-deps",
            "--quiet",
            "--lib",
            "--bin",
            "stead",
            "--bin",
            "xtask",
            "--examples",
        ],
    ),
    ("dependencies", &["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]),
];
