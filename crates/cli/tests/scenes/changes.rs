//! What happens when the file changes while the project is up, and what the lock is for.

use std::fs;

use expect_test::expect;

use crate::support::World;

const SHOP: &str = "
networks:
  lan: { subnet: 10.0.5.0/24, subnet6: 'fd00:5::/64', reach: isolated }
machines:
  web: { kind: container, driver: external, networks: { lan: { aliases: [www] } } }
  db: { kind: container, driver: external, networks: [lan] }
";

#[test]
fn a_running_project_becomes_what_its_file_says() {
    let world = World::offline();
    let shop = world.project("shop", SHOP);
    shop.stead("up").ok();
    shop.udhcpc("web", "eth0");
    shop.udhcpc("db", "eth0");
    let mut text = SHOP.to_owned();
    let mut change = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        text = text.replace(from, to);
        shop.change(&text)
    };
    let ask = |name: &str| shop.on("db", &format!("dig +short {name} @10.0.5.1")).ok().trim().to_owned();

    expect![[r#"
        ~ nic web/lan.shop names web+www -> store+web+www  # machines.web.networks.lan (stead.yaml:5)
    "#]]
    .assert_eq(&change("[www]", "[www, store]"));
    assert_eq!(ask("store"), "10.0.5.3");

    expect![[r#"
        - nic web/lan.shop  # machines.web.networks.lan (stead.yaml:5)
        - nic db/lan.shop  # machines.db.networks.lan (stead.yaml:6)
        ~ network lan.shop mtu 1500 -> 1400  # networks.lan.mtu (stead.yaml:3)
        + nic db/lan.shop as eth0 by stv-db-vtat5  # machines.db.networks.lan (stead.yaml:6)
        + nic web/lan.shop as eth0 by stv-web-n7ltx  # machines.web.networks.lan (stead.yaml:5)
    "#]]
    .assert_eq(&change("isolated }", "isolated, mtu: 1400 }"));
    let lease = shop.udhcpc("web", "eth0");
    assert!(lease.contains("mtu=1400"), "{lease}");
    shop.udhcpc("db", "eth0");
    shop.on("db", "ping -c 1 -W 5 10.0.5.3").ok();

    expect![[r#"
        + lease cache/lan.shop 10.0.5.4 fd00:5::4 02:03:ef:5d:86:f5  # machines.cache.networks.lan (stead.yaml:7)
        + container cache.shop (external)  # machines.cache (stead.yaml:7)
        + nic cache/lan.shop as eth0 by stv-cache-iyqh6  # machines.cache.networks.lan (stead.yaml:7)
    "#]].assert_eq(&change(
        "networks: [lan] }",
        "networks: [lan] }\n  cache: { kind: container, driver: external, networks: [lan] }",
    ));
    shop.udhcpc("cache", "eth0");
    shop.on("cache", "ping -c 1 -W 5 10.0.5.3").ok();
    assert_eq!(ask("cache"), "10.0.5.4");

    expect![[r#"
        - nic cache/lan.shop  # machines.cache.networks.lan (stead.yaml:4)
        - lease cache/lan.shop 10.0.5.4 fd00:5::4 02:03:ef:5d:86:f5  # machines.cache.networks.lan (stead.yaml:4)
        - machine cache.shop  # machines.cache (stead.yaml:4)
    "#]].assert_eq(&change("\n  cache: { kind: container, driver: external, networks: [lan] }", ""));
    assert_eq!(ask("cache"), "");
    shop.on("db", "ping -c 1 -W 5 10.0.5.3").ok();

    expect![[r#"
        - nic web/lan.shop  # machines.web.networks.lan (stead.yaml:5)
        - nic db/lan.shop  # machines.db.networks.lan (stead.yaml:6)
        - lease web/lan.shop 10.0.5.3 fd00:5::3 02:86:cd:53:c7:1c  # machines.web.networks.lan (stead.yaml:5)
        - lease db/lan.shop 10.0.5.2 fd00:5::2 02:00:98:d7:6d:f3  # machines.db.networks.lan (stead.yaml:6)
        - network lan.shop  # networks.lan.subnet (subnet 10.0.5.0/24 -> 10.0.15.0/24, dhcp.pool 10.0.5.192-10.0.5.254 -> 10.0.15.192-10.0.15.254) (stead.yaml:3)
        + network lan.shop 10.0.15.0/24 fd00:5::/64 isolated  # networks.lan (stead.yaml:3)
        + lease db/lan.shop 10.0.15.2 fd00:5::2 02:00:98:d7:6d:f3  # machines.db.networks.lan (stead.yaml:6)
        + lease web/lan.shop 10.0.15.3 fd00:5::3 02:86:cd:53:c7:1c  # machines.web.networks.lan (stead.yaml:5)
        + nic db/lan.shop as eth0 by stv-db-vtat5  # machines.db.networks.lan (stead.yaml:6)
        + nic web/lan.shop as eth0 by stv-web-n7ltx  # machines.web.networks.lan (stead.yaml:5)
    "#]].assert_eq(&change("10.0.5.0/24", "10.0.15.0/24"));
    let lease = shop.udhcpc("web", "eth0");
    assert!(lease.contains("ip=10.0.15.3"), "{lease}");

    expect![[r#"
        - nic db/lan.shop  # machines.db.networks.lan (stead.yaml:6)
        - machine db.shop  # machines.db (kind container -> vm) (stead.yaml:6)
        + vm db.shop (external)  # machines.db (stead.yaml:6)
        + nic db/lan.shop by tap stt-db-vtat5  # machines.db.networks.lan (stead.yaml:6)
    "#]]
    .assert_eq(&change("db: { kind: container", "db: { kind: vm"));
    shop.stead("down").ok();
    assert_eq!(shop.stead("ps").ok().lines().count(), 1, "machines are left");
}

#[test]
fn the_lock_gives_the_same_lab_in_another_home() {
    let world = World::offline();
    let text = "
        networks: { lan: {}, back: { reach: isolated } }
        defaults: { kind: container, driver: external }
        machines: { web: { networks: [lan, back] }, db: { networks: [back] } }";
    let first = world.project_at("one", "lab", text);
    first.stead("up").ok();
    let rows = |said: crate::support::Said| {
        let rows = said.json();
        let rows = rows.as_array().unwrap().iter();
        let nics = rows.flat_map(|row| row["nics"].as_array().unwrap().clone());
        nics.map(|nic| format!("{} {} {}", nic["mac"], nic["address"], nic["address6"])).collect::<Vec<_>>()
    };
    let addresses = rows(first.stead("ps --format json"));
    first.stead("down").ok();
    let second = world.project_at("two", "lab", text);
    fs::copy(first.directory.join("stead.lock"), second.directory.join("stead.lock")).unwrap();
    let lock = fs::read(second.directory.join("stead.lock")).unwrap();
    second.stead("up").ok();
    assert_eq!(rows(second.stead("ps --format json")), addresses);
    assert_eq!(fs::read(second.directory.join("stead.lock")).unwrap(), lock, "the lock changed");
    // A third home while the second has the ranges: the same file, other ranges, and no lock to obey.
    let third = world.project_at("three", "lab", text);
    third.stead("up").ok();
    assert_ne!(rows(third.stead("ps --format json")), addresses);
    // With the lock it cannot have them, and says so before anything changes.
    third.stead("down").ok();
    fs::write(third.directory.join("stead.lock"), &lock).unwrap();
    for line in ["plan", "up"] {
        let said =
            third.stead(line).code(2).says("hint: `stead up --relock` chooses anew; or free the range");
        let why = ", which stead.lock pins, overlaps another home of stead on this computer (";
        // Two networks with two ranges each, where they stand in the file.
        assert_eq!(said.err.matches(why).count(), 4, "{}", said.err);
        assert_eq!(said.err.matches("stead.yaml:2:").count(), 4, "{}", said.err);
    }
    assert_eq!(third.stead("ls --format json").json(), serde_json::json!([]));
    assert_eq!(fs::read(third.directory.join("stead.lock")).unwrap(), lock, "the lock changed");
    third.stead("up --relock").ok();
    assert_ne!(rows(third.stead("ps --format json")), addresses, "two homes have the same ranges");
    assert_ne!(fs::read(third.directory.join("stead.lock")).unwrap(), lock);
}

#[test]
fn what_cannot_be_had_is_refused_before_anything_changes() {
    let world = World::offline();
    let full = "
networks: { lan: { subnet: 10.0.5.0/29, subnet6: off, dhcp: { pool: off } } }
defaults: { kind: container, driver: external }
machines: { a: {networks: [lan]}, b: {networks: [lan]}, c: {networks: [lan]}, d: {networks: [lan]}, e: {networks: [lan]}, f: {networks: [lan]} }
";
    let lab = world.project("lab", full);
    let said = lab.stead("up").code(2).says("stead.yaml:4:").says("hint: ");
    expect![[r#"
        stead.yaml:4:127: machines.f.networks.lan: no address is left on network `lan`
          4 | …orks: [lan]}, e: {networks: [lan]}, f: {networks: [lan]} }
            |                                          ^^^^^^^^
          hint: give it a larger `subnet`, or a smaller `dhcp.pool`
    "#]]
    .assert_eq(&said.err);
    assert_eq!(lab.stead("ls --format json").json(), serde_json::json!([]));
    // One fewer fits.
    lab.write(&full.replace(", f: {networks: [lan]}", ""));
    lab.stead("up").ok();
    // Another project wants the same range.
    let other = world.project("other", &full.replace(", f: {networks: [lan]}", ""));
    let said = other.stead("up").code(2);
    expect![[r#"
        stead.yaml:2:28: 10.0.5.0/29 overlaps network `lan.lab`
          2 | networks: { lan: { subnet: 10.0.5.0/29, subnet6: off, dhcp: { pool: off } } }
            |                            ^^^^^^^^^^^
          hint: choose another, or `auto`
    "#]]
    .assert_eq(&said.err);
    let json = other.stead("plan --format json").code(2).err;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["problems"][0]["path"], "networks.lan.subnet");
    assert_eq!(json["problems"][0]["text"], "10.0.5.0/29");
    assert_eq!((json["code"].as_u64(), json["errors"].as_array().map(Vec::len)), (Some(2), Some(0)));
    // Two machines want the same address: that is in the file.
    other.write(
        "
networks: { lan: { subnet: 10.0.6.0/24 } }
defaults: { kind: container, driver: external }
machines:
  a: { networks: { lan: { address: 10.0.6.9 } } }
  b: { networks: { lan: { address: 10.0.6.9 } } }
  c: { networks: { lan: { address: 10.0.7.9 } } }
  d: { networks: { lan: { address: 10.0.6.1 } } }
",
    );
    let said = other.stead("up").code(2);
    expect![[r#"
        stead.yaml:6:36: machine `a` has the address `10.0.6.9` already
          6 |   b: { networks: { lan: { address: 10.0.6.9 } } }
            |                                    ^^^^^^^^
          hint: take another, or leave it out: one is chosen

        stead.yaml:7:36: `10.0.7.9` is not in `10.0.6.0/24` of network `lan`
          7 |   c: { networks: { lan: { address: 10.0.7.9 } } }
            |                                    ^^^^^^^^
          hint: machines have `10.0.6.2` to `10.0.6.254` there; without `address` one is chosen

        stead.yaml:8:36: `10.0.6.1` is the gateway of network `lan`
          8 |   d: { networks: { lan: { address: 10.0.6.1 } } }
            |                                    ^^^^^^^^
          hint: machines have `10.0.6.2` to `10.0.6.254` there; without `address` one is chosen
    "#]]
    .assert_eq(&said.err);
}
