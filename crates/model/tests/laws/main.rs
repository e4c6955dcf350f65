//! The laws of the planner, over every small world and some larger ones: planning twice changes nothing;
//! stopping after any step, in any order that a plan allows, and planning again arrives; planning for nothing
//! leaves nothing; no step relies on something absent; projects do not touch each other.
//!
//! `worlds.rs` has the words and the laws of a world, `choices.rs` the laws of `resolve`, `golden.rs` the
//! classic plans as texts, `ends.rs` the order in which machines end, `larger.rs` random projects, `places.rs` nics that stay,
//! `lent.rs` networks on which machines of other projects are, `sharing.rs` machines in the network of another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod choices;
mod ends;
mod golden;
mod larger;
mod lent;
mod places;
mod select;
mod sharing;
mod worlds;

use std::collections::BTreeSet;

use stead_model::lock::Lock;
use stead_model::name::{MachineId, Name};
use stead_model::observed::{Engine, Observed, Switchboard};
use stead_model::plan::{Plan, Wanted, plan};
use stead_model::project::{Addressing, Condition, Guard, Kind, Network, Nic, Project, Reach};
use stead_model::step::Step;

use crate::worlds::{
    With, applied, assert_is, assert_lawful, computer, damaged, isolated, must_want, name, network, nic,
    nothing, part, project, subnet, text, unlawful, up, wanted,
};

/// Numbers that look drawn by lot and are the same every time.
pub(crate) struct Lot(pub(crate) u64);

impl Lot {
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }
}

/// Sets of networks: every addressing, reach, join, and subnets that change places.
fn network_sets() -> Vec<Vec<(&'static str, Network)>> {
    let bridged = |link: &str| Network { reach: Reach::Bridged(link.parse().unwrap()), ..network() };
    let none = Network { addressing: Addressing::None, ..isolated() };
    let mut slaac = isolated();
    if let Addressing::Managed(dhcp) = &mut slaac.addressing {
        dhcp.slaac = true;
    }
    vec![
        vec![],
        vec![("lan", network())],
        vec![("lan", slaac)],
        vec![("lan", Network { addressing: Addressing::Static, mtu: 1400, ..network() })],
        vec![("lan", none.clone())],
        vec![("lan", bridged("br0"))],
        vec![("lan", bridged("eth1"))],
        vec![("wan", bridged("eth1"))],
        vec![("lan", network()), ("wan", isolated())],
        vec![("lan", network()), ("wan", none)],
        vec![("lan", subnet("10.1.0.0/24")), ("wan", subnet("10.2.0.0/24"))],
        vec![("lan", subnet("10.2.0.0/24")), ("wan", subnet("10.1.0.0/24"))],
        vec![("wan", subnet("10.1.0.0/16"))],
    ]
}

/// Sets of machines on these networks: both kinds of nic, one and two of them in both orders, dependence,
/// ports on one address and on all, said and chosen.
fn with_machines(bare: &Project, port: u16) -> Vec<Project> {
    let nics: Vec<Nic> = bare.networks.keys().map(|network| nic(network.as_str())).collect();
    let first = &nics[..nics.len().min(1)];
    let reversed: Vec<Nic> = nics.iter().rev().cloned().collect();
    let routed: Vec<Nic> = nics.iter().map(|nic| Nic { guard: Guard::Off, ..nic.clone() }).collect();
    let has_addresses = bare.networks.values().next().is_some_and(|n| n.addressing != Addressing::None);
    let publish = |project: Project, bind: &str| {
        if has_addresses { project.port("web", &format!("{bind}:{port}/tcp")) } else { project }
    };
    let chosen = |project: Project, bind: &str| {
        if has_addresses { project.port("web", bind) } else { project }
    };
    let mut both = bare.clone();
    if both.networks.len() == 2 {
        both = both.join("lan", "wan");
    }
    vec![
        bare.clone(),
        publish(bare.clone().container("web", first), "127.0.0.1").volume("data"),
        chosen(bare.clone().vm("web", &nics), "0.0.0.0:0/udp"),
        publish(
            both.clone().container("web", &nics).vm("db", first).depends("web", "db", Condition::Started),
            "127.0.0.1",
        ),
        publish(
            both.container("web", &reversed).container("db", &routed).depends(
                "db",
                "web",
                Condition::Healthy,
            ),
            "0.0.0.0",
        )
        .machine(Kind::Microvm, "app", &[]),
        chosen(bare.clone().ours("web", "debian:12", first).volume("data"), "127.0.0.1:0/tcp"),
        publish(bare.clone().ours("web", "nginx", first).ours("db", "debian:12", &nics), "127.0.0.1")
            .ours("job", "debian:12", &[])
            .container("old", first)
            .depends("web", "db", Condition::Healthy)
            .depends("web", "job", Condition::Completed)
            .depends("db", "old", Condition::Started)
            .script("db", "a")
            .script("db", "b"),
        publish(
            bare.clone().ours("web", "debian:12", first).ours("db", "nginx", &[]).within("db", "web"),
            "127.0.0.1",
        ),
    ]
}

