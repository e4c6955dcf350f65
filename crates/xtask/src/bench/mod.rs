//! `cargo xtask bench`: how we compare with others, as ratios measured in one run.
//!
//! Absolute numbers say more about the computer than about the program, so both sides of a comparison take turns
//! and only the ratio of their medians is judged. A comparison is a small file here that gives a [`Comparison`];
//! add it to [`COMPARISONS`].

mod answers;
mod containers;
mod endpoints;
mod guests;
mod kept;
mod lab;
mod memory;
mod peers;
mod place;
mod pull;
mod records;
mod throughput;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::Outcome;
use crate::inside::{self, Role};
use crate::programs::{self, cargo};
use crate::setup::{self, Chore};

/// The word for the part within the namespaces.
pub(crate) const STAGE: &str = "__bench";

pub(crate) use answers::{STAGE as LOAD_STAGE, put_load};

const COMPARISONS: &[Comparison] = &[
    endpoints::AGAINST_COMMANDS,
    endpoints::AGAINST_CNI,
    throughput::AGAINST_SOCAT,
    throughput::AGAINST_DIRECT,
    throughput::AGAINST_SOCAT_BY_4,
    throughput::AGAINST_DIRECT_BY_4,
    answers::DNS,
    answers::DNS_NOISE,
    answers::DHCP,
    memory::SWITCHBOARD,
    memory::SWITCHBOARD_50,
    memory::ANCHOR,
    containers::RUN_AGAINST_RUNC,
    containers::RUN_ALONE_AGAINST_RUNC,
    containers::RUN_AGAINST_PODMAN,
    containers::EXEC,
    containers::PROJECT,
    containers::KEEPER,
    containers::KEEPER_WITH_TESTS,
    containers::KEEPER_AGAINST_CONMON,
    guests::WARM_AGAINST_COLD,
    pull::AGAINST_PODMAN,
    pull::AGAINST_UMOCI,
    records::THOUSAND,
    records::GROWTH_TO_1000,
    records::GROWTH_TO_500,
];

/// Two ways to the same end.
struct Comparison {
    name: &'static str,
    first: Side,
    second: Side,
    unit: Unit,
    /// How many times better the first must be; `None` if it is only shown.
    target: Option<f64>,
}

/// One of them, and how to measure it once.
struct Side {
    name: &'static str,
    measure: fn() -> Result<f64>,
}

/// What is measured.
#[derive(Clone, Copy)]
enum Unit {
    /// Less is better.
    Seconds,
    /// More is better.
    GigabitsPerSecond,
    /// More is better.
    PerSecond,
    /// Less is better.
    Mebibytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::GigabitsPerSecond => "Gbit/s",
            Self::PerSecond => "/s",
            Self::Mebibytes => "MiB",
        }
    }
}

/// Medians of both sides and what they say.
struct Finding {
    first: f64,
    second: f64,
    /// How many times better the first is.
    ratio: f64,
    verdict: Option<bool>,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    rounds: usize,
    json: bool,
    names: Vec<String>,
}

impl Options {
    /// Reads `[--rounds N] [--format json] [NAME…]`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { rounds: 5, json: false, names: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--rounds" => {
                    let text = rest.next().context("`--rounds` needs a number")?;
                    options.rounds =
                        text.parse().ok().filter(|rounds| (1..=1000).contains(rounds)).with_context(
                            || format!("`--rounds` takes a number from 1 to 1000, not `{text}`"),
                        )?;
                }
                "--format" => match rest.next().map(String::as_str) {
                    Some("json") => options.json = true,
                    Some("text") => options.json = false,
                    _ => bail!("`--format` takes `text` or `json`"),
                },
                name if COMPARISONS.iter().any(|comparison| comparison.name == name) => {
                    options.names.push(name.to_owned());
                }
                name => {
                    let known: Vec<_> = COMPARISONS.iter().map(|comparison| comparison.name).collect();
                    bail!("no comparison `{name}`; there are {}", known.join(", "));
                }
            }
        }
        Ok(options)
    }
}

/// The chore.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    if !setup::ensure(&[Chore::Bench])? {
        return Ok(Outcome::Refused);
    }
    programs::run(&mut cargo(&["build", "--release", "--locked", "--package", "stead"]))?;
    let scratch = inside::scratch()?;
    let mut command = inside::command(Role::Root, scratch.path())?;
    command.arg(Path::new("/proc/self/exe")).args([
        STAGE,
        "--rounds",
        &options.rounds.to_string(),
        "--format",
    ]);
    command.arg(if options.json { "json" } else { "text" }).args(&options.names);
    let status = command.status().context("could not start the comparisons")?;
    Ok(if status.success() { Outcome::Good } else { Outcome::Bad })
}

