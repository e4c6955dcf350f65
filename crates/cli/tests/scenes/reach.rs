//! What lies beyond a network: the world by NAT, nothing, or the real network behind a link.

use crate::support::{self, Place, Project, Role, World, role, untested};

const LAB: &str = "
networks:
  lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', addressing: static }
  cell: { subnet: 10.0.6.0/24, subnet6: 'fd00:6::/64', addressing: static, reach: isolated }
defaults: { kind: container, driver: external }
machines: { web: { networks: [lan] }, prisoner: { networks: [cell] } }
";

#[track_caller]
fn reaches_out4(lab: &Project<'_>) {
    assert_eq!(lab.on("web", "curl -s -m 10 http://203.0.113.1/").ok(), "hello from here\n");
}

#[track_caller]
fn reaches_out(lab: &Project<'_>) {
    let hello = "hello from here\n";
    reaches_out4(lab);
    lab.until_on("web", "ip -6 address show dev eth0 scope global -tentative | grep -q fd00");
    assert_eq!(lab.until_on("web", "curl -s -m 10 http://[2001:db8:9::1]/"), hello);
}

#[track_caller]
fn uplink(lab: &Project<'_>) -> String {
    let inspection = lab.stead("network inspect lan --format json").json();
    inspection["uplink"].as_str().unwrap_or("none").split(' ').next().unwrap().to_owned()
}

/// A firewall as Docker leaves it.
const DOCKER: &str = "nft 'add table ip filter
    add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
    add chain ip filter DOCKER-USER
    add rule ip filter FORWARD jump DOCKER-USER
    add table ip6 filter
    add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }'";

const FORWARD: &str = "
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";

#[test]
fn with_forwarding_on_root_reaches_out_by_the_kernel_and_others_by_pasta() {
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    reaches_out(&lab);
    assert_eq!(uplink(&lab), if role() == Role::Root { "veth" } else { "pasta" });
    // Outside sees the computer, not the lab.
    let who = lab.on("web", "curl -s -m 10 http://203.0.113.1/cgi-bin/who").ok();
    assert_eq!(support::who(&who), "192.0.2.2");
    let who = lab.until_on("web", "curl -s -m 5 http://[2001:db8:9::1]/cgi-bin/who");
    assert_eq!(support::who(&who), "2001:db8::2");
    lab.on("web", "ping -c 1 -W 5 203.0.113.1").ok();
    // The isolated network has no way out, by whatever route its machine sets.
    let way = "ip route replace default via 10.0.6.1; ip -6 route replace default via fd00:6::1";
    lab.on("prisoner", way).ok();
    for url in ["203.0.113.1", "[2001:db8:9::1]", "192.0.2.2"] {
        let said = lab.on("prisoner", &format!("curl -s -m 2 http://{url}/"));
        assert!([7, 28].contains(&said.code), "the prisoner reached {url}: {said:?}");
    }
    // Nor does anybody outside have a way in.
    let way = "ip route add 10.0.5.0/24 via 192.0.2.2; ip route add 10.0.6.0/24 via 192.0.2.2";
    world.sh(Place::Outside, way);
    assert_ne!(world.sh_said(Place::Outside, "ping -c 2 -i 0.2 -W 1 10.0.6.2").code, 0);
    assert_ne!(world.sh_said(Place::Outside, "ping -c 2 -i 0.2 -W 1 10.0.5.2").code, 0);
}

#[test]
fn a_way_out_that_somebody_broke_is_made_again() {
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let broken = || {
        let plan = lab.stead("plan").ok();
        assert!(plan.starts_with("- uplink ") && plan.lines().count() == 2, "{plan}");
        lab.stead("up").ok();
        assert_eq!(lab.stead("plan").ok(), "nothing to do\n");
        reaches_out(&lab);
    };
    lab.stead("network enter -- ip link set uplink down").ok();
    broken();
    lab.stead("network enter -- ip address flush dev uplink").ok();
    broken();
    if uplink(&lab) != "veth" {
        // Offline there is nothing to make it by, and all else goes on.
        lab.stead("network enter -- ip address flush dev uplink").ok();
        world.sh(Place::Computer, "ip route del default; ip -6 route del default");
        lab.stead("up").ok();
        assert_eq!(lab.stead("plan").ok(), "nothing to do\n");
        let back = "ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1 dev eth0";
        world.sh(Place::Computer, back);
        broken();
        return;
    }
    let link = "link=$(ip -br link | grep -o '^stu-[^@ ]*')";
    for line in [
        "ip -4 address flush dev $link",
        "for to in 1 0; do echo $to > /proc/sys/net/ipv6/conf/$link/disable_ipv6; done",
        "echo 0 > /proc/sys/net/ipv4/conf/$link/forwarding",
        "nft flush chain inet stead $(nft list chains inet | grep -o 'nat-[0-9a-z]*')",
    ] {
        world.sh(Place::Computer, &format!("{link}; {line}"));
        broken();
    }
}

