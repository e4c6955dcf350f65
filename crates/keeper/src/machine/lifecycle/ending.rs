//! How a machine ended, and whether it is started again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use stead_container::Failure;
use stead_host::journal::Action;
use stead_host::machine::{Exit, Phase};
use stead_model::container::{Mode, Restart, Signal};

use super::super::run::{Body, Run};
use super::{BACK_OFF_FIRST, BACK_OFF_MAX, Life, RECOVERED_AFTER, now_ms};

impl Life {
    /// The machine's first process has ended.
    pub(in crate::machine) fn reap(&mut self) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let ran = Some(run.started.elapsed()).filter(|_| self.phase != Phase::Booting).unwrap_or_default();
        let sent = run.sent.map(|(signal, at)| (signal, at.elapsed()));
        let (code, out_of_memory, why) = match self.guest().is_some() {
            true => self.reap_guest(),
            false => match self.reap_container()? {
                Some((code, out_of_memory)) => (code, out_of_memory, None),
                None => return Ok(()),
            },
        };
        // Whoever ended it by a signal did not mean it to come up again.
        self.asked_to_end |= sent.is_some_and(|(signal, since)| self.is_end_by(signal, code, since));
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
