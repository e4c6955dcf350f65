//! The cgroups that a bundle asks for, and what is written in their files.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{StatVfsMountFlags, access, statvfs};

use super::check::Refused;
use super::config::{BlockIo, Cpu, DeviceRule, Memory, Resources, Throttle};
use crate::cgroup::device::{self, Kind, Rule};
use crate::cgroup::layout::{Hierarchy, Layout};
use crate::cgroup::limits::{Version, weight};
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

/// A text for a file of a cgroup. The first of these files that exists is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    files: Vec<String>,
    text: String,
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

/// What is written where, in order. What a version does not have is said in `bad`.
fn settings(resources: &Resources, version: &dyn Fn(&str) -> Version, bad: &mut Vec<String>) -> Vec<Setting> {
    let mut list = List { version, settings: Vec::new(), bad };
    cpu(&resources.cpu, &mut list);
    memory(&resources.memory, &mut list);
    if let Some(limit) = resources.pids.limit {
        list.both("pids", "pids.max", &unlimited(limit, "max"));
    }
    block_io(&resources.block_io, &mut list);
    for huge in &resources.hugepage_limits {
        let size = &huge.page_size;
        let file = |end: &str| format!("hugetlb.{size}.{end}");
        let limit = huge.limit.to_string();
        list.one(
            "hugetlb",
            &[&file("rsvd.limit_in_bytes"), &file("limit_in_bytes")],
            &[&file("rsvd.max"), &file("max")],
            &limit,
        );
    }
    if let Some(class) = resources.network.class_id {
        list.one("net_cls", &["net_cls.classid"], &[], &class.to_string());
    }
    for priority in &resources.network.priorities {
        list.one(
            "net_prio",
            &["net_prio.ifpriomap"],
            &[],
            &format!("{} {}", priority.name, priority.priority),
        );
    }
    for (name, limits) in &resources.rdma {
        let part =
            |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
        let text = format!(
            "{name}{}{}",
            part("hca_handle", limits.hca_handles),
            part("hca_object", limits.hca_objects)
        );
        list.both("rdma", "rdma.max", &text);
    }
    list.settings
}

fn cpu(cpu: &Cpu, list: &mut List<'_>) {
    for (text, file) in [(&cpu.cpus, "cpuset.cpus"), (&cpu.mems, "cpuset.mems")] {
        if !text.is_empty() {
            list.both("cpuset", file, text);
        }
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        list.legacy("cpu", "cpu.shares", &shares.to_string());
        list.unified("cpu", "cpu.weight", &weight(shares).to_string());
    }
    if let Some(idle) = cpu.idle {
        list.both("cpu", "cpu.idle", &idle.to_string());
    }
    if let Some(period) = cpu.period.filter(|period| *period > 0) {
        list.legacy("cpu", "cpu.cfs_period_us", &period.to_string());
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        list.legacy("cpu", "cpu.cfs_quota_us", &quota.to_string());
    }
    if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period > 0) {
        let quota =
            cpu.quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let period = cpu.period.filter(|period| *period > 0).unwrap_or(100_000);
        list.unified("cpu", "cpu.max", &format!("{quota} {period}"));
    }
    if let Some(burst) = cpu.burst {
        list.one("cpu", &["cpu.cfs_burst_us"], &["cpu.max.burst"], &burst.to_string());
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period > 0) {
        list.one("cpu", &["cpu.rt_period_us"], &[], &period.to_string());
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        list.one("cpu", &["cpu.rt_runtime_us"], &[], &runtime.to_string());
    }
}

