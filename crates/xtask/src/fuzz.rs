//! `cargo xtask fuzz`: builds the targets of `fuzz/` with the pinned compiler, and runs each for its share of the
//! time in namespaces of its own.
//!
//! Built as cargo-fuzz would, less the sanitizers: those need a nightly compiler, and where there is no `unsafe` there is
//! little for them to find.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, available_parallelism};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::Outcome;
use crate::inside::{self, Role};
use crate::programs::{cargo, command, output, root};
use crate::setup::{self, Chore};
use crate::test::Tally;

/// What `cargo xtask test` gives all targets together, and this chore if it is not told, of processors' time. Half of them
/// read what comes from a wire: a minute is theirs.
const SECONDS: u64 = 120;
/// An input that takes longer is a finding: the slowest lawful ones take milliseconds.
const INPUT_LIMIT_S: u64 = 20;

const FLAGS: &str = "-Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    seconds: u64,
    target: Option<String>,
}

impl Options {
    /// Reads `[--seconds N] [TARGET]`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seconds" => {
                    let number = words.next().context("`--seconds` needs a number")?;
                    options.seconds =
                        number.parse().with_context(|| format!("`{number}` is no number of seconds"))?;
                }
                text if text.starts_with('-') => bail!("`fuzz` has no option `{text}`"),
                text if options.target.is_none() => options.target = Some(text.to_owned()),
                text => bail!("`fuzz` takes one target, and `{text}` is a second"),
            }
        }
        Ok(options)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: SECONDS, target: None }
    }
}

/// The chore.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    if !setup::ensure(&[Chore::Test])? {
        return Ok(Outcome::Refused);
    }
    let mut tally = Tally::default();
    add_to(&mut tally, options)?;
    Ok(tally.close())
}

/// Runs the targets and counts each as a test.
pub(crate) fn add_to(tally: &mut Tally, options: &Options) -> Result<()> {
    let mut targets = build()?;
    if let Some(wanted) = &options.target {
        targets.retain(|target| target.file_name().is_some_and(|name| name == wanted.as_str()));
    }
    let count = u64::try_from(targets.len())?;
    let Some(seconds) = options.seconds.checked_div(count) else {
        bail!("no such target; `fuzz/README.md` lists them");
    };
    // Not a second: zero means without end.
    let seconds = seconds.max(1);
    let at_once = available_parallelism()?.get();
    for some in targets.chunks(at_once) {
        // Each takes one processor.
        let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
            let begun: Vec<_> =
                some.iter().map(|target| scope.spawn(move || fuzz(target, seconds))).collect();
            let broken = |_| Err(anyhow!("what runs a fuzz target broke down"));
            begun.into_iter().map(|target| target.join().unwrap_or_else(broken)).collect()
        });
        tallies.into_iter().try_for_each(|more| more.map(|more| tally.add_all(more)))?;
    }
    Ok(())
}

fn fuzz(target: &Path, seconds: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let name = target.file_name().unwrap_or_default();
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|kind| place().join(kind).join(name));
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory)?;
    }
    let scratch = inside::scratch()?;
    let mut command = inside::command(Role::Root, scratch.path())?;
    command.arg(target).args(arguments(seconds, &corpus, &artifacts));
    let log = scratch.path().join("log");
    command.stderr(fs::File::create(&log)?);
    let limit = Duration::from_secs(seconds * 2 + 120);
    let title = format!("fuzzing {}", name.to_string_lossy());
    let good = tally.watch(&format!("{title} for {seconds} s"), &mut command, limit)?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if good {
        tally.passed += 1;
        let done = said.lines().rfind(|line| line.starts_with("Done "));
        done.into_iter().for_each(|line| println!("{title}: {line}"));
    } else {
        println!("{said}");
    }
    Ok(tally)
}

/// Of libFuzzer.
fn arguments(seconds: u64, corpus: &Path, artifacts: &Path) -> Vec<OsString> {
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(artifacts);
    prefix.push("/");
    let mut words: Vec<OsString> =
        [format!("-max_total_time={seconds}"), format!("-timeout={INPUT_LIMIT_S}")].map(Into::into).into();
    words.extend(["-rss_limit_mb=1024".into(), prefix, corpus.into()]);
    words
}

fn place() -> PathBuf {
    root().join("target/fuzz")
}

/// Builds the targets and tells where they are, in the order of their names.
fn build() -> Result<Vec<PathBuf>> {
    println!("\nbuilding the fuzz targets");
    let manifest = root().join("fuzz/Cargo.toml");
    // With `--target` the flags are not for build scripts and procedural macros.
    let messages = output(
        cargo(&["build", "--release", "--bins", "--quiet", "--target", &this_computer()?, "--manifest-path"])
            .arg(manifest)
            .args(["--message-format=json-render-diagnostics", "--target-dir"])
            .arg(place())
            .env("RUSTFLAGS", FLAGS)
            .stderr(Stdio::inherit()),
    )?;
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut targets: Vec<PathBuf> =
        artifacts.filter_map(|artifact| artifact.get("executable")?.as_str().map(PathBuf::from)).collect();
    targets.sort();
    Ok(targets)
}

/// What the compiler calls the kind of computer it runs on.
fn this_computer() -> Result<String> {
    let version = output(&mut command("rustc", &["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_target_and_the_time_is_a_number() {
        let parse =
            |text: &str| Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok();
        assert_eq!(parse(""), Some(Options { seconds: SECONDS, target: None }));
        assert_eq!(
            parse("--seconds 5 dhcp4"),
            Some(Options { seconds: 5, target: Some("dhcp4".to_owned()) })
        );
        for wrong in ["--seconds", "--seconds soon", "a b", "--quick"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_fuzzer_is_told_when_to_end_and_where_to_keep_what_it_finds() {
        let words = arguments(8, "/c".as_ref(), "/a".as_ref());
        let line = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        assert_eq!(line, "-max_total_time=8 -timeout=20 -rss_limit_mb=1024 -artifact_prefix=/a/ /c");
    }
}
