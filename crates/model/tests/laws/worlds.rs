//! Projects in a few words, the computers they are tried on, and what can befall a computer.

use std::collections::{BTreeMap, BTreeSet};

use stead_model::container::{Access, Container, Mount, NetworkMode};
use stead_model::dev::{Dev, Person};
use stead_model::lock::Lock;
use stead_model::name::{MachineId, Name, VolumeId};
use stead_model::observed::{
    Body, Engine, HostFacts, HostLink, Ipv6, Lack, MachineState, NetworkState, Observed, Running,
    Switchboard, Uplink, Uplinks,
};
use stead_model::plan::{Plan, Power, UnwantedVolumes, Wanted, plan};
use stead_model::project::{
    Addressing, Condition, Dhcp, Guard, Kind, Machine, Network, Nic, Pool, Port, Project, ProjectFiles,
    Reach, Runs, Subnet, Volume,
};
use stead_model::provision::Script;
use stead_model::resolve::{Context, Images, Refusal, binds_clash, resolve};
use stead_model::vm::{DiskFormat, DiskImage, Vm};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An empty project; the functions below add to it.
pub(crate) fn project(text: &str) -> Project {
    Project {
        name: name(text),
        networks: BTreeMap::new(),
        external_networks: BTreeMap::new(),
        machines: BTreeMap::new(),
        volumes: BTreeMap::new(),
        external_volumes: BTreeMap::new(),
    }
}

/// A managed network with `nat` and automatic subnets.
pub(crate) fn network() -> Network {
    Network {
        addressing: Addressing::Managed(Dhcp { pool: Pool::Auto, lease_s: 3600, slaac: false }),
        reach: Reach::Nat,
        subnet: Subnet::Auto,
        subnet6: Subnet::Auto,
        mtu: 1500,
        joins: BTreeSet::new(),
        boot: None,
    }
}

pub(crate) fn isolated() -> Network {
    Network { reach: Reach::Isolated, ..network() }
}

/// With this IPv4 subnet and no IPv6, for short texts.
pub(crate) fn subnet(text: &str) -> Network {
    Network { subnet: Subnet::Given(text.parse().unwrap()), subnet6: Subnet::Off, ..network() }
}

pub(crate) fn nic(network: &str) -> Nic {
    Nic {
        network: name(network),
        address: None,
        address6: None,
        mac: None,
        aliases: BTreeSet::new(),
        guard: Guard::On,
    }
}

pub(crate) fn fixed(network: &str, address: &str) -> Nic {
    Nic { address: Some(address.parse().unwrap()), ..nic(network) }
}

pub(crate) trait With: Sized {
    fn net(self, text: &str, network: Network) -> Self;
    fn machine(self, kind: Kind, text: &str, nics: &[Nic]) -> Self;
    fn put(self, kind: Kind, text: &str, runs: Runs, nics: &[Nic]) -> Self;
    fn ours(self, text: &str, image: &str, nics: &[Nic]) -> Self;
    fn vm_ours(self, text: &str, memory_mib: u64, nics: &[Nic]) -> Self;
    fn port(self, machine: &str, bind: &str) -> Self;
    fn depends(self, machine: &str, on: &str, how_far: Condition) -> Self;
    fn within(self, machine: &str, other: &str) -> Self;
    fn on_host(self, machine: &str) -> Self;
    fn join(self, a: &str, b: &str) -> Self;
    fn external(self, machine: &str, volume: &str, id: &str) -> Self;
    fn lent(self, network: &str, id: &str) -> Self;
    fn volume(self, text: &str) -> Self;
    fn volume_of(self, text: &str, size_bytes: u64) -> Self;
    fn script(self, machine: &str, text: &str) -> Self;
    fn dev(self, machine: &str, user: &str) -> Self;
    fn container(self, text: &str, nics: &[Nic]) -> Self {
        self.machine(Kind::Container, text, nics)
    }
    fn vm(self, text: &str, nics: &[Nic]) -> Self {
        self.machine(Kind::Vm, text, nics)
    }
}

impl With for Project {
    fn dev(mut self, machine: &str, user: &str) -> Self {
        let dev = Dev { user: Some(user.to_owned()), ..Dev::default() };
        self.machines.get_mut(&name(machine)).unwrap().dev = Some(Box::new(dev));
        self
    }

