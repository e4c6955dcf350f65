//! The machine signalled, held, and let go on. A guest is held by its VMM, which says later that it did.

use std::time::Instant;

use anyhow::{Context, Result};

use stead_host::journal::Action;
use stead_host::machine::{Phase, Stop};
use stead_model::container::Signal;
use stead_vmm::{Order, Ticket};

use super::super::control::Answered;
use super::super::guest::Guest;
use super::Life;

impl Life {
    pub(in crate::machine) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.phase == Phase::Paused && self.boot.is_some() && signal == Signal::KILL {
            // Nothing in a guest that is held can be killed.
            self.unpause()?;
        }
        if self.run.is_none() && [Signal::KILL, self.launch.stop_signal].contains(&signal) {
            // It is not started again.
            self.stop(Stop::default());
            return Ok(());
        }
        let run = self.run.as_mut().context("it waits to be started again")?;
        run.body.signal(signal)?;
        run.sent = Some((signal, Instant::now()));
        if signal == Signal::KILL && self.guest().is_some_and(Guest::is_booting) {
            // It goes before anything of it runs, and does not boot in another way.
            self.asked_to_end = true;
        }
        self.note(Action::Kill, |event| event.with("signal", signal));
        Ok(())
    }

    /// Holds it; now, or when this order is carried out.
    pub(in crate::machine) fn pause(&mut self) -> Result<Option<Ticket>> {
        anyhow::ensure!(self.phase == Phase::Running, "it does not run");
        if let Some(guest) = self.guest_mut() {
            return guest.control.give(Order::Stop).map(Some);
        }
        stead_container::pause(&self.place.state)?;
        self.is_held();
        Ok(None)
    }

    /// Lets it go on; now, or when this order is carried out.
    pub(in crate::machine) fn unpause(&mut self) -> Result<Option<Ticket>> {
        anyhow::ensure!(self.phase == Phase::Paused, "it is not paused");
        if let Some(guest) = self.guest_mut() {
            return guest.control.give(Order::Continue).map(Some);
        }
        stead_container::unpause(&self.place.state)?;
        self.goes_on();
        Ok(None)
    }

    /// Refuses one that is not held.
    pub(in crate::machine) fn ensure_held(&self) -> Result<()> {
        anyhow::ensure!(self.phase == Phase::Paused, "it does not run: it comes up, or ends");
        Ok(())
    }

    /// Lets it go on after somebody who had it held, or was about to, has gone.
    pub(in crate::machine) fn let_go(&mut self) -> Result<()> {
        if let Some(guest) = self.guest_mut() {
            // The VMM does one after the other: also what it has not yet done.
            return guest.control.give(Order::Continue).map(drop);
        }
        if self.phase == Phase::Paused { self.unpause().map(drop) } else { Ok(()) }
    }

    /// What the VMM has to say: which orders it carried out, or did not.
    pub(in crate::machine) fn hear_control(&mut self) -> Vec<Answered> {
        let answered = self.guest_mut().map(|guest| guest.hear_control(Instant::now())).unwrap_or_default();
        if self.guest().is_some_and(Guest::is_switched_on) {
            self.is_switched_on();
        }
        for (_, order, result) in &answered {
            match (order, result, self.phase) {
                (Order::Stop, Ok(()), Phase::Running) => self.is_held(),
                (Order::Continue, Ok(()), Phase::Paused) => self.goes_on(),
                (Order::Stop | Order::Continue | Order::PressPower | Order::Quit, Ok(()), _)
                | (Order::TellSaves | Order::SaveFast | Order::TakeFile | Order::Save, Ok(()), _)
                | (Order::CancelSave, Ok(()), _) => {}
                (order, Err(why), _) => tracing::warn!("{order:?}: {why}"),
            }
        }
        answered
    }

    /// A whole computer has started when its machine stands; it is up when its agent is, if it is to have one.
    fn is_switched_on(&mut self) {
        if self.phase != Phase::Booting {
            return;
        }
        if self.restarts == 0 && !self.told_start {
            self.told_start = true;
            self.first_start = Some(Ok(()));
        }
        if self.guest().is_some_and(Guest::is_ready) {
            self.phase = Phase::Running;
        }
    }

    fn is_held(&mut self) {
        self.phase = Phase::Paused;
        self.paused = Some(Instant::now());
        self.note(Action::Pause, |event| event);
    }

    fn goes_on(&mut self) {
        self.phase = Phase::Running;
        self.guest_mut().into_iter().for_each(Guest::goes_on);
        let health = self.run.as_mut().and_then(|run| run.health.as_mut());
        if let (Some(since), Some(health)) = (self.paused.take(), health) {
            health.put_off(since.elapsed());
        }
        self.note(Action::Unpause, |event| event);
    }
}
