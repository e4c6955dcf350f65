//! No machine ends before those that depend on it, whatever the command that ends them.

use std::collections::BTreeSet;

use stead_model::container::Container;
use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::plan::{Plan, Power, Wanted, plan};
use stead_model::project::{Condition, Kind, Project, ProjectFiles, Runs};
use stead_model::step::{OwnVolumes, Step};

use crate::worlds::{
    With, computer, must_want, name, network, nic, nothing, project, text, up, wanted_beside,
};

fn ids(names: &[&str]) -> BTreeSet<MachineId> {
    names.iter().map(|name| format!("{name}.shop").parse().unwrap()).collect()
}

/// `web` by `api` by `db`, `api` by `cache`, and `lone` by nobody.
fn shop() -> Project {
    let nics = [nic("lan")];
    let names = ["web", "api", "db", "cache", "lone"];
    let bare = names
        .iter()
        .fold(project("shop").net("lan", network()), |shop, name| shop.ours(name, "debian:12", &nics));
    bare.depends("web", "api", Condition::Started).depends("api", "db", Condition::Healthy).depends(
        "api",
        "cache",
        Condition::Started,
    )
}

/// The machines as a plan ends them, each with those that it waits for.
fn stops(plan: &Plan) -> Vec<String> {
    let stops = plan.steps.iter().filter_map(|planned| {
        let Step::MachineStop(id, _) = &planned.step else { return None };
        let before = planned.after.iter().filter_map(|place| match &plan.steps[*place].step {
            Step::MachineStop(id, _) => Some(id.name.to_string()),
            _ => None,
        });
        Some(format!("{} after [{}]", id.name, before.collect::<Vec<_>>().join(" ")))
    });
    stops.collect()
}

fn with_power_off(names: &[&str], seen: &Observed) -> Plan {
    plan(&Wanted::as_it_is(&name("shop"), seen).with_power(&ids(names), Power::Off), seen)
}

#[test]
fn those_that_depend_on_a_machine_end_before_it() {
    let (seen, _) = up(&shop(), &computer());
    let all =
        ["web after []", "lone after []", "api after [web]", "db after [web api]", "cache after [web api]"];
    assert_eq!(stops(&plan(&nothing(&name("shop"), &seen), &seen)), all);
    // Of a machine that does not end nobody waits, nor is one that depends on it by that forgotten.
    assert_eq!(stops(&with_power_off(&["web", "db"], &seen)), ["web after []", "db after [web]"]);
    assert_eq!(stops(&with_power_off(&["db"], &seen)), ["db after []"]);
}

#[test]
fn those_that_are_made_anew_end_in_their_order_too() {
    let (seen, lock) = up(&shop(), &computer());
    let mut other = shop();
    for machine in ["web", "db"] {
        other = other.ours(machine, "nginx", &[nic("lan")]);
    }
    let other = other.depends("web", "api", Condition::Started);
    assert_eq!(stops(&plan(&must_want(&other, &lock, &seen), &seen)), ["web after []", "db after [web]"]);
}

#[test]
fn who_is_to_is_started_again_with_what_it_depends_on() {
    let with = |pairs: &[(&str, &str)]| {
        pairs.iter().fold(shop(), |mut shop, (machine, on)| {
            shop.machines.get_mut(&name(machine)).unwrap().restarts_with.insert(name(on));
            shop
        })
    };
    let other_db = |shop: Project| shop.ours("db", "nginx", &[nic("lan")]);
    let again = |shop: Project| {
        let (seen, lock) = up(&shop, &computer());
        let plan = plan(&must_want(&other_db(shop), &lock, &seen), &seen);
        let starts = plan.steps.iter().filter_map(|planned| match &planned.step {
            Step::MachineStart(id, _) => Some(id.name.to_string()),
            _ => None,
        });
        (stops(&plan), starts.collect::<Vec<_>>())
    };
    let one = (
        vec!["api after []".to_owned(), "db after [api]".to_owned()],
        vec!["db".to_owned(), "api".to_owned()],
    );
    assert_eq!(again(with(&[("api", "db")])), one);
    // One by another, and not by one that goes on.
    let all = ["web after []", "api after [web]", "db after [web api]"].map(str::to_owned).to_vec();
    assert_eq!(again(with(&[("api", "db"), ("web", "api")])).0, all);
    assert_eq!(again(with(&[("web", "api")])).0, ["db after []"]);
    // One that did not run is made anew all the same.
    let shop = with(&[("api", "db")]);
    let (mut seen, lock) = up(&shop, &computer());
    seen.running.remove(&"db.shop".parse().unwrap());
    let anew = plan(&must_want(&other_db(shop.clone()), &lock, &seen), &seen);
    assert_eq!(stops(&anew), ["api after []"]);
    let started = plan(&must_want(&shop, &lock, &seen), &seen);
    assert_eq!(stops(&started), Vec::<String>::new());
    // With one that is turned off nobody is.
    let (seen, lock) = up(&shop, &computer());
    let off = must_want(&shop, &lock, &seen).with_power(&ids(&["db"]), Power::Off);
    assert_eq!(stops(&plan(&off, &seen)), ["db after []"]);
    // Nor does it start who was stopped.
    let off = must_want(&other_db(shop), &lock, &seen).with_power(&ids(&["api"]), Power::Off);
    assert_eq!(stops(&plan(&off, &seen)), ["api after []", "db after [api]"]);
}

