//! The jail of a VMM: a process of its own that leaves everything behind but its descriptors, and becomes the VMM.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space,
    remove_capability_from_bounding_set, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::sys;

/// What a VMM is left with.
#[derive(Debug)]
pub struct Jail<'fd> {
    /// The user that it becomes, who has nothing.
    pub user: u32,
    /// The group that may use what runs guests, if that is to be used.
    pub group: Option<u32>,
    /// The network namespace that it is in: an empty one.
    pub network: BorrowedFd<'fd>,
}

/// Becomes a program in a jail. Returns only if that failed. For a process with one thread, whose parent is `parent`:
/// it ends with that.
pub fn enter(jail: &Jail<'_>, parent: u32, command: &[OsString]) -> Result<std::convert::Infallible> {
    move_into_link_name_space(jail.network, Some(LinkNameSpaceType::Network))
        .context("cannot enter its network namespace")?;
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .context("cannot make its namespaces")?;
    become_nobody(jail)?;
    rustix::thread::set_no_new_privs(true).context("cannot give up new rights")?;
    // A change of user forgets whom it ends with, so that comes after.
    become_program(command, parent)
}

/// Becomes a program that ends with `parent`, and inherits nothing but descriptors.
pub(crate) fn become_program(command: &[OsString], parent: u32) -> Result<std::convert::Infallible> {
    let (program, args) = command.split_first().context("no program to run")?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot end with the keeper")?;
    let is_orphan =
        rustix::process::getppid().is_none_or(|pid| u32::try_from(pid.as_raw_nonzero().get()) != Ok(parent));
    anyhow::ensure!(!is_orphan, "the keeper ended");
    let error = Command::new(program).args(args).env_clear().env("PATH", "/usr/bin:/bin").exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.display()))
}

/// Becomes a user that has nothing; root of a user namespace that has no others stays, without its rights.
fn become_nobody(jail: &Jail<'_>) -> Result<()> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not know it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).context("cannot give up rights"),
        }
    }
    let (uid, gid) = (Uid::from_raw(jail.user), Gid::from_raw(jail.user));
    let groups: Vec<Gid> = jail.group.map(Gid::from_raw).into_iter().collect();
    match set_thread_groups(&groups) {
        // In a user namespace of one user groups cannot be set, or this one is not known.
        Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
        Err(errno) => return Err(errno).context("cannot leave its groups"),
    }
    match set_thread_res_gid(gid, gid, gid).and_then(|()| set_thread_res_uid(uid, uid, uid)) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno).context("cannot become another user"),
    }
}
