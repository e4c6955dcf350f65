//! How long machines took to get where they are.

use serde::Serialize;

use stead_host::home::Home;
use stead_host::machine::{self, Stage};
use stead_model::name::MachineId;

use crate::failure::Failure;
use crate::output::{Output, table};

/// The stages of a machine's present run.
#[derive(Debug, Serialize)]
pub(super) struct Timing {
    machine: String,
    stages: Vec<Stage>,
}

/// Those of machines. Ones that do not run have none.
pub(super) fn of(home: &Home, ids: &[MachineId]) -> anyhow::Result<Vec<Timing>> {
    let mut timings = Vec::new();
    for id in ids {
        if let Some(status) = machine::status(home, id)? {
            timings.push(Timing { machine: id.to_string(), stages: status.stages });
        }
    }
    Ok(timings)
}

/// `up --timings`, for people.
pub(crate) fn tell(home: &Home, ids: &[MachineId], output: Output) -> Result<(), Failure> {
    let timings = of(home, ids)?;
    output.data(&timings, || text(&timings)).map_err(Failure::from)
}

fn text(timings: &[Timing]) -> String {
    let rows = timings.iter().flat_map(|timing| {
        let befores = std::iter::once(0).chain(timing.stages.iter().map(|stage| stage.at_ms));
        timing.stages.iter().zip(befores).map(|(stage, before)| {
            let took = stage.at_ms.saturating_sub(before);
            vec![timing.machine.clone(), stage.name.clone(), seconds(took), seconds(stage.at_ms)]
        })
    });
    table(&["MACHINE", "STAGE", "TOOK", "AT"], &rows.collect::<Vec<_>>())
}

/// `1.234 s`.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_what_it_took_and_when_it_was_reached() {
        let stage = |name: &str, at_ms| Stage { name: name.to_owned(), at_ms };
        let stages = vec![stage("created", 12), stage("started", 1015)];
        let said = text(&[Timing { machine: "web.shop".to_owned(), stages }]);
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1..],
            [
                vec!["web.shop", "created", "0.012", "s", "0.012", "s"],
                vec!["web.shop", "started", "1.003", "s", "1.015", "s"],
            ]
        );
    }
}
