//! The laws of `resolve`: what was chosen stays, nobody gets what another has, and what cannot be had is
//! refused by the key that asks for it.

use std::collections::{BTreeMap, BTreeSet};

use stead_model::address::{Mac, link_name};
use stead_model::container::Container;
use stead_model::dev::Person;
use stead_model::lock::Lock;
use stead_model::name::LinkName;
use stead_model::observed::{Engine, Ipv6, NetworkState, Observed, PortLease, Switchboard, Taken, Uplink};
use stead_model::plan::{Planned, Wanted, plan};
use stead_model::project::{Bind, Network, Nic, Project, ProjectFiles, Reach, Runs, Subnet};
use stead_model::resolve::{Context, Images, binds_clash, resolve};
use stead_model::step::Step;

use crate::small_projects;
use crate::worlds::{
    With, applied, computer, fixed, lack, must_want, name, network, nic, nothing, project, subnet, text, up,
    wanted,
};

/// The addresses and MACs of a project, by nic.
fn leases(wanted: &Wanted) -> Vec<String> {
    wanted.nics.iter().map(|(id, nic)| format!("{id} {}", nic.lease)).collect()
}

/// Another computer: another home, a route where automatic subnets begin.
fn elsewhere() -> Observed {
    let mut seen = computer();
    seen.host.home = "p0q1".into();
    seen.host.taken.insert("10.64.0.0/11".parse().unwrap(), Taken::Route("tun0".parse().unwrap()));
    seen
}

#[track_caller]
fn assert_refused(project: &Project, lock: &Lock, seen: &Observed, key: &str, why: &str) {
    let refusals = wanted(project, lock, seen).expect_err("not refused");
    let found = refusals.iter().any(|refusal| refusal.key == key && refusal.why.contains(why));
    assert!(found, "no `{key}`: `{why}` in {refusals:#?}");
    assert!(refusals.iter().all(|refusal| !refusal.hint.is_empty()), "{refusals:#?}");
}

fn many(count: usize, network: Network) -> Project {
    let bare = project("shop").net("lan", network);
    (0..count).fold(bare, |project, n| project.container(&format!("m{n:03}"), &[nic("lan")]))
}

#[test]
fn a_lock_gives_the_same_addresses_on_another_computer() {
    let mut moved = 0;
    for project in small_projects("shop", 8080) {
        let here = must_want(&project, &Lock::default(), &computer());
        assert_eq!(here, must_want(&project, &Lock::default(), &computer()), "resolve is deterministic");
        let lock = Lock::parse("stead.lock", &Lock::new(&here).render()).unwrap();
        assert_eq!(lock, Lock::new(&here));
        let mut other = computer();
        other.host.home = "p0q1".into();
        let there = must_want(&project, &lock, &other);
        if here.networks.values().any(NetworkState::is_bridged) {
            // On a real network the computers' machines meet: their MACs differ.
            let macs =
                |wanted: &Wanted| wanted.nics.values().map(|nic| nic.lease.mac).collect::<BTreeSet<_>>();
            assert!(here.nics.is_empty() || macs(&there) != macs(&here));
            continue;
        }
        assert_eq!(leases(&there), leases(&here));
        match wanted(&project, &lock, &elsewhere()) {
            Ok(there) => assert_eq!(leases(&there), leases(&here)),
            Err(refusals) => {
                moved += 1;
                assert!(refusals.iter().all(|r| r.key.ends_with(".subnet") && r.why.contains("stead.lock")));
            }
        }
    }
    assert!(moved > 0);
}

#[test]
fn pins_that_cannot_be_kept_are_told_and_no_others() {
    let plain = project("shop").net("lan", subnet("10.0.5.0/24")).container("web", &[nic("lan")]);
    let lock = Lock::new(&must_want(&plain, &Lock::default(), &computer()));
    assert_eq!(lock.replaced(&plain, &must_want(&plain, &lock, &computer())), []);
    let moved = project("shop").net("lan", subnet("10.0.6.0/24")).container("web", &[nic("lan")]);
    let told = lock.replaced(&moved, &must_want(&moved, &lock, &computer()));
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].key, "machines.web.networks.lan");
    assert_eq!((told[0].pinned.as_str(), told[0].instead.as_deref()), ("10.0.5.2", Some("10.0.6.2")));
    assert!(told[0].why.contains("can have it"), "{told:#?}");
    // Somebody else is given the address by the file.
    let taken = plain.clone().container("db", &[fixed("lan", "10.0.5.2")]);
    let told = lock.replaced(&taken, &must_want(&taken, &lock, &computer()));
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].why, "machine `db` has it");
}

