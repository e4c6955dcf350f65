//! Laws about plans for some machines only.

use std::collections::BTreeSet;

use stead_model::container::NetworkMode;
use stead_model::lock::Lock;
use stead_model::name::MachineId;
use stead_model::observed::{MachineState, Observed};
use stead_model::one_off::free_name;
use stead_model::plan::{Planned, Power, Wanted, plan};
use stead_model::project::{Machine, Project};
use stead_model::step::Step;

use crate::small_projects;
use crate::worlds::{applied, computer, damaged, must_want, name, nothing, text, up, wanted, wanted_beside};

fn machines(wanted: &Wanted) -> BTreeSet<MachineId> {
    wanted.machines.keys().cloned().collect()
}

/// Those that can come alone: who is in the network of another is refused without that.
fn able_alone(wanted: &Wanted) -> impl Iterator<Item = MachineId> {
    let able = wanted.machines.iter().filter(|(_, machine)| machine.state.shares().is_none());
    able.map(|(id, _)| id.clone())
}

#[test]
fn a_project_as_it_is_needs_nothing() {
    for project in small_projects("shop", 8080) {
        let (seen, _) = up(&project, &computer());
        assert_eq!(text(&plan(&Wanted::as_it_is(&project.name, &seen), &seen)), "", "{project:#?}");
    }
}

#[test]
fn what_is_stopped_and_started_is_as_before() {
    for project in small_projects("shop", 8080) {
        let (seen, lock) = up(&project, &computer());
        let all = machines(&must_want(&project, &lock, &seen));
        let off = Wanted::as_it_is(&project.name, &seen).with_power(&all, Power::Off);
        let stopped = applied(&plan(&off, &seen), &seen);
        assert!(stopped.running.is_empty());
        let is_ours = |id| seen.machines.get(id).is_some_and(MachineState::is_ours);
        assert!(!stopped.ports.values().any(|target| is_ours(&target.machine)), "{project:#?}");
        assert_eq!(stopped.port_leases, seen.port_leases);
        assert_eq!(text(&plan(&off, &stopped)), "");
        let on = must_want(&project, &lock, &stopped);
        assert_eq!(applied(&plan(&on, &stopped), &stopped), seen, "{project:#?}");
        // The same without its file, by the ports that it had.
        let mut on = Wanted::as_it_is(&project.name, &stopped).with_power(&all, Power::On);
        on.ports.extend(seen.ports.clone());
        assert_eq!(applied(&plan(&on, &stopped), &stopped).ports, seen.ports, "{project:#?}");
    }
}

#[test]
fn one_machine_comes_and_goes_without_the_others() {
    for project in small_projects("shop", 8080) {
        let empty = computer();
        let wanted = must_want(&project, &Lock::default(), &empty);
        for id in able_alone(&wanted) {
            let chosen = BTreeSet::from([id.clone()]);
            let mut alone = wanted.clone().only(&chosen, &empty).unwrap();
            // Without the others nothing can be waited for.
            alone.machines.values_mut().for_each(|machine| machine.after.clear());
            let one = applied(&plan(&alone, &empty), &empty);
            assert_eq!(machines(&Wanted::as_it_is(&project.name, &one)), chosen);
            let all = must_want(&project, &Lock::default(), &one);
            let both = applied(&plan(&all, &one), &one);
            assert_eq!(text(&plan(&all.clone().only(&chosen, &both).unwrap(), &both)), "", "{project:#?}");
            let rest = Wanted::as_it_is(&project.name, &both).without_machines(&chosen);
            let left = applied(&plan(&rest, &both), &both);
            let mut expected = machines(&all);
            expected.remove(&id);
            assert_eq!(machines(&Wanted::as_it_is(&project.name, &left)), expected);
            assert!(!left.machines.contains_key(&id) && !left.nics.keys().any(|nic| nic.machine() == id));
        }
    }
}

#[test]
fn machines_are_made_anew_with_all_else_as_it_was() {
    for project in small_projects("shop", 8080) {
        let (seen, lock) = up(&project, &computer());
        let all = must_want(&project, &lock, &seen);
        for id in machines(&all) {
            let planned = plan(&all.clone().with_anew(&[id.clone()].into()), &seen);
            let removed: Vec<&Planned> =
                planned.steps.iter().filter(|one| matches!(one.step, Step::MachineRemove(..))).collect();
            let [Planned { step, why, .. }] = removed.as_slice() else { panic!("{}", text(&planned)) };
            assert_eq!(*why, format!("machines.{} (made anew)", id.name));
            // A disk of a vm goes with it; whoever calls asks for that.
            assert_eq!(step.loses_data(), seen.machines[&id].vm().is_some(), "{}", text(&planned));
            assert!(!planned.steps.iter().any(|one| matches!(&one.step, Step::LeaseRemove(..))));
            assert_eq!(applied(&planned, &seen), seen, "{}", text(&planned));
        }
    }
}

