//! A guest is saved when it has booted and was told nothing, for others to go on from there; and one that goes on so.
//!
//! ```text
//! Wanted ──booted──▶ Begun ──the VMM has saved it──▶ GoesOn ──▶ LetsGo ──▶ No: told what it is to run, the template in its place
//!                      └──it cannot, or too late──▶ GoesOn ──▶ No: the same, without a template
//! Restores ──booted──▶ Restored: told what it is to run
//! Begun, GoesOn, LetsGo, Restores ──the VMM ends, or too late──▶ the VMM ends; the machine boots once more, and no template is made or used
//! ```
//!
//! Until it is told what it is to run nothing of its machine reaches it: what is typed, at its console as well, and signals wait.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use stead_host::template::Unfinished;
use stead_vmm::Order;

use super::super::control::Answered;
use super::super::template::Beginning;
use super::{Guest, Heard};

/// Some hundred megabytes are written, on a computer that may have much else to do.
const SAVE_LIMIT: Duration = Duration::from_secs(5);
/// How large it is, and how full its disk, is looked at so often meanwhile.
const ROOM_EVERY: Duration = Duration::from_millis(50);
/// They are read, and little is done then.
const RESTORE_LIMIT: Duration = Duration::from_secs(20);
/// QEMU says that it has saved a guest a moment before that may go on.
const GO_ON_EVERY: Duration = Duration::from_millis(2);
/// A moment; or the time that a VMM takes that was busy.
const GO_ON_LIMIT: Duration = Duration::from_secs(10);

/// What a template was to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine) enum Use {
    /// It was made of it.
    Saved,
    /// It went on from it.
    Restored,
}

/// Whether a guest is saved or restored, and how far that is.
pub(super) enum Saving {
    /// Neither, or not any more.
    No,
    /// It is to be saved once it has booted.
    Wanted(Unfinished),
    /// It is being saved.
    Begun { to: Unfinished, by: Instant, look_at: Instant },
    /// It was saved, or not, and is to go on.
    GoesOn { to: Option<Unfinished>, key: String, at: Option<Instant>, by: Instant },
    /// It goes on, and the VMM lets go of what it was saved to.
    LetsGo { to: Unfinished, at: Instant, by: Instant },
    /// It goes on from where another one was saved, once that is read.
    Restores { key: String, by: Instant },
    /// It went on from there.
    Restored { key: String },
}

impl Saving {
    pub(super) fn new(beginning: Beginning) -> Self {
        match beginning {
            Beginning::Boots => Self::No,
            Beginning::IsSaved(to) => Self::Wanted(to),
            Beginning::Restored { key, .. } => Self::Restores { key, by: Instant::now() + RESTORE_LIMIT },
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        match self {
            Self::No | Self::Wanted(_) | Self::Restored { .. } => None,
            Self::Begun { by, look_at, .. } => Some(*by.min(look_at)),
            Self::GoesOn { at, by, .. } => Some(at.map_or(*by, |at| at.min(*by))),
            Self::LetsGo { at, .. } => Some(*at),
            Self::Restores { by, .. } => Some(*by),
        }
    }
}

impl Guest {
    /// The template that it could not be saved as or go on from, if that is why it ended: nothing of the machine was in it.
    pub(in crate::machine) fn untold(&self) -> Option<(&str, Use)> {
        match &self.saving {
            Saving::Begun { to, .. } => Some((to.key(), Use::Saved)),
            Saving::GoesOn { key, .. } => Some((key, Use::Saved)),
            Saving::LetsGo { to, .. } => Some((to.key(), Use::Saved)),
            Saving::Restores { key, .. } => Some((key, Use::Restored)),
            // It does not depend on it, or something of the machine may be in it.
            Saving::No | Saving::Wanted(_) | Saving::Restored { .. } => None,
        }
    }

    /// The template that it went on from.
    pub(in crate::machine) fn went_on_from(&self) -> Option<&str> {
        match &self.saving {
            Saving::Restored { key } => Some(key),
            Saving::No
            | Saving::Wanted(_)
            | Saving::Begun { .. }
            | Saving::GoesOn { .. }
            | Saving::LetsGo { .. }
            | Saving::Restores { .. } => None,
        }
    }

