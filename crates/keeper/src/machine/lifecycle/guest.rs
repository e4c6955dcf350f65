//! The guest of a machine that has one, and what is waited for of it.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};

use stead_container::{CODE_OURS, Failure};
use stead_host::machine::Phase;
use stead_host::template::Templates;

use super::super::guest::Guest;
use super::super::run::{Body, Run};
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

    /// Boots a guest that could not go on from its template, which goes: whether it did. What was typed meanwhile is not lost.
    pub(super) fn boots_instead(&mut self) -> bool {
        let Some(key) = self.guest().and_then(Guest::unrestored).map(str::to_owned) else { return false };
        let Some((boot, texts)) = self.boot.as_ref().filter(|_| !self.asked_to_end) else { return false };
        let new = Guest::new(boot, &self.launch, texts, (&self.place.netns, Some(Beginning::Boots)));
        let mut new = match new {
            Ok(new) => new,
            Err(error) => {
                self.boot_failure = Some(Failure { code: CODE_OURS, text: format!("{error:#}") });
                return false;
            }
        };
        let Some(Run { body: Body::Guest(mut old), mut stages, .. }) = self.run.take() else { return false };
        old.hand_on_typed(&mut new);
        let why = old.ended().err().map(|failure| failure.text).unwrap_or_default();
        tracing::warn!("its template is of no use and goes, it boots instead: {why}");
        if let Err(error) = Templates::of(&boot.home).remove(&key) {
            tracing::warn!("{error:#}");
        }
        stages.reach("not-restored");
        self.run = Some(Run::in_guest(new, &self.launch, stages));
        true
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
