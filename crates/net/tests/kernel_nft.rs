//! Our rules in the kernel, as Debian's `nft` sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod kernel_support;

use expect_test::{Expect, expect};
use kernel_support::{mac, name, own_namespace, prints};
use rustix::io::Errno;
use stead_net::kernel::Refused;
use stead_net::kernel::legacy::{self, LegacyForward};
use stead_net::kernel::nft::{Elements, Expr, Family, Filled, NftRequest, NftSocket, Set, Table, Value};
use stead_net::kernel::rules::{
    HostUplink, NetworkRules, NicGuard, NicRules, TABLE, call_chains, engine_table, guard_table,
    host_chain_names, host_chains, network_elements, nic_elements,
};

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The table in the kernel is this one, and its text is what is expected.
#[track_caller]
fn check(table: &Table, expected: Expect) {
    own_namespace();
    // nft takes the text, too, but for what has no name in 1.0.6: the target of neighbour discovery.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), table.to_string()).unwrap();
    if !table.to_string().contains("@th,") {
        prints(&format!("nft --check --file {}", file.path().display()));
    }
    let socket = NftSocket::open().unwrap();
    socket.run(&[NftRequest::Create(table.clone())]).unwrap();
    let listed = prints(&format!("nft list table {} {}", table.family, table.name));
    assert_eq!(squeezed(&listed), squeezed(&table.to_string()), "\nnft:\n{listed}\nours:\n{table}");
    expected.assert_eq(&table.to_string());
}

#[test]
fn a_set_that_an_earlier_version_did_not_make_is_made() {
    own_namespace();
    let mut earlier = guard_table();
    earlier.sets.retain(|set| !set.name.starts_with("asked"));
    earlier.chains.retain(|chain| chain.name != "asked");
    let socket = NftSocket::open().unwrap();
    socket.run(&[NftRequest::Create(earlier)]).unwrap();
    let found = socket.elements(&guard_table()).unwrap().unwrap();
    assert!(found.iter().any(|elements| elements.set == "asked4"));
    let gateway = Elements {
        family: Family::Bridge,
        table: TABLE,
        set: "asked4",
        elements: vec![vec![Value::V4([10, 0, 5, 1].into())]],
    };
    socket.run(&[NftRequest::Add(gateway.clone())]).unwrap();
    assert!(socket.elements(&guard_table()).unwrap().unwrap().contains(&gateway));
}

