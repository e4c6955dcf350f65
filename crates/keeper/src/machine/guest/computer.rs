//! A whole computer: its system is not ours. Its agent comes when its cloud-init starts it, goes when it is started anew
//! from inside, and may never come at all.
//!
//! ```text
//! switched on ─▶ VMM greets (the machine has started) ─▶ port opened ─▶ agent's hello ─▶ ready
//!                                                          ▲────── port closed: reset, or the agent was ended
//! told to end: the agent switches it off, the power button is pressed, again and again ──(time of grace)──▶ the VMM quits
//! ```

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use stead_agent::message::{Ending, Mounts, Request, Word};
use stead_agent::{Call, Session};
use stead_container::Failure;
use stead_host::machine::Boots;
use stead_model::container::{Launch, Signal};
use stead_vmm::Order;

use super::super::boot::Boot;
use super::super::set_up::mounts;
use super::super::shares::given;
use super::role::Role;
use super::typed::Typing;
use super::{GREETING, Guest, Heard};

/// Translated, on a computer that has much else to do, a distribution takes long until its cloud-init runs.
const AGENT_LIMIT: Duration = Duration::from_secs(600);
/// A system that comes up, or is busy, does not heed its power button at once.
const PRESS_EVERY: Duration = Duration::from_secs(5);
/// One that is without its files is switched off, as any other that is told to end.
const UNMOUNTED_LIMIT: Duration = Duration::from_secs(120);

/// What is known of a whole computer.
pub(super) struct Computer {
    /// Whether it was given the agent.
    pub(super) has_seed: bool,
    /// Whether its agent has the stream open.
    pub(super) is_open: bool,
    /// Until when its agent is waited for.
    pub(super) agent_by: Option<Instant>,
    /// When its power button is pressed next.
    press_at: Option<Instant>,
    /// What is mounted in it by its agent, if anything is.
    mounts: Option<Mounts>,
    /// The call that has that done, until it is.
    mounting: Option<Call>,
}

pub(super) fn no_agent() -> String {
    format!(
        "no agent has come up in it within {} s, which its cloud-init would have started; hint: `stead logs` shows its \
         console, `stead attach` is it",
        AGENT_LIMIT.as_secs()
    )
}

impl Guest {
    /// Switches a computer on.
    pub(in crate::machine) fn new_computer(boot: &Boot, launch: &Launch, netns: &OwnedFd) -> Result<Self> {
        let has_seed = matches!(boot.plan.boots, Boots::Disk { seed: Some(_), .. });
        let given = given(launch, &boot.volumes)?;
        let booted = boot.start_computer(&launch.hostname, netns, &given)?;
        let mounts = mounts(&given)?;
        let agent_by = has_seed.then(|| Instant::now() + AGENT_LIMIT);
        let (session, mounting) = session(mounts.as_ref())?;
        let computer = Computer { has_seed, is_open: false, agent_by, press_at: None, mounts, mounting };
        Ok(Self::of(boot, booted, session, Role::Computer(computer)))
    }

    /// Whether this is a whole computer whose VMM runs.
    pub(in crate::machine) fn is_switched_on(&self) -> bool {
        matches!(self.role, Role::Computer(_)) && self.control.is_met
    }

    /// Whether programs may be run in it, or it is known that they never will.
    pub(in crate::machine) fn is_ready(&self) -> bool {
        match &self.role {
            Role::Container { .. } => !self.is_booting(),
            Role::Computer(computer) if self.session.is_met() => computer.mounting.is_none(),
            Role::Computer(computer) => computer.agent_by.is_none() && computer.mounting.is_none(),
        }
    }

    /// Whether something happened that nothing was heard of.
    pub(in crate::machine) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    pub(super) fn next_look_at_computer(&self) -> Option<Instant> {
        let Role::Computer(computer) = &self.role else { return None };
        let agent_by = computer.agent_by.filter(|_| !self.session.is_met() || computer.mounting.is_some());
        [agent_by, computer.press_at].into_iter().flatten().min()
    }

    pub(super) fn look_at_computer(&mut self, now: Instant) {
        let Role::Computer(computer) = &mut self.role else { return };
        let is_met = self.session.is_met();
        if computer.agent_by.is_some_and(|at| at <= now) && (!is_met || computer.mounting.is_some()) {
            computer.agent_by = None;
            let lacks_files = computer.mounting.is_some();
            let why = if is_met { "its agent did not mount them in time".to_owned() } else { no_agent() };
            let execs = std::mem::take(&mut self.execs);
            self.news.extend(execs.into_iter().map(|call| Heard::ExecEnded(call, 125, Some(why.clone()))));
            if lacks_files {
                let mut events = Vec::new();
                self.are_not_mounted(why, &mut events);
                self.news.extend(events);
                return;
            }
            self.news.push(Heard::Met);
        }
        if computer.press_at.is_some_and(|at| at <= now) {
            computer.press_at = Some(now + PRESS_EVERY);
            if let Err(error) = self.control.give(Order::PressPower) {
                tracing::warn!("its power button cannot be pressed: {error:#}");
            }
        }
    }

