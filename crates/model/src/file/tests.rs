//! The file as a whole: text in, the project or its problems out.

use expect_test::{Expect, expect, expect_file};

use super::published::EXAMPLE;
use super::*;

mod compose;
mod containers;
mod dev;
mod external;
mod forms;
mod includes;
mod laws;
mod modes;
mod overrides;
mod ports;
mod projects;
mod said;
mod scripts;
mod vms;

fn read(text: &str) -> Result<Parsed, Problems> {
    let env =
        Variables::from([("PORT", "8080"), ("HOME", "/root")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    parse(&Source::new("stead.yaml", text, &env, Path::new("/srv/My Shop")))
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
fn check(text: &str, expected: Expect) {
    let shown = match read(text) {
        Ok(parsed) => render(&parsed.project),
        Err(problems) => problems.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn what_a_bad_line_of_variables_leaves_open_is_not_told_of_again() {
    let known = variables(".env", "OPEN='no end\nFINE=1400\n", &Variables::new());
    assert_eq!(known.problems.map(|problems| problems.problems.len()), Some(1));
    let text = "networks: { lan: { mtu: $OPEN, reach: \"${OPEN:?say it}\" }, wan: { mtu: $FINE, subnet: $NOPE } }\n\
        machines: { a: { image: \"${OPEN}\", prots: [1], environment: [OPEN] } }\n";
    let check = |name: &str, text: &str, expected: Expect| {
        let source = Source::new(name, text, &known.variables, Path::new("/srv/shop"));
        expected
            .assert_eq(&parse(&Source { unread: &known.unread, ..source }).expect_err("wrong").to_string());
    };
    check(
        "stead.yaml",
        text,
        expect![[r#"
        stead.yaml:1:87: the variable `NOPE` is not set
          1 | networks: { lan: { mtu: $OPEN, reach: "${OPEN:?say it}" }, wan: { mtu: $FINE, subnet: $NOPE } }
            |                                                                                       ^^^^^
          hint: set it, or write `${NOPE:-default}`, or `${NOPE:-}` for an empty text

        stead.yaml:2:36: there is no key `prots` here
          2 | machines: { a: { image: "${OPEN}", prots: [1], environment: [OPEN] } }
            |                                    ^^^^^
          hint: did you mean `ports`?
    "#]],
    );
    check(
        "compose.yaml",
        "services: { a: { image: $OPEN, mem_limit: $OPEN, colour: red } }\n",
        expect![[r#"
            compose.yaml:1:50: there is no key `colour` here
              1 | services: { a: { image: $OPEN, mem_limit: $OPEN, colour: red } }
                |                                                  ^^^^^^
              hint: leave it out
        "#]],
    );
}

#[test]
fn a_key_that_does_not_exist_is_told_once() {
    check(
        "machines: { a: { kind: container, driver: external, prots: [1] }, b: { kind: vm, image: ./a.raw, dsk: 2g } }\n",
        expect![[r#"
            stead.yaml:1:53: there is no key `prots` here
              1 | …a: { kind: container, driver: external, prots: [1] }, b: { kind: vm, image: ./a.raw, dsk: 2g } }
                |                                          ^^^^^
              hint: did you mean `ports`?

            stead.yaml:1:98: there is no key `dsk` here
              1 | …: [1] }, b: { kind: vm, image: ./a.raw, dsk: 2g } }
                |                                          ^^^
              hint: did you mean `disk`?
        "#]],
    );
}

#[test]
fn the_schema_is_as_published() {
    expect_file!["../../../../docs/stead.schema.json"].assert_eq(&schema());
}

#[test]
fn the_reference_is_as_published() {
    expect_file!["../../../../docs/stead.yaml.md"].assert_eq(&reference());
}

#[test]
fn the_example_is_a_project() {
    check(
        EXAMPLE,
        expect![[r#"
            name: shop
            networks:
              back:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "isolated"
                mtu: 1500
                joins: [lan]
                dhcp: { pool: auto, lease: 3600s, slaac: false }
              lan:
                subnet: 10.0.5.0/24
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                joins: [back]
                dhcp: { pool: auto, lease: 3600s, slaac: false }
            machines:
              db:
                kind: container
                driver: native
                networks:
                  back: {}
                image: "postgres:16"
                environment:
                  - "POSTGRES_PASSWORD=secret"
                volumes:
                  - { type: volume, source: data, target: "/var/lib/postgresql/data" }
                restart: "on-failure:3"
                healthcheck: { test: [CMD-SHELL, "pg_isready"], interval: 5000ms }
              router:
                kind: vm
                driver: external
                networks:
                  lan: {}
                  back: {}
              web:
                kind: container
                driver: native
                networks:
                  lan: { address: 10.0.5.7, aliases: [www] }
                  back: {}
                ports:
                  - "127.0.0.1:8080:80/tcp"
                depends_on:
                  db: { condition: service_healthy }
                image: "nginx:1.27"
                volumes:
                  - { type: bind, source: "/srv/My Shop/site", bind: { propagation: private, create_host_path: true }, target: "/usr/share/nginx/html", read_only: true }
            volumes: [data]
        "#]],
    );
}

#[test]
fn machines_without_networks_are_on_the_default_one() {
    check(
        "defaults: {kind: vm, driver: external, guard: off, publish: 0.0.0.0, mtu: 1400}\nmachines:\n  a:\n    ports: [80, {port: 8000-8001, target: 9000-9001, protocol: udp}]\n",
        expect![[r#"
            name: my-shop
            networks:
              default:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1400
                dhcp: { pool: auto, lease: 3600s, slaac: false }
            machines:
              a:
                kind: vm
                driver: external
                networks:
                  default: { guard: off }
                ports:
                  - "0.0.0.0:80:80/tcp"
                  - "0.0.0.0:8000:9000/udp"
                  - "0.0.0.0:8001:9001/udp"
        "#]],
    );
}

#[test]
fn anchors_merge_keys_and_variables_work() {
    check(
        "x-any: [$NOTHING, {1: 2}]\nx-lan: &lan\n  subnet6: off\n  mtu: 1300\nname: ${N-shop}\nnetworks:\n  a: {<<: *lan, mtu: 9000}\n  b: *lan\nmachines:\n  m: {kind: vm, driver: external, networks: [a], ports: [\"$PORT:${T:-80}\"]}\n",
        expect![[r#"
            name: shop
            networks:
              a:
                subnet: auto
                subnet6: off
                addressing: managed
                reach: "nat"
                mtu: 9000
                dhcp: { pool: auto, lease: 3600s, slaac: false }
              b:
                subnet: auto
                subnet6: off
                addressing: managed
                reach: "nat"
                mtu: 1300
                dhcp: { pool: auto, lease: 3600s, slaac: false }
            machines:
              m:
                kind: vm
                driver: external
                networks:
                  a: {}
                ports:
                  - "127.0.0.1:8080:80/tcp"
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one file and what is said of it")]
fn every_problem_of_a_file_is_told_at_once() {
    check(
        r#"name: My_Shop
netwroks: {}
networks:
  lan:
    subnet: 10.0.5.7/24
    mtu: 12
    raech: nat
  a: {subnet: 10.1.0.0/16, joins: [b, lna, a, wire]}
  b: {subnet: 10.1.7.0/24, subnet6: fd00::/48, dhcp: {lease: 90, slaac: yes, pool: 10.1.7.9-10.1.7.1}}
  c: {subnet: 127.0.0.0/8, subnet6: fe80::/64, reach: bridge}
  wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
  d: {subnet: 10.2.0.0/24, dhcp: {pool: 10.2.0.1-10.2.0.9}}
  e: {subnet: off, subnet6: off}
  f: {mtu: 600}
  g: {dhcp: {pool: 10.2.0.2-10.2.0.9}}
  h: {reach: "bridged:toolonglinkname0"}
  lan: {}
machines:
  web:
    kind: conatiner
    networks: {a: {address: 10.1.0.0}, d: {address: 10.2.0.1, mac: "01:00:00:00:00:00"}, lann: {}}
    ports: ["70000:80", "80:80/sctp", "8000-8002:80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:80"]
    depends_on: [db, d, db]
  db:
    driver: external
    kind: vm
    networks: {d: {address: 10.2.0.5, mac: 02:00:00:00:00:01, aliases: [web, stead]}, b: {address: 10.1.7.255, address6: fd00::1}}
    ports: ["0.0.0.0:8080:80"]
    depends_on: [web]
  x:
    kind: vm
    networks: {d: {address: 10.2.0.5, mac: 02:00:00:00:00:01}, f: {address: 10.9.0.9}, b: {address: 10.1.7.250}}
  y: {kind: vm, driver: external, networks: [wire, wire], ports: [1]}
  z: [1]
  localhost: {kind: "${KIND}", driver: external}
volumes: data
services: {}
"#,
        expect![[r#"
            stead.yaml:1:7: `My_Shop` is not a name: a name holds only `a-z`, `0-9` and `-`, not `M`
              1 | name: My_Shop
                |       ^^^^^^^
              hint: write `my-shop`

            stead.yaml:2:1: there is no key `netwroks` here
              2 | netwroks: {}
                | ^^^^^^^^
              hint: did you mean `networks`?

            stead.yaml:5:13: `10.0.5.7/24` is not a network: bits are set after the prefix
              5 |     subnet: 10.0.5.7/24
                |             ^^^^^^^^^^^
              hint: write `10.0.5.0/24`

            stead.yaml:6:10: `12` is not a whole number from 576 to 9216
              6 |     mtu: 12
                |          ^^
              hint: write `576` or more

            stead.yaml:7:5: there is no key `raech` here
              7 |     raech: nat
                |     ^^^^^
              hint: did you mean `reach`?

            stead.yaml:8:39: there is no network `lna`
              8 |   a: {subnet: 10.1.0.0/16, joins: [b, lna, a, wire]}
                |                                       ^^^
              hint: did you mean `lan`?

            stead.yaml:8:44: a network cannot join itself
              8 |   a: {subnet: 10.1.0.0/16, joins: [b, lna, a, wire]}
                |                                            ^
              hint: leave it out

            stead.yaml:8:47: `a` cannot join `wire`: `wire` has addressing `none`, so we do not route there
              8 |   a: {subnet: 10.1.0.0/16, joins: [b, lna, a, wire]}
                |                                               ^^^^
              hint: put a machine on both networks as a router

            stead.yaml:9:15: `10.1.7.0/24` overlaps `10.1.0.0/16` of network `a`
              9 |   b: {subnet: 10.1.7.0/24, subnet6: fd00::/48, dhcp: {lease: 90, slaac: yes, pool: 10.1.7.9-10.1.7.1…
                |               ^^^^^^^^^^^
              hint: give each network its own, or write `auto`

            stead.yaml:9:37: `fd00::/48` is not a /64
              9 |   b: {subnet: 10.1.7.0/24, subnet6: fd00::/48, dhcp: {lease: 90, slaac: yes, pool: 10.1.7.9-10.1.7.1…
                |                                     ^^^^^^^^^
              hint: write `fd00::/64`

            stead.yaml:9:62: `90` is not a time
              9 | …0/24, subnet6: fd00::/48, dhcp: {lease: 90, slaac: yes, pool: 10.1.7.9-10.1.7.1}}
                |                                          ^^
              hint: with its unit: `90s`, `90m`, `90h` or `90d`

            stead.yaml:9:73: `yes` is not `true` or `false`
              9 | …t6: fd00::/48, dhcp: {lease: 90, slaac: yes, pool: 10.1.7.9-10.1.7.1}}
                |                                          ^^^
              hint: write `true`

            stead.yaml:9:84: `10.1.7.9-10.1.7.1` runs backwards
              9 | …48, dhcp: {lease: 90, slaac: yes, pool: 10.1.7.9-10.1.7.1}}
                |                                          ^^^^^^^^^^^^^^^^^
              hint: write `10.1.7.1-10.1.7.9`

            stead.yaml:10:15: `127.0.0.0/8` cannot be used: `127.0.0.0/8` is for loopback
             10 |   c: {subnet: 127.0.0.0/8, subnet6: fe80::/64, reach: bridge}
                |               ^^^^^^^^^^^
              hint: take one of `10.0.0.0/8`, `172.16.0.0/12` or `192.168.0.0/16`, or `auto`

            stead.yaml:10:37: `fe80::/64` cannot be used: `fe80::/10` is for link-local
             10 |   c: {subnet: 127.0.0.0/8, subnet6: fe80::/64, reach: bridge}
                |                                     ^^^^^^^^^
              hint: take one of `fd00::/8`, or `auto`

            stead.yaml:10:55: `bridge` is not `nat`, `isolated` or `bridged:<link>`
             10 |   c: {subnet: 127.0.0.0/8, subnet6: fe80::/64, reach: bridge}
                |                                                       ^^^^^^
              hint: name the link, like `bridged:eth0`

            stead.yaml:11:35: reach `nat` cannot go with addressing `none`: nobody would route
             11 |   wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
                |                                   ^^^
              hint: write `reach: isolated`, or let a machine be the router

            stead.yaml:11:48: a network with addressing `none` has no `subnet`: we are not on its wire
             11 |   wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
                |                                                ^^^^
              hint: leave it out, or let `addressing` be `managed` or `static`

            stead.yaml:11:54: `dhcp` needs addressing `managed`: otherwise nobody here answers
             11 |   wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
                |                                                      ^^^^
              hint: leave out `dhcp`, or write `addressing: managed`

            stead.yaml:11:64: `boot` needs addressing `managed`: otherwise nobody here answers
             11 |   wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
                |                                                                ^^^^
              hint: leave out `boot`, or write `addressing: managed`

            stead.yaml:11:70: the key `file` is missing
             11 |   wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
                |                                                                      ^
              hint: write `file: pxelinux.0`

            stead.yaml:11:79: `x` is not an address
             11 |   wire: {addressing: none, reach: nat, subnet: auto, dhcp: {}, boot: {server: x}}
                |                                                                               ^
              hint: an address is written like `127.0.0.1` or `::1`

            stead.yaml:12:41: the pool `10.2.0.1-10.2.0.9` is not among the machines' addresses of `10.2.0.0/24`
             12 |   d: {subnet: 10.2.0.0/24, dhcp: {pool: 10.2.0.1-10.2.0.9}}
                |                                         ^^^^^^^^^^^^^^^^^
              hint: they are `10.2.0.2` to `10.2.0.254`

            stead.yaml:13:29: the network carries neither IPv4 nor IPv6
             13 |   e: {subnet: off, subnet6: off}
                |                             ^^^
              hint: leave one of them on, or write `addressing: none` for a wire without addresses of ours

            stead.yaml:14:12: IPv6 needs an mtu of at least 1280, this is `600`
             14 |   f: {mtu: 600}
                |            ^^^
              hint: write a larger one, or `subnet6: off`

            stead.yaml:15:20: a pool of fixed addresses needs a fixed subnet
             15 |   g: {dhcp: {pool: 10.2.0.2-10.2.0.9}}
                |                    ^^^^^^^^^^^^^^^^^
              hint: write the network's `subnet`, or `pool: auto`

            stead.yaml:16:14: `toolonglinkname0` cannot name a link
             16 |   h: {reach: "bridged:toolonglinkname0"}
                |              ^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: 1 to 15 characters, no `/`, `:` or space; `ip link` lists the links of this computer

            stead.yaml:17:3: the key `lan` stands here twice
             17 |   lan: {}
                |   ^^^
              hint: it stands first in line 4

            stead.yaml:19:3: no driver of this version runs machine `web`
             19 |   web:
                |   ^^^
              hint: write `driver: external` if somebody else runs it

            stead.yaml:20:11: `conatiner` is not `container` or `microvm` or `vm`
             20 |     kind: conatiner
                |           ^^^^^^^^^
              hint: write `container`

            stead.yaml:21:29: `10.1.0.0` is the address of network `a` itself
             21 |     networks: {a: {address: 10.1.0.0}, d: {address: 10.2.0.1, mac: "01:00:00:00:00:00"}, lann: {}}
                |                             ^^^^^^^^
              hint: machines have `10.1.0.2` to `10.1.255.254` there; without `address` one is chosen

            stead.yaml:21:53: `10.2.0.1` is the gateway of network `d`
             21 |     networks: {a: {address: 10.1.0.0}, d: {address: 10.2.0.1, mac: "01:00:00:00:00:00"}, lann: {}}
                |                                                     ^^^^^^^^
              hint: machines have `10.2.0.2` to `10.2.0.254` there; without `address` one is chosen

            stead.yaml:21:68: `01:00:00:00:00:00` is not a MAC: this MAC names a group of nics: its first byte must be even
             21 |     networks: {a: {address: 10.1.0.0}, d: {address: 10.2.0.1, mac: "01:00:00:00:00:00"}, lann: {}}
                |                                                                    ^^^^^^^^^^^^^^^^^^^
              hint: write `02:00:00:00:00:00`, or leave it out

            stead.yaml:21:90: there is no network `lann`
             21 |     networks: {a: {address: 10.1.0.0}, d: {address: 10.2.0.1, mac: "01:00:00:00:00:00"}, lann: {}}
                |                                                                                          ^^^^
              hint: did you mean `lan`?

            stead.yaml:22:13: `70000` is not a port from 1 to 65535
             22 |     ports: ["70000:80", "80:80/sctp", "8000-8002:80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:8…
                |             ^^^^^^^^^^
              hint: write `65535` or less

            stead.yaml:22:25: `sctp` is not `tcp` or `udp`
             22 |     ports: ["70000:80", "80:80/sctp", "8000-8002:80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:8…
                |                         ^^^^^^^^^^^^
              hint: no other can be published; machines of one network reach each other by any

            stead.yaml:22:39: 3 ports cannot lead to 1 targets
             22 |     ports: ["70000:80", "80:80/sctp", "8000-8002:80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:8…
                |                                       ^^^^^^^^^^^^^^
              hint: both ranges have the same length

            stead.yaml:22:55: `::1` is not `[address:]port:target`
             22 | …0000:80", "80:80/sctp", "8000-8002:80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:80"]
                |                                          ^^^^^^^^^^^
              hint: an IPv6 address stands in brackets, like `[::1]:8080:80`

            stead.yaml:22:68: the key `target` is missing
             22 | …:80/sctp", "8000-8002:80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:80"]
                |                                          ^
              hint: write `target: 80`

            stead.yaml:22:90: `1.2.3` is not an address
             22 | …80", "::1:80:80", {port: 1}, "8080:80", "1.2.3:80:80"]
                |                                          ^^^^^^^^^^^^^
              hint: an address is written like `127.0.0.1` or `::1`

            stead.yaml:23:22: there is no machine `d`
             23 |     depends_on: [db, d, db]
                |                      ^
              hint: did you mean `db`?

            stead.yaml:23:25: `db` stands here twice
             23 |     depends_on: [db, d, db]
                |                         ^^
              hint: leave one of them out

            stead.yaml:27:29: `10.2.0.5` is in the pool for strangers of network `d`, `10.2.0.1-10.2.0.9`
             27 |     networks: {d: {address: 10.2.0.5, mac: 02:00:00:00:00:01, aliases: [web, stead]}, b: {address: 1…
                |                             ^^^^^^^^
              hint: take another address, or set the network's `dhcp: { pool: … }`

            stead.yaml:27:73: `web` is the name of another machine
             27 | ….0.5, mac: 02:00:00:00:00:01, aliases: [web, stead]}, b: {address: 10.1.7.255, address6: fd00::1}}
                |                                          ^^^
              hint: take another alias; names that several machines have in common are none of a machine

            stead.yaml:27:78: `stead` is not a name: this name is reserved
             27 | … mac: 02:00:00:00:00:01, aliases: [web, stead]}, b: {address: 10.1.7.255, address6: fd00::1}}
                |                                          ^^^^^
              hint: take another, like `my-stead`: this one means something else here

            stead.yaml:28:13: `0.0.0.0:8080/tcp` is published already, for machine `web` as `127.0.0.1:8080/tcp`
             28 |     ports: ["0.0.0.0:8080:80"]
                |             ^^^^^^^^^^^^^^^^^
              hint: take another port or address

            stead.yaml:29:18: machines wait for each other: `web → db → web`
             29 |     depends_on: [web]
                |                  ^^^
              hint: leave one of them out

            stead.yaml:30:3: no driver of this version runs machine `x` of kind `vm`
             30 |   x:
                |   ^
              hint: write its `image`, or `driver: external` if somebody else runs it

            stead.yaml:32:29: `10.2.0.5` is in the pool for strangers of network `d`, `10.2.0.1-10.2.0.9`
             32 |     networks: {d: {address: 10.2.0.5, mac: 02:00:00:00:00:01}, f: {address: 10.9.0.9}, b: {address: …
                |                             ^^^^^^^^
              hint: take another address, or set the network's `dhcp: { pool: … }`

            stead.yaml:32:29: machine `db` has the address `10.2.0.5` already
             32 |     networks: {d: {address: 10.2.0.5, mac: 02:00:00:00:00:01}, f: {address: 10.9.0.9}, b: {address: …
                |                             ^^^^^^^^
              hint: take another, or leave it out: one is chosen

            stead.yaml:32:44: a nic of machine `db` has the MAC `02:00:00:00:00:01` already
             32 | … networks: {d: {address: 10.2.0.5, mac: 02:00:00:00:00:01}, f: {address: 10.9.0.9}, b: {address: 10.…
                |                                          ^^^^^^^^^^^^^^^^^
              hint: take another, or leave it out: each nic has its own

            stead.yaml:32:77: a fixed address needs a fixed subnet, and that of network `f` is `auto`
             32 | …, mac: 02:00:00:00:00:01}, f: {address: 10.9.0.9}, b: {address: 10.1.7.250}}
                |                                          ^^^^^^^^
              hint: write `subnet: 10.9.0.0/24` there

            stead.yaml:33:52: `wire` stands here twice
             33 |   y: {kind: vm, driver: external, networks: [wire, wire], ports: [1]}
                |                                                    ^^^^
              hint: leave one of them out

            stead.yaml:33:67: machine `y` is on no network where we know its address
             33 |   y: {kind: vm, driver: external, networks: [wire, wire], ports: [1]}
                |                                                                   ^
              hint: put it on one with addressing `managed` or `static`

            stead.yaml:34:6: `machines.z` takes a mapping, not a list
             34 |   z: [1]
                |      ^
              hint: write keys under it, such as `kind: vm`

            stead.yaml:35:3: `localhost` is not a name: this name is reserved
             35 |   localhost: {kind: "${KIND}", driver: external}
                |   ^^^^^^^^^
              hint: take another, like `my-localhost`: this one means something else here

            stead.yaml:35:21: the variable `KIND` is not set
             35 |   localhost: {kind: "${KIND}", driver: external}
                |                     ^^^^^^^^^
              hint: set it, or write `${KIND:-default}`, or `${KIND:-}` for an empty text

            stead.yaml:36:10: `volumes` takes a list or a mapping, not `data`
             36 | volumes: data
                |          ^^^^
              hint: write `[data]`

            stead.yaml:37:1: there is no key `services` here
             37 | services: {}
                | ^^^^^^^^
              hint: the services of Compose are `machines` here
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is data")]
fn what_is_not_yaml_is_told_with_its_place() {
    check(
        "a: [1\nb: 2",
        expect![[r#"
            stead.yaml:2:2: not YAML: illegal placement of ':' indicator
              2 | b: 2
                |  ^
              hint: look at this line and the one before: how far they are indented, and whether quotes and brackets are closed; a text with `: ` or ` #` in it stands in quotes
        "#]],
    );
    check(
        "networks:\n\tlan: {}\n",
        expect![[r#"
        stead.yaml:2:2: not YAML: tabs disallowed within this context (block indentation)
          2 |  lan: {}
            |  ^
          hint: indent with spaces, not with tabs
    "#]],
    );
    check(
        "a: 1\n---\nb: 2\n",
        expect![[r#"
            stead.yaml:2:1: a second document starts here; the file holds one
              2 | ---
                | ^^^
              hint: take the line `---` away, or put what follows into a file of its own
        "#]],
    );
    check(
        "a: &a [*a]\n",
        expect![[r#"
            stead.yaml:1:8: an alias cannot stand within what it stands for
              1 | a: &a [*a]
                |        ^^
              hint: write out what is meant
        "#]],
    );
    check(
        "[1]: 2\nname: !!str x\n<<: 1\n",
        expect![[r#"
            stead.yaml:1:1: a key must be text
              1 | [1]: 2
                | ^
              hint: write a word, with `:` behind; a text that begins with `{`, `[` or `?` stands in quotes

            stead.yaml:2:7: tags (`!…`) mean nothing here
              2 | name: !!str x
                |       ^^^^^^^
              hint: leave it out

            stead.yaml:3:5: `<<` takes a mapping or a list of mappings
              3 | <<: 1
                |     ^
              hint: write `<<: *name`
        "#]],
    );
    check(
        "- a\n",
        expect![[r#"
            stead.yaml:1:1: the file takes a mapping, not a list
              1 | - a
                | ^
              hint: write keys under it, such as `name: shop`
        "#]],
    );
    check(
        &format!("x: {}", "[".repeat(100)),
        expect![[r#"
            stead.yaml:1:36: more than 32 levels within each other
              1 | x: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
                |                                    ^
              hint: nothing in this file needs so many: look for a `[` or `{` too much
        "#]],
    );
    let bomb: String =
        (1..9).map(|n| format!("x-{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(10))).collect();
    check(
        &format!("x-0: &a0 lol\n{bomb}"),
        expect![[r#"
            stead.yaml:6:19: the file has more than 100000 values, aliases resolved
              6 | x-5: &a5 [*a4,*a4,*a4,*a4,*a4,*a4,*a4,*a4,*a4,*a4,]
                |                   ^^^
              hint: use fewer aliases, or put parts into other files
        "#]],
    );
}

#[test]
fn volumes_may_be_limited() {
    let text = "name: shop\nvolumes: { data: { size: 10GiB }, logs: { size: 1 }, free: {} }\n";
    let project = read(text).unwrap().project;
    expect![[r"
        name: shop
        volumes:
          data: { size: 10737418240 }
          free: {}
          logs: { size: 65536 }
    "]]
    .assert_eq(&render(&project));
    check(
        "name: shop\nvolumes: { data: { size: 0 }, logs: { size: ten }, free: { sise: 1g } }\n",
        expect![[r#"
            stead.yaml:2:26: `0` leaves no room at all
              2 | volumes: { data: { size: 0 }, logs: { size: ten }, free: { sise: 1g } }
                |                          ^
              hint: leave it out, and there is no limit

            stead.yaml:2:45: `ten` is not a size
              2 | volumes: { data: { size: 0 }, logs: { size: ten }, free: { sise: 1g } }
                |                                             ^^^
              hint: a size is written like `512m`, `1.5g`, or `1048576` for bytes

            stead.yaml:2:60: there is no key `sise` here
              2 | volumes: { data: { size: 0 }, logs: { size: ten }, free: { sise: 1g } }
                |                                                            ^^^^
              hint: did you mean `size`?
        "#]],
    );
}

#[test]
fn an_empty_file_is_an_empty_project_and_keys_have_places() {
    check(
        "",
        expect![[r#"
        name: my-shop
    "#]],
    );
    let parsed = read("networks:\n  lan:\n    mtu: 1400\n").unwrap();
    let at = |path: &str| parsed.sources.find(path).map(|span| (span.line, span.column));
    assert_eq!(at("networks.lan.mtu"), Some((3, 10)));
    assert_eq!(at("networks.lan.subnet"), Some((2, 3)));
    assert_eq!(at("machines.web"), None);
}

#[test]
fn a_directory_that_cannot_name_the_project_is_a_problem() {
    let env = Variables::new();
    let source = Source::new("stead.yaml", "", &env, Path::new("/srv/123"));
    expect![[r#"
        stead.yaml:1:1: the directory's name `123` cannot name the project
          hint: write `name: …` at the top
    "#]]
    .assert_eq(&parse(&source).unwrap_err().to_string());
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is data")]
fn fixed_addresses_are_ones_that_a_machine_can_have() {
    check(
        r#"defaults: {kind: vm, driver: external}
networks:
  a: {subnet: 10.0.0.0/29, subnet6: fd00::/64, dhcp: {pool: off}}
  b: {subnet: off}
  c: {subnet6: off, reach: bridged:eth0, joins: [a]}
  d: {subnet: 10.0.1.0/30}
machines:
  a: {networks: {a: {address: 10.0.0.7, address6: fd00::1}, b: {address: 10.0.0.3}, c: {address: 10.0.0.4}}}
  b: {networks: {a: {address: 10.0.1.9, address6: "fd00::", aliases: [www]}, b: {address6: fd01::1}}}
  c: {networks: {a: {address: 10.0.0.6, address6: fd00:1::1, aliases: [www]}, c: {address6: fe80::1}}}
  d: {networks: {a: {address: 10.0.0.2/24}}, ports: ["2000-3:1", "1-9999:1", "9:9", "9:9/udp"]}
  e: {depends_on: [e], networks: {a: {mac: 2:0:0:0:0:0}}, ports: ["[::]:9:9", "[::1]:9:9", "0.0.0.0:9:9"]}
  f: {networks: []}
"#,
        expect![[r#"
            stead.yaml:5:50: `c` cannot join `a`: `c` is bridged, so we do not route there
              5 |   c: {subnet6: off, reach: bridged:eth0, joins: [a]}
                |                                                  ^
              hint: put a machine on both networks as a router

            stead.yaml:6:15: `10.0.1.0/30` does not have a prefix from /8 to /29
              6 |   d: {subnet: 10.0.1.0/30}
                |               ^^^^^^^^^^^
              hint: `/24` has room for 253 machines

            stead.yaml:8:31: `10.0.0.7` is the broadcast address of network `a`
              8 |   a: {networks: {a: {address: 10.0.0.7, address6: fd00::1}, b: {address: 10.0.0.3}, c: {address: 10.…
                |                               ^^^^^^^^
              hint: machines have `10.0.0.2` to `10.0.0.6` there; without `address` one is chosen

            stead.yaml:8:51: `fd00::1` is the gateway of network `a`
              8 | …orks: {a: {address: 10.0.0.7, address6: fd00::1}, b: {address: 10.0.0.3}, c: {address: 10.0.0.4}}}
                |                                          ^^^^^^^
              hint: machines have `fd00::2` and higher there; without `address6` one is chosen

            stead.yaml:8:74: network `b` carries no IPv4
              8 | …0.0.7, address6: fd00::1}, b: {address: 10.0.0.3}, c: {address: 10.0.0.4}}}
                |                                          ^^^^^^^^
              hint: leave the address out, or take away its `subnet: off`

            stead.yaml:8:98: network `c` has addressing `none`: addresses are not planned there
              8 | …}, b: {address: 10.0.0.3}, c: {address: 10.0.0.4}}}
                |                                          ^^^^^^^^
              hint: leave the address out

            stead.yaml:9:31: `10.0.1.9` is not in `10.0.0.0/29` of network `a`
              9 |   b: {networks: {a: {address: 10.0.1.9, address6: "fd00::", aliases: [www]}, b: {address6: fd01::1}}…
                |                               ^^^^^^^^
              hint: machines have `10.0.0.2` to `10.0.0.6` there; without `address` one is chosen

            stead.yaml:9:51: `fd00::` is the address of network `a` itself
              9 | …orks: {a: {address: 10.0.1.9, address6: "fd00::", aliases: [www]}, b: {address6: fd01::1}}}
                |                                          ^^^^^^^^
              hint: machines have `fd00::2` and higher there; without `address6` one is chosen

            stead.yaml:9:92: a fixed address needs a fixed subnet, and that of network `b` is `auto`
              9 | …fd00::", aliases: [www]}, b: {address6: fd01::1}}}
                |                                          ^^^^^^^
              hint: write `subnet6: fd01::/64` there

            stead.yaml:10:51: `fd00:1::1` is not in `fd00::/64` of network `a`
             10 | …orks: {a: {address: 10.0.0.6, address6: fd00:1::1, aliases: [www]}, c: {address6: fe80::1}}}
                |                                          ^^^^^^^^^
              hint: machines have `fd00::2` and higher there; without `address6` one is chosen

            stead.yaml:10:93: network `c` has addressing `none`: addresses are not planned there
             10 | …00:1::1, aliases: [www]}, c: {address6: fe80::1}}}
                |                                          ^^^^^^^
              hint: leave the address out

            stead.yaml:11:31: `10.0.0.2/24` is not an IPv4 address a machine can have
             11 |   d: {networks: {a: {address: 10.0.0.2/24}}, ports: ["2000-3:1", "1-9999:1", "9:9", "9:9/udp"]}
                |                               ^^^^^^^^^^^
              hint: an address is written like `10.0.5.7`, without a prefix

            stead.yaml:11:54: `2000-3` runs backwards
             11 |   d: {networks: {a: {address: 10.0.0.2/24}}, ports: ["2000-3:1", "1-9999:1", "9:9", "9:9/udp"]}
                |                                                      ^^^^^^^^^^
              hint: write `3-2000`

            stead.yaml:11:66: `1-9999` has more than 1024 ports
             11 |   d: {networks: {a: {address: 10.0.0.2/24}}, ports: ["2000-3:1", "1-9999:1", "9:9", "9:9/udp"]}
                |                                                                  ^^^^^^^^^^
              hint: publish fewer, or reach the machine by its own address

            stead.yaml:12:20: machines wait for each other: `e → e`
             12 |   e: {depends_on: [e], networks: {a: {mac: 2:0:0:0:0:0}}, ports: ["[::]:9:9", "[::1]:9:9", "0.0.0.0:…
                |                    ^
              hint: leave one of them out

            stead.yaml:12:44: `2:0:0:0:0:0` is not a MAC: a MAC is six bytes in hexadecimal, like `02:00:00:00:00:01`
             12 | …: {depends_on: [e], networks: {a: {mac: 2:0:0:0:0:0}}, ports: ["[::]:9:9", "[::1]:9:9", "0.0.0.0:9:9…
                |                                          ^^^^^^^^^^^
              hint: a MAC is written like `02:00:00:00:00:07`; or leave it out

            stead.yaml:12:79: `[::1]:9/tcp` is published already, for machine `e` as `[::]:9/tcp`
             12 | …mac: 2:0:0:0:0:0}}, ports: ["[::]:9:9", "[::1]:9:9", "0.0.0.0:9:9"]}
                |                                          ^^^^^^^^^^^
              hint: take another port or address

            stead.yaml:12:92: `0.0.0.0:9/tcp` is published already, for machine `d` as `127.0.0.1:9/tcp`
             12 | …0:0}}, ports: ["[::]:9:9", "[::1]:9:9", "0.0.0.0:9:9"]}
                |                                          ^^^^^^^^^^^^^
              hint: take another port or address
        "#]],
    );
}
