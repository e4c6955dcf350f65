//! `include`: projects of several files.

use expect_test::{Expect, expect};

use super::containers::shown;

#[track_caller]
fn check(file_name: &str, text: &str, others: &[(&str, &str)], expected: Expect) {
    expected.assert_eq(&shown(file_name, text, others, &[]));
}

#[test]
fn what_an_included_file_takes_nothing_of_is_taken_nothing_of() {
    let others = [
        (
            "inc.yaml",
            "services: { web: { extends: { file: base.yaml, service: base }, ports: !override ['1:1'], dns: !reset [] } }\n",
        ),
        ("base.yaml", "services: { base: { image: web, ports: ['2:2'], dns: [10.0.0.1] } }\n"),
    ];
    let shown = shown("compose.yaml", "include: [inc.yaml]\n", &others, &[]);
    assert!(shown.contains(":1:1") && !shown.contains(":2:2") && !shown.contains("10.0.0.1"), "{shown}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one project")]
fn what_other_files_have_is_this_projects_with_their_paths_and_variables() {
    let db = "
x-any: 1
services:
  db:
    image: postgres:${PG}
    env_file: db.env
    environment: { TOKEN: '${TOKEN}' }
    volumes: [./init:/init:ro, data:/var/lib/data]
    secrets: [password]
    networks: [back]
  extended: { extends: { file: more/base.yaml, service: base } }
volumes: { data: }
networks: { back: }
secrets: { password: { file: ./password.txt } }
";
    let others = [
        ("db/compose.yaml", db),
        ("db/.env", "PG=16\nTOKEN=theirs\n"),
        ("db/db.env", "FROM=db.env\n"),
        ("db/more/base.yaml", "services: { base: { image: base, volumes: ['./here:/here'] } }\n"),
        ("proxy.yaml", "include: [third.yaml]\nservices: { proxy: { image: 'nginx:${NGINX}' } }\n"),
        ("proxy.override.yaml", "services: { proxy: { read_only: true } }\n"),
        ("proxy.env", "NGINX=1.27\n"),
        (
            "elsewhere/third.yaml",
            "services: { third: { image: third, volumes: ['./t:/t'] } }\nnetworks: { back: }\n",
        ),
    ];
    let text = "name: shop
include:
  - db/compose.yaml
  - { path: [proxy.yaml, proxy.override.yaml], env_file: proxy.env, project_directory: elsewhere }
services:
  web: { image: web, depends_on: [db], networks: [back, default] }
";
    check(
        "compose.yaml",
        text,
        &others,
        expect![[r#"
            name: shop
            networks:
              back:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: off, lease: 3600s, slaac: false }
              default:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: auto, lease: 3600s, slaac: false }
            machines:
              db:
                kind: container
                driver: native
                networks:
                  back: {}
                image: "postgres:16"
                environment:
                  - "FROM=db.env"
                  - "TOKEN=t$$1"
                volumes:
                  - { type: bind, source: "/srv/shop/db/init", bind: { propagation: private, create_host_path: true }, target: "/init", read_only: true }
                  - { type: bind, source: "/srv/shop/db/password.txt", bind: { propagation: private, create_host_path: false }, target: "/run/secrets/password", read_only: true }
                  - { type: volume, source: data, target: "/var/lib/data" }
              extended:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "base:latest"
                volumes:
                  - { type: bind, source: "/srv/shop/db/more/here", bind: { propagation: private, create_host_path: true }, target: "/here" }
              proxy:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "nginx:1.27"
                read_only: true
              third:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "third:latest"
                volumes:
                  - { type: bind, source: "/srv/shop/elsewhere/t", bind: { propagation: private, create_host_path: true }, target: "/t" }
              web:
                kind: container
                driver: native
                networks:
                  back: {}
                  default: {}
                depends_on: [db]
                image: "web:latest"
            volumes: [data]
        "#]],
    );
}

#[test]
fn a_file_of_ours_includes_others_of_ours() {
    let others =
        [("db/stead.yaml", "machines: { db: { image: db, volumes: [data:/d] } }\nvolumes: [data]\n")];
    let text =
        "include: [db/stead.yaml]\nmachines: { web: { image: web, depends_on: [db] } }\nvolumes: [other]\n";
    check(
        "stead.yaml",
        text,
        &others,
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
          db:
            kind: container
            driver: native
            networks:
              default: {}
            image: "db:latest"
            volumes:
              - { type: volume, source: data, target: "/d" }
          web:
            kind: container
            driver: native
            networks:
              default: {}
            depends_on: [db]
            image: "web:latest"
        volumes: [data, other]
    "#]],
    );
}

#[test]
fn what_is_wrong_with_an_include_is_told_where_it_stands() {
    let others = [
        ("same.yaml", "services: { a: { image: x } }\nnetworks: { n: }\n"),
        ("other.yaml", "services: { a: { image: y } }\n"),
        ("wrong.yaml", "services: { b: { imag: y } }\n"),
        ("circle.yaml", "include: [round.yaml]\n"),
        ("round.yaml", "include: [circle.yaml]\n"),
    ];
    let text = "include:
  - same.yaml
  - other.yaml
  - wrong.yaml
  - nosuch.yaml
  - circle.yaml
  - { path: same.yaml, env_file: nosuch.env }
services: { a: { image: x } }
networks: { n: }
";
    check(
        "compose.yaml",
        text,
        &others,
        expect![[r#"
            compose.yaml:3:5: `services.a` is in `other.yaml` as well, and not the same
              3 |   - other.yaml
                |     ^^^^^^^^^^
              hint: give one of them another name, or `extends` it

            compose.yaml:4:5: in `wrong.yaml`, line 1, column 18: there is no key `imag` here
              4 |   - wrong.yaml
                |     ^^^^^^^^^^
              hint: did you mean `image`?

            compose.yaml:4:5: machine `b` has no image
              4 |   - wrong.yaml
                |     ^^^^^^^^^^
              hint: write `image: debian:12`, or whichever it is made of

            compose.yaml:5:5: there is no file `nosuch.yaml`
              5 |   - nosuch.yaml
                |     ^^^^^^^^^^^
              hint: write it, or name another; a path is relative to the file that names it

            compose.yaml:6:5: files include each other: `circle.yaml → round.yaml → circle.yaml`
              6 |   - circle.yaml
                |     ^^^^^^^^^^^
              hint: leave one of them out

            compose.yaml:7:5: there is no file `nosuch.env`
              7 |   - { path: same.yaml, env_file: nosuch.env }
                |     ^^
              hint: write it, or name another; a path is relative to the file that names it
        "#]],
    );
    let others = [("b.yaml", "defaults: { user: '1' }\nmachines: { b: { image: x } }\n")];
    check(
        "stead.yaml",
        "include: [b.yaml]\nmachines: {}\n",
        &others,
        expect![[r#"
        stead.yaml:1:11: `b.yaml` has `defaults`, which hold in one file only
          1 | include: [b.yaml]
            |           ^^^^^^
          hint: write what they say under its machines
    "#]],
    );
}
