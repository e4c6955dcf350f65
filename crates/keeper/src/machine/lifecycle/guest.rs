//! The guest of a machine that has one, and what is waited for of it.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};

use stead_container::{CODE_OURS, Failure};
use stead_host::machine::Phase;
use stead_host::template::Templates;

use super::super::guest::{Guest, Use};
use super::super::run::Body;
use super::super::template::Beginning;
use super::Life;

impl Life {
    pub(in crate::machine) fn guest(&self) -> Option<&Guest> {
        match &self.run.as_ref()?.body {
            Body::Guest(guest) => Some(guest),
            Body::Container(_) => None,
        }
    }

    pub(in crate::machine) fn guest_mut(&mut self) -> Option<&mut Guest> {
        match &mut self.run.as_mut()?.body {
            Body::Guest(guest) => Some(guest),
            Body::Container(_) => None,
        }
    }

    /// Boots once more one that could not go on from its template, or that ended as it was saved: whether it did. What came for
    /// it meanwhile is not lost, and the template is not used or made again for a while.
    pub(super) fn boots_instead(&mut self) -> bool {
        let Some((key, to)) = self.guest().and_then(Guest::untold) else { return false };
        let key = key.to_owned();
        // Whoever ended it does not want it.
        let Some((boot, texts)) = self.boot.as_ref().filter(|_| !self.asked_to_end) else { return false };
        let new = Guest::new(boot, &self.launch, texts, (&self.place.netns, Some(Beginning::Boots)));
        let mut new = match new {
            Ok(new) => new,
            Err(error) => {
                self.boot_failure = Some(Failure { code: CODE_OURS, text: format!("{error:#}") });
                return false;
            }
        };
        // What it told of itself was told of another start.
        self.boot_failure = None;
        let Some(run) = &mut self.run else { return false };
        run.process = Some(new.process);
        if let Body::Guest(old) = &mut run.body {
            old.hand_on(&mut new);
        }
        let (what, stage) = match to {
            Use::Restored => ("it could not go on from its template", "not-restored"),
            Use::Saved => ("it ended as it was saved", "not-saved"),
        };
        run.stages.reach(stage);
        run.stages.reach("vmm");
        if let Body::Guest(old) = std::mem::replace(&mut run.body, Body::Guest(Box::new(new))) {
            let why = old.ended().err().map(|failure| failure.text).unwrap_or_default();
            tracing::warn!("{what}, so it boots: {why}");
        }
        if let Err(error) = Templates::of(&boot.home).condemn(&key) {
            tracing::warn!("{error:#}");
        }
        true
    }

    /// Its guest went on from a template and failed soon: no other one does so for a while, and why it ended says so.
    pub(super) fn suspect(&mut self, key: &str, why: String) -> String {
        let Some((boot, _)) = &self.boot else { return why };
        match Templates::of(&boot.home).condemn(key) {
            Ok(()) => format!(
                "{why}; hint: it went on from where another microVM had booted, which is done no more for a while: start it \
                 again, and it boots, as with `--cold`"
            ),
            Err(error) => {
                tracing::warn!("{error:#}");
                format!(
                    "{why}; hint: it went on from where another microVM had booted; `stead start --cold` boots it"
                )
            }
        }
    }

    /// Does something with its guest, which there must be.
    pub(in crate::machine) fn in_guest<T>(
        &mut self,
        done: impl FnOnce(&mut Guest) -> Result<T>,
    ) -> Result<T> {
        anyhow::ensure!(self.phase != Phase::Paused, "it is paused");
        done(self.guest_mut().context("it has no guest, or waits to be started again")?)
    }

    pub(in crate::machine) fn agent(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.stream()
    }

    pub(in crate::machine) fn agent_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.stream_wanted()
    }

    pub(in crate::machine) fn console(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.console()
    }

    pub(in crate::machine) fn console_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.console_wanted()
    }

    pub(in crate::machine) fn control(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.control.stream()
    }

    /// What serves the guest's files is ready when it has ended.
    pub(in crate::machine) fn shares(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.shares()
    }

    /// What those who work for its guest say of themselves.
    pub(in crate::machine) fn words(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.guest().into_iter().flat_map(Guest::words)
    }

    pub(in crate::machine) fn control_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.control.stream_wanted()
    }
}