    /// It does what it is told, whatever comes of that.
    pub(super) fn is_sound(&mut self) {
        if self.went_on_from().is_some() {
            self.saving = Saving::No;
        }
    }

    /// What came for it before it could be told, for the guest that takes its place.
    pub(in crate::machine) fn hand_on(&mut self, other: &mut Self) {
        other.early = std::mem::take(&mut self.early);
        self.console.hand_on(&mut other.console);
    }

    /// It has booted, or goes on from where one had.
    pub(super) fn has_booted(&mut self, events: &mut Vec<Heard>) {
        match std::mem::replace(&mut self.saving, Saving::No) {
            Saving::Wanted(to) => match to.check_room() {
                Ok(()) => self.begin_to_save(to),
                Err(error) => {
                    tracing::warn!("no template is made of it, so the next one boots as well: {error:#}");
                    self.ask();
                }
            },
            Saving::Restores { key, .. } => {
                self.saving = Saving::Restored { key };
                events.push(Heard::Template(Use::Restored));
                self.ask();
            }
            Saving::No => self.ask(),
            // It said hello once more.
            other @ (Saving::Begun { .. }
            | Saving::GoesOn { .. }
            | Saving::LetsGo { .. }
            | Saving::Restored { .. }) => self.saving = other,
        }
    }

    fn begin_to_save(&mut self, to: Unfinished) {
        let now = Instant::now();
        let begun = self.save(&to);
        self.saving = Saving::Begun { to, by: now + SAVE_LIMIT, look_at: now + ROOM_EVERY };
        if let Err(error) = begun {
            self.give_up_saving(&format!("{error:#}"));
        }
    }

    fn save(&mut self, to: &Unfinished) -> Result<()> {
        self.control.give(Order::TellSaves)?;
        self.control.give(Order::SaveFast)?;
        self.control.give_with(Order::TakeFile, to.state().as_fd())?;
        self.control.give(Order::Save).map(drop)
    }

    /// Heeds what the VMM says of it: whether it is being saved.
    pub(super) fn heed_saving(&mut self, answered: &[Answered], now: Instant) -> bool {
        match &mut self.saving {
            Saving::No
            | Saving::Wanted(_)
            | Saving::LetsGo { .. }
            | Saving::Restores { .. }
            | Saving::Restored { .. } => return false,
            Saving::Begun { .. } => {
                let of_saving = |order: Order| order != Order::Continue && order != Order::CancelSave;
                let why = answered.iter().find_map(|(_, order, result)| match result {
                    Err(why) if of_saving(*order) => Some(why.clone()),
                    Ok(()) | Err(_) => None,
                });
                match (self.control.saved.take(), why) {
                    (Some(true), _) => self.go_on(true),
                    (Some(false), why) => {
                        self.give_up_saving(&why.unwrap_or_else(|| "its VMM cannot".to_owned()));
                    }
                    (None, Some(why)) => self.give_up_saving(&why),
                    (None, None) => {}
                }
            }
            Saving::GoesOn { at, .. } => {
                let told = answered.iter().find(|(_, order, _)| *order == Order::Continue);
                match told.map(|(_, _, result)| result.is_ok()) {
                    Some(true) => self.goes_on_saved(now),
                    Some(false) => *at = Some(now + GO_ON_EVERY),
                    None => {}
                }
            }
        }
        true
    }

    /// Does what is due of it.
    pub(super) fn look_at_saving(&mut self, now: Instant) {
        match &mut self.saving {
            Saving::Begun { by, .. } if *by <= now => self.give_up_saving("it takes too long"),
            Saving::Begun { to, look_at, .. } if *look_at <= now => {
                *look_at = now + ROOM_EVERY;
                if let Err(error) = to.check_room() {
                    self.give_up_saving(&format!("{error:#}"));
                }
            }
            Saving::GoesOn { by, .. } if *by <= now => {
                *by = now + GO_ON_LIMIT;
                self.quit(format!("it did not go on within {} s after it was saved", GO_ON_LIMIT.as_secs()));
            }
            Saving::GoesOn { at, .. } if at.is_some_and(|at| at <= now) => {
                *at = None;
                self.tell_to_go_on();
            }
            Saving::LetsGo { at, .. } if *at <= now => self.finish_saving(now),
            Saving::Restores { by, .. } if *by <= now => {
                *by = now + RESTORE_LIMIT;
                self.quit(format!("it did not go on within {} s", RESTORE_LIMIT.as_secs()));
            }
            Saving::No
            | Saving::Wanted(_)
            | Saving::Begun { .. }
            | Saving::GoesOn { .. }
            | Saving::LetsGo { .. }
            | Saving::Restores { .. }
            | Saving::Restored { .. } => {}
        }
    }