/// The comparisons, within the namespaces. One that fails keeps nobody from the others' figures.
pub(crate) fn inside(options: &Options) -> Result<Outcome> {
    let mut good = true;
    let mut findings = Vec::new();
    if !options.json {
        println!("{:<20} {:<34} {:<34} {:>7}  verdict", "comparison", "median", "median", "ratio");
    }
    for comparison in COMPARISONS {
        if !options.names.is_empty() && !options.names.iter().any(|name| name == comparison.name) {
            continue;
        }
        eprintln!("{}: {} rounds of both", comparison.name, options.rounds);
        let finding = compare(comparison, options.rounds);
        kept::let_go();
        match finding {
            Ok(finding) => {
                good &= finding.verdict != Some(false);
                if options.json {
                    findings.push(as_json(comparison, &finding));
                } else {
                    println!("{}", as_text(comparison, &finding));
                }
            }
            Err(error) => {
                good = false;
                eprintln!("error: `{}` failed", comparison.name);
                error.chain().for_each(|cause| eprintln!("  cause: {cause}"));
            }
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    }
    Ok(if good { Outcome::Good } else { Outcome::Bad })
}

/// Both sides in turns, so that whatever else the computer does meanwhile falls on both.
fn compare(comparison: &Comparison, rounds: usize) -> Result<Finding> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (side, values) in [(&comparison.first, &mut first), (&comparison.second, &mut second)] {
            values.push((side.measure)().with_context(|| format!("could not measure {}", side.name))?);
        }
    }
    let (first, second) = (median(first), median(second));
    let ratio = match comparison.unit {
        Unit::Seconds | Unit::Mebibytes => second / first,
        Unit::GigabitsPerSecond | Unit::PerSecond => first / second,
    };
    Ok(Finding { first, second, ratio, verdict: comparison.target.map(|target| ratio >= target) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 { at(upper) } else { f64::midpoint(at(upper.saturating_sub(1)), at(upper)) }
}

fn as_text(comparison: &Comparison, finding: &Finding) -> String {
    let side = |side: &Side, median: f64| format!("{} {median:.3} {}", side.name, comparison.unit.name());
    let verdict = match (comparison.target, finding.verdict) {
        (Some(target), Some(true)) => format!("met: at least {target}"),
        (Some(target), _) => format!("MISSED: at least {target}"),
        (None, _) => "no target".to_owned(),
    };
    format!(
        "{:<20} {:<34} {:<34} {:>7.2}  {verdict}",
        comparison.name,
        side(&comparison.first, finding.first),
        side(&comparison.second, finding.second),
        finding.ratio,
    )
}

fn as_json(comparison: &Comparison, finding: &Finding) -> serde_json::Value {
    json!({
        "name": comparison.name,
        "unit": comparison.unit.name(),
        "first": { "name": comparison.first.name, "median": finding.first },
        "second": { "name": comparison.second.name, "median": finding.second },
        "ratio": finding.ratio,
        "target": comparison.target,
        "met": finding.verdict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_both_middles() {
        assert!((median(vec![9.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 3.0, 100.0]) - 3.5).abs() < 1e-9);
    }

    fn fixed(unit: Unit, target: f64) -> Comparison {
        let first = Side { name: "a", measure: || Ok(2.0) };
        Comparison {
            name: "x",
            first,
            second: Side { name: "b", measure: || Ok(8.0) },
            unit,
            target: Some(target),
        }
    }

    #[test]
    fn the_ratio_says_how_many_times_better_the_first_is() {
        let quicker = compare(&fixed(Unit::Seconds, 4.0), 3).unwrap();
        assert!((quicker.ratio - 4.0).abs() < 1e-9);
        assert_eq!(quicker.verdict, Some(true));
        let slower = compare(&fixed(Unit::PerSecond, 0.7), 3).unwrap();
        assert!((slower.ratio - 0.25).abs() < 1e-9);
        assert_eq!(slower.verdict, Some(false));
        assert!(as_text(&fixed(Unit::PerSecond, 0.7), &slower).ends_with("MISSED: at least 0.7"));
    }

    #[test]
    fn an_unknown_comparison_or_no_rounds_are_refused() {
        for words in [&["--rounds", "0"][..], &["--rounds"], &["nonsense"], &["--format", "yaml"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert!(Options::parse(&words).is_err(), "{words:?}");
        }
    }
}
