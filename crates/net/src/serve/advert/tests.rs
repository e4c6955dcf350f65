//! Advertisements as they are on the wire, and when they are due.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::serve::network_tests::{net, net_with};

#[track_caller]
fn check(net: &Net, presence: Presence, expected: Expect) {
    let packet = advertisement(net, presence).unwrap();
    assert_eq!(packet.len() % 8, 0);
    let lines = packet
        .chunks(8)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    expected.assert_eq(&(lines.collect::<Vec<_>>().join("\n") + "\n"));
}

#[test]
fn an_advertisement_is_this() {
    check(
        &net(),
        Presence::Here,
        expect![[r#"
        86 00 00 00 40 c0 07 08
        00 00 00 00 00 00 00 00
        01 01 02 aa 00 00 00 01
        05 01 00 00 00 00 05 78
        03 04 40 c0 00 01 51 80
        00 00 38 40 00 00 00 00
        fd 00 00 05 00 00 00 00
        00 00 00 00 00 00 00 00
        19 03 00 00 00 00 07 08
        fd 00 00 05 00 00 00 00
        00 00 00 00 00 00 00 01
        1f 03 00 00 00 00 07 08
        04 73 68 6f 70 05 73 74
        65 61 64 00 00 00 00 00
    "#]],
    );
}

#[test]
fn the_last_one_says_that_nobody_is_to_use_us() {
    check(
        &net(),
        Presence::Leaving,
        expect![[r#"
        86 00 00 00 40 c0 00 00
        00 00 00 00 00 00 00 00
        01 01 02 aa 00 00 00 01
        05 01 00 00 00 00 05 78
        19 03 00 00 00 00 00 00
        fd 00 00 05 00 00 00 00
        00 00 00 00 00 00 00 01
        1f 03 00 00 00 00 00 00
        04 73 68 6f 70 05 73 74
        65 61 64 00 00 00 00 00
    "#]],
    );
}

#[test]
fn we_are_no_router_where_nothing_lies_beyond_and_addresses_may_be_ours_alone_to_give() {
    let net = net_with(|network| {
        network.routes = false;
        network.dhcp.as_mut().unwrap().slaac = false;
        network.domain = String::new();
    });
    check(
        &net,
        Presence::Here,
        expect![[r#"
        86 00 00 00 40 c0 00 00
        00 00 00 00 00 00 00 00
        01 01 02 aa 00 00 00 01
        05 01 00 00 00 00 05 78
        03 04 40 80 00 01 51 80
        00 00 38 40 00 00 00 00
        fd 00 00 05 00 00 00 00
        00 00 00 00 00 00 00 00
        19 03 00 00 00 00 07 08
        fd 00 00 05 00 00 00 00
        00 00 00 00 00 00 00 01
    "#]],
    );
}

#[test]
fn solicitations_are_told_from_the_rest() {
    let some = "fe80::1".parse().unwrap();
    let plain = [133, 0, 0, 0, 0, 0, 0, 0];
    let with_mac = [&plain[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
    assert!(is_solicitation(&plain, some));
    assert!(is_solicitation(&plain, Ipv6Addr::UNSPECIFIED));
    assert!(is_solicitation(&with_mac, some));
    assert!(!is_solicitation(&with_mac, Ipv6Addr::UNSPECIFIED), "nobody has no MAC");
    assert!(!is_solicitation(&with_mac[..12], some), "cut");
    assert!(
        !is_solicitation(&[&plain[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat(), some),
        "an option without length"
    );
    assert!(!is_solicitation(&[134, 0, 0, 0, 0, 0, 0, 0], some));
    assert!(!is_solicitation(&[133, 1, 0, 0, 0, 0, 0, 0], some));
}

#[test]
fn three_come_soon_then_one_every_few_minutes() {
    let mut now = Duration::from_secs(100);
    let mut schedule = Schedule::new(now);
    let mut waits = Vec::new();
    for _ in 0..5 {
        now = schedule.next();
        schedule.sent(now, 123);
        waits.push((schedule.next() - now).as_secs());
    }
    assert_eq!(waits, [16, 16, 323, 323, 323]);
    schedule.changed(now);
    assert_eq!(schedule.next() - now, BETWEEN);
}

#[test]
fn a_flood_of_solicitations_is_not_answered_by_one_of_advertisements() {
    let now = Duration::from_secs(100);
    let mut schedule = Schedule::new(now);
    schedule.sent(now, 0);
    for _ in 0..1000 {
        assert_eq!(schedule.solicited(now, Ipv6Addr::UNSPECIFIED), Solicited::Multicast);
    }
    assert_eq!(schedule.next(), now + BETWEEN);
    let some = "fe80::1".parse().unwrap();
    let answered = (0..1000).filter(|_| schedule.solicited(now, some) == Solicited::Unicast).count();
    assert_eq!(answered, 100);
    assert_eq!(schedule.solicited(now + Duration::from_secs(1), some), Solicited::Unicast);
}

proptest! {
    #[test]
    fn no_message_does_harm(message in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = is_solicitation(&message, Ipv6Addr::UNSPECIFIED);
        let _ = is_solicitation(&[&[133, 0, 0, 0, 0, 0, 0, 0], &*message].concat(), ALL_NODES);
    }
}
