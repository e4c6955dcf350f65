//! Volumes and networks that several projects share.

use expect_test::expect;

use super::check;
use super::containers::shown;

#[test]
fn an_external_volume_is_one_of_another_project() {
    check(
        "name: shop
machines:
  web: {image: web, volumes: ['data:/data', {type: volume, source: mail, target: /mail, read_only: true}, 'own:/own']}
volumes: {data: {external: true}, mail: {external: true, name: Old_Mail.Post}, own: {external: false, size: 1g}, 1a: {external: true, name: other}}
",
        expect![[r#"
            name: shop
            networks:
              default:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: auto, lease: 3600s, slaac: false }
            machines:
              web:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "web:latest"
                volumes:
                  - { type: volume, source: data, target: "/data" }
                  - { type: volume, source: mail, target: "/mail", read_only: true }
                  - { type: volume, source: own, target: "/own" }
            volumes:
              "1a": { external: true, name: "other" }
              data: { external: true, name: "data" }
              mail: { external: true, name: "old-mail.post" }
              own: { size: 1073741824 }
        "#]],
    );
}

#[test]
fn what_is_said_of_a_volume_that_is_not_this_projects_is_told() {
    check(
        "name: shop
volumes:
  a: {name: other}
  b: {external: true, size: 1g}
  c: {external: true, name: c.shop}
  d: {external: true, name: a.b.c}
  e: {external: true, name: -e}
",
        expect![[r#"
            stead.yaml:3:7: the name of a volume of the project is the one in this file, within the project
              3 |   a: {name: other}
                |       ^^^^
              hint: leave it out, or write `external: true` beside it: then it is one that `stead volume create` made

            stead.yaml:4:23: how large an external volume may become is not this project's to say
              4 |   b: {external: true, size: 1g}
                |                       ^^^^
              hint: leave it out, and give it a limit where it is made: `stead volume create --size`, or the file of its project

            stead.yaml:5:3: volume `c.shop` is this project's own
              5 |   c: {external: true, name: c.shop}
                |   ^
              hint: leave `external` and `name` out

            stead.yaml:6:29: `b.c` is not a name: a name holds only `a-z`, `0-9` and `-`, not `.`
              6 |   d: {external: true, name: a.b.c}
                |                             ^^^^^
              hint: write `b-c`

            stead.yaml:7:29: `-e` is not a name: a name cannot start with `-`
              7 |   e: {external: true, name: -e}
                |                             ^^
              hint: write `e`
        "#]],
    );
}

#[test]
fn compose_has_external_volumes_in_three_forms() {
    let text = "name: shop
services: {web: {image: web, volumes: ['data:/a', 'Db_Data:/b', 'old:/c', 'own:/d']}}
volumes:
  data: {external: true, driver: local}
  Db_Data: {external: yes, name: Other_Data}
  old: {external: {name: shop_old}}
  own: {external: false, driver_opts: {size: 1g}}
";
    expect![[r#"
        name: shop
        networks:
          default:
            subnet: auto
            subnet6: auto
            addressing: managed
            reach: "nat"
            mtu: 1500
            dhcp: { pool: auto, lease: 3600s, slaac: false }
        machines:
          web:
            kind: container
            driver: native
            networks:
              default: {}
            image: "web:latest"
            volumes:
              - { type: volume, source: data, target: "/a" }
              - { type: volume, source: db-data, target: "/b" }
              - { type: volume, source: old, target: "/c" }
              - { type: volume, source: own, target: "/d" }
        volumes:
          data: { external: true, name: "data" }
          db-data: { external: true, name: "other-data" }
          old: { external: true, name: "shop-old" }
          own: { size: 1073741824 }
        compose.yaml:5:23: `yes` is taken for `true`, as YAML 1.1 had it
          5 |   Db_Data: {external: yes, name: Other_Data}
            |                       ^^^
          hint: write `true`
    "#]]
    .assert_eq(&shown("compose.yaml", text, &[], &[]));
    let text = "name: shop
services: {web: {image: web}}
volumes:
  a: {external: {name: x}, name: x}
  b: {name: x}
  c: {external: true, driver_opts: {size: 1g}}
";
    expect![[r#"
        compose.yaml:4:28: the volume is named twice
          4 |   a: {external: {name: x}, name: x}
            |                            ^^^^
          hint: leave `external.name` out, and write `external: true`

        compose.yaml:6:37: how large an external volume may become is not this project's to say
          6 |   c: {external: true, driver_opts: {size: 1g}}
            |                                     ^^^^
          hint: leave it out, and give it a limit where it is made: `stead volume create --size`, or the file of its project
    "#]].assert_eq(&shown("compose.yaml", text, &[], &[]));
}

#[test]
fn what_goes_over_a_file_makes_a_volume_external_or_the_projects_own() {
    let base = "name: shop\nservices: {web: {image: web, volumes: ['a:/a', 'b:/b']}}\nvolumes: {a: , b: {external: true}}\n";
    let over = "volumes: {a: {external: true}, b: {external: false}}\n";
    expect![[r#"
        name: shop
        networks:
          default:
            subnet: auto
            subnet6: auto
            addressing: managed
            reach: "nat"
            mtu: 1500
            dhcp: { pool: auto, lease: 3600s, slaac: false }
        machines:
          web:
            kind: container
            driver: native
            networks:
              default: {}
            image: "web:latest"
            volumes:
              - { type: volume, source: a, target: "/a" }
              - { type: volume, source: b, target: "/b" }
        volumes:
          a: { external: true, name: "a" }
          b: {}
    "#]]
    .assert_eq(&shown("compose.yaml", base, &[("compose.override.yaml", over)], &[]));
}

#[test]
fn an_external_network_is_one_of_another_project() {
    check(
        "name: shop
networks: {lan: {external: true}, front: {external: true, name: Web_Proxy.Post}, own: {external: false}, default: {external: true, name: all}}
machines:
  web: {image: web, networks: {own: , lan: {address: 10.1.1.9, aliases: [www]}, front: }, ports: [80]}
  db: {image: db}
",
        expect![[r#"
            name: shop
            networks:
              own:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: auto, lease: 3600s, slaac: false }
              default: { external: true, name: "all" }
              front: { external: true, name: "web-proxy.post" }
              lan: { external: true, name: "lan" }
            machines:
              db:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "db:latest"
              web:
                kind: container
                driver: native
                networks:
                  own: {}
                  lan: { address: 10.1.1.9, aliases: [www] }
                  front: {}
                ports:
                  - "127.0.0.1:80:80/tcp"
                image: "web:latest"
        "#]],
    );
}

#[test]
fn what_is_said_of_a_network_that_is_not_this_projects_is_told() {
    check(
        "name: shop
networks:
  a: {name: other}
  b: {external: true, subnet: 10.1.0.0/24, reach: isolated, mtu: 1400}
  c: {external: true, name: c.shop}
  d: {external: true, name: a.b.c}
  e: {external: true, name: host}
  f: {external: true, name: both}
  g: {external: true, name: both.default}
  h: {joins: [f]}
machines:
  web: {image: web, networks: [none-such]}
",
        expect![[r#"
            stead.yaml:3:7: the name of a network of the project is the one in this file, within the project
              3 |   a: {name: other}
                |       ^^^^
              hint: leave it out, or write `external: true` beside it: then it is one that `stead network create` made

            stead.yaml:4:23: `subnet` of an external network is not this project's to say
              4 |   b: {external: true, subnet: 10.1.0.0/24, reach: isolated, mtu: 1400}
                |                       ^^^^^^
              hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

            stead.yaml:4:44: `reach` of an external network is not this project's to say
              4 |   b: {external: true, subnet: 10.1.0.0/24, reach: isolated, mtu: 1400}
                |                                            ^^^^^
              hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

            stead.yaml:4:61: `mtu` of an external network is not this project's to say
              4 |   b: {external: true, subnet: 10.1.0.0/24, reach: isolated, mtu: 1400}
                |                                                             ^^^
              hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

            stead.yaml:5:3: network `c.shop` is this project's own
              5 |   c: {external: true, name: c.shop}
                |   ^
              hint: leave `external` and `name` out

            stead.yaml:6:29: `b.c` is not a name: a name holds only `a-z`, `0-9` and `-`, not `.`
              6 |   d: {external: true, name: a.b.c}
                |                             ^^^^^
              hint: write `b-c`

            stead.yaml:7:3: no network is called `host`
              7 |   e: {external: true, name: host}
                |   ^
              hint: name one that `stead network ls` shows; what other tools call so is none of their networks, but a mode

            stead.yaml:9:3: `f` and `g` are both network `both.default`
              9 |   g: {external: true, name: both.default}
                |   ^
              hint: leave one of them out

            stead.yaml:10:15: `h` cannot join `f`, which is another project's
             10 |   h: {joins: [f]}
                |               ^
              hint: put a machine on both networks as a router

            stead.yaml:12:32: there is no network `none-such`
             12 |   web: {image: web, networks: [none-such]}
                |                                ^^^^^^^^^
              hint: there are a, b, c, d, e, f, g, h
        "#]],
    );
}

#[test]
fn compose_has_external_networks_in_three_forms() {
    let text = "name: blog
services:
  web: {image: web, networks: [proxy, default], labels: {traefik.enable: 'true'}}
  db: {image: db, networks: {Old_Net: {aliases: [data], ipv4_address: 10.1.1.9}, named: }}
networks:
  proxy: {external: true}
  Old_Net: {external: {name: shop_default}}
  named: {external: true, name: Web_Proxy, driver: bridge, attachable: true}
  default: {external: false, name: blog_default}
";
    expect![[r#"
        name: blog
        networks:
          default:
            subnet: auto
            subnet6: auto
            addressing: managed
            reach: "nat"
            mtu: 1500
            dhcp: { pool: off, lease: 3600s, slaac: false }
          named: { external: true, name: "web-proxy" }
          old-net: { external: true, name: "shop-default" }
          proxy: { external: true, name: "proxy" }
        machines:
          db:
            kind: container
            driver: native
            networks:
              old-net: { address: 10.1.1.9, aliases: [data] }
              named: {}
            image: "db:latest"
          web:
            kind: container
            driver: native
            networks:
              proxy: {}
              default: {}
            image: "web:latest"
            labels:
              - "traefik.enable=true"
        compose.yaml:9:30: `name` is not heeded: the network is the project's own, by the name that it has in this file, and shared with no other
          9 |   default: {external: false, name: blog_default}
            |                              ^^^^
          hint: leave it out; other projects name it by this one, like `name: lan.shop` beside `external: true`
    "#]].assert_eq(&shown("compose.yaml", text, &[], &[]));
}

#[test]
fn what_compose_says_of_an_external_network_beside_its_name_is_told() {
    let text = "name: blog
services: {web: {image: web, networks: [a, b, c, d]}}
networks:
  a: {external: {name: x}, name: x}
  b: {external: true, internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}, driver_opts: {com.docker.network.driver.mtu: 1400}}
  c: {external: true, name: a.b.c}
  d: {external: true, name: bridge}
";
    expect![[r#"
        compose.yaml:4:28: the network is named twice
          4 |   a: {external: {name: x}, name: x}
            |                            ^^^^
          hint: leave `external.name` out, and write `external: true`

        compose.yaml:5:23: `internal` of an external network is not this project's to say
          5 |   b: {external: true, internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}, driver_opts: {com.doc…
            |                       ^^^^^^^^
          hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

        compose.yaml:5:39: `ipam` of an external network is not this project's to say
          5 |   b: {external: true, internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}, driver_opts: {com.doc…
            |                                       ^^^^
          hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

        compose.yaml:5:80: `driver_opts` of an external network is not this project's to say
          5 | …pam: {config: [{subnet: 10.9.0.0/24}]}, driver_opts: {com.docker.network.driver.mtu: 1400}}
            |                                          ^^^^^^^^^^^
          hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

        compose.yaml:6:29: `b.c` is not a name: a name holds only `a-z`, `0-9` and `-`, not `.`
          6 |   c: {external: true, name: a.b.c}
            |                             ^^^^^
          hint: write `b-c`
    "#]].assert_eq(&shown("compose.yaml", text, &[], &[]));
}

#[test]
fn what_goes_over_a_file_makes_a_network_external_or_the_projects_own() {
    let base =
        "name: shop\nservices: {web: {image: web, networks: [a, b]}}\nnetworks: {a: , b: {external: true}}\n";
    let over = "networks: {a: {external: true}, b: {external: false}}\n";
    expect![[r#"
        name: shop
        networks:
          b:
            subnet: auto
            subnet6: auto
            addressing: managed
            reach: "nat"
            mtu: 1500
            dhcp: { pool: off, lease: 3600s, slaac: false }
          a: { external: true, name: "a" }
        machines:
          web:
            kind: container
            driver: native
            networks:
              a: {}
              b: {}
            image: "web:latest"
    "#]]
    .assert_eq(&shown("compose.yaml", base, &[("compose.override.yaml", over)], &[]));
}
