//! Machines whose keepers were killed, started again.

use stead_host::machine::Files;
use stead_model::name::MachineId;

use super::machines::start_these;
use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Session, home, quiet};

/// Starts these again, but for those of which something else has become meanwhile: they run, have gone, or were told to end.
pub(crate) fn revive(ids: &[MachineId], output: Output) -> Result<(), Failure> {
    // Nobody's terminal: what ends the command that started the watcher does not end us.
    let _already_leader = rustix::process::setsid();
    // A home that was purged meanwhile is not made anew.
    if quiet(&home()?)?.is_none() {
        return Ok(());
    }
    // Whoever has its turn writes the deaths down first.
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let is_lost = |id: &&MachineId| {
        let exit = Files::new(session.host.home(), id).load_exit();
        seen.machines.contains_key(*id)
            && !seen.running.contains_key(*id)
            && exit.is_some_and(|exit| exit.lost && !exit.asked)
    };
    let lost: Vec<MachineId> = ids.iter().filter(is_lost).cloned().collect();
    let mut failed = None;
    for id in &lost {
        // What hinders one does not hinder the others.
        failed = start_these(&mut session, std::slice::from_ref(id), output).err().or(failed);
    }
    failed.map_or(Ok(()), Err)
}