#[test]
fn who_comes_or_goes_changes_nobody_elses_addresses() {
    for fewer in small_projects("shop", 8080).iter().filter(|p| !p.networks.is_empty()) {
        let (seen, lock) = up(fewer, &computer());
        let network = fewer.networks.keys().next().unwrap().as_str();
        let more = fewer.clone().container("aaa", &[nic(network)]).net("aaa", super::isolated());
        let before = must_want(fewer, &lock, &seen);
        // With what is on record, and with the lock alone.
        for after in [must_want(&more, &Lock::default(), &seen), must_want(&more, &lock, &computer())] {
            assert!(before.nics.iter().all(|(id, nic)| after.nics[id].lease == nic.lease));
            assert!(before.networks.iter().all(|(id, n)| after.networks[id] == *n));
        }
    }
}

#[test]
fn automatic_subnets_keep_clear_of_everything() {
    let bare = (0..5).fold(project("shop"), |project, n| project.net(&format!("n{n}"), network()));
    let given = project("blog").net("lan", subnet("10.96.0.0/11"));
    let (seen, _) = up(&given, &elsewhere());
    let (both, _) = up(&bare, &seen);
    assert_eq!(both.networks.len(), 6); // `applied` asserts that subnets do not overlap
    let v4 = both.networks.values().filter_map(|n| n.gateway);
    assert!(v4.clone().all(|net| net.addr().is_private()) && v4.count() == 6);
}

/// A computer on which only `left` of the automatic subnets, from 192.168.0.0 on, are free.
fn crowded(left: u8) -> Observed {
    let mut seen = computer();
    let mut take = |net: &str| drop(seen.host.taken.insert(net.parse().unwrap(), Taken::Home));
    take("10.64.0.0/10");
    take("172.16.0.0/12");
    (left..=255).for_each(|third| take(&format!("192.168.{third}.0/24")));
    seen
}

#[test]
fn the_last_free_subnet_is_found_and_one_that_stands_is_not_given_away() {
    let one = project("shop").net("wan", network());
    let (seen, _) = up(&one, &crowded(1));
    assert_eq!(seen.networks.values().next().unwrap().gateway, Some("192.168.0.1/24".parse().unwrap()));
    // `lan` is looked at before `wan`, and must not take what `wan` stands with.
    let two = one.net("lan", network());
    assert_refused(&two, &Lock::default(), &seen, "networks.lan.subnet", "no subnet is free");
    let (seen, _) = up(&project("shop").net("wan", network()), &crowded(2));
    let both = must_want(&two, &Lock::default(), &seen);
    assert_eq!(both.networks[&"wan.shop".parse().unwrap()], seen.networks[&"wan.shop".parse().unwrap()]);
    applied(&plan(&both, &seen), &seen);
}

#[test]
fn of_two_networks_that_overlap_the_one_that_is_asked_for_now_is_refused() {
    let (seen, first) = up(&project("shop").net("mid", network()), &computer());
    let stands = first.networks[&name("mid")].subnet.unwrap();
    // Whichever name comes first, and whether the older one is in the file with its subnet or not.
    for (asked, older) in [("a", network()), ("z", network()), ("a", subnet(&stands.to_string()))] {
        let both = project("shop").net("mid", older).net(asked, subnet(&stands.to_string()));
        let refusals = wanted(&both, &Lock::default(), &seen).unwrap_err();
        let told: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        let gives = told.iter().any(|told| told.contains("overlaps network `mid"));
        assert!(
            gives && told.len() == 1 && refusals[0].key == format!("networks.{asked}.subnet"),
            "{told:?}"
        );
    }
}

