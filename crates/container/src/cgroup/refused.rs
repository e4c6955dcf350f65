//! Which limits a container cannot be held to here, looked at before anything is made.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use stead_model::container::Limits;

use super::limits::{Controller, Setting, Version, asked, settings};
use super::reach::{self, Lack};
use super::{Ground, disk, processors};
use crate::scope;

/// A limit that cannot be honoured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    /// Which, and for what reason.
    pub why: String,
    /// What to do.
    pub hint: &'static str,
}

/// What to do about a limit that this computer cannot hold a container to.
const LIMIT_HINT: &str = "leave it out";

/// The same where no cgroup is the user's own.
const USER_HINT: &str = "leave it out; an ordinary user has limits where their own systemd runs, as it does after a login \
    by ssh, on a console or on a desktop (`loginctl enable-linger` has it run always), or in a control group that was \
    delegated to them";

/// The same where the user's systemd has none of the controller.
const MANAGER_HINT: &str = "leave it out, or have root hand it on: `Delegate=cpu cpuset io memory pids` below `[Service]` in \
    `/etc/systemd/system/user@.service.d/delegate.conf`, and `systemctl daemon-reload`; then say `systemctl --user daemon-reexec`";

/// The same where it is not in version 2, the only one that is handed on to users.
const LEGACY_HINT: &str = "leave it out: only version 2 of control groups is handed on to users, which a computer has that \
    was booted with `systemd.unified_cgroup_hierarchy=1`";

/// The same where only whoever asks is in the way.
const ROOM_HINT: &str = "leave it out: a process cannot be both in a control group and have limits below it";

/// Whether any of these limits is one that a cgroup sets.
pub fn is_limited(limits: &Limits) -> bool {
    !asked(limits).is_empty()
}

/// Which of these limits cannot be honoured here; none if all can.
pub fn limits_refused(limits: &Limits) -> Result<Vec<LimitRefusal>> {
    let is_root = rustix::process::geteuid().is_root();
    // An ordinary user's containers are made in a user namespace, whoever asks.
    let is_mapped = !is_root || crate::mounts::root::is_mapped_here()?;
    let mut ground = Ground::observe(is_mapped)?;
    let asked = asked(limits);
    let scope = (!is_root && !asked.is_empty()).then(|| ground.in_scope());
    let is_refused = |(_, controller): &(_, Controller)| ground.version(*controller).is_none();
    let refused = asked.into_iter().filter(is_refused).map(|(word, controller)| {
        let name = controller.legacy();
        let not_delegated = format!("`{word}`: controller `{name}` is not delegated to this user");
        let (why, hint) = match &scope {
            Some(Ok(())) if ground.layout.legacy(name).is_some() => (not_delegated, LEGACY_HINT),
            Some(Ok(())) => {
                (format!("{not_delegated}'s systemd, which has {}", ground.listed()), MANAGER_HINT)
            }
            Some(Err(why)) => (format!("{not_delegated}: {why:#}"), USER_HINT),
            None if is_mapped => (not_delegated, USER_HINT),
            None if ground.layout.legacy.is_empty() => {
                (format!("`{word}`: control groups have no controller `{name}` here"), LIMIT_HINT)
            }
            None => (format!("`{word}`: this kernel has no controller `{name}` mounted"), LIMIT_HINT),
        };
        LimitRefusal { why, hint }
    });
    let processors = too_many_processors(limits).into_iter().chain(ground.lacking_processors(limits));
    let (disks, no_disks) = disk::disks(limits);
    let no_disks = no_disks.into_iter().map(|why| LimitRefusal { why, hint: disk::HINT });
    Ok(refused.chain(ground.lacks(limits, &disks)).chain(processors).chain(no_disks).collect())
}

impl Ground {
    /// As it will be for a container whose keeper has a scope from the user's systemd: that has what systemd has.
    fn in_scope(&mut self) -> Result<()> {
        let unified = self.layout.unified.as_mut().context("there is no version 2 of control groups here")?;
        let own = scope::managers().context("no systemd of this user's gives one")?;
        ensure!(unified.mount.join(own).is_dir(), "`{}`, which is systemd's, is not here", own.display());
        unified.own = own.to_owned();
        let is_own = self.unified().is_some();
        ensure!(is_own, "`{}`, which is systemd's, is not this user's to write", own.display());
        Ok(())
    }

    /// The controllers of version 2 that there are, for messages.
    fn listed(&self) -> String {
        let read = |base: PathBuf| fs::read_to_string(base.join("cgroup.controllers"));
        let listed = self.unified().map(read).transpose();
        let listed = listed.map(Option::unwrap_or_default).unwrap_or_else(|error| error.to_string());
        if listed.trim().is_empty() { "none".to_owned() } else { format!("`{}`", listed.trim()) }
    }

    /// What keeps cgroups of ours from having one of these files, and where.
    fn lack(&self, setting: &Setting) -> Option<(Lack, PathBuf)> {
        let (version, base) = self.base_of(setting.controller)?;
        Some((reach::lack(&base, setting.controller, version, setting.files)?, base))
    }

    /// The limits whose files cgroups of ours would not have.
    fn lacks(&self, limits: &Limits, disks: &[disk::Disk]) -> Vec<LimitRefusal> {
        let version = |controller| self.version(controller).unwrap_or(Version::Unified);
        let wanted = settings(limits, disks, version).into_iter().filter(|setting| !setting.is_usual);
        let lacks = wanted.filter_map(|setting| {
            let (lack, base) = self.lack(&setting)?;
            Some(match lack {
                Lack::File => {
                    let files = setting.files.join("` or `");
                    let why = format!("`{}`: this kernel has no `{files}`", setting.word);
                    LimitRefusal { why, hint: LIMIT_HINT }
                }
                Lack::Room => {
                    let (word, base) = (setting.word, base.display());
                    let controller = setting.controller.unified();
                    let why = format!(
                        "`{word}`: control group `{base}` has processes of its own, so it hands controller `{controller}` on to none below it"
                    );
                    LimitRefusal { why, hint: ROOM_HINT }
                }
            })
        });
        lacks.collect()
    }

    /// Processors that are not there for a container to be held to.
    fn lacking_processors(&self, limits: &Limits) -> Option<LimitRefusal> {
        let (_, base) = self.base_of(Controller::Cpuset)?;
        let (lacking, there) = processors::lacking(limits.cpuset.as_deref()?, &base)?;
        let why = format!("`cpuset`: there is no processor {lacking} for it here, only {there}");
        Some(LimitRefusal { why, hint: "name only some of those, or leave it out for all of them" })
    }
}

/// Why a container cannot have as much of the processors.
fn too_many_processors(limits: &Limits) -> Option<LimitRefusal> {
    let there = processors::count()?;
    let wanted = limits.cpus_milli.filter(|wanted| *wanted > there.saturating_mul(1000))?;
    let why =
        format!("`cpus`: {} processors are more than the {there} that are here", f64::from(wanted) / 1000.0);
    Some(LimitRefusal { why, hint: "say at most as many, or leave it out for all of them" })
}
