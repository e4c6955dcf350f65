//! How a guest is brought to its end, and how that is to be seen.
//!
//! ```text
//! its program ended ─▶ the agent writes everything to disk and switches the guest off ──(END_LIMIT)─┐
//! told to end before it was up, or nothing is left to talk with ────────────────────────────────────┤
//!                                     ┌────── the VMM quits, what it holds written ◀────────────────┘
//!                                     └──(QUIT_LIMIT)──▶ the VMM is killed
//! ```

use std::time::{Duration, Instant};

use anyhow::anyhow;

use stead_agent::message::{Ending, Exited, Request};
use stead_container::Failure;
use stead_vmm::{Order, Reason};

use super::told::part;
use super::{BOOT_LIMIT, Guest, MAIN, Role, State};

/// What a guest writes to disk when it ends is little.
const END_LIMIT: Duration = Duration::from_secs(30);
/// A program that was killed has ended by then, and its guest with it.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// What a VMM holds is written to disk by then.
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// Both end together when the guest does, and which is seen first is left to chance.
const UNSERVED_LIMIT: Duration = Duration::from_secs(5);

impl Guest {
    /// Does what is due of its end.
    pub(super) fn look_at_its_end(&mut self, now: Instant) {
        if self.end_by.is_some_and(|at| at <= now) {
            self.quit(match self.state {
                State::Booting => format!(
                    "its guest did not come up within {} s, it got to stage `{}`, its console's last words: {}",
                    BOOT_LIMIT.as_secs(),
                    self.stage.escape_debug(),
                    part(&self.console.last_line())
                ),
                State::Running | State::Ending => {
                    format!("its guest did not end within {} s", END_LIMIT.as_secs())
                }
            });
        }
        if self.unserved_by.is_some_and(|at| at <= now) {
            self.unserved_by = None;
            self.quit(format!("what served its files ended{}", self.share_words));
        }
        if self.quit_by.is_some_and(|at| at <= now) {
            self.quit_by = None;
            self.kill();
        }
    }

    /// Has the VMM end, whatever the guest does.
    pub(in crate::machine) fn quit(&mut self, why: String) {
        self.why.get_or_insert(why);
        self.end_by = None;
        if self.quit_by.is_some() {
            return;
        }
        if self.untold().is_some() {
            // Nothing of the machine is in it yet, and QEMU hears nothing while it reads.
            return self.kill();
        }
        match self.control.give(Order::Quit) {
            Ok(_) => self.quit_by = Some(Instant::now() + QUIT_LIMIT),
            Err(error) => {
                tracing::warn!("the VMM cannot be told to quit: {error:#}");
                self.kill();
            }
        }
    }

    /// What serves its files has ended: with the VMM, as is seen in a moment, or it cannot go on.
    pub(in crate::machine) fn shares_ended(&mut self) {
        let Some(mut server) = self.shares.take() else { return };
        self.share_words = server.words.last();
        server.end();
        self.unserved_by = Some(Instant::now() + UNSERVED_LIMIT);
    }

    fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            tracing::error!("cannot kill the VMM: {error}");
        }
    }

    /// Has the guest write everything to disk and go.
    pub(super) fn shut_down(&mut self) {
        self.state = State::Ending;
        self.end_by = Some(Instant::now() + END_LIMIT);
        if let Err(error) = self.session.ask(&Request::ShutDown { how: Ending::Reboot, grace_ms: Some(0) }) {
            self.quit(format!("its guest cannot be told to end: {error}"));
        }
    }

    /// Its program was killed: if it cannot be, the guest goes as a whole.
    pub(in crate::machine) fn is_killed(&mut self, now: Instant) {
        let end_by = now + KILL_LIMIT;
        if self.quit_by.is_none() {
            self.end_by = Some(self.end_by.map_or(end_by, |at| at.min(end_by)));
        }
    }

    /// How it ended, now that its VMM has: as its program did, or for this reason.
    pub(in crate::machine) fn ended(mut self) -> Result<Exited, Failure> {
        self.console.read();
        // It may have said why.
        let _all_over = self.control.hear(Instant::now());
        if let Some(server) = self.shares.take() {
            server.end();
        }
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        if let Some(exited) = self.exited {
            return Ok(exited);
        }
        if let (Role::Computer(_), Some(Reason::Off)) = (&self.role, &self.control.reason) {
            let container = MAIN.parse().map_err(|_| anyhow!("a container in a guest has no name"))?;
            return Ok(Exited { container, code: 0, out_of_memory: false });
        }
        let code = match (&self.role, &self.why) {
            // As one that was killed.
            (Role::Computer(_), Some(_)) => 137,
            (Role::Computer(_) | Role::Container { .. }, _) => 255,
        };
        let text = match (self.why, self.console.panic(), self.control.reason) {
            (Some(why), ..) => why,
            (None, Some(line), _) => format!("its kernel gave up: {}", part(&line)),
            (None, None, Some(reason)) => {
                let words = part(&self.console.last_line());
                format!("its guest ended: {reason}; its console's last words: {words}")
            }
            (None, None, None) => {
                format!("its VMM ended ({status}){}", self.words.last())
            }
        };
        Err(Failure { code, text })
    }
}
