//! The choices about nics: their addresses, MACs and links. What is fixed comes first, for all of them; then
//! what each has on record; then what `stead.lock` pins; what is still open then is chosen from what is left.
//! So nobody's addresses change because somebody else comes. What machines of other projects have on these networks is
//! theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::addresses::{
    free_address, free_address6, free_mac, is_host, is_host6, is_usable, last_free_address,
};
use super::{Choice, Context, nic_id};
use crate::address::Mac;
use crate::lock::LockedNic;
use crate::name::{LinkName, MachineId, NIC_ID_MAX_CHARS, Name, NetworkId, NicId};
use crate::observed::{GuardState, Lease, NetworkState, NicEnd, NicState};
use crate::project::{Kind, Machine, Nic, Project, Runs};

/// What of a nic's addresses is already decided.
#[derive(Default)]
struct Kept {
    mac: Option<Mac>,
    address: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
}

/// What is given out.
#[derive(Default)]
struct Used {
    addresses: BTreeMap<NetworkId, BTreeSet<IpAddr>>,
    macs: BTreeSet<(NetworkId, Mac)>,
}

impl Choice<'_> {
    pub(super) fn nics(&mut self, networks: &BTreeMap<NetworkId, NetworkState>) -> BTreeMap<NicId, NicState> {
        let leases = self.leases(networks);
        let mut chosen = BTreeMap::new();
        for (id, nic, machine, place) in nics_of(self.project) {
            let (Some(network), Some(lease)) = (networks.get(&id.network()), leases.get(&id)) else {
                continue;
            };
            let seen = self.context.seen.nics.get(&id).map(|nic| nic.link.clone());
            let kind_letter = if machine.kind == Kind::Container { 'v' } else { 't' };
            let same_kind = |link: &LinkName| link.as_str().starts_with(&format!("st{kind_letter}-"));
            let link = seen
                .filter(same_kind)
                .unwrap_or_else(|| self.link(kind_letter, id.machine.as_str(), &id.to_string()));
            let end = match (machine.kind, &machine.runs) {
                (Kind::Container, Runs::External) => NicEnd::Veth(eth(place)),
                (Kind::Container, Runs::Container(_) | Runs::Microvm(_) | Runs::Vm(_)) => {
                    NicEnd::Set(eth(place))
                }
                (Kind::Microvm | Kind::Vm, _) => NicEnd::Tap(self.context.user),
            };
            let guard = GuardState::new(nic.guard, lease, network);
            let lease = lease.clone();
            let names = nic.aliases.iter().cloned().chain([id.machine.clone().into()]).collect();
            let calls = calls(machine) && has_gateway(network);
            chosen.insert(id, NicState { link, end, mtu: network.mtu, lease, guard, names, calls });
        }
        self.check_calls(&chosen);
        chosen
    }

    /// Refuses machines that want to reach this computer and are on no network where they could.
    fn check_calls(&mut self, chosen: &BTreeMap<NicId, NicState>) {
        let project = self.project;
        for (name, machine) in project.machines.iter().filter(|(_, machine)| calls(machine)) {
            if !chosen.iter().any(|(id, nic)| id.machine == *name && nic.calls) && !self.misses_lent(machine)
            {
                let key = format!("machines.{name}.extra_hosts");
                let why =
                    "`host-gateway` is our address on a network of the machine's, and we have none there";
                self.refuse(key, why.to_owned(), "put it on a network that we serve, or write an address");
            }
        }
    }

    /// Whether a machine is on a network of another project that is not there. It is refused where it is begun.
    pub(super) fn misses_lent(&self, machine: &Machine) -> bool {
        let external = machine.nics.iter().filter_map(|nic| self.project.external_networks.get(&nic.network));
        external.into_iter().any(|id| self.context.seen.lent(id).is_none())
    }

    fn leases(&mut self, networks: &BTreeMap<NetworkId, NetworkState>) -> BTreeMap<NicId, Lease> {
        let nics = nics_of(self.project);
        let mut used = Used::default();
        used.macs.extend(networks.iter().map(|(id, network)| (id.clone(), network.mac)));
        let mut kept: BTreeMap<NicId, Kept> = BTreeMap::new();
        for (id, nic, ..) in &nics {
            let Some(network) = networks.get(&id.network()) else { continue };
            self.check_fixed(id, nic, network);
            let fixed = Kept { mac: nic.mac, address: nic.address, address6: nic.address6 };
            used.add(id, &fixed);
            kept.insert(id.clone(), fixed);
        }
        for (id, theirs) in self.of_the_resting().into_iter().chain(self.of_other_projects()) {
            if networks.contains_key(&id.network()) {
                used.add(&id, &theirs);
            }
        }
        let (record, lock) = (&self.context.seen.leases, &self.context.lock.machines);
        let recorded = nics.iter().map(|(id, ..)| (id, record.get(id)));
        let recorded = recorded.map(|(id, lease)| (id, lease.map(Kept::from_lease)));
        let own = nics.iter().map(|(id, ..)| id).filter(|id| !id.is_external());
        let locked = own.map(|id| (id, lock.get(&id.machine).and_then(|m| m.get(&id.network))));
        let locked = locked.map(|(id, nic)| (id, nic.map(Kept::from_lock)));
        for (id, earlier) in recorded.chain(locked) {
            if let (Some(earlier), Some(network), Some(kept)) =
                (earlier, networks.get(&id.network()), kept.get_mut(id))
            {
                // On a real network a MAC is this computer's own, and always follows from the names.
                let mac = earlier.mac.filter(|_| !network.is_bridged());
                used.keep(id, kept, &Kept { mac, ..earlier }, network);
            }
        }
        let mut leases = BTreeMap::new();
        for (id, kept) in kept {
            if let Some(network) = networks.get(&id.network()) {
                let lease = self.lease(&id, kept, network, &mut used);
                leases.insert(id, lease);
            }
        }
        leases
    }

    /// What machines have that this is not about: on record, and in the lock for when they come.
    fn of_the_resting(&self) -> Vec<(NicId, Kept)> {
        let Context { seen, lock, resting, .. } = self.context;
        let project = &self.project.name;
        let recorded = seen.leases.iter().filter(|(id, _)| id.project == *project);
        let recorded = recorded.map(|(id, lease)| (id.clone(), Kept::from_lease(lease)));
        let locked = lock.machines.iter().flat_map(|(machine, nics)| {
            let machine = MachineId::new(project, machine);
            let id = move |network: &Name| NicId::new(&machine, &NetworkId::new(project, network));
            nics.iter().map(move |(network, nic)| (id(network), Kept::from_lock(nic)))
        });
        recorded.chain(locked).filter(|(id, _)| resting.contains(&id.machine)).collect()
    }

    /// What machines of other projects have on record.
    fn of_other_projects(&self) -> Vec<(NicId, Kept)> {
        let others = self.context.seen.leases.iter().filter(|(id, _)| id.project != self.project.name);
        others.map(|(id, lease)| (id.clone(), Kept::from_lease(lease))).collect()
    }

    /// The lease of a nic: what is kept, and the first that is free for the rest.
    fn lease(&mut self, id: &NicId, kept: Kept, network: &NetworkState, used: &mut Used) -> Lease {
        let taken = used.addresses.entry(id.network()).or_default();
        let free = if id.is_external() { last_free_address } else { free_address };
        let address = kept.address.or_else(|| free(network, taken));
        let address6 = kept.address6.or_else(|| free_address6(network, address, taken));
        let place = network.is_bridged().then_some(self.context.seen.host.home.as_str());
        let mac = kept.mac.unwrap_or_else(|| free_mac(place, id, &used.macs));
        used.add(id, &Kept { mac: Some(mac), address, address6 });
        if network.gateway.is_some() && address.is_none() {
            let why = format!("no address is left on network `{}`", id.network_called());
            let hint = if id.is_external() {
                format!("project `{}` may give it a larger `subnet`, or a smaller `dhcp.pool`", id.lender)
            } else {
                "give it a larger `subnet`, or a smaller `dhcp.pool`".to_owned()
            };
            self.refuse(self.nic_key(id), why, &hint);
        }
        Lease { mac, address, address6 }
    }

    /// The key of the file that asks for a nic.
    fn nic_key(&self, id: &NicId) -> String {
        let mut external = self.project.external_networks.iter();
        let network =
            external.find(|(_, other)| **other == id.network()).map_or(&id.network, |(name, _)| name);
        format!("machines.{}.networks.{network}", id.machine)
    }

    /// Refuses what is fixed of a nic and cannot be had: an address that its network, whose subnet may have been chosen here,
    /// does not have, and what is another project's.
    fn check_fixed(&mut self, id: &NicId, nic: &Nic, network: &NetworkState) {
        self.check_others(id, nic);
        let is_external = id.is_external();
        if is_external && id.to_string().len() > NIC_ID_MAX_CHARS {
            let why =
                format!("the names of machine, network and both projects are too long together: `{id}`");
            let hint = format!("they may have {} characters together", NIC_ID_MAX_CHARS - 3);
            self.refuse(self.nic_key(id), why, &hint);
        }
        if network.service.is_none() && !is_external {
            return;
        }
        let fits = if is_external { is_usable } else { is_host };
        let bad = nic.address.filter(|a| !fits(network, *a)).map(IpAddr::V4);
        let bad6 = nic.address6.filter(|a| !is_host6(network, *a)).map(IpAddr::V6);
        for address in bad.into_iter().chain(bad6) {
            let why =
                format!("no machine of network `{}` ({network}) can have {address}", id.network_called());
            let hint = if is_external {
                "choose an address of its subnet that is not for strangers, or leave it out"
            } else {
                "choose an address of its subnet, or give the network another `subnet`"
            };
            self.refuse(self.nic_key(id), why, hint);
        }
    }

    /// Refuses a fixed address or MAC that a machine of another project has.
    fn check_others(&mut self, id: &NicId, nic: &Nic) {
        let seen = self.context.seen;
        let others = seen
            .leases
            .iter()
            .filter(|(other, _)| other.network() == id.network() && other.project != self.project.name);
        let taken = others.filter_map(|(other, lease)| {
            let v4 = nic.address.filter(|address| lease.address == Some(*address)).map(|a| a.to_string());
            let v6 = nic.address6.filter(|address| lease.address6 == Some(*address)).map(|a| a.to_string());
            let mac = nic.mac.filter(|mac| lease.mac == *mac).map(|mac| mac.to_string());
            Some((other.machine(), v4.or(v6).or(mac)?))
        });
        for (holder, taken) in taken.collect::<Vec<_>>() {
            let why =
                format!("machine `{holder}` has `{taken}` on network `{}` already", id.network_called());
            let hint = "choose another, or leave it out: the next free one is taken";
            self.refuse(self.nic_key(id), why, hint);
        }
    }
}