fn memory(memory: &Memory, list: &mut List<'_>) {
    if let Some(limit) = memory.limit {
        list.legacy("memory", "memory.limit_in_bytes", &limit.to_string());
        list.unified("memory", "memory.max", &unlimited(limit, "max"));
    }
    if let Some(reservation) = memory.reservation {
        list.legacy("memory", "memory.soft_limit_in_bytes", &reservation.to_string());
        list.unified("memory", "memory.low", &unlimited(reservation, "max"));
    }
    if let Some(both) = memory.swap.filter(|both| *both != 0) {
        // Version 1 counts memory and swap together, version 2 swap alone.
        list.legacy("memory", "memory.memsw.limit_in_bytes", &both.to_string());
        match (both, memory.limit) {
            (..=-1, _) => list.unified("memory", "memory.swap.max", "max"),
            (_, Some(limit)) if limit >= 0 && both >= limit => {
                list.unified("memory", "memory.swap.max", &(both - limit).to_string());
            }
            _ => list.bad.push("`memory.swap` is not more than `memory.limit`".to_owned()),
        }
    }
    if memory.kernel.is_some() {
        // Kernels have done without since 5.16: memory of theirs counts as the container's own.
        tracing::warn!("`memory.kernel` is not limited: kernels have no such limit any more");
    }
    if let Some(limit) = memory.kernel_tcp {
        list.one("memory", &["memory.kmem.tcp.limit_in_bytes"], &[], &limit.to_string());
    }
    if let Some(swappiness) = memory.swappiness {
        list.one("memory", &["memory.swappiness"], &[], &swappiness.to_string());
    }
    if memory.disable_oom_killer == Some(true) {
        list.one("memory", &["memory.oom_control"], &[], "1");
    }
    if memory.use_hierarchy == Some(true) {
        list.legacy("memory", "memory.use_hierarchy", "1");
    }
}

fn block_io(io: &BlockIo, list: &mut List<'_>) {
    const WEIGHT: [&str; 2] = ["blkio.weight", "blkio.bfq.weight"];
    const WEIGHT_DEVICE: [&str; 2] = ["blkio.weight_device", "blkio.bfq.weight_device"];
    if let Some(weight) = io.weight.filter(|weight| *weight > 0) {
        list.one("blkio", &WEIGHT, &["io.bfq.weight", "io.weight"], &weight.to_string());
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight > 0) {
        list.one("blkio", &["blkio.leaf_weight"], &[], &weight.to_string());
    }
    for device in &io.weight_device {
        let text = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight {
            list.one("blkio", &WEIGHT_DEVICE, &["io.bfq.weight"], &text(weight));
        }
        if let Some(weight) = device.leaf_weight {
            list.one("blkio", &["blkio.leaf_weight_device"], &[], &text(weight));
        }
    }
    let all: [(&[Throttle], &str, &str); 4] = [
        (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
        (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
        (&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops"),
        (&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops"),
    ];
    for (throttles, file, key) in all {
        for Throttle { major, minor, rate } in throttles {
            list.legacy("blkio", file, &format!("{major}:{minor} {rate}"));
            list.unified("blkio", "io.max", &format!("{major}:{minor} {key}={rate}"));
        }
    }
}

fn unlimited(value: i64, word: &str) -> String {
    if value < 0 { word.to_owned() } else { value.to_string() }
}

/// Settings, as they are collected.
struct List<'a> {
    version: &'a dyn Fn(&str) -> Version,
    settings: Vec<Setting>,
    bad: &'a mut Vec<String>,
}

impl List<'_> {
    /// In files of either version; a version that has none cannot do it.
    fn one(&mut self, controller: &'static str, legacy: &[&str], unified: &[&str], text: &str) {
        let files = match (self.version)(controller) {
            Version::Legacy => legacy,
            Version::Unified => unified,
        };
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        if files.is_empty() {
            self.bad.push(format!("version 2 of cgroups has no `{}`", legacy.join("` or `")));
        }
        self.settings.push(Setting { controller, files, text: text.to_owned() });
    }

    fn both(&mut self, controller: &'static str, file: &str, text: &str) {
        self.one(controller, &[file], &[file], text);
    }

    fn legacy(&mut self, controller: &'static str, file: &str, text: &str) {
        if (self.version)(controller) == Version::Legacy {
            self.both(controller, file, text);
        }
    }

    fn unified(&mut self, controller: &'static str, file: &str, text: &str) {
        if (self.version)(controller) == Version::Unified {
            self.both(controller, file, text);
        }
    }
}
