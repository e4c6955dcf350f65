//! Machines in the network of another: in which order they start and end, and what becomes of them when it is made anew.

use expect_test::{Expect, expect};
use stead_model::container::NetworkMode;
use stead_model::lock::Lock;
use stead_model::name::MachineId;
use stead_model::observed::{Observed, Running};
use stead_model::plan::{Power, Wanted, plan};
use stead_model::project::{Condition, Project};

use crate::worlds::{With, applied, computer, damaged, must_want, name, network, nic, project, text, up};
use crate::{Lot, assert_arrives};

fn id(text: &str) -> MachineId {
    text.parse().unwrap()
}

/// `app` and `also` in the network of `vpn`, `mon` in this computer's.
fn shop(image: &str) -> Project {
    project("shop")
        .net("lan", network())
        .ours("vpn", image, &[nic("lan")])
        .port("vpn", "127.0.0.1:8080/tcp")
        .ours("app", "debian:12", &[])
        .within("app", "vpn")
        .ours("also", "debian:12", &[])
        .within("also", "vpn")
        .ours("mon", "debian:12", &[])
        .on_host("mon")
}

/// What goes on with these machines, of what is planned.
#[track_caller]
fn check(wanted: &Wanted, seen: &Observed, expected: Expect) {
    let planned = plan(wanted, seen);
    let of_machines = |line: &&str| {
        ["start", "stop", "await", "machine", "container"].iter().any(|word| line.contains(word))
    };
    let lines: String = text(&planned).lines().filter(of_machines).map(|line| format!("{line}\n")).collect();
    expected.assert_eq(&lines);
    applied(&planned, seen);
}

