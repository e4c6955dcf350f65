//! Any project that a file can say.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test that meets a new variant fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::container::{Mode, NetworkMode};
use crate::dev::Dev;
use crate::project::*;
use crate::provision::Script;

fn networks() -> impl Strategy<Value = Network> {
    let reach =
        prop_oneof![Just(Reach::Nat), Just(Reach::Isolated), Just(Reach::Bridged("e$0,#".parse().unwrap()))];
    let pool = prop_oneof![Just(Pool::Auto), Just(Pool::Off)];
    let boot = proptest::option::of(("[ -~é]{1,30}", proptest::option::of(any::<bool>()))).prop_map(|boot| {
        boot.map(|(file, server)| Boot {
            file,
            server: server.map(|v4| if v4 { "10.0.0.9" } else { "fd00::9" }.parse().unwrap()),
        })
    });
    (0..3, reach, 0..3_usize, 0..2_usize, 1280..=9216_u16, pool, 60..=86_400_u32, any::<bool>(), boot)
        .prop_map(|(mode, reach, v4, v6, mtu, pool, lease_s, slaac, boot)| {
            let v4 = [Subnet::Auto, Subnet::Given("10.0.0.0/24".parse().unwrap()), Subnet::Off][v4];
            let v6 = [Subnet::Auto, Subnet::Given("fd00::/64".parse().unwrap())][v6];
            let joins = BTreeSet::new();
            match mode {
                0 => Network {
                    addressing: Addressing::Managed(Dhcp { pool, lease_s, slaac }),
                    reach,
                    subnet: v4,
                    subnet6: v6,
                    mtu,
                    joins,
                    boot,
                },
                1 => Network {
                    addressing: Addressing::Static,
                    reach,
                    subnet: v4,
                    subnet6: v6,
                    mtu,
                    joins,
                    boot: None,
                },
                _ => {
                    let reach = if reach == Reach::Nat { Reach::Isolated } else { reach };
                    Network {
                        addressing: Addressing::None,
                        reach,
                        subnet: Subnet::Off,
                        subnet6: Subnet::Off,
                        mtu,
                        joins,
                        boot: None,
                    }
                }
            }
        })
}

fn script(flags: &[bool; 8]) -> Script {
    Script {
        text: "#!/bin/sh\necho \"$A ${B}\": '#'\n\ttrue\n".to_owned(),
        user: flags[3].then(|| "web:1".to_owned()),
        environment: [("A".to_owned(), "$1 \"x\"".to_owned())].into_iter().filter(|_| flags[4]).collect(),
    }
}

fn dev(flags: &[bool; 8]) -> Dev {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB \"it's\": $me #1".to_owned();
    Dev {
        user: flags[0].then(|| "joe".to_owned()),
        uid: flags[1].then_some(1001),
        shell: flags[4].then(|| "/bin/zsh".to_owned()),
        groups: ["audio".to_owned(), "no".to_owned()].into_iter().filter(|_| flags[5]).collect(),
        sudo: flags[6],
        keys: flags[7].then(|| vec![key; usize::from(flags[0])]),
        password_hash: flags[0].then(|| "$6$a$b".to_owned()),
    }
}

