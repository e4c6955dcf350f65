//! Volumes that several projects share.

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
