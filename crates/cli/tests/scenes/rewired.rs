//! Networks that come and go under a container that runs: its other nics, and what goes over them, are left alone.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdout;

use crate::support::registry::{BUSYBOX, registry};
use crate::support::{Project, Running, World};

/// A container on three networks of which all lead out, and one that answers on the last of them.
const SHOP: &str = "
networks:
  aa: { subnet: 10.1.1.0/24, subnet6: 'fd00:1::/64' }
  bb: { subnet: 10.1.2.0/24, subnet6: 'fd00:2::/64' }
  cc: { subnet: 10.1.3.0/24, subnet6: 'fd00:3::/64' }
machines:
  echo: { image: IMAGE, command: nc -ll -p 7000 -e cat, networks: { cc: { address: 10.1.3.7 } } }
  web: { image: IMAGE, command: sleep 1000, init: true, networks: [NETWORKS] }
";

fn shop(networks: &str) -> String {
    SHOP.replace("IMAGE", BUSYBOX).replace("NETWORKS", networks)
}

/// A connection that stays open, and answers with what it is told.
struct Connection {
    client: Running,
    answers: BufReader<ChildStdout>,
}

impl Connection {
    fn open(world: &World, directory: &std::path::Path, machine: &str) -> Self {
        let arguments = ["exec", "-i", machine, "nc", "10.1.3.7", "7000"];
        let mut client = world.spawn_stead(directory, &arguments);
        let answers = client.stdout();
        let mut opened = Self { client, answers };
        opened.lives("first");
        opened
    }

    #[track_caller]
    fn lives(&mut self, word: &str) {
        writeln!(self.client.stdin(), "{word}").unwrap();
        self.client.stdin().flush().unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }
}

/// What a line of shell says in `web`.
#[track_caller]
fn inside(shop: &Project<'_>, line: &str) -> String {
    let words = ["exec", "web", "sh", "-c", line];
    shop.world.stead_at(&shop.home, &shop.directory, &words).ok()
}

/// The default routes of `web`, each as its router and its nic; without those that its kernel hears of.
#[track_caller]
fn ways(shop: &Project<'_>) -> Vec<String> {
    let line = "{ ip route; ip -6 route; } | awk '$1 == \"default\" && $3 !~ /^fe80/ { print $3, $5 }'";
    inside(shop, line).lines().map(str::to_owned).collect()
}

/// The nic itself, by the number that the kernel gave it, with its MAC and its addresses, of which the kernel tries its
/// own one for a while.
#[track_caller]
fn nic(shop: &Project<'_>, name: &str) -> String {
    inside(shop, &format!("ip addr show {name} | grep -v valid_lft | sed 's/ tentative//'"))
}

#[test]
fn nics_that_stay_are_left_alone_and_the_way_out_goes_on_to_the_next() {
    let world = World::offline();
    let _registry = registry(&world);
    let project = world.project("shop", &shop("aa, bb, cc"));
    project.stead("up").ok();
    let before = (nic(&project, "eth1"), nic(&project, "eth2"));
    assert!(before.1.contains("10.1.3."), "{}", before.1);
    assert_eq!(ways(&project), ["10.1.1.1 eth0", "fd00:1::1 eth0"]);
    let names = || inside(&project, "cat /etc/resolv.conf; nslookup web.shop.stead > /dev/null");
    assert_eq!(names(), "nameserver 10.1.1.1\nsearch shop.stead\n");
    let mut open = Connection::open(&world, &project.directory, "web");

    let plan = project.change(&shop("bb, cc"));
    let steps: Vec<&str> = plan.lines().map(|line| line.split("  #").next().unwrap_or(line)).collect();
    assert!(steps.contains(&"- nic web/aa.shop"), "{plan}");
    assert!(!steps.iter().any(|step| step.contains("web/bb") || step.contains("web/cc")), "{plan}");
    open.lives("second");
    assert_eq!((nic(&project, "eth1"), nic(&project, "eth2")), before);
    assert_eq!(ways(&project), ["10.1.2.1 eth1", "fd00:2::1 eth1"]);
    assert_eq!(names(), "nameserver 10.1.2.1\nsearch shop.stead\n");

    // It comes again where it was, and nothing else changes.
    let plan = project.change(&shop("bb, cc, aa"));
    assert!(plan.contains("+ nic web/aa.shop as eth0"), "{plan}");
    open.lives("third");
    assert!(nic(&project, "eth0").contains("10.1.1."));
    assert_eq!((nic(&project, "eth1"), nic(&project, "eth2")), before);
    assert_eq!(ways(&project), ["10.1.2.1 eth1", "fd00:2::1 eth1"]);

    // In the middle.
    project.change(&shop("cc, aa"));
    open.lives("fourth");
    assert_eq!(nic(&project, "eth2"), before.1);
    assert_eq!(ways(&project), ["10.1.1.1 eth0", "fd00:1::1 eth0"]);
    assert_eq!(names(), "nameserver 10.1.1.1\nsearch shop.stead\n");
    // What is made again keeps the way out, too, also of IPv6, of which the kernel has heard of one by the other nic.
    let heard = "default via fe80:.* dev eth2";
    inside(
        &project,
        &format!("for i in $(seq 150); do ip -6 route | grep '{heard}' && exit; sleep 0.2; done; exit 1"),
    );
    let slow = |text: String| text.replace("subnet: 10.1.1.0/24,", "subnet: 10.1.1.0/24, mtu: 1400,");
    assert!(project.change(&slow(shop("cc, aa"))).contains("+ nic web/aa.shop as eth0"));
    open.lives("fifth");
    assert_eq!(ways(&project), ["10.1.1.1 eth0", "fd00:1::1 eth0"]);
    // The other order alone is nothing to make nics again for; who comes anew has the file's.
    project.write(&slow(shop("aa, cc")));
    assert_eq!(project.stead("plan").ok(), "nothing to do\n");
    project.stead("down").ok();
    project.stead("up").ok();
    assert!(nic(&project, "eth1").contains("10.1.3."));
    project.stead("down").ok();
}