/// A vm of ours that changes in place. It comes and goes as others do, so one network is enough of them.
fn vms(port: u16, text: &str) -> Vec<Project> {
    let bare = project(text).net("lan", network());
    let vm = |memory_mib| bare.clone().vm_ours("web", memory_mib, &[nic("lan")]);
    let scripted = |mib: u64| vm(mib).script("web", "a").script("web", &mib.to_string());
    [512, 1024].map(|mib| scripted(mib).port("web", &format!("127.0.0.1:{port}/tcp"))).into()
}

/// Every small project of this name, with ports of its own.
pub(crate) fn small_projects(text: &str, port: u16) -> Vec<Project> {
    let bare = network_sets().into_iter().map(|networks| {
        networks.into_iter().fold(project(text), |project, (name, network)| project.net(name, network))
    });
    bare.flat_map(|bare| with_machines(&bare, port)).chain(vms(port, text)).collect()
}

/// A random order that the plan allows, as places in it.
fn allowed_order(plan: &Plan, lot: &mut Lot) -> Vec<usize> {
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    while order.len() < plan.steps.len() {
        let is_ready = |place: &usize| !done.contains(place) && plan.steps[*place].after.is_subset(&done);
        let ready: Vec<usize> = (0..plan.steps.len()).filter(is_ready).collect();
        let place = ready[lot.below(ready.len())];
        done.insert(place);
        order.push(place);
    }
    order
}

/// The worlds that a plan passes through in this order, the first and the last included.
#[track_caller]
fn passed(plan: &Plan, order: &[usize], seen: &Observed) -> Vec<Observed> {
    let mut worlds = vec![seen.clone()];
    for place in order {
        let step = &plan.steps[*place].step;
        let after = worlds.last().unwrap().after(step);
        worlds
            .push(after.unwrap_or_else(|misstep| panic!("{misstep} in order {order:?} of\n{}", text(plan))));
    }
    worlds
}

/// Whether a step ever waits for a later one, which would be a knot.
fn assert_forward(plan: &Plan) {
    for (place, planned) in plan.steps.iter().enumerate() {
        assert!(planned.after.iter().all(|earlier| *earlier < place), "step {place} of\n{}", text(plan));
    }
}

