//! Machines in a network that is not their own.

use expect_test::{Expect, expect};

use super::containers::shown;

/// The machines of a file, or what is said of it.
#[track_caller]
fn check(file: &str, text: &str, profiles: &[&str], expected: Expect) {
    let shown = shown(file, text, &[], profiles);
    expected.assert_eq(
        shown.find("machines:").filter(|_| shown.starts_with("name:")).map_or(&*shown, |at| &shown[at..]),
    );
}

#[test]
fn a_machine_may_be_in_no_network_in_this_computers_or_in_anothers() {
    check(
        "stead.yaml",
        "machines:
  vpn: {image: vpn, ports: [8080], hostname: out}
  app: {image: app, network_mode: 'machine:vpn'}
  spy: {image: spy, network_mode: 'machine:app', depends_on: {vpn: {condition: service_healthy}}, replicas: 2}
  mon: {image: mon, network_mode: host, extra_hosts: ['a:10.0.0.1']}
  off: {image: off, network_mode: none}
  ext: {kind: container, driver: external}
  in: {image: in, network_mode: 'machine:ext'}
",
        &[],
        expect![[r#"
            machines:
              app:
                kind: container
                driver: native
                network_mode: machine:vpn
                depends_on: [vpn]
                image: "app:latest"
              ext:
                kind: container
                driver: external
                networks:
                  default: {}
              in:
                kind: container
                driver: native
                network_mode: machine:ext
                depends_on: [ext]
                image: "in:latest"
              mon:
                kind: container
                driver: native
                network_mode: host
                image: "mon:latest"
                extra_hosts:
                  - "a=10.0.0.1"
              "off":
                kind: container
                driver: native
                networks: []
                image: "off:latest"
              spy-1:
                kind: container
                driver: native
                network_mode: machine:vpn
                depends_on:
                  app: { condition: service_started }
                  vpn: { condition: service_healthy }
                image: "spy:latest"
              spy-2:
                kind: container
                driver: native
                network_mode: machine:vpn
                depends_on:
                  app: { condition: service_started }
                  vpn: { condition: service_healthy }
                image: "spy:latest"
              vpn:
                kind: container
                driver: native
                networks:
                  default: {}
                ports:
                  - "127.0.0.1:8080:8080/tcp"
                image: "vpn:latest"
                hostname: "out"
        "#]],
    );
}

#[test]
fn what_is_beside_a_network_that_is_not_its_own_is_refused() {
    check(
        "stead.yaml",
        "machines:
  a: {image: a, network_mode: host, networks: [], ports: [80], mode: system, sysctls: {net.ipv4.ip_forward: '1'}}
  b: {image: b, network_mode: 'machine:c', networks: {default: {address: 10.0.0.7}}, ports: ['80:80'], sysctls: [net.core.somaxconn=1]}
  c: {image: c, hostname: c}
  d: {image: d, network_mode: 'machine:c', hostname: d, extra_hosts: ['x:10.0.0.1'], dns: 10.0.0.1, dns_search: x}
  e: {image: e, network_mode: none, networks: [default]}
",
        &[],
        expect![[r#"
            stead.yaml:2:37: `networks` and `network_mode` exclude each other
              2 |   a: {image: a, network_mode: host, networks: [], ports: [80], mode: system, sysctls: {net.ipv4.ip_f…
                |                                     ^^^^^^^^
              hint: leave one of them out

            stead.yaml:2:51: no ports are published of a machine with `network_mode: host`
              2 | …e: a, network_mode: host, networks: [], ports: [80], mode: system, sysctls: {net.ipv4.ip_forward: '1…
                |                                          ^^^^^
              hint: leave it out: whatever port it listens on is this computer's own

            stead.yaml:2:64: a system has a network of its own, and `network_mode: host` is another's
              2 | …_mode: host, networks: [], ports: [80], mode: system, sysctls: {net.ipv4.ip_forward: '1'}}
                |                                          ^^^^
              hint: leave one of the two out

            stead.yaml:2:88: `net.ipv4.ip_forward` is a parameter of a network that is not the machine's own
              2 | …], ports: [80], mode: system, sysctls: {net.ipv4.ip_forward: '1'}}
                |                                          ^^^^^^^^^^^^^^^^^^^
              hint: set it on this computer, if at all

            stead.yaml:3:44: `networks` and `network_mode` exclude each other
              3 | …: {image: b, network_mode: 'machine:c', networks: {default: {address: 10.0.0.7}}, ports: ['80:80'], …
                |                                          ^^^^^^^^
              hint: leave one of them out

            stead.yaml:3:86: no ports are published of a machine with `network_mode: machine:c`
              3 | …tworks: {default: {address: 10.0.0.7}}, ports: ['80:80'], sysctls: [net.core.somaxconn=1]}
                |                                          ^^^^^
              hint: write it under `c`: what listens here is reached there, too

            stead.yaml:3:114: `net.core.somaxconn=1` is a parameter of a network that is not the machine's own
              3 | …10.0.0.7}}, ports: ['80:80'], sysctls: [net.core.somaxconn=1]}
                |                                          ^^^^^^^^^^^^^^^^^^^^
              hint: write it under `c`

            stead.yaml:5:44: `hostname` is that of machine `c`, in whose network it is
              5 | …: {image: d, network_mode: 'machine:c', hostname: d, extra_hosts: ['x:10.0.0.1'], dns: 10.0.0.1, dns…
                |                                          ^^^^^^^^
              hint: write it under `c`

            stead.yaml:5:57: `extra_hosts` is that of machine `c`, in whose network it is
              5 | …network_mode: 'machine:c', hostname: d, extra_hosts: ['x:10.0.0.1'], dns: 10.0.0.1, dns_search: x}
                |                                          ^^^^^^^^^^^
              hint: write it under `c`

            stead.yaml:5:86: `dns` is that of machine `c`, in whose network it is
              5 | …stname: d, extra_hosts: ['x:10.0.0.1'], dns: 10.0.0.1, dns_search: x}
                |                                          ^^^
              hint: write it under `c`

            stead.yaml:5:101: `dns_search` is that of machine `c`, in whose network it is
              5 | …a_hosts: ['x:10.0.0.1'], dns: 10.0.0.1, dns_search: x}
                |                                          ^^^^^^^^^^
              hint: write it under `c`

            stead.yaml:6:37: `networks` and `network_mode` exclude each other
              6 |   e: {image: e, network_mode: none, networks: [default]}
                |                                     ^^^^^^^^
              hint: leave one of them out
        "#]],
    );
}