    fn script(mut self, machine: &str, text: &str) -> Self {
        let script = Script { text: text.to_owned(), user: None, environment: BTreeMap::new() };
        self.machines.get_mut(&name(machine)).unwrap().provision.push(script);
        self
    }

    fn net(mut self, text: &str, network: Network) -> Self {
        self.networks.insert(name(text), network);
        self
    }

    fn machine(self, kind: Kind, text: &str, nics: &[Nic]) -> Self {
        self.put(kind, text, Runs::External, nics)
    }

    fn put(mut self, kind: Kind, text: &str, runs: Runs, nics: &[Nic]) -> Self {
        let (ports, depends_on, provision) = (Vec::new(), BTreeMap::new(), Vec::new());
        let restarts_with = BTreeSet::new();
        let machine = Machine {
            kind,
            runs,
            nics: nics.to_vec(),
            ports,
            depends_on,
            restarts_with,
            dev: None,
            provision,
        };
        self.machines.insert(name(text), machine);
        self
    }

    fn port(mut self, machine: &str, bind: &str) -> Self {
        let port = Port { bind: bind.parse().unwrap(), target: 80 };
        self.machines.get_mut(&name(machine)).unwrap().ports.push(port);
        self
    }

    fn ours(self, text: &str, image: &str, nics: &[Nic]) -> Self {
        let runs = Runs::Container(Box::new(Container::new(image.parse().unwrap())));
        self.put(Kind::Container, text, runs, nics)
    }

    fn vm_ours(self, text: &str, memory_mib: u64, nics: &[Nic]) -> Self {
        let vm = Vm { memory_mib: Some(memory_mib), ..Vm::new("/srv/debian.img".into()) };
        self.put(Kind::Vm, text, Runs::Vm(Box::new(vm)), nics)
    }

    fn depends(mut self, machine: &str, on: &str, how_far: Condition) -> Self {
        self.machines.get_mut(&name(machine)).unwrap().depends_on.insert(name(on), how_far);
        self
    }

    fn within(mut self, machine: &str, other: &str) -> Self {
        let container = self.machines.get_mut(&name(machine)).unwrap().container_mut().unwrap();
        container.network = NetworkMode::Machine(name(other));
        self.depends(machine, other, Condition::Started)
    }

    fn on_host(mut self, machine: &str) -> Self {
        let container = self.machines.get_mut(&name(machine)).unwrap().container_mut().unwrap();
        container.network = NetworkMode::Host;
        self
    }

    fn join(mut self, a: &str, b: &str) -> Self {
        self.networks.get_mut(&name(a)).unwrap().joins.insert(name(b));
        self.networks.get_mut(&name(b)).unwrap().joins.insert(name(a));
        self
    }

    fn external(mut self, machine: &str, volume: &str, id: &str) -> Self {
        let id: VolumeId = id.parse().unwrap();
        self.external_volumes.insert(name(volume), id.clone());
        let mount =
            Mount::Volume { name: name(volume), external: Some(id), access: Access::Write, nocopy: false };
        let machine = self.machines.get_mut(&name(machine)).unwrap();
        machine.container_mut().unwrap().mounts.insert(format!("/{volume}"), mount);
        self
    }

    fn lent(mut self, network: &str, id: &str) -> Self {
        self.external_networks.insert(name(network), id.parse().unwrap());
        self
    }

    fn volume(mut self, text: &str) -> Self {
        self.volumes.insert(name(text), Volume::default());
        self
    }

    fn volume_of(mut self, text: &str, size_bytes: u64) -> Self {
        self.volumes.insert(name(text), Volume { size_bytes: Some(size_bytes) });
        self
    }
}

pub(crate) fn lack(why: &str) -> Result<(), Lack> {
    Err(Lack { why: why.into(), hint: format!("mend that {why}"), is_command: false })
}

/// A computer with a route, a bridge and an idle nic, on which both kinds of uplink work.
pub(crate) fn computer() -> Observed {
    let links = [("br0", HostLink::Bridge), ("eth1", HostLink::Idle)];
    Observed::nothing(HostFacts {
        online: true,
        ipv6: Ipv6::Everywhere,
        home: "k3x9".into(),
        taken: BTreeMap::new(),
        uplinks: Uplinks { veth: Ok(()), pasta: Ok(()) },
        links: links.into_iter().map(|(link, state)| (link.parse().unwrap(), state)).collect(),
        mtus: BTreeMap::new(),
        local_ports: (32768, 60999),
    })
}

