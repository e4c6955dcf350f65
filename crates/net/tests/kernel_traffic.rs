//! Real packets through our bridges and rules: what may pass does, what may not does not. Each thing that is
//! dropped is also seen to pass where the rule does not hold, so that no test passes because nothing works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kernel_support;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use kernel_support::sys::transparent;
use kernel_support::{Netns, eventually, ip, mac, name, new_link, own_namespace};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use stead_model::address::Mac;
use stead_net::kernel::nft::{Family, NftRequest, NftSocket};
use stead_net::kernel::rules::{
    CALLS_PORT, HostUplink, NetworkRules, NicGuard, NicRules, PROXY_MARK, PROXY_TABLE, TABLE, call_chains,
    engine_table, guard_table, host_chain_names, host_chains, link_local, network_elements, nic_elements,
};
use stead_net::kernel::{
    Hop, Peer, Port, PortFlags, Route, RouteRequest, RouteSocket, Rule, RuleFamily, Veth,
};

/// An engine's namespace with our rules, and endpoints.
struct Engine {
    route: RouteSocket,
    nft: NftSocket,
}

impl Engine {
    fn new() -> Self {
        own_namespace();
        ip("link set lo up");
        for (file, text) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            std::fs::write(format!("/proc/sys/net/{file}"), text).unwrap();
        }
        let nft = NftSocket::open().unwrap();
        nft.run(&[NftRequest::Create(engine_table()), NftRequest::Create(guard_table())]).unwrap();
        Self { route: RouteSocket::open().unwrap(), nft }
    }

    /// A bridge `br<n>` with 10.<n>.0.1/24 and fd00:<n>::1/64.
    fn network(&self, n: u8, nat: bool, joins: &[u8]) -> NetworkRules {
        let bridge = format!("br{n}");
        let link = new_link(&bridge, 1);
        let rules = NetworkRules {
            bridge: name(&bridge),
            mac: link.mac.unwrap(),
            nat,
            served: true,
            gateway: Some([10, n, 0, 1].into()),
            gateway6: Some(format!("fd00:{n}::1").parse().unwrap()),
            joins: joins.iter().map(|other| name(&format!("br{other}"))).collect(),
        };
        let address = |text: String| RouteRequest::AddAddress(name(&bridge), text.parse().unwrap());
        self.route
            .run(&[
                RouteRequest::AddBridge(link),
                address(format!("10.{n}.0.1/24")),
                address(format!("fd00:{n}::1/64")),
                // Without one the kernel does not ask for neighbours of others.
                address(format!("{}/64", link_local(rules.mac))),
            ])
            .unwrap();
        self.nft.run(&network_elements(&rules).into_iter().map(NftRequest::Add).collect::<Vec<_>>()).unwrap();
        rules
    }

    /// A machine on network `n` with 10.<n>.0.<host>/24 and fd00:<n>::<host>/64.
    fn machine(&self, n: u8, host: u8) -> Machine {
        let netns = Netns::new();
        let port = format!("p{n}x{host}");
        let mac = Mac::derived(&["nic", &port]);
        self.route
            .run(&[RouteRequest::AddVeth(Veth {
                link: new_link(&port, 1),
                port: Some(Port { bridge: name(&format!("br{n}")), flags: PortFlags::default() }),
                peer: Peer {
                    netns: Some(netns.as_fd()),
                    name: name("eth0"),
                    mac: Some(mac),
                    mtu: Some(1450),
                    group: 0,
                },
            })])
            .unwrap();
        netns.ip("link set eth0 up");
        netns.ip(&format!("addr add 10.{n}.0.{host}/24 dev eth0"));
        netns.ip(&format!("addr add fd00:{n}::{host}/64 dev eth0 nodad"));
        netns.ip(&format!("route add default via 10.{n}.0.1"));
        netns.ip(&format!("route add default via fd00:{n}::1"));
        let v4 = vec![[10, n, 0, host].into()];
        let v6 = vec![format!("fd00:{n}::{host}").parse().unwrap()];
        let guard = NicGuard::Addresses(mac, v4, v6);
        Machine { netns, nic: NicRules { port: name(&port), guard, calls: Vec::new() } }
    }

    fn guard(&self, nic: &NicRules) {
        self.nft.run(&nic_elements(nic).into_iter().map(NftRequest::Add).collect::<Vec<_>>()).unwrap();
    }

    fn unguard(&self, nic: &NicRules) {
        self.nft.run(&nic_elements(nic).into_iter().map(NftRequest::Remove).collect::<Vec<_>>()).unwrap();
    }
}