#[test]
fn those_that_wait_among_themselves_come_without_what_they_depend_on() {
    for project in small_projects("shop", 8080) {
        let empty = computer();
        let wanted = must_want(&project, &Lock::default(), &empty);
        for id in able_alone(&wanted) {
            let chosen = BTreeSet::from([id]);
            let alone = wanted.clone().waiting_among(&chosen).only(&chosen, &empty).unwrap();
            let one = applied(&plan(&alone, &empty), &empty);
            assert_eq!(machines(&Wanted::as_it_is(&project.name, &one)), chosen);
        }
    }
}

#[test]
fn a_machine_that_was_changed_in_the_file_stays_as_it_is_unless_it_is_chosen() {
    let projects = small_projects("shop", 8080);
    for old in &projects {
        let (seen, lock) = up(old, &computer());
        for new in &projects {
            let wanted = must_want(new, &lock, &seen).only(&BTreeSet::new(), &seen).unwrap_or_else(|why| {
                assert!(why.iter().all(|refusal| refusal.hint.contains("without names")));
                Wanted::as_it_is(&new.name, &seen)
            });
            let after = applied(&plan(&wanted, &seen), &seen);
            assert_eq!(after.machines, seen.machines);
            assert_eq!(after.running, seen.running);
            assert_eq!(name("shop"), new.name);
        }
    }
}

/// Machines that come one profile at a time have addresses of their own, and stay when another profile comes.
#[test]
fn machines_that_rest_stay_with_their_addresses() {
    for project in small_projects("shop", 8080) {
        let names: BTreeSet<_> = project.machines.keys().cloned().collect();
        // Of each profile one machine: what depends on another of them cannot come alone.
        let alone = |name| {
            let mut part = project.clone();
            part.machines.retain(|other, _| other == name);
            part.machines.values_mut().for_each(|machine| machine.depends_on.clear());
            let containers = part.machines.values_mut().filter_map(Machine::container_mut);
            containers.for_each(|container| container.network = NetworkMode::Own);
            part
        };
        let (mut seen, mut lock) = (computer(), Lock::default());
        for name in &names {
            let mut resting = names.clone();
            resting.remove(name);
            let wanted = wanted_beside(&alone(name), &resting, &lock, &seen).unwrap();
            let before = seen.clone();
            // Its laws say that no two leases of a network share an address.
            seen = applied(&plan(&wanted, &seen), &seen);
            lock = Lock::new(&wanted).keeping(&lock, &resting);
            for (id, lease) in &before.leases {
                assert_eq!(seen.leases.get(id), Some(lease), "{project:#?}");
            }
            assert!(before.running.keys().all(|id| seen.running.contains_key(id)), "{project:#?}");
        }
        assert_eq!(lock.machines.len(), project.machines.values().filter(|m| !m.nics.is_empty()).count());
        assert_eq!(seen.machines.len(), names.len(), "{project:#?}");
    }
}

/// What the file asks for while its one-offs stay.
fn beside_one_offs(project: &Project, lock: &Lock, seen: &Observed) -> Wanted {
    let mut whole = project.clone();
    let one_offs = project.one_offs(seen);
    let ids = one_offs.keys().map(|name| MachineId::new(&project.name, name)).collect();
    whole.machines.extend(one_offs);
    wanted(&whole, lock, seen).unwrap().beside(&ids, seen).unwrap()
}

/// A one-off comes without the others, is left alone by `up`, is in no lock, and goes with its project. Whatever befell the
/// computer, the next plan arrives, and it is as it was.
#[test]
fn one_offs_are_left_alone_and_go_with_their_project() {
    for project in small_projects("shop", 8080) {
        let (seen, lock) = up(&project, &computer());
        for (of, machine) in &project.machines {
            let Some(one_off) = machine.for_one_off().and_then(|machine| machine.as_one_off(of)) else {
                continue;
            };
            let called = free_name(of, |name| project.machines.contains_key(name)).unwrap();
            let mut whole = project.clone();
            whole.machines.insert(called.clone(), one_off);
            let id = MachineId::new(&project.name, &called);
            let alone = wanted(&whole, &lock, &seen).unwrap().only(&[id.clone()].into(), &seen).unwrap();
            let with = applied(&plan(&alone, &seen), &seen);
            assert!(with.running.contains_key(&id) && with.machines.len() == seen.machines.len() + 1);
            assert_eq!(Lock::new(&must_want(&whole, &lock, &with)), lock, "{project:#?}");
            let again = beside_one_offs(&project, &lock, &with);
            assert_eq!(text(&plan(&again, &with)), "", "{project:#?}");
            assert_eq!(Lock::new(&again), lock);
            let (state, leases) = (with.machines.get(&id), &with.leases);
            // As the file says nothing of it, what it has is on record.
            for (what, world) in damaged(&with) {
                if !["reboot", "engine cut off"].contains(&what.as_str()) {
                    continue;
                }
                let after = applied(&plan(&beside_one_offs(&project, &lock, &world), &world), &world);
                assert_eq!((after.machines.get(&id), &after.leases), (state, leases), "{what} {project:#?}");
                assert!(after.nics.keys().eq(with.nics.keys()), "{what} {project:#?}");
            }
            let gone = applied(&plan(&nothing(&project.name, &with), &with), &with);
            assert!(gone.machines.is_empty() && gone.leases.is_empty(), "{project:#?}");
        }
    }
}
