//! Published ports: where each leads, and which are taken of those that this computer chooses. What was chosen stands while
//! its machine asks for it: by the record; or, where a command was cut off before that, as it is open already.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{Choice, binds_clash, nic_id};
use crate::address::digest;
use crate::name::{MachineId, NicId};
use crate::observed::{NicState, PortLease};
use crate::project::{Bind, Machine, Port, Project, Protocol};
use crate::served::Target;

/// Ports that stand for no service (RFC 6335, 6): of these one is chosen.
const DYNAMIC: RangeInclusive<u16> = 49152..=65535;

/// What is asked for where the number is left open: whose port, its number there, and what reaches it.
type Want = (MachineId, u16, Protocol, IpAddr);

/// The chosen ports, by their machine and their place among its ports.
type Chosen = BTreeMap<(MachineId, usize), Bind>;

impl Choice<'_> {
    /// The ports, and those of them that were chosen.
    pub(super) fn ports(
        &mut self,
        nics: &BTreeMap<NicId, NicState>,
    ) -> (BTreeMap<Bind, Target>, BTreeMap<Bind, PortLease>) {
        let numbers = self.numbers();
        let (mut ports, mut leases) = (BTreeMap::new(), BTreeMap::new());
        for (id, machine) in in_order(self.project) {
            let addresses: Vec<IpAddr> = machine
                .nics
                .iter()
                .filter_map(|nic| nics.get(&nic_id(self.project, &id, nic)))
                .flat_map(|nic| nic.lease.addresses())
                .collect();
            for (place, port) in machine.ports.iter().enumerate() {
                let number = numbers.get(&(id.clone(), place));
                let bind = number.copied().unwrap_or(port.bind);
                // One for which there was none is refused already.
                if bind.is_left_open() || !self.may_publish(&id, machine, bind, &ports) {
                    continue;
                }
                let same_family = addresses.iter().find(|a| a.is_ipv4() == bind.address.is_ipv4());
                match same_family.or(addresses.first()) {
                    Some(address) => {
                        let target = Target { machine: id.clone(), address: *address, port: port.target };
                        ports.insert(bind, target);
                        let lease = PortLease { machine: id.clone(), target: port.target };
                        leases.extend(number.map(|bind| (*bind, lease)));
                    }
                    None if self.misses_lent(machine) => {
                        let lease = PortLease { machine: id.clone(), target: port.target };
                        leases.extend(number.map(|bind| (*bind, lease)));
                    }
                    None => self.refuse(
                        format!("machines.{}.ports", id.name),
                        "the machine has no address to carry it to".into(),
                        "give it a nic on a network with addresses",
                    ),
                }
            }
        }
        (ports, leases)
    }

    /// Whether nobody else is in the way of a port; if somebody is, that is refused.
    fn may_publish(
        &mut self,
        id: &MachineId,
        machine: &Machine,
        bind: Bind,
        chosen: &BTreeMap<Bind, Target>,
    ) -> bool {
        let key = format!("machines.{}.ports", id.name);
        let other = self.context.seen.ports.iter().find(|(other, target)| {
            target.machine.project != self.project.name && binds_clash(**other, bind)
        });
        let is_said = machine.ports.iter().any(|port| port.bind == bind);
        if let Some((bind, target)) = other {
            let why = format!("port {bind} is published by machine `{}` already", target.machine);
            let hint = if is_said {
                "choose another port, or another address of this computer".to_owned()
            } else {
                format!("take it away there; or `stead rm {id}`: then another is chosen")
            };
            self.refuse(key, why, &hint);
            return false;
        }
        let before = chosen.iter().find(|(other, _)| binds_clash(**other, bind));
        if let Some((bind, target)) = before.filter(|_| machine.is_one_off()) {
            if !self.context.seen.machines.contains_key(id) {
                let why = format!("port {bind} is that of machine `{}`", target.machine.name);
                self.refuse(key, why, "choose another port, or another address of this computer");
            }
            return false;
        }
        true
    }

    /// The ports whose numbers are left open: as they were, and new ones that nobody has.
    fn numbers(&mut self) -> Chosen {
        let (wants, fixed): (Vec<_>, Vec<_>) =
            all(self.project).into_iter().partition(|(.., port)| port.bind.is_left_open());
        let mut numbers = Chosen::new();
        if wants.is_empty() {
            return numbers;
        }
        let mut used = Used::default();
        fixed.iter().for_each(|(.., port)| used.add(port.bind));
        let mut earlier = self.earlier();
        let mut new = Vec::new();
        for (id, place, port) in wants {
            let want = (id.clone(), port.target, port.bind.protocol, port.bind.address);
            let earlier = earlier.get_mut(&want).into_iter().flat_map(|all| all.drain(..1.min(all.len())));
            match earlier.last().filter(|bind| used.is_free(*bind)) {
                Some(bind) => {
                    used.add(bind);
                    numbers.insert((id, place), bind);
                }
                None => new.push((want, place)),
            }
        }
        let (seen, taken) = (self.context.seen, self.context.taken);
        seen.ports.keys().chain(seen.port_leases.keys()).chain(taken).for_each(|bind| used.add(*bind));
        let pools = Pools::new(seen.host.local_ports);
        for (want, place) in new {
            let bind = |port| Bind { protocol: want.2, address: want.3, port };
            let free = pools.candidates(&seen.host.home, &want).map(bind).find(|bind| used.is_free(*bind));
            match free {
                Some(bind) => {
                    used.add(bind);
                    numbers.insert((want.0, place), bind);
                }
                None => self.refuse(
                    format!("machines.{}.ports", want.0.name),
                    format!("no port from {} to {} is free", DYNAMIC.start(), DYNAMIC.end()),
                    "name one that is, like `8080:80`",
                ),
            }
        }
        numbers
    }

    /// What this computer chose earlier.
    fn earlier(&self) -> BTreeMap<Want, Vec<Bind>> {
        let seen = self.context.seen;
        let want =
            |bind: &Bind, machine: &MachineId, target| (machine.clone(), target, bind.protocol, bind.address);
        let mut earlier: BTreeMap<Want, Vec<Bind>> = BTreeMap::new();
        for (bind, lease) in &seen.port_leases {
            earlier.entry(want(bind, &lease.machine, lease.target)).or_default().push(*bind);
        }
        let unrecorded =
            seen.ports.iter().filter(|(bind, _)| DYNAMIC.contains(&bind.port)).filter(|(bind, target)| {
                !seen.port_leases.get(bind).is_some_and(|lease| target.is_of(lease))
            });
        for (bind, target) in unrecorded {
            earlier.entry(want(bind, &target.machine, target.port)).or_default().push(*bind);
        }
        earlier
    }
}

