//! One-offs: machines that `stead run` makes of one that the file names. Such a machine is of that project and in no file,
//! so what no file says of it is on record with it; plans leave it alone until somebody removes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::container::{Container, Pace, Restart};
use crate::name::{MachineId, NAME_MAX_CHARS, Name};
use crate::observed::{Body, MachineState, Observed};
use crate::plan::{Wanted, WantedMachine};
use crate::project::{Machine, Nic, Port, Project, Runs};
use crate::resolve::{Refusal, binds_clash};

/// That a machine is a one-off, and what a file would say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOff {
    /// The machine of the file that it is made after.
    pub of: Name,
    /// Its nics.
    pub nics: Vec<Nic>,
    /// The ports of it that this computer publishes.
    pub ports: Vec<Port>,
}

impl Machine {
    /// What a one-off of this machine begins with: all but what one machine alone can have (published ports, fixed
    /// addresses, more names), what is for one that stays (being started again), and scripts that would run beside its
    /// program. None of one that is no container of ours, be it in a guest.
    pub fn for_one_off(&self) -> Option<Self> {
        let mut machine = self.clone();
        let container = machine.container_mut()?;
        container.restart = Restart::No;
        container.pace = Pace::default();
        let bare = |nic: &mut Nic| {
            *nic = Nic { address: None, address6: None, mac: None, aliases: BTreeSet::new(), ..nic.clone() };
        };
        machine.nics.iter_mut().for_each(bare);
        machine.ports.clear();
        machine.dev = None;
        machine.provision.clear();
        Some(machine)
    }

    /// The same machine as a one-off of the one that is called so, if it can be one.
    pub fn as_one_off(mut self, of: &Name) -> Option<Self> {
        let (nics, ports) = (self.nics.clone(), self.ports.clone());
        self.container_mut()?.one_off = Some(Box::new(OneOff { of: of.clone(), nics, ports }));
        Some(self)
    }

    /// Whether it is one.
    pub fn is_one_off(&self) -> bool {
        self.runs.container().is_some_and(|container| container.one_off.is_some())
    }

    /// The container, if we run one, be it in a guest.
    pub fn container_mut(&mut self) -> Option<&mut Container> {
        match &mut self.runs {
            Runs::Container(container) | Runs::Microvm(container) => Some(container),
            Runs::External | Runs::Vm(_) => None,
        }
    }
}

impl MachineState {
    /// That it is a one-off, if it is one.
    pub fn one_off(&self) -> Option<&OneOff> {
        self.container()?.wish.one_off.as_deref()
    }
}

impl WantedMachine {
    /// Whether it is a one-off.
    pub(crate) fn is_one_off(&self) -> bool {
        self.state.one_off().is_some()
    }
}

impl Project {
    /// The one-offs of this project that exist, as a file would say them. A name that the file has by now is the file's;
    /// of networks that it has no more nothing is known.
    pub fn one_offs(&self, seen: &Observed) -> BTreeMap<Name, Machine> {
        let of_project = seen.machines.iter().filter(|(id, _)| id.project == self.name);
        let unnamed = of_project.filter(|(id, _)| !self.machines.contains_key(&id.name));
        let machine = |(id, state): (&MachineId, &MachineState)| {
            let OneOff { nics, ports, .. } = state.one_off()?;
            let runs = match &state.body {
                Body::Container(made) => Runs::Container(Box::new(made.wish.clone())),
                Body::Microvm(made) => Runs::Microvm(Box::new(made.wish.clone())),
                Body::External | Body::Vm(_) => return None,
            };
            let is_there = |nic: &&Nic| {
                self.networks.contains_key(&nic.network) || self.external_networks.contains_key(&nic.network)
            };
            let machine = Machine {
                kind: state.kind,
                runs,
                nics: nics.iter().filter(is_there).cloned().collect(),
                ports: ports.clone(),
                depends_on: BTreeMap::new(),
                restarts_with: [].into(),
                dev: None,
                provision: Vec::new(),
            };
            Some((id.name.clone(), machine))
        };
        unnamed.filter_map(machine).collect()
    }

    /// Takes the ports that one machine publishes from all others but these: they are not about to be published.
    pub fn yield_ports(&mut self, to: &Name, but: &BTreeSet<Name>) {
        let Some(ports) = self.machines.get(to).map(|machine| machine.ports.clone()) else { return };
        let is_free = |port: &Port| !ports.iter().any(|theirs| binds_clash(theirs.bind, port.bind));
        for (_, machine) in self.machines.iter_mut().filter(|(name, _)| *name != to && !but.contains(name)) {
            machine.ports.retain(is_free);
        }
    }
}

impl Wanted {
    /// The ports that these machines are to publish, and that others publish which are left as they are.
    pub fn taken_ports(&self, project: &Project, are_chosen: impl Fn(&MachineId) -> bool) -> Vec<Refusal> {
        let machines = project.machines.iter().map(|(name, machine)| (self.id(name), machine));
        let ports = machines
            .filter(|(id, _)| self.machines.contains_key(id) && are_chosen(id))
            .flat_map(|(id, machine)| machine.ports.iter().map(move |port| (id.clone(), port)));
        let taken = |(id, port): (MachineId, &Port)| {
            let clashes = self.ports.iter().filter(|(bind, _)| binds_clash(**bind, port.bind));
            let (bind, target) = clashes
                .into_iter()
                .find(|(_, target)| target.machine != id && !are_chosen(&target.machine))?;
            Some(Refusal {
                key: format!("machines.{}.ports", id.name),
                why: format!(
                    "port {bind} is published by machine `{}`, which stays as it is",
                    target.machine
                ),
                hint: format!(
                    "`stead rm --force {}` first, or publish another port of this computer",
                    target.machine
                ),
            })
        };
        ports.filter_map(taken).collect()
    }

