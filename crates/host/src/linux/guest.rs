//! Guests: what this computer needs to have for them, and what a keeper is told of one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use stead_image::KernelStore;
use stead_model::container::Launch;
use stead_model::image::Digest;
use stead_model::name::MachineId;
use stead_model::served::ServedNetwork;
use stead_vmm::{QEMU, UEFI, VIRTIOFSD, missing_program, program, uefi_files, virtiofsd};

use super::LinuxHost;
use super::mark::{Mark, NicMark};
use crate::home::Home;
use crate::machine::{Boots, Guest, GuestNic};
use crate::switchboard::load_served;

/// What a guest has where nothing else is said: enough for most services, and little of a laptop.
const MEMORY_MIB: u64 = 512;
/// Its own disk takes room only as it is written.
const DISK_BYTES: u64 = 8 << 30;

/// What a guest needs of this computer, beside QEMU and a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A root made of an image, and a disk for what it writes.
    Root,
    /// Files of this computer.
    Files,
    /// Another firmware than QEMU's own.
    Uefi,
}

/// What of that is missing here.
pub fn missing_programs(needs: &BTreeSet<Need>) -> Vec<String> {
    let mut names = vec![QEMU];
    for need in needs {
        match need {
            Need::Root => names.extend(["mkfs.erofs", "mkfs.ext4"]),
            Need::Files => names.push(VIRTIOFSD),
            Need::Uefi => names.push(UEFI),
        }
    }
    let is_there = |name: &str| match name {
        VIRTIOFSD => virtiofsd().is_some(),
        UEFI => uefi_files().is_some(),
        name => program(name).is_some(),
    };
    names.into_iter().filter(|name| !is_there(name)).map(missing_program).collect()
}

/// The kernels of a home.
pub fn kernels(home: &Home) -> KernelStore {
    KernelStore::new(&home.kernels())
}

/// What its keeper is told of a machine's guest.
pub(super) fn plan(host: &mut LinuxHost, id: &MachineId, image: &Digest, launch: &Launch) -> Result<Guest> {
    let kernel = kernels(&host.home).list()?.into_iter().next();
    let kernel = kernel.context("there is no kernel for guests; hint: `stead kernel pull`")?;
    let memory_mib = launch.limits.memory_bytes.map_or(MEMORY_MIB, |bytes| bytes >> 20);
    let cpus = launch.limits.cpus_milli.map_or(1, |milli| milli.div_ceil(1000)).max(1);
    Ok(Guest {
        boots: Boots::Image { image: image.clone(), kernel: kernel.name },
        cpus,
        memory_mib,
        disk_bytes: DISK_BYTES,
        nics: nics(host, id)?,
        is_cold: host.starts_cold,
    })
}

/// The machine's nics, as their links say; by the names of their networks.
pub(super) fn nics(host: &mut LinuxHost, id: &MachineId) -> Result<Vec<GuestNic>> {
    let networks = load_served(&host.home).networks;
    let links = host.inside()?.route.own_links()?;
    let mut nics: Vec<(NicMark, GuestNic)> = Vec::new();
    for link in links {
        let Some(Mark::Nic(mark)) = Mark::parse(&link.alias) else { continue };
        if mark.id.machine() != *id {
            continue;
        }
        let network = networks.get(&mark.id.network());
        let (addresses, gateways) = network.map(|network| addresses(&mark, network)).unwrap_or_default();
        let mtu = network.map_or(1500, |network| network.mtu);
        let nic = GuestNic {
            tap: link.name,
            mac: mark.lease.mac,
            addresses,
            gateways,
            mtu,
            // On a network that we are not on somebody else may answer.
            asks: network.is_none_or(|network| network.dhcp.is_some()),
            dns: network.map(name_servers).unwrap_or_default(),
            domain: network.map(|network| network.domain.clone()),
        };
        nics.push((mark, nic));
    }
    nics.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    let mut nics: Vec<GuestNic> = nics.into_iter().map(|(_, nic)| nic).collect();
    // One way out for each family: that of the first nic that has one.
    let (mut has_way, mut has_way6) = (false, false);
    for nic in &mut nics {
        nic.gateways.retain(|gateway| {
            let has_way = if gateway.is_ipv4() { &mut has_way } else { &mut has_way6 };
            !std::mem::replace(has_way, true)
        });
    }
    Ok(nics)
}

/// Whom machines of a network ask for names.
fn name_servers(network: &ServedNetwork) -> Vec<IpAddr> {
    let v4 = network.gateway.map(|net| IpAddr::V4(net.addr()));
    v4.into_iter().chain(network.gateway6.map(|net| IpAddr::V6(net.addr()))).collect()
}

fn addresses(mark: &NicMark, network: &ServedNetwork) -> (Vec<IpNet>, Vec<IpAddr>) {
    let (gateway, gateway6) = (network.gateway, network.gateway6);
    let v4 = mark.lease.address.zip(gateway).and_then(|(a, net)| Ipv4Net::new(a, net.prefix_len()).ok());
    let v6 = mark.lease.address6.zip(gateway6).and_then(|(a, net)| Ipv6Net::new(a, net.prefix_len()).ok());
    let addresses = v4.map(IpNet::V4).into_iter().chain(v6.map(IpNet::V6)).collect();
    let routers = gateway.map(|net| IpAddr::V4(net.addr())).into_iter();
    let routers = routers.chain(gateway6.map(|net| IpAddr::V6(net.addr())));
    (addresses, routers.filter(|_| network.routes).collect())
}