/// The machines, those of the file first: what it says goes before what was made beside it.
fn in_order(project: &Project) -> Vec<(MachineId, &Machine)> {
    let (one_offs, of_file): (Vec<_>, Vec<_>) =
        project.machines.iter().partition(|(_, machine)| machine.is_one_off());
    let machines = of_file.into_iter().chain(one_offs);
    machines.map(|(name, machine)| (MachineId::new(&project.name, name), machine)).collect()
}

/// Every port, with its machine and its place there.
fn all(project: &Project) -> Vec<(MachineId, usize, &Port)> {
    let machines = in_order(project).into_iter();
    let ports = machines.flat_map(|(id, machine)| {
        machine.ports.iter().enumerate().map(move |(place, port)| (id.clone(), place, port))
    });
    ports.collect()
}

/// The addresses at which ports are somebody's.
#[derive(Default)]
struct Used(BTreeMap<(Protocol, u16), Vec<IpAddr>>);

impl Used {
    fn add(&mut self, bind: Bind) {
        self.0.entry((bind.protocol, bind.port)).or_default().push(bind.address);
    }

    fn is_free(&self, bind: Bind) -> bool {
        let others = self.0.get(&(bind.protocol, bind.port)).into_iter().flatten();
        !others.into_iter().any(|address| binds_clash(Bind { address: *address, ..bind }, bind))
    }
}

/// Ports that may be chosen: first those that the kernel gives to nobody who asks for none in particular. Others it may
/// give away while a machine is down.
struct Pools([Vec<u16>; 2]);

impl Pools {
    fn new((first, last): (u16, u16)) -> Self {
        let (local, quiet) = DYNAMIC.partition(|port| (first..=last).contains(port));
        Self([quiet, local])
    }

    /// All of them, from a place that depends on what the port is for and on the home: of two homes each begins elsewhere.
    fn candidates(
        &self,
        home: &str,
        (machine, target, protocol, address): &Want,
    ) -> impl Iterator<Item = u16> {
        let texts = [machine.to_string(), target.to_string(), protocol.to_string(), address.to_string()];
        let [machine, target, protocol, address] = texts.each_ref().map(String::as_str);
        let [a, b, ..] = digest(&["port", home, machine, target, protocol, address]);
        let place = usize::from(u16::from_be_bytes([a, b]));
        self.0.iter().flat_map(move |pool| {
            let place = place.checked_rem(pool.len()).unwrap_or_default();
            pool.iter().cycle().skip(place).take(pool.len()).copied()
        })
    }
}
