//! Our rules in the kernel, as Debian's `nft` sees them.

mod kernel_support;

use expect_test::{Expect, expect};
use kernel_support::{mac, name, own_namespace, prints};
use rustix::io::Errno;
use stead_net::kernel::Refused;
use stead_net::kernel::nft::{Family, NftRequest, NftSocket, Table};
use stead_net::kernel::rules::{
    self, HostUplink, NetworkRules, NicGuard, NicRules, engine_table, guard_table, host_chains,
};

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The table in the kernel is this one, and its text is what is expected.
#[track_caller]
fn check(table: &Table, expected: Expect) {
    own_namespace();
    let socket = NftSocket::open().unwrap();
    socket.run(&[NftRequest::Create(table.clone())]).unwrap();
    let listed = prints(&format!("nft list table {} {}", table.family, table.name));
    assert_eq!(squeezed(&listed), squeezed(&table.to_string()), "\nnft:\n{listed}\nours:\n{table}");
    expected.assert_eq(&table.to_string());
}

#[test]
fn the_engine_s_table_reads_as_nft_prints_it() {
    check(&engine_table(), expect![[r#"
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
        		udp dport 53 accept
        		udp dport 69 accept
        		tcp dport 53 accept
        		meta l4proto icmp accept
        		meta l4proto ipv6-icmp accept
        	}

        	chain forward {
        		type filter hook forward priority filter; policy drop;
        		ct state established,related accept
        		ct state invalid drop
        		iifname . oifname @joins accept
        		iifname @nat oifname "uplink" accept
        	}

        	chain masquerade {
        		type nat hook postrouting priority srcnat; policy accept;
        		oifname "uplink" masquerade
        	}
        }
    "#]]);
}

#[test]
fn the_guard_reads_as_nft_prints_it() {
    check(&guard_table(), expect![[r#"
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

        	set ip4 {
        		type ifname . ipv4_addr
        	}

        	set ip6 {
        		type ifname . ipv6_addr
        	}

        	set taken {
        		type ipv6_addr
        	}

        	set dhcp {
        		type ifname
        		size 65535
        		flags dynamic,timeout
        		timeout 1m
        	}

        	chain ports {
        		type filter hook prerouting priority filter; policy accept;
        		iifname @ports udp dport 67 add @dhcp { iifname limit rate over 50/second burst 100 packets } drop
        		iifname @ports udp dport 547 add @dhcp { iifname limit rate over 50/second burst 100 packets } drop
        		iifname @maconly iifname . ether saddr != @macs drop
        		iifname @guarded goto guard
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
        		iifname . arp saddr ip @ip4 accept
        		drop
        	}

        	chain guard_ip4 {
        		udp sport 67 drop
        		iifname . ip saddr @ip4 accept
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
        		iifname . ip6 saddr @ip6 accept
        		ip6 saddr @taken drop
        		ip6 saddr fe80::/64 accept
        		drop
        	}

        	chain guard_nd {
        		iifname . @th,64,128 @ip6 return
        		@th,64,128 @taken drop
        		@th,64,64 0xfe80000000000000 return
        		drop
        	}
        }
    "#]]);
}