#[test]
fn they_start_after_it_and_end_before_it() {
    check(
        &must_want(&shop("debian:12"), &Lock::default(), &computer()),
        &computer(),
        expect![[r#"
        + container mon.shop from debian:12
        > start mon.shop
        + container vpn.shop from debian:12
        > start vpn.shop
        + container also.shop from debian:12
        > start also.shop
        + container app.shop from debian:12
        > start app.shop
    "#]],
    );
    let (seen, _) = up(&shop("debian:12"), &computer());
    check(
        &Wanted::nothing(&name("shop"), &seen, stead_model::plan::UnwantedVolumes::Keep),
        &seen,
        expect![[r#"
            > stop mon.shop
            > stop app.shop
            > stop also.shop
            > stop vpn.shop
            - machine vpn.shop
            - machine mon.shop
            - machine app.shop
            - machine also.shop
        "#]],
    );
}

#[test]
fn when_it_is_made_anew_they_are_started_anew_also_where_nobody_names_them() {
    let (seen, lock) = up(&shop("debian:12"), &computer());
    let wanted = must_want(&shop("nginx"), &lock, &seen);
    check(
        &wanted,
        &seen,
        expect![[r#"
        > stop app.shop
        > stop also.shop
        > stop vpn.shop
        - machine vpn.shop
        + container vpn.shop from nginx:latest
        > start vpn.shop
        > start also.shop
        > start app.shop
    "#]],
    );
    check(
        &wanted.only(&[id("vpn.shop")].into(), &seen).unwrap(),
        &seen,
        expect![[r#"
        > stop app.shop
        > stop also.shop
        > stop vpn.shop
        - machine vpn.shop
        + container vpn.shop from nginx:latest
        > start vpn.shop
        > start also.shop
        > start app.shop
    "#]],
    );
}

#[test]
fn when_it_is_merely_started_again_they_go_on() {
    let (mut seen, lock) = up(&shop("debian:12"), &computer());
    seen.running.remove(&id("vpn.shop"));
    check(
        &must_want(&shop("debian:12"), &lock, &seen),
        &seen,
        expect![[r#"
        > start vpn.shop
    "#]],
    );
    let off = Wanted::as_it_is(&name("shop"), &seen).with_power(&[id("vpn.shop")].into(), Power::Off);
    check(&off, &seen, expect![""]);
}

#[test]
fn whoever_is_in_a_network_that_is_gone_is_started_anew() {
    let (mut seen, lock) = up(&shop("debian:12"), &computer());
    seen.running.insert(id("app.shop"), Running::CutOff);
    check(
        &must_want(&shop("debian:12"), &lock, &seen),
        &seen,
        expect![[r#"
        > stop app.shop
        > start app.shop
    "#]],
    );
}

#[test]
fn without_it_they_do_not_run() {
    let (seen, _) = up(&shop("debian:12"), &computer());
    let without = Wanted::as_it_is(&name("shop"), &seen).without_machines(&[id("vpn.shop")].into());
    check(
        &without,
        &seen,
        expect![[r#"
        > stop app.shop
        > stop also.shop
        > stop vpn.shop
        - machine vpn.shop
    "#]],
    );
    let wanted = must_want(&shop("debian:12"), &Lock::default(), &computer());
    let refusals = wanted.only(&[id("app.shop")].into(), &computer()).unwrap_err();
    let whys: Vec<&str> = refusals.iter().map(|refusal| refusal.why.as_str()).collect();
    assert_eq!(whys, ["machine `vpn`, in whose network it is, is not there"]);
}

#[test]
fn with_another_network_it_waits_for_that_as_its_file_says() {
    let (seen, lock) = up(&shop("debian:12").depends("app", "vpn", Condition::Healthy), &computer());
    let wanted = must_want(&shop("nginx").depends("app", "vpn", Condition::Healthy), &lock, &seen);
    check(
        &wanted.only(&[id("vpn.shop")].into(), &seen).unwrap(),
        &seen,
        expect![[r#"
            > stop app.shop
            > stop also.shop
            > stop vpn.shop
            - machine vpn.shop
            + container vpn.shop from nginx:latest
            > start vpn.shop
            > start also.shop
            > await vpn.shop healthy
            > start app.shop
        "#]],
    );
}

#[test]
fn by_itself_it_is_not_started() {
    let (mut seen, lock) = up(&shop("debian:12"), &computer());
    seen.running.retain(|id, _| id.name.as_str() == "mon");
    let wanted =
        || must_want(&shop("debian:12"), &lock, &seen).with_power(&[id("app.shop")].into(), Power::On);
    let refusals = wanted().only(&[id("app.shop")].into(), &seen).unwrap_err();
    let whys: Vec<&str> = refusals.iter().map(|refusal| refusal.why.as_str()).collect();
    assert_eq!(whys, ["machine `vpn`, in whose network it is, does not run"]);
    assert!(wanted().only(&[id("app.shop"), id("vpn.shop")].into(), &seen).is_ok());
}

#[test]
fn the_laws_hold_with_them() {
    let mut lot = Lot(11);
    let bare = || project("shop").net("lan", network());
    let worlds = [
        shop("debian:12"),
        shop("nginx"),
        shop("debian:12").depends("app", "vpn", Condition::Healthy),
        bare().container("vpn", &[nic("lan")]).ours("app", "debian:12", &[]).within("app", "vpn"),
        bare().ours("app", "debian:12", &[nic("lan")]).ours("vpn", "debian:12", &[]).within("vpn", "app"),
        bare().ours("app", "debian:12", &[]).on_host("app").ours("vpn", "debian:12", &[]),
    ];
    for old in &worlds {
        let (seen, lock) = up(old, &computer());
        for new in &worlds {
            for (_, world) in damaged(&seen).into_iter().chain([(String::new(), seen.clone())]) {
                let goal = must_want(new, &lock, &world);
                let pinned = Lock::new(&goal);
                assert_arrives(&goal, &world, &|world| must_want(new, &pinned, world), (1, &mut lot));
            }
        }
        let down = |world: &Observed| crate::worlds::nothing(&old.name, world);
        assert_arrives(&down(&seen), &seen, &down, (4, &mut lot));
    }
}

#[test]
fn whose_network_one_is_in_is_told() {
    let (seen, _) = up(&shop("debian:12"), &computer());
    assert_eq!(seen.owner_of(&id("app.shop")), id("vpn.shop"));
    assert_eq!(seen.owner_of(&id("mon.shop")), id("mon.shop"));
    let sharers: Vec<String> = seen.sharers(&id("vpn.shop")).map(ToString::to_string).collect();
    assert_eq!(sharers, ["also.shop", "app.shop"]);
    assert_eq!(NetworkMode::Machine(name("vpn")).to_string(), "machine:vpn");
}
