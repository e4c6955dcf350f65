//! A file that goes over a project's own, as Compose has it.

use expect_test::{Expect, expect};

use super::containers::shown;

const BASE: &str = "name: shop
services:
  web:
    image: web:1
    command: [serve]
    environment: { A: '1', B: '1' }
    ports: ['8080:80']
    volumes: ['data:/data', './site:/srv']
    depends_on: [db]
    healthcheck: { test: [CMD, a], interval: 5s }
    dns: 10.0.0.1
  db: { extends: base, image: db }
  base: { image: base, stop_signal: SIGINT }
  command: { image: a, build: ./a }
volumes: { data: }
";

const OVER: &str = "\
services:
  web:
    image: web:2
    command: run it
    environment: [B=2, C=3]
    ports: ['127.0.0.1:8443:443', '8080:80']
    volumes: ['./other:/data', 'cache:/cache']
    depends_on: { cache: { condition: service_healthy } }
    healthcheck: { test: [CMD, b] }
    dns: [10.0.0.2]
  base: { stop_signal: SIGHUP }
  command: { build: { args: [X=1] } }
  cache: { image: cache }
volumes: { cache: }
name: shop
";

#[track_caller]
fn check(over: &str, expected: Expect) {
    expected.assert_eq(&shown("compose.yaml", BASE, &[("compose.override.yml", over)], &[]));
}

#[test]
fn it_replaces_adds_and_goes_key_by_key() {
    check(
        OVER,
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
              base:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "base:latest"
                stop_signal: SIGHUP
              cache:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "cache:latest"
              command:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "a:latest"
              db:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "db:latest"
                stop_signal: SIGINT
              web:
                kind: container
                driver: native
                networks:
                  default: {}
                ports:
                  - "0.0.0.0:8080:80/tcp"
                  - "127.0.0.1:8443:443/tcp"
                depends_on:
                  cache: { condition: service_healthy }
                  db: { condition: service_started }
                image: "web:2"
                command: ["run", "it"]
                environment:
                  - "A=1"
                  - "B=2"
                  - "C=3"
                volumes:
                  - { type: volume, source: cache, target: "/cache" }
                  - { type: bind, source: "/srv/shop/other", bind: { propagation: private, create_host_path: true }, target: "/data" }
                  - { type: bind, source: "/srv/shop/site", bind: { propagation: private, create_host_path: true }, target: "/srv" }
                dns: ["10.0.0.1", "10.0.0.2"]
                healthcheck: { test: ["CMD", "b"], interval: 5000ms }
            volumes: [cache, data]
        "#]],
    );
}

#[test]
fn with_nothing_in_it_it_changes_nothing() {
    let without = shown("compose.yaml", BASE, &[], &[]);
    for over in ["", "# later\n"] {
        assert_eq!(shown("compose.yaml", BASE, &[("compose.override.yml", over)], &[]), without);
    }
}

#[test]
fn its_networks_come_after_those_below() {
    let base = "services: { web: { image: a, networks: [b, a] } }\nnetworks: { a: , b: , c: }\n";
    let over = "services: { web: { networks: [c] } }\n";
    let said = shown("compose.yaml", base, &[("compose.override.yml", over)], &[]);
    let at = |text: &str| said.rfind(text).unwrap();
    assert!(at("      b: {}") < at("      a: {}") && at("      a: {}") < at("      c: {}"), "{said}");
}

