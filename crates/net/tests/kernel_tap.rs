//! TAPs in a network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kernel_support;

use std::time::Duration;

use kernel_support::{eventually, ip, mac, name, own_namespace};
use stead_net::kernel::tap::{self, TapOwner};
use stead_net::kernel::{LinkChange, LinkKind, RouteRequest, RouteSocket};

#[test]
fn a_tap_stays_with_its_owner_until_it_is_released() {
    own_namespace();
    let route = RouteSocket::open().unwrap();
    let links = || {
        let links = route.links().unwrap();
        links.into_iter().filter(|link| link.kind == LinkKind::Tun).map(|link| link.name).collect::<Vec<_>>()
    };
    let tun = tap::open_tun().unwrap();
    // Root, because under `unshare -r` there is nobody else.
    tap::create(&tun, &name("tap-fifteen-byt"), TapOwner { user: Some(0), group: Some(0) }).unwrap();
    drop(tun);
    assert_eq!(links(), [name("tap-fifteen-byt")]);
    let shown = ip("-d link show");
    for word in ["type tap", "pi off", "vnet_hdr on", "persist on", "user root", "group root"] {
        assert!(shown.contains(word), "no `{word}` in {shown}");
    }
    let tun = tap::open_tun().unwrap();
    tap::attach(&tun, &name("tap-fifteen-byt")).unwrap();
    tap::release(&tun).unwrap();
    drop(tun);
    assert!(links().is_empty());
}

#[test]
fn taps_take_an_alias_a_bridge_and_a_group_and_go_with_it() {
    own_namespace();
    let route = RouteSocket::open().unwrap();
    route.run(&[RouteRequest::AddBridge(kernel_support::new_link("br0", 0))]).unwrap();
    for n in 0..3 {
        let tun = tap::open_tun().unwrap();
        tap::create(&tun, &name(&format!("tap{n}")), TapOwner::default()).unwrap();
    }
    let change = LinkChange {
        up: Some(true),
        mtu: Some(1450),
        mac: Some(mac("02:00:00:00:00:05")),
        bridge: Some(Some(name("br0"))),
        alias: Some("stead:test/tap".into()),
        group: Some(9),
        link_local: Some(false),
        ..LinkChange::default()
    };
    let requests: Vec<_> =
        (0..3).map(|n| RouteRequest::ChangeLink(name(&format!("tap{n}")), change.clone())).collect();
    route.run(&requests).unwrap();
    let taps: Vec<_> = route.own_links().unwrap().into_iter().filter(|link| link.group == 9).collect();
    assert_eq!(taps.len(), 3);
    assert!(taps.iter().all(|tap| tap.kind == LinkKind::Tun && tap.bridge == Some(name("br0")) && tap.up));
    route.run(&[RouteRequest::DeleteGroup(9)]).unwrap();
    assert_eq!(route.own_links().unwrap().len(), 1);
}

#[test]
fn frames_from_a_bridge_come_to_the_descriptor() {
    own_namespace();
    let route = RouteSocket::open().unwrap();
    let tun = tap::open_tun().unwrap();
    tap::attach(&tun, &name("tap0")).unwrap();
    route
        .run(&[
            RouteRequest::AddBridge(kernel_support::new_link("br0", 0)),
            RouteRequest::ChangeLink(
                name("tap0"),
                LinkChange { up: Some(true), bridge: Some(Some(name("br0"))), ..LinkChange::default() },
            ),
            RouteRequest::AddAddress(name("br0"), "10.9.0.1/24".parse().unwrap()),
        ])
        .unwrap();
    // Asking for a neighbour sends an ARP broadcast: a header of ten bytes, then the frame.
    let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    rustix::fs::fcntl_setfl(&tun, rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::RDWR).unwrap();
    assert!(eventually(|| {
        socket.send_to(b"x", "10.9.0.2:9").unwrap();
        let mut frame = [0; 2000];
        rustix::io::read(&tun, &mut frame).is_ok_and(|length| length > 24 && frame[22..24] == [0x08, 0x06])
    }));
}