/// The images that are there.
fn images() -> Images {
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse().unwrap();
    let named = [
        (("debian:12".parse().unwrap(), None), digest("a")),
        (("nginx".parse().unwrap(), None), digest("b")),
    ];
    let disk = DiskImage { digest: digest("c"), format: DiskFormat::Raw, bytes: 1 << 30 };
    Images { named: named.into(), disks: [("/srv/debian.img".into(), disk)].into() }
}

/// What `project` is to be on the computer `seen`.
pub(crate) fn wanted(project: &Project, lock: &Lock, seen: &Observed) -> Result<Wanted, Vec<Refusal>> {
    wanted_beside(project, &BTreeSet::new(), lock, seen)
}

/// The same while these machines of its file rest.
pub(crate) fn wanted_beside(
    project: &Project,
    resting: &BTreeSet<Name>,
    lock: &Lock,
    seen: &Observed,
) -> Result<Wanted, Vec<Refusal>> {
    let directory = format!("/home/ann/{}", project.name);
    let (files, images) = (&ProjectFiles::from(directory), images());
    let ids = resting.iter().map(|name| MachineId::new(&project.name, name)).collect();
    let person = Person::default();
    let taken = &BTreeSet::new();
    let context = Context { files, lock, seen, user: 1000, person: &person, images: &images, resting, taken };
    Ok(resolve(project, context)?.beside(&ids, seen)?.with_kept_places(seen))
}

#[track_caller]
pub(crate) fn must_want(project: &Project, lock: &Lock, seen: &Observed) -> Wanted {
    wanted(project, lock, seen).unwrap_or_else(|refusals| panic!("refused: {refusals:?}\n{project:#?}"))
}

/// The computer after a whole plan.
#[track_caller]
pub(crate) fn applied(plan: &Plan, seen: &Observed) -> Observed {
    plan.steps.iter().fold(seen.clone(), |seen, planned| {
        let after = seen.after(&planned.step).unwrap_or_else(|misstep| panic!("{misstep}\n{}", text(plan)));
        assert_lawful(&after);
        after
    })
}

/// The computer with `project` up, and its lock.
#[track_caller]
pub(crate) fn up(project: &Project, seen: &Observed) -> (Observed, Lock) {
    let wanted = must_want(project, &Lock::default(), seen);
    (applied(&plan(&wanted, seen), seen), Lock::new(&wanted))
}

/// Nothing of the project.
pub(crate) fn nothing(project: &Name, seen: &Observed) -> Wanted {
    Wanted::nothing(project, seen, UnwantedVolumes::Delete)
}

/// The steps of a plan, a line each.
pub(crate) fn text(plan: &Plan) -> String {
    plan.steps.iter().map(|planned| format!("{}\n", planned.step)).collect()
}

