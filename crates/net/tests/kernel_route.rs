//! Links, addresses, routes and rules, made for real in network namespaces. `ip` is only the judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kernel_support;

use std::time::Instant;

use ipnet::IpNet;
use kernel_support::{Netns, ip, name, new_link, own_namespace};
use rustix::io::Errno;
use stead_model::name::LinkName;
use stead_net::kernel::{
    Hop, LinkChange, LinkKind, MAIN_TABLE, Peer, Port, PortFlags, Route, RouteRequest, RouteSocket, Rule,
    RuleFamily, Veth,
};

fn veth<'fd>(near: &str, far: &str, bridge: Option<&str>, netns: Option<&'fd Netns>) -> RouteRequest<'fd> {
    RouteRequest::AddVeth(Veth {
        link: new_link(near, 7),
        port: bridge.map(|bridge| Port { bridge: name(bridge), flags: PortFlags::default() }),
        peer: Peer {
            netns: netns.map(|netns| netns.as_fd()),
            name: name(far),
            mac: Some("02:00:00:00:00:99".parse().unwrap()),
            mtu: Some(1400),
            group: 9,
        },
    })
}

#[test]
fn a_bridge_and_its_ports_are_made_as_asked_in_one_send() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    let far = Netns::new();
    let mut port = veth("p0", "eth0", Some("br0"), Some(&far));
    if let RouteRequest::AddVeth(veth) = &mut port {
        veth.port.as_mut().unwrap().flags =
            PortFlags { hairpin: Some(true), learning: Some(false), isolated: Some(true) };
    }
    socket
        .run(&[
            RouteRequest::AddBridge(new_link("br0", 7)),
            port,
            RouteRequest::AddAddress(name("br0"), "10.9.0.1/24".parse().unwrap()),
            RouteRequest::AddAddress(name("br0"), "fd00:9::1/64".parse().unwrap()),
        ])
        .unwrap();
    far.ip("link set eth0 up");

    let links = socket.own_links().unwrap();
    let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["br0", "p0"]);
    let (bridge, port) = (&links[0], &links[1]);
    assert_eq!((&bridge.kind, bridge.group, bridge.up), (&LinkKind::Bridge, 7, true));
    assert_eq!(bridge.alias, "stead:test/br0");
    assert_eq!((&port.kind, port.mtu, port.up, port.carrier), (&LinkKind::Veth, 1450, true, true));
    assert_eq!(port.bridge, Some(name("br0")));
    assert!(port.peer_netns.is_some() && port.peer.is_some(), "{port:?}");

    let shown = ip("-d link show p0");
    for word in ["hairpin on", "learning off", "isolated on", "state forwarding", "addrgenmode none"] {
        assert!(shown.contains(word), "no `{word}` in {shown}");
    }
    assert!(!ip("-6 addr show dev p0").contains("fe80"), "a port has no address of its own");
    let shown = ip("-d link show br0");
    for word in ["forward_delay 0", "stp_state 0", "mcast_snooping 0", "mtu 1450"] {
        assert!(shown.contains(word), "no `{word}` in {shown}");
    }
    let addresses: Vec<_> = socket.addresses().unwrap().into_iter().map(|a| a.address.to_string()).collect();
    assert_eq!(addresses, ["10.9.0.1/24", "fd00:9::1/64"]);

    let peer = far.ip("-d link show eth0");
    for word in ["02:00:00:00:00:99", "mtu 1400", "group 9", ",UP"] {
        assert!(peer.contains(word), "no `{word}` in {peer}");
    }
}

#[test]
fn a_bridge_of_packets_too_small_for_ipv6_is_made() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    let mut link = new_link("br0", 7);
    link.mtu = Some(600);
    socket.run(&[RouteRequest::AddBridge(link)]).unwrap();
    let links = socket.own_links().unwrap();
    assert_eq!((links[0].mtu, links[0].up), (600, true));
}

#[test]
fn a_refusal_tells_the_request_and_spares_the_others() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    let refused = socket
        .send(&[
            RouteRequest::AddBridge(new_link("br0", 7)),
            RouteRequest::AddBridge(new_link("br0", 7)),
            veth("p0", "e0", Some("absent"), None),
            RouteRequest::AddBridge(new_link("br1", 7)),
            RouteRequest::DeleteLink(name("gone")),
        ])
        .unwrap();
    let told: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "the kernel refused `+ bridge br0`: File exists (os error 17)",
            "the kernel refused `+ veth p0 to e0 on absent`: No such device (os error 19): there is no link `absent`",
            "the kernel refused `- link gone`: No such device (os error 19)",
        ]
    );
    assert_eq!(socket.own_links().unwrap().len(), 2);

    // The kernel's own words come along.
    let route = Route { to: "10.1.0.0/16".parse().unwrap(), by: via("10.200.0.1", "br0"), table: MAIN_TABLE };
    let error = socket.run(&[RouteRequest::AddRoute(route)]).unwrap_err();
    assert!(format!("{error:#}").contains("gateway"), "{error:#}");
}