#[test]
fn without_forwarding_everybody_reaches_out_by_pasta() {
    let world = World::online();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    reaches_out(&lab);
    assert_eq!(uplink(&lab), "pasta");
    let switches = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
    assert_eq!(world.sh(Place::Computer, switches), "0\n0\n", "the computer's own switches were touched");
}

/// Machines reach what is beyond the computer, and of the computer itself nothing: neither by its address on the
/// real network nor by its end of the uplink.
#[track_caller]
fn stays_outside_the_computer(world: &World, lab: &Project<'_>) {
    let www = world.path().join("www").display().to_string();
    let _service = world.spawn(Place::Computer, &["busybox", "httpd", "-f", "-p", "[::]:8000", "-h", &www]);
    for address in ["127.0.0.1", "192.0.2.2", "[2001:db8::2]"] {
        world.until("the computer serves", || {
            let line = format!("curl -s -m 2 http://{address}:8000/");
            (world.sh_said(Place::Computer, &line).code == 0).then_some(())
        });
    }
    let ours =
        "ip -o address show | awk '$2 ~ /^stu-/ && $4 !~ /^fe80/ { sub(\"/.*\", \"\", $4); print $4 }'";
    let ends = world.sh(Place::Computer, ours);
    assert_eq!(ends.lines().count(), if uplink(lab) == "veth" { 2 } else { 0 }, "{ends}");
    for address in ["192.0.2.2", "2001:db8::2"].into_iter().chain(ends.lines()) {
        let url = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let said = lab.on("web", &format!("curl -s -m 2 http://{url}:8000/"));
        assert!([7, 28].contains(&said.code), "the machine reached {url}: {said:?}");
    }
    reaches_out(lab);
}

#[test]
fn machines_do_not_reach_the_computers_own_services() {
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    assert_eq!(uplink(&lab), if role() == Role::Root { "veth" } else { "pasta" });
    stays_outside_the_computer(&world, &lab);
    if role() == Role::Root {
        // It is our chain that keeps them out: without its rules they would get in.
        world.sh(
            Place::Computer,
            "nft flush chain inet stead in-$(nft list chains | grep -o 'in-[0-9a-f]*' | cut -c 4-)",
        );
        let service = ["busybox", "httpd", "-f", "-p", "[::]:8001", "-h", "/"];
        let _service = world.spawn(Place::Computer, &service);
        assert_eq!(
            lab.until_on("web", "curl -s -m 2 -o /dev/null -w '%{response_code}' http://192.0.2.2:8001/"),
            "404"
        );
    }
}