/// What holds on every computer between two steps:
/// - without an engine (absent, or cut off) there is no network, nic, port or switchboard; machines may
///   still be on record, as after a reboot;
/// - a nic has its network, its machine and its lease; a port leads to a machine;
/// - on a network no two leases share an address or a MAC;
/// - links have names of their own, subnets do not overlap, ports do not clash;
/// - whatever exists belongs to a project on record, and an engine to some project.
pub(crate) fn unlawful(seen: &Observed) -> Vec<String> {
    let mut broken = Vec::new();
    let mut holds = |law: bool, what: &str| {
        if !law {
            broken.push(what.to_owned());
        }
    };
    if seen.engine != Engine::Present {
        let is_bare = seen.networks.is_empty() && seen.nics.is_empty() && seen.ports.is_empty();
        holds(is_bare && seen.switchboard == Switchboard::Absent, "something is served without an engine");
    }
    holds(seen.engine != Engine::Absent || seen.uplink.is_none(), "an uplink without an engine");
    holds(seen.engine == Engine::Absent || !seen.projects.is_empty(), "an engine that belongs to no project");
    for (id, nic) in &seen.nics {
        holds(seen.networks.contains_key(&id.network()), "a nic without network");
        holds(seen.machines.contains_key(&id.machine()), "a nic without machine");
        holds(seen.leases.get(id) == Some(&nic.lease), "a nic without its lease");
    }
    for (id, lease) in &seen.leases {
        for (other, theirs) in seen.leases.range(id..).skip(1).filter(|(o, _)| o.network() == id.network()) {
            let shared = lease.addresses().iter().any(|a| theirs.addresses().contains(a));
            holds(!shared && lease.mac != theirs.mac, &format!("{id} and {other} share an address"));
        }
    }
    let links = seen.networks.values().map(|n| &n.link).chain(seen.nics.values().map(|n| &n.link));
    let count = seen.networks.len() + seen.nics.len();
    holds(links.collect::<BTreeSet<_>>().len() == count, "two links of one name");
    let subnets: Vec<_> = seen.networks.values().flat_map(NetworkState::subnets).collect();
    for (place, a) in subnets.iter().enumerate() {
        for b in subnets.iter().skip(place + 1) {
            holds(!a.contains(&b.network()) && !b.contains(&a.network()), "two subnets overlap");
        }
    }
    let projects = (seen.networks.keys().map(|id| &id.project))
        .chain(seen.machines.keys().map(|id| &id.project))
        .chain(seen.running.keys().map(|id| &id.project))
        .chain(seen.leases.keys().map(|id| &id.project))
        .chain(seen.volumes.keys().map(|id| &id.project))
        .chain(seen.ports.values().map(|target| &target.machine.project))
        .chain(seen.port_leases.values().map(|lease| &lease.machine.project));
    for project in projects {
        holds(seen.projects.contains_key(project), &format!("project {project} is not on record"));
    }
    for (id, running) in &seen.running {
        let is_known = seen.machines.get(id).is_some_and(MachineState::is_ours);
        holds(is_known, "something runs that is no machine of ours");
        let has_engine = seen.engine == Engine::Present || *running == Running::CutOff;
        holds(has_engine, "a machine is connected without an engine");
    }
    let chosen: Vec<_> = seen.port_leases.keys().copied().collect();
    for (place, a) in chosen.iter().enumerate() {
        holds(!chosen.iter().skip(place + 1).any(|b| binds_clash(*a, *b)), "one port was chosen twice");
    }
    for target in seen.ports.values() {
        holds(seen.machines.contains_key(&target.machine), "a port to no machine");
    }
    holds(seen.snapshots.keys().all(|id| seen.machines.contains_key(id)), "a snapshot of no machine");
    broken
}

#[track_caller]
pub(crate) fn assert_lawful(seen: &Observed) {
    assert_eq!(unlawful(seen), Vec::<String>::new(), "{seen:#?}");
}

/// All that one project has on the computer, to compare.
pub(crate) fn part(seen: &Observed, project: &Name) -> Observed {
    let mut part = Observed::nothing(HostFacts::default());
    part.projects = seen.projects.clone();
    part.projects.retain(|name, _| name == project);
    part.networks = seen.networks.clone();
    part.networks.retain(|id, _| id.project == *project);
    part.provisioned = seen.provisioned.clone();
    part.provisioned.retain(|id, _| id.project == *project);
    part.machines = seen.machines.clone();
    part.machines.retain(|id, _| id.project == *project);
    part.running = seen.running.clone();
    part.running.retain(|id, _| id.project == *project);
    part.snapshots = seen.snapshots.clone();
    part.snapshots.retain(|id, _| id.project == *project);
    part.nics = seen.nics.clone();
    part.nics.retain(|id, _| id.project == *project);
    part.leases = seen.leases.clone();
    part.leases.retain(|id, _| id.project == *project);
    part.ports = seen.ports.clone();
    part.ports.retain(|_, target| target.machine.project == *project);
    part.port_leases = seen.port_leases.clone();
    part.port_leases.retain(|_, lease| lease.machine.project == *project);
    part.volumes = seen.volumes.clone();
    part.volumes.retain(|id, _| id.project == *project);
    part
}