#[test]
fn a_claim_on_all_unique_local_addresses_is_a_refusal() {
    let mut seen = computer();
    seen.host.taken.insert("fd00::/8".parse().unwrap(), Taken::Route("tun0".parse().unwrap()));
    let shop = project("shop").net("lan", network());
    assert_refused(&shop, &Lock::default(), &seen, "networks.lan.subnet6", "no unique local");
    let off = project("shop").net("lan", Network { subnet6: Subnet::Off, ..network() });
    let uplink = must_want(&off, &Lock::default(), &seen).uplink;
    assert!(matches!(uplink, Some(Uplink::Veth(veth)) if veth.transfer6.is_none()));
}

#[test]
fn what_is_refused_on_the_way_is_taken_and_a_guard_of_a_whole_private_range_is_not() {
    let mut seen = computer();
    let given = project("shop").net("lan", subnet("10.9.0.0/24"));
    for guard in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"] {
        seen.host.taken.insert(guard.parse().unwrap(), Taken::Refused);
    }
    must_want(&given, &Lock::default(), &seen);
    must_want(&project("shop").net("lan", network()), &Lock::default(), &seen);
    seen.host.taken.insert("10.8.0.0/13".parse().unwrap(), Taken::Refused);
    assert_refused(&given, &Lock::default(), &seen, "networks.lan.subnet", "10.8.0.0/13, which it refuses");
}

#[test]
fn where_no_transfer_subnet_is_free_pasta_is_the_way_out() {
    let lan = project("shop").net("lan", network());
    let mut seen = computer();
    assert!(matches!(must_want(&lan, &Lock::default(), &seen).uplink, Some(Uplink::Veth(_))));
    seen.host.taken.insert("10.0.0.0/8".parse().unwrap(), Taken::Route("tailscale0".parse().unwrap()));
    seen.host.uplinks.pasta = Ok(());
    assert_eq!(must_want(&lan, &Lock::default(), &seen).uplink, Some(Uplink::Pasta));
    seen.host.uplinks.pasta = lack("`pasta` is not installed");
    assert_refused(&lan, &Lock::default(), &seen, "networks", "no transfer subnet");
}

#[test]
fn a_small_subnet_runs_out_by_name() {
    let small = || subnet("10.9.0.0/29");
    let wanted = must_want(&many(4, small()), &Lock::default(), &computer());
    assert_eq!(wanted.nics.len(), 4);
    let key = "machines.m004.networks.lan";
    assert_refused(&many(5, small()), &Lock::default(), &computer(), key, "no address is left");
}

#[test]
fn a_fixed_address_wins_over_a_recorded_and_a_pinned_one() {
    let net = || project("shop").net("lan", subnet("10.9.0.0/24"));
    let (seen, lock) = up(&net().container("a", &[nic("lan")]).container("b", &[nic("lan")]), &computer());
    let new = net().container("a", &[nic("lan")]).container("b", &[fixed("lan", "10.9.0.2")]);
    for world in [&seen, &computer()] {
        let wanted = must_want(&new, &lock, world);
        let address = |machine: &str| {
            wanted.nics[&format!("{machine}/lan.shop").parse().unwrap()].lease.address.unwrap().to_string()
        };
        assert_eq!((address("a").as_str(), address("b").as_str()), ("10.9.0.3", "10.9.0.2"));
        applied(&plan(&wanted, world), world);
    }
}

#[test]
fn what_the_lock_pins_yields_to_what_another_nic_has_on_record() {
    let net = || project("shop").net("lan", subnet("10.9.0.0/24"));
    // Here `b` got 10.9.0.2; a teammate's lock has `a` there, with a MAC that `b` has here.
    let (seen, mut lock) = up(&net().container("b", &[nic("lan")]), &computer());
    let theirs = lock.machines.remove(&name("b")).unwrap();
    lock.machines.insert(name("a"), theirs);
    let new = net().container("a", &[nic("lan")]).container("b", &[nic("lan")]);
    let wanted = must_want(&new, &lock, &seen);
    let b = "b/lan.shop".parse().unwrap();
    assert_eq!(wanted.nics[&b].lease, seen.leases[&b]);
    let after = applied(&plan(&wanted, &seen), &seen);
    assert_eq!(after.leases.len(), 2);
}

#[test]
fn a_fixed_mac_wins_over_a_recorded_one() {
    let net = || project("shop").net("lan", network());
    let (seen, lock) = up(&net().container("a", &[nic("lan")]), &computer());
    let mac: Mac = seen.leases.values().next().unwrap().mac;
    let thief = Nic { mac: Some(mac), ..nic("lan") };
    let new = net().container("a", &[nic("lan")]).container("b", &[thief]);
    let wanted = must_want(&new, &lock, &seen);
    assert_eq!(wanted.nics.values().filter(|nic| nic.lease.mac == mac).count(), 1);
    applied(&plan(&wanted, &seen), &seen);
}

