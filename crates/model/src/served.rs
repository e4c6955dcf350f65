//! What the switchboard serves: the whole of its configuration, as a value. It stands in one file, which a
//! step rewrites and the switchboard reads again when told to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::name::{Alias, LinkName, MachineId, Name, NetworkId};
use crate::observed::PortLease;
use crate::project::{Bind, Boot};

/// All that one switchboard serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The networks it is on.
    pub networks: BTreeMap<NetworkId, ServedNetwork>,
    /// The ports it publishes.
    pub ports: BTreeMap<Bind, Target>,
    /// Who looks after the machines of those that are open only while these processes live. A port whose machine is about
    /// to be started, or is run by somebody else, has none.
    #[serde(default)]
    pub keepers: BTreeMap<Bind, Keeper>,
}

/// A process that looks after a machine, for as long as the computer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Keeper {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the computer did.
    pub start_time: u64,
}

/// What it does on one network. It is not on networks with addressing `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedNetwork {
    /// The bridge, in the engine's namespace.
    pub link: LinkName,
    /// The bridge's MAC, which answers are sent from.
    pub mac: Mac,
    /// The largest packet, told to the machines.
    pub mtu: u16,
    /// Our IPv4 address there, and the subnet: router (where it routes) and DNS server.
    pub gateway: Option<Ipv4Net>,
    /// Our IPv6 address there, and the subnet.
    pub gateway6: Option<Ipv6Net>,
    /// Whether we are the default router: something lies beyond this network.
    pub routes: bool,
    /// Whether names that are not ours are asked of the computer's resolvers: only for machines that reach the
    /// outside, as a question carries data there, too. One that does by another of its networks may ask here.
    #[serde(default)]
    pub resolves: bool,
    /// What we do about addresses; absent where they are set by other means and only DNS is served.
    pub dhcp: Option<ServedDhcp>,
    /// The domain of the names below, `shop.stead`.
    pub domain: String,
    /// The machines that have a nic here.
    pub hosts: BTreeMap<Mac, ServedHost>,
    /// The networks it is joined to: their names are answered here too.
    pub joins: Vec<NetworkId>,
}

/// How addresses are given out on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedDhcp {
    /// For machines that we do not know, both ends included.
    pub pool: Option<(Ipv4Addr, Ipv4Addr)>,
    /// How long a lease holds, in seconds.
    pub lease_s: u32,
    /// Whether the router advertisement's prefix has the autonomous flag. DHCPv6 is always offered (the
    /// managed and other flags are set).
    pub slaac: bool,
    /// What network boots are told.
    pub boot: Option<Boot>,
}

/// A machine's nic, to the services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedHost {
    /// The machine: its host name and its first DNS name.
    pub name: Name,
    /// Its project, where that is not the network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// More names.
    pub aliases: Vec<Alias>,
    /// Its fixed IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its fixed IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// Whether it reaches this computer, at our address here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calls: bool,
}

/// Where a published port leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The machine, for messages.
    pub machine: MachineId,
    /// Its address in the engine's namespace. IPv6 clients are carried to an IPv4-only machine and the other
    /// way round: this is the one address that is connected to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl ServedHost {
    /// The machine, where this is its nic on a network of that project.
    pub fn machine(&self, network: &NetworkId) -> MachineId {
        MachineId::new(self.project.as_ref().unwrap_or(&network.project), &self.name)
    }
}

impl Target {
    /// Whether it is the port of the machine that this one was chosen for.
    pub(crate) fn is_of(&self, lease: &PortLease) -> bool {
        (&self.machine, self.port) == (&lease.machine, lease.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back() {
        let target = Target {
            machine: "web.shop".parse().unwrap(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 5, 2)),
            port: 80,
        };
        let bind: Bind = "[::1]:8080/udp".parse().unwrap();
        let keepers = BTreeMap::from([(bind, Keeper { pid: 7, start_time: 9 })]);
        let served = Served { networks: BTreeMap::new(), ports: BTreeMap::from([(bind, target)]), keepers };
        let text = serde_json::to_string(&served).unwrap();
        assert!(text.contains("\"[::1]:8080/udp\""), "{text}");
        assert_eq!(serde_json::from_str::<Served>(&text).unwrap(), served);
        // As an older stead wrote it.
        let older = text.split_once(",\"keepers\"").unwrap().0.to_owned() + "}";
        assert_eq!(serde_json::from_str::<Served>(&older).unwrap(), Served { keepers: [].into(), ..served });
    }
}
