//! A guest is saved when it has booted and was told nothing, for others to go on from there; and one that goes on so.
//!
//! ```text
//! Wanted ──booted──▶ Begun ──the VMM has saved it──▶ GoesOn ──▶ No: told what it is to run, the template in its place
//!                      └──it does not, or too late──▶ GoesOn ──▶ No: the same, without a template
//! Restores ──booted──▶ No
//!    └──the VMM ends, or too late──▶ the VMM ends; the machine boots instead, and the template goes
//! ```

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use stead_host::template::Unfinished;
use stead_vmm::Order;

use super::super::control::Answered;
use super::super::template::Beginning;
use super::{Guest, Heard};

/// Some hundred megabytes are written, on a computer that may have much else to do.
const SAVE_LIMIT: Duration = Duration::from_secs(20);
/// They are read, and little is done then.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);
/// QEMU says that it has saved a guest a moment before that may go on.
const GO_ON_EVERY: Duration = Duration::from_millis(2);
const GO_ON_MAX: u32 = 1000;

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
    Begun { to: Unfinished, by: Instant },
    /// It was saved, or not, and is to go on.
    GoesOn { to: Option<Unfinished>, at: Option<Instant>, tries: u32 },
    /// It goes on from where another one was saved, once that is read.
    Restores { key: String, by: Instant },
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
            Self::No | Self::Wanted(_) => None,
            Self::Begun { by, .. } | Self::Restores { by, .. } => Some(*by),
            Self::GoesOn { at, .. } => *at,
        }
    }
}

impl Guest {
    /// The template that it could not go on from, if that is why it ended.
    pub(in crate::machine) fn unrestored(&self) -> Option<&str> {
        match &self.saving {
            Saving::Restores { key, .. } => Some(key),
            _ => None,
        }
    }

    /// What was typed before it could be told, for the guest that takes its place.
    pub(in crate::machine) fn hand_on_typed(&mut self, other: &mut Self) {
        other.early = std::mem::take(&mut self.early);
    }

    /// It has booted, or goes on from where one had.
    pub(super) fn has_booted(&mut self, events: &mut Vec<Heard>) {
        match std::mem::replace(&mut self.saving, Saving::No) {
            Saving::Wanted(to) => {
                let by = Instant::now() + SAVE_LIMIT;
                let begun = self.save(&to);
                self.saving = Saving::Begun { to, by };
                if let Err(error) = begun {
                    self.give_up_saving(&format!("{error:#}"));
                }
            }
            Saving::Restores { .. } => {
                events.push(Heard::Template(Use::Restored));
                self.ask();
            }
            Saving::No => self.ask(),
            // It said hello once more.
            other @ (Saving::Begun { .. } | Saving::GoesOn { .. }) => self.saving = other,
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
        let refused = |order: Order| order != Order::Continue && order != Order::CancelSave;
        match &mut self.saving {
            Saving::No | Saving::Wanted(_) | Saving::Restores { .. } => return false,
            Saving::Begun { .. } => {
                let why = answered.iter().find_map(|(_, order, result)| match result {
                    Err(why) if refused(*order) => Some(why.clone()),
                    _ => None,
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
            Saving::GoesOn { at, tries, .. } => {
                let told = answered.iter().find(|(_, order, _)| *order == Order::Continue);
                match told {
                    Some((_, _, Ok(()))) => self.is_saved(),
                    Some((_, _, Err(_))) if *tries < GO_ON_MAX => *at = Some(now + GO_ON_EVERY),
                    Some((_, _, Err(why))) => {
                        let why = format!("it does not go on after it was saved: {why}");
                        self.saving = Saving::No;
                        self.quit(why);
                    }
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
            Saving::GoesOn { at, tries, .. } if at.is_some_and(|at| at <= now) => {
                *at = None;
                *tries += 1;
                self.tell_to_go_on();
            }
            Saving::Restores { by, .. } if *by <= now => {
                *by = now + RESTORE_LIMIT;
                self.quit(format!("it did not go on within {} s", RESTORE_LIMIT.as_secs()));
            }
            _ => {}
        }
    }

    /// It goes on, and no template comes of it. That is no reason for a machine to fail.
    fn give_up_saving(&mut self, why: &str) {
        tracing::warn!("no template is made of it, so the next one boots as well: {why}");
        // It may be past that.
        let _too_late = self.control.give(Order::CancelSave);
        self.go_on(false);
    }

    fn go_on(&mut self, is_whole: bool) {
        let Saving::Begun { to, .. } = std::mem::replace(&mut self.saving, Saving::No) else { return };
        self.saving = Saving::GoesOn { to: Some(to).filter(|_| is_whole), at: None, tries: 0 };
        self.tell_to_go_on();
    }

    fn tell_to_go_on(&mut self) {
        if let Err(error) = self.control.give(Order::Continue) {
            self.saving = Saving::No;
            self.quit(format!("it cannot be told to go on: {error:#}"));
        }
    }

    /// It goes on. Nothing of the machine was in it when it was saved; from here on there is.
    fn is_saved(&mut self) {
        let Saving::GoesOn { to, .. } = std::mem::replace(&mut self.saving, Saving::No) else { return };
        match to.map(Unfinished::finish) {
            Some(Ok(())) => self.news.push(Heard::Template(Use::Saved)),
            Some(Err(error)) => tracing::warn!("no template is made of it: {error:#}"),
            None => {}
        }
        self.ask();
    }

    fn ask(&mut self) {
        if let Err(error) = self.ask_for_container() {
            self.quit(format!("its agent cannot be asked for anything: {error:#}"));
        }
    }
}