impl Kept {
    fn from_lease(lease: &Lease) -> Self {
        Self { mac: Some(lease.mac), address: lease.address, address6: lease.address6 }
    }

    fn from_lock(nic: &LockedNic) -> Self {
        Self { mac: nic.mac, address: nic.address, address6: nic.address6 }
    }
}

impl Used {
    fn add(&mut self, id: &NicId, kept: &Kept) {
        let addresses = self.addresses.entry(id.network()).or_default();
        addresses.extend(kept.address.map(IpAddr::V4));
        addresses.extend(kept.address6.map(IpAddr::V6));
        self.macs.extend(kept.mac.map(|mac| (id.network(), mac)));
    }

    /// Keeps what a nic had earlier, as far as it is still open, fits the network and is nobody else's.
    fn keep(&mut self, id: &NicId, kept: &mut Kept, earlier: &Kept, network: &NetworkState) {
        let taken = self.addresses.entry(id.network()).or_default();
        let fits = |a: &Ipv4Addr| is_usable(network, *a) && !taken.contains(&IpAddr::V4(*a));
        let fits6 = |a: &Ipv6Addr| is_host6(network, *a) && !taken.contains(&IpAddr::V6(*a));
        kept.address = kept.address.or_else(|| earlier.address.filter(fits));
        kept.address6 = kept.address6.or_else(|| earlier.address6.filter(fits6));
        let is_free = |mac: &Mac| !self.macs.contains(&(id.network(), *mac));
        kept.mac = kept.mac.or_else(|| earlier.mac.filter(is_free));
        self.add(id, kept);
    }
}

/// Whether machines find us at an address of ours there.
fn has_gateway(network: &NetworkState) -> bool {
    network.service.is_some() && (network.gateway.is_some() || network.gateway6.is_some())
}

/// Whether a machine is to reach this computer, in which it is not already.
fn calls(machine: &Machine) -> bool {
    let container = machine.runs.container();
    container.is_some_and(|container| container.network.is_own() && container.reaches_this_computer())
}

fn nics_of(project: &Project) -> Vec<(NicId, &Nic, &Machine, usize)> {
    let machines = project.machines.iter();
    let nics = machines.flat_map(|(name, machine)| {
        let id = MachineId::new(&project.name, name);
        let nics = machine.nics.iter().enumerate();
        nics.map(move |(place, nic)| (nic_id(project, &id, nic), nic, machine, place))
    });
    nics.collect()
}

/// The name of a container's nic inside: `eth` and its place, as everyone expects.
pub(crate) fn eth(place: usize) -> LinkName {
    // Four digits at most, as a machine has fewer nics than networks fit on a computer.
    format!("eth{place}").parse().unwrap_or_else(|_| unreachable!("`eth{place}` is a lawful link name"))
}
