//! What is told while images are moved: on a terminal one line that changes, else a line now and then.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use stead_image::Event;
use stead_model::image::Digest;

use crate::output::{note, rewrite};
use crate::working::TELL_AFTER;

/// Eyes follow no faster changes.
const LINE_EVERY: Duration = Duration::from_millis(100);
/// Lines stay: in a log one now and then is enough.
const NOTE_EVERY: Duration = Duration::from_secs(3);

/// Tells how far a piece of work is, once it takes longer than people like to look at nothing.
pub(crate) struct Progress {
    what: String,
    tells: Tells,
    is_terminal: bool,
    start: Instant,
    state: Mutex<State>,
}

/// Whether anything is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    HowFar,
    Nothing,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<Digest, Blob>,
    told: Option<Instant>,
    /// Whether a line is on the terminal that is to go.
    is_line: bool,
}

/// How much of a content is where it belongs.
#[derive(Clone, Copy, Default)]
struct Blob {
    done_bytes: u64,
    total_bytes: u64,
}

impl Progress {
    /// About the work that is called so: `pulling debian:12`.
    pub(crate) fn of(what: String) -> Self {
        Self::told(what, Tells::HowFar)
    }

    /// The same, if anything is to be told.
    pub(crate) fn told(what: String, tells: Tells) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { what, tells, is_terminal, start: Instant::now(), state: Mutex::default() }
    }

    /// Hears what happened.
    pub(crate) fn hear(&self, event: Event) {
        match event {
            Event::Resolved { layers, .. } => self.change(|blobs| {
                for layer in layers {
                    let done_bytes = if layer.present { layer.size_bytes } else { 0 };
                    // Another image that has it may be getting it.
                    blobs.entry(layer.blob).or_insert(Blob { done_bytes, total_bytes: layer.size_bytes });
                }
            }),
            Event::Progress { blob, done_bytes, total_bytes } => {
                self.change(|blobs| {
                    blobs.insert(blob, Blob { done_bytes, total_bytes });
                });
            }
            Event::Done { blob } => self.change(|blobs| {
                if let Some(blob) = blobs.get_mut(&blob) {
                    blob.done_bytes = blob.total_bytes;
                }
            }),
            Event::Waiting { blob } => {
                self.tell(&format!("waiting for another command that receives {}", blob.short()));
            }
            Event::Building { line } => self.tell(&line),
            Event::Retry { why, after } => {
                self.say(&format!("{}: {why}; trying again in {} ms", self.what, after.as_millis()));
            }
            Event::Passed { from, why } => {
                self.say(&format!("{}: not to be had as {from}: {why}", self.what));
            }
            Event::Unpacking { .. } | Event::Unpacked { .. } => {}
        }
    }

    /// Says how far it is, if it is time for that.
    pub(crate) fn tell(&self, how_far: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        let every = if self.is_terminal { LINE_EVERY } else { NOTE_EVERY };
        let is_early = self.start.elapsed() < TELL_AFTER;
        if self.tells == Tells::Nothing || is_early || state.told.is_some_and(|told| told.elapsed() < every) {
            return;
        }
        state.told = Some(Instant::now());
        let line = format!("{}: {how_far}", self.what);
        if self.is_terminal {
            state.is_line = true;
            rewrite(&line);
        } else {
            note(&line);
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Digest, Blob>)) {
        let how_far = {
            let Ok(mut state) = self.state.lock() else { return };
            change(&mut state.blobs);
            how_far(state.blobs.values().copied())
        };
        self.tell(&how_far);
    }

    /// What stays to be read.
    pub(crate) fn say(&self, text: &str) {
        self.clear();
        if self.tells == Tells::HowFar {
            note(text);
        }
    }

    fn clear(&self) {
        if let Ok(mut state) = self.state.lock()
            && std::mem::take(&mut state.is_line)
        {
            rewrite("");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn how_far(blobs: impl Iterator<Item = Blob>) -> String {
    let (mut sum, mut count, mut done) = (Blob::default(), 0, 0);
    for blob in blobs {
        sum.done_bytes += blob.done_bytes;
        sum.total_bytes += blob.total_bytes;
        count += 1;
        done += u64::from(blob.done_bytes >= blob.total_bytes);
    }
    format!("{done} of {count} layers, {} of {}", size(sum.done_bytes), size(sum.total_bytes))
}

/// A size for people: `17 B`, `4.2 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = "B";
    let (mut whole, mut tenths) = (bytes, 0);
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if whole < 1000 {
            break;
        }
        (whole, tenths, unit) = (whole / 1000, whole % 1000 / 100, next);
    }
    if whole >= 100 || unit == "B" { format!("{whole} {unit}") } else { format!("{whole}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_999, "99.9 kB"),
            (100_000, "100 kB"),
            (4_256_000, "4.2 MB"),
            (u64::MAX, "18446 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_here_already_counts_as_done() {
        let blobs = [(10, 10), (500, 2000)];
        let blobs = blobs.map(|(done_bytes, total_bytes)| Blob { done_bytes, total_bytes });
        assert_eq!(how_far(blobs.into_iter()), "1 of 2 layers, 510 B of 2.0 kB");
    }
}