struct Machine {
    netns: Netns,
    nic: NicRules,
}

#[test]
fn guarded_machines_speak_with_their_own_addresses_only() {
    let engine = Engine::new();
    engine.network(1, false, &[]);
    let (a, b) = (engine.machine(1, 2), engine.machine(1, 3));
    engine.guard(&a.nic);
    engine.guard(&b.nic);
    for address in ["10.1.0.3", "fd00:1::3", "10.1.0.1", "fd00:1::1"] {
        assert!(a.netns.reaches(address), "{address}");
    }
    // Another address than its own.
    a.netns.ip("addr add 10.1.0.66/24 dev eth0");
    a.netns.ip("addr add fd00:1::66/64 dev eth0 nodad");
    // The neighbour is known both ways, so that it is not just ARP that fails.
    b.netns.ip(&format!("neigh add 10.1.0.66 lladdr {} dev eth0", Mac::derived(&["nic", "p1x2"])));
    b.netns.ip(&format!("neigh add fd00:1::66 lladdr {} dev eth0", Mac::derived(&["nic", "p1x2"])));
    assert!(!a.netns.pings("10.1.0.3 -I 10.1.0.66"));
    assert!(!a.netns.pings("fd00:1::3 -I fd00:1::66"));
    engine.unguard(&a.nic);
    assert!(a.netns.reaches("10.1.0.3 -I 10.1.0.66"));
    assert!(a.netns.reaches("fd00:1::3 -I fd00:1::66"));

    // Another MAC than its own.
    engine.guard(&a.nic);
    assert!(a.netns.reaches("10.1.0.3"));
    a.netns.ip("link set eth0 address 02:00:00:00:00:66");
    assert!(!a.netns.pings("10.1.0.3"));
    engine.unguard(&a.nic);
    let mac_only = NicRules { guard: NicGuard::MacOnly(mac("02:00:00:00:00:66")), ..a.nic.clone() };
    engine.guard(&mac_only);
    assert!(a.netns.reaches("10.1.0.3"), "its MAC is the one it has now");
    b.netns.ip("neigh replace 10.1.0.66 lladdr 02:00:00:00:00:66 dev eth0");
    assert!(a.netns.reaches("10.1.0.3 -I 10.1.0.66"), "any address passes where only the MAC is guarded");
    a.netns.ip("link set eth0 address 02:00:00:00:00:67");
    assert!(!a.netns.pings("10.1.0.3"));
}

