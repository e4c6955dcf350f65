//! One machine that asks as fast as it can, and another that is served all the same. (DHCPv4 is in `addresses`.)

use std::io::BufRead;
use std::time::{Duration, Instant};

use crate::support::{Project, Running, World};

const SHOP: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64' } }
defaults: { kind: container, driver: external }
machines: { web: { networks: [lan] }, db: { networks: [lan] } }
";

/// What all floods are: they send ever new packets on `eth0`, and say so once they have begun.
const FLOOD: &str = r#"
    use Socket qw(:all);
    sub flood {
        my ($socket, $to, $packet) = @_;
        setsockopt($socket, SOL_SOCKET, 25, "eth0\0") or die "bind to eth0: $!";
        $| = 1;
        for (my $n = 1; ; $n++) {
            # No buffer is a pause.
            send($socket, $packet->($n), 0, $to) or $!{ENOBUFS} or $!{EAGAIN} or $!{ECONNREFUSED} or die "send: $!";
            print "begun\n" if $n == 2000;
        }
    }
    sub six { pack_sockaddr_in6($_[1], inet_pton(AF_INET6, $_[0])) }
"#;

/// SOLICITs of ever new clients.
const DHCP6: &str = r#"
    socket(my $socket, AF_INET6, SOCK_DGRAM, 17) or die "socket: $!";
    bind($socket, six("::", 546)) or die "bind: $!";
    flood($socket, six("ff02::1:2", 547), sub {
        my $n = shift;
        my $duid = pack("nnnN", 3, 1, 0x0200, $n);
        pack("N", 0x01000000 | ($n & 0xffffff)) . pack("nn", 1, length $duid) . $duid
            . pack("nnNNN", 3, 12, $n, 0, 0) . pack("nnn", 8, 2, 0);
    });
"#;

const ROUTER_SOLICITATIONS: &str = r#"
    socket(my $socket, AF_INET6, SOCK_RAW, 58) or die "socket: $!";
    setsockopt($socket, 41, 18, pack("i", 255)) or die "hops: $!";
    flood($socket, six("ff02::2", 0), sub { pack("CCnN", 133, 0, 0, 0) });
"#;

/// Of every two questions one is for a machine, and one for a name that nobody can tell of.
const DNS: &str = r#"
    socket(my $socket, AF_INET, SOCK_DGRAM, 17) or die "socket: $!";
    flood($socket, pack_sockaddr_in(53, inet_aton("10.0.5.1")), sub {
        my $n = shift;
        my @labels = $n % 2 ? ("db", "shop", "stead") : ("x$n", "example");
        pack("nnnnnn", $n & 0xffff, 0x0100, 1, 0, 0, 0)
            . join("", map { pack("C/a*", $_) } @labels) . "\0" . pack("nn", 1, 1);
    });
"#;

/// Brings two machines up that have their addresses of both families.
fn shop(world: &World) -> Project<'_> {
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    for machine in ["web", "db"] {
        shop.udhcpc(machine, "eth0");
        shop.until_on(machine, "ip -6 address show dev eth0 scope link -tentative | grep -q fe80");
    }
    shop
}

/// Has `web` flood until what is returned is dropped.
fn flood(shop: &Project<'_>, script: &str) -> Running {
    let mut flood = shop.spawn_on("web", &["perl", "-MErrno", "-e", &format!("{FLOOD}{script}")]);
    let mut line = String::new();
    flood.stdout().read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n", "the flood did not begin");
    flood
}

/// Nobody waits so long for what takes milliseconds where nobody floods.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_flood_of_dhcpv6_from_one_port_leaves_another_served() {
    let world = World::offline();
    let shop = shop(&world);
    let mut flood = flood(&shop, DHCP6);
    let start = Instant::now();
    let here = world.path().display();
    let line = format!(
        "dhclient -6 -1 -sf {here}/dhclient.sh -lf {here}/leases6 -pf {here}/pid6 -cf {here}/dhclient.conf eth0 2>&1"
    );
    shop.on("db", &line).ok();
    let took = start.elapsed();
    shop.on("db", "ip -6 -o address show dev eth0 | grep -q 'fd00:5::2/'").ok();
    shop.on("db", &format!("kill $(cat {here}/pid6)")).ok();
    assert!(took < SOON, "served only after {took:?}");
    assert!(flood.is_alive(), "the flood ended early");
}

#[test]
fn a_flood_of_router_solicitations_from_one_port_leaves_another_served() {
    let world = World::offline();
    let shop = shop(&world);
    let mut flood = flood(&shop, ROUTER_SOLICITATIONS);
    // With its link it forgets the router, and asks for one.
    shop.on("db", "ip link set eth0 down; ip link set eth0 up").ok();
    let start = Instant::now();
    shop.until_on("db", "ip -6 route show default | grep -q 'via fe80'");
    let took = start.elapsed();
    assert!(took < SOON, "served only after {took:?}");
    assert!(flood.is_alive(), "the flood ended early");
}

#[test]
fn a_flood_of_dns_from_one_port_leaves_another_served() {
    let world = World::offline();
    let shop = shop(&world);
    let mut flood = flood(&shop, DNS);
    let start = Instant::now();
    for _ in 0..5 {
        let said = shop.on("db", "dig +short +tries=3 +time=2 web @10.0.5.1");
        assert_eq!(said.ok().trim(), "10.0.5.3");
    }
    let took = start.elapsed();
    assert!(took < SOON, "five questions took {took:?}");
    assert!(flood.is_alive(), "the flood ended early");
}
