//! How far a run of a machine has got, and when.

use std::time::{Duration, Instant};

use stead_agent::message;
use stead_host::machine::Stage;

use super::guest::Use;

/// The stages of a run, from when it was begun.
#[derive(Debug)]
pub(super) struct Stages {
    begun: Instant,
    reached: Vec<Stage>,
    /// What a guest told, by its own clock, and when that was heard.
    told: Vec<(message::Stage, Duration)>,
    /// Whether its guest went on from where another one was saved: what it tells of before is not its own.
    is_restored: bool,
}

/// A guest tells a dozen of them; one that tells more tells us nothing.
const TOLD_MAX: usize = 64;
/// What was so before it was saved.
const SAVED: [&str; 4] = ["kernel", "modules", "agent", "hello"];
/// Their names are words.
const NAME_MAX_CHARS: usize = 32;

impl Stages {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, reached: Vec::new(), told: Vec::new(), is_restored: false }
    }

    /// It got so far just now.
    pub(super) fn reach(&mut self, name: &str) {
        let at_ms = ms(self.begun.elapsed());
        self.reached.push(Stage { name: name.to_owned(), at_ms });
    }

    /// Its guest was saved just now for others, or went on from where another one was.
    pub(super) fn use_template(&mut self, to: Use) {
        self.is_restored = to == Use::Restored;
        self.reach(if self.is_restored { "restored" } else { "saved" });
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
        // One that was saved began before the run.
        let at = |stage: &message::Stage| i128::from(stage.at_us / 1000);
        let is_own = |stage: &message::Stage| !self.is_restored || !SAVED.contains(&stage.name.as_str());
        let told = self.told.iter().filter(|(stage, _)| is_own(stage));
        let offset = told.clone().map(|(stage, heard)| i128::from(ms(*heard)) - at(stage)).min();
        let offset = offset.unwrap_or_default();
        let offset = if self.is_restored { offset } else { offset.max(0) };
        let told = told.map(|(stage, _)| Stage {
            name: stage.name.clone(),
            at_ms: u64::try_from(offset + at(stage)).unwrap_or_default(),
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
            is_restored: false,
        };
        let said: Vec<String> =
            stages.all().iter().map(|stage| format!("{} {}", stage.name, stage.at_ms)).collect();
        assert_eq!(said, ["vmm 20", "kernel 1500", "agent 1800", "network 2000", "started 2001"]);
    }

    #[test]
    fn what_a_guest_that_was_saved_tells_of_before_is_not_its_own() {
        let told = |name: &str, at_ms: u64, heard_ms: u64| {
            let stage = message::Stage { name: name.to_owned(), at_us: at_ms * 1000 };
            (stage, Duration::from_millis(heard_ms))
        };
        let stages = Stages {
            begun: Instant::now(),
            reached: vec![Stage { name: "restored".to_owned(), at_ms: 200 }],
            told: vec![told("kernel", 700, 210), told("disks", 1900, 300), told("network", 1950, 360)],
            is_restored: true,
        };
        let said: Vec<String> =
            stages.all().iter().map(|stage| format!("{} {}", stage.name, stage.at_ms)).collect();
        assert_eq!(said, ["restored 200", "disks 300", "network 350"]);
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
