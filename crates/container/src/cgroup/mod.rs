//! The cgroups of a container: one directory in each hierarchy that it is in.
//!
//! Root has ours below the top of each hierarchy. An ordinary user has them below the cgroup of whoever makes the
//! container, if that was delegated, as the scope is that it has from the user's systemd; if not, there are none, and
//! limits are refused. Where they are is on record in
//! the container's state directory from before they are made, so whoever comes later finds them.

pub(crate) mod device;
mod disk;
pub(crate) mod layout;
pub(crate) mod limits;
mod processors;
pub(crate) mod reach;
mod refused;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stead_model::container::{Limits, Mode};

use crate::mounts::device::Node;
use crate::mounts::plan::Cgroups;
use crate::scope;
use crate::stamp;
use crate::tree::{self, Contents};
use layout::{Hierarchy, Layout};
use limits::{Controller, Setting, Version, asked, settings};
pub use refused::{LimitRefusal, is_limited, limits_refused};

/// Below this are all of ours.
const TOP: &str = "stead";

/// What a container is in on version 1 beside what its limits need: to see what it uses.
const WATCHED: [Controller; 2] = [Controller::Memory, Controller::Pids];

/// What it is in where version 2 does not do this for it; the last is where systemd keeps its services.
const WITHOUT_UNIFIED: [&str; 4] = ["devices", "freezer", "cpuacct", SYSTEMD];

/// So many machines in a row may have been given another name while they run, each before the next took the one it had.
const NAMES_MAX: usize = 1000;

/// The hierarchy of version 1 without controllers that systemd has for itself.
const SYSTEMD: &str = "name=systemd";

/// The cgroups of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// In version 2.
    pub(crate) unified: Option<PathBuf>,
    /// In version 1, with the controllers.
    pub(crate) legacy: Vec<(String, PathBuf)>,
}

/// How this computer's hierarchies can be used by us.
pub(crate) struct Ground {
    layout: Layout,
    is_mapped: bool,
    /// Whether a container is in all hierarchies of version 1, and sees them: for an init that works with them.
    is_whole: bool,
}

