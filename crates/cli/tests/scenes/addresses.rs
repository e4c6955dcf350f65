//! Addresses: by DHCP, by router advertisements, set by us, or given by a machine of the lab.

use std::io::BufRead;
use std::time::Duration;

use expect_test::expect;

use crate::support::{Place, Project, World, executable};

const SHOP: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', mtu: 1400 } }
machines:
  web: { kind: container, driver: external, networks: { lan: { aliases: [www] } } }
  db: { kind: container, driver: external, networks: [lan] }
";

/// Runs dhclient until it has a lease, for what its script was told.
#[track_caller]
fn dhclient(project: &Project<'_>, machine: &str, family: &str) -> String {
    let directory = project.world.path();
    let at = |name: &str| directory.join(format!("{name}{family}-{machine}")).display().to_string();
    let line = format!(
        "timeout 30 dhclient {family} -1 -d -e TOLD={told} -sf {script} -lf {leases} -pf {pid} \
         -cf {conf} eth0 >{log} 2>&1 & dhclient=$!
         until grep -q -E 'reason=.?(BOUND|RENEW)' {told} 2>/dev/null; do
             kill -0 $dhclient || {{ cat {log} >&2; exit 1; }}
             sleep 0.05
         done
         kill $dhclient; wait $dhclient || true; cat {told}",
        told = at("told"),
        script = directory.join("dhclient.sh").display(),
        conf = directory.join("dhclient.conf").display(),
        leases = at("leases"),
        pid = at("pid"),
        log = at("log"),
    );
    project.on(machine, &line).ok()
}