#[test]
fn a_nic_goes_also_where_the_next_one_does_not_lead_out() {
    let world = World::offline();
    let _registry = registry(&world);
    let project = world.project("shop", &shop("aa, bb, cc"));
    project.stead("up").ok();
    project.stead("network enter -m web -- ip link set eth1 down").ok();
    assert!(project.change(&shop("bb, cc")).contains("- nic web/aa.shop"));
    assert_eq!(ways(&project), ["10.1.3.1 eth2", "fd00:3::1 eth2"]);
    project.stead("network enter -m web -- ip link set eth2 down").ok();
    assert!(project.change(&shop("bb")).contains("- nic web/cc.shop"));
    assert_eq!(ways(&project), [""; 0]);
    project.stead("down").ok();
}

#[test]
fn a_nic_that_comes_takes_the_way_out_from_no_router_that_is_not_ours() {
    let world = World::offline();
    let _registry = registry(&world);
    let project = world.project("shop", &shop("bb"));
    project.stead("up").ok();
    let route = |line: &str| drop(project.stead(&format!("network enter -m web -- ip {line} dev eth0")).ok());
    route("route del default via 10.1.2.1");
    route("route add default via 10.1.2.9 metric 300");
    route("-6 route del default via fd00:2::1");
    route("-6 route add default via fe80::9 metric 1000 proto ra");
    project.change(&shop("bb, aa"));
    assert_eq!(ways(&project), ["10.1.2.9 eth0"]);
    // Where there is no other it leads out.
    route("route del default via 10.1.2.9");
    route("-6 route del default via fe80::9");
    project.change(&shop("bb, aa, cc"));
    assert_eq!(ways(&project), ["10.1.3.1 eth2", "fd00:3::1 eth2"]);
    project.stead("down").ok();
}

#[test]
fn a_container_that_runs_finds_itself_by_the_addresses_that_it_has() {
    let world = World::offline();
    let _registry = registry(&world);
    let project = world.project("shop", &shop("aa, bb"));
    project.stead("up").ok();
    let own = || {
        inside(
            &project,
            "awk '$2 == \"web\" { print $1 }' /etc/hosts | sed -E 's/^(10.1.[0-9]+|fd00:[0-9]+).*/\\1/'",
        )
    };
    assert_eq!(own(), "10.1.1\nfd00:1\n10.1.2\nfd00:2\n");
    inside(
        &project,
        "{ echo '192.0.2.1 mine'; cat /etc/hosts; echo '192.0.2.2 mine'; } > /tmp/hosts; cat /tmp/hosts > /etc/hosts",
    );
    project.change(&shop("bb, cc"));
    assert_eq!(own(), "10.1.2\nfd00:2\n10.1.3\nfd00:3\n");
    let mine =
        inside(&project, "sed -n '1p; $p' /etc/hosts; grep -c mine /etc/hosts; grep -c localhost /etc/hosts");
    assert_eq!(mine, "192.0.2.1 mine\n192.0.2.2 mine\n2\n2\n");
    let addresses = inside(&project, "awk '$2 == \"web\" { print $1 }' /etc/hosts; ip addr");
    let (told, there) = addresses.split_once("1: lo").unwrap();
    assert!(told.lines().all(|address| there.contains(&format!(" {address}/"))), "{addresses}");
    // By its keeper, which was told of them.
    project.stead("restart web").ok();
    assert_eq!(own(), "10.1.2\nfd00:2\n10.1.3\nfd00:3\n");
    project.change(&shop("cc"));
    assert_eq!(own(), "10.1.3\nfd00:3\n");
    project.stead("down").ok();
}

