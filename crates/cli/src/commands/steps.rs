//! The steps of plans, as commands print them that show or carry out some.

use std::collections::BTreeSet;

use serde::Serialize;

use stead_model::plan::{Plan, Planned};
use stead_model::step::Step;

use crate::args::Format;
use crate::failure::Failure;
use crate::output::{Output, printable, raw};
use crate::project::Loaded;

/// A step, as `--format json` has it.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    text: String,
    why: String,
    loses_data: bool,
    /// The earlier ones that came before it, by their place.
    after: BTreeSet<usize>,
    step: &'a Step,
}

/// The steps of plans that follow one another.
pub(super) fn lines<'a>(plans: &'a [Plan], loaded: Option<&Loaded>) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for plan in plans {
        let before = lines.len();
        lines.extend(plan.steps.iter().map(|planned| Line {
            text: planned.step.to_string(),
            why: why(planned, loaded),
            loses_data: planned.step.loses_data(),
            after: planned.after.iter().map(|place| before + place).collect(),
            step: &planned.step,
        }));
    }
    lines
}

/// Prints the steps of plans.
pub(super) fn print(plans: &[Plan], loaded: Option<&Loaded>, output: Output) -> Result<(), Failure> {
    let lines = lines(plans, loaded);
    let text = || {
        if lines.is_empty() {
            return "nothing to do\n".to_owned();
        }
        let width = lines.iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
        let row = |line: &Line<'_>| {
            let gap = width - line.text.chars().count();
            format!("{}{:gap$}  # {}\n", output.step(line.step), "", printable(&line.why))
        };
        lines.iter().map(row).collect()
    };
    output.data(&lines, text).map_err(Failure::from)
}

/// Prints the steps of plans that were carried out: for people each was told when it was.
pub(super) fn finished(plans: &[Plan], loaded: Option<&Loaded>, output: Output) -> Result<(), Failure> {
    if !output.tells {
        return Ok(());
    }
    match output.format {
        Format::Json => print(plans, loaded, output),
        Format::Text if plans.iter().all(|plan| plan.steps.is_empty()) => {
            raw("nothing to do\n").map_err(Failure::from)
        }
        Format::Text => Ok(()),
    }
}

/// Why a step is there: the key, and where it stands in the file.
fn why(planned: &Planned, loaded: Option<&Loaded>) -> String {
    let key = planned.why.split(' ').next().unwrap_or_default();
    let is_key =
        ["networks", "machines", "volumes", "name"].iter().any(|first| key.split('.').next() == Some(first));
    match loaded.filter(|_| is_key).and_then(|loaded| Some((loaded, loaded.sources.find(key)?))) {
        Some((loaded, span)) => {
            let (file, line) = loaded.line(span);
            format!("{} ({}:{line})", planned.why, file.file_name().unwrap_or_default().display())
        }
        None => planned.why.clone(),
    }
}