    fn id(&self, name: &Name) -> MachineId {
        MachineId::new(&self.project, name)
    }
}

/// The name of a one-off that got none: the machine's, and the first number that is free.
pub fn free_name(of: &Name, is_taken: impl Fn(&Name) -> bool) -> Option<Name> {
    let numbered = |number: u16| {
        let end = format!("-run-{number}");
        let stem = of.as_str().get(..NAME_MAX_CHARS.saturating_sub(end.len())).unwrap_or(of.as_str());
        format!("{}{end}", stem.trim_end_matches('-')).parse::<Name>().ok()
    };
    (1..=u16::MAX).filter_map(numbered).find(|name| !is_taken(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Restart;
    use crate::file::{Source, Variables, parse, render};

    #[track_caller]
    fn shop(text: &str) -> Project {
        let none = Variables::default();
        let source = Source::new("stead.yaml", text, &none, "/srv/shop".as_ref());
        parse(&source).unwrap_or_else(|problems| panic!("{problems}")).project
    }

    fn named(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_one_off_has_nothing_that_one_machine_alone_can_have() {
        let text = "name: shop
networks: { lan: { subnet: 10.0.5.0/24, subnet6: off } }
volumes: [data]
machines:
  db: { image: db }
  web:
    image: web
    command: serve
    environment: { A: '1' }
    volumes: ['data:/data']
    restart: always
    ports: ['8080:80']
    networks: { lan: { address: 10.0.5.7, mac: '02:00:00:00:00:07', aliases: [www], guard: off } }
    depends_on: [db]
    healthcheck: { test: [CMD, true] }
    user: app
    provision: [make]
";
        let mut project = shop(text);
        let web = project.machines.get(&named("web")).expect("it is there").for_one_off();
        let expected = shop(
            "name: shop
networks: { lan: { subnet: 10.0.5.0/24, subnet6: off } }
volumes: [data]
machines:
  db: { image: db }
  web:
    image: web
    command: serve
    environment: { A: '1' }
    volumes: ['data:/data']
    networks: { lan: { guard: off } }
    depends_on: [db]
    healthcheck: { test: [CMD, true] }
    user: app
",
        );
        project.machines.insert(named("web"), web.expect("it can be one"));
        assert_eq!(render(&project), render(&expected));
        assert!(!project.machines.values().any(Machine::is_one_off));
    }

    #[test]
    fn what_is_no_container_of_ours_has_none() {
        let project = shop(
            "machines: { a: { kind: container, driver: external }, b: { kind: vm, image: ./x.qcow2 }, c: { kind: microvm, image: c } }",
        );
        let can = |name: &str| project.machines.get(&named(name)).and_then(Machine::for_one_off).is_some();
        assert_eq!([can("a"), can("b"), can("c")], [false, false, true]);
    }

    #[test]
    fn names_are_numbered_and_no_longer_than_names_are() {
        let free = |of: &str, taken: &[&str]| {
            free_name(&named(of), |name| taken.contains(&name.as_str())).map(|name| name.to_string())
        };
        assert_eq!(free("web", &[]).as_deref(), Some("web-run-1"));
        assert_eq!(free("web", &["web-run-1", "web-run-3"]).as_deref(), Some("web-run-2"));
        let long = "a".repeat(NAME_MAX_CHARS);
        assert_eq!(free(&long, &[]), Some(format!("{}-run-1", "a".repeat(NAME_MAX_CHARS - 6))));
        let dashed = format!("{}-b", "a".repeat(33));
        assert_eq!(free(&dashed, &[]), Some(format!("{}-run-1", "a".repeat(33))));
    }

    #[test]
    fn the_mark_is_on_record_and_records_without_it_are_read() {
        let plain = Container::new("web".parse().expect("a reference"));
        let text = serde_json::to_string(&plain).expect("it has a JSON form");
        assert!(!text.contains("one_off"), "{text}");
        assert_eq!(serde_json::from_str::<Container>(&text).expect("it reads back"), plain);
        let project = shop("machines: { web: { image: web, ports: ['8080:80'], restart: always } }");
        let web = project.machines.get(&named("web")).cloned();
        let marked = web.and_then(|web| web.as_one_off(&named("web"))).expect("it can be one");
        let container = marked.runs.container().expect("it is one");
        let text = serde_json::to_string(container).expect("it has a JSON form");
        let back: Container = serde_json::from_str(&text).expect("it reads back");
        assert_eq!(&back, container);
        let mark = back.one_off.expect("it is marked");
        assert_eq!((mark.of.as_str(), mark.nics.len(), mark.ports.len()), ("web", 1, 1));
        assert_eq!(back.restart, Restart::Always);
    }
}
