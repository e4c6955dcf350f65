//! What a guest is told before its first program: its nics, its disks, and what of the launch is otherwise there.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};

use stead_agent::message::{self, Disk, FileSystem, SetUp, Source};
use stead_host::machine::GuestNic;
use stead_model::container::{Access, Launch};
use stead_vmm::SHARE_TAG;

use super::boot::{DATA, ROOT};
use super::shares::FILE_SYSTEM;

/// What is launched in the guest: what limits the guest itself limits nothing in it.
pub(super) fn in_guest(launch: &Launch) -> Launch {
    let mut launch = launch.clone();
    launch.limits.memory_bytes = None;
    launch.limits.cpus_milli = None;
    launch
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
        let name = FILE_SYSTEM.parse().map_err(|_| anyhow!("what is shared has no name"))?;
        let source = Source::VirtioFs(SHARE_TAG.to_owned());
        filesystems.push(FileSystem { name, source, access: Access::Write });
    }
    Ok(SetUp {
        time_ns: now_ns(),
        hostname: launch.hostname.clone(),
        nics: nics.collect::<Result<_>>()?,
        filesystems,
        sysctls: BTreeMap::new(),
    })
}
