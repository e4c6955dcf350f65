//! The laws of nics' places: those that stay are left alone, and a computer on which nothing stands has the file's.

use expect_test::expect;
use stead_model::name::NicId;
use stead_model::observed::Observed;
use stead_model::plan::plan;
use stead_model::project::{Network, Project};
use stead_model::step::Step;

use crate::worlds::{With, applied, computer, damaged, must_want, nic, nothing, project, text, up, wanted};
use crate::{Lot, assert_up_arrives, network};

const NETWORKS: [&str; 3] = ["aa", "bb", "cc"];

/// A machine of ours and one of somebody else on these networks, of which one has this MTU.
fn on(networks: &[&str], mtu: u16) -> Project {
    let all = NETWORKS.iter().fold(project("shop"), |project, name| {
        let mtu = if *name == "bb" { mtu } else { 1500 };
        project.net(name, Network { mtu, ..network() })
    });
    let nics: Vec<_> = networks.iter().map(|name| nic(name)).collect();
    all.ours("web", "debian:12", &nics).container("old", &nics)
}

/// Every choice of the networks, in every order.
fn choices() -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = vec![vec![]];
    let mut longest = all.clone();
    for _ in NETWORKS {
        let longer = longest.iter().flat_map(|some| {
            let others = NETWORKS.iter().filter(|name| !some.contains(name));
            others.map(|name| some.iter().copied().chain([*name]).collect())
        });
        longest = longer.collect();
        all.extend(longest.clone());
    }
    all
}

/// The names of `web`'s nics with their networks, in the order of the names.
fn places(seen: &Observed) -> Vec<String> {
    let own = seen.nics.iter().filter(|(id, _)| id.machine.as_str() == "web");
    let mut places: Vec<String> =
        own.map(|(id, nic)| format!("{} {}", nic.end.inner().unwrap(), id.network)).collect();
    places.sort();
    places
}

#[test]
fn every_choice_of_networks_becomes_every_other_and_leaves_alone_what_stays() {
    let mut lot = Lot(12);
    for old in choices() {
        let (seen, lock) = up(&on(&old, 1500), &computer());
        for (new, mtu) in choices().into_iter().flat_map(|new| [(new.clone(), 1500), (new, 1400)]) {
            let project = on(&new, mtu);
            assert_up_arrives(&project, &lock, &seen, (2, &mut lot));
            let after = applied(&plan(&must_want(&project, &lock, &seen), &seen), &seen);
            for (id, nic) in &seen.nics {
                if new.contains(&id.network.as_str()) && (mtu == 1500 || id.network.as_str() != "bb") {
                    assert_eq!(after.nics.get(id), Some(nic), "{old:?} -> {new:?}");
                }
            }
            // What was there before is nothing to a machine that comes anew.
            let gone = applied(&plan(&nothing(&project.name, &after), &after), &after);
            let fresh = |seen: &Observed| places(&up(&project, seen).0);
            let file: Vec<String> =
                new.iter().enumerate().map(|(n, name)| format!("eth{n} {name}")).collect();
            assert_eq!((fresh(&gone), fresh(&computer())), (file.clone(), file));
        }
    }
}

#[test]
fn kept_places_arrive_from_whatever_befell_the_computer() {
    let mut lot = Lot(13);
    let (seen, lock) = up(&on(&["aa", "bb", "cc"], 1500), &computer());
    let bent = on(&["cc", "aa"], 1500);
    let seen = applied(&plan(&must_want(&bent, &lock, &seen), &seen), &seen);
    assert_eq!(places(&seen), ["eth0 aa", "eth2 cc"]);
    for (_, world) in damaged(&seen) {
        for new in [&bent, &on(&["bb", "cc"], 1500), &on(&["cc", "bb", "aa"], 1400)] {
            if wanted(new, &lock, &world).is_ok() {
                assert_up_arrives(new, &lock, &world, (2, &mut lot));
            }
        }
    }
}

#[test]
fn a_new_nic_has_the_first_place_that_is_free() {
    let check = |old: &[&str], new: &[&str], then: &[&str], expected: expect_test::Expect| {
        let (seen, lock) = up(&on(old, 1500), &computer());
        let seen = applied(&plan(&must_want(&on(new, 1500), &lock, &seen), &seen), &seen);
        let planned = plan(&must_want(&on(then, 1500), &lock, &seen), &seen);
        let of_web = planned.steps.iter().filter(|planned| match &planned.step {
            Step::NicAdd(id, _) | Step::NicRemove(id, ..) | Step::NicChange(id, _) => {
                id.machine.as_str() == "web"
            }
            _ => false,
        });
        let steps: String = of_web.map(|planned| format!("{}\n", planned.step)).collect();
        let places = places(&applied(&planned, &seen)).join(", ");
        expected.assert_eq(&format!("{steps}{places}\n"));
    };
    check(
        &["aa", "bb", "cc"],
        &["bb", "cc"],
        &["bb", "cc", "aa"],
        expect![[r#"
        + nic web/aa.shop as eth0 by stv-web-fu7nw
        eth0 aa, eth1 bb, eth2 cc
    "#]],
    );
    check(
        &["aa", "bb"],
        &["bb"],
        &["aa", "cc", "bb"],
        expect![[r#"
        + nic web/aa.shop as eth0 by stv-web-fu7nw
        + nic web/cc.shop as eth2 by stv-web-3he36
        eth0 aa, eth1 bb, eth2 cc
    "#]],
    );
    check(
        &["aa", "bb"],
        &["aa", "bb"],
        &["bb", "aa"],
        expect![[r#"
        eth0 aa, eth1 bb
    "#]],
    );
}

#[test]
fn where_the_engine_died_no_place_is_kept() {
    let (seen, lock) = up(&on(&["aa", "bb", "cc"], 1500), &computer());
    let bent = on(&["bb", "cc"], 1500);
    let seen = applied(&plan(&must_want(&bent, &lock, &seen), &seen), &seen);
    let cut_off = damaged(&seen).into_iter().find(|(what, _)| what == "engine cut off").unwrap().1;
    let planned = plan(&must_want(&bent, &lock, &cut_off), &cut_off);
    assert_eq!(places(&applied(&planned, &cut_off)), ["eth0 bb", "eth1 cc"], "{}", text(&planned));
}

#[test]
fn a_machine_that_becomes_another_has_the_places_of_the_file() {
    let (seen, lock) = up(&on(&["aa", "bb", "cc"], 1500), &computer());
    let bent = on(&["bb", "cc"], 1500);
    let seen = applied(&plan(&must_want(&bent, &lock, &seen), &seen), &seen);
    let nics = [nic("bb"), nic("cc")];
    let other = on(&["bb", "cc"], 1500).ours("web", "nginx", &nics);
    let after = applied(&plan(&must_want(&other, &lock, &seen), &seen), &seen);
    assert_eq!(places(&after), ["eth0 bb", "eth1 cc"]);
    let kept: NicId = "old/bb.shop".parse().unwrap();
    assert_eq!(after.nics[&kept], seen.nics[&kept]);
}
