//! What a guest is told before its first program: its nics, its disks, and what of the launch is otherwise there.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};

use stead_agent::message::{self, Disk, FileSystem, Mounts, SetUp, Source};
use stead_host::machine::GuestNic;
use stead_model::container::{Access, Launch};
use stead_vmm::SHARE_TAG;

use super::boot::{DATA, ROOT};
use super::shares::{FILE_SYSTEM, Given};

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

/// What the guest is to be, before anything runs in it.
pub(super) fn set_up(launch: &Launch, nics: &[GuestNic], is_given: bool) -> Result<SetUp> {
    let disk = |name: &str, access| -> Result<FileSystem> {
        let source = Source::Disk(Disk::Serial(name.to_owned()));
        Ok(FileSystem { name: name.parse().map_err(|_| anyhow!("a disk has no name"))?, source, access })
    };
    let nics = nics.iter().enumerate().map(|(place, nic)| -> Result<message::Nic> {
        Ok(message::Nic {
            mac: nic.mac,
            name: format!("eth{place}").parse().map_err(|_| anyhow!("a nic has no name"))?,
            addresses: nic.addresses.clone(),
            gateways: nic.gateways.clone(),
            mtu: Some(u32::from(nic.mtu)),
        })
    });
    let mut filesystems = vec![disk(ROOT, Access::Read)?, disk(DATA, Access::Write)?];
    if is_given {
        filesystems.push(shared()?);
    }
    Ok(SetUp {
        time_ns: now_ns(),
        hostname: launch.hostname.clone(),
        nics: nics.collect::<Result<_>>()?,
        filesystems,
        sysctls: BTreeMap::new(),
    })
}