impl Ground {
    /// Looks at this computer.
    pub(crate) fn observe(is_mapped: bool) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"));
        let layout =
            Layout::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, layout::is_seen);
        Ok(Self { layout, is_mapped, is_whole: false })
    }

    /// For an init that works with version 1: beside a version 2 without controllers it would have none at all, nor would
    /// the containers within.
    pub(crate) fn whole(self) -> Self {
        let is_whole = self
            .layout
            .legacy
            .iter()
            .any(|(names, found)| names.iter().any(|name| name == SYSTEMD) && self.base(found).is_some());
        Self { is_whole, ..self }
    }

    /// The hierarchies.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether we are in a user namespace that is not the computer's own.
    pub(crate) fn is_mapped(&self) -> bool {
        self.is_mapped
    }

    /// Below which directory ours are in a hierarchy; `None` where that is not for us to write.
    fn base(&self, hierarchy: &Hierarchy) -> Option<PathBuf> {
        let own = if self.is_mapped { scope::above_seat(&hierarchy.own) } else { Path::new("") };
        let base = hierarchy.mount.join(own);
        let is_ours = access(&base, Access::WRITE_OK).is_ok()
            && access(base.join("cgroup.procs"), Access::WRITE_OK).is_ok()
            && !is_read_only(&base);
        is_ours.then_some(base)
    }

    fn unified(&self) -> Option<PathBuf> {
        self.base(self.layout.unified.as_ref()?)
    }

    /// Which version has a controller that we can use.
    fn version(&self, controller: Controller) -> Option<Version> {
        if self.layout.legacy(controller.legacy()).is_some_and(|found| self.base(found).is_some()) {
            return Some(Version::Legacy);
        }
        let listed = fs::read_to_string(self.unified()?.join("cgroup.controllers")).unwrap_or_default();
        listed.split_whitespace().any(|name| name == controller.unified()).then_some(Version::Unified)
    }

    /// Below which directory ours are in the hierarchy that has this controller.
    fn base_of(&self, controller: Controller) -> Option<(Version, PathBuf)> {
        let version = self.version(controller)?;
        let hierarchy = match version {
            Version::Legacy => self.layout.legacy(controller.legacy()),
            Version::Unified => self.layout.unified.as_ref(),
        };
        Some((version, self.base(hierarchy?)?))
    }

    /// Where a container with these limits is to be, by a name that no other has.
    fn choose_free(&self, name: &str, limits: &Limits) -> Result<Cgroup> {
        let more = (1..NAMES_MAX).map(|number| format!("{name}+{number}"));
        let mut found = std::iter::once(name.to_owned()).chain(more).map(|name| self.choose(&name, limits));
        let free = found.find(|cgroup| cgroup.directories().all(|directory| !directory.exists()));
        free.with_context(|| format!("there are {NAMES_MAX} cgroups called `{name}` or so"))
    }

    /// Where a container with these limits is to be.
    fn choose(&self, name: &str, limits: &Limits) -> Cgroup {
        let unified = self.unified().map(|base| base.join(TOP).join(name));
        let mut wanted: BTreeSet<&str> = WATCHED.map(Controller::legacy).into();
        wanted.extend(asked(limits).iter().map(|(_, controller)| controller.legacy()));
        if unified.is_none() {
            wanted.extend(WITHOUT_UNIFIED);
        }
        let mut legacy = Vec::new();
        for (controllers, hierarchy) in &self.layout.legacy {
            let is_wanted = self.is_whole || controllers.iter().any(|name| wanted.contains(name.as_str()));
            if let Some(base) = self.base(hierarchy).filter(|_| is_wanted) {
                legacy.push((controllers.join(","), base.join(TOP).join(name)));
            }
        }
        Cgroup { unified, legacy }
    }

    /// How they are shown in a container.
    pub(crate) fn shown(&self, cgroup: &Cgroup, mode: Mode) -> Cgroups {
        let controllers = cgroup.legacy.iter().map(|(controllers, _)| controllers.clone()).collect();
        match (&self.layout.unified, self.layout.legacy.is_empty()) {
            (None, true) => Cgroups::None,
            (Some(_), true) => Cgroups::Unified,
            // An init of its own that finds version 2 makes do with it, even without controllers.
            (Some(_), false) if mode == Mode::System && !self.is_whole => Cgroups::Unified,
            (unified, false) => Cgroups::Legacy { controllers, unified: unified.is_some() },
        }
    }
}

/// Has the kernel get ready for processes that join cgroups of version 1. The first in a while waits for all processors to
/// have paused, which takes some 8 ms; those that follow within about twice that do not. So this is to be begun early, beside
/// other work: we join what we are in already.
pub fn expect_joins() {
    let Ok(ground) = Ground::observe(false) else { return };
    let Some(hierarchy) = ground.layout.legacy(Controller::Memory.legacy()) else { return };
    let procs = hierarchy.mount.join(&hierarchy.own).join("cgroup.procs");
    // Where another namespace's mounts are seen, that may be somebody else's.
    let own = std::process::id().to_string();
    if fs::read_to_string(&procs).is_ok_and(|pids| pids.lines().any(|pid| pid == own)) {
        // If it fails nothing was gained, and nothing else is.
        let _unprepared = write(&procs, "0");
    }
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The file in which is on record where a container's cgroups are.
const RECORD: &str = "cgroup.json";

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    cgroup: Cgroup,
    /// The computer's run in which that is so: in the next one another may be there. Records of before say none.
    #[serde(default)]
    boot: Option<String>,
}