#[test]
fn what_machines_send_to_our_address_is_handed_to_one_socket_if_they_may_call() {
    let engine = Engine::new();
    engine.network(1, false, &[]);
    let (mut caller, other) = (engine.machine(1, 2), engine.machine(1, 3));
    let addresses = ["10.1.0.2", "fd00:1::2"];
    caller.nic.calls = addresses.map(|address| (name("br1"), address.parse().unwrap())).to_vec();
    engine.guard(&caller.nic);
    engine.guard(&other.nic);
    engine.nft.run(&[NftRequest::SetChains(Family::Inet, TABLE, call_chains())]).unwrap();
    for (any, gateway) in [("0.0.0.0", "10.1.0.1"), ("::", "fd00:1::1")] {
        let any: std::net::IpAddr = any.parse().unwrap();
        let gateway: std::net::IpAddr = gateway.parse().unwrap();
        let listener = TcpListener::bind((any, CALLS_PORT)).unwrap();
        let called = SocketAddr::new(gateway, 8000);
        let connects = |machine: &Machine, to: SocketAddr| {
            machine
                .netns
                .run(move || std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
        };
        assert!(connects(&caller, called), "{called}");
        let (socket, _) = listener.accept().unwrap();
        let meant = match gateway {
            std::net::IpAddr::V4(_) => SocketAddr::V4(sockopt::ip_original_dst(&socket).unwrap()),
            std::net::IpAddr::V6(_) => SocketAddr::V6(sockopt::ipv6_original_dst(&socket).unwrap()),
        };
        assert_eq!(meant, called);
        for to in [called, SocketAddr::new(gateway, CALLS_PORT)] {
            assert!(!connects(&other, to), "{to}");
        }
    }
}

#[test]
fn machines_reach_joined_networks_and_no_others() {
    let engine = Engine::new();
    engine.network(1, false, &[2]);
    engine.network(2, false, &[]);
    engine.network(3, false, &[]);
    let (a, b, c) = (engine.machine(1, 2), engine.machine(2, 2), engine.machine(3, 2));
    for machine in [&a, &b, &c] {
        engine.guard(&machine.nic);
    }
    for address in ["10.2.0.2", "fd00:2::2"] {
        assert!(a.netns.reaches(address), "{address}");
    }
    assert!(b.netns.reaches("10.1.0.2"));
    assert!(c.netns.reaches("10.3.0.1"), "its own gateway answers");
    for address in ["10.3.0.2", "fd00:3::2"] {
        assert!(!a.netns.pings(address), "{address}");
    }
    assert!(!c.netns.pings("10.1.0.2"));
}

#[test]
fn only_networks_with_nat_reach_the_outside_and_it_sees_one_address() {
    let engine = Engine::new();
    engine.network(1, true, &[]);
    engine.network(2, false, &[]);
    let outside = Netns::new();
    let uplink = Veth {
        link: new_link("uplink", 0),
        port: None,
        peer: Peer { netns: Some(outside.as_fd()), name: name("eth0"), mac: None, mtu: None, group: 0 },
    };
    let address = |text: &str| RouteRequest::AddAddress(name("uplink"), text.parse().unwrap());
    engine
        .route
        .run(&[RouteRequest::AddVeth(uplink), address("192.0.2.1/24"), address("2001:db8::1/64")])
        .unwrap();
    outside.ip("link set eth0 up");
    outside.ip("addr add 192.0.2.9/24 dev eth0");
    outside.ip("addr add 2001:db8::9/64 dev eth0 nodad");
    let (a, b) = (engine.machine(1, 2), engine.machine(2, 2));
    // The outside has no route back: an answer means that the address was changed on the way.
    for address in ["192.0.2.9", "2001:db8::9"] {
        assert!(a.netns.reaches(address), "{address}");
        assert!(!b.netns.pings(address), "{address}");
    }
    outside.ip("route add 10.1.0.0/24 via 192.0.2.1");
    outside.ip("route add fd00:1::/64 via 2001:db8::1");
    assert!(!outside.pings("10.1.0.2"));
    assert!(!outside.pings("fd00:1::2"));
    assert!(outside.reaches("192.0.2.1"), "the engine itself answers pings");
}

/// Sends an ICMPv6 message from one machine to another by a raw socket and tells whether it came.
fn icmpv6_arrives(from: &Netns, to: &Netns, to_address: &str, message: [u8; 24]) -> bool {
    let receiver = to.run(|| {
        let socket = net::socket_with(
            AddressFamily::INET6,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::ICMPV6),
        )
        .unwrap();
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(500)))
            .unwrap();
        socket
    });
    let address: SocketAddrV6 = format!("[{to_address}]:0").parse().unwrap();
    from.run(move || {
        let socket = net::socket_with(
            AddressFamily::INET6,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::ICMPV6),
        )
        .unwrap();
        net::sendto(&socket, &message, SendFlags::empty(), &SocketAddr::V6(address)).unwrap();
    });
    let mut buffer = [0; 1500];
    while let Ok((_, length)) = net::recv(&receiver, &mut buffer, RecvFlags::empty()) {
        if length == message.len() && buffer[0] == message[0] && buffer[4..length] == message[4..] {
            return true;
        }
    }
    false
}

fn icmpv6(kind: u8, target: &str) -> [u8; 24] {
    let mut message = [0; 24];
    message[0] = kind;
    message[8..].copy_from_slice(&target.parse::<Ipv6Addr>().unwrap().octets());
    message
}

