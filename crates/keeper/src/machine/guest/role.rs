//! What is done in a guest.

use anyhow::{Context, Result, bail};

use stead_agent::Call;
use stead_agent::message::{Request, Start};
use stead_model::container::Launch;
use stead_model::name::Name;

use super::super::boot::{Boot, DATA, ROOT};
use super::super::set_up::{Devices, Texts, set_up};
use super::super::shares::Given;
use super::super::template::Beginning;
use super::computer::{Computer, no_agent};
use super::{Guest, MAIN, Size};

/// What is done in a guest.
pub(super) enum Role {
    /// One container is run.
    Container {
        /// What is asked for, until it is.
        wanted: Option<Box<Wanted>>,
        /// The requests by which it was.
        calls: Option<Calls>,
    },
    /// Whatever its disk has.
    Computer(Computer),
}

/// What is wanted of a guest in which a container is run.
pub(super) struct Wanted {
    launch: Launch,
    devices: Devices,
    start: Start,
}

/// The requests by which a container is run.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    set_up: Call,
    start: Call,
    main: Call,
}

impl Wanted {
    pub(super) fn new(
        boot: &Boot,
        launch: &Launch,
        texts: &Texts,
        (given, beginning): (Given, &Beginning),
    ) -> Result<Self> {
        let container: Name = MAIN.parse().context("a container in a guest has no name")?;
        let devices = Devices {
            nics: boot.plan.nics.clone(),
            has_shares: !given.shares.is_empty(),
            has_usual_macs: !matches!(beginning, Beginning::Boots),
            is_restored: matches!(beginning, Beginning::Restored { .. }),
        };
        let start = Start {
            container,
            launch: given.launch,
            layers: vec![ROOT.parse().context("a disk has no name")?],
            writable: Some(DATA.parse().context("a disk has no name")?),
            volumes: given.volumes,
            hosts: Some(texts.hosts.clone()),
            resolv_conf: Some(texts.resolv_conf.clone()),
            size: Size::default(),
        };
        Ok(Self { launch: launch.clone(), devices, start })
    }
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

    /// Whether a request is the one that starts the container, once all is there for it.
    pub(super) fn is_last_of_start(&self, call: Call) -> bool {
        matches!(self, Self::Container { calls: Some(Calls { start, .. }), .. } if call == *start)
    }

    /// Whether a request is one of those that start the container.
    pub(super) fn is_start(&self, call: Call) -> bool {
        matches!(self, Self::Container { calls: Some(Calls { set_up, start, .. }), .. } if call == *set_up || call == *start)
    }
}

impl Guest {
    /// The call of the machine's own program, where it has one.
    pub(in crate::machine) fn main(&self) -> Option<Call> {
        match self.role {
            Role::Container { calls, .. } => calls.map(|calls| calls.main),
            Role::Computer(_) => None,
        }
    }

    /// Whether it is a whole computer, whose console is all that it says.
    pub(in crate::machine) fn is_computer(&self) -> bool {
        matches!(self.role, Role::Computer(_))
    }

    /// Asks for all that is to happen in the guest, which has booted.
    pub(super) fn ask_for_container(&mut self) -> Result<()> {
        let Role::Container { wanted, calls } = &mut self.role else { return Ok(()) };
        let Some(wanted) = wanted.take() else { return Ok(()) };
        let session = &mut self.session;
        session.ask(&Request::Watch)?;
        // What the time is, is said as late as can be.
        let set_up = session.ask(&Request::SetUp(set_up(&wanted.launch, &wanted.devices)?))?;
        let attach =
            Request::Attach { container: wanted.start.container.clone(), stdin: wanted.launch.stdin };
        let start = session.ask(&Request::Start(Box::new(wanted.start)))?;
        let main = session.ask(&attach)?;
        *calls = Some(Calls { set_up, start, main });
        self.hand_over_early()?;
        self.send();
        Ok(())
    }

    /// Whether somebody may listen at the other end of the stream.
    pub(super) fn is_heard(&self) -> bool {
        self.role.is_heard() && !self.is_cut
    }
}
