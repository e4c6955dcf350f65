//! `up --wait`: until machines are so far, or cannot be any more.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};

use stead_host::home::Home;
use stead_host::log::parse_line;
use stead_host::machine::{self, Files, HealthState, Status};
use stead_model::name::MachineId;

use crate::args::Stage;
use crate::failure::Failure;

/// Between looks: short beside what is waited for, and cheap.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A program that has a mistake in its settings ends in less; where nobody looks how well a machine is, that much is seen.
const STAYS_UP_FOR: Duration = Duration::from_millis(500);

/// The last lines of a machine's log that tell why it is not so far.
const LAST_LINES: usize = 5;

/// How far a machine is.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    There,
    NotYet(String),
    Never(String),
}

/// Waits until all of these machines are so far. `limit` is for all of them together.
pub(super) fn wait(
    home: &Home,
    ids: &[MachineId],
    stage: Stage,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut waiting: Vec<&MachineId> = ids.iter().collect();
    let mut failures = Vec::new();
    loop {
        let is_late = limit.is_some_and(|limit| begun.elapsed() >= limit);
        let mut left = Vec::new();
        for id in waiting {
            match look(home, id, stage)? {
                Found::There => {}
                Found::NotYet(how) if is_late => {
                    let seconds = begun.elapsed().as_secs();
                    failures.push(failed(home, id, stage, &format!("after {seconds} s {how}")));
                }
                Found::NotYet(_) => left.push(id),
                Found::Never(why) => failures.push(failed(home, id, stage, &why)),
            }
        }
        waiting = left;
        if waiting.is_empty() {
            return if failures.is_empty() { Ok(()) } else { Err(Failure::Steps(failures)) };
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What is reported as the step that failed.
fn failed(home: &Home, id: &MachineId, stage: Stage, why: &str) -> (String, anyhow::Error) {
    let stage = match stage {
        Stage::Ready => "ready",
        Stage::Started => "started",
        Stage::Healthy => "healthy",
        Stage::Completed => "completed",
    };
    let words = last_words(home, id);
    let words = if words.is_empty() { String::new() } else { format!("; it wrote last:\n{words}") };
    let error = anyhow!("{why}{words}; hint: `stead logs {id}` has all that it wrote");
    (format!("> await {id} {stage}"), error)
}

/// How a machine fares. Its keeper may go just while it is asked: then it is asked again.
fn status(home: &Home, id: &MachineId) -> anyhow::Result<Option<Status>> {
    let asked = machine::status(home, id);
    if asked.is_ok() {
        return asked;
    }
    std::thread::sleep(LOOK_EVERY);
    machine::status(home, id)
}

fn look(home: &Home, id: &MachineId, stage: Stage) -> anyhow::Result<Found> {
    let status = status(home, id).with_context(|| format!("machine `{id}`"))?;
    if let Some(status) = status {
        // One that is started again and again is not there yet, whatever it does just now.
        let runs = status.phase == machine::Phase::Running;
        return Ok(match (stage, status.health) {
            (Stage::Completed, _) => Found::NotYet("it runs still".to_owned()),
            (_, _) if !runs => Found::NotYet("it does not stay up".to_owned()),
            (Stage::Ready, None) if running_for(status.started_ms) < STAYS_UP_FOR => {
                Found::NotYet("it has only just started".to_owned())
            }
            (Stage::Started, _)
            | (Stage::Ready, None)
            | (Stage::Ready | Stage::Healthy, Some(HealthState::Healthy)) => Found::There,
            (Stage::Healthy, None) => {
                Found::Never("nobody looks whether it is well: it has no health check".to_owned())
            }
            (Stage::Ready | Stage::Healthy, Some(HealthState::Starting)) => {
                Found::NotYet("its health check has not yet succeeded".to_owned())
            }
            (Stage::Ready | Stage::Healthy, Some(HealthState::Unhealthy)) => {
                Found::Never("its health check fails".to_owned())
            }
        });
    }
    Ok(match (Files::new(home, id).load_exit(), stage) {
        // A job that is done has been as far as it can be.
        (Some(exit), Stage::Ready | Stage::Started | Stage::Completed) if exit.code == 0 => Found::There,
        (Some(exit), _) => Found::Never(format!("it ended with exit code {}", exit.code)),
        (None, _) => Found::Never("it does not run".to_owned()),
    })
}

fn running_for(since_ms: u64) -> Duration {
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(since_ms);
    // A clock that was set back says nothing: then it has run for long enough.
    SystemTime::now().duration_since(since).unwrap_or(STAYS_UP_FOR)
}

/// The end of what a machine wrote; nothing where that cannot be read, as it only adds to another failure.
fn last_words(home: &Home, id: &MachineId) -> String {
    let directory = Files::new(home, id).log();
    let numbers = stead_host::log::numbers(&directory).unwrap_or_default();
    let Some(number) = numbers.last() else { return String::new() };
    let text = std::fs::read(directory.join(stead_host::log::file_name(*number))).unwrap_or_default();
    let lines: Vec<String> = text
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .map(|line| format!("    {}", String::from_utf8_lossy(line.bytes)))
        .collect();
    lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).cloned().collect::<Vec<_>>().join("\n")
}