/// Asserts every law of the way from `seen` to `goal`, in its own order and in `orders` random ones; `again` is
/// what is wanted on the computer as it is after a cut.
#[track_caller]
pub(crate) fn assert_arrives(
    goal: &Wanted,
    seen: &Observed,
    again: &dyn Fn(&Observed) -> Wanted,
    (orders, lot): (usize, &mut Lot),
) {
    let planned = plan(goal, seen);
    assert_forward(&planned);
    assert_eq!(planned, plan(goal, seen), "a plan is deterministic");
    let in_order: Vec<usize> = (0..planned.steps.len()).collect();
    let starts_lawful = unlawful(seen).is_empty();
    // One random order alone stands for all, the plan's own included, where very many plans are tried.
    let first = usize::from(orders == 1);
    for round in first..=orders {
        let order = if round == 0 { in_order.clone() } else { allowed_order(&planned, lot) };
        let worlds = passed(&planned, &order, seen);
        let (last, cut) = worlds.split_last().unwrap();
        assert_is(goal, last);
        assert_eq!(text(&plan(&again(last), last)), "", "planning twice changes something");
        if starts_lawful {
            cut.iter().for_each(assert_lawful);
        }
        // Every cut where few plans are tried, one by lot where many are.
        let only = (orders < 2 && cut.len() > 1).then(|| 1 + lot.below(cut.len() - 1));
        let cuts = cut.iter().enumerate().skip(1).filter(|(done, _)| only.is_none_or(|only| only == *done));
        for (done, world) in cuts {
            let goal_again = again(world);
            let rest = plan(&goal_again, world);
            let arrived = applied_from(&rest, world);
            assert_is(&goal_again, &arrived);
            assert_goes_on(&planned, &order[..done], world, (goal, last));
            let told =
                || format!("cut after {done} of {order:?} of\n{}then\n{}", text(&planned), text(&rest));
            let (arrived_at, meant) = (part(&arrived, &goal.project), part(last, &goal.project));
            assert_eq!(without_links(arrived_at), without_links(meant), "{}", told());
            assert_eq!(text(&plan(&again(&arrived), &arrived)), "", "{}", told());
        }
    }
}

/// Asserts that a plan goes on as it began where nobody else changed anything, and arrives where another command
/// that was to do the same came first, if it does not refuse to.
#[track_caller]
fn assert_goes_on(plan: &Plan, done: &[usize], world: &Observed, (goal, last): (&Wanted, &Observed)) {
    let left = plan.steps.iter().enumerate().filter(|(place, _)| !done.contains(place));
    let left: Vec<&Step> = left.map(|(_, planned)| &planned.step).collect();
    assert_eq!(world.done_of(left.iter().copied()), Ok(BTreeSet::new()), "{}", text(plan));
    if let Ok(done) = last.done_of(left.iter().copied()) {
        let rest = left.iter().enumerate().filter(|(place, _)| !done.contains(place));
        assert_is(goal, &rest.fold(last.clone(), |seen, (_, step)| seen.after(step).unwrap()));
    }
}

/// The same with every link named alike: a link that has to be made again may get another name, as the one
/// it had is free by then.
fn without_links(mut seen: Observed) -> Observed {
    seen.networks.values_mut().for_each(|network| network.link = "same".parse().unwrap());
    seen.nics.values_mut().for_each(|nic| nic.link = "same".parse().unwrap());
    seen
}

#[track_caller]
fn applied_from(plan: &Plan, seen: &Observed) -> Observed {
    let order: Vec<usize> = (0..plan.steps.len()).collect();
    passed(plan, &order, seen).pop().unwrap()
}

/// Asserts the laws for bringing up `project`, whose choices are pinned first, as `stead up` does.
#[track_caller]
fn assert_up_arrives(project: &Project, lock: &Lock, seen: &Observed, orders: (usize, &mut Lot)) {
    let goal = must_want(project, lock, seen);
    let pinned = Lock::new(&goal);
    assert_arrives(&goal, seen, &|world| must_want(project, &pinned, world), orders);
}

/// Asserts the laws for taking down a project, and that nothing of it is left.
#[track_caller]
fn assert_down_arrives(project: &Name, seen: &Observed, orders: (usize, &mut Lot)) {
    let goal = nothing(project, seen);
    assert_arrives(&goal, seen, &|world| nothing(project, world), orders);
    let left = applied_from(&plan(&goal, seen), seen);
    let bare = part(&left, project);
    assert_eq!(bare, Observed::nothing(bare.host.clone()), "something of the project is left");
    if left.projects.is_empty() {
        assert_eq!(left, Observed::nothing(seen.host.clone()), "something of the engine is left");
    }
}

