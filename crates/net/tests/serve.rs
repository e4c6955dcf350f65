//! The services against real clients, each test in network namespaces of its own: one for the switchboard with its
//! bridges, one per client. Run as root, or under `unshare -rn`.

mod serve_support;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serve_support::{Client, FakeResolver, Lab, network};
use stead_net::serve::Upstream;

const WEB: &str = "02:00:00:00:00:0a";
const STRANGER: &str = "02:00:00:00:00:99";

fn nowhere() -> Upstream {
    Upstream::Fixed(Vec::new())
}

#[test]
fn udhcpc_gets_its_fixed_lease_and_a_stranger_one_of_the_pool() {
    let lab = Lab::new(nowhere());
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let web = lab.client("lan", WEB).udhcpc();
    assert_eq!(web["ip"], "10.0.5.10");
    assert_eq!(web["router"], "10.0.5.1");
    assert_eq!(web["dns"], "10.0.5.1");
    assert_eq!(web["subnet"], "255.255.255.0");
    assert_eq!(web["domain"], "shop.stead");
    assert_eq!(web["search"], "shop.stead");
    assert_eq!(web["hostname"], "web");
    assert_eq!(web["mtu"], "1400");
    assert_eq!(web["broadcast"], "10.0.5.255");
    assert_eq!(web["lease"], "3600");
    assert_eq!(web["serverid"], "10.0.5.1");
    assert_eq!(web["siaddr"], "10.0.5.1");
    assert_eq!(web["boot_file"], "pxelinux.0");
    let stranger = lab.client("lan", STRANGER).udhcpc();
    let last: u8 = stranger["ip"].strip_prefix("10.0.5.").unwrap().parse().unwrap();
    assert!((200..=220).contains(&last), "{stranger:?}");
    assert_eq!(lab.leases().len(), 1);
    assert_eq!(lab.leases()[0].address.to_string(), stranger["ip"]);
}

#[test]
fn dhclient_gets_its_address_by_dhcpv4_and_dhcpv6() {
    let lab = Lab::new(nowhere());
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let client = lab.client("lan", WEB);
    let v4 = client.dhclient("-4", "BOUND");
    assert_eq!(v4["new_ip_address"], "10.0.5.10");
    assert_eq!(v4["new_domain_search"], "shop.stead.");
    let v6 = client.dhclient("-6", "BOUND6");
    assert_eq!(v6["new_ip6_address"], "fd00:5::a");
    assert_eq!(v6["new_dhcp6_name_servers"], "fd00:5::1");
    assert_eq!(v6["new_dhcp6_domain_search"], "shop.stead.");
    let stranger = lab.client("lan", STRANGER).dhclient("-6", "BOUND6");
    assert_eq!(stranger["new_ip6_address"], "fd00:5::d6:200:0:99");
}

#[test]
fn the_kernel_takes_our_advertisements() {
    let lab = Lab::new(nowhere());
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let client = lab.client("lan", WEB);
    client.until("ip -6 addr show dev eth0", "fd00:5::ff:fe00:a/64");
    client.until("ip -6 route show default", "via fe80::");
    client.until("ip -6 route show default", "mtu 1400");
    // Going away takes the default route with it.
    lab.set(&[]);
    client.until_not("ip -6 route show default", "via fe80::");
}

#[test]
fn dig_finds_names_addresses_and_what_is_not_there() {
    let lab = Lab::new(nowhere());
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let client = lab.client("lan", WEB);
    client.set_address("10.0.5.10/24", "fd00:5::a/64");
    for name in ["web", "web.shop", "web.shop.stead", "www", "WeB.sHoP"] {
        assert_eq!(client.dig(&format!("+short {name} A")), "10.0.5.10\n", "{name}");
        assert_eq!(client.dig(&format!("+short {name} AAAA")), "fd00:5::a\n", "{name}");
        assert_eq!(client.dig(&format!("+short +tcp {name} A")), "10.0.5.10\n", "{name}");
    }
    assert_eq!(client.dig6("+short web A"), "10.0.5.10\n");
    assert_eq!(client.dig6("+short +tcp web A"), "10.0.5.10\n");
    assert_eq!(client.dig("+short gateway A"), "10.0.5.1\n");
    assert_eq!(client.dig("+short -x 10.0.5.10"), "web.shop.stead.\n");
    assert_eq!(client.dig("+short -x fd00:5::a"), "web.shop.stead.\n");
    assert_eq!(client.dig("+short shop.stead NS"), "gateway.shop.stead.\n");
    assert!(client.dig("WeB.sHoP A").contains("WeB.sHoP."), "the case comes back");
    for (question, status) in [
        ("web TXT", "NOERROR"),
        ("nobody A", "NXDOMAIN"),
        ("nobody.shop.stead A", "NXDOMAIN"),
        ("-x 10.0.5.77", "NXDOMAIN"),
        ("example.com A", "SERVFAIL"),
        ("web CH A", "REFUSED"),
    ] {
        let answer = client.dig(question);
        assert!(answer.contains(&format!("status: {status}")), "{question}: {answer}");
    }
    let nodata = client.dig("web TXT");
    assert!(nodata.contains("ANSWER: 0, AUTHORITY: 1"), "{nodata}");
    // The other network's names are not to be seen, nor is ours from there.
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)]), network("far", 6, &[(STRANGER, "db", 11)])]);
    let far = lab.client("far", STRANGER);
    far.set_address("10.0.6.11/24", "fd00:6::b/64");
    assert_eq!(far.dig_at("10.0.6.1", "+short db A"), "10.0.6.11\n");
    assert!(far.dig_at("10.0.6.1", "web A").contains("NXDOMAIN"));
}