#[test]
fn a_taken_name_does_not_change_the_link_that_has_it() {
    own_namespace();
    ip("link add br0 type bridge");
    let socket = RouteSocket::open().unwrap();
    let refused = socket.send(&[RouteRequest::AddBridge(new_link("br0", 7))]).unwrap();
    assert_eq!(refused[0].errno, Errno::EXIST);
    assert!(socket.own_links().unwrap().is_empty(), "somebody else's link took our mark");
    assert!(!socket.links().unwrap().iter().any(|link| link.name == name("br0") && link.up));
}

#[test]
fn links_change_move_and_get_new_names() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    let far = Netns::new();
    socket.run(&[RouteRequest::AddBridge(new_link("br0", 0)), veth("p0", "e0", None, None)]).unwrap();
    let change = LinkChange {
        mtu: Some(1300),
        bridge: Some(Some(name("br0"))),
        alias: Some("stead:other".into()),
        group: Some(12),
        port: PortFlags { hairpin: Some(true), ..PortFlags::default() },
        ..LinkChange::default()
    };
    let away = LinkChange { netns: Some(far.as_fd()), ..LinkChange::default() };
    socket
        .run(&[
            RouteRequest::ChangeLink(name("p0"), change),
            RouteRequest::RenameLink(name("e0"), name("e1")),
            RouteRequest::ChangeLink(name("e1"), away),
        ])
        .unwrap();
    let links = socket.links().unwrap();
    let p0 = links.iter().find(|link| link.name == name("p0")).unwrap();
    assert_eq!((p0.mtu, p0.group, p0.alias.as_str()), (1300, 12, "stead:other"));
    assert_eq!(p0.bridge, Some(name("br0")));
    assert!(far.ip("link show e1").contains("e1"));
    let none = LinkChange { bridge: Some(None), up: Some(false), ..LinkChange::default() };
    socket.run(&[RouteRequest::ChangeLink(name("p0"), none)]).unwrap();
    let p0 = socket.links().unwrap().into_iter().find(|link| link.name == name("p0")).unwrap();
    assert_eq!((p0.bridge, p0.up), (None, false));
}

#[test]
fn a_group_or_a_list_of_links_goes_at_once_and_leaves_the_others() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    let far = Netns::new();
    let ports = |from: u32, to: u32| {
        (from..to).map(|n| veth(&format!("p{n}"), &format!("e{n}"), Some("br0"), Some(&far)))
    };
    let mut requests = vec![RouteRequest::AddBridge(new_link("br0", 3))];
    requests.extend(ports(0, 100));
    socket.run(&requests).unwrap();
    assert_eq!(socket.own_links().unwrap().len(), 101);
    let some: Vec<LinkName> = (0..50).map(|n| name(&format!("p{n}"))).chain([name("absent")]).collect();
    socket.delete_links(&some).unwrap();
    assert_eq!(socket.own_links().unwrap().len(), 51);
    socket.run(&[RouteRequest::DeleteGroup(7)]).unwrap();
    let left: Vec<_> = socket.own_links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(left, [name("br0")]);
    assert!(!far.ip("link show").contains("e1"), "the far ends go along");
}

#[test]
fn routes_and_rules_read_back() {
    own_namespace();
    ip("link set lo up");
    let socket = RouteSocket::open().unwrap();
    let address = |text: &str| RouteRequest::AddAddress(name("p0"), text.parse().unwrap());
    let any4: IpNet = "0.0.0.0/0".parse().unwrap();
    let any6: IpNet = "::/0".parse().unwrap();
    let wanted = [
        Route { to: any4, by: via("10.9.0.1", "p0"), table: MAIN_TABLE },
        Route { to: any6, by: via("fd00:9::1", "p0"), table: MAIN_TABLE },
        Route { to: "10.77.0.0/16".parse().unwrap(), by: Hop::Link(name("p0")), table: MAIN_TABLE },
        Route { to: any4, by: Hop::Local, table: 100 },
        Route { to: any6, by: Hop::Local, table: 1000 },
    ];
    let rules =
        [RuleFamily::V4, RuleFamily::V6].map(|family| Rule { family, mark: 1, table: 100, priority: 50 });
    let mut requests =
        vec![veth("p0", "e0", None, None), up("e0"), address("10.9.0.2/24"), address("fd00:9::2/64")];
    requests.extend(wanted.iter().cloned().map(RouteRequest::AddRoute));
    requests.extend(rules.map(RouteRequest::AddRule));
    socket.run(&requests).unwrap();
    let seen = socket.routes(None).unwrap();
    for route in &wanted {
        assert!(seen.contains(route), "no {route} in {seen:?}");
    }
    assert_eq!(socket.routes(Some(100)).unwrap(), [wanted[3].clone()]);
    assert_eq!(socket.rules().unwrap(), rules);
    assert!(ip("route show table 100").contains("local default dev lo"), "{}", ip("route show table 100"));

    let mut back: Vec<_> = wanted.iter().cloned().map(RouteRequest::DeleteRoute).collect();
    back.extend(rules.map(RouteRequest::DeleteRule));
    socket.run(&back).unwrap();
    assert!(socket.rules().unwrap().is_empty());
    let seen = socket.routes(None).unwrap();
    assert!(!wanted.iter().any(|route| seen.contains(route)), "{seen:?}");
}

