//! A whole computer: what it is to be as the project file says ([`Vm`]), and the image that its disk starts from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::{
    Health, Launch, Limits, LogLimits, Mode, Mount, NetworkMode, Pace, Restart, Rights, Signal, health_check,
};
use crate::image::{Digest, ImageHealth};
use crate::name::Name;

/// What a vm is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// The image of its disk: an absolute path of this computer.
    pub image: PathBuf,
    /// How large its disk is; as large as its image where absent.
    pub disk_bytes: Option<u64>,
    /// What starts its boot loader.
    pub firmware: Firmware,
    /// Processors; 1 where absent.
    pub cpus: Option<u32>,
    /// Memory; [`MEMORY_MIB`] where absent.
    pub memory_mib: Option<u64>,
    /// What it is told to call itself; the machine's name where absent.
    pub hostname: Option<String>,
    /// Labels, for people and programs to find it by.
    pub labels: BTreeMap<String, String>,
    /// What is mounted in it by our agent, by its place: an absolute path without `.` and `..`.
    #[serde(default)]
    pub mounts: BTreeMap<String, Mount>,
    /// What it is told at its start; nothing at all, not even our agent, where absent.
    pub cloud_init: Option<CloudInit>,
    /// How long it may take to end before it is switched off; [`STOP_GRACE_MS`] where absent.
    pub stop_grace_ms: Option<u64>,
    /// Whether it is started again when it ended.
    pub restart: Restart,
    /// How to see that it is well.
    pub health: Health,
}

/// What starts a boot loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// As computers had it: the first sector of the disk.
    #[default]
    Bios,
    /// UEFI: a file of the disk's EFI system partition; what it remembers stays with the machine.
    Uefi,
}

/// What a vm is told at its start, in the words of cloud-init.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInit {
    /// What is to be done in it: the text that cloud-init calls user-data.
    pub user_data: Option<String>,
    /// The public keys by which people may log in as the image's usual user.
    pub ssh_authorized_keys: Vec<String>,
}

/// A vm as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeVm {
    /// What was asked for.
    pub wish: Vm,
    /// What its image was then. Absent only in a plan that is merely shown, of an image that is not there.
    pub image: Option<DiskImage>,
}

/// The image of a disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiskImage {
    /// Of its file.
    pub digest: Digest,
    /// How its file is to be read.
    pub format: DiskFormat,
    /// How large the disk is that it describes.
    pub bytes: u64,
}

/// How the file of a disk is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's own.
    Qcow2,
}

/// What a vm has where nothing else is said: a distribution comes up with that and leaves room for a service.
pub const MEMORY_MIB: u64 = 1024;

/// How long a vm may take to end where nothing is said: a distribution ends its services one after the other.
pub const STOP_GRACE_MS: u64 = 60_000;

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

impl Vm {
    /// A vm of this image that is all as usual.
    pub fn new(image: PathBuf) -> Self {
        Self {
            image,
            disk_bytes: None,
            firmware: Firmware::default(),
            cpus: None,
            memory_mib: None,
            hostname: None,
            labels: BTreeMap::new(),
            mounts: BTreeMap::new(),
            cloud_init: Some(CloudInit::default()),
            stop_grace_ms: None,
            restart: Restart::default(),
            health: Health::default(),
        }
    }

    /// How it lives, in the words for containers: its first program is its own business, its console is a terminal.
    pub fn launch(&self, name: &Name) -> Launch {
        Launch {
            args: vec!["/sbin/init".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            groups: BTreeSet::new(),
            network: NetworkMode::Own,
            hostname: self.hostname.clone().unwrap_or_else(|| name.to_string()),
            mode: Mode::System,
            tty: true,
            stdin: true,
            init: false,
            mounts: self.mounts.clone(),
            own_volumes: BTreeSet::new(),
            limits: Limits::default(),
            rights: Rights::default(),
            stop_signal: Signal::HALT,
            stop_grace_ms: self.stop_grace_ms.unwrap_or(STOP_GRACE_MS),
            restart: self.restart,
            pace: Pace::default(),
            log: LogLimits::default(),
            health: health_check(&self.health, &ImageHealth::default()),
        }
    }
}

impl MadeVm {
    /// How large its disk is.
    pub fn disk_bytes(&self) -> u64 {
        self.wish.disk_bytes.unwrap_or_default().max(self.image.as_ref().map_or(0, |image| image.bytes))
    }
}
