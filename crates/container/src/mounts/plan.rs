//! What is mounted in a container, in order: a value, made of what is to be launched and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use stead_model::container::{Access, Launch, Mode, Mount, Propagation};
use stead_model::name::Name;

use crate::place::Place;

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub(crate) const READ_ONLY: u64 = 1;
pub(crate) const NO_SUID: u64 = 2;
pub(crate) const NO_DEVICES: u64 = 4;
pub(crate) const NO_EXECUTION: u64 = 8;
const NOTHING: u64 = NO_SUID | NO_DEVICES | NO_EXECUTION;

/// `/dev/shm`, where nothing is said: Docker's size.
const SHM_BYTES: u64 = 64 << 20;

/// The group that terminals belong to, in all distributions.
const TTY_GROUP: u32 = 5;

/// Something to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Its place in the container.
    pub(crate) target: String,
    pub(crate) what: What,
    /// `MOUNT_ATTR_*`.
    pub(crate) attributes: u64,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A file system of the kernel's, with its options.
    Kernel { kind: Kind, options: Vec<(&'static str, String)> },
    /// A file or directory of this computer, with all that is mounted below it.
    Bind { source: PathBuf, propagation: Propagation, create: bool },
    /// A directory that, while it is empty, is filled with what the image has at its place.
    Volume { source: PathBuf },
}

/// A file system of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Proc,
    Sysfs,
    Tmpfs,
    Devpts,
    Mqueue,
    Cgroup2,
    Cgroup1,
}

impl Kind {
    /// Its name, as the kernel has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Sysfs => "sysfs",
            Self::Tmpfs => "tmpfs",
            Self::Devpts => "devpts",
            Self::Mqueue => "mqueue",
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup1 => "cgroup",
        }
    }
}

/// What of this computer decides what can be mounted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ground {
    /// Whether the group of terminals exists in our user namespace.
    pub(crate) has_tty_group: bool,
    /// How cgroups are mounted here.
    pub(crate) cgroups: Cgroups,
}

/// How cgroups are mounted on this computer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// Not at all.
    #[default]
    None,
    /// Only version 2.
    Unified,
    /// Version 1, with the controllers that the container is in, and version 2 beside it where `unified`.
    Legacy { controllers: Vec<String>, unified: bool },
}

/// The directory of a volume of a machine's own, for its place.
pub(crate) fn own_volume(directory: &Path, target: &str) -> PathBuf {
    directory.join(target.trim_start_matches('/').replace('%', "%25").replace('/', "%2F"))
}

/// All that is mounted, those above others first.
pub(crate) fn plan(launch: &Launch, place: &Place, ground: &Ground) -> Result<Vec<Planned>> {
    let mut mounts = usual(launch, ground);
    mounts.extend(texts(launch, place));
    for target in &launch.own_volumes {
        let source = own_volume(&place.own_volumes, target);
        mounts.push(Planned { target: target.clone(), what: What::Volume { source }, attributes: 0 });
    }
    for (target, mount) in &launch.mounts {
        mounts.retain(|usual| usual.target != *target);
        mounts.push(wanted(target, mount, &place.volumes)?);
    }
    // What is asked for may lie above what every container has.
    mounts.sort_by_key(|mount| mount.target.split('/').count());
    Ok(mounts)
}

