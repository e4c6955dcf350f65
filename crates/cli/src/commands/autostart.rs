//! `autostart`: machines that run again when the computer has started, and end in order before it goes off.

mod status;
mod systemd;
mod unit;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stead_host::autostart::is_quiet;
use stead_host::machine::{Files, Stop};
use stead_model::autostart::Verdict;
use stead_model::container::Restart;
use stead_model::name::MachineId;
use stead_model::observed::{Observed, Running};

use super::ends::end_row;
use super::machines::{in_turn, start_these, tell};
use super::unmet::Unmet;
use crate::args::{AutostartCommand, AutostartStartArgs};
use crate::failure::{Failure, Said};
use crate::output::{Output, note};
use crate::session::{Session, home, look};
use crate::working::Working;

pub(super) use self::systemd::forget;

/// A machine that takes longer to be well holds up nobody but those that depend on it.
const STAGE_LIMIT: Duration = Duration::from_secs(300);

/// How often it is looked whether there is a way out.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Machines have no longer to end by themselves when the computer goes off, all of them together and whatever they were made
/// with. With what a keeper is waited for this is less than systemd gives the unit.
const GRACE: Duration = Duration::from_secs(60);

/// However long others took, each has this.
const LEAST: Duration = Duration::from_secs(5);

/// Carries one of them out.
pub(super) fn run(command: &AutostartCommand, output: Output) -> Result<(), Failure> {
    match command {
        AutostartCommand::Enable => systemd::enable(output),
        AutostartCommand::Disable => systemd::disable(output),
        AutostartCommand::Status => status::status(output),
        AutostartCommand::Start(args) => start(args, output),
        AutostartCommand::Stop => stop(output),
    }
}

/// The machines that we run with their policies, and what is decided of each.
fn decided(seen: &Observed, home: &stead_host::home::Home) -> Vec<(MachineId, Restart, Verdict)> {
    let machines = seen.machines.iter().filter_map(|(id, state)| Some((id, state.restart()?)));
    let decide = |(id, policy): (&MachineId, Restart)| {
        (id.clone(), policy, Verdict::new(policy, Files::new(home, id).past()))
    };
    machines.map(decide).collect()
}

/// Those that are to run and do not.
fn to_start(home: &stead_host::home::Home) -> Result<Vec<MachineId>, Failure> {
    let seen = look()?.observe()?;
    let is_up = |id: &MachineId| seen.running.get(id) == Some(&Running::Connected);
    let starts = decided(&seen, home).into_iter().filter(|(_, _, verdict)| *verdict == Verdict::Starts);
    Ok(starts.map(|(id, ..)| id).filter(|id| !is_up(id)).collect())
}

/// Starts what is to run. What fails holds up nothing else.
fn start(args: &AutostartStartArgs, output: Output) -> Result<(), Failure> {
    let home = home()?;
    if !home.exists() || is_quiet(&home)? {
        return Ok(());
    }
    let ids = to_start(&home)?;
    if !ids.is_empty() && !is_online(Duration::from_secs(args.wait_online))? {
        note("this computer has no way out: machines are started without");
    }
    let mut failed = Unmet::default();
    let seen = look()?.observe()?;
    for (_, machines) in in_turn(&ids, &seen) {
        match start_some(&machines, output) {
            Ok(()) => {}
            Err(failure) if matches!(failure, Failure::Steps(_)) || machines.len() == 1 => {
                failed.add(said_of(&machines, failure));
            }
            // What is wrong with one of them need not hold up the others.
            Err(_) => {
                for id in machines {
                    let alone = BTreeSet::from([id]);
                    if let Err(failure) = start_some(&alone, output) {
                        failed.add(said_of(&alone, failure));
                    }
                }
            }
        }
    }
    failed.after(Ok(()))
}

/// Starts machines of one project, those first that others of them depend on.
fn start_some(machines: &BTreeSet<MachineId>, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    session.host.limit_waits(STAGE_LIMIT);
    // Somebody may have stopped one while others had their turn.
    let left = to_start(session.host.home())?;
    let ids: Vec<MachineId> = machines.iter().filter(|id| left.contains(id)).cloned().collect();
    if ids.is_empty() { Ok(()) } else { start_these(&mut session, &ids, None, output) }
}

/// Why these do not run. Steps name their machines themselves.
fn said_of(machines: &BTreeSet<MachineId>, failure: Failure) -> Vec<Said> {
    let is_named = matches!(failure, Failure::Steps(_));
    let said = failure.of_request().said();
    if is_named {
        return said;
    }
    let names: Vec<String> = machines.iter().map(|id| format!("`{id}`")).collect();
    let what = format!("machine {} was not started", names.join(", "));
    said.into_iter().map(|said| said.under(&what)).collect()
}

/// Waits for a way out; whether there is one, or nobody wants to know.
fn is_online(limit: Duration) -> Result<bool, Failure> {
    if limit.is_zero() {
        return Ok(true);
    }
    let _working = Working::on("waiting for a way out of this computer");
    let begun = Instant::now();
    let mut host = look()?;
    loop {
        if host.observe()?.host.online {
            return Ok(true);
        }
        if begun.elapsed() >= limit {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How long machines have that end now: what they leave is for those that end after them, in so many rows. Those that are
/// last are often those with data. Pure.
fn grace(elapsed: Duration, later_rows: usize) -> Duration {
    let later = LEAST.saturating_mul(later_rows.try_into().unwrap_or(u32::MAX));
    GRACE.saturating_sub(elapsed).saturating_sub(later).max(LEAST)
}

/// Ends all machines, none before those that depend on it. It takes no turn: a command that has the home would be waited for.
fn stop(output: Output) -> Result<(), Failure> {
    let home = home()?;
    if !home.exists() || is_quiet(&home)? {
        return Ok(());
    }
    let seen = look()?.observe()?;
    let mut unmet = Unmet::default();
    let (begun, mut ended) = (Instant::now(), Vec::new());
    let mut rows = seen.ends(&seen.running.keys().cloned().collect()).into_iter();
    while let Some(row) = rows.next() {
        let grace = grace(begun.elapsed(), rows.len());
        let how =
            Stop { grace_ms: Some(grace.as_millis().try_into().unwrap_or(u64::MAX)), with_computer: true };
        // Whoever cannot be ended keeps nobody from being asked.
        let row = row.into_iter().map(|(id, _)| (id, BTreeSet::new())).collect();
        end_row(&home, row, &seen, how, (&mut ended, &mut unmet));
    }
    unmet.after(tell(&ended, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_ends_first_leaves_time_for_those_after() {
        let grace = |elapsed_s, later| grace(Duration::from_secs(elapsed_s), later).as_secs();
        assert_eq!([grace(0, 0), grace(0, 2), grace(50, 1), grace(55, 0), grace(99, 0)], [60, 50, 5, 5, 5]);
        assert_eq!(grace(0, usize::MAX), 5);
    }
}
