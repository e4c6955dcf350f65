//! What services are called, and by which names they are found.

use expect_test::expect;

use super::super::containers::shown;
use super::check;

#[test]
fn aliases_and_names_of_containers_have_parts() {
    check(
        "services:
  a: {image: x, container_name: Realtime-dev.supabase_realtime, networks: {default: {aliases: [xmpp.meet.jitsi]}}}
  b: {image: x, links: ['a:db.example']}
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
              a:
                kind: container
                driver: native
                networks:
                  default: { aliases: [db.example, realtime-dev.supabase-realtime, xmpp.meet.jitsi] }
                image: "x:latest"
              b:
                kind: container
                driver: native
                networks:
                  default: {}
                depends_on: [a]
                image: "x:latest"
        "#]],
    );
    check(
        "services:
  a: {image: x, container_name: 10.0.0.7, networks: {default: {aliases: [a..b, x.localhost, shop.stead, -a.b]}}}
  b.c: {image: x}
",
        expect![[r#"
            compose.yaml:2:33: `10.0.0.7` is not a name: a number would be taken for an address
              2 |   a: {image: x, container_name: 10.0.0.7, networks: {default: {aliases: [a..b, x.localhost, shop.ste…
                |                                 ^^^^^^^^
              hint: an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`

            compose.yaml:2:74: `a..b` is not a name: a name cannot be empty
              2 | …0.0.0.7, networks: {default: {aliases: [a..b, x.localhost, shop.stead, -a.b]}}}
                |                                          ^^^^
              hint: an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`

            compose.yaml:2:80: `x.localhost` is not a name: this name is reserved
              2 | …7, networks: {default: {aliases: [a..b, x.localhost, shop.stead, -a.b]}}}
                |                                          ^^^^^^^^^^^
              hint: an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`

            compose.yaml:2:93: `shop.stead` is not a name: this name is reserved
              2 | …{default: {aliases: [a..b, x.localhost, shop.stead, -a.b]}}}
                |                                          ^^^^^^^^^^
              hint: an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`

            compose.yaml:2:105: `-a.b` is not a name: a name cannot start with `-`
              2 | …liases: [a..b, x.localhost, shop.stead, -a.b]}}}
                |                                          ^^^^
              hint: an alias is written like `www` or `www.shop.example`: letters, digits, `-` and `.`

            compose.yaml:3:3: `b.c` is not a name: a name holds only `a-z`, `0-9` and `-`, not `.`
              3 |   b.c: {image: x}
                |   ^^^
              hint: write `b-c`
        "#]],
    );
}

#[test]
fn a_service_that_says_nothing_of_its_networks_is_on_the_usual_one() {
    let text = "services:
  web: { image: a, networks: [] }
  db: { image: a, networks: {}, network_mode: none }
";
    let shown = shown("compose.yaml", text, &[], &[]);
    let (db, web) = shown.split_once("  web:").unwrap_or_else(|| panic!("{shown}"));
    assert!(db.contains("networks: []") && web.contains("default"), "{shown}");
}

#[test]
fn names_of_services_become_those_of_machines() {
    check(
        "name: shop
services:
  My_App:
    image: a
    container_name: my_app
    depends_on: [db_1]
    networks: { default: { aliases: [x_y, Front] } }
  other: { extends: My_App, container_name: other_1, depends_on: { db_1: {}, My_App: {} }, links: [db_1] }
  db_1: { image: db, network_mode: bridge, volumes: ['./a:/a:ro,z', 'data:/b:cached'], tmpfs: '/t:nosuid,nodev,noexec' }
volumes: { data: }
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
              db-1:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "db:latest"
                volumes:
                  - { type: bind, source: "/srv/shop/a", bind: { propagation: private, create_host_path: true }, target: "/a", read_only: true }
                  - { type: volume, source: data, target: "/b" }
                  - { type: tmpfs, target: "/t" }
              my-app:
                kind: container
                driver: native
                networks:
                  default: { aliases: [front, x-y] }
                depends_on: [db-1]
                image: "a:latest"
              other:
                kind: container
                driver: native
                networks:
                  default: { aliases: [front, other-1, x-y] }
                depends_on: [db-1, my-app]
                image: "a:latest"
            volumes: [data]
        "#]],
    );
}

#[test]
fn names_that_are_none_of_ours_are_told() {
    check(
        "services:
  my_app: { image: a }
  my-app: { image: a }
  my.app: { image: a, network_mode: 'service:my_app', pull_policy: daily, volumes: ['data:/a:nocopy', 'data:/b:U'] }
  _db: { image: a }
  two: { image: a, network_mode: bridge, networks: [default] }
volumes: { data: }
",
        expect![[r#"
            compose.yaml:3:3: `my_app` and `my-app` are both `my-app` here
              3 |   my-app: { image: a }
                |   ^^^^^^
              hint: rename one of them

            compose.yaml:4:3: `my.app` is not a name: a name holds only `a-z`, `0-9` and `-`, not `.`
              4 |   my.app: { image: a, network_mode: 'service:my_app', pull_policy: daily, volumes: ['data:/a:nocopy'…
                |   ^^^^^^
              hint: write `my-app`

            compose.yaml:4:68: `daily` is not `missing` or `if_not_present` or `always` or `never` or `build`
              4 | …rk_mode: 'service:my_app', pull_policy: daily, volumes: ['data:/a:nocopy', 'data:/b:U'] }
                |                                          ^^^^^
              hint: `missing`: if it is not here | `if_not_present`: the same | `always`: each time the machine is created | `never`: not at all: it has to be here | `build`: not at all: it is built, each time that `stead up` runs

            compose.yaml:4:103: the option `U` cannot be honoured: files keep their owners
              4 | …icy: daily, volumes: ['data:/a:nocopy', 'data:/b:U'] }
                |                                          ^^^^^^^^^^^
              hint: leave it out, and `chown` them yourself

            compose.yaml:5:3: `_db` is not a name: a name holds only `a-z`, `0-9` and `-`, not `_`
              5 |   _db: { image: a }
                |   ^^^
              hint: write `db`

            compose.yaml:6:20: `network_mode` and `networks` exclude each other
              6 |   two: { image: a, network_mode: bridge, networks: [default] }
                |                    ^^^^^^^^^^^^
              hint: leave one of them out
        "#]],
    );
}

#[test]
fn a_link_gives_the_other_a_name_where_both_are() {
    let said = |text: &str| shown("compose.yaml", text, &[], &[]);
    let two = "services:
  web: { image: a, links: ['db:Data_Base', 'db:db', cache], networks: [front, back] }
  db: { image: b, networks: { back: { aliases: [pg] }, far: } }
  cache: { image: c, networks: [front], container_name: quick }
  alone: { image: d, network_mode: none, links: ['db:x'] }
networks: { front: , back: { name: elsewhere }, far: }
";
    let text = said(two);
    expect![[r#"
        machines:
          alone:
            kind: container
            driver: native
            networks: []
            depends_on: [db]
            image: "d:latest"
          cache:
            kind: container
            driver: native
            networks:
              front: { aliases: [quick] }
            image: "c:latest"
          db:
            kind: container
            driver: native
            networks:
              back: { aliases: [data-base, pg] }
              far: {}
            image: "b:latest"
          web:
            kind: container
            driver: native
            networks:
              front: {}
              back: {}
            depends_on: [cache, db]
            image: "a:latest"
        compose.yaml:6:30: `name` is not heeded: the network is the project's own, by the name that it has in this file, and shared with no other
          6 | networks: { front: , back: { name: elsewhere }, far: }
            |                              ^^^^
          hint: leave it out; other projects name it by this one, like `name: lan.shop` beside `external: true`
    "#]]
    .assert_eq(&text[text.find("machines:").unwrap_or(0)..]);
    // On the network that all are on who say nothing.
    let text = said(
        "services: { a: { image: a, links: ['b:c'] }, b: { image: b }, d: { image: d, links: ['b:c'] } }",
    );
    assert_eq!(text.matches("default: { aliases: [c] }").count(), 1, "{text}");
}

#[test]
fn a_link_by_a_name_that_would_mean_two_is_refused() {
    let said = |text: &str| shown("compose.yaml", text, &[], &[]);
    expect![[r#"
        compose.yaml:2:34: the link `c:d` cannot be honoured: `d` is `d` for all machines of network `default`
          2 |   a: { image: a, links: ['b:db', 'c:d'] }
            |                                  ^^^^^
          hint: take another name, or put them on networks that do not have both

        compose.yaml:3:26: the link `c:pg` cannot be honoured: `pg` is `d` for all machines of network `default`
          3 |   b: { image: b, links: ['c:pg', 'nosuch:n'] }
            |                          ^^^^^^
          hint: take another name, or put them on networks that do not have both

        compose.yaml:3:34: there is no machine `nosuch`
          3 |   b: { image: b, links: ['c:pg', 'nosuch:n'] }
            |                                  ^^^^^^^^^^
          hint: there are a, b, c, d

        compose.yaml:4:26: machines wait for each other: `b → c → b`
          4 |   c: { image: c, links: ['b:db'] }
            |                          ^^^^^^
          hint: leave one of them out

        compose.yaml:5:46: the link `c:db` cannot be honoured: `db` is `b` for all machines of network `default`
          5 |   d: { image: d, container_name: pg, links: ['c:db', 'c:_x'] }
            |                                              ^^^^^^
          hint: take another name, or put them on networks that do not have both

        compose.yaml:5:54: `_x` is not a name: a name holds only `a-z`, `0-9` and `-`, not `_`
          5 |   d: { image: d, container_name: pg, links: ['c:db', 'c:_x'] }
            |                                                      ^^^^^^
          hint: write `x`
    "#]].assert_eq(&said(
        "services:
  a: { image: a, links: ['b:db', 'c:d'] }
  b: { image: b, links: ['c:pg', 'nosuch:n'] }
  c: { image: c, links: ['b:db'] }
  d: { image: d, container_name: pg, links: ['c:db', 'c:_x'] }
",
    ));
}