#[test]
fn rogue_routers_and_stolen_neighbours_are_silenced() {
    let engine = Engine::new();
    // Connection tracking would call the redirect invalid, and we would not see whether the guard does.
    std::fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0").unwrap();
    let network = engine.network(1, false, &[]);
    let (a, b) = (engine.machine(1, 2), engine.machine(1, 3));
    engine.guard(&b.nic);
    assert!(a.netns.reaches("fd00:1::3"));
    let gateway = link_local(network.mac).to_string();
    let neighbour = link_local(Mac::derived(&["nic", "p1x3"])).to_string();
    let bad = [
        ("router advertisement", icmpv6(134, "::")),
        ("redirect", icmpv6(137, "fd00:1::3")),
        ("neighbour advertisement for another", icmpv6(136, "fd00:1::3")),
        ("neighbour advertisement for the gateway", icmpv6(136, &gateway)),
        ("neighbour advertisement for a neighbour's link-local address", icmpv6(136, &neighbour)),
    ];
    for (what, message) in bad {
        assert!(icmpv6_arrives(&a.netns, &b.netns, "fd00:1::3", message), "{what} unguarded");
    }
    engine.guard(&a.nic);
    for (what, message) in bad {
        assert!(!icmpv6_arrives(&a.netns, &b.netns, "fd00:1::3", message), "{what}");
    }
    let good = [
        ("echo", icmpv6(128, "::")),
        ("neighbour advertisement of its own", icmpv6(136, "fd00:1::2")),
        ("neighbour advertisement of a stable-privacy address", icmpv6(136, "fe80::1234:5678:9abc:def0")),
    ];
    for (what, message) in good {
        assert!(icmpv6_arrives(&a.netns, &b.netns, "fd00:1::3", message), "{what}");
    }
}

#[test]
fn a_link_local_address_drawn_by_lot_works_and_a_neighbour_s_does_not() {
    let engine = Engine::new();
    let network = engine.network(1, false, &[]);
    let (a, b) = (engine.machine(1, 2), engine.machine(1, 3));
    engine.guard(&a.nic);
    engine.guard(&b.nic);
    let from = |own: &str| {
        a.netns.ip(&format!("addr replace {own}/64 dev eth0 nodad"));
        a.netns.pings(&format!("-I {own}%eth0 {}%eth0", link_local(Mac::derived(&["nic", "p1x3"]))))
    };
    assert!(eventually(|| a.netns.pings("fd00:1::3")));
    // The neighbour's own link-local address takes a moment: it is checked for duplicates.
    assert!(eventually(|| from("fe80::1234:5678:9abc:def0")));
    assert!(!from(&link_local(network.mac).to_string()), "the gateway's");
}