#[test]
fn machines_do_not_reach_the_computers_own_services_by_pasta() {
    let world = World::online();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    assert_eq!(uplink(&lab), "pasta");
    stays_outside_the_computer(&world, &lab);
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_does_no_harm() {
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.sh(Place::Computer, DOCKER);
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    reaches_out(&lab);
}

#[test]
fn a_firewall_that_begins_to_drop_what_is_forwarded_is_seen_and_got_round() {
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    reaches_out(&lab);
    world.sh(Place::Computer, DOCKER);
    if role() == Role::Root {
        let mend = "to mend the way out in use:\n  stead up";
        let said = lab.stead("doctor").code(1).out;
        assert!(said.contains("cut off: ") && said.contains(mend), "{said}");
        lab.stead("up").ok();
    }
    reaches_out(&lab);
    assert!(!lab.stead("doctor").out.contains("the way out in use"));
    world.sh(Place::Computer, "nft 'delete table ip filter; delete table ip6 filter'");
}

#[test]
fn a_computer_that_is_offline_has_its_networks_and_learns_of_the_way_out() {
    let world = World::online();
    world.sh(Place::Computer, "ip link set eth0 down");
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    lab.on("web", "ping -c 1 -W 5 10.0.5.1").ok();
    world.sh(Place::Computer, "ip link set eth0 up; ip -6 address replace 2001:db8::2/64 dev eth0 nodad");
    world.sh(
        Place::Computer,
        "ip route replace default via 192.0.2.1; ip -6 route replace default via 2001:db8::1",
    );
    lab.stead("up").ok();
    reaches_out(&lab);
}

/// A second router, by which as well as by the first the computer reaches out.
const TWO_ROUTERS: &str =
    "ip address add 192.0.2.3/24 dev eth0; ip address add 2001:db8::3/64 dev eth0 nodad";
const TWO_WAYS: &str = "
    ip route replace default nexthop via 192.0.2.1 dev eth0 nexthop via 192.0.2.3 dev eth0
    ip -6 route del default
    ip -6 route add default nexthop via 2001:db8::1 dev eth0 nexthop via 2001:db8::3 dev eth0";

/// The way out in a table of its own, to which a rule leads after the main table.
const BY_POLICY: &str = "
    for family in -4 -6; do
        ip $family rule add lookup 100 priority 40000
        ip $family route add $(ip $family route show default | sed 's/ metric.*//') table 100
        ip $family route del default
    done";

/// Machines reach out by both kinds of uplink of a computer whose way out is set like this.
fn reaches_out_with(way: &str) {
    for (forward, of_root) in [("", "pasta"), (FORWARD, "veth")] {
        let mut world = World::online();
        world.sh(Place::Outside, TWO_ROUTERS);
        world.sh(Place::Computer, way);
        world.sh(Place::Computer, forward);
        world.settle();
        let lab = world.project("lab", LAB);
        lab.stead("up").ok();
        assert_eq!(uplink(&lab), if role() == Role::Root { of_root } else { "pasta" });
        reaches_out(&lab);
    }
}

#[test]
fn machines_reach_out_where_the_default_route_leads_several_ways() {
    reaches_out_with(TWO_WAYS);
}

#[test]
fn machines_reach_out_where_only_a_rule_leads_to_the_default_route() {
    reaches_out_with(BY_POLICY);
}

/// A network whose subnet stead chooses.
const CHOSEN: &str = "networks: { lan: { reach: isolated } }\nmachines: {}\n";

#[test]
fn subnets_keep_clear_of_routes_of_every_kind_and_table() {
    let mut world = World::online();
    // A tunnel that takes everything, as wg-quick and OpenVPN make it, takes no subnet from anybody.
    world.sh(
        Place::Computer,
        "for net in 0.0.0.0/0 0.0.0.0/1 128.0.0.0/1 ::/0 ::/1 8000::/1; do ip route add $net dev eth0 table 51820; done",
    );
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("plan").ok();
    let chosen = world.project("chosen", CHOSEN);
    assert!(chosen.stead("plan").ok().contains(" 10."), "the first pool is 10.64.0.0/10");
    for route in [
        "10.0.0.0/9 dev eth0 table 52",
        "10.0.0.0/9 via 192.0.2.1 table 4711",
        "10.0.0.0/9 nexthop via 192.0.2.1 dev eth0 nexthop via 192.0.2.3 dev eth0",
        "blackhole 10.0.0.0/9",
        "prohibit 10.0.0.0/9",
        "unreachable 10.0.0.0/9 table 52",
    ] {
        world.sh(Place::Computer, &format!("ip route add {route}"));
        let (said, plan) = (lab.stead("plan"), chosen.stead("plan").ok());
        said.code(2).says("10.0.5.0/24 overlaps a route of this computer (10.0.0.0/9");
        assert!(!plan.contains(" 10."), "with `{route}` there\n{plan}");
        world.sh(Place::Computer, &format!("ip route del {route}"));
    }
    lab.stead("plan").ok();
}

/// Where in their pool a home looks for a transfer subnet first: as the program has it, or the test below says so.
fn first_transfer(home: &std::path::Path) -> u32 {
    let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let state = home.join("state");
    let id = stead_model::address::digest(&["home", machine_id.trim(), &state.to_string_lossy()]);
    let id: String = id.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    let [a, b, c, d, ..] = stead_model::address::digest(&["uplink", &id]);
    u32::from_be_bytes([a, b, c, d]) % (1 << 14)
}

#[test]
fn homes_that_would_choose_the_same_transfer_subnet_get_one_each() {
    if role() == Role::User {
        return untested("an ordinary user's uplink is pasta, which has no transfer subnet");
    }
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.settle();
    let mut seen = std::collections::BTreeMap::new();
    let alike = (0..4000).find_map(|number| {
        let home = format!("home{number}");
        let other = seen.insert(first_transfer(&world.path().join(&home)), home.clone());
        other.map(|other| [other, home])
    });
    let homes = alike.expect("no two homes look for the same subnet first");
    let text = "networks: { lan: {} }\ndefaults: { kind: container, driver: external }\nmachines: { web: { networks: [lan] } }";
    let labs = homes.each_ref().map(|home| world.project_at(home, "lab", text));
    let transfer = |text: &str| {
        let line = text.lines().find(|line| line.contains(" uplink ")).unwrap_or_else(|| panic!("{text}"));
        line.split(' ').find(|word| word.starts_with("10.63.")).unwrap().to_owned()
    };
    let planned = labs.each_ref().map(|lab| transfer(&lab.stead("plan").ok()));
    assert_eq!(planned[0], planned[1], "the test looks for them in another way than the program");
    for _ in 0..5 {
        let both = labs.each_ref().map(|lab| {
            let mut command = world.stead_command(&lab.home, &lab.directory, &["up"]);
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn().unwrap()
        });
        for child in both {
            let ended = child.wait_with_output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
        let links = "ip -o -4 address show | awk '$2 ~ /^stu-/ { print $4 }' | sort -u | wc -l";
        assert_eq!(world.sh(Place::Computer, links).trim(), "2", "both have the same transfer subnet");
        let claims = "grep -c -E '@stead/subnet/10[.]63[.][0-9.]*/30$' /proc/net/unix";
        assert_eq!(world.sh(Place::Computer, claims).trim(), "2");
        for lab in &labs {
            lab.udhcpc("web", "eth0");
            reaches_out4(lab);
            lab.stead("down").ok();
        }
        let left = world.sh_said(Place::Computer, "grep @stead/subnet/ /proc/net/unix").out;
        assert_eq!(left, "", "claims outlive what they are for");
    }
}

#[test]
fn a_transfer_subnet_is_claimed_for_as_long_as_there_is_the_uplink() {
    if role() == Role::User {
        return untested("an ordinary user's uplink is pasta, which has no transfer subnet");
    }
    let mut world = World::online();
    world.sh(Place::Computer, FORWARD);
    world.settle();
    let lab = world.project("lab", LAB);
    lab.stead("up").ok();
    let claims = "grep -o -E '@stead/subnet/10[.]63[.][0-9.]*/30$' /proc/net/unix || true";
    assert_eq!(world.sh(Place::Computer, claims).lines().count(), 1);
    // The engine stays, the uplink does not.
    lab.change(&LAB.replace("addressing: static }\n  cell", "addressing: static, reach: isolated }\n  cell"));
    assert_eq!(world.sh(Place::Computer, claims), "");
}

const BRIDGED: &str = "
networks: { wire: { reach: { bridged: LINK } } }
defaults: { kind: container, driver: external }
machines: { web: { networks: [wire] } }
";

/// A real network behind a link of the computer: a DHCP server at its far end.
fn real_network(world: &mut World, set_up: &str) -> crate::support::Running {
    let add = format!("ip link add eth1 type veth peer name eth1 netns {}", world.outside_pid());
    world.sh(Place::Computer, &add);
    world.sh(Place::Computer, set_up);
    world.sh(Place::Outside, "ip address add 198.51.100.1/24 dev eth1; ip link set eth1 up");
    let line = "dnsmasq --no-daemon --port=0 --conf-file=/dev/null --interface=eth1 --leasefile-ro \
        --dhcp-range=198.51.100.50,198.51.100.60 --no-ping";
    world.settle();
    world.spawn(Place::Outside, &line.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn a_bridged_network_is_the_real_network_by_an_idle_nic() {
    let mut world = World::online();
    let _server = real_network(&mut world, "ip link set eth1 up");
    let lab = world.project("lab", &BRIDGED.replace("LINK", "eth1"));
    if role() == Role::User {
        lab.stead("up").code(2).says("stead.yaml:").says("hint: ");
        return;
    }
    lab.stead("up").ok();
    let lease = lab.udhcpc("web", "eth0");
    assert!(lease.contains("serverid=198.51.100.1"), "{lease}");
    lab.on("web", "ping -c 1 -W 5 198.51.100.1").ok();
    assert_ne!(world.sh_said(Place::Computer, "ip link show eth1").code, 0, "the nic is still here");
    assert_eq!(lab.stead("plan").ok(), "nothing to do\n");
    // What it carries is known there, too.
    lab.write(&BRIDGED.replace("LINK", "eth1").replace("reach:", "mtu: 9000, reach:"));
    lab.stead("up").code(2).says("`eth1` carries packets of 1500 bytes at most");
    lab.stead("down").ok();
    world.sh(Place::Computer, "ip link show eth1");
}

#[test]
fn a_bridged_network_joins_a_bridge_of_the_computer() {
    let mut world = World::online();
    let bridge = "ip link set eth1 address fe:54:00:00:00:01 mtu 1450; ip link add br0 type bridge; \
        ip link set eth1 master br0 up; ip link set br0 up; \
        ip address add 198.51.100.2/24 dev br0";
    let _server = real_network(&mut world, bridge);
    let lab = world.project("lab", &BRIDGED.replace("LINK", "br0"));
    if role() == Role::User {
        lab.stead("up").code(2).says("stead.yaml:").says("hint: ");
        return;
    }
    // The link's packets are smaller than those of the network.
    lab.stead("up")
        .code(2)
        .says("carries packets of 1450 bytes at most")
        .says("hint: write `mtu: 1450` there");
    lab.write(&BRIDGED.replace("LINK", "br0").replace("reach:", "mtu: 1400, reach:"));
    let mac = "ip -o link show br0 | grep -o 'link/ether [0-9a-f:]*'";
    let before = world.sh(Place::Computer, mac);
    lab.stead("up").ok();
    assert_eq!(world.sh(Place::Computer, mac), before, "the computer's bridge has another address");
    let lease = lab.udhcpc("web", "eth0");
    assert!(lease.contains("serverid=198.51.100.1"), "{lease}");
    lab.on("web", "ping -c 1 -W 5 198.51.100.2 && ping -c 1 -W 5 198.51.100.1").ok();
    lab.on("web", "ping -c 1 -W 5 -M do -s 1372 198.51.100.1").ok();
    assert_eq!(lab.stead("plan").ok(), "nothing to do\n");
    // What the bridge carries by now its joint carries as well.
    world.sh(Place::Computer, "ip link set eth1 mtu 1500; ip link set br0 mtu 1500");
    lab.write(&BRIDGED.replace("LINK", "br0").replace("reach:", "mtu: 1500, reach:"));
    lab.stead("up").ok();
    lab.udhcpc("web", "eth0");
    lab.on("web", "ping -c 1 -W 5 -M do -s 1472 198.51.100.1").ok();
    lab.stead("down").ok();
    world.sh(Place::Computer, "ip link set eth1 mtu 1450; ip link set br0 mtu 1450");
}

#[test]
fn a_nic_that_the_computer_uses_is_not_taken() {
    let world = World::online();
    let lab = world.project("lab", &BRIDGED.replace("LINK", "eth0"));
    lab.stead("up").code(2).says("stead.yaml:2:").says("hint: ");
    lab.write(&BRIDGED.replace("LINK", "eth7"));
    lab.stead("up").code(2).says("stead.yaml:2:").says("eth7");
    if role() != Role::Root {
        return;
    }
    // What would be lost if it went.
    world.sh(Place::Computer, "ip link add eth7 type veth peer name far7; ip link set eth7 up");
    for (line, why) in [
        ("ip route add 198.51.100.0/24 dev eth7", "the route to 198.51.100.0/24 leads by it"),
        ("ip link add link eth7 name upon7 type macvlan", "`upon7` stands on it"),
        ("ip link set eth7 alias mine", "it has the alias `mine`"),
    ] {
        world.sh(Place::Computer, line);
        lab.stead("up").code(2).says(why);
        world.sh(
            Place::Computer,
            "ip route flush dev eth7; ip link del upon7 || true; ip link set eth7 alias ''",
        );
    }
    assert!(lab.stead("plan").ok().contains("bridged:eth7"));
    world.sh(Place::Computer, "ip link del eth7");
}
