//! A container: what it is to be as the project file or the command line says ([`Container`]), and what is
//! launched once the wishes of its image are merged in ([`Launch`]).

mod hosts;
mod identity;
mod kept;
mod launch;
mod network;
mod right;
mod signal;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::{Platform, Reference};
use crate::name::{Name, VolumeId};
use crate::one_off::OneOff;

pub use hosts::HostAddress;
pub use identity::{IDENTITY_DIRECTORIES, Identity, identity};
pub use kept::{LOG_FILE_BYTES, LOG_FILES, LogLimits, Pace};
pub(crate) use launch::health_check;
pub use launch::{DEFAULT_PATH, HealthCheck, Launch, LaunchError};
pub use network::NetworkMode;
pub use right::CAPABILITIES;
pub use signal::{Signal, SignalError};

/// What a container is to be. Everything absent is the image's to say, or has the default that is written here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The image.
    pub image: Reference,
    /// For which platform; this computer's where absent.
    pub platform: Option<Platform>,
    /// What runs as its first process.
    pub mode: Mode,
    /// Instead of the image's entrypoint; the image's command then does not count. An empty one: none at all.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    pub command: Option<Vec<String>>,
    /// More environment, which goes before the image's.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts.
    pub workdir: Option<String>,
    /// As whom: `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// More groups, names or numbers.
    pub groups: BTreeSet<String>,
    /// In whose network it is.
    #[serde(default, skip_serializing_if = "NetworkMode::is_own")]
    pub network: NetworkMode,
    /// What it calls itself; the machine's name where absent.
    pub hostname: Option<String>,
    /// Labels, for people and programs to find it by.
    pub labels: BTreeMap<String, String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open for `attach`.
    pub stdin: bool,
    /// Whether a small process of ours is its first one, which passes signals on and buries the dead.
    pub init: bool,
    /// What is mounted, by its place in the container: an absolute path without `.` and `..`.
    pub mounts: BTreeMap<String, Mount>,
    /// Directories that go with the machine, by their places, besides those that the image names.
    pub own_volumes: BTreeSet<String>,
    /// Names that it finds without asking the network, each with its addresses.
    #[serde(with = "hosts")]
    pub hosts: BTreeMap<String, Vec<HostAddress>>,
    /// Whom it asks for names instead of its network.
    pub dns: Vec<IpAddr>,
    /// Where it looks for short names, instead of in its network's domain.
    pub dns_search: Vec<String>,
    /// How much of the computer it may use.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// How it ends.
    pub stop: Stop,
    /// Whether it is started again when it ended.
    pub restart: Restart,
    /// How fast that is.
    #[serde(default)]
    pub pace: Pace,
    /// How much is kept of what it writes.
    #[serde(default)]
    pub log: LogLimits,
    /// How to see that it is well.
    pub health: Health,
    /// That no file names its machine, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_off: Option<Box<OneOff>>,
}

/// What runs as the first process of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A program.
    #[default]
    Application,
    /// The system's own init, which starts services; machines can be run within.
    System,
}

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// A volume.
    Volume {
        /// Its name in the project's file.
        name: Name,
        /// Which one it is, where it is not the project's own of that name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external: Option<VolumeId>,
        /// Whether it can be written.
        access: Access,
        /// Whether it stays empty where the image has files at its place.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        nocopy: bool,
    },
    /// A file or directory of this computer, by an absolute path.
    Bind {
        /// Where it is.
        source: PathBuf,
        /// Whether it can be written.
        access: Access,
        /// Whether mounts travel.
        propagation: Propagation,
        /// Whether a directory is made where the source is missing.
        create: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// The most that it holds; half of the memory where absent.
        size_bytes: Option<u64>,
        /// The mode of its root.
        mode: Option<u32>,
        /// Whose its root is.
        #[serde(default, skip_serializing_if = "Owner::is_root")]
        owner: Owner,
        /// Whether it can be written.
        access: Access,
        /// Whether programs on it can be run.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exec: bool,
    },
}

