//! The last steps of a bundle's process before it is the program: where it starts, who it is, what it may do.

use std::fs;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::process::{Labels, Program, Sets};
use crate::capability::Capabilities;
use crate::channel::Channel;
use crate::place::{CODE_NOT_FOUND, Failure};
use crate::process::{Execution, directory, environment, place_of, start_in, user};
use crate::sys;

/// Goes where the program starts, and looks whether there is one; so that what is wrong shows while it is made.
pub(crate) fn settle(program: &Program) -> Result<()> {
    match directory(&program.cwd, true) {
        // Its user may have the right that root has not.
        Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::ACCESS) => {}
        done => done?,
    }
    within(program)?;
    Execution::new(&program.args, &program.env)?.look().map_err(|failure| said(failure, program))?;
    Ok(())
}

/// Becomes the program; the reason if that failed. This many descriptors from 3 on are its own.
pub(crate) fn become_it(program: &Program, preserve_fds: u32, channel: &Channel) -> Failure {
    let done = prepare(program, preserve_fds, channel).and_then(|env| Execution::new(&program.args, &env));
    match done {
        Ok(execution) => said(execution.run(), program),
        Err(error) => error.into(),
    }
}

/// In the words by which callers of runtimes know that there is no such program.
fn said(failure: Failure, program: &Program) -> Failure {
    if failure.code != CODE_NOT_FOUND {
        return failure;
    }
    let name = program.args.first().map(String::as_str).unwrap_or_default().escape_debug();
    Failure { code: failure.code, text: format!("exec: `{name}`: no such file or directory") }
}

/// In a user namespace that was made or joined, we are nobody until we say that we are root.
pub(crate) fn become_root() -> Result<()> {
    let (root, wheel) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    match set_thread_groups(&[]) {
        // With a single id there is nobody who could have more groups.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).context("cannot give up our groups"),
    }
    set_thread_res_gid(wheel, wheel, wheel).context("the user namespace has no root group")?;
    set_thread_res_uid(root, root, root).context("the user namespace has no root")?;
    // Without which the files of our own in /proc are not ours any more.
    set_dumpable_behavior(DumpableBehavior::Dumpable).context("cannot be seen by ourselves")
}

/// Its environment, once it has nothing more than it is to have.
fn prepare(program: &Program, preserve_fds: u32, channel: &Channel) -> Result<Vec<String>> {
    sys::reset_signals();
    sys::close_others(preserve_fds.saturating_add(3), channel.as_fd())
        .context("cannot close what is not the program's")?;
    // Whatever the image has there, it only tells where the user is at home.
    let account = user(&program.uid.to_string(), &std::collections::BTreeSet::new());
    let env = match &account {
        Ok(account) => environment(&program.env, account),
        Err(_) => program.env.clone(),
    };
    if let Some(mask) = program.umask {
        umask(rustix::fs::Mode::from_raw_mode(mask));
    }
    label(&program.labels)?;
    // Filters are about what programs need, and older ones know nothing of `openat2`.
    let place = place_of(&program.cwd, false);
    if program.no_new_privileges {
        set_no_new_privs(true).context("cannot forbid new privileges")?;
    } else {
        // Without that, only who still has rights may load a filter.
        filter(program)?;
    }
    rights(program)?;
    match place {
        Ok(place) => start_in(&place, &program.cwd)?,
        // Its user may have the right that root has not.
        Err(_) => directory(&program.cwd, false)?,
    }
    within(program)?;
    if program.no_new_privileges {
        filter(program)?;
    }
    Ok(env)
}

/// Refuses a directory of this computer's, had over a descriptor that was left open (CVE-2024-21626).
fn within(program: &Program) -> Result<()> {
    let found = std::env::current_dir();
    // Where the filter does not let us look we have looked before, when we settled there.
    let is_outside = match &found {
        Ok(path) => !path.is_absolute(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_outside {
        bail!("`{}` is not in the container", program.cwd.escape_debug());
    }
    Ok(())
}

fn filter(program: &Program) -> Result<()> {
    match &program.filter {
        Some(filter) => sys::load_seccomp(&filter.code, filter.flags).context("cannot filter system calls"),
        None => Ok(()),
    }
}

fn label(labels: &Labels) -> Result<()> {
    if let Some(profile) = &labels.apparmor {
        fs::write("/proc/self/attr/apparmor/exec", format!("exec {profile}"))
            .or_else(|_| fs::write("/proc/self/attr/exec", format!("exec {profile}")))
            .with_context(|| format!("cannot run with AppArmor's profile `{profile}`"))?;
    }
    if let Some(label) = &labels.selinux {
        fs::write("/proc/self/attr/exec", label)
            .with_context(|| format!("cannot run with SELinux' label `{label}`"))?;
    }
    Ok(())
}

/// Becomes the user, with these capabilities; of which nobody gets what we do not have ourselves.
fn rights(program: &Program) -> Result<()> {
    let Sets { bounding, effective, permitted, inheritable, ambient } = program.capabilities;
    let own = Capabilities(capabilities(None).context("cannot see our capabilities")?.permitted.bits());
    let (permitted, bounding) = (permitted.and(own), bounding.and(own));
    for one in bounding.missing() {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one.0)) {
            // The kernel has not so many.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).context("cannot drop a capability"),
        }
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(program.uid), rustix::fs::Gid::from_raw(program.gid));
    let groups: Vec<_> = program.groups.iter().copied().map(rustix::fs::Gid::from_raw).collect();
    match set_thread_groups(&groups) {
        // With a single id there is nobody who could have more groups.
        Err(Errno::PERM) if groups.is_empty() => {}
        done => done.context("cannot set groups")?,
    }
    set_thread_res_gid(gid, gid, gid).with_context(|| format!("cannot be group {}", program.gid))?;
    set_keep_capabilities(true).context("cannot keep capabilities")?;
    set_thread_res_uid(uid, uid, uid).with_context(|| format!("cannot be user {}", program.uid))?;
    set_keep_capabilities(false).context("cannot keep capabilities")?;
    let set = |set: Capabilities| CapabilitySet::from_bits_retain(set.0);
    let sets = CapabilitySets {
        effective: set(effective.and(permitted)),
        permitted: set(permitted),
        inheritable: set(inheritable.and(own)),
    };
    set_capabilities(None, sets).context("cannot set capabilities")?;
    clear_ambient_capability_set().context("cannot drop capabilities")?;
    let bits = (0..u64::BITS).map(|bit| Capabilities(1 << bit)).filter(|one| ambient.and(own).contains(*one));
    for bit in bits {
        configure_capability_in_ambient_set(set(bit), true).context("cannot keep a capability")?;
    }
    Ok(())
}