#[test]
fn every_small_project_comes_up_and_goes() {
    let mut lot = Lot(1);
    for project in small_projects("shop", 8080) {
        assert_up_arrives(&project, &Lock::default(), &computer(), (4, &mut lot));
        let (seen, _) = up(&project, &computer());
        assert_lawful(&seen);
        assert_down_arrives(&project.name, &seen, (4, &mut lot));
    }
}

#[test]
fn every_small_project_becomes_every_other() {
    let mut lot = Lot(2);
    let projects = small_projects("shop", 8080);
    for old in &projects {
        let (seen, lock) = up(old, &computer());
        for new in &projects {
            let seen = Observed { volumes: seen.volumes.clone(), ..seen.clone() };
            assert_up_arrives(new, &lock, &seen, (1, &mut lot));
        }
    }
}

/// Those of our machines that there are, each with a snapshot.
fn with_snapshots(mut seen: Observed) -> Observed {
    let ours = seen.machines.iter().filter(|(_, machine)| machine.container().is_some());
    seen.snapshots = ours.map(|(id, _)| (id.clone(), [name("before")].into())).collect();
    seen
}

#[test]
fn snapshots_are_no_difference_and_they_and_disks_go_as_a_loss() {
    let mut lot = Lot(9);
    let projects = small_projects("shop", 8080);
    for (place, old) in projects.iter().enumerate() {
        let (seen, lock) = up(old, &computer());
        let seen = with_snapshots(seen);
        assert!(plan(&must_want(old, &lock, &seen), &seen).steps.is_empty());
        for new in [old, &projects[(place + 6) % projects.len()], &project("shop")] {
            let planned = plan(&must_want(new, &lock, &seen), &seen);
            let after = passed(&planned, &allowed_order(&planned, &mut lot), &seen).pop().unwrap();
            let lost = seen.snapshots.keys().filter(|id| !after.snapshots.contains_key(*id));
            // What a vm has is on its disk.
            let vms = seen.machines.iter().filter(|(_, machine)| machine.vm().is_some());
            let is_gone = |id: &MachineId| after.machines.get(id).is_none_or(|now| now.vm().is_none());
            let lost = lost.chain(vms.map(|(id, _)| id).filter(|id| is_gone(id)));
            let losses = planned.steps.iter().filter(|planned| planned.step.loses_data());
            let losing = losses.filter_map(|planned| {
                if let Step::MachineRemove(id, ..) = &planned.step { Some(id) } else { None }
            });
            assert_eq!(losing.collect::<BTreeSet<_>>(), lost.collect::<BTreeSet<_>>(), "{}", text(&planned));
        }
        assert_down_arrives(&old.name, &seen, (1, &mut lot));
    }
}

#[test]
fn whatever_befell_the_computer_the_next_plan_arrives() {
    let mut lot = Lot(3);
    let projects = small_projects("shop", 8080);
    for (place, old) in projects.iter().enumerate() {
        let (seen, lock) = up(old, &computer());
        for (what, world) in damaged(&seen) {
            // Standing subnets win over pinned ones, so a subnet that was changed under us is kept.
            for new in [old, &projects[(place + 1) % projects.len()]] {
                if wanted(new, &lock, &world).is_ok() {
                    println!("{what}:\n{}", text(&plan(&must_want(new, &lock, &world), &world)));
                    assert_up_arrives(new, &lock, &world, (1, &mut lot));
                }
            }
            assert_down_arrives(&old.name, &world, (1, &mut lot));
        }
    }
}

/// The part of a project that can outlive its engine.
fn outliving(seen: &Observed, project: &Name) -> Observed {
    let mut part = part(seen, project);
    if seen.engine != Engine::Present {
        part.machines.retain(|_, machine| !machine.goes_with_engine());
    }
    part
}

