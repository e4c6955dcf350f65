//! What is done in a guest.

use anyhow::{Result, bail};

use stead_agent::Call;

use super::Guest;
use super::computer::{Computer, no_agent};

/// What is done in a guest.
pub(super) enum Role {
    /// One container is run, by these requests.
    Container { set_up: Call, start: Call, main: Call },
    /// Whatever its disk has.
    Computer(Computer),
}

impl Role {
    pub(super) fn is_heard(&self) -> bool {
        match self {
            Self::Container { .. } => true,
            Self::Computer(computer) => computer.is_open,
        }
    }

    /// Why its agent can be asked for nothing, now and later.
    pub(super) fn may_ask(&self, is_met: bool) -> Result<()> {
        match self {
            Self::Computer(computer) if !computer.has_seed => {
                bail!(
                    "it has no agent, as its file says `cloud_init: off`; hint: `stead attach` is its console"
                )
            }
            Self::Computer(computer) if !is_met && computer.waits.until().is_none() => {
                bail!("{}", no_agent())
            }
            Self::Container { .. } | Self::Computer(_) => Ok(()),
        }
    }

    /// Whether a request is one of those that start the container.
    pub(super) fn is_start(&self, call: Call) -> bool {
        matches!(self, Self::Container { set_up, start, .. } if call == *set_up || call == *start)
    }
}

impl Guest {
    /// The call of the machine's own program, where it has one.
    pub(in crate::machine) fn main(&self) -> Option<Call> {
        match self.role {
            Role::Container { main, .. } => Some(main),
            Role::Computer(_) => None,
        }
    }

    /// Whether somebody may listen at the other end of the stream.
    pub(super) fn is_heard(&self) -> bool {
        self.role.is_heard() && !self.is_cut
    }
}