/// Asserts that the computer is as wanted.
#[track_caller]
pub(crate) fn assert_is(wanted: &Wanted, seen: &Observed) {
    let part = part(seen, &wanted.project);
    let leases = wanted.nics.iter().map(|(id, nic)| (id.clone(), nic.lease.clone())).collect();
    let machines: BTreeMap<MachineId, _> =
        wanted.machines.iter().map(|(id, machine)| (id.clone(), machine.state.clone())).collect();
    let to_run = wanted.machines.iter().filter(|(_, m)| m.power == Power::On && m.state.is_ours());
    assert_eq!(part.running, to_run.map(|(id, _)| (id.clone(), Running::Connected)).collect());
    assert_eq!(part.networks, wanted.networks);
    assert_eq!(part.machines, machines);
    assert_eq!(part.nics, wanted.nics);
    assert_eq!(part.leases, leases);
    let mut open = wanted.ports.clone();
    open.retain(|_, target| {
        let machine = wanted.machines.get(&target.machine);
        machine.is_some_and(|machine| machine.power == Power::On || !machine.state.is_ours())
    });
    assert_eq!(part.ports, open);
    assert_eq!(part.port_leases, wanted.port_leases);
    assert_eq!(part.projects.values().next(), wanted.files.as_ref());
    match wanted.unwanted_volumes {
        UnwantedVolumes::Keep => {
            let is_there = |(id, volume): (_, &Volume)| part.volumes.get(id) == Some(volume);
            assert!(wanted.volumes.iter().all(is_there));
        }
        UnwantedVolumes::Delete => assert_eq!(part.volumes, wanted.volumes),
    }
    if seen.networks.values().any(|network| network.reach == Reach::Nat) {
        assert_eq!(seen.uplink, wanted.uplink);
    }
    let is_used = !seen.networks.is_empty()
        || seen.machines.values().any(MachineState::goes_with_engine)
        || seen.running.values().any(|running| *running == Running::Connected);
    assert_eq!(seen.engine, if is_used { Engine::Present } else { Engine::Absent });
    assert!(wanted.networks.is_empty() || seen.switchboard == Switchboard::Running);
}

/// Everything that can befall a computer on which projects are up, each with its name.
pub(crate) fn damaged(seen: &Observed) -> Vec<(String, Observed)> {
    let mut worlds = Damages { seen, worlds: Vec::new() };
    damage_engine(&mut worlds);
    damage_networks(&mut worlds);
    damage_the_rest(&mut worlds);
    damage_ports(&mut worlds);
    worlds.worlds
}

struct Damages<'a> {
    seen: &'a Observed,
    worlds: Vec<(String, Observed)>,
}

impl Damages<'_> {
    fn add(&mut self, what: &str, change: &dyn Fn(&mut Observed)) {
        let mut world = self.seen.clone();
        change(&mut world);
        // What is known of a machine is looked up for those that are there.
        let machines = &world.machines;
        world.provisioned.retain(|id, _| machines.contains_key(id));
        self.worlds.push((what.to_owned(), world));
    }
}

fn damage_engine(worlds: &mut Damages<'_>) {
    let seen = worlds.seen;
    let mut add = |what: &str, change: &dyn Fn(&mut Observed)| worlds.add(what, change);
    let die = |world: &mut Observed| {
        world.switchboard = Switchboard::Absent;
        world.networks.clear();
        world.nics.clear();
        world.ports.clear();
        world.running.values_mut().for_each(|running| *running = Running::CutOff);
    };
    if seen.engine == Engine::Present {
        add("engine cut off", &|world| {
            die(world);
            world.engine = Engine::Partial;
        });
        add("engine cut off without its machines", &|world| {
            die(world);
            world.engine = Engine::Partial;
            world.machines.retain(|_, machine| !machine.goes_with_engine());
            world.uplink = None;
        });
        add("reboot", &|world| {
            die(world);
            world.running.clear();
            world.engine = Engine::Absent;
            world.uplink = None;
        });
        add("switchboard killed", &|world| world.switchboard = Switchboard::Absent);
        add("switchboard killed, ports with it", &|world| {
            world.switchboard = Switchboard::Absent;
            world.ports.clear();
        });
        add("uplink lost", &|world| world.uplink = None);
        add("uplink broken", &|world| world.uplink_is_broken = world.uplink.is_some());
        add("uplink broken, and offline", &|world| {
            world.uplink_is_broken = world.uplink.is_some();
            world.host.online = false;
        });
        add("uplink was pasta", &|world| {
            world.uplink = world.uplink.as_ref().map(|_| Uplink::Pasta);
        });
        add("veth impossible now", &|world| world.host.uplinks.veth = lack("veth"));
        add("pasta impossible now", &|world| world.host.uplinks.pasta = lack("pasta"));
    }
}

