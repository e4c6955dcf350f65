//! How a machine is told to end, how it ended, and whether it is started again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use stead_container::{CODE_OURS, Failure};
use stead_host::journal::Action;
use stead_host::machine::{Exit, Phase, Stop};
use stead_model::container::{Mode, Restart, Signal};

use super::super::guest::Guest;
use super::super::run::{Body, Run};
use super::{BACK_OFF_FIRST, BACK_OFF_MAX, Life, RECOVERED_AFTER, now_ms};

/// What is told of one of which nobody knows how its program ended.
const CODE_UNKNOWN: u8 = 255;

impl Life {
    /// Takes away what its last run left.
    pub(in crate::machine) fn clean(&self) -> Result<()> {
        stead_container::remove(&self.place.state).context("cannot clear away what is left of the machine")
    }

    /// Ends the machine for good. What somebody had told to end before stays so when the computer has started again.
    pub(in crate::machine) fn stop(&mut self, how: Stop) {
        let is_stopped = self.asked_to_end && !self.restarts_next && !self.with_computer;
        self.with_computer = how.with_computer && !is_stopped;
        self.restarts_next = false;
        self.end(how.grace_ms);
    }

    /// Ends the machine, and starts it anew; a microVM that is to be cold boots.
    pub(in crate::machine) fn restart(&mut self, grace_ms: Option<u64>, is_cold: bool) {
        if let Some((boot, _)) = &mut self.boot {
            boot.plan.is_cold = is_cold;
        }
        self.restarts_next = true;
        self.with_computer = false;
        self.end(grace_ms);
    }