#[test]
fn a_fixed_address_that_its_network_does_not_have_is_refused() {
    let key = "machines.web.networks.lan";
    for bad in ["10.8.0.7", "10.9.0.0", "10.9.0.1", "10.9.0.255"] {
        let shop = project("shop").net("lan", subnet("10.9.0.0/24")).container("web", &[fixed("lan", bad)]);
        assert_refused(&shop, &Lock::default(), &computer(), key, bad);
    }
}

#[test]
fn the_uplinks_subnet_and_the_networks_keep_clear_of_each_other() {
    let (seen, _) = up(&project("shop").net("lan", network()), &computer());
    let wide = project("blog").net("lan", subnet("10.63.0.0/17"));
    assert_refused(&wide, &Lock::default(), &seen, "networks.lan.subnet", "the uplink");
    let (seen, _) = up(&wide, &computer());
    assert!(matches!(seen.uplink, Some(Uplink::Veth(veth)) if veth.transfer.addr().octets()[2] >= 128));
}

#[test]
fn without_any_way_out_nat_is_refused_and_isolated_is_not() {
    let mut seen = computer();
    seen.host.uplinks.veth = lack("not root");
    assert_eq!(must_want(&many(1, network()), &Lock::default(), &seen).uplink, Some(Uplink::Pasta));
    seen.host.uplinks.pasta = lack("no pasta");
    assert_refused(&many(1, network()), &Lock::default(), &seen, "networks.lan.reach", "nothing can carry");
    assert_eq!(must_want(&many(1, super::isolated()), &Lock::default(), &seen).uplink, None);
}

#[test]
fn an_idle_link_takes_one_network_and_a_bridge_several() {
    let on = |link: &str| Network { reach: Reach::Bridged(link.parse().unwrap()), ..network() };
    let both = |link: &str| project("shop").net("a", on(link)).net("b", on(link));
    assert_refused(&both("eth1"), &Lock::default(), &computer(), "networks.b.reach", "network `a`");
    must_want(&both("br0"), &Lock::default(), &computer());
    assert_refused(&both("eth7"), &Lock::default(), &computer(), "networks.a.reach", "no link `eth7`");
    // The network gets another name while it has the link, which this computer does not see any more.
    let (mut seen, lock) = up(&project("shop").net("a", on("eth1")), &computer());
    seen.host.links.remove(&"eth1".parse().unwrap());
    let wanted = must_want(&project("shop").net("b", on("eth1")), &lock, &seen);
    applied(&plan(&wanted, &seen), &seen);
}

#[test]
fn a_port_of_another_project_is_refused() {
    let (seen, _) = up(&many(1, network()).port("m000", "127.0.0.1:80/tcp"), &computer());
    let blog =
        |bind: &str| project("blog").net("lan", network()).container("web", &[nic("lan")]).port("web", bind);
    for bind in ["127.0.0.1:80/tcp", "0.0.0.0:80/tcp"] {
        assert_refused(&blog(bind), &Lock::default(), &seen, "machines.web.ports", "m000.shop");
    }
    for bind in ["127.0.0.1:80/udp", "127.0.0.2:80/tcp", "[::1]:80/tcp", "[::]:80/tcp"] {
        must_want(&blog(bind), &Lock::default(), &seen);
    }
    let bind = |text: &str| text.parse().unwrap();
    assert!(binds_clash(bind("[::]:80/tcp"), bind("[::1]:80/tcp")));
}