fn damage_networks(worlds: &mut Damages<'_>) {
    let seen = worlds.seen;
    let mut add = |what: &str, change: &dyn Fn(&mut Observed)| worlds.add(what, change);
    for id in seen.networks.keys() {
        let edit = |world: &mut Observed, change: &dyn Fn(&mut NetworkState)| {
            change(world.networks.get_mut(id).unwrap());
        };
        add("other mtu", &|world| edit(world, &|n| n.mtu = 1280));
        add("other link", &|world| edit(world, &|n| n.link = "stb-odd-aaaaa".parse().unwrap()));
        add("other mac", &|world| edit(world, &|n| n.mac = "02:00:00:00:00:77".parse().unwrap()));
        add("no gateway", &|world| edit(world, &|n| n.gateway = None));
        add("no gateway6", &|world| edit(world, &|n| n.gateway6 = None));
        add("other gateway", &|world| {
            edit(world, &|n| n.gateway = n.gateway.map(|_| "10.127.9.1/24".parse().unwrap()));
        });
        add("isolated", &|world| edit(world, &|n| n.reach = Reach::Isolated));
        add("bridged", &|world| edit(world, &|n| n.reach = Reach::Bridged("br0".parse().unwrap())));
        add("no joins", &|world| edit(world, &|n| n.joins.clear()));
        add("not served", &|world| edit(world, &|n| n.service = None));
        add("network and its nics gone", &|world| {
            world.networks.remove(id);
            world.nics.retain(|nic, _| nic.network() != *id);
        });
        add("network gone from under its nics", &|world| {
            world.networks.remove(id);
        });
    }
}

fn damage_the_rest(worlds: &mut Damages<'_>) {
    let seen = worlds.seen;
    let mut add = |what: &str, change: &dyn Fn(&mut Observed)| worlds.add(what, change);
    for id in seen.nics.keys() {
        add("nic missing", &|world| {
            world.nics.remove(id);
        });
        add("nic and lease missing", &|world| {
            world.nics.remove(id);
            world.leases.remove(id);
        });
        add("lease missing", &|world| {
            world.leases.remove(id);
        });
        add("lease changed", &|world| {
            world.leases.get_mut(id).unwrap().mac = "02:00:00:00:00:78".parse().unwrap();
        });
        add("nic has other mtu", &|world| world.nics.get_mut(id).unwrap().mtu = 1280);
        add("nic has alias", &|world| {
            world.nics.get_mut(id).unwrap().names.insert(name("odd").into());
        });
    }
    for id in seen.machines.keys() {
        add("machine missing, nics there", &|world| {
            world.machines.remove(id);
        });
        add("machine and nics missing", &|world| {
            world.machines.remove(id);
            world.nics.retain(|nic, _| nic.machine() != *id);
        });
        add("machine of other kind", &|world| {
            let state = world.machines.get_mut(id).unwrap();
            state.kind = if state.kind == Kind::Vm { Kind::Container } else { Kind::Vm };
        });
    }
    for id in seen.running.keys() {
        add("machine ended", &|world| {
            world.running.remove(id);
        });
        add("machine ended, and its ports closed", &|world| {
            world.running.remove(id);
            world.ports.retain(|_, target| target.machine != *id);
        });
        add("machine cut off", &|world| {
            world.running.insert(id.clone(), Running::CutOff);
        });
        add("record of a running machine lost", &|world| {
            world.machines.remove(id);
        });
        add("image is another", &|world| {
            let machine = world.machines.get_mut(id).unwrap();
            if let Body::Container(made) = &mut machine.body {
                made.image = None;
            }
        });
    }
    for id in seen.volumes.keys() {
        add("volume missing", &|world| {
            world.volumes.remove(id);
        });
        add("volume of another size", &|world| {
            world.volumes.insert(id.clone(), Volume { size_bytes: Some(3 << 30) });
        });
    }
}

fn damage_ports(worlds: &mut Damages<'_>) {
    let seen = worlds.seen;
    let mut add = |what: &str, change: &dyn Fn(&mut Observed)| worlds.add(what, change);
    for bind in seen.ports.keys() {
        add("port missing", &|world| {
            world.ports.remove(bind);
        });
        add("port leads elsewhere", &|world| {
            world.ports.get_mut(bind).unwrap().address = "10.9.9.9".parse().unwrap();
        });
    }
    for bind in seen.port_leases.keys() {
        add("a chosen port is not on record", &|world| {
            world.port_leases.remove(bind);
        });
        add("a chosen port is another's on record", &|world| {
            world.port_leases.get_mut(bind).unwrap().target = 81;
        });
    }
}
