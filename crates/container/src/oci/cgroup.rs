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

/// What counts processes: set once the first one is there, who is made by one that is in the cgroup already.
const COUNTING: &str = "pids";

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
        for device in &resources.block_io.weight_device {
            if device.weight.is_none() && device.leaf_weight.is_none() {
                let (major, minor) = (device.major, device.minor);
                bad.push(format!("`blockIO.weightDevice` of {major}:{minor} has no weight"));
            }
        }
        for (name, limits) in &resources.rdma {
            if limits.hca_handles.is_none() && limits.hca_objects.is_none() {
                bad.push(format!("`rdma` of `{}` has no limit", name.escape_debug()));
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
        let (cgroup, layout) = (self.choose(ground, name), ground.layout());
        let available = |controller: &str| version(&cgroup, layout, controller);
        let mut bad = Vec::new();
        let settings = settings(
            &self.resources,
            &|controller| available(controller).unwrap_or(Version::Legacy),
            &mut bad,
        );
        // It says what holds anyway, where there is no version 1.
        let is_moot = |setting: &Setting| {
            available(setting.controller).is_none() && setting.files == ["memory.use_hierarchy"]
        };
        let settings: Vec<Setting> = settings.into_iter().filter(|setting| !is_moot(setting)).collect();
        let controllers: BTreeSet<&str> = settings.iter().map(|setting| setting.controller).collect();
        let missing = controllers.into_iter().filter(|controller| available(controller).is_none());
        bad.extend(missing.map(|controller| {
            format!("limits of `{controller}`: there is no such controller here that we may use")
        }));
        for Setting { controller, files, .. } in settings.iter().filter(|setting| !setting.files.is_empty()) {
            let place = place(&cgroup, layout, controller).filter(|_| available(controller).is_some());
            if place.is_some_and(|(directory, mount, version)| {
                lacks(directory, mount, version, controller, files)
            }) {
                bad.push(format!("this kernel has no `{}`", files.join("` or `")));
            }
        }
        self.unified(&cgroup, layout, &mut bad);
        bad.extend(cgroup.directories().filter_map(taken));
        if self.resources.memory.kernel.is_some() {
            // Kernels have done without since 5.16: memory of theirs counts as the container's own.
            tracing::warn!("`memory.kernel` is not limited: kernels have no such limit any more");
        }
        if bad.is_empty() { Ok(Planned { cgroup, settings }) } else { Err(Refused(bad).into()) }
    }

    /// What of `unified` cannot be written.
    fn unified(&self, cgroup: &Cgroup, layout: &Layout, bad: &mut Vec<String>) {
        let found = cgroup.unified.as_ref().zip(layout.unified.as_ref());
        for key in self.resources.unified.keys() {
            let controller = key.split('.').next().unwrap_or_default();
            let why = match found {
                None => "there is no cgroup of version 2".to_owned(),
                // What all cgroups have.
                Some(_) if controller == "cgroup" => continue,
                Some((directory, found)) if !reaches(directory, &found.mount, controller) => {
                    format!("version 2 of cgroups has no controller `{controller}` here that we may use")
                }
                Some((directory, found)) => {
                    let files = std::slice::from_ref(key);
                    if !lacks(directory, &found.mount, Version::Unified, controller, files) {
                        continue;
                    }
                    "this kernel has no such file".to_owned()
                }
            };
            bad.push(format!("`linux.resources.unified`: `{}`: {why}", key.escape_debug()));
        }
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
        let now = settings.iter().filter(|setting| setting.controller != COUNTING);
        now.into_iter().try_for_each(|setting| set(cgroup, setting))?;
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

impl Planned {
    /// Has no more processes than it may have from now on: whoever is in it stays.
    pub(crate) fn limit_processes(&self) -> Result<()> {
        let counting = self.settings.iter().filter(|setting| setting.controller == COUNTING);
        counting.into_iter().try_for_each(|setting| set(&self.cgroup, setting))
    }
}

/// Whether a directory is there for us to write, or can be made.
fn is_ours(directory: &Path) -> bool {
    let Some(found) = directory.ancestors().find(|path| path.exists()) else { return false };
    let is_fixed = statvfs(found).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    access(found, rustix::fs::Access::WRITE_OK).is_ok()
        && access(found.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
        && !is_fixed
}

/// Why a directory that is there cannot be the container's: all that is in it and below it would end with the container.
fn taken(directory: &Path) -> Option<String> {
    let shown = directory.display();
    if fs::read(directory.join("cgroup.procs")).is_ok_and(|text| !text.is_empty()) {
        return Some(format!("cgroup `{shown}` has processes in it"));
    }
    let mut entries = fs::read_dir(directory).ok()?.flatten();
    let has_others = entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    has_others.then(|| format!("cgroup `{shown}` has others below it"))
}

/// Which version has a controller where this container is to be.
fn version(cgroup: &Cgroup, layout: &Layout, controller: &str) -> Option<Version> {
    let (directory, mount, version) = place(cgroup, layout, controller)?;
    let is_there = version == Version::Legacy || reaches(directory, mount, controller);
    is_there.then_some(version)
}

/// The container's cgroup where a controller would be, and where its hierarchy is mounted.
fn place<'a>(
    cgroup: &'a Cgroup,
    layout: &'a Layout,
    controller: &str,
) -> Option<(&'a Path, &'a Path, Version)> {
    let has = |names: &str| names.split(',').any(|name| name == controller);
    if let Some((names, directory)) = cgroup.legacy.iter().find(|(names, _)| has(names)) {
        let (_, found) = layout.legacy.iter().find(|(known, _)| known.join(",") == *names)?;
        return Some((directory, &found.mount, Version::Legacy));
    }
    Some((cgroup.unified.as_ref()?, &layout.unified.as_ref()?.mount, Version::Unified))
}

/// Whether a controller of version 2 can be had in a cgroup: the nearest one above that has it hands it on, and so can all
/// between them.
fn reaches(directory: &Path, mount: &Path, controller: &str) -> bool {
    let above = directory.ancestors().skip(1).take_while(|path| path.starts_with(mount));
    for path in above.filter(|path| path.exists()) {
        let is_writable =
            || access(path.join("cgroup.subtree_control"), rustix::fs::Access::WRITE_OK).is_ok();
        if !lists(path, "cgroup.subtree_control", controller) && (has_room_for_none(path) || !is_writable()) {
            return false;
        }
        if lists(path, "cgroup.controllers", controller) {
            return true;
        }
    }
    false
}

fn lists(directory: &Path, file: &str, controller: &str) -> bool {
    let listed = fs::read_to_string(directory.join(file)).unwrap_or_default();
    listed.split_whitespace().any(|name| name == unified(controller))
}

/// Whether the kernel is seen to have none of these files, by cgroups that are there; without any, setting it will tell.
fn lacks(directory: &Path, mount: &Path, version: Version, controller: &str, files: &[String]) -> bool {
    // The uppermost has not all files, and in version 2 only who was given a controller has those of it.
    let shows = |path: &Path| {
        path != mount && (version == Version::Legacy || lists(path, "cgroup.controllers", controller))
    };
    let others = || {
        let entries = fs::read_dir(mount).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| path.is_dir() && shows(path))
    };
    let base = directory.ancestors().find(|path| path.exists());
    let Some(seen) = base.filter(|path| shows(path)).map(Path::to_owned).or_else(others) else {
        return false;
    };
    // It may have been taken away meanwhile, and tells nothing then.
    !files.iter().any(|file| seen.join(file).exists()) && seen.join("cgroup.procs").exists()
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
            return write(&path, &setting.text_for(file));
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Computer(tempfile::TempDir);

    impl Computer {
        fn new(files: &[(&str, &str)]) -> Self {
            let computer = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(path, text)| computer.put(path, text));
            computer
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn reaches(&self, path: &str, controller: &str) -> bool {
            reaches(&self.0.path().join(path), self.0.path(), controller)
        }

        fn lacks(&self, path: &str, version: Version, files: &[&str]) -> bool {
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            lacks(&self.0.path().join(path), self.0.path(), version, "blkio", &files)
        }
    }

    #[test]
    fn a_controller_is_to_be_had_where_all_above_can_hand_it_on() {
        let computer = Computer::new(&[
            ("cgroup.controllers", "hugetlb io"),
            ("cgroup.subtree_control", "hugetlb"),
            ("ours/cgroup.type", "domain"),
            ("ours/cgroup.controllers", "hugetlb"),
            ("ours/cgroup.subtree_control", ""),
            ("ours/oci/cgroup.type", "domain"),
            ("ours/oci/cgroup.controllers", ""),
            ("ours/oci/cgroup.subtree_control", ""),
        ]);
        assert!(computer.reaches("ours/oci/box", "hugetlb"));
        assert!(computer.reaches("ours/oci/not/yet/box", "blkio"), "it is `io` in version 2");
        assert!(!computer.reaches("ours/oci/box", "memory"));
        computer.put("ours/cgroup.procs", "7\n");
        assert!(!computer.reaches("ours/oci/box", "hugetlb"), "one with processes hands on nothing");
        computer.put("ours/cgroup.subtree_control", "hugetlb");
        assert!(computer.reaches("ours/oci/box", "hugetlb"), "unless it does already");
    }

    #[test]
    fn what_a_kernel_lacks_is_seen_of_cgroups_that_are_there() {
        let computer = Computer::new(&[("cgroup.procs", "1\n")]);
        assert!(
            !computer.lacks("box", Version::Legacy, &["blkio.weight"]),
            "nothing is seen of the uppermost"
        );
        computer.put("other/cgroup.procs", "");
        computer.put("other/blkio.weight", "500");
        assert!(!computer.lacks("box", Version::Legacy, &["blkio.nosuch", "blkio.weight"]), "one is enough");
        assert!(computer.lacks("box", Version::Legacy, &["blkio.leaf_weight"]));
        assert!(computer.lacks("other/box", Version::Legacy, &["blkio.leaf_weight"]));
        assert!(!computer.lacks("box", Version::Unified, &["io.weight"]), "nobody was given the controller");
        computer.put("other/cgroup.controllers", "io");
        assert!(computer.lacks("box", Version::Unified, &["io.weight"]));
    }

    #[test]
    fn a_cgroup_is_the_containers_alone_or_refused() {
        let computer = Computer::new(&[
            ("empty/cgroup.procs", ""),
            ("busy/cgroup.procs", "1\n"),
            ("above/box/cgroup.procs", ""),
        ]);
        let said = |path: &str| {
            taken(&computer.0.path().join(path)).map(|why| why.split("` ").last().unwrap().to_owned())
        };
        assert_eq!(said("missing"), None);
        assert_eq!(said("empty"), None);
        assert_eq!(said("busy").as_deref(), Some("has processes in it"));
        assert_eq!(said("above").as_deref(), Some("has others below it"));
    }
}
