//! The cgroups that a bundle asks for, and what is written in their files.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{StatVfsMountFlags, access, statvfs};

use super::check::Refused;
use super::config::{Cpu, DeviceRule, Resources};
use super::settings::{Setting, settings};
use crate::cgroup::device::{self, Kind, Rule};
use crate::cgroup::layout::{Hierarchy, Layout};
use crate::cgroup::limits::Version;
use crate::cgroup::reach::has_room_for_none;
use crate::cgroup::{Cgroup, Ground, adopt_cpuset, make, write};

/// Below this are those of containers that do not say where they are to be.
const TOP: &str = "stead/oci";

/// The controllers that we write files of, by their names in version 1.
const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio"];

/// What is asked of cgroups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    place: Place,
    resources: Resources,
    rules: Vec<Access>,
}

/// A rule of devices: whether it allows or denies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    /// All there are.
    All(bool),
    /// Some.
    Some(bool, Rule),
}

/// Where they are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Wherever we have them.
    #[default]
    Ours,
    /// Below the place where we have them.
    Below(String),
    /// Below the top of each hierarchy.
    At(String),
}

impl Wish {
    /// Checks it as far as that goes without this computer; all reasons why not.
    pub(crate) fn new(path: &str, resources: &Resources) -> Result<Self, Vec<String>> {
        let mut bad = Vec::new();
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            bad.push(format!("`linux.cgroupsPath` leads upwards: `{}`", path.escape_debug()));
        }
        if !path.contains('/') && path.split(':').count() == 3 {
            bad.push("`linux.cgroupsPath` is meant for systemd, which is not asked for cgroups".to_owned());
        }
        let place = match (path, path.starts_with('/')) {
            ("", _) => Place::Ours,
            (_, true) => Place::At(parts.join("/")),
            (_, false) => Place::Below(parts.join("/")),
        };
        let rules = rules(&resources.devices, &mut bad);
        for key in resources.unified.keys() {
            if key.contains('/') || key.is_empty() || key.starts_with("cgroup.") && key != "cgroup.max.depth"
            {
                bad.push(format!("`linux.resources.unified` has no `{}`", key.escape_debug()));
            }
        }
        let Cpu { quota, burst, .. } = &resources.cpu;
        if let (Some(quota), Some(burst)) = (quota.filter(|quota| *quota > 0), burst)
            && quota.unsigned_abs() < *burst
        {
            bad.push("`cpu.burst` is more than `cpu.quota`".to_owned());
        }
        if bad.is_empty() { Ok(Self { place, resources: resources.clone(), rules }) } else { Err(bad) }
    }

    /// Where the cgroups are to be on this computer, and what is to be written in them. Nothing is made yet.
    pub(crate) fn plan(&self, ground: &Ground, name: &str) -> Result<Planned> {
        let cgroup = self.choose(ground, name);
        let available = |controller: &str| version(&cgroup, ground.layout(), controller);
        let mut bad = Vec::new();
        for controller in CONTROLLERS {
            let is_asked = settings(&self.resources, &|_| Version::Unified, &mut Vec::new())
                .iter()
                .any(|setting| setting.controller == controller);
            if is_asked && available(controller).is_none() {
                bad.push(format!(
                    "limits of `{controller}`: there is no such controller here that we may use"
                ));
            }
        }
        let version = |controller: &str| available(controller).unwrap_or(Version::Unified);
        let settings = settings(&self.resources, &version, &mut bad);
        if !self.resources.unified.is_empty() && cgroup.unified.is_none() {
            bad.push("`linux.resources.unified`: there is no cgroup of version 2".to_owned());
        }
        if let Some(busy) = cgroup.directories().find(|directory| is_busy(directory)) {
            bad.push(format!("cgroup `{}` has processes in it", busy.display()));
        }
        if bad.is_empty() { Ok(Planned { cgroup, settings }) } else { Err(Refused(bad).into()) }
    }

    /// All hierarchies that we may write, so that whoever looks finds the container in each.
    fn choose(&self, ground: &Ground, name: &str) -> Cgroup {
        let at = |hierarchy: &Hierarchy| {
            let own = if ground.is_mapped() {
                hierarchy.mount.join(&hierarchy.own)
            } else {
                hierarchy.mount.clone()
            };
            let directory = match &self.place {
                Place::Ours => own.join(TOP).join(name),
                Place::Below(path) => own.join(TOP).join(path),
                Place::At(path) => hierarchy.mount.join(path),
            };
            is_ours(&directory).then_some(directory)
        };
        let layout = ground.layout();
        let legacy = layout.legacy.iter().filter_map(|(names, found)| Some((names.join(","), at(found)?)));
        Cgroup { unified: layout.unified.as_ref().and_then(at), legacy: legacy.collect() }
    }

    /// Makes them, with their limits; they are on record first.
    pub(crate) fn make(&self, planned: &Planned, state: &Path, ground: &Ground) -> Result<()> {
        let Planned { cgroup, settings } = planned;
        cgroup.store(state)?;
        // One that is there, and empty, is taken as it is.
        let missing = |directory: &&PathBuf| !directory.exists();
        for directory in cgroup.legacy.iter().map(|(_, directory)| directory).filter(missing) {
            make(directory, adopt_cpuset)?;
        }
        if let Some((directory, found)) = cgroup.unified.as_ref().zip(ground.layout().unified.as_ref()) {
            if !directory.exists() {
                make(directory, |_| Ok(()))?;
            }
            let mut wanted: BTreeSet<&str> = ["cpu", "memory", "pids", "io", "cpuset"].into();
            wanted.extend(settings.iter().map(|setting| unified(setting.controller)));
            wanted.extend(self.resources.unified.keys().filter_map(|key| key.split('.').next()));
            enable(directory, &found.mount, &wanted);
        }
        settings.iter().try_for_each(|setting| set(cgroup, setting))?;
        for (file, text) in &self.resources.unified {
            let directory = cgroup.unified.as_ref().context("there is no cgroup of version 2")?;
            text.lines().try_for_each(|line| write(&directory.join(file), line))?;
        }
        // In a user namespace no device can be made, and those bound are guarded by their owners.
        if !ground.is_mapped() {
            guard(cgroup, &self.rules)?;
        }
        Ok(())
    }
}