#[test]
fn the_engine_s_table_reads_as_nft_prints_it() {
    check(
        &engine_table(),
        expect![[r#"
            table inet stead {
            	set joins {
            		type ifname . ifname
            	}

            	set nat {
            		type ifname
            	}

            	set served {
            		type ifname
            	}

            	set gateways4 {
            		type ifname . ipv4_addr
            	}

            	set gateways6 {
            		type ifname . ipv6_addr
            	}

            	set callers4 {
            		type ifname . ipv4_addr
            	}

            	set callers6 {
            		type ifname . ipv6_addr
            	}

            	chain proxy {
            		type filter hook prerouting priority mangle; policy accept;
            		socket transparent 1 meta mark set 0x00000001 accept
            	}

            	chain input {
            		type filter hook input priority filter; policy drop;
            		ct state established,related accept
            		ct state invalid drop
            		iifname "lo" accept
            		iifname @served goto services
            		iifname "uplink" meta l4proto icmp accept
            		iifname "uplink" meta l4proto ipv6-icmp accept
            	}

            	chain services {
            		udp dport 67 accept
            		udp dport 547 accept
            		iifname . ip daddr @gateways4 goto gateway
            		iifname . ip6 daddr @gateways6 goto gateway
            		ip6 daddr fe80::/64 meta l4proto ipv6-icmp accept
            		ip6 daddr ff00::/8 meta l4proto ipv6-icmp accept
            	}

            	chain gateway {
            		udp dport 53 accept
            		udp dport 69 accept
            		tcp dport 53 accept
            		iifname . ip saddr @callers4 tcp dport 20530 accept
            		iifname . ip6 saddr @callers6 tcp dport 20530 accept
            		meta l4proto icmp accept
            		meta l4proto ipv6-icmp accept
            	}

            	chain forward {
            		type filter hook forward priority filter; policy drop;
            		ct state invalid drop
            		iifname . oifname @joins accept
            		iifname @nat oifname "uplink" accept
            		iifname "uplink" oifname @nat ct state established,related accept
            	}

            	chain outward {
            		type nat hook postrouting priority srcnat; policy accept;
            		oifname "uplink" masquerade
            	}
            }
        "#]],
    );
}

#[test]
fn what_lets_machines_call_reads_as_nft_prints_it() {
    let mut table = engine_table();
    table.sets.retain(|set| ["callers4", "callers6", "gateways4", "gateways6"].contains(&set.name));
    table.chains = call_chains();
    check(
        &table,
        expect![[r#"
            table inet stead {
            	set gateways4 {
            		type ifname . ipv4_addr
            	}

            	set gateways6 {
            		type ifname . ipv6_addr
            	}

            	set callers4 {
            		type ifname . ipv4_addr
            	}

            	set callers6 {
            		type ifname . ipv6_addr
            	}

            	chain calls {
            		type nat hook prerouting priority dstnat; policy accept;
            		iifname . ip saddr @callers4 iifname . ip daddr @gateways4 tcp dport != 53 redirect to :20530
            		iifname . ip6 saddr @callers6 iifname . ip6 daddr @gateways6 tcp dport != 53 redirect to :20530
            	}

            	chain gateway {
            		udp dport 53 accept
            		udp dport 69 accept
            		tcp dport 53 accept
            		iifname . ip saddr @callers4 tcp dport 20530 accept
            		iifname . ip6 saddr @callers6 tcp dport 20530 accept
            		meta l4proto icmp accept
            		meta l4proto ipv6-icmp accept
            	}
            }
        "#]],
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "it is one text")]
fn the_guard_reads_as_nft_prints_it() {
    check(
        &guard_table(),
        expect![[r#"
            table bridge stead {
            	set ports {
            		type ifname
            	}

            	set guarded {
            		type ifname
            	}

            	set maconly {
            		type ifname
            	}

            	set macs {
            		type ifname . ether_addr
            	}

            	set addr4 {
            		type ifname . ipv4_addr
            	}

            	set addr6 {
            		type ifname . ipv6_addr
            	}

            	set taken {
            		type ipv6_addr
            	}

            	set asked4 {
            		type ipv4_addr
            	}

            	set asked6 {
            		type ipv6_addr
            	}

            	set self {
            		type ifname . ifname
            	}

            	set dhcp {
            		type ifname
            		size 65535
            		flags dynamic,timeout
            		timeout 1m
            	}

            	set dns {
            		type ifname
            		size 65535
            		flags dynamic,timeout
            		timeout 1m
            	}

            	chain ports {
            		type filter hook prerouting priority filter; policy accept;
            		iifname @ports udp dport 67 add @dhcp { iifname limit rate over 50/second burst 100 packets } drop
            		iifname @ports udp dport 547 add @dhcp { iifname limit rate over 50/second burst 100 packets } drop
            		iifname @ports icmpv6 type nd-router-solicit add @dhcp { iifname limit rate over 50/second burst 100 packets } drop
            		iifname @maconly iifname . ether saddr != @macs drop
            		iifname @guarded goto guard
            	}

            	chain asked {
            		type filter hook input priority filter; policy accept;
            		iifname @ports udp dport 53 ip daddr @asked4 add @dns { iifname limit rate over 1000/second burst 1000 packets } drop
            		iifname @ports udp dport 53 ip6 daddr @asked6 add @dns { iifname limit rate over 1000/second burst 1000 packets } drop
            	}

            	chain echo {
            		type filter hook forward priority filter; policy accept;
            		meta pkttype broadcast iifname . oifname @self drop
            		meta pkttype multicast iifname . oifname @self drop
            	}

            	chain guard {
            		iifname . ether saddr != @macs drop
            		meta protocol ip goto guard_ip4
            		meta protocol ip6 goto guard_ip6
            		meta protocol arp goto guard_arp
            		drop
            	}

            	chain guard_arp {
            		iifname . arp saddr ether != @macs drop
            		arp saddr ip 0.0.0.0 accept
            		iifname . arp saddr ip @addr4 accept
            		drop
            	}

            	chain guard_ip4 {
            		udp sport 67 drop
            		iifname . ip saddr @addr4 accept
            		ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
            		drop
            	}

            	chain guard_ip6 {
            		udp sport 547 drop
            		icmpv6 type nd-router-advert drop
            		icmpv6 type nd-redirect drop
            		icmpv6 type nd-neighbor-advert jump guard_nd
            		ip6 saddr :: icmpv6 type nd-neighbor-solicit jump guard_nd
            		ip6 saddr :: icmpv6 type nd-neighbor-solicit accept
            		ip6 saddr :: icmpv6 type nd-router-solicit accept
            		ip6 saddr :: icmpv6 type mld-listener-report accept
            		ip6 saddr :: icmpv6 type mld-listener-done accept
            		ip6 saddr :: icmpv6 type mld2-listener-report accept
            		iifname . ip6 saddr @addr6 accept
            		ip6 saddr @taken drop
            		ip6 saddr fe80::/64 accept
            		drop
            	}

            	chain guard_nd {
            		iifname . @th,64,128 @addr6 return
            		@th,64,128 @taken drop
            		@th,64,64 0xfe80000000000000 return
            		drop
            	}
            }
        "#]],
    );
}

fn uplink(home: &str, n: u8) -> HostUplink {
    HostUplink {
        home: home.into(),
        link: name(&format!("steadup{n}")),
        subnet: format!("10.255.{n}.0/30").parse().unwrap(),
        subnet6: Some(format!("fd5d:{n}::/64").parse().unwrap()),
    }
}

#[test]
fn a_home_s_chains_read_as_nft_prints_them() {
    let uplink = uplink("abc", 1);
    check(
        &Table { family: Family::Inet, name: TABLE, sets: Vec::new(), chains: host_chains(&uplink) },
        expect![[r#"
            table inet stead {
            	chain fwd-abc {
            		type filter hook forward priority filter; policy accept;
            		iifname "steadup1" accept
            		oifname "steadup1" ct state established,related accept
            		oifname "steadup1" drop
            	}

            	chain in-abc {
            		type filter hook input priority filter; policy accept;
            		iifname "steadup1" meta l4proto icmp accept
            		iifname "steadup1" meta l4proto ipv6-icmp accept
            		iifname "steadup1" drop
            	}

            	chain nat-abc {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr 10.255.1.0/30 oifname != "steadup1" masquerade
            		ip6 saddr fd5d:1::/64 oifname != "steadup1" masquerade
            	}
            }
        "#]],
    );
}

#[test]
fn two_homes_share_the_host_s_table_and_the_last_takes_it_away() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    let add = |home: &HostUplink| {
        socket.run(&[NftRequest::SetChains(Family::Inet, TABLE, host_chains(home))]).unwrap();
    };
    let remove = |home: &str| socket.remove_chains(Family::Inet, TABLE, &host_chain_names(home)).unwrap();
    let names = || socket.chains().unwrap().into_iter().map(|chain| chain.name).collect::<Vec<_>>();
    let (one, two) = (uplink("one", 1), uplink("two", 2));
    add(&one);
    add(&two);
    let both = prints("nft list table inet stead");
    add(&one);
    assert_eq!(both, prints("nft list table inet stead"), "added twice is added once");
    assert_eq!(names(), ["fwd-one", "in-one", "nat-one", "fwd-two", "in-two", "nat-two"]);
    remove("one");
    assert_eq!(names(), ["fwd-two", "in-two", "nat-two"]);
    remove("one");
    remove("two");
    assert_eq!(prints("nft list ruleset"), "");
    remove("two");
}

#[test]
fn homes_that_come_and_go_at_once_do_not_disturb_each_other() {
    own_namespace();
    let homes: Vec<_> = (1..=3).map(|n| uplink(&format!("h{n}"), n)).collect();
    std::thread::scope(|scope| {
        for home in &homes {
            // A thread made here is in the same namespace.
            scope.spawn(move || {
                let socket = NftSocket::open().unwrap();
                for _ in 0..30 {
                    socket.run(&[NftRequest::SetChains(Family::Inet, TABLE, host_chains(home))]).unwrap();
                    let ours = host_chain_names(&home.home);
                    let there = socket.chains().unwrap();
                    assert!(
                        ours.iter().all(|name| there.iter().any(|chain| chain.name == *name)),
                        "{home:?}"
                    );
                    socket.remove_chains(Family::Inet, TABLE, &ours).unwrap();
                }
            });
        }
    });
    assert_eq!(prints("nft list ruleset"), "");
}

fn sorted(mut all: Vec<Elements>) -> Vec<Elements> {
    all.iter_mut().for_each(|one| one.elements.sort());
    all
}

#[test]
fn elements_of_networks_and_nics_are_added_read_back_and_removed() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    assert_eq!(socket.elements(&guard_table()).unwrap(), None);
    socket.run(&[NftRequest::Create(engine_table()), NftRequest::Create(guard_table())]).unwrap();
    let network = NetworkRules {
        bridge: name("br0"),
        mac: mac("02:00:00:00:00:01"),
        nat: true,
        served: true,
        gateway: Some("10.1.0.1".parse().unwrap()),
        gateway6: Some("fd00::1".parse().unwrap()),
        joins: vec![name("br1")],
    };
    let guard = NicGuard::Addresses(
        mac("02:00:00:00:00:02"),
        vec!["10.1.0.2".parse().unwrap(), "10.1.0.3".parse().unwrap()],
        vec!["fd00::2".parse().unwrap()],
    );
    let calls = ["10.1.0.2", "fd00::2"].map(|address| (name("br0"), address.parse().unwrap())).to_vec();
    let nic = NicRules { port: name("p0"), guard, calls };
    let all = [network_elements(&network), nic_elements(&nic)].concat();
    socket.run(&all.iter().cloned().map(NftRequest::Add).collect::<Vec<_>>()).unwrap();
    socket.run(&all.iter().cloned().map(NftRequest::Add).collect::<Vec<_>>()).unwrap();

    let listed = prints("nft list set inet stead joins");
    for pair in ["\"br0\" . \"br0\"", "\"br0\" . \"br1\"", "\"br1\" . \"br0\""] {
        assert!(listed.contains(pair), "{listed}");
    }
    assert!(prints("nft list set bridge stead addr6").contains("\"p0\" . fe80::ff:fe00:2"));
    let seen =
        [engine_table(), guard_table()].map(|table| socket.elements(&table).unwrap().unwrap()).concat();
    let seen: Vec<_> = seen.into_iter().filter(|one| !one.elements.is_empty()).collect();
    for wanted in sorted(all.clone()) {
        let found = seen.iter().find(|one| (one.family, one.set) == (wanted.family, wanted.set)).unwrap();
        for element in wanted.elements {
            assert!(found.elements.contains(&element), "{element:?} in {found}");
        }
    }
    let remove: Vec<_> = all.into_iter().map(NftRequest::Remove).collect();
    socket.run(&remove).unwrap();
    socket.run(&remove).unwrap();
    for table in [engine_table(), guard_table()] {
        assert!(socket.elements(&table).unwrap().unwrap().iter().all(|one| one.elements.is_empty()));
    }
}

/// Each is read at once, while the kernel may still be moving the set to a larger table.
#[test]
fn thousands_of_elements_go_in_one_transaction() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    socket.run(&[NftRequest::Create(guard_table())]).unwrap();
    for count in (1000..9000_u32).step_by(400) {
        let elements =
            (0..count).map(|n| vec![Value::Name(name(&format!("p{n}"))), Value::V4(n.into())]).collect();
        let all = Elements { family: Family::Bridge, table: TABLE, set: "addr4", elements };
        socket.run(&[NftRequest::Add(all.clone())]).unwrap();
        let seen = socket.elements(&guard_table()).unwrap().unwrap();
        let seen = seen.iter().find(|one| one.set == "addr4").unwrap();
        assert!(Some(seen) == sorted(vec![all.clone()]).first(), "{count}: {}", seen.elements.len());
        socket.run(&[NftRequest::Remove(all)]).unwrap();
    }
    assert!(socket.elements(&guard_table()).unwrap().unwrap().iter().all(|one| one.elements.is_empty()));
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    socket.run(&[NftRequest::Create(engine_table())]).unwrap();
    let missing =
        Elements { family: Family::Inet, table: TABLE, set: "absent", elements: vec![vec![Value::Port(1)]] };
    let error = socket.run(&[NftRequest::Create(guard_table()), NftRequest::Add(missing)]).unwrap_err();
    let refused: &Refused = error.downcast_ref().unwrap();
    assert_eq!(refused.errno, Errno::NOENT);
    assert_eq!(refused.request, "+ elements 1 of @absent in table inet stead");
    assert_eq!(socket.tables().unwrap().len(), 1);
    // The socket is fit for use after a refusal.
    let error = socket.run(&[NftRequest::Create(engine_table())]).unwrap_err();
    assert_eq!(error.downcast_ref::<Refused>().unwrap().errno, Errno::EXIST);
    socket.run(&[NftRequest::Create(guard_table())]).unwrap();
}

#[test]
fn a_table_is_replaced_whole() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    let mut table = engine_table();
    socket.run(&[NftRequest::Replace(table.clone())]).unwrap();
    let elements = vec![vec![Value::Name(name("br7"))]];
    table.sets = table
        .sets
        .into_iter()
        .map(
            |set| if set.name == "nat" { Set { filled: Filled::ByUs(elements.clone()), ..set } } else { set },
        )
        .collect();
    socket.run(&[NftRequest::Replace(table.clone())]).unwrap();
    let listed = prints("nft list table inet stead");
    assert_eq!(squeezed(&listed), squeezed(&table.to_string()), "\nnft:\n{listed}\nours:\n{table}");
    socket.run(&[NftRequest::DeleteTable(Family::Inet, TABLE)]).unwrap();
    assert_eq!(prints("nft list ruleset"), "");
}

#[test]
fn chains_of_others_are_seen_with_their_policy() {
    own_namespace();
    prints("nft add table ip filter");
    prints("nft add chain ip filter FORWARD { type filter hook forward priority filter ; policy drop ; }");
    let chains = NftSocket::open().unwrap().chains().unwrap();
    let seen: Vec<_> = chains.iter().map(|c| (c.table.family, c.name.as_str(), c.hook, c.drops)).collect();
    assert_eq!(seen, [(2, "FORWARD", Some(2), true)]);
    assert!(!chains[0].has_rules);
    prints("nft add rule ip filter FORWARD iifname eth0 counter drop");
    assert!(NftSocket::open().unwrap().chains().unwrap()[0].has_rules);
}

#[test]
fn the_older_filter_is_seen_and_not_called_to_life() {
    own_namespace();
    let directory = tempfile::tempdir().unwrap();
    // Otherwise it makes a lock in `/run`, which is for root, and leaves it there.
    let lock = directory.path().join("lock").display().to_string();
    let locked = |words: &str| prints(&format!("env XTABLES_LOCKFILE={lock} {words}"));
    let iptables = |words: &str| locked(&format!("iptables-legacy {words}"));
    let ip6tables = |words: &str| locked(&format!("ip6tables-legacy {words}"));
    let seen = || legacy::observe().unwrap();
    assert_eq!(seen(), LegacyForward::default());
    assert_eq!(seen(), LegacyForward::default(), "looking must not make the table");
    iptables("-L FORWARD");
    assert_eq!(seen(), LegacyForward { drops: false, has_rules: false });
    iptables("-A FORWARD -i eth0 -j DROP");
    assert_eq!(seen(), LegacyForward { drops: false, has_rules: true });
    iptables("-F FORWARD");
    iptables("-P FORWARD DROP");
    assert_eq!(seen(), LegacyForward { drops: true, has_rules: false });
    iptables("-P FORWARD ACCEPT");
    ip6tables("-P FORWARD DROP");
    assert_eq!(seen(), LegacyForward { drops: true, has_rules: false });
}

#[test]
fn this_kernel_lacks_nothing_of_our_rules_and_a_trial_leaves_nothing() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    let chains = NftRequest::SetChains(Family::Inet, TABLE, host_chains(&uplink("ab", 1)));
    let all = [NftRequest::Create(engine_table()), NftRequest::Create(guard_table()), chains];
    assert_eq!(socket.missing(&all).unwrap(), [] as [&str; 0]);
    assert_eq!(socket.tables().unwrap(), []);
}

#[test]
fn what_the_kernel_has_no_code_for_is_named() {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    // No kernel translates addresses of what is bridged: the refusal is the very one for a module that is missing.
    let mut table = guard_table();
    let chain = table.chains.iter_mut().find(|chain| chain.base.is_some()).unwrap();
    chain.rules.push(vec![Expr::Masquerade]);
    let error = socket.run(&[NftRequest::Create(table)]).unwrap_err();
    assert_eq!(error.downcast_ref::<Refused>().unwrap().errno, Errno::NOENT);
    assert!(format!("{error:#}").starts_with("this kernel's nftables lacks nft_masq; hint: "), "{error:#}");
    assert_eq!(socket.tables().unwrap(), []);
    // What leads nowhere is our mistake, and no part that is missing.
    let mut table = guard_table();
    table.chains[0].rules.push(vec![Expr::Goto("nowhere".into())]);
    let error = socket.run(&[NftRequest::Create(table)]).unwrap_err();
    assert!(!format!("{error:#}").contains("lacks"), "{error:#}");
}