impl Cgroup {
    /// Makes the cgroups, with limits. What is left of a former run of the same container goes first. What else has the
    /// name is another's: one that runs keeps the cgroups that it was started with, whatever it is called by then.
    pub(crate) fn create(ground: &Ground, name: &str, limits: &Limits, state: &Path) -> Result<Self> {
        let lawful = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !name.split('/').all(lawful) {
            bail!("`{}` is no name of a cgroup", name.escape_debug());
        }
        let (disks, no_disks) = disk::disks(limits);
        if let Some(why) = no_disks.into_iter().next() {
            bail!(why);
        }
        Self::load(state)?.remove()?;
        let cgroup = ground.choose_free(name, limits)?;
        cgroup.store(state)?;
        for (_, directory) in &cgroup.legacy {
            make(directory, adopt_cpuset)?;
        }
        let mut refused = BTreeMap::new();
        if let Some(directory) = &cgroup.unified {
            make(directory, |_| Ok(()))?;
            bound(directory);
            let wanted = asked(limits).into_iter().map(|(_, controller)| controller).chain(WATCHED);
            let wanted = wanted.chain([Controller::Cpu, Controller::Io]);
            refused = reach::enable(directory, name.split('/').count() + 1, &wanted.collect());
        }
        let version = |controller| ground.version(controller).unwrap_or(Version::Unified);
        for setting in settings(limits, &disks, version) {
            let done = cgroup.set(&setting);
            let done = done.map_err(|error| match version(setting.controller) {
                // Why there is no such file, if that is known.
                Version::Unified => refused.remove(&setting.controller).unwrap_or(error),
                Version::Legacy => error,
            });
            done.with_context(|| {
                format!("cannot limit {} to {}", setting.controller.legacy(), setting.text)
            })?;
        }
        Ok(cgroup)
    }