/// Whose something is that is made in a container, by the ids that hold there; root's where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Owner {
    /// Whether nobody else is named.
    fn is_root(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a missing path of this computer is made as a directory to be bound; that would be in the way of a socket.
pub fn is_made(source: &std::path::Path, create: bool) -> bool {
    create && source.extension().is_none_or(|extension| extension != "sock")
}

impl Mount {
    /// The volume that is mounted in a machine of this project, if it is one.
    pub fn volume(&self, project: &Name) -> Option<VolumeId> {
        match self {
            Self::Volume { name, external, .. } => {
                Some(external.clone().unwrap_or_else(|| VolumeId::new(project, name)))
            }
            Self::Bind { .. } | Self::Tmpfs { .. } => None,
        }
    }
}

/// Whether something can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and written.
    #[default]
    Write,
    /// Only read, and this computer sees to that.
    Read,
}

/// Whether mounts made on one side appear on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// They do not.
    #[default]
    Private,
    /// This computer's appear in the container.
    Slave,
    /// Both ways.
    Shared,
}

/// How much of the computer a container may use; absent: as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors, in thousandths of one.
    pub cpus_milli: Option<u32>,
    /// Its part where there is not enough processor for all, 1024 being the usual one.
    pub cpu_shares: Option<u64>,
    /// The processors it may use, `0-2,4`.
    pub cpuset: Option<String>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory together with swap; [`Limits::ALL_SWAP`] where swap is not limited.
    pub memory_swap_bytes: Option<u64>,
    /// Memory that it should get by with where there is not enough.
    pub memory_reservation_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Its part of input and output, 10 to 1000.
    pub io_weight: Option<u16>,
    /// How fast it may use disks of this computer, by their paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disk_rates: BTreeMap<PathBuf, DiskRates>,
    /// `/dev/shm`; 64 MiB where absent.
    pub shm_bytes: Option<u64>,
    /// Limits per process, by their names without `RLIMIT_`, in lower case.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// How gladly the kernel ends it when memory runs out, -1000 to 1000.
    pub oom_score: Option<i16>,
}

impl Limits {
    /// As much memory and swap as there is.
    pub const ALL_SWAP: u64 = u64::MAX;

    /// How much memory and swap are limited to.
    pub fn limited_swap_bytes(&self) -> Option<u64> {
        self.memory_swap_bytes.filter(|both| *both != Self::ALL_SWAP)
    }
}

/// How fast a disk may be used; absent: as fast as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRates {
    /// Bytes read a second.
    pub read_bps: Option<u64>,
    /// Bytes written a second.
    pub write_bps: Option<u64>,
    /// Reads a second.
    pub read_iops: Option<u64>,
    /// Writes a second.
    pub write_iops: Option<u64>,
}

impl DiskRates {
    /// Each rate with its key under `blkio_config`, in the order of the fields.
    pub fn each(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("device_read_bps", self.read_bps),
            ("device_write_bps", self.write_bps),
            ("device_read_iops", self.read_iops),
            ("device_write_iops", self.write_iops),
        ]
    }
}

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What holds.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Capabilities that it has beyond the usual ones, `NET_ADMIN`; `ALL` means all.
    pub capabilities_add: BTreeSet<String>,
    /// Capabilities that are taken from it; `ALL` means all but those that are added.
    pub capabilities_drop: BTreeSet<String>,
    /// Whether it may do all that the user who runs it may: every device, capability and system call.
    pub privileged: bool,
    /// Whether programs in it may gain rights by set-user-id files.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// Devices of this computer.
    pub devices: Vec<Device>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Those of the usual profile, which go with its capabilities.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of a profile in Docker's form, by its absolute path.
    Profile(PathBuf),
}

/// A device of this computer in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is on this computer.
    pub source: PathBuf,
    /// Where it is in the container.
    pub target: String,
    /// What may be done with it: of `r`, `w` and `m`.
    pub access: String,
}

/// How a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What it is told; the image's own signal, or SIGTERM, where absent.
    pub signal: Option<Signal>,
    /// How long it may take before it is killed; 10 s where absent.
    pub grace_ms: Option<u64>,
}

/// How long a container may take to end before it is killed, where nothing is said.
pub const STOP_GRACE_MS: u64 = 10_000;

