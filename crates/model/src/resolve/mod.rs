//! Every open choice of a project, made: subnets, addresses, MACs, link names, the uplink. The choices are
//! functions of what is wanted and what exists, so the plan can show them before anything is there.
//!
//! Where a choice was made before it stands: first what exists, then what `stead.lock` pins, then a new one.

mod addresses;
mod networks;
mod nics;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

pub(crate) use self::addresses::{is_host6, is_usable};
use self::addresses::{transfer_subnet6, transfer_subnets};
pub(crate) use self::nics::eth;
use crate::address::{link_name, nth4, nth6, overlap};
use crate::container::Container;
use crate::dev::{Account, Person, Unfit, account};
use crate::image::{Digest, Platform, Reference};
use crate::lock::Lock;
use crate::name::{LinkName, MachineId, Name, NetworkId, NicId, VolumeId};
use crate::observed::{
    Body, Ipv6, MachineState, MadeContainer, NetworkState, Observed, Taken, Uplink, VethUplink,
};
use crate::plan::{Power, UnwantedVolumes, Wanted, WantedMachine};
use crate::project::{Bind, Nic, Project, ProjectFiles, Reach, Runs};
use crate::provision::in_places;
use crate::step::OwnVolumes;
use crate::vm::{DiskImage, MadeVm};

/// Why a project cannot be had on this computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The key that asks for it, `networks.lan.subnet`.
    pub key: String,
    /// Why not.
    pub why: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

/// What a project is resolved with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where the project's files are.
    pub files: &'a ProjectFiles,
    /// What was pinned.
    pub lock: &'a Lock,
    /// What exists.
    pub seen: &'a Observed,
    /// Who will open the TAPs.
    pub user: u32,
    /// Who calls, where that bears on a machine.
    pub person: &'a Person,
    /// The images that are here.
    pub images: &'a Images,
    /// The machines of its file that this is not about: their addresses are theirs all the same.
    pub resting: &'a BTreeSet<Name>,
    /// Ports that are not to be chosen: somebody else on this computer has them.
    pub taken: &'a BTreeSet<Bind>,
}

/// What images are at the moment.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// Those of containers, by their names and the platforms asked for.
    pub named: BTreeMap<(Reference, Option<Platform>), Digest>,
    /// Those of disks, by their paths.
    pub disks: BTreeMap<PathBuf, DiskImage>,
}

/// The domain of a project's names is this, under the project's own.
pub const DOMAIN: &str = "stead";

/// A route this short leads out (a VPN's `0.0.0.0/1`), it does not say that the range is in use.
const SHORTEST_TAKEN_PREFIX: u8 = 8;

/// The ranges that nobody reaches by the internet (RFC 1918, RFC 4193).
const PRIVATE: [IpNet; 4] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// Whether a claim on `taken` is in the way of `net`.
fn is_taken(taken: IpNet, by: &Taken, net: IpNet) -> bool {
    // A route that refuses a whole private range keeps packets from straying; it does not say that the range is in use.
    let is_guard = *by == Taken::Refused && PRIVATE.contains(&taken);
    taken.prefix_len() >= SHORTEST_TAKEN_PREFIX && !is_guard && overlap(taken, net)
}

/// The whole of a project, every choice made; or every reason why it cannot be had.
pub fn resolve(project: &Project, context: Context<'_>) -> Result<Wanted, Vec<Refusal>> {
    let mut choice = Choice { project, context, refusals: Vec::new(), links: BTreeSet::new() };
    choice.check_directory();
    if !choice.refusals.is_empty() {
        // It is about another project: what else would be wrong follows from that.
        return Err(choice.refusals);
    }
    let networks = choice.networks();
    let nics = choice.nics(&choice.with_external(&networks));
    let uplink = choice.uplink(&networks);
    let (ports, port_leases) = choice.ports(&nics);
    choice.check_disks();
    let users = choice.users();
    if !choice.refusals.is_empty() {
        return Err(choice.refusals);
    }
    let machine_id = |name| MachineId::new(&project.name, name);
    let machines = project.machines.iter().map(|(name, machine)| {
        let after = machine.depends_on.iter().map(|(other, how_far)| (machine_id(other), *how_far)).collect();
        let restarts_with = machine.restarts_with.iter().map(machine_id).collect();
        let made = |wish: &Container| {
            let image = context.images.named.get(&(wish.image.clone(), wish.platform.clone())).cloned();
            Box::new(MadeContainer { wish: wish.clone(), image })
        };
        let body = match &machine.runs {
            Runs::External => Body::External,
            Runs::Container(wish) => Body::Container(made(wish)),
            Runs::Microvm(wish) => Body::Microvm(made(wish)),
            Runs::Vm(wish) => {
                let image = context.images.disks.get(&wish.image).cloned();
                Body::Vm(Box::new(MadeVm { wish: (**wish).clone(), image }))
            }
        };
        let state = MachineState { kind: machine.kind, body };
        let provision = in_places(users.get(name), &machine.provision);
        (machine_id(name), WantedMachine { state, after, restarts_with, power: Power::On, provision })
    });
    Ok(Wanted {
        project: project.name.clone(),
        files: Some(choice.files()),
        uplink,
        networks,
        machines: machines.collect(),
        anew: BTreeSet::new(),
        nics,
        ports,
        port_leases,
        volumes: project.volumes.iter().map(|(name, to)| (VolumeId::new(&project.name, name), *to)).collect(),
        unwanted_volumes: UnwantedVolumes::Keep,
        own_volumes: OwnVolumes::Stay,
    })
}

