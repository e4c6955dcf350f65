//! What a guest is told before its first program: its nics, its disks, and what of the launch is otherwise there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};

use stead_agent::message::{self, Disk, FileSystem, Mounts, SetUp, Source};
use stead_host::machine::GuestNic;
use stead_model::container::{Access, Launch};
use stead_vmm::SHARE_TAG;

use super::boot::{DATA, ROOT};
use super::shares::{FILE_SYSTEM, Given};
use super::template::usual_mac;

/// What is launched in the guest: what limits the guest itself limits nothing in it.
pub(super) fn in_guest(launch: &Launch) -> Launch {
    let mut launch = launch.clone();
    launch.limits.memory_bytes = None;
    launch.limits.cpus_milli = None;
    launch
}

/// The file system with all files of this computer that it is given.
fn shared() -> Result<FileSystem> {
    let name = FILE_SYSTEM.parse().map_err(|_| anyhow!("what is shared has no name"))?;
    Ok(FileSystem { name, source: Source::VirtioFs(SHARE_TAG.to_owned()), access: Access::Write })
}

/// What a whole computer's agent mounts, if it is given any files.
pub(super) fn mounts(given: &Given) -> Result<Option<Mounts>> {
    let is_given = !given.shares.is_empty();
    let mounts = |from| Mounts { mounts: given.launch.mounts.clone(), volumes: given.volumes.clone(), from };
    is_given.then(|| shared().map(mounts)).transpose()
}

/// The time, since 1970.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The texts of a machine's files that say who is where.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    pub(super) hosts: String,
    pub(super) resolv_conf: String,
}

/// What a guest has that it is told of.
#[derive(Clone, Debug)]
pub(super) struct Devices {
    pub(super) nics: Vec<GuestNic>,
    /// Whether it is given files of this computer.
    pub(super) has_shares: bool,
    /// Whether its nics have other MACs at first, those that all have which are saved.
    pub(super) has_usual_macs: bool,
    /// Whether it goes on from where another one was saved.
    pub(super) is_restored: bool,
}

/// As much as a kernel's random numbers begin with.
const ENTROPY_BYTES: usize = 64;

/// What the guest is to be, before anything runs in it.
pub(super) fn set_up(launch: &Launch, devices: &Devices) -> Result<SetUp> {
    let disk = |name: &str, access| -> Result<FileSystem> {
        let source = Source::Disk(Disk::Serial(name.to_owned()));
        Ok(FileSystem { name: name.parse().map_err(|_| anyhow!("a disk has no name"))?, source, access })
    };
    let nics = devices.nics.iter().enumerate().map(|(place, nic)| -> Result<message::Nic> {
        Ok(message::Nic {
            mac: nic.mac,
            device: devices.has_usual_macs.then(|| usual_mac(place)),
            name: format!("eth{place}").parse().map_err(|_| anyhow!("a nic has no name"))?,
            addresses: nic.addresses.clone(),
            gateways: nic.gateways.clone(),
            mtu: Some(u32::from(nic.mtu)),
        })
    });
    let mut filesystems = vec![disk(ROOT, Access::Read)?, disk(DATA, Access::Write)?];
    if devices.has_shares {
        filesystems.push(shared()?);
    }
    let mut entropy = vec![0; ENTROPY_BYTES];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut entropy));
    random.context("cannot draw random numbers for it")?;
    Ok(SetUp {
        time_ns: now_ns(),
        hostname: launch.hostname.clone(),
        nics: nics.collect::<Result<_>>()?,
        filesystems,
        sysctls: BTreeMap::new(),
        entropy,
        is_restored: devices.is_restored,
    })
}