/// Up to five networks and as many machines, each with its own part of what may not be taken twice.
pub(super) fn projects() -> impl Strategy<Value = Project> {
    let networks = proptest::collection::vec(networks(), 0..5);
    let container = proptest::option::of(super::containers::any_container());
    let machines = proptest::collection::vec((any::<[bool; 8]>(), 0..3_usize, container), 0..5);
    (networks, machines).prop_map(|(list, choices)| {
        // Names that YAML takes for something else, too.
        let names = ["null", "no", "lan", "y", "default"].map(|name| name.parse().unwrap());
        let mut networks = BTreeMap::new();
        for (index, mut network) in list.into_iter().enumerate() {
            let third = u8::try_from(index).unwrap();
            if let Subnet::Given(net) = &mut network.subnet {
                *net = ipnet::Ipv4Net::new(Ipv4Addr::new(10, 0, third, 0), 24).unwrap();
            }
            if let Subnet::Given(net) = &mut network.subnet6 {
                *net =
                    ipnet::Ipv6Net::new(Ipv6Addr::new(0xfd00, 0, 0, third.into(), 0, 0, 0, 0), 64).unwrap();
            }
            networks.insert(crate::name::Name::clone(&names[index]), network);
        }
        let mut machines: BTreeMap<crate::name::Name, Machine> = BTreeMap::new();
        for (index, (flags, kind, container)) in choices.into_iter().enumerate() {
            let last = u8::try_from(index).unwrap() + 2;
            let mut nics = Vec::new();
            for (name, network) in networks.iter().rev().filter(|_| flags[0]) {
                let address = match network.subnet {
                    Subnet::Given(net) if flags[1] => crate::address::nth4(net, last.into()),
                    _ => None,
                };
                let address6 = match network.subnet6 {
                    Subnet::Given(net) if flags[2] => crate::address::nth6(net, last.into()),
                    _ => None,
                };
                let mac = flags[3].then(|| crate::address::Mac::derived(&[name.as_str(), &last.to_string()]));
                let aliases = if flags[4] {
                    BTreeSet::from([format!("alias{last}").parse().unwrap()])
                } else {
                    BTreeSet::new()
                };
                let guard = if flags[5] { Guard::On } else { Guard::Off };
                nics.push(Nic { network: name.clone(), address, address6, mac, aliases, guard });
            }
            let reached = nics.iter().any(|nic| networks[&nic.network].addressing != Addressing::None);
            let address = if flags[6] { "::" } else { "127.0.0.1" }.parse().unwrap();
            let bind = Bind {
                protocol: if flags[5] { Protocol::Tcp } else { Protocol::Udp },
                address,
                port: u16::from(last),
            };
            let ports = if reached { vec![Port { bind, target: 80 }] } else { Vec::new() };
            let (kind, runs) = match container {
                Some(container) => (Kind::Container, Runs::Container(Box::new(container))),
                None => ([Kind::Container, Kind::Microvm, Kind::Vm][kind], Runs::External),
            };
            let condition = |name: &crate::name::Name| match &machines[name] {
                Machine { runs: Runs::Container(_), .. } if flags[6] => Condition::Completed,
                _ => Condition::Started,
            };
            let before: Vec<&crate::name::Name> = machines.keys().filter(|_| flags[7]).collect();
            let depends_on = before.into_iter().map(|name| (name.clone(), condition(name))).collect();
            let restarts_with = machines.keys().filter(|_| flags[7] && flags[1]).cloned().collect();
            let name: crate::name::Name = format!("m{index}").parse().unwrap();
            let provision = Vec::from_iter((runs.is_ours() && flags[2]).then(|| script(&flags)));
            let dev = (runs.is_ours() && flags[3]).then(|| Box::new(dev(&flags)));
            let made = Machine { kind, runs, nics, ports, depends_on, restarts_with, dev, provision };
            machines.insert(name, in_another_network(made, &machines, (!flags[0], flags[6])));
        }
        // Of some the limits are left out, of others they are not.
        let sizes = [None, Some(1 << 30), Some(64 << 10)].map(|size_bytes| Volume { size_bytes });
        let volumes = names.into_iter().zip(sizes.into_iter().cycle()).collect();
        let (external_networks, external_volumes) = of_others(&mut machines);
        let name = "on".parse().unwrap();
        Project { name, networks, external_networks, machines, volumes, external_volumes }
    })
}

/// The same in this computer's network, or in that of the first of these machines, if it is a container that may be.
fn in_another_network(
    mut machine: Machine,
    before: &BTreeMap<crate::name::Name, Machine>,
    (is_wanted, on_host): (bool, bool),
) -> Machine {
    let is_own = |machine: &Machine| {
        machine.kind == Kind::Container
            && machine.runs.container().is_none_or(|container| container.network.is_own())
    };
    let other = before.iter().find(|(_, machine)| is_own(machine)).map(|(name, _)| name);
    let Some(container) = machine.container_mut() else { return machine };
    let is_system = container.mode == Mode::System;
    if !is_wanted || is_system || container.rights.sysctls.keys().any(|name| name.starts_with("net")) {
        return machine;
    }
    if on_host {
        container.network = NetworkMode::Host;
    } else if let Some(other) = other {
        container.network = NetworkMode::Machine(other.clone());
        container.hostname = None;
        container.hosts.clear();
        (container.dns, container.dns_search) = (Vec::new(), Vec::new());
        machine.depends_on.entry(other.clone()).or_default();
    }
    machine
}

/// What other projects have, for some of these machines.
fn of_others(
    machines: &mut BTreeMap<crate::name::Name, Machine>,
) -> (BTreeMap<crate::name::Name, crate::name::NetworkId>, BTreeMap<crate::name::Name, crate::name::VolumeId>)
{
    let volumes = [("lent", "data.shop"), ("true", "off.default")];
    let networks = [("lent", "lan.shop"), ("true", "off.default")];
    let bare = |network: &str| Nic {
        network: network.parse().unwrap(),
        address: None,
        address6: None,
        mac: None,
        aliases: BTreeSet::new(),
        guard: Guard::On,
    };
    let is_in_own =
        |machine: &&mut Machine| machine.runs.container().is_none_or(|container| container.network.is_own());
    let alone = machines.values_mut().filter(|machine| machine.depends_on.is_empty());
    for machine in alone.filter(is_in_own) {
        machine.nics.extend(networks.map(|(name, _)| bare(name)));
    }
    (
        networks.map(|(name, id)| (name.parse().unwrap(), id.parse().unwrap())).into(),
        volumes.map(|(name, id)| (name.parse().unwrap(), id.parse().unwrap())).into(),
    )
}
