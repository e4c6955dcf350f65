//! What a nic may say: its own addresses and no others; and the other kind of nic, a TAP.

use std::io::Read;

use crate::support::{Role, World, role};

const LAB: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static } }
defaults: { kind: container, driver: external }
machines:
  good: { networks: { lan: { address: 10.0.5.10 } } }
  bad: { networks: { lan: { address: 10.0.5.66, address6: 'fd00:5::66' } } }
  router: { networks: { lan: { address: 10.0.5.20, guard: off } } }
";

#[test]
fn a_machine_can_use_only_its_own_addresses() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let mut judge = lab.listen("good");
    // The judge listens once it hears an honest packet.
    lab.until_on("bad", "ping -c 3 -i 0.2 -W 1 10.0.5.10");
    judge.hear_until("10.0.5.66 > 10.0.5.10");
    // Another IPv4 address, another IPv6 address, ARP in another's name, another MAC. Then an honest packet.
    lab.on(
        "bad",
        "ip address add 10.0.5.99/24 dev eth0; ping -c 2 -i 0.2 -W 1 -I 10.0.5.99 10.0.5.10 || true",
    )
    .ok();
    let line = "ip address add fd00:5::99/64 dev eth0 nodad; ping -c 2 -i 0.2 -W 1 -I fd00:5::99 ff02::1%eth0 || true";
    lab.on("bad", line).ok();
    lab.on("bad", "busybox arping -U -c 2 -I eth0 -s 10.0.5.1 10.0.5.1 || true").ok();
    lab.on("bad", "busybox arping -c 2 -w 2 -I eth0 -s 10.0.5.99 10.0.5.10 || true").ok();
    let mac = lab.on("bad", "ip -br link show eth0 | awk '{print $3}'").ok();
    lab.on("bad", "ip link set eth0 address 02:66:66:66:66:66; ping -c 2 -i 0.2 -W 1 10.0.5.10 || true").ok();
    lab.on("bad", &format!("ip link set eth0 address {}", mac.trim())).ok();
    lab.until_on("bad", "ping -c 1 -W 1 -p 600d -s 1000 -I 10.0.5.66 10.0.5.10");
    let heard = judge.hear_until("length 1042");
    for lie in ["10.0.5.99", "fd00:5::99", "tell 10.0.5.1,", "10.0.5.1 is-at", "02:66:66:66:66:66"] {
        assert!(!heard.contains(lie), "`{lie}` got through:\n{heard}");
    }
    // With the guard off everything passes.
    lab.on("router", "ip address add 10.0.5.98/24 dev eth0; ping -c 1 -W 5 -I 10.0.5.98 10.0.5.10").ok();
}

const TAP: &str = "
networks: { lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static } }
machines:
  box: { kind: vm, driver: external, networks: { lan: { address: 10.0.5.30, mac: '02:00:00:00:00:30' } } }
  good: { kind: container, driver: external, networks: { lan: { address: 10.0.5.10 } } }
";

/// Opens the TAP that it is told, asks by ARP who has 10.0.5.10, and prints the answer's MAC.
const ASK_BY_TAP: &str = r#"
    open(my $tun, "+<", "/dev/net/tun") or die "open: $!";
    my $request = pack("a16 s x22", $ARGV[0], 0x1002);
    ioctl($tun, 0x400454ca, $request) or die "attach: $!";
    my $own = pack("H*", "020000000030");
    my $ask = "\xff" x 6 . $own . pack("nnnCCn", 0x0806, 1, 0x0800, 6, 4, 1)
        . $own . pack("C4", 10, 0, 5, 30) . "\0" x 6 . pack("C4", 10, 0, 5, 10);
    $SIG{ALRM} = sub { syswrite($tun, $ask); alarm 1 };
    my $old = select(STDOUT); $| = 1;
    syswrite($tun, $ask) or die "write: $!";
    alarm 1;
    while (1) {
        my $got = sysread($tun, my $frame, 2000);
        next unless defined $got;
        next unless $got >= 42 && substr($frame, 12, 2) eq "\x08\x06" && substr($frame, 20, 2) eq "\0\x02";
        print join(":", unpack("(H2)6", substr($frame, 22, 6))), "\n";
        last;
    }"#;