#[test]
fn what_depends_on_what_is_on_record_as_the_files_said_last() {
    let (seen, lock) = up(&shop(), &computer());
    let order = |seen: &Observed| seen.projects[&name("shop")].order.clone();
    let both = [(name("api"), [name("cache"), name("db")].into()), (name("web"), [name("api")].into())];
    assert_eq!(order(&seen), both.clone().into());
    // What depends on what rests does so still.
    let mut resting = shop();
    resting.machines.remove(&name("api"));
    resting.machines.get_mut(&name("web")).unwrap().depends_on.clear();
    let wanted = wanted_beside(&resting, &[name("api")].into(), &lock, &seen).unwrap();
    assert_eq!(wanted.files.unwrap().order, both.clone().into());
    // Nothing but the record changes with it.
    let mut turned = shop();
    turned.machines.get_mut(&name("web")).unwrap().depends_on.clear();
    let change = plan(&must_want(&turned.depends("lone", "web", Condition::Started), &lock, &seen), &seen);
    assert_eq!(text(&change), "+ project shop at /home/ann/shop\n");
    assert_eq!(change.steps[0].why, "machines.*.depends_on");
    let seen = change.steps.iter().fold(seen, |seen, planned| seen.after(&planned.step).unwrap());
    assert_eq!(stops(&with_power_off(&["web", "lone"], &seen)), ["lone after []", "web after [lone]"]);
    // What rests is not in the files as they are read, and goes on as it was; what is gone leaves nothing.
    let mut part = shop();
    part.machines.remove(&name("api"));
    part.machines.get_mut(&name("web")).unwrap().depends_on.clear();
    let resting = wanted_beside(&part, &[name("api")].into(), &lock, &seen).unwrap().files.unwrap();
    assert_eq!(resting.order, [(name("api"), [name("cache"), name("db")].into())].into());
    assert!(must_want(&part, &lock, &seen).files.unwrap().order.is_empty());
}

#[test]
fn a_command_about_some_machines_leaves_the_order_of_the_others() {
    let (seen, lock) = up(&shop(), &computer());
    let before = seen.projects[&name("shop")].order.clone();
    let mut other = shop();
    other.machines.remove(&name("api"));
    other.machines.get_mut(&name("web")).unwrap().depends_on.clear();
    let other = other.depends("lone", "db", Condition::Started).depends("cache", "db", Condition::Started);
    let wanted = must_want(&other, &lock, &seen);
    let order = |wanted: Wanted| wanted.files.unwrap().order;
    let lone = ids(&["lone"]);
    let mut with_lone = before.clone();
    with_lone.insert(name("lone"), [name("db")].into());
    assert_eq!(order(wanted.clone().only(&lone, &seen).unwrap()), with_lone);
    // One that is started is as it was made.
    assert_eq!(order(wanted.as_made(&lone, &seen).only(&lone, &seen).unwrap()), before);
}

#[test]
fn volumes_without_a_name_stay_where_a_container_becomes_another() {
    let (seen, lock) = up(&shop(), &computer());
    let told = |project: &Project, anew: bool| {
        let wanted = must_want(project, &lock, &seen);
        let wanted = if anew { wanted.with_own_volumes_anew() } else { wanted };
        let removed = plan(&wanted, &seen).steps.into_iter().find_map(|planned| match planned.step {
            Step::MachineRemove(id, _, own) if id.name == name("lone") => Some(own),
            _ => None,
        });
        removed.unwrap()
    };
    let other = shop().ours("lone", "nginx", &[nic("lan")]);
    assert_eq!((told(&other, false), told(&other, true)), (OwnVolumes::Stay, OwnVolumes::Go));
    let mut guest = shop();
    let lone = guest.machines.get_mut(&name("lone")).unwrap();
    (lone.kind, lone.runs) = (Kind::Microvm, Runs::Microvm(Box::new(lone.runs.container().unwrap().clone())));
    let mut gone = shop();
    gone.machines.remove(&name("lone"));
    assert_eq!((told(&guest, false), told(&gone, false)), (OwnVolumes::Go, OwnVolumes::Go));
}

#[test]
fn a_one_off_ends_as_what_it_is_made_after() {
    let (mut seen, _) = up(&shop(), &computer());
    let of_web = shop().machines[&name("web")].clone().as_one_off(&name("web")).unwrap();
    let container = of_web.runs.container().unwrap().clone();
    let one_off: MachineId = "web-run-1.shop".parse().unwrap();
    let mut state = seen.machines[&"web.shop".parse::<MachineId>().unwrap()].clone();
    let stead_model::observed::Body::Container(made) = &mut state.body else { panic!("no container") };
    made.wish = Container { one_off: container.one_off.clone(), ..container };
    seen.machines.insert(one_off.clone(), state);
    let rows = seen.ends(&[one_off.clone(), "db.shop".parse().unwrap()].into());
    let rows: Vec<String> = rows.iter().map(|row| format!("{}", row[0].0)).collect();
    assert_eq!(rows, ["web-run-1.shop", "db.shop"]);
}

#[test]
fn who_depends_on_itself_by_others_waits_for_nobody() {
    let (mut seen, _) = up(&shop(), &computer());
    let circle = |of: &str, on: &str| (name(of), [name(on)].into());
    let order = [circle("web", "api"), circle("api", "web"), circle("lone", "web")].into();
    let files = ProjectFiles { order, ..seen.projects[&name("shop")].clone() };
    seen.projects.insert(name("shop"), files);
    let rows = seen.ends(&ids(&["web", "api", "lone"]));
    let names = |row: &Vec<(MachineId, _)>| row.iter().map(|(id, _)| id.name.to_string()).collect::<Vec<_>>();
    assert_eq!(rows.iter().map(names).collect::<Vec<_>>(), [vec!["lone"], vec!["web", "api"]]);
    assert!(rows[1].iter().all(|(_, after)| *after == ids(&["lone"])));
    assert_eq!(stops(&plan(&nothing(&name("shop"), &seen), &seen)).len(), 5);
}