#[test]
fn link_names_never_collide_even_when_the_first_choice_is_taken() {
    let shop = many(3, network());
    let first = must_want(&shop, &Lock::default(), &computer());
    // Another project's bridge and nics happen to have every name that would be chosen.
    let (mut seen, _) = up(
        &{
            let bare = project("blog").net("lan", super::isolated());
            (0..3).fold(bare, |project, n| project.container(&format!("x{n}"), &[nic("lan")]))
        },
        &computer(),
    );
    seen.networks.values_mut().zip(first.networks.values()).for_each(|(seen, n)| seen.link = n.link.clone());
    seen.nics.values_mut().zip(first.nics.values()).for_each(|(seen, n)| seen.link = n.link.clone());
    let second = must_want(&shop, &Lock::default(), &seen);
    let links = |wanted: &Wanted| -> BTreeSet<LinkName> {
        let networks = wanted.networks.values().map(|n| n.link.clone());
        networks.chain(wanted.nics.values().map(|n| n.link.clone())).collect()
    };
    assert_eq!(links(&first).len(), 4);
    assert!(links(&first).is_disjoint(&links(&second)) && links(&second).len() == 4);
    applied(&plan(&second, &seen), &seen);
    // A thousand names that all begin alike.
    let mut taken = BTreeSet::new();
    for n in 0..1000 {
        let link = link_name('v', "same", &[&format!("{}", n % 10)], &|link| taken.contains(link));
        assert!(taken.insert(link));
    }
}

#[test]
fn another_directory_of_the_same_name_is_refused() {
    let (mut seen, lock) = up(&many(1, network()), &computer());
    seen.projects.insert(name("shop"), "/elsewhere".into());
    assert_refused(&many(1, network()), &lock, &seen, "name", "/elsewhere");
}

#[test]
fn files_that_somebody_named_are_recorded_and_nothing_else_changes() {
    let project = many(1, network());
    let (mut seen, lock) = up(&project, &computer());
    let (directory, named) =
        ("/home/ann/shop".into(), vec!["/home/ann/shop/a.yaml".into(), "/b.yaml".into()]);
    let recorded = ProjectFiles { directory, named, order: BTreeMap::new() };
    assert_eq!(recorded.to_string(), "/home/ann/shop by a.yaml, /b.yaml");
    seen.projects.insert(name("shop"), recorded);
    let steps = plan(&must_want(&project, &lock, &seen), &seen).steps;
    let steps: Vec<String> = steps.iter().map(|planned| planned.step.to_string()).collect();
    assert_eq!(steps, ["+ project shop at /home/ann/shop"]);
}

#[test]
fn a_project_that_is_up_is_not_renamed_by_its_file() {
    let (mut seen, lock) = up(&many(1, network()), &computer());
    let renamed = Project { name: name("store"), ..many(1, network()) };
    seen.projects.insert(name("shop"), "/home/ann/store".into());
    assert_refused(&renamed, &lock, &seen, "name", "project `shop`, which is up");
    // Its volumes may stay behind.
    let mut down = computer();
    down.projects.insert(name("shop"), "/home/ann/store".into());
    must_want(&renamed, &lock, &down);
}

#[test]
fn a_computer_without_ipv6_gets_an_uplink_without() {
    let mut seen = computer();
    let uplink = |seen: &Observed| must_want(&many(1, network()), &Lock::default(), seen).uplink;
    assert!(matches!(uplink(&seen), Some(Uplink::Veth(veth)) if veth.transfer6.is_some()));
    seen.host.ipv6 = Ipv6::Inside;
    assert!(matches!(uplink(&seen), Some(Uplink::Veth(veth)) if veth.transfer6.is_none()));
    // Nor has it IPv6 on its networks if its kernel has none; what asks for it in so many words is refused.
    seen.host.ipv6 = Ipv6::Absent;
    let wanted = must_want(&many(1, network()), &Lock::default(), &seen);
    assert!(wanted.networks.values().all(|network| network.gateway6.is_none()));
    let given = Network { subnet6: Subnet::Given("fd00:1::/64".parse().unwrap()), ..network() };
    assert_refused(&many(1, given), &Lock::default(), &seen, "networks.lan.subnet6", "no IPv6");
}

/// The ports of a project that are open on a computer.
fn open(seen: &Observed) -> Vec<Bind> {
    seen.ports.keys().copied().collect()
}