#[test]
fn a_route_takes_the_place_of_another_by_any_link() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    for (near, far, net) in [("p0", "e0", 1), ("p1", "e1", 2)] {
        let address = |text: String| RouteRequest::AddAddress(name(near), text.parse().unwrap());
        let addresses = [address(format!("10.9.{net}.2/24")), address(format!("fd00:9:{net}::2/64"))];
        let links = [veth(near, far, None, None), up(far), up(near)];
        socket.run(&links.into_iter().chain(addresses).collect::<Vec<_>>()).unwrap();
    }
    for (to, first, second) in [("0.0.0.0/0", "10.9.1.1", "10.9.2.1"), ("::/0", "fd00:9:1::1", "fd00:9:2::1")]
    {
        let route = |by| Route { to: to.parse().unwrap(), by, table: MAIN_TABLE };
        let (first, second) = (route(via(first, "p0")), route(via(second, "p1")));
        socket.run(&[RouteRequest::AddRoute(first), RouteRequest::ReplaceRoute(second.clone())]).unwrap();
        let mut seen = socket.routes(Some(MAIN_TABLE)).unwrap();
        seen.retain(|route| route.to == second.to);
        assert_eq!(seen, [second]);
    }
}

#[test]
fn a_way_out_is_ours_beside_one_of_the_usual_metric() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    for (near, far, net) in [("p0", "e0", 1), ("p1", "e1", 2)] {
        let address = RouteRequest::AddAddress(name(near), format!("fd00:9:{net}::2/64").parse().unwrap());
        socket.run(&[veth(near, far, None, None), up(far), up(near), address]).unwrap();
    }
    // As the kernel sets one by a router that it hears of.
    let heard = "-6 route add default via fd00:9:1::1 dev p0 metric 1024";
    let out = Route { to: "::/0".parse().unwrap(), by: via("fd00:9:2::1", "p1"), table: MAIN_TABLE };
    ip(heard);
    socket.run(&[RouteRequest::AddRoute(out.clone())]).unwrap();
    assert_eq!(socket.route_to("fd00:10::1".parse().unwrap()).unwrap(), std::slice::from_ref(&out));
    let again = socket.run(&[RouteRequest::AddRoute(out.clone())]).unwrap_err();
    assert!(again.to_string().contains("File exists"), "{again}");
    socket.run(&[RouteRequest::DeleteRoute(out.clone())]).unwrap();
    // One that was made with the usual metric is found, too.
    ip("-6 route del default");
    ip("-6 route add default via fd00:9:2::1 dev p1 metric 1024 proto 115");
    socket.run(&[RouteRequest::DeleteRoute(out)]).unwrap();
    assert_eq!(ip("-6 route show default"), "");
}

/// Where a packet would go, a line for each way.
fn ways(routes: &[Route]) -> Vec<String> {
    routes.iter().map(ToString::to_string).collect()
}

