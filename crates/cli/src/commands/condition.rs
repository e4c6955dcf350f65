//! How a machine fares, for people and for programs.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use stead_host::home::Home;
use stead_host::machine::{self, Files, HealthState, Phase};
use stead_model::name::MachineId;
use stead_model::observed::Observed;

/// How a machine fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// Somebody else runs it.
    External,
    /// It has a keeper.
    Running {
        /// What it does.
        phase: Phase,
        /// Since when, in milliseconds since 1970.
        started_ms: u64,
        /// How well it is; nothing if nobody looks.
        health: Option<HealthState>,
        /// How often it was started again.
        restarts: u32,
        /// Its first process.
        pid: Option<u32>,
    },
    /// It has a keeper that does not answer.
    Unheard,
    /// It was made, and never ran.
    Created,
    /// It ended.
    Exited {
        /// Its exit code.
        exit_code: u8,
        /// When, in milliseconds since 1970.
        ended_ms: u64,
        /// Whether it had no memory left.
        out_of_memory: bool,
        /// How often it had been started again.
        restarts: u32,
        /// Why it could not be started, if that was so.
        error: Option<String>,
    },
    /// It ran, and nobody knows how it ended: its keeper was killed, or the computer.
    Lost,
}

impl Condition {
    /// How a machine fares that exists.
    pub(crate) fn observe(id: &MachineId, seen: &Observed, home: &Home) -> Self {
        if seen.machines.get(id).is_none_or(stead_model::observed::MachineState::goes_with_engine) {
            return Self::External;
        }
        if seen.running.contains_key(id) {
            return match machine::status(home, id) {
                Ok(Some(status)) => Self::Running {
                    phase: status.phase,
                    started_ms: status.started_ms,
                    health: status.health,
                    restarts: status.restarts,
                    pid: status.init.map(|init| init.pid),
                },
                Ok(None) | Err(_) => Self::Unheard,
            };
        }
        let files = Files::new(home, id);
        match files.load_exit() {
            Some(exit) if exit.lost => Self::Lost,
            Some(exit) => Self::Exited {
                exit_code: exit.code,
                ended_ms: exit.at_ms,
                out_of_memory: exit.out_of_memory,
                restarts: exit.restarts,
                error: exit.why,
            },
            None if files.assignment().exists() => Self::Lost,
            None => Self::Created,
        }
    }
}

impl Condition {
    /// The same in one word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Unheard => "no-answer",
            Self::Created => "created",
            Self::Exited { .. } => "exited",
            Self::Lost => "killed",
            Self::Running { phase, .. } => match phase {
                Phase::Booting => "booting",
                Phase::Running => "running",
                Phase::Paused => "paused",
                Phase::Restarting => "restarting",
                Phase::Stopping => "stopping",
            },
        }
    }

    /// How often it was started again since a person did.
    pub(crate) fn restarts(&self) -> u32 {
        match self {
            Self::Running { restarts, .. } | Self::Exited { restarts, .. } => *restarts,
            Self::External | Self::Unheard | Self::Created | Self::Lost => 0,
        }
    }

    /// Its first process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Running { pid, .. } => *pid,
            Self::External | Self::Unheard | Self::Created | Self::Exited { .. } | Self::Lost => None,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::External => f.write_str("external"),
            Self::Unheard => f.write_str("no answer"),
            Self::Created => f.write_str("created"),
            Self::Lost => f.write_str("killed"),
            Self::Running { started_ms, health, .. } => {
                write!(f, "{} {}", self.word(), ago(*started_ms))?;
                match health {
                    Some(HealthState::Starting) => f.write_str(" (starting)"),
                    Some(HealthState::Healthy) => f.write_str(" (healthy)"),
                    Some(HealthState::Unhealthy) => f.write_str(" (unhealthy)"),
                    None => Ok(()),
                }
            }
            Self::Exited { exit_code, ended_ms, out_of_memory, error, .. } => {
                write!(f, "exited ({exit_code}) {} ago", ago(*ended_ms))?;
                let why = if *out_of_memory { " out of memory" } else { "" };
                let failed = match (error, exit_code) {
                    (None, _) => "",
                    (Some(_), 125..=127) => " not started",
                    (Some(_), _) => " crashed",
                };
                write!(f, "{why}{failed}")
            }
        }
    }
}

/// For how long, in the largest unit that says enough.
fn ago(since_ms: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    span(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(since_ms) / 1000)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_largest_unit_that_says_enough() {
        let spans = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span);
        assert_eq!(spans, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