#[test]
fn a_chosen_port_is_kept_while_its_machine_asks_for_it() {
    let one = project("shop").net("lan", network()).ours("web", "nginx", &[nic("lan")]);
    let one = one.port("web", "127.0.0.1:0/tcp");
    let (seen, _) = up(&one, &computer());
    let chosen = open(&seen);
    assert!((61000..=65535).contains(&chosen[0].port), "{chosen:?}");
    assert_eq!(seen.port_leases.keys().copied().collect::<Vec<_>>(), chosen);
    // After a reboot, in another order of things, and where it has become another machine.
    let mut rebooted = seen.clone();
    (rebooted.engine, rebooted.switchboard, rebooted.uplink) = (Engine::Absent, Switchboard::Absent, None);
    rebooted.networks.clear();
    rebooted.nics.clear();
    rebooted.ports.clear();
    rebooted.running.clear();
    assert_eq!(open(&up(&one, &rebooted).0), chosen);
    let more = one.clone().ours("aaa", "nginx", &[nic("lan")]).port("aaa", "0.0.0.0:0/tcp");
    let more = more.port("web", "127.0.0.1:0/udp");
    let after = up(&more, &rebooted).0;
    assert!(after.ports.len() == 3 && after.ports.contains_key(&chosen[0]));
    let mut other = one.clone();
    other.machines.get_mut(&name("web")).unwrap().runs =
        Runs::Container(Box::new(Container::new("debian:12".parse().unwrap())));
    assert_eq!(open(&up(&other, &seen).0), chosen);
    // What was cut off before the record is not moved.
    let mut unrecorded = seen.clone();
    unrecorded.port_leases.clear();
    assert_eq!(
        text(&plan(&must_want(&one, &Lock::default(), &unrecorded), &unrecorded)),
        format!("+ lease web.shop:80 {}\n", chosen[0])
    );
    // It goes with the machine.
    let gone = applied(&plan(&nothing(&one.name, &seen), &seen), &seen);
    assert!(gone.port_leases.is_empty());
}

#[test]
fn what_somebody_has_is_not_chosen() {
    let web = |text: &str| {
        let one = project(text).net("lan", network()).ours("web", "nginx", &[nic("lan")]);
        one.port("web", "127.0.0.1:0/tcp")
    };
    let first = open(&up(&web("shop"), &computer()).0)[0];
    // Another process, the file itself, and a project that is down at the moment.
    let taken = BTreeSet::from([first]);
    let context = Context {
        files: &ProjectFiles::from("/home/ann/shop"),
        lock: &Lock::default(),
        seen: &computer(),
        user: 1000,
        person: &Person::default(),
        images: &Images::default(),
        resting: &BTreeSet::new(),
        taken: &taken,
    };
    let wanted = resolve(&web("shop"), context).unwrap();
    assert_eq!(wanted.ports.len(), 1);
    assert!(!wanted.ports.contains_key(&first));
    let said = web("shop").port("web", &first.to_string());
    assert_eq!(up(&said, &computer()).0.ports.len(), 2);
    let mut seen = computer();
    seen.projects.insert(name("blog"), ProjectFiles::from("/home/ann/blog"));
    seen.port_leases.insert(first, PortLease { machine: "web.blog".parse().unwrap(), target: 80 });
    assert!(!open(&up(&web("shop"), &seen).0).contains(&first));
    // Where all are somebody's.
    let mut seen = computer();
    let lease = PortLease { machine: "web.blog".parse().unwrap(), target: 80 };
    seen.port_leases.extend((49152..=65535).map(|port| (Bind { port, ..first }, lease.clone())));
    assert_refused(
        &web("shop"),
        &Lock::default(),
        &seen,
        "machines.web.ports",
        "no port from 49152 to 65535 is free",
    );
    // Those that the kernel gives away come last.
    seen.port_leases.remove(&Bind { port: 50000, ..first });
    seen.projects.insert(name("blog"), ProjectFiles::from("/home/ann/blog"));
    assert_eq!(open(&up(&web("shop"), &seen).0), [Bind { port: 50000, ..first }]);
}

#[test]
fn a_broken_uplink_is_made_again_where_there_is_a_route_to_make_it_by() {
    let shop = many(1, network());
    let (mut seen, lock) = up(&shop, &computer());
    seen.uplink_is_broken = true;
    let steps = |seen: &Observed| plan(&must_want(&shop, &lock, seen), seen).steps;
    let told = steps(&seen);
    assert!(matches!(&told[..], [
        Planned { step: Step::UplinkRemove(_), why, .. },
        Planned { step: Step::UplinkAdd(_), .. },
    ] if why == "it does not work any more"));
    seen.host.online = false;
    assert_eq!(steps(&seen), []);
}