    fn end(&mut self, grace_ms: Option<u64>) {
        if self.phase == Phase::Paused
            && let Err(error) = self.unpause()
        {
            tracing::warn!("cannot let it go on, so it will be killed: {error:#}");
        }
        self.asked_to_end = true;
        self.phase = Phase::Stopping;
        let grace = Duration::from_millis(grace_ms.unwrap_or(self.launch.stop_grace_ms));
        let Some(run) = &mut self.run else {
            // It waits to be started again: now, or never.
            self.restart_at = self.restarts_next.then(Instant::now);
            self.is_over = !self.restarts_next;
            return;
        };
        match &mut run.body {
            // Nothing of it runs yet that could be asked.
            Body::Guest(guest) if guest.is_booting() => guest.quit("it was told to end".to_owned()),
            body => {
                let signal = match body {
                    Body::Container(container) => stead_container::stop_signal(&self.launch, container.pid),
                    // Its agent sees who its first process is.
                    Body::Guest(_) => self.launch.stop_signal,
                };
                if let Err(error) = body.signal(signal) {
                    tracing::warn!("cannot ask it to end: {error:#}");
                }
            }
        }
        let kill_at = Instant::now() + grace;
        run.kill_at = Some(run.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    /// The machine's first process has ended.
    pub(in crate::machine) fn reap(&mut self) -> Result<()> {
        if self.boots_instead() {
            return Ok(());
        }
        let Some(run) = &self.run else { return Ok(()) };
        let ran = Some(run.started.elapsed()).filter(|_| self.phase != Phase::Booting).unwrap_or_default();
        // One that waits for it to come up was as good as sent now.
        let waits = self.guest().is_some_and(Guest::is_to_be_signalled);
        let sent = run.sent.map(|(signal, at)| (signal, if waits { Duration::ZERO } else { at.elapsed() }));
        let template = self.guest().and_then(Guest::went_on_from).map(str::to_owned);
        let (code, out_of_memory, why) = match self.guest().is_some() {
            true => self.reap_guest(),
            false => match self.reap_container()? {
                Some((code, out_of_memory)) => (code, out_of_memory, None),
                None => return Ok(()),
            },
        };
        // Whoever ended it by a signal did not mean it to come up again.
        self.asked_to_end |= sent.is_some_and(|(signal, since)| self.is_end_by(signal, code, since));
        let fails = !self.asked_to_end && ran < RECOVERED_AFTER && [CODE_OURS, CODE_UNKNOWN].contains(&code);
        let why = match (template.filter(|_| fails), why) {
            (Some(key), Some(why)) => Some(self.suspect(&key, why)),
            (_, why) => why,
        };
        if let (Some(Err(failure)), Some(why)) = (&mut self.first_start, &why) {
            failure.text.clone_from(why);
        }
        self.last = Some(self.exit_of(code, out_of_memory, why));
        if out_of_memory {
            self.note(Action::Oom, |event| event);
        }
        self.note(Action::Die, |event| event.with("exit_code", code));
        self.run = None;
        if ran >= RECOVERED_AFTER {
            self.back_off = BACK_OFF_FIRST;
        }
        if self.launch.pace.window_ms.is_some_and(|window| ran >= Duration::from_millis(window)) {
            self.attempts = 0;
        }
        // All that it left goes with it; what does not is tried again before the next start, which fails without that.
        if let Err(error) = self.clean() {
            tracing::error!("{error:#}");
        }
        if matches!(self.first_start, Some(Err(_))) {
            // What never ran is not started again: whoever started it is told why.
            self.is_over = true;
        } else {
            self.decide();
        }
        Ok(())
    }

    /// Whether an end with this code was that of a signal, which it got so long before.
    fn is_end_by(&self, signal: Signal, code: u8, since: Duration) -> bool {
        let grace = Duration::from_millis(self.launch.stop_grace_ms);
        signal == Signal::KILL
            || i32::from(code) == 128 + signal.number()
            || (signal == self.launch.stop_signal && since <= grace)
    }

    /// The VMM has ended, and says how that is to be seen.
    fn reap_guest(&mut self) -> (u8, bool, Option<String>) {
        let Some(Run { body: Body::Guest(guest), .. }) = self.run.take() else { return (255, false, None) };
        let ended = guest.ended();
        match (self.boot_failure.take(), ended) {
            (Some(failure), _) => {
                let (code, why) = (failure.code, failure.text.clone());
                self.first_start = Some(Err(failure)).filter(|_| self.restarts == 0);
                (code, false, Some(why))
            }
            (None, Ok(exited)) => (exited.code, exited.out_of_memory, None),
            (None, Err(failure)) => {
                let (code, why) = (failure.code, failure.text.clone());
                if self.phase == Phase::Booting && self.restarts == 0 && !self.told_start {
                    self.first_start = Some(Err(Failure { code: 125, text: failure.text }));
                }
                // One that was told to end and did not was killed.
                (if self.asked_to_end { 137 } else { code }, false, Some(why))
            }
        }
    }

    /// How the container's first process has ended, if it has.
    fn reap_container(&mut self) -> Result<Option<(u8, bool)>> {
        let Some(Run { body: Body::Container(container), .. }) = &self.run else { return Ok(None) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(container.pidfd.as_fd()), options) {
            Ok(Some(status)) => status,
            Ok(None) | Err(Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno).context("cannot look after the machine's first process"),
        };
        let end = End::new(self.launch.mode, status.exit_status(), status.terminating_signal());
        self.restarts_next |= end.reboots && !self.asked_to_end;
        let usage = stead_container::usage(&self.place.state, container.pid);
        let out_of_memory = usage.is_ok_and(|usage| usage.oom_kills.is_some_and(|kills| kills > 0));
        Ok(Some((end.code, out_of_memory)))
    }

    /// How it failed to start at all.
    pub(in crate::machine) fn failed_exit(&self, failure: &Failure) -> Exit {
        self.exit_of(failure.code, false, Some(failure.text.clone()))
    }

    /// How it ended.
    pub(in crate::machine) fn exit(&self) -> Exit {
        let last =
            self.last.clone().unwrap_or_else(|| self.exit_of(255, false, Some("it never ran".to_owned())));
        // While it waited to be started again it may have been told not to be.
        Exit { asked: last.asked || self.asked_to_end, with_computer: self.with_computer, ..last }
    }

    pub(super) fn exit_of(&self, code: u8, out_of_memory: bool, why: Option<String>) -> Exit {
        let (started_ms, asked, with_computer) = (self.started_ms, self.asked_to_end, self.with_computer);
        let (at_ms, restarts) = (now_ms(), self.restarts);
        Exit { code, at_ms, started_ms, asked, with_computer, out_of_memory, restarts, lost: false, why }
    }

    /// Whether it is started again after it ended, and when.
    pub(super) fn decide(&mut self) {
        if self.restarts_next {
            self.restart_at = Some(Instant::now());
            return;
        }
        let failed = self.last.as_ref().is_some_and(|exit| exit.code != 0);
        if self.asked_to_end || !is_restarted(self.launch.restart, failed, self.attempts) {
            self.is_over = true;
            return;
        }
        self.phase = Phase::Restarting;
        let wait = self.launch.pace.delay_ms.map_or(self.back_off, Duration::from_millis);
        self.restart_at = Some(Instant::now() + wait);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
    }
}

/// How a machine's first process ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// As shells say it: its own, or 128 and the signal that ended it.
    code: u8,
    /// Whether it is to come up again, as it says itself.
    reboots: bool,
}

impl End {
    /// A system that switches itself off is ended by the kernel with SIGINT, one that reboots with SIGHUP (reboot(2)).
    /// Nothing else ends the first process of a container by either.
    fn new(mode: Mode, code: Option<i32>, signal: Option<i32>) -> Self {
        const INT: i32 = rustix::process::Signal::INT.as_raw();
        const HUP: i32 = rustix::process::Signal::HUP.as_raw();
        match (mode, code, signal) {
            (Mode::System, None, Some(INT)) => Self { code: 0, reboots: false },
            (Mode::System, None, Some(HUP)) => Self { code: 0, reboots: true },
            (_, code, signal) => {
                let code = code.or(signal.map(|signal| signal.saturating_add(128)));
                Self { code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255), reboots: false }
            }
        }
    }
}

/// Whether a machine that ended is started again.
fn is_restarted(policy: Restart, failed: bool, attempts: u32) -> bool {
    match policy {
        Restart::No => false,
        Restart::OnFailure(None) => failed,
        Restart::OnFailure(Some(times)) => failed && attempts < times,
        Restart::Always | Restart::UnlessStopped => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_goes_off_by_itself_has_ended_well() {
        let end = |mode, code, signal| {
            let End { code, reboots } = End::new(mode, code, signal);
            (code, reboots)
        };
        assert_eq!(end(Mode::System, None, Some(2)), (0, false));
        assert_eq!(end(Mode::System, None, Some(1)), (0, true));
        assert_eq!(end(Mode::System, None, Some(9)), (137, false));
        assert_eq!(end(Mode::Application, None, Some(1)), (129, false));
        assert_eq!(end(Mode::Application, Some(7), None), (7, false));
    }

    #[test]
    fn the_policy_decides_who_is_started_again() {
        use Restart::{Always, No, OnFailure, UnlessStopped};
        for (policy, failed, restarts, expected) in [
            (No, true, 0, false),
            (OnFailure(None), false, 0, false),
            (OnFailure(None), true, 1000, true),
            (OnFailure(Some(2)), true, 1, true),
            (OnFailure(Some(2)), true, 2, false),
            (Always, false, 1000, true),
            (UnlessStopped, true, 0, true),
        ] {
            assert_eq!(is_restarted(policy, failed, restarts), expected, "{policy} {failed} {restarts}");
        }
    }
}
