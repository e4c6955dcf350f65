//! A command's hold on its home: what exists, the right to change it, and the plan carried out.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::{Deref, DerefMut};

use anyhow::{Context, Result, anyhow};

use stead_host::apply::{self, Event, Host, Outcome};
use stead_host::home::{Environment, Home};
use stead_host::linux::LinuxHost;
use stead_host::lock::{self, HomeLock};
use stead_host::machine::Files;
use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::plan::Plan;
use stead_model::step::Step;

use crate::args::Consent;
use crate::commands::reaper::Reaper;
use crate::failure::{Failure, Said};
use crate::output::{Output, note};
use crate::working::Working;

/// This user's home.
pub(crate) fn home() -> Result<Home> {
    Home::new(&Environment::observe())
}

/// What a computer that answers slowly is waited for with.
const LOOKING: &str = "looking at what there is";

/// A command that only looks.
pub(crate) struct Onlooker(LinuxHost);

/// Begins to look.
pub(crate) fn look() -> Result<Onlooker> {
    let home = home()?;
    home.check()?;
    Ok(Onlooker(LinuxHost::open(home, program()?)?))
}

impl Onlooker {
    /// What exists.
    pub(crate) fn observe(&mut self) -> Result<Observed> {
        let _working = Working::on(LOOKING);
        self.0.observe()
    }
}

impl Deref for Onlooker {
    type Target = LinuxHost;

    fn deref(&self) -> &LinuxHost {
        &self.0
    }
}

impl DerefMut for Onlooker {
    fn deref_mut(&mut self) -> &mut LinuxHost {
        &mut self.0
    }
}

/// A command that changes: alone in its home until dropped, but for the time in which it only waits.
pub(crate) struct Session {
    pub(crate) host: LinuxHost,
    lock: Option<HomeLock>,
    /// Why it could not be taken again.
    lost: Option<anyhow::Error>,
    /// A machine that is to go when it has ended, or when this command goes before it stands.
    pub(crate) fleeting: Option<MachineId>,
    /// Who sees to that from the moment in which it is made.
    pub(crate) reaper: Option<Reaper>,
    /// What exists, seen before it was asked for.
    ahead: Option<Observed>,
}

/// Waits for this command's turn to change the home.
fn turn(home: &Home) -> Result<HomeLock> {
    lock::lock(home, &words(), &mut tell_holder)
}

/// Waits until nobody changes the home, if there is one, so that one who only looks sees what is.
pub(crate) fn quiet(home: &Home) -> Result<Option<HomeLock>> {
    lock::lock_if_there(home, &words(), &mut tell_holder)
}

fn words() -> String {
    std::env::args().take(3).collect::<Vec<_>>().join(" ")
}

fn tell_holder(holder: &str) {
    note(&format!("waiting for {holder}"));
}

impl Host for Session {
    fn observe(&mut self) -> Result<Observed> {
        self.observe()
    }

    fn run(&mut self, steps: &[&Step]) -> Vec<Result<()>> {
        self.ahead = None;
        self.host.run(steps)
    }

    fn wait(&mut self, steps: &[&Step]) -> Result<Vec<(usize, Result<()>)>> {
        // Nor does it hold the records, which on a full disk only one can have.
        self.host.forget();
        self.lock = None;
        let ended = self.host.wait(steps);
        match turn(self.host.home()) {
            Ok(lock) => self.lock = Some(lock),
            // What was waited for is told all the same, and nothing is done any more.
            Err(error) => self.lost = Some(error),
        }
        self.host.forget();
        ended
    }
}

impl Session {
    /// Waits for its turn.
    pub(crate) fn open() -> Result<Self> {
        let home = home()?;
        home.prepare()?;
        stead_net::process::keep_inherited()?;
        let lock = turn(&home)?;
        let mut host = LinuxHost::open(home, program()?)?;
        let _working = Working::on("what earlier commands had begun");
        if let Err(error) = host.tidy() {
            // It takes up room and does no other harm: what was asked for goes on.
            note(&Failure::from(error).text().trim_end().replacen("error:", "warning:", 1));
        }
        Ok(Self { host, lock: Some(lock), lost: None, fleeting: None, reaper: None, ahead: None })
    }

    /// Lets others change the home. What is left is dropped when nobody waits any more: after a change of its rules the
    /// kernel waits for all processors before it closes the socket by which that came.
    pub(crate) fn part(self) -> LinuxHost {
        let Self { mut host, lock, .. } = self;
        host.close_records();
        drop(lock);
        host
    }