/// Cgroups that can be made.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) cgroup: Cgroup,
    settings: Vec<Setting>,
}

/// Whether a directory is there for us to write, or can be made.
fn is_ours(directory: &Path) -> bool {
    let Some(found) = directory.ancestors().find(|path| path.exists()) else { return false };
    let is_fixed = statvfs(found).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    access(found, rustix::fs::Access::WRITE_OK).is_ok()
        && access(found.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
        && !is_fixed
}

fn is_busy(directory: &Path) -> bool {
    fs::read(directory.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
}

/// Which version has a controller where this container is to be.
fn version(cgroup: &Cgroup, layout: &Layout, controller: &str) -> Option<Version> {
    let has = |(names, _): &(String, PathBuf)| names.split(',').any(|name| name == controller);
    if cgroup.legacy.iter().any(has) {
        return Some(Version::Legacy);
    }
    let mount = &layout.unified.as_ref()?.mount;
    let found = cgroup.unified.as_ref()?.ancestors().skip(1).find(|path| path.exists())?;
    // Nothing above the mount.
    let found = if found.starts_with(mount) { found } else { mount };
    let listed = fs::read_to_string(found.join("cgroup.controllers")).unwrap_or_default();
    listed.split_whitespace().any(|name| name == unified(controller)).then_some(Version::Unified)
}

/// A controller's name in version 2.
fn unified(controller: &str) -> &str {
    if controller == "blkio" { "io" } else { controller }
}

/// Has controllers reach a cgroup of version 2. What cannot be had shows when a limit is set.
fn enable(directory: &Path, mount: &Path, controllers: &BTreeSet<&str>) {
    let above: Vec<&Path> =
        directory.ancestors().skip(1).take_while(|path| path.starts_with(mount)).collect();
    for path in above.into_iter().rev() {
        if has_room_for_none(path) {
            continue;
        }
        let listed = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        for name in listed.split_whitespace().filter(|name| controllers.contains(name)) {
            if let Err(error) = write(&path.join("cgroup.subtree_control"), &format!("+{name}")) {
                tracing::debug!("{error:#}");
            }
        }
    }
}

fn set(cgroup: &Cgroup, setting: &Setting) -> Result<()> {
    let directory = cgroup.directory(setting.controller).context("there is no cgroup for it")?;
    for file in &setting.files {
        let path = directory.join(file);
        if path.exists() {
            return write(&path, &setting.text);
        }
    }
    bail!("this kernel has no `{}`", setting.files.join("` or `"))
}

/// Rules in our terms; a kind `a` is both.
fn rules(asked: &[DeviceRule], bad: &mut Vec<String>) -> Vec<Access> {
    let mut rules = Vec::new();
    for rule in asked {
        let number =
            |number: Option<i64>| number.filter(|number| *number >= 0).and_then(|n| u32::try_from(n).ok());
        let kinds: &[Kind] = match rule.kind.as_deref() {
            None | Some("" | "a") => &[Kind::Character, Kind::Block],
            Some("c" | "u") => &[Kind::Character],
            Some("b") => &[Kind::Block],
            Some(other) => {
                bad.push(format!("device rule: `{}` is no kind of device", other.escape_debug()));
                &[]
            }
        };
        if !rule.access.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
            bad.push(format!("device rule: `{}` is no access", rule.access.escape_debug()));
        }
        let access = device::Access::parse(if rule.access.is_empty() { "rwm" } else { &rule.access });
        let (major, minor) = (number(rule.major), number(rule.minor));
        if kinds.len() == 2 && major.is_none() && minor.is_none() && access == device::Access::parse("rwm") {
            rules.push(Access::All(rule.allow));
        } else {
            let some = |kind: &Kind| Access::Some(rule.allow, Rule { kind: *kind, major, minor, access });
            rules.extend(kinds.iter().map(some));
        }
    }
    rules
}

/// Nothing is allowed but what the rules say, in their order, and in the end what every container has.
fn guard(cgroup: &Cgroup, asked: &[Access]) -> Result<()> {
    let usual = device::rules(&crate::mounts::device::usual());
    let all: Vec<Access> =
        asked.iter().cloned().chain(usual.into_iter().map(|rule| Access::Some(true, rule))).collect();
    if let Some(directory) = cgroup.directory("devices").filter(|path| path.join("devices.deny").exists()) {
        write(&directory.join("devices.deny"), "a")?;
        return all.iter().try_for_each(|rule| {
            let (is_allowed, line) = match rule {
                Access::All(is_allowed) => (*is_allowed, "a".to_owned()),
                Access::Some(is_allowed, rule) => (*is_allowed, device::line(rule)),
            };
            write(&directory.join(if is_allowed { "devices.allow" } else { "devices.deny" }), &line)
        });
    }
    let Some(path) = &cgroup.unified else { return Ok(()) };
    let directory = fs::File::open(path).context("cannot open the cgroup")?;
    let rules: Vec<(bool, Rule)> = all.into_iter().flat_map(Access::rules).collect();
    crate::sys::attach_device_filter(directory.as_fd(), &device::ordered(&rules))
        .context("cannot restrict devices")
}

impl Access {
    fn rules(self) -> Vec<(bool, Rule)> {
        match self {
            Self::All(is_allowed) => {
                let access = device::Access::parse("rwm");
                let all = |kind| (is_allowed, Rule { kind, major: None, minor: None, access });
                vec![all(Kind::Character), all(Kind::Block)]
            }
            Self::Some(is_allowed, rule) => vec![(is_allowed, rule)],
        }
    }
}
