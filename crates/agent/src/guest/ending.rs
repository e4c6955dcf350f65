//! The last moments of a guest: its containers are told to end, and killed if they do not; everything is written to
//! disk; then it goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::system::{RebootCommand, reboot};
use stead_agent::message;
use stead_agent::mux::{Mux, StreamId};
use stead_model::container::Signal;
use stead_model::name::Name;

use crate::container::Container;
use crate::port::Link;

/// The host's last news gets so long to go out.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// After it was killed a container is gone at once; looked at again until then.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A guest that is to end.
pub(crate) struct Ending {
    pub(crate) call: StreamId,
    pub(crate) how: message::Ending,
    kill_at: BTreeMap<Name, Instant>,
}

impl Ending {
    /// Tells containers to end.
    pub(crate) fn begin(
        call: StreamId,
        how: message::Ending,
        grace_ms: Option<u64>,
        containers: &BTreeMap<Name, Container>,
    ) -> Self {
        let mut kill_at = BTreeMap::new();
        for (name, container) in containers.iter().filter(|(_, container)| container.exited.is_none()) {
            // What stands still hears nothing.
            let _not_paused = stead_container::unpause(container.state());
            if let Err(error) = container.kill(container.launch.stop_signal) {
                eprintln!("stead-agent: cannot tell `{name}` to end: {error:#}");
            }
            let grace = Duration::from_millis(grace_ms.unwrap_or(container.launch.stop_grace_ms));
            kill_at.insert(name.clone(), Instant::now() + grace);
        }
        Self { call, how, kill_at }
    }

    /// When something is due without anything happening.
    pub(crate) fn next_look(&self, containers: &BTreeMap<Name, Container>) -> Option<Instant> {
        let running = |name: &Name| containers.get(name).is_some_and(|container| container.exited.is_none());
        let at = self.kill_at.iter().filter(|(name, _)| running(name)).map(|(_, at)| *at).min()?;
        Some(at.max(Instant::now() + LOOK_EVERY))
    }

    /// Kills those whose time is over; true if none runs any more.
    pub(crate) fn look(&self, containers: &BTreeMap<Name, Container>) -> bool {
        let mut is_over = true;
        for (name, container) in containers.iter().filter(|(_, container)| container.exited.is_none()) {
            is_over = false;
            if self.kill_at.get(name).is_none_or(|at| *at <= Instant::now())
                && let Err(error) = container.kill(Signal::KILL)
            {
                eprintln!("stead-agent: cannot kill `{name}`: {error:#}");
            }
        }
        is_over
    }
}

/// Sends what is still to be said.
pub(crate) fn say_goodbye(link: &mut Link, mux: &mut Mux) {
    let deadline = Instant::now() + GOODBYE_LIMIT;
    while !mux.pending().is_empty() && Instant::now() < deadline {
        let Ok(length) = link.write(mux.pending()) else { return };
        mux.sent(length);
        if length == 0 {
            let pause = Timespec::try_from(LOOK_EVERY).unwrap_or_default();
            let _written_or_not = poll(&mut [PollFd::new(&link.fd(), PollFlags::OUT)], Some(&pause));
        }
    }
    link.flush();
}

/// Ends this computer.
pub(crate) fn end(how: message::Ending) -> Result<()> {
    let command = match how {
        message::Ending::PowerOff => RebootCommand::PowerOff,
        message::Ending::Reboot => RebootCommand::Restart,
    };
    reboot(command).context("cannot end this guest")
}