/// Whether a datagram from `from_port` of one machine comes to `to` of another.
fn udp_arrives(from: &Netns, from_socket: &'static str, to: &Netns, to_socket: &'static str) -> bool {
    let receiver = to.run(move || UdpSocket::bind(to_socket).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    from.run(move || UdpSocket::bind(from_socket).unwrap().send_to(b"offer", to_socket).unwrap());
    receiver.recv(&mut [0; 16]).is_ok()
}

#[test]
fn rogue_dhcp_servers_are_silenced() {
    let engine = Engine::new();
    engine.network(1, false, &[]);
    let (a, b) = (engine.machine(1, 2), engine.machine(1, 3));
    engine.guard(&b.nic);
    assert!(a.netns.reaches("10.1.0.3") && a.netns.reaches("fd00:1::3"));
    assert!(udp_arrives(&a.netns, "10.1.0.2:67", &b.netns, "10.1.0.3:68"), "unguarded");
    assert!(udp_arrives(&a.netns, "[fd00:1::2]:547", &b.netns, "[fd00:1::3]:546"), "unguarded");
    engine.guard(&a.nic);
    assert!(!udp_arrives(&a.netns, "10.1.0.2:67", &b.netns, "10.1.0.3:68"));
    assert!(!udp_arrives(&a.netns, "[fd00:1::2]:547", &b.netns, "[fd00:1::3]:546"));
    assert!(udp_arrives(&a.netns, "10.1.0.2:1067", &b.netns, "10.1.0.3:68"));
}

#[test]
fn a_flood_of_dhcp_from_one_port_leaves_the_others_served() {
    let engine = Engine::new();
    engine.network(1, false, &[]);
    let (a, b) = (engine.machine(1, 2), engine.machine(1, 3));
    engine.guard(&a.nic);
    engine.guard(&b.nic);
    assert!(a.netns.reaches("10.1.0.1") && b.netns.reaches("10.1.0.1"));
    assert!(a.netns.reaches("fd00:1::1") && b.netns.reaches("fd00:1::1"));
    for (server, port) in [("10.1.0.1:67", 67), ("[fd00:1::1]:547", 547)] {
        let socket = UdpSocket::bind(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let send = |machine: &Machine, count: usize| {
            let any = if port == 67 { "0.0.0.0:0" } else { "[::]:0" };
            machine.netns.run(move || {
                let socket = UdpSocket::bind(any).unwrap();
                for _ in 0..count {
                    socket.send_to(b"discover", server).unwrap();
                }
            });
        };
        let count = || std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count();
        send(&a, 2000);
        let flood = count();
        assert!((1..400).contains(&flood), "{flood} of 2000 of {server}");
        send(&b, 20);
        assert_eq!(count(), 20, "of the well-behaved port to {server}");
    }
}

#[test]
fn questions_to_others_beyond_us_do_not_count_as_asked_of_us() {
    let engine = Engine::new();
    for n in [1, 2] {
        engine.network(n, false, &[3 - n]);
    }
    let (a, other) = (engine.machine(1, 2), engine.machine(2, 2));
    engine.guard(&a.nic);
    engine.guard(&other.nic);
    assert!(a.netns.reaches("10.2.0.2") && a.netns.reaches("fd00:2::2"));
    assert!(a.netns.reaches("10.1.0.1") && a.netns.reaches("fd00:1::1"));
    let send = |server: &'static str, at_once: usize| {
        let any = if server.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        a.netns.run(move || {
            let socket = UdpSocket::bind(any).unwrap();
            for index in 0..4000 {
                socket.send_to(b"question", server).unwrap();
                // Not faster than who receives: what its buffer has no room for would look like what was dropped.
                if index % at_once == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
    };
    let counted = |socket: UdpSocket| {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        std::thread::spawn(move || std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count())
    };
    for (beyond, ours) in [("10.2.0.2:53", "10.1.0.1:53"), ("[fd00:2::2]:53", "[fd00:1::1]:53")] {
        let receiver = counted(other.netns.run(move || UdpSocket::bind(beyond).unwrap()));
        send(beyond, 10);
        assert_eq!(receiver.join().unwrap(), 4000, "{beyond}");
        // And what it asked elsewhere took nothing of what it may ask of us.
        let receiver = counted(UdpSocket::bind(ours).unwrap());
        send(ours, 50);
        let taken = receiver.join().unwrap();
        assert!((900..3500).contains(&taken), "{taken} of 4000 of {ours}");
    }
}

#[test]
fn machines_reach_only_what_we_serve() {
    let engine = Engine::new();
    engine.network(1, false, &[]);
    let a = engine.machine(1, 2);
    engine.guard(&a.nic);
    assert!(a.netns.reaches("10.1.0.1"));
    let here = |socket: &'static str| {
        let receiver = UdpSocket::bind(socket).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        a.netns.run(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", socket).unwrap());
        receiver.recv(&mut [0; 16]).is_ok()
    };
    for served in ["10.1.0.1:53", "10.1.0.1:67", "10.1.0.1:69"] {
        assert!(here(served), "{served}");
    }
    assert!(!here("10.1.0.1:5353"));
    assert!(eventually(|| here("10.1.0.1:53")));
    // Our addresses on other networks are none of its business, not even whether they are there.
    engine.network(2, false, &[]);
    for other in ["10.2.0.1", "fd00:2::1"] {
        assert!(!a.netns.reaches(other), "{other}");
    }
    assert!(!here("10.2.0.1:53"));
    assert!(a.netns.reaches("fd00:1::1"));
}

/// Connects to a machine from an address that is not of this computer.
fn connect_as(client: SocketAddr, server: SocketAddr) -> bool {
    let family = if client.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    transparent(socket.as_fd(), client.is_ipv4());
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_secs(3))).unwrap();
    net::bind(&socket, &client).unwrap();
    net::connect(&socket, &server).is_ok()
}

#[test]
fn a_forwarder_connects_with_the_client_s_own_address() {
    let engine = Engine::new();
    engine.network(1, false, &[]);
    let a = engine.machine(1, 2);
    engine.guard(&a.nic);
    assert!(a.netns.reaches("10.1.0.1") && a.netns.reaches("fd00:1::1"));
    let pairs: [(SocketAddr, SocketAddr); 2] = [
        ("198.51.100.7:0".parse().unwrap(), "10.1.0.2:80".parse().unwrap()),
        ("[2001:db8:9::7]:0".parse().unwrap(), "[fd00:1::2]:80".parse().unwrap()),
    ];
    let listeners = pairs.map(|(_, server)| a.netns.run(move || TcpListener::bind(server).unwrap()));
    assert!(!connect_as(pairs[0].0, pairs[0].1), "without the routes the answers go elsewhere");
    for (family, all) in [(RuleFamily::V4, "0.0.0.0/0"), (RuleFamily::V6, "::/0")] {
        let rule = Rule { family, mark: PROXY_MARK, table: PROXY_TABLE, priority: 100 };
        let route = Route { to: all.parse().unwrap(), by: Hop::Local, table: PROXY_TABLE };
        engine.route.run(&[RouteRequest::AddRule(rule), RouteRequest::AddRoute(route)]).unwrap();
    }
    for ((client, server), listener) in pairs.into_iter().zip(&listeners) {
        assert!(connect_as(client, server), "{client} to {server}");
        // The attempt before the routes may have left a half-open connection, which is not accepted.
        assert_eq!(listener.accept().unwrap().1.ip(), client.ip());
    }
}

/// A home's engine behind the host: the host's namespace, a transfer veth, and an outside.
#[test]
fn a_home_s_chains_let_it_out_and_nothing_in() {
    own_namespace();
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
    let (route, nft) = (RouteSocket::open().unwrap(), NftSocket::open().unwrap());
    let (engine, outside) = (Netns::new(), Netns::new());
    let end = |near: &str, netns, addresses: [&str; 2]| {
        let veth = Veth {
            link: new_link(near, 0),
            port: None,
            peer: Peer { netns: Some(netns), name: name("eth0"), mac: None, mtu: None, group: 0 },
        };
        let addresses = addresses.map(|text| RouteRequest::AddAddress(name(near), text.parse().unwrap()));
        [vec![RouteRequest::AddVeth(veth)], addresses.to_vec()].concat()
    };
    route.run(&end("steadup", engine.as_fd(), ["10.255.1.1/30", "fd5d:1::1/64"])).unwrap();
    route.run(&end("wan0", outside.as_fd(), ["192.0.2.1/24", "2001:db8::1/64"])).unwrap();
    for (netns, v4, v6) in
        [(&engine, "10.255.1.2/30", "fd5d:1::2/64"), (&outside, "192.0.2.9/24", "2001:db8::9/64")]
    {
        netns.ip("link set eth0 up");
        netns.ip(&format!("addr add {v4} dev eth0"));
        netns.ip(&format!("addr add {v6} dev eth0 nodad"));
    }
    engine.ip("route add default via 10.255.1.1");
    engine.ip("route add default via fd5d:1::1");
    outside.ip("route add 10.255.1.0/30 via 192.0.2.1");
    assert!(outside.reaches("10.255.1.2"), "without our chains the host forwards anything");
    let uplink = HostUplink {
        home: "abc".into(),
        link: name("steadup"),
        subnet: "10.255.1.0/30".parse().unwrap(),
        subnet6: Some("fd5d:1::/64".parse().unwrap()),
    };
    nft.run(&[NftRequest::SetChains(Family::Inet, TABLE, host_chains(&uplink))]).unwrap();
    assert!(engine.reaches("192.0.2.9"));
    // The outside has no route to this subnet: an answer means that the address was changed on the way.
    assert!(engine.reaches("2001:db8::9"));
    assert!(!outside.pings("10.255.1.2"));
    nft.remove_chains(Family::Inet, TABLE, &host_chain_names("abc")).unwrap();
    assert!(outside.reaches("10.255.1.2"));
}