    /// Carries out a plan, after asking where data would be lost.
    pub(crate) fn apply(&mut self, plan: &Plan, consent: Consent, output: Output) -> Result<(), Failure> {
        agree(plan, consent)?;
        let mut unprinted = None;
        let mut working = None;
        let fleeting = self.fleeting.clone().map(|id| (self.host.home().clone(), id));
        let mut reaper = None;
        let mut failures = apply::apply(plan, self, &mut |event| match event {
            Event::Begin(steps) => {
                let first = steps.first().map_or_else(String::new, |planned| planned.step.to_string());
                let more = steps.len().saturating_sub(1);
                let others = if more > 0 { format!(" and {more} more") } else { String::new() };
                working = Some(Working::on(format!("`{first}`{others}")));
            }
            Event::End(planned, outcome) => {
                // The note about the steps is due only while they are carried out.
                drop(working.take());
                unprinted = unprinted.take().or(output.progress(planned, outcome).err());
                if let (Step::MachineAdd(made, ..), Some((home, id)), Outcome::Done) =
                    (&planned.step, &fleeting, outcome)
                    && made == id
                {
                    reaper = Some(Reaper::new(home, id).map_err(|error| (planned.step.clone(), error)));
                }
            }
        });
        match reaper.transpose() {
            Ok(reaper) => self.reaper = reaper.or(self.reaper.take()),
            Err(failure) => failures.push(failure),
        }
        if self.lock.is_some()
            && let Err(error) = self.host.tidy_texts()
        {
            note(&Failure::from(error).text().trim_end().replacen("error:", "warning:", 1));
        }
        if self.lock.is_some() {
            let (ids, steps): (Vec<_>, Vec<_>) =
                idle(self.host.home(), plan, !failures.is_empty()).into_iter().unzip();
            if let (Some(step), Err(error)) = (steps.first(), self.host.close_idle_ports(&ids)) {
                failures.push(((*step).clone(), error));
            }
        }
        if !failures.is_empty() {
            let failures = failures.into_iter().map(|(step, error)| (step.to_string(), error));
            return Err(Failure::Steps(failures.collect()));
        }
        unprinted.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What exists.
    pub(crate) fn observe(&mut self) -> Result<Observed> {
        if self.lock.is_none() {
            let error = self.lost.take();
            return Err(error.unwrap_or_else(|| anyhow!("another command has the turn that this one lost")));
        }
        let _working = Working::on(LOOKING);
        self.ahead.take().map_or_else(|| self.host.observe(), Ok)
    }

    /// Does something else, and looks meanwhile at what exists: that is what is observed next.
    pub(crate) fn observe_beside<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let working = scope.spawn(work);
            let seen = self.observe();
            let done = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.ahead = Some(seen?);
            Ok(done)
        })
    }
}

/// The machines of a plan whose ports may be open though they do not run, each with its step: where something failed, those
/// that were to be started, as their ports are opened first; always those that ran already, and may have ended meanwhile.
fn idle<'p>(home: &Home, plan: &'p Plan, has_failed: bool) -> Vec<(&'p MachineId, &'p Step)> {
    // Those that somebody else runs have nobody to look after them.
    let is_ours = |id: &MachineId| Files::new(home, id).assignment().exists();
    let mut found = Vec::new();
    for step in plan.steps.iter().map(|planned| &planned.step) {
        match step {
            Step::MachineStart(id, _) if has_failed => found.push((id, step)),
            Step::PortAdd(_, target, _) if !starts(plan, &target.machine) && is_ours(&target.machine) => {
                found.push((&target.machine, step));
            }
            _ => {}
        }
    }
    found
}

fn starts(plan: &Plan, id: &MachineId) -> bool {
    plan.steps.iter().any(|planned| matches!(&planned.step, Step::MachineStart(one, _) if one == id))
}

/// The program that the long-lived processes are re-executions of.
pub(crate) fn program() -> Result<std::path::PathBuf> {
    // The link itself still works when the file was replaced by an upgrade meanwhile.
    std::env::current_exe().context("cannot find this program's own file")
}

/// Asks before data is lost: a person on a terminal; others have to say `--yes`.
pub(crate) fn agree(plan: &Plan, consent: Consent) -> Result<(), Failure> {
    let losses: Vec<String> =
        plan.steps.iter().filter(|planned| planned.step.loses_data()).map(|p| p.step.to_string()).collect();
    if losses.is_empty() || consent.yes {
        return Ok(());
    }
    confirm(&format!("this loses data:\n  {}", losses.join("\n  ")))
}

/// Asks a yes-or-no question where somebody can answer it.
pub(crate) fn confirm(what: &str) -> Result<(), Failure> {
    let refused = |why: &str| {
        Failure::WouldLose(Said::with_hint(&format!("{why}: {what}"), "say `--yes` if that is what you want"))
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused("not done without consent"));
    }
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "{what}\ngo on? [y/N] ").and_then(|()| stderr.flush());
    asked.context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refused("not done")) }
}
