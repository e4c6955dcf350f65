//! How far a run of a machine has got, and when.

use std::time::{Duration, Instant};

use stead_agent::message;
use stead_host::machine::Stage;

/// The stages of a run, from when it was begun.
#[derive(Debug)]
pub(super) struct Stages {
    begun: Instant,
    reached: Vec<Stage>,
    /// What a guest told, by its own clock, and when that was heard.
    told: Vec<(message::Stage, Duration)>,
}

/// A guest tells a dozen of them; one that tells more tells us nothing.
const TOLD_MAX: usize = 64;
/// Their names are words.
const NAME_MAX_CHARS: usize = 32;

impl Stages {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, reached: Vec::new(), told: Vec::new() }
    }

    /// It got so far just now.
    pub(super) fn reach(&mut self, name: &str) {
        let at_ms = ms(self.begun.elapsed());
        self.reached.push(Stage { name: name.to_owned(), at_ms });
    }

    /// It got so far just now, if it did not before.
    pub(super) fn reach_first(&mut self, name: &str) {
        if !self.reached.iter().any(|stage| stage.name == name) {
            self.reach(name);
        }
    }

    /// Its guest says that it got so far.
    pub(super) fn hear(&mut self, stage: message::Stage) {
        if self.told.len() < TOLD_MAX && stage.name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
            let name = stage.name.chars().take(NAME_MAX_CHARS).collect();
            self.told.push((message::Stage { name, ..stage }, self.begun.elapsed()));
        }
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<Stage> {
        // Its clock began when its kernel did: at the latest so long after the run that what was heard soonest after it
        // happened was heard at once.
        let at = |stage: &message::Stage| Duration::from_micros(stage.at_us);
        let offset = self.told.iter().map(|(stage, heard)| heard.saturating_sub(at(stage))).min();
        let offset = offset.unwrap_or_default();
        let told = self.told.iter().map(|(stage, _)| Stage {
            name: stage.name.clone(),
            at_ms: ms(offset.saturating_add(at(stage))),
        });
        let mut all: Vec<Stage> = self.reached.iter().cloned().chain(told).collect();
        all.sort_by_key(|stage| stage.at_ms);
        all
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_tells_by_its_own_clock_is_put_where_it_belongs() {
        let told = |name: &str, at_ms: u64, heard_ms: u64| {
            let stage = message::Stage { name: name.to_owned(), at_us: at_ms * 1000 };
            (stage, Duration::from_millis(heard_ms))
        };
        let stages = Stages {
            begun: Instant::now(),
            reached: vec![
                Stage { name: "vmm".to_owned(), at_ms: 20 },
                Stage { name: "started".to_owned(), at_ms: 2001 },
            ],
            // The first is heard only when there is somebody to tell it.
            told: vec![told("kernel", 700, 1800), told("agent", 1000, 1800), told("network", 1200, 2000)],
        };
        let said: Vec<String> =
            stages.all().iter().map(|stage| format!("{} {}", stage.name, stage.at_ms)).collect();
        assert_eq!(said, ["vmm 20", "kernel 1500", "agent 1800", "network 2000", "started 2001"]);
    }

    #[test]
    fn a_guest_that_tells_too_much_is_not_listened_to() {
        let mut stages = Stages::new(Instant::now());
        for _ in 0..1000 {
            stages.hear(message::Stage { name: "a".repeat(1000), at_us: u64::MAX });
        }
        stages.hear(message::Stage { name: "\u{1b}[2J".to_owned(), at_us: 0 });
        assert_eq!(stages.all().len(), TOLD_MAX);
        assert!(stages.all().iter().all(|stage| stage.name.len() == NAME_MAX_CHARS));
    }
}