#[test]
fn who_has_no_network_to_be_in_is_refused() {
    check(
        "stead.yaml",
        "machines:
  a: {image: a, network_mode: 'machine:nosuch'}
  b: {image: b, network_mode: 'machine:b'}
  c: {image: c, network_mode: 'machine:d'}
  d: {image: d, network_mode: 'machine:c'}
  e: {image: e, network_mode: 'machine:m'}
  f: {image: f, network_mode: 'machine:v'}
  g: {image: g, network_mode: 'machine:h'}
  h: {image: h, network_mode: host}
  i: {image: i, network_mode: 'machine:r'}
  r: {image: r, replicas: 2}
  j: {image: j, network_mode: 'machine:rests'}
  rests: {image: x, profiles: [p]}
  m: {kind: microvm, image: m, network_mode: host}
  v: {kind: vm, image: ./v.img, network_mode: 'machine:a'}
  x: {kind: container, driver: external, network_mode: host}
",
        &[],
        expect![[r#"
            stead.yaml:2:31: there is no machine `nosuch`
              2 |   a: {image: a, network_mode: 'machine:nosuch'}
                |                               ^^^^^^^^^^^^^^^^
              hint: there are a, b, c, d, e, f, g, h, i, j, m, r, v, x

            stead.yaml:3:31: machines wait for each other: `b → b`
              3 |   b: {image: b, network_mode: 'machine:b'}
                |                               ^^^^^^^^^^^
              hint: leave one of them out

            stead.yaml:5:31: machines wait for each other: `c → d → c`
              5 |   d: {image: d, network_mode: 'machine:c'}
                |                               ^^^^^^^^^^^
              hint: leave one of them out

            stead.yaml:6:31: machine `m` is a `microvm`, whose network is in a kernel of its own
              6 |   e: {image: e, network_mode: 'machine:m'}
                |                               ^^^^^^^^^^^
              hint: name a container; or name under `networks` one that both are on

            stead.yaml:7:31: machine `v` is a `vm`, whose network is in a kernel of its own
              7 |   f: {image: f, network_mode: 'machine:v'}
                |                               ^^^^^^^^^^^
              hint: name a container; or name under `networks` one that both are on

            stead.yaml:8:31: machine `h` has no network of its own: it is in this computer's
              8 |   g: {image: g, network_mode: 'machine:h'}
                |                               ^^^^^^^^^^^
              hint: write `network_mode: host` here, too

            stead.yaml:10:31: there are several machines `r`, each with a network of its own
             10 |   i: {image: i, network_mode: 'machine:r'}
                |                               ^^^^^^^^^^^
              hint: name one that has no `replicas`

            stead.yaml:12:31: machine `rests` is only there with profile `p`
             12 |   j: {image: j, network_mode: 'machine:rests'}
                |                               ^^^^^^^^^^^^^^^
              hint: ask for the profile, give this machine the same, or write `required: false`

            stead.yaml:14:3: machine `m` is a `microvm`, which has a network in its own kernel, and cannot be in another's
             14 |   m: {kind: microvm, image: m, network_mode: host}
                |   ^
              hint: name under `networks` one that both are on, or write `kind: container`

            stead.yaml:15:33: machine `v` is a `vm`, which cannot have `network_mode`
             15 |   v: {kind: vm, image: ./v.img, network_mode: 'machine:a'}
                |                                 ^^^^^^^^^^^^
              hint: leave it out: its network is in its own kernel; `networks: []` is none at all

            stead.yaml:16:42: `network_mode` says what stead is to run, but somebody else runs machine `x`
             16 |   x: {kind: container, driver: external, network_mode: host}
                |                                          ^^^^^^^^^^^^
              hint: leave it out, or write `driver: native`
        "#]],
    );
}

#[test]
fn what_is_no_mode_is_told_what_is_one() {
    check(
        "stead.yaml",
        "machines:
  a: {image: a, network_mode: 'service:b'}
  b: {image: b, network_mode: bridge}
  c: {image: c, network_mode: 'machine:B_'}
  d: {image: d, network_mode: slirp4netns}
",
        &[],
        expect![[r#"
            stead.yaml:2:31: `service:b` is no network mode
              2 |   a: {image: a, network_mode: 'service:b'}
                |                               ^^^^^^^^^^^
              hint: write `machine:b`

            stead.yaml:3:31: `bridge` is no network mode
              3 |   b: {image: b, network_mode: bridge}
                |                               ^^^^^^
              hint: leave it out: a machine that names no `networks` is on `default`

            stead.yaml:4:31: `B_` is not a name: a name holds only `a-z`, `0-9` and `-`, not `B`
              4 |   c: {image: c, network_mode: 'machine:B_'}
                |                               ^^^^^^^^^^^^
              hint: write `b`

            stead.yaml:5:31: `slirp4netns` is no network mode
              5 |   d: {image: d, network_mode: slirp4netns}
                |                               ^^^^^^^^^^^
              hint: there are `none`, `host` and `machine:NAME`
        "#]],
    );
}

#[test]
fn modes_of_compose_are_taken_as_they_are() {
    check(
        "compose.yaml",
        "services:
  VPN_1: {image: vpn, container_name: the_VPN, ports: ['8080:80']}
  app: {image: app, network_mode: 'service:VPN_1', container_name: apps, links: [VPN_1], depends_on: {VPN_1: {condition: service_healthy}}}
  two: {image: two, network_mode: 'container:the_VPN', expose: [80]}
  three: {image: three, network_mode: 'container:app'}
  mon: {image: mon, network_mode: host, ports: ['9100:9100'], container_name: monitor}
  tool: {image: tool, network_mode: host, ports: []}
  usual: {image: usual, network_mode: default}
",
        &[],
        expect![[r#"
            machines:
              app:
                kind: container
                driver: native
                network_mode: machine:vpn-1
                depends_on:
                  vpn-1: { condition: service_healthy }
                image: "app:latest"
              mon:
                kind: container
                driver: native
                network_mode: host
                image: "mon:latest"
              three:
                kind: container
                driver: native
                network_mode: machine:vpn-1
                depends_on: [app, vpn-1]
                image: "three:latest"
              tool:
                kind: container
                driver: native
                network_mode: host
                image: "tool:latest"
              two:
                kind: container
                driver: native
                network_mode: machine:vpn-1
                depends_on: [vpn-1]
                image: "two:latest"
              usual:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "usual:latest"
              vpn-1:
                kind: container
                driver: native
                networks:
                  default: { aliases: [the-vpn] }
                ports:
                  - "0.0.0.0:8080:80/tcp"
                image: "vpn:latest"
            compose.yaml:6:41: `ports` changes nothing beside `network_mode: host`: whatever port the service listens on is this computer's own
              6 |   mon: {image: mon, network_mode: host, ports: ['9100:9100'], container_name: monitor}
                |                                         ^^^^^
              hint: leave it out
        "#]],
    );
}

#[test]
fn modes_of_compose_that_cannot_be_had_are_told() {
    check(
        "compose.yaml",
        "services:
  a: {image: a, network_mode: 'container:elsewhere'}
  b: {image: b, network_mode: 'service:nosuch'}
  c: {image: c, network_mode: 'service:a', ports: ['80:80'], hostname: c, mac_address: '02:00:00:00:00:01'}
  d: {image: d, network_mode: host, networks: [default]}
  e: {image: e, network_mode: 'ns:/run/x'}
",
        &[],
        expect![[r#"
            compose.yaml:2:31: no service of this file has the `container_name` `elsewhere`
              2 |   a: {image: a, network_mode: 'container:elsewhere'}
                |                               ^^^^^^^^^^^^^^^^^^^^^
              hint: write `service:NAME`, with a service of this file: networks of other projects' machines cannot be joined

            compose.yaml:3:31: there is no machine `nosuch`
              3 |   b: {image: b, network_mode: 'service:nosuch'}
                |                               ^^^^^^^^^^^^^^^^
              hint: there are a, b, c, d, e

            compose.yaml:4:44: no ports are published of a machine with `network_mode: machine:a`
              4 | …: {image: c, network_mode: 'service:a', ports: ['80:80'], hostname: c, mac_address: '02:00:00:00:00:…
                |                                          ^^^^^
              hint: write it under `a`: what listens here is reached there, too

            compose.yaml:4:62: `hostname` is that of machine `a`, in whose network it is
              4 | …rk_mode: 'service:a', ports: ['80:80'], hostname: c, mac_address: '02:00:00:00:00:01'}
                |                                          ^^^^^^^^
              hint: write it under `a`

            compose.yaml:4:75: `mac_address` of a service is for one that is on one network, and says none there
              4 | …vice:a', ports: ['80:80'], hostname: c, mac_address: '02:00:00:00:00:01'}
                |                                          ^^^^^^^^^^^
              hint: write it under one of its `networks` instead

            compose.yaml:5:17: `network_mode` and `networks` exclude each other
              5 |   d: {image: d, network_mode: host, networks: [default]}
                |                 ^^^^^^^^^^^^
              hint: leave one of them out

            compose.yaml:6:31: `ns:/run/x` cannot be honoured
              6 |   e: {image: e, network_mode: 'ns:/run/x'}
                |                               ^^^^^^^^^^^
              hint: name `networks` instead; there are `none`, `host`, `service:NAME`, `container:NAME`, and `bridge`, which is the default network
        "#]],
    );
}
