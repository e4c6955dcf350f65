//! `doctor`: what this computer can do, what each thing is needed for, and what mends it.

mod verdict;

use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use stead_model::container::Limits;
use stead_net::anchor::{Trial, run_as_root, try_networks};
use stead_net::facts::observe;

use self::verdict::Found;
use crate::failure::Failure;
use crate::output::{Output, raw, table};
use crate::session::{look, program};

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    needed_for: &'static str,
    #[serde(flatten)]
    mend: Mend,
}

/// What mends it; nothing where nothing is to be mended.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Mend {
    /// The command, to be run as it stands.
    fix: Option<String>,
    /// What is to be known of it, or what else is to be done where no command mends it.
    advice: Option<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// Something else does its work, or it is not needed yet.
    Limited,
    Missing,
}

/// Looks at everything. Exit code 1 if something is missing that networks need.
pub(crate) fn run(output: Output) -> Result<ExitCode, Failure> {
    let checks = verdict::checks(&found()?);
    output.data(&checks, || text(&checks))?;
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(ExitCode::from(u8::from(missing)))
}

/// Looks.
fn found() -> Result<Found, Failure> {
    let seen = look().and_then(|mut host| host.observe());
    let seen = seen.map(|seen| (seen.host, seen.uplink)).map_err(|error| format!("{error:#}"));
    Ok(Found {
        facts: observe(),
        root: rustix::process::geteuid().is_root(),
        uid: rustix::process::geteuid().as_raw(),
        group: rustix::process::getegid().as_raw().into(),
        trial: trial().map_err(|error| format!("{error:#}")),
        refused: refused()?,
        missing: stead_host::linux::guest::missing_programs(&super::guest::needs_of_microvm(true)),
        seen,
    })
}

/// Tries what networks are made of, in a process whose namespaces go with it.
fn trial() -> anyhow::Result<Trial> {
    let text = run_as_root(&program()?, &["__try-networks".into()])?;
    serde_json::from_str(&text).context("the trial of networks has no result")
}

/// Is that process.
pub(crate) fn try_here() -> anyhow::Result<()> {
    raw(&serde_json::to_string(&try_networks()?)?)
}

/// The limits that containers cannot be held to here, and why.
fn refused() -> anyhow::Result<Vec<(&'static str, String)>> {
    let limits = [
        ("memory", Limits { memory_bytes: Some(64 << 20), ..Limits::default() }),
        ("cpus", Limits { cpus_milli: Some(1000), ..Limits::default() }),
        ("pids", Limits { pids: Some(100), ..Limits::default() }),
    ];
    let mut refused = Vec::new();
    for (name, limits) in limits {
        let first = stead_container::limits_refused(&limits)?.into_iter().next();
        refused.extend(first.map(|refusal| (name, refusal.why)));
    }
    Ok(refused)
}

fn text(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
    let mut text = table(&["", "WHAT", "FOUND", "NEEDED FOR"], &rows);
    for Check { what, mend: Mend { fix, advice }, .. } in checks {
        if fix.is_some() || advice.is_some() {
            text += &format!("\nto mend {what}:\n");
        }
        text.extend(fix.iter().chain(advice).map(|line| format!("  {line}\n")));
    }
    text
}

fn row(check: &Check) -> Vec<String> {
    let sign = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Limited => "limited",
        Verdict::Missing => "missing",
    };
    vec![sign.to_owned(), check.what.to_owned(), check.found.clone(), check.needed_for.to_owned()]
}