/// What every container has.
fn usual(launch: &Launch, ground: &Ground) -> Vec<Planned> {
    let tmpfs = |target: &str, attributes: u64, mode: &str, size_bytes: Option<u64>| {
        let size = size_bytes.map(|bytes| ("size", bytes.to_string()));
        kernel(target, Kind::Tmpfs, attributes, [("mode", mode.to_owned())].into_iter().chain(size).collect())
    };
    let is_whole = launch.rights.privileged;
    let system_access = if is_whole { 0 } else { READ_ONLY };
    let mut mounts = vec![
        kernel("/proc", Kind::Proc, NOTHING, vec![]),
        kernel("/sys", Kind::Sysfs, NOTHING | system_access, vec![]),
    ];
    mounts.extend(cgroups(launch, &ground.cgroups));
    mounts.push(tmpfs("/dev", NO_SUID, "755", Some(64 << 20)));
    let mut pts = vec![("newinstance", String::new()), ("ptmxmode", "0666".into()), ("mode", "0620".into())];
    pts.extend(ground.has_tty_group.then(|| ("gid", TTY_GROUP.to_string())));
    mounts.push(kernel("/dev/pts", Kind::Devpts, NO_SUID | NO_EXECUTION, pts));
    let shm = launch.limits.shm_bytes.unwrap_or(SHM_BYTES);
    mounts.push(tmpfs("/dev/shm", NOTHING, "1777", Some(shm)));
    mounts.push(kernel("/dev/mqueue", Kind::Mqueue, NOTHING, vec![]));
    if launch.mode == Mode::System {
        // What systemd expects of whoever starts it, and what those that run containers within need: an
        // unchanged view of /proc and /sys, or the kernel does not let them mount their own. As LXC has it.
        mounts.push(tmpfs("/run", NO_SUID | NO_DEVICES, "755", None));
        mounts.push(kernel("/dev/.stead/proc", Kind::Proc, NOTHING, vec![]));
        mounts.push(kernel("/dev/.stead/sys", Kind::Sysfs, NOTHING, vec![]));
    }
    mounts
}

fn kernel(target: &str, kind: Kind, attributes: u64, options: Vec<(&'static str, String)>) -> Planned {
    Planned { target: target.to_owned(), what: What::Kernel { kind, options }, attributes }
}

fn cgroups(launch: &Launch, cgroups: &Cgroups) -> Vec<Planned> {
    const ROOT: &str = "/sys/fs/cgroup";
    let is_own = launch.mode == Mode::System || launch.rights.privileged;
    let attributes = NOTHING | if is_own { 0 } else { READ_ONLY };
    let unified = |target: &str| kernel(target, Kind::Cgroup2, attributes, vec![]);
    match cgroups {
        Cgroups::None => vec![],
        Cgroups::Unified => vec![unified(ROOT)],
        Cgroups::Legacy { controllers, unified: has_unified } => {
            let top = vec![("mode", "755".to_owned())];
            let mut mounts = vec![kernel(ROOT, Kind::Tmpfs, NOTHING, top)];
            mounts.extend(controllers.iter().map(|controllers| {
                // Without a name of its own a hierarchy is called after its controllers.
                let target = format!("{ROOT}/{}", controllers.trim_start_matches("name="));
                let options = vec![("controllers", controllers.clone())];
                kernel(&target, Kind::Cgroup1, attributes, options)
            }));
            mounts.extend(has_unified.then(|| unified(&format!("{ROOT}/unified"))));
            mounts
        }
    }
}

/// The files of `/etc` that we write.
fn texts(launch: &Launch, place: &Place) -> Vec<Planned> {
    let attributes = if launch.rights.read_only { READ_ONLY } else { 0 };
    let given =
        [(true, "hostname"), (place.hosts.is_some(), "hosts"), (place.resolv_conf.is_some(), "resolv.conf")];
    let file = |name: &str| Planned {
        target: format!("/etc/{name}"),
        what: What::Bind { source: place.state.join(name), propagation: Propagation::Private, create: false },
        attributes,
    };
    given.into_iter().filter(|(is_given, _)| *is_given).map(|(_, name)| file(name)).collect()
}

/// What was asked for.
pub(crate) fn wanted(target: &str, mount: &Mount, volumes: &BTreeMap<Name, PathBuf>) -> Result<Planned> {
    let read = |access: Access| match access {
        Access::Read => READ_ONLY,
        Access::Write => 0,
    };
    if target == "/" || !target.starts_with('/') {
        bail!("nothing can be mounted at `{target}`");
    }
    let (what, attributes) = match mount {
        Mount::Volume { name, access, external: _, nocopy } => {
            let source = volumes.get(name).with_context(|| format!("volume `{name}` is not there"))?.clone();
            let what = if *nocopy {
                What::Bind { source, propagation: Propagation::Private, create: false }
            } else {
                What::Volume { source }
            };
            (what, read(*access))
        }
        Mount::Bind { source, access, propagation, create } => {
            let (source, propagation, create) = (source.clone(), *propagation, *create);
            (What::Bind { source, propagation, create }, read(*access))
        }
        Mount::Tmpfs { size_bytes, mode, owner, access, exec } => {
            let mode = ("mode", format!("{:o}", mode.unwrap_or(0o1777)));
            let size = size_bytes.map(|bytes| ("size", bytes.to_string()));
            // The kernel takes ids as they are in our user namespace, which is the container's.
            let ids = [("uid", owner.uid), ("gid", owner.gid)];
            let ids = ids.into_iter().filter_map(|(key, id)| Some((key, id?.to_string())));
            let options = [mode].into_iter().chain(size).chain(ids).collect();
            let nothing = if *exec { NOTHING & !NO_EXECUTION } else { NOTHING };
            (What::Kernel { kind: Kind::Tmpfs, options }, nothing | read(*access))
        }
    };
    Ok(Planned { target: target.to_owned(), what, attributes })
}

/// What nobody in a container is to see.
const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What nobody in a container is to change.
const FIXED: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is hidden and what is made read-only of what the kernel shows.
pub(crate) struct Guarded {
    pub(crate) hidden: &'static [&'static str],
    pub(crate) fixed: &'static [&'static str],
    /// Of what is fixed below, what is not.
    pub(crate) free: &'static [&'static str],
}