#[test]
fn a_tap_belongs_to_its_user_and_carries_frames() {
    let world = World::offline();
    let lab = world.project("lab", TAP);
    lab.stead("up").ok();
    let rows = lab.stead("ps --format json").json();
    let rows = rows.as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap()["nics"][0].clone();
    let (link, mac) = (of("box")["link"].clone(), of("good")["mac"].clone());
    let link = link.as_str().unwrap();
    // Beside all machines, where the program that runs the machine will be.
    let line = format!("ip -d link show {link}");
    let enter = ["network", "enter", "--", "sh", "-c", &line];
    let shown = world.stead_at("home", &lab.directory, &enter).ok();
    assert!(shown.contains("type tap"), "{shown}");
    assert!(shown.contains("persist on"), "{shown}");
    if role() == Role::User {
        assert!(shown.contains("user"), "{shown}");
    }
    let enter = ["network", "enter", "--", "perl", "-e", ASK_BY_TAP, link];
    let mut asked = world.spawn_stead(&lab.directory, &enter);
    let mut answer = String::new();
    asked.stdout().take(17).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, mac.as_str().unwrap());
    let inside = ["network", "enter", "-m", "box", "--", "true"];
    world.stead_at("home", &lab.directory, &inside).code(125).says("is a vm");
}

/// The machine's own MAC, and what came back to it of what it said to all.
fn echoes(lab: &crate::support::Project<'_>, machine: &str, address: &str) -> usize {
    let mac = lab.on(machine, "ip -br link show eth0 | awk '{print $3}'").ok();
    let mut judge = lab.listen(machine);
    // It listens once it hears a packet of another.
    let ping = lab.spawn_on("bad", &["ping", "-i", "0.2", address]);
    judge.hear_until("10.0.5.66 > ");
    ping.end();
    lab.on(machine, &format!("busybox arping -U -c 2 -I eth0 -s {address} {address} || true")).ok();
    lab.on(machine, "ping -c 1 -W 1 ff02::1%eth0 || true").ok();
    lab.on("bad", &format!("ping -c 1 -W 5 -s 1000 {address}")).ok();
    let heard = judge.hear_until("length 1042");
    let sent_by = format!(" {} > ", mac.trim());
    heard.lines().filter(|line| line.contains(&sent_by)).count()
}

#[test]
fn a_machine_does_not_hear_what_it_says_to_all() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    assert_eq!(
        echoes(&lab, "good", "10.0.5.10"),
        0,
        "its own question whether its address is free came back"
    );
    // Behind a port that anything may be behind, others may be meant.
    assert_ne!(echoes(&lab, "router", "10.0.5.20"), 0);
    // The others heard it.
    let mut judge = lab.listen("bad");
    let ping = lab.spawn_on("good", &["ping", "-i", "0.2", "10.0.5.66"]);
    judge.hear_until("10.0.5.10 > 10.0.5.66");
    ping.end();
    lab.on("good", "busybox arping -U -c 2 -I eth0 -s 10.0.5.10 10.0.5.10 || true").ok();
    judge.hear_until("Request who-has 10.0.5.10");
}

/// Behind this machine's port are two others, of which one says that it is there, and then the other speaks with it.
const SPEAK_BEHIND: &str = r#"
    my ($index) = `ip -o link show eth0` =~ /^(\d+):/;
    socket(my $wire, 17, 3, 0) or die "socket: $!";
    my $to = pack("SnlSCCa8", 17, 0x88b5, $index, 0, 0, 6, "");
    my ($one, $two) = map { pack("C6", 2, 0, 0, 0, 0xbb, $_) } 1, 2;
    for my $frame ("\xff" x 6 . $two, $two . $one) {
        send($wire, $frame . pack("n", 0x88b5) . "\0" x 46, 0, $to) or die "send: $!";
    }"#;

#[test]
fn machines_behind_a_port_without_a_guard_reach_each_other_by_our_bridge() {
    let world = World::offline();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let mut judge = lab.listen("router");
    // It listens once it hears a packet of another.
    let ping = lab.spawn_on("bad", &["ping", "-i", "0.2", "10.0.5.20"]);
    judge.hear_until("10.0.5.66 > ");
    ping.end();
    assert_eq!(lab.on_command("router", &["perl", "-e", SPEAK_BEHIND]).status().unwrap().code(), Some(0));
    lab.on("bad", "ping -c 1 -W 5 -s 1000 10.0.5.20").ok();
    // What it sends itself the judge does not hear.
    let heard = judge.hear_until("length 1042");
    assert!(heard.contains("02:00:00:00:bb:01 > 02:00:00:00:bb:02"), "{heard}");
}