#[test]
fn names_are_asked_for_where_the_network_is_swapped_or_made_anew() {
    let world = World::offline();
    let _registry = registry(&world);
    let project = world.project("shop", &shop("bb"));
    project.stead("up").ok();
    let names = || inside(&project, "cat /etc/resolv.conf; nslookup web.shop.stead > /dev/null");
    assert_eq!(names(), "nameserver 10.1.2.1\nsearch shop.stead\n");
    project.change(&shop("cc"));
    assert_eq!(names(), "nameserver 10.1.3.1\nsearch shop.stead\n");
    let moved = shop("cc").replace("10.1.3.", "10.1.4.");
    let plan = project.change(&moved);
    assert!(plan.contains("+ nic web/cc.shop"), "{plan}");
    // A way out that programs inside have set is theirs.
    for line in ["del default via fd00:3::1", "add default via fd00:3::9 metric 1000"] {
        project.stead(&format!("network enter -m web -- ip -6 route {line} dev eth0")).ok();
    }
    project.change(&moved.replace("[cc]", "[cc, aa]"));
    assert_eq!(ways(&project), ["10.1.4.1 eth0", "fd00:3::9 eth0"]);
    assert_eq!(names(), "nameserver 10.1.4.1\nsearch shop.stead\n");
    project.stead("restart web").ok();
    assert_eq!(names(), "nameserver 10.1.4.1\nsearch shop.stead\n");
    project.stead("down").ok();
}

#[test]
fn a_network_taken_off_by_command_leaves_the_others_to_a_container_that_starts_again() {
    let world = World::offline();
    let _registry = registry(&world);
    for place in 1..=3 {
        let subnets = format!("--subnet 10.1.{place}.0/24 --subnet6 fd00:{place}::/64");
        world.stead(&format!("network create n{place} {subnets}")).ok();
    }
    let networks = "--network n1 --network n2 --network n3";
    world.stead(&format!("run -d --init --name web {networks} {BUSYBOX} sleep 1000")).ok();
    world
        .stead(&format!("run -d --name echo --network n3 --ip 10.1.3.7 {BUSYBOX} nc -ll -p 7000 -e cat"))
        .ok();
    let loose = Project { world: &world, directory: world.path().to_owned(), home: "home".to_owned() };
    let before = (nic(&loose, "eth1"), nic(&loose, "eth2"));
    let mut open = Connection::open(&world, world.path(), "web");
    let said = world.stead("network disconnect n1 web").ok();
    assert!(said.contains("- nic web/n1.default") && !said.contains("n2") && !said.contains("n3"), "{said}");
    open.lives("second");
    assert_eq!((nic(&loose, "eth1"), nic(&loose, "eth2")), before);
    assert_eq!(ways(&loose), ["10.1.2.1 eth1", "fd00:2::1 eth1"]);
    let resolver = "cat /etc/resolv.conf";
    assert_eq!(inside(&loose, resolver), "nameserver 10.1.2.1\nsearch default.stead\n");
    drop(open);
    // By its keeper, which was told whom to ask before.
    world.stead("restart web").ok();
    assert_eq!((nic(&loose, "eth1"), nic(&loose, "eth2")), before);
    assert_eq!(inside(&loose, resolver), "nameserver 10.1.2.1\nsearch default.stead\n");
    let said = world.stead("network connect n1 web").ok();
    assert!(said.contains("+ nic web/n1.default as eth0"), "{said}");
    assert_eq!((nic(&loose, "eth1"), nic(&loose, "eth2")), before);
    assert_eq!(ways(&loose), ["10.1.2.1 eth1", "fd00:2::1 eth1"]);
    world.stead("rm --force web echo").ok();
}