/// Whether a container is started again when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is not.
    #[default]
    No,
    /// When it failed; at most so many times, where that is said.
    OnFailure(Option<u32>),
    /// Whenever it ended without being told to. What was told to end stays so until the computer starts the next time, if
    /// `stead autostart` is to see to it then; after its keeper was killed, the next `up` or `start` starts it.
    Always,
    /// The same; but what somebody told to end stays so then, too.
    UnlessStopped,
}

/// This text is not a [`Restart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartError(String);

impl FromStr for Restart {
    type Err = RestartError;

    fn from_str(text: &str) -> Result<Self, RestartError> {
        match text {
            "no" | "false" => Ok(Self::No),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            "on-failure" => Ok(Self::OnFailure(None)),
            _ => {
                let times = text.strip_prefix("on-failure:").and_then(|times| times.parse().ok());
                times.map(|times| Self::OnFailure(Some(times))).ok_or_else(|| RestartError(text.to_owned()))
            }
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(times)) => write!(f, "on-failure:{times}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl fmt::Display for RestartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not `no`, `on-failure`, `on-failure:<times>`, `always` or `unless-stopped`",
            self.0
        )
    }
}

impl std::error::Error for RestartError {}

/// How to see that a container is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As its image says.
    #[default]
    Image,
    /// Not at all.
    Off,
    /// So; what is absent is as the image says, or has its default.
    Test(HealthTest),
}

/// How to see that a container is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthTest {
    /// The program that is run in it; it is well if that ends with 0.
    pub command: Option<HealthCommand>,
    /// Between tests; 30 s.
    pub interval_ms: Option<u64>,
    /// For one test; 30 s.
    pub timeout_ms: Option<u64>,
    /// After the start, when failures do not count; 0.
    pub start_period_ms: Option<u64>,
    /// Between tests within the start period; 5 s.
    pub start_interval_ms: Option<u64>,
    /// How many failures in a row mean that it is not well; 3.
    pub retries: Option<u32>,
}

/// What is run to see that a container is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCommand {
    /// A program with its arguments.
    Program(Vec<String>),
    /// A line for its shell.
    Shell(String),
}

impl Container {
    /// Whether it reaches this computer by a name.
    pub fn reaches_this_computer(&self) -> bool {
        self.hosts.values().flatten().any(|address| *address == HostAddress::ThisComputer)
    }

    /// A container of this image that is all as the image says.
    pub fn new(image: Reference) -> Self {
        Self {
            image,
            platform: None,
            mode: Mode::default(),
            entrypoint: None,
            command: None,
            environment: BTreeMap::new(),
            workdir: None,
            user: None,
            groups: BTreeSet::new(),
            network: NetworkMode::default(),
            hostname: None,
            labels: BTreeMap::new(),
            tty: false,
            stdin: false,
            init: false,
            mounts: BTreeMap::new(),
            own_volumes: BTreeSet::new(),
            hosts: BTreeMap::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            limits: Limits::default(),
            rights: Rights::default(),
            stop: Stop::default(),
            restart: Restart::default(),
            pace: Pace::default(),
            log: LogLimits::default(),
            health: Health::default(),
            one_off: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_on_record_from_before_there_were_external_volumes_is_of_its_project() {
        let mount: Mount = serde_json::from_str(r#"{"volume":{"name":"data","access":"write"}}"#).unwrap();
        assert_eq!(mount.volume(&"shop".parse().unwrap()), Some("data.shop".parse().unwrap()));
        let Mount::Volume { name, access, nocopy, .. } = mount else { panic!("{mount:?}") };
        let external = Some("mail.post".parse().unwrap());
        let mount = Mount::Volume { name, external, access, nocopy };
        let again: Mount = serde_json::from_str(&serde_json::to_string(&mount).unwrap()).unwrap();
        assert_eq!(again.volume(&"shop".parse().unwrap()), Some("mail.post".parse().unwrap()));
    }

    #[test]
    fn restart_policies_are_read_as_in_docker() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for text in ["", "yes", "on-failure:", "on-failure:x"] {
            text.parse::<Restart>().unwrap_err();
        }
    }
}