#[test]
fn other_names_come_from_the_resolvers_once_and_are_kept() {
    let resolver = FakeResolver::start_lab();
    // One that never answers, one that is not there, and the good one.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let absent: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let lab = resolver.lab(vec![silent.local_addr().unwrap(), absent, resolver.address()]);
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let client = lab.client("lan", WEB);
    client.set_address("10.0.5.10/24", "fd00:5::a/64");
    assert_eq!(client.dig("+short one.example A"), "192.0.2.1\n");
    assert_eq!(client.dig("+short oNe.example A"), "192.0.2.1\n");
    assert_eq!(resolver.asked("one.example"), 1);
    // It exists not, and that is kept too.
    assert!(client.dig("absent.example A").contains("NXDOMAIN"));
    assert!(client.dig("absent.example A").contains("NXDOMAIN"));
    assert_eq!(resolver.asked("absent.example"), 1);
    // Too long for a datagram on both sides: by TCP on both sides.
    let long = client.dig("+short long.example TXT");
    assert_eq!(long.lines().count(), 40, "{long}");
    assert_eq!(resolver.asked("long.example"), 2, "by UDP, then by TCP");
    // Equal questions at once are asked once.
    let digs: Vec<_> = (0..8).map(|_| client.spawn_dig("+short slow.example A")).collect();
    for dig in digs {
        assert_eq!(String::from_utf8(dig.wait_with_output().unwrap().stdout).unwrap(), "192.0.2.1\n");
    }
    assert_eq!(resolver.asked("slow.example"), 1);
    // Names of ours are never asked for.
    assert!(client.dig("nobody.shop.stead A").contains("NXDOMAIN"));
    assert_eq!(resolver.asked("nobody.shop.stead"), 0);
}

#[test]
fn changes_are_followed_without_restart_and_leases_outlive_one() {
    let mut lab = Lab::new(nowhere());
    let before = network("lan", 5, &[]);
    lab.set(std::slice::from_ref(&before));
    let stranger = lab.client("lan", STRANGER);
    let first = stranger.udhcpc()["ip"].clone();
    // A second network, and a machine more on the first: the lease stands.
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)]), network("far", 6, &[])]);
    assert_eq!(lab.leases().len(), 1);
    let web: Client = lab.client("lan", WEB);
    assert_eq!(web.udhcpc()["ip"], "10.0.5.10");
    lab.restart();
    lab.set(&[before]);
    let leases = lab.leases();
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].address.to_string(), first);
    assert_eq!(stranger.udhcpc()["ip"], first);
}

#[test]
fn a_link_that_vanishes_is_served_again_when_it_is_back() {
    let lab = Lab::new(nowhere());
    let wanted = [network("lan", 5, &[(WEB, "web", 10)]), network("far", 6, &[(STRANGER, "db", 11)])];
    lab.set(&wanted);
    lab.delete_bridge("lan");
    let failed: BTreeMap<_, _> = lab.set_anyway(&wanted).into_iter().collect();
    assert!(failed["lan.shop"].contains("no link `br-lan`"), "{failed:?}");
    assert_eq!(failed.len(), 1);
    assert_eq!(lab.client("far", STRANGER).udhcpc()["ip"], "10.0.6.11");
    lab.make_bridge("lan", 5);
    lab.set(&wanted);
    assert_eq!(lab.client("lan", WEB).udhcpc()["ip"], "10.0.5.10");
}

#[test]
fn junk_from_one_machine_leaves_the_others_served() {
    let lab = Lab::new(nowhere());
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let bad = lab.client("lan", STRANGER);
    bad.set_address("10.0.5.99/24", "fd00:5::99/64");
    for to in [
        "UDP4-DATAGRAM:255.255.255.255:67,broadcast,so-bindtodevice=eth0",
        "UDP4:10.0.5.1:53",
        "UDP6:[fd00:5::1]:53",
        "UDP6-DATAGRAM:[ff02::1:2%eth0]:547",
        "TCP4:10.0.5.1:53",
    ] {
        bad.send_junk(to);
    }
    let web = lab.client("lan", WEB);
    assert_eq!(web.udhcpc()["ip"], "10.0.5.10");
    assert_eq!(web.dhclient("-6", "BOUND6")["new_ip6_address"], "fd00:5::a");
    web.set_address("10.0.5.10/24", "fd00:5::a/64");
    assert_eq!(web.dig("+short web A"), "10.0.5.10\n");
    assert_eq!(web.dig6("+short +tcp web A"), "10.0.5.10\n");
}

#[test]
fn silent_streams_of_one_machine_leave_dns_to_the_others() {
    let lab = Lab::new(nowhere());
    lab.set(&[network("lan", 5, &[(WEB, "web", 10)])]);
    let bad = lab.client("lan", STRANGER);
    bad.set_address("10.0.5.99/24", "fd00:5::99/64");
    let web = lab.client("lan", WEB);
    web.set_address("10.0.5.10/24", "fd00:5::a/64");
    let _silent = bad.spawn_silent_streams(100);
    assert_eq!(web.dig("+short +tcp web A"), "10.0.5.10\n");
}
