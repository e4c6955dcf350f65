//! The guest of a machine that has one, and what is waited for of it.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};

use stead_host::machine::Phase;

use super::super::guest::Guest;
use super::super::run::Body;
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