#[test]
fn machines_get_the_addresses_that_the_plan_showed() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    expect![[r#"
        + project shop at HERE  # name
        + engine  # the first network or machine needs it
        + switchboard  # a network is served
        + network lan.shop 10.0.5.0/24 fd00:5::/64 nat  # networks.lan (stead.yaml:2)
        + lease db/lan.shop 10.0.5.2 fd00:5::2 02:00:98:d7:6d:f3  # machines.db.networks.lan (stead.yaml:5)
        + lease web/lan.shop 10.0.5.3 fd00:5::3 02:86:cd:53:c7:1c  # machines.web.networks.lan (stead.yaml:4)
        + container db.shop (external)  # machines.db (stead.yaml:5)
        + nic db/lan.shop as eth0 by stv-db-vtat5  # machines.db.networks.lan (stead.yaml:5)
        + container web.shop (external)  # machines.web (stead.yaml:4)
        + nic web/lan.shop as eth0 by stv-web-n7ltx  # machines.web.networks.lan (stead.yaml:4)
    "#]]
    .assert_eq(&shop.change(SHOP));
    // busybox.
    expect![[r#"
        udhcpc: started, v1.35.0
        udhcpc: broadcasting discover
        udhcpc: broadcasting select for 10.0.5.3, server 10.0.5.1
        udhcpc: lease of 10.0.5.3 obtained from 10.0.5.1, lease time 3600
        ip=10.0.5.3
        mask=24
        router=10.0.5.1
        dns=10.0.5.1
        domain=shop.stead
        search=shop.stead
        mtu=1400
        lease=3600
        serverid=10.0.5.1
        hostname=web
    "#]]
    .assert_eq(&shop.udhcpc("web", "eth0"));
    // ISC.
    let told = dhclient(&shop, "db", "-4");
    assert!(told.contains("new_ip_address='10.0.5.2'"), "{told}");
    assert!(told.contains("new_interface_mtu='1400'"), "{told}");
    shop.until_on("db", "ip -6 address show dev eth0 scope link -tentative | grep -q fe80");
    let told = dhclient(&shop, "db", "-6");
    assert!(told.contains("new_ip6_address='fd00:5::2'"), "{told}");
    assert!(told.contains("new_dhcp6_name_servers='fd00:5::1'"), "{told}");
    // The router says where it is, and a machine learns the rest from it.
    shop.until_on("db", "ip -6 route show default | grep -q 'via fe80'");
    shop.until_on(
        "db",
        "ip -6 route show default | grep -q 'mtu 1400' || ip -6 route | grep -q 'mtu 1400' || \
        [ $(cat /proc/sys/net/ipv6/conf/eth0/mtu) = 1400 ]",
    );
    shop.on("db", "ping -c 1 -W 5 10.0.5.3 && ping -c 1 -W 5 10.0.5.1").ok();
    shop.on("db", "ping -c 1 -W 5 -M do -s 1372 10.0.5.3").ok();
    assert_ne!(shop.on("db", "ping -c 1 -W 1 -M do -s 1373 10.0.5.3").code, 0, "more than the mtu passed");
    shop.until_on("web", "ip -6 address show dev eth0 scope link -tentative | grep -q fe80");
    dhclient(&shop, "web", "-6");
    shop.on("db", "ip -6 route replace fd00:5::/64 dev eth0; ping -6 -c 1 -W 5 fd00:5::3").ok();
}

#[test]
fn with_static_addressing_containers_have_their_addresses_and_nothing_answers_dhcp() {
    let world = World::offline();
    let text = "
        networks: { lan: { subnet: 10.0.6.0/24, subnet6: 'fd00:6::/64', addressing: static } }
        defaults: { kind: container, driver: external }
        machines: { a: { networks: [lan] }, b: { networks: { lan: { address: 10.0.6.77 } } } }";
    let lab = world.project("lab", text);
    lab.stead("up").ok();
    assert_eq!(lab.address("b", 0).0, "10.0.6.77");
    lab.on("a", "ping -c 1 -W 5 10.0.6.77").ok();
    lab.until_on("a", &format!("ping -6 -c 1 -W 1 {}", lab.address("b", 0).1));
    assert!(lab.on("a", "ip route show default").ok().starts_with("default via 10.0.6.1 dev eth0"));
    assert_eq!(lab.on("a", "dig +short b @10.0.6.1 +search +domain=lab.stead").ok().trim(), "10.0.6.77");
    assert_eq!(lab.on("a", "dig +short b.lab @10.0.6.1").ok().trim(), "10.0.6.77");
    let asked = lab.on("a", "busybox udhcpc -i eth0 -f -q -n -t 2 -T 1 -s /bin/true");
    assert_eq!(asked.code, 1, "something answered: {asked:?}");
}

#[test]
fn on_a_wire_without_addressing_a_machine_is_the_dhcp_server() {
    let world = World::offline();
    let text = "
        networks: { wire: { addressing: none } }
        defaults: { kind: container, driver: external }
        machines: { server: { networks: [wire] }, client: { networks: [wire] } }";
    let lab = world.project("lab", text);
    lab.stead("up").ok();
    let asked = lab.on("client", "busybox udhcpc -i eth0 -f -q -n -t 2 -T 1 -s /bin/true");
    assert_eq!(asked.code, 1, "something of ours answered: {asked:?}");
    lab.on("server", "ip address add 10.77.0.1/24 dev eth0").ok();
    let dnsmasq = "dnsmasq --no-daemon --port=0 --conf-file=/dev/null --interface=eth0 --leasefile-ro \
        --dhcp-range=10.77.0.50,10.77.0.60 --dhcp-authoritative --no-ping";
    let _server = lab.spawn_on("server", &dnsmasq.split_whitespace().collect::<Vec<_>>());
    let lease = lab.udhcpc("client", "eth0");
    assert!(lease.contains("serverid=10.77.0.1"), "{lease}");
    lab.on("client", "ping -c 1 -W 5 10.77.0.1").ok();
}

#[test]
fn a_stranger_gets_an_address_of_the_pool_and_is_listed() {
    let world = World::offline();
    let text = "
        networks: { lan: { subnet: 10.0.7.0/24, dhcp: { pool: 10.0.7.200-10.0.7.201 } } }
        defaults: { kind: container, driver: external }
        machines: { outer: { networks: { lan: { guard: off } } } }";
    let lab = world.project("lab", text);
    lab.stead("up").ok();
    // A machine within the machine.
    lab.on("outer", "ip link set eth0 address 02:00:00:00:aa:01").ok();
    let lease = lab.udhcpc("outer", "eth0");
    assert!(lease.contains("ip=10.0.7.20"), "{lease}");
    let inspection = lab.stead("network inspect lan --format json").json();
    assert_eq!(inspection["strangers"][0]["mac"], "02:00:00:00:aa:01", "{inspection:#}");
    // Two addresses: a third stranger gets none, and the machine that has a lease still gets its own.
    lab.on("outer", "ip address flush dev eth0; ip link set eth0 address 02:00:00:00:aa:02").ok();
    lab.udhcpc("outer", "eth0");
    lab.on("outer", "ip address flush dev eth0; ip link set eth0 address 02:00:00:00:aa:03").ok();
    let asked = lab.on("outer", "busybox udhcpc -i eth0 -f -q -n -t 2 -T 1 -s /bin/true");
    assert_eq!(asked.code, 1, "a third stranger got an address: {asked:?}");
    let own = lab.stead("ps outer --format json").json()[0]["nics"][0]["mac"].as_str().unwrap().to_owned();
    lab.on("outer", &format!("ip address flush dev eth0; ip link set eth0 address {own}")).ok();
    let lease = lab.udhcpc("outer", "eth0");
    assert!(lease.contains("ip=10.0.7.2\n"), "{lease}");
}

/// Sends DISCOVERs of ever new clients as fast as it can, and says so once it has begun.
const FLOOD: &str = r#"
    use IO::Socket::INET;
    my $socket = IO::Socket::INET->new(Proto => "udp", LocalPort => 68, Broadcast => 1) or die $!;
    setsockopt($socket, 1, 25, "eth0\0") or die $!;
    my $to = sockaddr_in(67, inet_aton("255.255.255.255"));
    $| = 1;
    for (my $n = 1; ; $n++) {
        my $client = pack("nN", 0x0200, $n);
        my $head = pack("CCCCNnnN4", 1, 1, 6, 0, $n, 0, 0x8000, 0, 0, 0, 0);
        my $packet = $head . $client . "\0" x 202 . pack("NCCCC", 0x63825363, 53, 1, 1, 255);
        $socket->send($packet, 0, $to);
        print "begun\n" if $n == 1000;
    }"#;

#[test]
fn a_flood_of_dhcp_from_one_port_leaves_another_served() {
    use std::io::BufRead;
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    shop.on("web", "ip route add 255.255.255.255/32 dev eth0").ok();
    let mut flood = shop.spawn_on("web", &["perl", "-e", FLOOD]);
    let mut line = String::new();
    flood.stdout().read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n", "the flood did not begin");
    let start = std::time::Instant::now();
    let lease = shop.udhcpc("db", "eth0");
    let took = start.elapsed();
    assert!(lease.contains("ip=10.0.5.2\n"), "{lease}");
    assert!(took.as_secs() < 10, "served only after {took:?}");
    assert!(flood.is_alive(), "the flood ended early");
}

const SHORT: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', reach: isolated, dhcp: { lease: 1m } } }
defaults: { kind: container, driver: external }
machines: { box: { networks: [lan] }, four: { networks: [lan] }, six: { networks: [lan] } }
";

/// More than half of the lease, when clients renew it.
const RENEW_LIMIT: Duration = Duration::from_secs(50);

#[test]
fn leases_are_renewed_and_renewal_brings_what_has_changed() {
    let world = World::offline();
    let lab = world.project("lab", SHORT);
    lab.stead("up").ok();
    // Says what happened, then does what the other script does.
    let script = world.path().join("told.sh");
    let text =
        format!("#!/bin/sh\necho \"$1 $ip $lease\"\nexec {}/udhcpc.sh \"$@\"\n", world.path().display());
    executable(&script, text.as_bytes());
    let script = script.display().to_string();
    let mut client = lab.spawn_on("box", &["busybox", "udhcpc", "-f", "-i", "eth0", "-s", &script]);
    let mut heard = client.stdout();
    let mut hear = |word: &str| loop {
        let mut line = String::new();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0, "udhcpc went");
        if line.starts_with(word) {
            return line;
        }
    };
    assert_eq!(hear("bound"), "bound 10.0.5.2 60\n");
    // ISC's, for both families, renew by themselves when half of the time is over.
    let started = std::time::Instant::now();
    lab.until_on("six", "ip -6 address show dev eth0 scope link -tentative | grep -q fe80");
    let isc = |machine: &str, family: &str| {
        let at = |name: &str| world.path().join(format!("{name}-{machine}")).display().to_string();
        let line = format!(
            "exec dhclient {family} -1 -d -e TOLD={told} -sf {here}/dhclient.sh -lf {leases} -pf {pid} \
             -cf {here}/dhclient.conf eth0 2>/dev/null",
            told = at("told"),
            leases = at("leases"),
            pid = at("pid"),
            here = world.path().display(),
        );
        lab.spawn_on(machine, &["sh", "-c", &line])
    };
    let _clients = [isc("four", "-4"), isc("six", "-6")];
    let told = |machine: &str| {
        std::fs::read_to_string(world.path().join(format!("told-{machine}"))).unwrap_or_default()
    };
    world.until("both are bound", || {
        (told("four").contains("BOUND") && told("six").contains("BOUND6")).then_some(())
    });
    // Asked to renew, busybox's asks the server itself, and gets what holds now. (It may miss the first answer, which
    // can come before it listens; then it asks by broadcast.)
    lab.change(&SHORT.replace("1m", "2m"));
    lab.on("box", "ip -o -4 address show dev eth0 | grep -q 10.0.5.2").ok();
    world.sh(Place::Computer, "kill -USR1 $(for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^busybox udhcpc' && basename $p; done)");
    assert_eq!(hear("renew"), "renew 10.0.5.2 120\n");
    while !(told("four").contains("'RENEW'") && told("six").contains("'RENEW6'")) {
        assert!(started.elapsed() < RENEW_LIMIT, "{}\n{}", told("four"), told("six"));
        std::thread::sleep(Duration::from_millis(100));
    }
    // The variables of an event stand before its reason.
    let of_event = |told: String, reason: &str| {
        let (before, _) = told.split_once(&format!("reason='{reason}'")).unwrap_or_else(|| panic!("{told}"));
        before.rsplit("reason=").next().unwrap().to_owned()
    };
    let renewed = of_event(told("four"), "RENEW");
    assert!(renewed.contains("new_dhcp_lease_time='120'"), "{renewed}");
    assert!(renewed.contains("new_ip_address='10.0.5.3'"), "{renewed}");
    let renewed = of_event(told("six"), "RENEW6");
    assert!(renewed.contains("new_max_life='120'"), "{renewed}");
    assert!(renewed.contains("new_ip6_address='fd00:5::4'"), "{renewed}");
}