#[test]
fn what_is_wrong_in_it_is_told_of_it() {
    check(
        "services:
  web:
    imaeg: web:2
    depends_on: [nosuch]
    volumes: !rest []
",
        expect![[r#"
            compose.override.yml:3:5: there is no key `imaeg` here
              3 |     imaeg: web:2
                |     ^^^^^
              hint: did you mean `image`?

            compose.override.yml:4:18: there is no machine `nosuch`
              4 |     depends_on: [nosuch]
                |                  ^^^^^^
              hint: there are base, command, db, web

            compose.override.yml:5:14: tags (`!…`) mean nothing here
              5 |     volumes: !rest []
                |              ^^^^^^^
              hint: leave it out
        "#]],
    );
    check(
        "services: [",
        expect![[r#"
        compose.override.yml:2:1: not YAML: while parsing a node, did not find expected node content
          hint: look at this line and the one before: how far they are indented, and whether quotes and brackets are closed; a text with `: ` or ` #` in it stands in quotes
    "#]],
    );
    // And of the other what is wrong there.
    let wrong = BASE.replace("stop_signal", "stop_single");
    let over = ("docker-compose.override.yaml", "services: { db: { ports: [80] } }\n");
    expect![[r#"
        compose.yaml:13:24: there is no key `stop_single` here
         13 |   base: { image: base, stop_single: SIGINT }
            |                        ^^^^^^^^^^^
          hint: did you mean `stop_signal`?
    "#]]
    .assert_eq(&shown("compose.yaml", &wrong, &[over], &[]));
}

#[test]
fn several_go_over_each_other_in_their_order() {
    let base = "services: { web: { image: web:1, ports: ['8080:80'], environment: { A: 1, B: 1, C: 1 } } }\n";
    let one = "services: { web: { image: web:2, environment: [B=2, C=2] } }";
    let two = "services: { web: { ports: [{ target: 80, published: 8080, host_ip: 0.0.0.0 }], environment: [C=3] } }\n";
    let said = shown("base.yaml", base, &[("over1.yaml", one), ("over2.yaml", two)], &[]);
    let at = said.find("machines:").unwrap_or(0);
    expect![[r#"
        machines:
          web:
            kind: container
            driver: native
            networks:
              default: {}
            ports:
              - "0.0.0.0:8080:80/tcp"
            image: "web:2"
            environment:
              - "A=1"
              - "B=2"
              - "C=3"
    "#]]
    .assert_eq(&said[at..]);
    // The first that has something tells whose words they are in.
    let said = shown("base.yaml", "x-nothing: a\n", &[("over1.yaml", base)], &[]);
    assert!(said.contains("0.0.0.0:8080:80/tcp"), "{said}");
}

#[test]
fn problems_of_several_are_told_of_each() {
    let base = "machines: { web: { image: a, usre: b } }\n";
    let one = "\u{feff}machines:\n  web: { ports: [x] }\n";
    let two = "# later\nmachines: { web: { depends_on: [db] } }";
    let three = "services: { web: { image: b } }\n";
    expect![[r#"
        base.yaml:1:30: there is no key `usre` here
          1 | machines: { web: { image: a, usre: b } }
            |                              ^^^^
          hint: did you mean `user`?

        over1.yaml:2:18: `x` is not a port from 1 to 65535
          2 |   web: { ports: [x] }
            |                  ^
          hint: write it in digits, without a fraction and a unit

        over3.yaml:1:1: `services` stands here, and the files that this one goes with are in stead's words
          1 | services: { web: { image: b } }
            | ^^^^^^^^
          hint: write all of them with `machines`
    "#]]
    .assert_eq(&shown(
        "base.yaml",
        base,
        &[("over1.yaml", one), ("over2.yaml", two), ("over3.yaml", three)],
        &[],
    ));
    expect![[r#"
        over1.yaml:1:1: `machines` stands here, and the files that this one goes with are in Compose's words
          1 | machines: { web: { image: a, usre: b } }
            | ^^^^^^^^
          hint: write all of them with `services`
    "#]]
    .assert_eq(&shown("compose.yaml", three, &[("over1.yaml", base)], &[]));
}

const UNDER_TAGS: &str = "\
services:
  web:
    image: web
    ports: ['80:80', '443:443']
    environment: [A=1, B=1]
    healthcheck: { test: a, interval: 5s }
    volumes: ['data:/data', './x:/x']
  tool: { image: tool, profiles: [a] }
  one: { image: one, dns: [10.0.0.1], labels: { a: 1 } }
volumes: { data: }
";

const TAGS: &str = "\
services:
  web:
    ports: !override ['8443:443']
    environment: { A: !reset null, C: 3 }
    healthcheck: !reset
    volumes: !reset []
  tool: !override { image: other }
  one: { labels: { a: !override 2 }, dns: [10.0.0.4] }
  two: { extends: one, image: two, dns: !reset [], labels: !override [b=2] }
  three: { extends: { service: far, file: far.yaml } }
volumes: !reset {}
";

#[test]
fn what_is_below_does_not_count_under_a_tag() {
    let far = "services: { far: { extends: near, dns: !override 10.0.0.3 }, near: { image: far, dns: 10.0.0.2 } }\n";
    let said = shown("compose.yaml", UNDER_TAGS, &[("over.yaml", TAGS), ("far.yaml", far)], &[]);
    expect![[r#"
        machines:
          one:
            kind: container
            driver: native
            networks:
              default: {}
            image: "one:latest"
            labels:
              - "a=2"
            dns: ["10.0.0.1", "10.0.0.4"]
          three:
            kind: container
            driver: native
            networks:
              default: {}
            image: "far:latest"
            dns: ["10.0.0.3"]
          tool:
            kind: container
            driver: native
            networks:
              default: {}
            image: "other:latest"
          two:
            kind: container
            driver: native
            networks:
              default: {}
            image: "two:latest"
            labels:
              - "b=2"
          web:
            kind: container
            driver: native
            networks:
              default: {}
            ports:
              - "0.0.0.0:8443:443/tcp"
            image: "web:latest"
            environment:
              - "B=1"
              - "C=3"
    "#]]
    .assert_eq(&said[said.find("machines:").unwrap_or(0)..]);
}

#[test]
fn tags_count_in_what_is_included_and_in_a_file_alone() {
    let included = "include: [{ path: [base.yaml, more.yaml] }]\n";
    let others = [
        ("base.yaml", "machines: { a: { image: a, dns: [10.0.0.1], user: b } }\n"),
        ("more.yaml", "machines: { a: { dns: !reset [], user: !override c } }\n"),
    ];
    let include = shown("stead.yaml", included, &others, &[]);
    assert!(include.contains("user: \"c\"") && !include.contains("10.0.0.1"), "{include}");
    let alone = shown(
        "stead.yaml",
        "machines: { a: { image: a, dns: !reset [10.0.0.1], user: !override c } }\n",
        &[],
        &[],
    );
    assert!(alone.contains("user: \"c\"") && !alone.contains("10.0.0.1"), "{alone}");
}

#[test]
fn tags_stand_behind_keys_and_nowhere_else() {
    expect![[r#"
        compose.yaml:1:6: a tag (`!…`) stands in what has an anchor (`&…`)
          1 | x-a: &a { dns: !reset [] }
            |      ^^^^^
          hint: write the value without one of them

        compose.yaml:2:6: tags (`!…`) mean nothing here
          2 | x-b: &b !override {}
            |      ^^^^^^^^^^^^^^
          hint: leave it out

        compose.yaml:4:26: tags (`!…`) mean nothing here
          4 |   web: { image: a, dns: [!reset 10.0.0.1], !reset user: b, ports: !other [], <<: !override { init: t…
            |                          ^^^^^^^^^^^^^^^
          hint: leave it out

        compose.yaml:4:44: tags (`!…`) mean nothing here
          4 | …eb: { image: a, dns: [!reset 10.0.0.1], !reset user: b, ports: !other [], <<: !override { init: true…
            |                                          ^^^^^^^^^^^
          hint: leave it out

        compose.yaml:4:67: tags (`!…`) mean nothing here
          4 | …reset 10.0.0.1], !reset user: b, ports: !other [], <<: !override { init: true } }
            |                                          ^^^^^^^^
          hint: leave it out

        compose.yaml:4:82: tags (`!…`) mean nothing here
          4 | …, !reset user: b, ports: !other [], <<: !override { init: true } }
            |                                          ^^^^^^^^^^^^
          hint: leave it out
    "#]].assert_eq(&shown(
        "compose.yaml",
        "x-a: &a { dns: !reset [] }
x-b: &b !override {}
services:
  web: { image: a, dns: [!reset 10.0.0.1], !reset user: b, ports: !other [], <<: !override { init: true } }
",
        &[],
        &[],
    ));
    expect![[r#"
        stead.yaml:1:1: tags (`!…`) mean nothing here
          1 | !override machines: {}
            | ^^^^^^^^^^^^^^^^^^
          hint: leave it out
    "#]]
    .assert_eq(&shown("stead.yaml", "!override machines: {}\n", &[], &[]));
    expect![[r#"
        stead.yaml:1:1: tags (`!…`) mean nothing here
          1 | !reset { machines: {} }
            | ^^^^^^^^^
          hint: leave it out
    "#]]
    .assert_eq(&shown("stead.yaml", "!reset { machines: {} }\n", &[], &[]));
}

#[test]
fn a_name_is_taken_out_of_a_list_of_hosts_however_it_is_written() {
    for host in ["a:10.0.0.1", "a=10.0.0.1"] {
        let base = format!("services: {{ web: {{ image: a, extra_hosts: ['{host}', 'b:10.0.0.2'] }} }}\n");
        let over = "services: { web: { extra_hosts: { a: !reset null } } }\n";
        let shown = shown("compose.yaml", &base, &[("compose.override.yml", over)], &[]);
        assert!(shown.contains("10.0.0.2") && !shown.contains("10.0.0.1"), "{shown}");
    }
}