    /// The agent said hello.
    pub(super) fn is_met(&mut self, events: &mut Vec<Heard>) {
        if let Role::Computer(computer) = &self.role
            && computer.mounting.is_none()
        {
            events.push(Heard::Met);
        }
    }

    /// Whether this is the call by which its agent mounts what it is given.
    pub(super) fn is_mounting(&self, call: Call) -> bool {
        matches!(&self.role, Role::Computer(computer) if computer.mounting == Some(call))
    }

    /// Its agent said something of what it is to mount: whether it did.
    pub(super) fn heed_mounts(&mut self, call: Call, word: &Word, events: &mut Vec<Heard>) -> bool {
        let Role::Computer(computer) = &mut self.role else { return false };
        if computer.mounting != Some(call) {
            return false;
        }
        match word {
            Word::Failed { why, .. } => self.are_not_mounted(why.clone(), events),
            _ => {
                computer.mounting = None;
                events.push(Heard::Met);
            }
        }
        true
    }

    /// Without what it is given it would write elsewhere: it ends, in order, and that is why.
    pub(super) fn are_not_mounted(&mut self, why: String, events: &mut Vec<Heard>) {
        tracing::error!("what it is given is not mounted in it: {}", why.escape_debug());
        self.why.get_or_insert_with(|| why.clone());
        events.push(Heard::Failed(Failure { code: 125, text: why }));
        self.end_by = Some(Instant::now() + UNMOUNTED_LIMIT);
        if let Err(error) = self.switch_off() {
            self.quit(format!("{error:#}"));
        }
    }

    /// The agent's port was opened or closed.
    pub(super) fn heed_ports(&mut self) {
        while let Some(is_open) = self.control.ports.pop_front() {
            let Role::Computer(computer) = &mut self.role else { continue };
            computer.is_open = is_open;
            if is_open {
                self.session.greet();
                self.greet_at = Instant::now() + GREETING;
                self.send();
                continue;
            }
            let was_met = self.session.is_met();
            if !was_met {
                continue;
            }
            computer.agent_by = computer.has_seed.then(|| Instant::now() + AGENT_LIMIT);
            match session(computer.mounts.as_ref()) {
                Ok((session, mounting)) => {
                    computer.mounting = mounting;
                    self.session = session;
                }
                Err(error) => {
                    self.is_cut = true;
                    tracing::error!("cannot begin another session with its agent: {error:#}");
                }
            }
            self.owed.clear();
            self.typing = Typing::default();
            let why = "its agent went before that was done";
            let execs = std::mem::take(&mut self.execs);
            self.news.extend(execs.into_iter().map(|call| Heard::ExecEnded(call, 255, Some(why.to_owned()))));
            let looks = std::mem::take(&mut self.looks);
            self.news.extend(looks.into_keys().map(|call| Heard::Seen(call, Err(why.to_owned()))));
        }
    }

    /// A computer has no first process that is ours to signal: it is switched off, in order or at once.
    pub(super) fn signal_computer(&mut self, signal: Signal) -> Result<()> {
        // Of those that end a system, by its first process: SIGINT, SIGTERM, SIGPWR, and what systemd has for it.
        match signal.number() {
            9 => {
                self.quit("it was switched off".to_owned());
                Ok(())
            }
            2 | 15 | 30 | 37 => self.switch_off(),
            _ => bail!(
                "a vm takes no {signal}: its system is told to end by SIGTERM, and switched off at once by SIGKILL; hint: \
                 `stead exec` can run `kill` in it"
            ),
        }
    }

    /// Has its system end, by its agent, and by its power button.
    fn switch_off(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_met = self.session.is_met();
        if is_met {
            let request = Request::ShutDown { how: Ending::PowerOff, grace_ms: None };
            self.session.ask(&request).context("its agent cannot be told to switch it off")?;
            self.send();
        }
        if let Role::Computer(computer) = &mut self.role {
            // One that is told twice may take the second word for haste.
            computer.press_at = Some(if is_met { now + 2 * PRESS_EVERY } else { now });
        }
        self.look_at_computer(now);
        Ok(())
    }
}

/// A session, and the call by which its agent mounts what it is given: before anything else that is asked of it.
fn session(mounts: Option<&Mounts>) -> Result<(Session, Option<Call>)> {
    let mut session = Session::new().context("cannot begin a session with its agent")?;
    session.ask(&Request::Watch)?;
    let mounting = mounts.map(|mounts| session.ask(&Request::Mount(mounts.clone()))).transpose()?;
    Ok((session, mounting))
}