#[test]
fn routes_that_lead_several_ways_or_nowhere_are_seen() {
    own_namespace();
    ip("link set lo up");
    let socket = RouteSocket::open().unwrap();
    for (near, far, third) in [("p0", "e0", 1), ("p1", "e1", 2)] {
        let address = |text: String| RouteRequest::AddAddress(name(near), text.parse().unwrap());
        socket
            .run(&[
                veth(near, far, None, None),
                up(far),
                up(near),
                address(format!("10.9.{third}.2/24")),
                address(format!("fd00:9:{third}::2/64")),
            ])
            .unwrap();
    }
    ip("route add default nexthop via 10.9.1.1 dev p0 weight 2 nexthop via 10.9.2.1 dev p1");
    ip("-6 route add default nexthop via fd00:9:1::1 dev p0 nexthop via fd00:9:2::1 dev p1");
    ip("route add 10.70.0.0/16 nexthop dev p0 nexthop dev p1");
    for (kind, net) in
        [("blackhole", "10.71.0.0/16"), ("prohibit", "10.73.0.0/16"), ("unreachable", "fd71::/32")]
    {
        ip(&format!("route add {kind} {net}"));
    }
    ip("route add throw 10.74.0.0/16");
    let refused = Route { to: "10.72.0.0/16".parse().unwrap(), by: Hop::NoLink, table: MAIN_TABLE };
    socket.run(&[RouteRequest::AddRoute(refused)]).unwrap();
    assert!(ip("route show").contains("unreachable 10.72.0.0/16"));
    let is_from_here = |line: &String| !line.starts_with("10.9.") && !line.starts_with("f");
    let mut seen = ways(&socket.routes(Some(MAIN_TABLE)).unwrap());
    assert!(seen.contains(&"fd71::/32 unreachable".to_owned()), "{seen:#?}");
    seen.retain(is_from_here);
    seen.sort();
    assert_eq!(
        seen,
        [
            "0.0.0.0/0 via 10.9.1.1 on p0",
            "0.0.0.0/0 via 10.9.2.1 on p1",
            "10.70.0.0/16 on p0",
            "10.70.0.0/16 on p1",
            "10.71.0.0/16 unreachable",
            "10.72.0.0/16 unreachable",
            "10.73.0.0/16 unreachable",
            "::/0 via fd00:9:1::1 on p0",
            "::/0 via fd00:9:2::1 on p1",
        ]
    );
    let to = |address: &str| {
        let mut ways = ways(&socket.route_to(address.parse().unwrap()).unwrap());
        ways.sort();
        ways
    };
    assert_eq!(to("203.0.113.1"), ["0.0.0.0/0 via 10.9.1.1 on p0", "0.0.0.0/0 via 10.9.2.1 on p1"]);
    assert_eq!(to("2001:db8::1"), ["::/0 via fd00:9:1::1 on p0", "::/0 via fd00:9:2::1 on p1"]);
    for nowhere in ["10.71.0.1", "10.72.0.1", "10.73.0.1", "fd71::1"] {
        assert!(to(nowhere).is_empty(), "{nowhere}");
    }
}

#[test]
fn the_route_of_a_packet_is_found_by_the_rules_and_not_in_one_table() {
    own_namespace();
    ip("link set lo up");
    let socket = RouteSocket::open().unwrap();
    let address = RouteRequest::AddAddress(name("p0"), "10.9.0.2/24".parse().unwrap());
    socket.run(&[veth("p0", "e0", None, None), up("e0"), up("p0"), address]).unwrap();
    let to = || ways(&socket.route_to("203.0.113.1".parse().unwrap()).unwrap());
    assert!(to().is_empty());
    ip("route add default via 10.9.0.1 table 100");
    assert!(to().is_empty(), "nothing leads to table 100");
    ip("rule add lookup 100 priority 100");
    assert_eq!(to(), ["0.0.0.0/0 via 10.9.0.1 on p0 table 100"]);
    ip("route add 203.0.113.0/25 dev p0");
    ip("rule del priority 100");
    assert_eq!(to(), ["203.0.113.0/25 on p0"]);
}

fn up(link: &str) -> RouteRequest<'static> {
    RouteRequest::ChangeLink(name(link), LinkChange { up: Some(true), ..LinkChange::default() })
}

fn via(router: &str, link: &str) -> Hop {
    Hop::Via(router.parse().unwrap(), name(link))
}

/// Not a benchmark (`cargo xtask bench` is), but shows with `--nocapture` what batching is for.
#[test]
fn many_links_at_once_are_not_slower_than_one_by_one() {
    own_namespace();
    let socket = RouteSocket::open().unwrap();
    let far = Netns::new();
    let ports: Vec<_> =
        (0..50).map(|n| veth(&format!("p{n}"), &format!("e{n}"), Some("br0"), Some(&far))).collect();
    socket.run(&[RouteRequest::AddBridge(new_link("br0", 3))]).unwrap();

    let start = Instant::now();
    for port in &ports {
        socket.run(std::slice::from_ref(port)).unwrap();
    }
    let up_single = start.elapsed();
    let start = Instant::now();
    for n in 0..50 {
        socket.run(&[RouteRequest::DeleteLink(name(&format!("p{n}")))]).unwrap();
    }
    let down_single = start.elapsed();
    let start = Instant::now();
    socket.run(&ports).unwrap();
    let up_batch = start.elapsed();
    let start = Instant::now();
    socket.run(&[RouteRequest::DeleteGroup(7)]).unwrap();
    let down_batch = start.elapsed();
    println!(
        "50 veths: up {up_single:?} singly, {up_batch:?} batched; down {down_single:?} singly, {down_batch:?} by group"
    );
    assert_eq!(socket.own_links().unwrap().len(), 1);
    assert!(down_batch < down_single, "{down_batch:?} against {down_single:?}");
}
