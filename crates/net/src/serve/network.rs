//! What is served on one network, made ready to answer from: looked up by hash, worked out once per change
//! and not once per packet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use stead_model::address::Mac;
use stead_model::name::{Name, NetworkId};
use stead_model::served::{ServedHost, ServedNetwork};

use super::dns::zone::Zone;

/// One network, ready to answer from.
#[derive(Debug)]
pub struct Net {
    /// Which one.
    pub id: NetworkId,
    /// What is wanted.
    pub wanted: ServedNetwork,
    /// What is answered to those who have nics on this network alone.
    view: Arc<View>,
    /// The same for the others, by the address that they have here.
    views: HashMap<IpAddr, Arc<View>>,
    fixed4: HashSet<Ipv4Addr>,
    fixed6: HashSet<Ipv6Addr>,
}

/// What DNS is to one asker.
#[derive(Debug)]
pub struct View {
    /// The names and addresses that are answered for.
    pub zone: Zone,
    /// Whether names that are not ours are asked of the computer's resolvers: the asker reaches the outside by any
    /// of its networks.
    pub resolves: bool,
}

impl Net {
    /// Makes the network `id` of `all` ready; `None` if it is not there.
    pub fn new(id: &NetworkId, all: &BTreeMap<NetworkId, ServedNetwork>) -> Option<Self> {
        let wanted = all.get(id)?.clone();
        let hosts = wanted.hosts.values();
        let gateway4 = wanted.gateway.map(|gateway| gateway.addr());
        let gateway6 = wanted.gateway6.map(|gateway| gateway.addr());
        Some(Self {
            id: id.clone(),
            fixed4: hosts.clone().filter_map(|host| host.address).chain(gateway4).collect(),
            fixed6: hosts.filter_map(|host| host.address6).chain(gateway6).collect(),
            view: View::new(id, &BTreeSet::new(), all).into(),
            views: views(id, &wanted, all),
            wanted,
        })
    }

    /// The machine with this MAC.
    pub fn host(&self, mac: Mac) -> Option<&ServedHost> {
        self.wanted.hosts.get(&mac)
    }

    /// What DNS is to whoever asks from this address. (The guard sees to it that it is the asker's own.)
    pub fn view(&self, asker: IpAddr) -> &View {
        self.views.get(&asker).unwrap_or(&self.view)
    }

    /// Whether an address is a machine's or our own.
    pub fn is_fixed(&self, address: Ipv4Addr) -> bool {
        self.fixed4.contains(&address)
    }

    /// Whether an address is a machine's or our own.
    pub fn is_fixed6(&self, address: Ipv6Addr) -> bool {
        self.fixed6.contains(&address)
    }
}

impl View {
    fn new(id: &NetworkId, others: &BTreeSet<NetworkId>, all: &BTreeMap<NetworkId, ServedNetwork>) -> Self {
        let resolves = std::iter::once(id).chain(others).filter_map(|id| all.get(id));
        Self {
            zone: Zone::new(id, others, all),
            resolves: resolves.into_iter().any(|network| network.resolves),
        }
    }
}

/// The project and the name of a machine that has a nic on a network.
fn known_by<'a>(network: &'a NetworkId, host: &'a ServedHost) -> (&'a Name, &'a Name) {
    (host.project.as_ref().unwrap_or(&network.project), &host.name)
}

/// The views of machines that are on several networks. Those on the same ones have one in common: there are as many
/// as there are combinations, however many machines.
fn views(
    id: &NetworkId,
    wanted: &ServedNetwork,
    all: &BTreeMap<NetworkId, ServedNetwork>,
) -> HashMap<IpAddr, Arc<View>> {
    let projects: BTreeSet<&Name> = wanted.hosts.values().filter_map(|host| host.project.as_ref()).collect();
    // Few networks have machines of other projects, and only those can have these machines beside the projects' own.
    let may_have_one = |other: &NetworkId, network: &ServedNetwork| {
        other.project == id.project
            || projects.contains(&other.project)
            || network.hosts.values().any(|host| host.project.is_some())
    };
    let near = all.iter().filter(|(other, network)| *other != id && may_have_one(other, network));
    let mut others: HashMap<(&Name, &Name), BTreeSet<NetworkId>> = HashMap::new();
    for (other, network) in near {
        for host in network.hosts.values() {
            others.entry(known_by(other, host)).or_default().insert(other.clone());
        }
    }
    let mut made: HashMap<&BTreeSet<NetworkId>, Arc<View>> = HashMap::new();
    let mut views = HashMap::new();
    for host in wanted.hosts.values() {
        let Some(others) = others.get(&known_by(id, host)) else { continue };
        let view = made.entry(others).or_insert_with(|| View::new(id, others, all).into());
        let v4 = host.address.map(IpAddr::V4);
        let addresses = v4.into_iter().chain(host.address6.map(IpAddr::V6));
        views.extend(addresses.map(|address| (address, Arc::clone(view))));
    }
    views
}
