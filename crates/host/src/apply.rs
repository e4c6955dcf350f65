//! Carrying out a plan: every step as soon as those it waits for are done, independent ones together.

use std::collections::BTreeSet;

use anyhow::{Error, Result};

use stead_model::observed::Observed;
use stead_model::plan::{Plan, Planned};
use stead_model::step::Step;

/// A computer that stead runs machines on.
pub trait Host {
    /// What exists there.
    fn observe(&mut self) -> Result<Observed>;

    /// Runs steps none of which waits for another, and says of each how it went, in their order.
    fn run(&mut self, steps: &[&Step]) -> Vec<Result<()>>;
}

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed.
    Failed(Error),
    /// It was not tried, because one that it waits for failed.
    Skipped,
}

/// Carries out a plan and reports each step as it ends. A failure holds up only what waits for it.
pub fn apply(
    plan: &Plan,
    host: &mut dyn Host,
    report: &mut dyn FnMut(&Planned, &Outcome),
) -> Vec<(Step, Error)> {
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut ended: BTreeSet<usize> = BTreeSet::new();
    let mut failures = Vec::new();
    loop {
        let waiting = plan.steps.iter().enumerate().filter(|(place, _)| !ended.contains(place));
        let ready: Vec<(usize, &Planned)> = waiting.filter(|(_, step)| step.after.is_subset(&done)).collect();
        if ready.is_empty() {
            break;
        }
        let steps: Vec<&Step> = ready.iter().map(|(_, planned)| &planned.step).collect();
        let results = host.run(&steps);
        for ((place, planned), result) in ready.into_iter().zip(results) {
            ended.insert(place);
            match result {
                Ok(()) => {
                    done.insert(place);
                    report(planned, &Outcome::Done);
                }
                Err(error) => {
                    let outcome = Outcome::Failed(error);
                    report(planned, &outcome);
                    if let Outcome::Failed(error) = outcome {
                        failures.push((planned.step.clone(), error));
                    }
                }
            }
        }
    }
    for (_, planned) in plan.steps.iter().enumerate().filter(|(place, _)| !ended.contains(place)) {
        report(planned, &Outcome::Skipped);
    }
    failures
}
