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
/// What it is given is mounted at once; its kernel may have to find the device first.
const MOUNTS_LIMIT: Duration = Duration::from_secs(300);
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
    /// Until when something is waited for, and what.
    pub(super) waits: Waits,
    /// When its power button is pressed next.
    press_at: Option<Instant>,
    /// What is mounted in it by its agent, if anything is.
    mounts: Option<Mounts>,
    /// The call that has that done, until it is.
    mounting: Option<Call>,
}

/// Until when its agent is waited for, and then for what that is to mount: each has its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For its agent's hello.
    Agent(Instant),
    /// For its agent to have mounted what it is given.
    Mounts(Instant),
    /// For nothing: all is there, or will never be.
    No,
    /// What it is given is not mounted in it: it is on its way to its end, and that was told.
    Lacks,
}

impl Waits {
    /// After its agent said hello.
    fn met(self, is_mounting: bool, now: Instant) -> Self {
        match self {
            Self::Lacks => Self::Lacks,
            _ if is_mounting => Self::Mounts(now + MOUNTS_LIMIT),
            _ => Self::No,
        }
    }

    /// After its agent has gone: another one is to come.
    fn left(self, has_seed: bool, now: Instant) -> Self {
        match self {
            Self::Lacks => Self::Lacks,
            _ if has_seed => Self::Agent(now + AGENT_LIMIT),
            _ => Self::No,
        }
    }

    /// Until when.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Agent(at) | Self::Mounts(at) => Some(at),
            Self::No | Self::Lacks => None,
        }
    }
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
        let waits = Waits::No.left(has_seed, Instant::now());
        let (session, mounting) = session(mounts.as_ref())?;
        let computer = Computer { has_seed, is_open: false, waits, press_at: None, mounts, mounting };
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
            Role::Computer(computer) => computer.waits == Waits::No && computer.mounting.is_none(),
        }
    }

    /// Whether something happened that nothing was heard of.
    pub(in crate::machine) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    pub(super) fn next_look_at_computer(&self) -> Option<Instant> {
        let Role::Computer(computer) = &self.role else { return None };
        [computer.waits.until(), computer.press_at].into_iter().flatten().min()
    }

    pub(super) fn look_at_computer(&mut self, now: Instant) {
        let Role::Computer(computer) = &mut self.role else { return };
        if computer.waits.until().is_some_and(|at| at <= now) {
            let why = match computer.waits {
                Waits::Mounts(_) => {
                    format!("its agent did not mount them within {} s", MOUNTS_LIMIT.as_secs())
                }
                Waits::Agent(_) | Waits::No | Waits::Lacks => no_agent(),
            };
            computer.waits = Waits::No;
            let lacks_files = computer.mounting.is_some();
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
        match &mut self.role {
            Role::Computer(computer) => {
                computer.waits = computer.waits.met(computer.mounting.is_some(), Instant::now());
                if computer.waits == Waits::No {
                    events.push(Heard::Met);
                }
            }
            Role::Container { .. } => self.has_booted(events),
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
            // Too late: it is being switched off.
            _ if computer.waits == Waits::Lacks => {}
            _ => {
                (computer.mounting, computer.waits) = (None, Waits::No);
                events.push(Heard::Met);
            }
        }
        true
    }

    /// Without what it is given it would write elsewhere: it ends, in order, and that is why.
    pub(super) fn are_not_mounted(&mut self, why: String, events: &mut Vec<Heard>) {
        let Role::Computer(computer) = &mut self.role else { return };
        if std::mem::replace(&mut computer.waits, Waits::Lacks) == Waits::Lacks {
            // That was told, and it ends.
            return;
        }
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
            computer.waits = computer.waits.left(computer.has_seed, Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_has_a_time_of_its_own_and_is_told_to_be_lacking_once() {
        let on = Instant::now();
        let waits = Waits::No.left(true, on);
        assert_eq!(waits, Waits::Agent(on + AGENT_LIMIT));
        // Its agent comes in the last moment.
        let hello = on + AGENT_LIMIT;
        assert_eq!(waits.met(true, hello).until(), Some(hello + MOUNTS_LIMIT));
        assert_eq!(waits.met(false, hello), Waits::No);
        // One that ends for want of them waits for nobody who comes back meanwhile.
        assert_eq!(Waits::Lacks.left(true, hello).met(true, hello), Waits::Lacks);
        assert_eq!((Waits::No.left(false, on).until(), Waits::Lacks.until()), (None, None));
    }
}