/// The choices being made, and the reasons against them.
struct Choice<'a> {
    project: &'a Project,
    context: Context<'a>,
    refusals: Vec<Refusal>,
    links: BTreeSet<LinkName>,
}

impl Choice<'_> {
    fn refuse(&mut self, key: String, why: String, hint: &str) {
        self.refusals.push(Refusal { key, why, hint: hint.to_owned() });
    }

    /// Two directories cannot be the same project, nor one directory two: they would share one lock, and
    /// `down` could not tell them apart. Only a project's volumes may stay behind under its old name.
    fn check_directory(&mut self) {
        if let Some(other) = self.context.seen.projects.get(&self.project.name)
            && other.directory != self.context.files.directory
        {
            let why = format!("project `{}` is already at {}", self.project.name, other.directory.display());
            let hint = format!(
                "if that was moved here: `stead down {}` takes it down, wherever it is; else give one of them another `name`",
                self.project.name
            );
            self.refuse("name".into(), why, &hint);
        }
        let seen = self.context.seen;
        let stands = |name: &Name| {
            seen.networks.keys().any(|id| id.project == *name)
                || seen.machines.keys().any(|id| id.project == *name)
        };
        let mut here =
            seen.projects.iter().filter(|(_, files)| files.directory == self.context.files.directory);
        if let Some((other, _)) = here.find(|(name, _)| **name != self.project.name && stands(name)) {
            let why = format!("this directory is that of project `{other}`, which is up");
            let hint = format!("`stead down {other}` first, then `stead up`");
            self.refuse("name".into(), why, &hint);
        }
    }

    /// Where the files are, and who depends on whom. What rests is not in them as they are read: what depended on it, and on what
    /// it did, is as it was.
    fn files(&self) -> ProjectFiles {
        let Context { seen, resting, files, .. } = self.context;
        let none = BTreeMap::new();
        let before = seen.projects.get(&self.project.name).map_or(&none, |there| &there.order);
        let mut order: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (name, others) in before {
            let others = others.iter().filter(|other| resting.contains(name) || resting.contains(*other));
            if resting.contains(name) || self.project.machines.contains_key(name) {
                order.entry(name.clone()).or_default().extend(others.cloned());
            }
        }
        // A one-off depends on what the one does that it is made after.
        for (name, machine) in self.project.machines.iter().filter(|(_, machine)| !machine.is_one_off()) {
            order.entry(name.clone()).or_default().extend(machine.depends_on.keys().cloned());
        }
        order.retain(|_, others| !others.is_empty());
        ProjectFiles { order, ..files.clone() }
    }

    /// Disks become larger, never smaller: what is cut off could be in use.
    fn check_disks(&mut self) {
        let vms = self.project.machines.iter().filter_map(|(name, machine)| Some((name, machine.runs.vm()?)));
        for (name, vm) in vms {
            let id = MachineId::new(&self.project.name, name);
            let image = self.context.images.disks.get(&vm.image);
            let wanted = vm.disk_bytes.or(image.map(|image| image.bytes));
            let made = self.context.seen.machines.get(&id).and_then(MachineState::vm);
            // One that is made anew has a disk of its own, whatever the former one's size.
            let made = made.filter(|made| made.image.as_ref() == image);
            let least = made.map(MadeVm::disk_bytes).max(image.map(|image| image.bytes));
            if let (Some(wanted), Some(least)) = (wanted, least)
                && wanted < least
            {
                let whose = if made.is_some() { "it has" } else { "its image has" };
                let why = format!("a disk of {wanted} bytes is too small: {whose} {least} already");
                self.refusals.push(Refusal {
                    key: format!("machines.{name}.disk"),
                    why,
                    hint: format!("write `disk: {least}` or more; what is to be smaller is made anew by `stead rm {name}`"),
                });
            }
        }
    }

    /// The users to work as in machines, every choice made.
    fn users(&mut self) -> BTreeMap<Name, Account> {
        let wanted = self.project.machines.iter();
        let wanted = wanted.filter_map(|(name, machine)| Some((name, machine.dev.as_ref()?, machine)));
        let mut users = BTreeMap::new();
        for (name, dev, machine) in wanted {
            match account(dev, self.context.person, machine.kind, machine.runs.binds()) {
                Ok(account) => drop(users.insert(name.clone(), account)),
                Err(Unfit { key, why, hint }) => {
                    let dot = if key.is_empty() { "" } else { "." };
                    self.refuse(format!("machines.{name}.dev{dot}{key}"), why, hint);
                }
            }
        }
        users
    }

    /// A link name that nothing of ours has.
    fn link(&mut self, kind: char, name: &str, id: &str) -> LinkName {
        let seen = self.context.seen;
        let is_taken = |link: &LinkName| {
            self.links.contains(link)
                || seen.networks.values().any(|network| network.link == *link)
                || seen.nics.values().any(|nic| nic.link == *link)
        };
        let link = link_name(kind, name, &[id], &is_taken);
        self.links.insert(link.clone());
        link
    }

    /// The way out: the one there is while it works, else the kernel's path, else pasta.
    fn uplink(&mut self, networks: &BTreeMap<NetworkId, NetworkState>) -> Option<Uplink> {
        let seen = self.context.seen;
        let Some((id, _)) = networks.iter().find(|(_, n)| n.reach == Reach::Nat) else {
            let others =
                seen.networks.iter().any(|(id, n)| id.project != self.project.name && n.reach == Reach::Nat);
            return seen.uplink.clone().filter(|_| others);
        };
        // Offline, an uplink that stands cannot be told from one that is broken.
        let works = |uplink: &Uplink| {
            !seen.host.online
                || match uplink {
                    Uplink::Veth(_) => seen.host.uplinks.veth.is_ok(),
                    Uplink::Pasta => seen.host.uplinks.pasta.is_ok(),
                }
        };
        if let Some(uplink) = seen.uplink.clone().filter(works) {
            return Some(uplink);
        }
        match (&seen.host.uplinks.veth, &seen.host.uplinks.pasta) {
            (Ok(()), _) => self.veth_uplink(networks),
            (Err(_), Ok(())) => Some(Uplink::Pasta),
            // There is nothing to reach; the next command makes the way out when there is.
            (Err(_), Err(_)) if !seen.host.online => None,
            (Err(veth), Err(pasta)) => {
                let key = format!("networks.{}.reach", id.name);
                let why = format!("nothing can carry `nat` here: {}; and {}", veth.why, pasta.why);
                let hint = format!("{}; or {}; or `reach: isolated`", pasta.hint, veth.hint);
                self.refuse(key, why, &hint);
                None
            }
        }
    }

    fn veth_uplink(&mut self, networks: &BTreeMap<NetworkId, NetworkState>) -> Option<Uplink> {
        let seen = self.context.seen;
        let home = &seen.host.home;
        let is_free = |net: &IpNet| {
            let mut others = seen.networks.values().chain(networks.values()).flat_map(NetworkState::subnets);
            let mut taken = seen.host.taken.iter();
            !others.any(|other| overlap(other, *net)) && !taken.any(|(other, by)| is_taken(*other, by, *net))
        };
        let Some(net) = transfer_subnets(home).find(|net| is_free(&IpNet::V4(*net))) else {
            if seen.host.uplinks.pasta.is_ok() {
                // It needs none.
                return Some(Uplink::Pasta);
            }
            let why = "no transfer subnet is free for the uplink".to_owned();
            self.refuse(
                "networks".into(),
                why,
                "free a part of 10.63.0.0/16, or install passt, which needs none",
            );
            return None;
        };
        let net6 = transfer_subnet6(home)
            .filter(|net| seen.host.ipv6 == Ipv6::Everywhere && is_free(&IpNet::V6(*net)));
        Some(Uplink::Veth(VethUplink {
            link: link_name('u', home, &[home], &|_| false),
            transfer: Ipv4Net::new(nth4(net, 1)?, 30).ok()?,
            transfer6: net6.and_then(|net| Ipv6Net::new(nth6(net, 1)?, 126).ok()),
        }))
    }
}

fn nic_id(project: &Project, machine: &MachineId, nic: &Nic) -> NicId {
    NicId::new(machine, &project.network(&nic.network))
}

/// Whether two published ports want the same port of this computer.
pub fn binds_clash(a: Bind, b: Bind) -> bool {
    let everywhere = a.address.is_unspecified() || b.address.is_unspecified();
    a.protocol == b.protocol
        && a.port == b.port
        && !a.is_left_open()
        && (a.address == b.address || (everywhere && a.address.is_ipv4() == b.address.is_ipv4()))
}
