//! The house rules of STYLE.md that neither rustfmt nor clippy knows.

use std::path::Path;

use anyhow::{Context, Result};

use crate::programs::{command, output, root};

/// Crates that never run a program to change the network; `xtask` compares against such programs.
const CHORES: &str = "crates/xtask/";
/// Programs whose work we do ourselves, by netlink.
const FOREIGN: [&str; 12] = [
    "ip",
    "tc",
    "nft",
    "iptables",
    "ip6tables",
    "iptables-restore",
    "sysctl",
    "brctl",
    "bridge",
    "ifconfig",
    "route",
    "modprobe",
];
const FILE_LINES_MAX: usize = 500;
const MAP_LINES_MAX: usize = 200;

/// A line for each rule that a file of the repository breaks.
pub(crate) fn broken_rules() -> Result<Vec<String>> {
    let listed = output(&mut command("git", &["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut broken = Vec::new();
    for path in listed.lines() {
        let file = root().join(path);
        // Listed by git and deleted since, or not text.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        broken.extend(broken_in(path, &text).into_iter().map(|rule| format!("{path}: {rule}")));
    }
    let workspace =
        std::fs::read_to_string(root().join("Cargo.toml")).context("could not read Cargo.toml")?;
    if !workspace.contains("unsafe_code = \"deny\"") && !workspace.contains("unsafe_code = \"forbid\"") {
        broken.push("Cargo.toml: `unsafe_code` must be denied for the workspace".to_owned());
    }
    Ok(broken)
}

/// The rules that one file breaks.
fn broken_in(path: &str, text: &str) -> Vec<String> {
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut broken = Vec::new();
    // In two pieces, because this file is looked at too.
    if text.contains(concat!("StrictHostKey", "Checking=no")) {
        broken.push("host keys are verified, always".to_owned());
    }
    if name == "ARCHITECTURE.md" && text.lines().count() >= MAP_LINES_MAX {
        broken.push(format!("the map has {} lines, under {MAP_LINES_MAX} it is read", text.lines().count()));
    }
    if path.starts_with("crates/") && name == "Cargo.toml" && !text.contains("[lints]\nworkspace = true") {
        broken.push("the workspace's lints must hold: `[lints] workspace = true`".to_owned());
    }
    if path.ends_with(".rs") {
        broken.extend(broken_in_code(path, name, text));
    }
    broken
}

fn broken_in_code(path: &str, name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let own = without_tests(text);
    let is_test = path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs");
    if !is_test && own.lines().count() > FILE_LINES_MAX {
        broken.push(format!("{} lines without tests, {FILE_LINES_MAX} is the limit", own.lines().count()));
    }
    if !text.starts_with("//!") {
        broken.push("the first line says what the file is for (`//!`)".to_owned());
    }
    if text.contains(concat!("unsafe", " {")) && name != "sys.rs" {
        broken.push("`unsafe` is for a `sys.rs`".to_owned());
    }
    if path.starts_with("crates/") && !path.starts_with(CHORES) && !is_test {
        for program in FOREIGN {
            if own.contains(&format!("Command::new(\"{program}\")")) {
                broken.push(format!("runs `{program}`: netlink does that"));
            }
        }
    }
    broken
}

/// The file up to its module of tests, which by custom closes it.
fn without_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod ").map_or(text, |(own, _)| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, broken: &[&str]) {
        assert_eq!(broken_in(path, text), broken, "{path}");
    }

    #[test]
    fn tests_do_not_count_as_lines() {
        let own = "//! x\n".to_owned() + &"\n".repeat(500);
        check("crates/net/src/x.rs", &own, &["501 lines without tests, 500 is the limit"]);
        check("crates/net/tests/x.rs", &own, &[]);
        let tested = format!("//! x\n\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(600));
        check("crates/net/src/x.rs", &tested, &[]);
    }

    #[test]
    fn only_the_chores_and_tests_run_the_programs_we_replace() {
        let code = "//! x\nfn f() { Command::new(\"ip\") }\n";
        check("crates/net/src/x.rs", code, &["runs `ip`: netlink does that"]);
        check("crates/net/tests/x.rs", code, &[]);
        check("crates/xtask/src/x.rs", code, &[]);
        check(
            "crates/net/src/x.rs",
            "//! x\nfn f() {}\n#[cfg(test)]\nmod tests { Command::new(\"ip\") }\n",
            &[],
        );
    }

    #[test]
    fn unsafe_code_and_missing_words_are_named() {
        check(
            "crates/net/src/x.rs",
            concat!("fn f() { unsafe", " { g() } }\n"),
            &["the first line says what the file is for (`//!`)", "`unsafe` is for a `sys.rs`"],
        );
        check("crates/net/src/sys.rs", concat!("//! x\nfn f() { unsafe", " { g() } }\n"), &[]);
    }

    #[test]
    fn every_crate_takes_the_workspace_lints_and_the_map_stays_short() {
        check(
            "crates/net/Cargo.toml",
            "[package]\n",
            &["the workspace's lints must hold: `[lints] workspace = true`"],
        );
        check("ARCHITECTURE.md", &"x\n".repeat(200), &["the map has 200 lines, under 200 it is read"]);
        check(
            "README.md",
            concat!("ssh -o StrictHostKey", "Checking=no"),
            &["host keys are verified, always"],
        );
    }
}
