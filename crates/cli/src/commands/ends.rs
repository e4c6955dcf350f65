//! `stop` and `restart`: none of several machines ends before those that depend on it.

use anyhow::anyhow;

use stead_host::home::Home;
use stead_host::machine::{Request, Stop};
use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::plan::{Power, Wanted, plan};

use super::machines::{ask_one, by_project, choose_some, ours, start, tell, without_one_offs};
use super::unmet::Unmet;
use crate::args::{Consent, Global, StartArgs, StopArgs};
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
    if let Some(seconds) = args.time {
        let how = Stop { grace_ms: Some(seconds.saturating_mul(1000)), with_computer: false };
        let ended = end_running(session.host.home(), in_rows(ids, &seen), &seen, how, &mut unmet);
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

/// These machines as they end: those of a row at the same time, and none before those that depend on it.
pub(super) fn in_rows(ids: Vec<MachineId>, seen: &Observed) -> Vec<Vec<MachineId>> {
    let rows = seen.ends(&ids.into_iter().collect()).into_iter();
    rows.map(|row| row.into_iter().map(|(id, _)| id).collect()).collect()
}

/// Ends those of these that run, a row at once, each within this time. They are found stopped afterwards; gives all that do
/// not run then.
pub(super) fn end_running(
    home: &Home,
    rows: Vec<Vec<MachineId>>,
    seen: &Observed,
    how: Stop,
    unmet: &mut Unmet,
) -> Vec<MachineId> {
    let _working = Working::on("ending machines");
    let end = |id: &MachineId| match seen.running.contains_key(id) {
        true => stead_host::linux::stop_one(home, id, how),
        false => Ok(()),
    };
    rows.into_iter().flat_map(|row| unmet.done(together(row, end))).collect()
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
pub(crate) fn restart(global: &Global, args: &StopArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let (ids, mut unmet) = choose_some(global, &args.machines, &seen)?;
    let ids = without_one_offs(ids, &args.machines, &seen);
    ours(&ids, &seen)?;
    let (running, stopped): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| seen.running.contains_key(id));
    let grace_ms = args.time.map(|seconds| seconds.saturating_mul(1000));
    let working = Working::on("starting machines again");
    let home = host.home();
    let restart = |id: &MachineId| ask_one(home, id, &Request::Restart { grace_ms }, None);
    // As they start: whoever depends on a machine finds it there when it starts again itself.
    let rows = in_rows(running, &seen).into_iter().rev();
    let running: Vec<MachineId> = rows.flat_map(|row| unmet.done(together(row, restart))).collect();
    drop(working);
    unmet.after(restart_these(global, &running, &stopped, output))
}

/// Has the keepers start those that run again, and starts the others.
fn restart_these(
    global: &Global,
    running: &[MachineId],
    stopped: &[MachineId],
    output: Output,
) -> Result<(), Failure> {
    let machines: Vec<String> = stopped.iter().map(ToString::to_string).collect();
    let started = match machines.is_empty() {
        true => Ok(()),
        false => start(global, &StartArgs { machines, attach: false, interactive: false }, output).map(drop),
    };
    tell(running, output).and(started)
}