    /// It goes on, and no template comes of it. That is no reason for a machine to fail.
    fn give_up_saving(&mut self, why: &str) {
        tracing::warn!("no template is made of it, so the next ones boot as well: {why}");
        // It may be past that.
        let _too_late = self.control.give(Order::CancelSave);
        self.go_on(false);
    }

    fn go_on(&mut self, is_whole: bool) {
        let Saving::Begun { to, .. } = std::mem::replace(&mut self.saving, Saving::No) else { return };
        let (key, by) = (to.key().to_owned(), Instant::now() + GO_ON_LIMIT);
        let to = match is_whole {
            true => Some(to),
            false => {
                to.give_up();
                None
            }
        };
        self.saving = Saving::GoesOn { to, key, at: None, by };
        self.tell_to_go_on();
    }

    fn tell_to_go_on(&mut self) {
        if let Err(error) = self.control.give(Order::Continue) {
            self.quit(format!("it cannot be told to go on: {error:#}"));
        }
    }

    /// It goes on. Nothing of the machine was in it when it was saved; soon there is.
    fn goes_on_saved(&mut self, now: Instant) {
        let Saving::GoesOn { to, .. } = std::mem::replace(&mut self.saving, Saving::No) else { return };
        match to {
            Some(to) => {
                self.saving = Saving::LetsGo { to, at: now, by: now + GO_ON_LIMIT };
                self.finish_saving(now);
            }
            None => self.ask(),
        }
    }

    /// Puts what was saved in its place, once the VMM cannot write it any more, and tells the guest what it is to run.
    fn finish_saving(&mut self, now: Instant) {
        let Saving::LetsGo { to, by, .. } = std::mem::replace(&mut self.saving, Saving::No) else { return };
        let done = match has_open(self.child.id(), to.state()) {
            Ok(true) if now < by => {
                self.saving = Saving::LetsGo { to, at: now + GO_ON_EVERY, by };
                return;
            }
            Ok(true) => {
                to.give_up();
                Err(anyhow::anyhow!("its VMM keeps it open"))
            }
            Ok(false) => to.finish(),
            Err(error) => {
                to.give_up();
                Err(error)
            }
        };
        match done {
            Ok(true) => self.news.push(Heard::Template(Use::Saved)),
            Ok(false) => tracing::info!("what was saved of it is of no use any more"),
            Err(error) => tracing::warn!("no template is made of it: {error:#}"),
        }
        self.ask();
    }

    fn ask(&mut self) {
        self.console.let_go();
        if let Err(error) = self.ask_for_container() {
            self.quit(format!("its agent cannot be asked for anything: {error:#}"));
        }
    }
}

/// Whether a process has a file open.
fn has_open(process: u32, file: &File) -> Result<bool> {
    let directory = format!("/proc/{process}/fd");
    let doing = || format!("cannot see what its VMM has open in `{directory}`");
    let own = file.metadata().with_context(doing)?;
    for entry in fs::read_dir(&directory).with_context(doing)? {
        match fs::metadata(entry.with_context(doing)?.path()) {
            Ok(open) if (open.dev(), open.ino()) == (own.dev(), own.ino()) => return Ok(true),
            Ok(_) => {}
            // One that is closed by now is gone; of one that nobody lets us see nothing is known.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(doing),
        }
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_file_open_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let file = File::create(&path).unwrap();
        assert!(has_open(std::process::id(), &file).unwrap());
        let other = File::create(directory.path().join("other")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert!(!has_open(child.id(), &other).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
