//! `stop` and `restart`: none of several machines ends before those that depend on it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;

use stead_host::home::Home;
use stead_host::machine::{Request, Stop};
use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::plan::{Power, Wanted, plan};

use super::machines::{ask_one, by_project, choose_some, ours, start, tell, without_one_offs};
use super::unmet::Unmet;
use crate::args::{Consent, Global, RestartArgs, StartArgs, StopArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Session, look};
use crate::working::Working;

/// `stop`.
pub(crate) fn stop(global: &Global, args: &StopArgs, output: Output) -> Result<(), Failure> {
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let (ids, mut unmet) = choose_some(global, &args.machines, &seen)?;
    ours(&ids, &seen)?;
    let still: Vec<MachineId> = ids.iter().filter(|id| !seen.running.contains_key(*id)).cloned().collect();
    stead_host::linux::mark_stopped(session.host.home(), &still);
    if let Some(seconds) = args.time {
        let how = Stop { grace_ms: Some(seconds.saturating_mul(1000)), with_computer: false };
        let ended = end_running(session.host.home(), ids, &seen, how, &mut unmet);
        let seen = session.observe()?;
        let closed = turn_off(&mut session, &ended, &seen, output.quiet());
        return unmet.after(closed.and_then(|()| tell(&ended, output)));
    }
    unmet.after(turn_off(&mut session, &ids, &seen, output))
}

/// Ends those of these that run, and closes their ports.
fn turn_off(
    session: &mut Session,
    ids: &[MachineId],
    seen: &Observed,
    output: Output,
) -> Result<(), Failure> {
    by_project(ids).into_iter().try_for_each(|(project, machines)| {
        let wanted = Wanted::as_it_is(&project, seen).with_power(&machines, Power::Off);
        session.apply(&plan(&wanted, seen), Consent { yes: false }, output).map(drop)
    })
}

/// Ends those of these that run, each within this time: those that do not depend on each other together, and none whose
/// dependant could not be ended. They are found stopped afterwards; gives all that do not run then.
pub(super) fn end_running(
    home: &Home,
    ids: Vec<MachineId>,
    seen: &Observed,
    how: Stop,
    unmet: &mut Unmet,
) -> Vec<MachineId> {
    let mut ended = Vec::new();
    for row in seen.ends(&ids.into_iter().collect()) {
        end_row(home, row, seen, how, (&mut ended, unmet));
    }
    ended
}

/// The same for some that may end at the same time, after those that `ended`.
pub(super) fn end_row(
    home: &Home,
    mut row: Vec<(MachineId, BTreeSet<MachineId>)>,
    seen: &Observed,
    how: Stop,
    (ended, unmet): (&mut Vec<MachineId>, &mut Unmet),
) {
    let _working = Working::on("ending machines");
    // As they are told.
    row.sort();
    let runs = |id: &MachineId| seen.running.contains_key(id);
    let held: BTreeMap<&MachineId, &MachineId> = row
        .iter()
        .filter_map(|(id, after)| {
            Some((id, after.iter().find(|other| runs(other) && !ended.contains(other))?))
        })
        .collect();
    let end = |id: &MachineId| match held.get(id) {
        Some(by) => Err(anyhow!("machine `{id}` was left alone: `{by}`, which depends on it, was not ended")),
        None if runs(id) => stead_host::linux::stop_one(home, id, how),
        None => Ok(()),
    };
    let done = together(row.iter().map(|(id, _)| id.clone()).collect(), end);
    ended.extend(unmet.done(done));
}

/// Does to all of these at the same time what takes each of them long.
fn together(
    ids: Vec<MachineId>,
    work: impl Fn(&MachineId) -> anyhow::Result<()> + Sync,
) -> Vec<(MachineId, anyhow::Result<()>)> {
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = ids.iter().map(|id| scope.spawn(|| work(id))).collect();
        let died = || Err(anyhow!("the thread that was to do it died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect()
    });
    ids.into_iter().zip(done).collect()
}

/// `restart`.
pub(crate) fn restart(global: &Global, args: &RestartArgs, output: Output) -> Result<(), Failure> {
    let (is_cold, args) = (args.cold, &args.how);
    let mut host = look()?;
    let seen = host.observe()?;
    let (ids, mut unmet) = choose_some(global, &args.machines, &seen)?;
    let ids = without_one_offs(ids, &args.machines, &seen);
    ours(&ids, &seen)?;
    if is_cold {
        super::cold::refuse_without_microvm(&ids, &seen)?;
    }
    let (running, stopped): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| seen.running.contains_key(id));
    let grace_ms = args.time.map(|seconds| seconds.saturating_mul(1000));
    let working = Working::on("starting machines again");
    let home = host.home();
    let restart = |id: &MachineId| ask_one(home, id, &Request::Restart { grace_ms, is_cold }, None);
    // As they start: whoever depends on a machine finds it there when it starts again itself.
    let rows = seen.ends(&running.into_iter().collect()).into_iter().rev();
    let rows = rows.map(|row| row.into_iter().rev().map(|(id, _)| id).collect());
    let running: Vec<MachineId> = rows.flat_map(|row| unmet.done(together(row, restart))).collect();
    drop(working);
    let is_cold = is_cold && super::cold::has_microvm(&stopped, &seen);
    unmet.after(restart_these(global, &running, (&stopped, is_cold), output))
}

/// Has the keepers start those that run again, and starts the others.
fn restart_these(
    global: &Global,
    running: &[MachineId],
    (stopped, is_cold): (&[MachineId], bool),
    output: Output,
) -> Result<(), Failure> {
    let machines: Vec<String> = stopped.iter().map(ToString::to_string).collect();
    let started = match machines.is_empty() {
        true => Ok(()),
        false => {
            start(global, &StartArgs { machines, attach: false, interactive: false, cold: is_cold }, output)
                .map(drop)
        }
    };
    tell(running, output).and(started)
}