/// Asserts that no plan for `ours` changes anything of the project `theirs`, at any step.
#[track_caller]
fn assert_untouched(goal: &Wanted, theirs: &Name, seen: &Observed, lot: &mut Lot) {
    let planned = plan(goal, seen);
    let before = outliving(seen, theirs);
    for world in passed(&planned, &allowed_order(&planned, lot), seen) {
        let mut now = part(&world, theirs);
        if seen.engine != Engine::Present {
            now.machines.retain(|_, machine| !machine.goes_with_engine());
        }
        assert_eq!(now, before, "{}", text(&planned));
    }
}

#[test]
fn two_projects_never_touch_each_other() {
    let mut lot = Lot(4);
    let (ours, theirs) = (small_projects("shop", 8080), small_projects("blog", 9090));
    for a in &ours {
        let (one, lock) = up(a, &computer());
        for b in &theirs {
            let Ok(goal) = wanted(b, &Lock::default(), &one) else { continue };
            assert_untouched(&goal, &a.name, &one, &mut lot);
            let both = applied(&plan(&goal, &one), &one);
            assert_eq!(text(&plan(&must_want(a, &lock, &both), &both)), "", "what is up stays as wanted");
            let down = nothing(&a.name, &both);
            assert_untouched(&down, &b.name, &both, &mut lot);
            assert_down_arrives(&a.name, &both, (0, &mut lot));
            let left = applied(&plan(&down, &both), &both);
            assert_eq!(text(&plan(&must_want(b, &Lock::default(), &left), &left)), "", "{b:#?}");
            assert_down_arrives(&b.name, &left, (0, &mut lot));
        }
    }
}

#[test]
fn damage_to_one_project_is_mended_without_touching_the_other() {
    let mut lot = Lot(5);
    let ours: Vec<Project> = small_projects("shop", 8080).into_iter().skip(3).step_by(5).collect();
    let theirs: Vec<Project> = small_projects("blog", 9090).into_iter().skip(4).step_by(5).collect();
    for (a, b) in ours.iter().zip(theirs.iter().rev()) {
        let (one, lock) = up(a, &computer());
        let Ok(goal) = wanted(b, &Lock::default(), &one) else { continue };
        let both = applied(&plan(&goal, &one), &one);
        for (_, world) in damaged(&both) {
            assert_untouched(&nothing(&a.name, &world), &b.name, &world, &mut lot);
            if let Ok(goal) = wanted(a, &lock, &world) {
                assert_untouched(&goal, &b.name, &world, &mut lot);
                let mended = applied_from(&plan(&goal, &world), &world);
                if goal.networks.values().any(|n| n.reach == Reach::Nat) {
                    assert!(mended.uplink.is_some());
                }
            }
        }
    }
}

#[test]
fn volumes_and_the_record_outlive_down_unless_they_are_to_go() {
    use stead_model::plan::UnwantedVolumes::{Delete, Keep};
    let shop = project("shop").net("lan", network()).container("web", &[nic("lan")]).volume("data");
    let (seen, _) = up(&shop, &computer());
    let down = plan(&Wanted::nothing(&shop.name, &seen, Keep), &seen);
    let left = applied(&down, &seen);
    let mut expected = computer();
    expected.projects = seen.projects.clone();
    expected.volumes = seen.volumes.clone();
    assert_eq!(left, expected);
    assert_eq!(text(&plan(&Wanted::nothing(&shop.name, &left, Keep), &left)), "");
    let deleting = plan(&Wanted::nothing(&shop.name, &left, Delete), &left);
    assert!(deleting.steps.iter().any(|planned| planned.step.loses_data()));
    assert_eq!(applied(&deleting, &left), computer());
}

#[test]
fn a_machine_without_networks_needs_the_engine_and_no_switchboard() {
    let shop = project("shop").container("web", &[]);
    let (seen, _) = up(&shop, &computer());
    assert_eq!((seen.engine, seen.switchboard), (Engine::Present, Switchboard::Absent));
    assert_eq!(seen.machines.len(), 1);
    assert_eq!(seen.uplink, None);
    assert_eq!(name("shop"), shop.name);
}