    /// Puts on record where they are, or are going to be.
    pub(crate) fn store(&self, state: &Path) -> Result<()> {
        let path = state.join(RECORD);
        let record = Record { cgroup: self.clone(), boot: Some(stamp::boot()) };
        fs::write(&path, serde_json::to_vec(&record)?)
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// Where they are, by the record in this state directory; nowhere if there is none.
    pub(crate) fn load(state: &Path) -> Result<Self> {
        let path = state.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        // A record that was cut off was written before anything was made.
        let record: Option<Record> = serde_json::from_slice(&text).ok();
        let is_now = |record: &Record| record.boot.as_ref().is_none_or(|boot| *boot == stamp::boot());
        Ok(record.filter(is_now).map(|record| record.cgroup).unwrap_or_default())
    }

    /// Forgets where they are, once they are removed.
    pub(crate) fn forget(state: &Path) -> Result<()> {
        match fs::remove_file(state.join(RECORD)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot remove a record"),
            _ => Ok(()),
        }
    }

    /// Whether an init can keep its services in cgroups of its own.
    pub(crate) fn can_hold_system(&self) -> bool {
        self.unified.is_some() || self.legacy.iter().any(|(names, _)| names == SYSTEMD)
    }

    /// Moves this process into them, as one more of the container's, whose first one is `init`.
    pub(crate) fn join(&self, init: u32) -> Result<()> {
        for directory in self.directories() {
            let procs = directory.join("cgroup.procs");
            match fs::write(&procs, "0") {
                Ok(()) => {}
                // A system that hands controllers on to its services has no processes in the uppermost one.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                    let held = watch::holder(directory, init).unwrap_or_else(|| directory.to_owned());
                    write(&held.join("cgroup.procs"), "0")?;
                }
                // The kernel moves an ordinary user's processes only within what was delegated to them; systemd does.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let held = watch::holder(directory, init).unwrap_or_else(|| directory.to_owned());
                    let moved = scope::join(&held).context("the user's systemd does not move it");
                    if matches!(moved, Ok(true)) {
                        continue;
                    }
                    if !crate::mounts::root::is_mapped_here()? {
                        return Err(error).with_context(|| format!("cannot write `{}`", procs.display()));
                    }
                    let why = moved.err().unwrap_or_else(|| error.into());
                    tracing::warn!("a process in the container is not within its limits: {why:#}");
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot write `{}`", procs.display()));
                }
            }
        }
        Ok(())
    }

    /// The directory that has this controller.
    pub(crate) fn directory(&self, controller: &str) -> Option<&Path> {
        let mut legacy = self.legacy.iter();
        let has = legacy.find(|(names, _)| names.split(',').any(|name| name == controller));
        has.map(|(_, directory)| directory.as_path()).or(self.unified.as_deref())
    }

    fn set(&self, setting: &Setting) -> Result<()> {
        let Some(directory) = self.directory(setting.controller.legacy()) else {
            anyhow::ensure!(setting.is_usual, "there is no cgroup for it");
            return Ok(());
        };
        for file in setting.files {
            let path = directory.join(file);
            if path.exists() {
                return write(&path, &setting.text_for(file));
            }
        }
        if setting.is_usual {
            return Ok(());
        }
        bail!("this kernel has no `{}`", setting.files.join("` or `"));
    }

    /// Allows only these devices.
    pub(crate) fn guard_devices(&self, nodes: &[Node]) -> Result<()> {
        let rules = device::rules(nodes);
        if let Some(directory) = self.directory("devices").filter(|path| path.join("devices.deny").exists()) {
            write(&directory.join("devices.deny"), "a")?;
            return rules
                .iter()
                .try_for_each(|rule| write(&directory.join("devices.allow"), &device::line(rule)));
        }
        let unified = self.unified.as_ref().context(
            "there is no cgroup by which its devices could be guarded; hint: mount `/sys/fs/cgroup` writable, or \
             run it with `--privileged` if it may use all devices",
        )?;
        let directory = fs::File::open(unified).context("cannot open the cgroup")?;
        crate::sys::attach_device_filter(std::os::fd::AsFd::as_fd(&directory), &device::program(&rules))
            .context("cannot restrict devices")
    }

    /// Takes them away, with all that are in them. Their processes must be ending.
    pub(crate) fn remove(&self) -> Result<()> {
        for directory in self.directories() {
            remove_tree(directory).with_context(|| format!("cannot remove `{}`", directory.display()))?;
            // Those above go when they are empty; if not, others are in them.
            for above in directory.ancestors().skip(1) {
                if !is_ours(above) || fs::remove_dir(above).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().chain(self.legacy.iter().map(|(_, directory)| directory)).map(PathBuf::as_path)
    }
}

/// How often a directory is tried to be made: each time another machine's end took away one above that was empty.
const MAKE_ATTEMPTS: u32 = 100;

/// Makes a directory and those above that are missing. Each of ours is told to `fresh`, which may have been told of
/// it before: another machine that makes it at the same time may not have come so far.
pub(crate) fn make(directory: &Path, fresh: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let mut attempt = 0;
    loop {
        match make_once(directory, &fresh) {
            Err(error) if is_gone(&error) && attempt < MAKE_ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

fn make_once(directory: &Path, fresh: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let mut ours: Vec<&Path> =
        directory.ancestors().take_while(|path| is_ours(path) || !path.exists()).collect();
    ours.reverse();
    for path in ours {
        match fs::create_dir(path) {
            // Another machine's was made at the same time.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path != directory => {}
            done => done.with_context(|| format!("cannot make `{}`", path.display()))?,
        }
        fresh(path)?;
    }
    Ok(())
}

/// Whether a directory is at or below the one in which all of ours are.
fn is_ours(directory: &Path) -> bool {
    directory.ancestors().any(|path| path.ends_with(TOP))
}

/// A new cgroup of version 1 has no processors and no memory, and no process can be in it, until it is given some.
pub(crate) fn adopt_cpuset(directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let Some(above) = directory.parent().map(|parent| parent.join(file)) else { continue };
        if own.exists() && fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty()) {
            write(&own, fs::read_to_string(&above).context("cannot read the cpuset above")?.trim())?;
        }
    }
    Ok(())
}

/// More cgroups than any system with containers of its own has, and few enough to be walked.
const BOUNDS: [(&str, &str); 2] = [("cgroup.max.depth", "64"), ("cgroup.max.descendants", "20000")];

/// Has the kernel refuse a container cgroups without end. Version 1 cannot: there they are only taken away.
fn bound(directory: &Path) {
    for (file, most) in BOUNDS {
        let path = directory.join(file);
        // Since 4.14. It is no more than a fence: what is beyond is taken away all the same.
        if path.exists()
            && let Err(error) = write(&path, most)
        {
            tracing::debug!("{error:#}");
        }
    }
}

/// The kernel takes each text in one write.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("cannot write `{text}` to `{}`", path.display());
    let mut file = fs::OpenOptions::new().write(true).open(path).with_context(doing)?;
    file.write_all(text.as_bytes()).with_context(doing)
}

/// How long processes that were killed may take to leave a cgroup.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
const LEAVE_LOOK_EVERY: Duration = Duration::from_millis(2);

fn remove_tree(directory: &Path) -> Result<()> {
    let deadline = Instant::now() + LEAVE_LIMIT;
    loop {
        match tree::remove(directory, Contents::Cgroups) {
            // Processes that were killed are in it yet; or some were quicker than we, and made one more.
            Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                std::thread::sleep(LEAVE_LOOK_EVERY);
            }
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_come_and_go_at_once_do_not_take_each_others_directories_away() {
        let computer = tempfile::tempdir().unwrap();
        let of = |machine: usize| Cgroup {
            unified: Some(computer.path().join(TOP).join("home").join(machine.to_string())),
            legacy: Vec::new(),
        };
        std::thread::scope(|scope| {
            for machine in 0..4 {
                let cgroup = of(machine);
                scope.spawn(move || {
                    for _ in 0..500 {
                        for directory in cgroup.directories() {
                            make(directory, |_| Ok(())).unwrap();
                            assert!(directory.exists());
                        }
                        cgroup.remove().unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(computer.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_container_takes_no_cgroup_that_another_was_started_with() {
        let computer = tempfile::tempdir().unwrap();
        std::fs::write(computer.path().join("cgroup.procs"), "").unwrap();
        let unified = layout::Hierarchy { mount: computer.path().to_owned(), own: PathBuf::new() };
        let layout = Layout { unified: Some(unified), legacy: Vec::new() };
        let ground = Ground { layout, is_mapped: false, is_whole: false };
        let top = computer.path().join(TOP).join("home");
        for name in ["web.shop", "web.shop+1", "web.shop+2"] {
            let free = ground.choose_free("home/web.shop", &Limits::default()).unwrap();
            assert_eq!(free.unified, Some(top.join(name)));
            fs::create_dir_all(top.join(name)).unwrap();
        }
        fs::remove_dir(top.join("web.shop")).unwrap();
        let free = ground.choose_free("home/web.shop", &Limits::default()).unwrap();
        assert_eq!(free.unified, Some(top.join("web.shop")));
    }

    #[test]
    fn what_was_on_record_before_the_computer_was_started_is_another_containers_now() {
        let state = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { unified: Some("/sys/fs/cgroup/stead/web".into()), ..Cgroup::default() };
        cgroup.store(state.path()).unwrap();
        assert_eq!(Cgroup::load(state.path()).unwrap(), cgroup);
        let record = state.path().join(RECORD);
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, text.replace(&stamp::boot(), "another")).unwrap();
        assert_eq!(Cgroup::load(state.path()).unwrap(), Cgroup::default());
        // As it was written before.
        fs::write(&record, serde_json::to_vec(&cgroup).unwrap()).unwrap();
        assert_eq!(Cgroup::load(state.path()).unwrap(), cgroup);
    }

    #[test]
    fn cgroups_go_whose_path_is_longer_than_one_may_be() {
        let computer = tempfile::tempdir().unwrap();
        let top = computer.path().join(TOP).join("home").join("machine");
        fs::create_dir_all(&top).unwrap();
        let mut here = fs::File::open(&top).unwrap();
        for _ in 0..30 {
            let name = "n".repeat(200);
            rustix::fs::mkdirat(&here, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let below = rustix::fs::openat(&here, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap();
            here = fs::File::from(below);
        }
        Cgroup { unified: Some(top), legacy: Vec::new() }.remove().unwrap();
        assert_eq!(fs::read_dir(computer.path()).unwrap().count(), 0);
    }
}