/// What of the kernel's file systems is guarded.
pub(crate) fn guarded(launch: &Launch) -> Guarded {
    match (launch.rights.privileged, launch.mode) {
        (true, _) => Guarded { hidden: &[], fixed: &[], free: &[] },
        (false, Mode::Application) => Guarded { hidden: &HIDDEN, fixed: &FIXED, free: &[] },
        // A system routes and filters packets in a network namespace of its own.
        (false, Mode::System) => Guarded { hidden: &HIDDEN, fixed: &FIXED, free: &["/proc/sys/net"] },
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.target)?;
        match &self.what {
            What::Kernel { kind, options } => {
                f.write_str(kind.name())?;
                options.iter().try_for_each(|(key, value)| match value.as_str() {
                    "" => write!(f, ",{key}"),
                    value => write!(f, ",{key}={value}"),
                })?;
            }
            What::Bind { source, propagation, create } => {
                write!(f, "bind {} {propagation:?}", source.display())?;
                if *create {
                    f.write_str(" create")?;
                }
            }
            What::Volume { source } => write!(f, "volume {}", source.display())?,
        }
        let words = [(READ_ONLY, "ro"), (NO_SUID, "nosuid"), (NO_DEVICES, "nodev"), (NO_EXECUTION, "noexec")];
        let set = words.iter().filter(|(bit, _)| self.attributes & bit != 0);
        set.map(|(_, word)| word).try_for_each(|word| write!(f, " {word}"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use stead_model::container::{Container, Owner};
    use stead_model::image::ImageConfig;

    use super::*;

    #[track_caller]
    fn check(change: impl Fn(&mut Launch), ground: &Ground, expected: &Expect) {
        let config = ImageConfig { cmd: vec!["sh".to_owned()], ..ImageConfig::default() };
        let container = Container::new("web".parse().unwrap());
        let mut launch = container.launch(&"web".parse().unwrap(), &config).unwrap();
        change(&mut launch);
        let place = Place {
            layers: vec![],
            upper: "/m/upper".into(),
            is_passing: false,
            work: "/m/work".into(),
            root: "/m/root".into(),
            volumes: [("db".parse().unwrap(), "/volumes/db".into())].into(),
            own_volumes: "/m/own".into(),
            hosts: Some(String::new()),
            resolv_conf: None,
            netns: std::fs::File::open("/proc/self/ns/net").unwrap().into(),
            cgroup: "web".to_owned(),
            state: "/run/m".into(),
        };
        let said = match plan(&launch, &place, ground) {
            Ok(mounts) => mounts.iter().map(|mount| format!("{mount}\n")).collect(),
            Err(error) => format!("{error}\n"),
        };
        expected.assert_eq(&said);
    }

    fn hybrid() -> Ground {
        let controllers = vec!["memory".to_owned(), "name=systemd".to_owned()];
        Ground { has_tty_group: true, cgroups: Cgroups::Legacy { controllers, unified: true } }
    }

    #[test]
    fn a_program_has_what_the_specification_says_and_what_it_asks() {
        check(
            |launch| {
                let volume = Mount::Volume {
                    name: "db".parse().unwrap(),
                    external: None,
                    access: Access::Read,
                    nocopy: false,
                };
                let bind = Mount::Bind {
                    source: "/src".into(),
                    access: Access::Read,
                    propagation: Propagation::Slave,
                    create: true,
                };
                let owner = Owner { uid: Some(7), gid: None };
                let shm = Mount::Tmpfs {
                    size_bytes: Some(5),
                    mode: None,
                    owner,
                    access: Access::Write,
                    exec: false,
                };
                launch.mounts = [("/db", volume), ("/app", bind), ("/dev/shm", shm)]
                    .map(|(target, mount)| (target.to_owned(), mount))
                    .into();
                launch.own_volumes = ["/var/lib/100%".to_owned()].into();
            },
            &hybrid(),
            &expect![[r#"
                /proc proc nosuid nodev noexec
                /sys sysfs ro nosuid nodev noexec
                /dev tmpfs,mode=755,size=67108864 nosuid
                /app bind /src Slave create ro
                /db volume /volumes/db ro
                /dev/pts devpts,newinstance,ptmxmode=0666,mode=0620,gid=5 nosuid noexec
                /dev/mqueue mqueue nosuid nodev noexec
                /etc/hostname bind /run/m/hostname Private
                /etc/hosts bind /run/m/hosts Private
                /dev/shm tmpfs,mode=1777,size=5,uid=7 nosuid nodev noexec
                /sys/fs/cgroup tmpfs,mode=755 nosuid nodev noexec
                /var/lib/100% volume /m/own/var%2Flib%2F100%25
                /sys/fs/cgroup/memory cgroup,controllers=memory ro nosuid nodev noexec
                /sys/fs/cgroup/systemd cgroup,controllers=name=systemd ro nosuid nodev noexec
                /sys/fs/cgroup/unified cgroup2 ro nosuid nodev noexec
            "#]],
        );
    }

    #[test]
    fn a_system_has_its_own_cgroups_and_kernel_views() {
        check(
            |launch| launch.mode = Mode::System,
            &Ground { has_tty_group: true, cgroups: Cgroups::Unified },
            &expect![[r#"
                /proc proc nosuid nodev noexec
                /sys sysfs ro nosuid nodev noexec
                /dev tmpfs,mode=755,size=67108864 nosuid
                /run tmpfs,mode=755 nosuid nodev
                /dev/pts devpts,newinstance,ptmxmode=0666,mode=0620,gid=5 nosuid noexec
                /dev/shm tmpfs,mode=1777,size=67108864 nosuid nodev noexec
                /dev/mqueue mqueue nosuid nodev noexec
                /etc/hostname bind /run/m/hostname Private
                /etc/hosts bind /run/m/hosts Private
                /sys/fs/cgroup cgroup2 nosuid nodev noexec
                /dev/.stead/proc proc nosuid nodev noexec
                /dev/.stead/sys sysfs nosuid nodev noexec
            "#]],
        );
    }

    #[test]
    fn a_privileged_one_writes_what_others_read() {
        let ground = Ground { has_tty_group: false, cgroups: Cgroups::Unified };
        check(
            |launch| launch.rights.privileged = true,
            &ground,
            &expect![[r#"
                /proc proc nosuid nodev noexec
                /sys sysfs nosuid nodev noexec
                /dev tmpfs,mode=755,size=67108864 nosuid
                /dev/pts devpts,newinstance,ptmxmode=0666,mode=0620 nosuid noexec
                /dev/shm tmpfs,mode=1777,size=67108864 nosuid nodev noexec
                /dev/mqueue mqueue nosuid nodev noexec
                /etc/hostname bind /run/m/hostname Private
                /etc/hosts bind /run/m/hosts Private
                /sys/fs/cgroup cgroup2 nosuid nodev noexec
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_refused() {
        let volume = |name: &str| Mount::Volume {
            name: name.parse().unwrap(),
            external: None,
            access: Access::Read,
            nocopy: false,
        };
        let at = |target: &str, name: &str| [(target.to_owned(), volume(name))].into();
        check(
            |launch| launch.mounts = at("/", "db"),
            &Ground::default(),
            &expect![[r#"
            nothing can be mounted at `/`
        "#]],
        );
        check(
            |launch| launch.mounts = at("/x", "other"),
            &Ground::default(),
            &expect![[r#"
            volume `other` is not there
        "#]],
        );
    }
}
