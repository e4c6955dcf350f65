//! Volumes that are a path of this computer.

use expect_test::expect;

use super::super::containers::shown;

#[test]
fn a_volume_that_is_bound_is_its_path_wherever_it_is_mounted() {
    let text = r#"
include: [sub/more.yaml]
services:
  a:
    image: x
    volumes:
      - db_data:/a:ro
      - { type: volume, source: db_data, target: /b, read_only: true }
      - { source: rel, target: /c }
      - { type: bind, source: ./rel, target: /d }
      - plain:/e
      - ~/rel:/f
volumes:
  db_data: { driver: local, driver_opts: { type: none, o: bind, device: /srv/db } }
  rel: { driver_opts: { o: bind, device: data/../x } }
  plain:
  unused: { driver_opts: { type: none, o: bind, device: ~/u } }
"#;
    let more = "services: {b: {image: x, volumes: ['far:/a']}}\nvolumes: {far: {driver_opts: {type: none, o: bind, device: ./far}}}\n";
    let shown = shown("compose.yaml", text, &[("sub/more.yaml", more)], &[]);
    expect![[r#"
        machines:
          a:
            kind: container
            driver: native
            networks:
              default: {}
            image: "x:latest"
            volumes:
              - { type: bind, source: "/srv/db", bind: { propagation: private, create_host_path: false }, target: "/a", read_only: true }
              - { type: bind, source: "/srv/db", bind: { propagation: private, create_host_path: false }, target: "/b", read_only: true }
              - { type: bind, source: "/srv/shop/x", bind: { propagation: private, create_host_path: false }, target: "/c" }
              - { type: bind, source: "/srv/shop/rel", bind: { propagation: private, create_host_path: true }, target: "/d" }
              - { type: volume, source: plain, target: "/e" }
              - { type: bind, source: "/root/rel", bind: { propagation: private, create_host_path: true }, target: "/f" }
          b:
            kind: container
            driver: native
            networks:
              default: {}
            image: "x:latest"
            volumes:
              - { type: bind, source: "/srv/shop/sub/far", bind: { propagation: private, create_host_path: false }, target: "/a" }
        volumes: [plain]
    "#]].assert_eq(shown.find("machines:").map_or(&*shown, |at| &shown[at..]));
}

#[test]
fn options_of_a_bound_volume_that_do_not_go_together_are_told() {
    let text = r#"
services: { a: { image: x, volumes: [{ source: d, target: /d, bind: { propagation: slave } }] } }
volumes:
  a: { driver_opts: { type: none } }
  b: { driver_opts: { device: /b } }
  c: { driver_opts: { type: none, o: bind, device: /c, size: 1g } }
  d: { driver_opts: { type: none, o: bind, device: /d } }
  e: { driver_opts: { type: nfs, o: "addr=10.0.0.1", device: ":/e" } }
  f: { external: true, name: shared, driver_opts: { type: none, o: bind, device: /f } }
"#;
    expect![[r#"
        compose.yaml:2:38: `bind` says nothing of type `volume`
          2 | services: { a: { image: x, volumes: [{ source: d, target: /d, bind: { propagation: slave } }] } }
            |                                      ^^
          hint: leave it out, or write another `type`

        compose.yaml:4:3: nothing says which path the volume is
          4 |   a: { driver_opts: { type: none } }
            |   ^
          hint: write its `device`

        compose.yaml:5:3: a `device` is mounted as a path of this computer, or not at all
          5 |   b: { driver_opts: { device: /b } }
            |   ^
          hint: write `type: none` and `o: bind` beside it

        compose.yaml:6:3: what is in a path of this computer is not limited
          6 |   c: { driver_opts: { type: none, o: bind, device: /c, size: 1g } }
            |   ^
          hint: leave `size` out

        compose.yaml:8:29: `type: nfs` cannot be honoured
          8 |   e: { driver_opts: { type: nfs, o: "addr=10.0.0.1", device: ":/e" } }
            |                             ^^^
          hint: a volume can be a path of this computer, by `type: none`, `o: bind` and `device`; what is in memory is a `tmpfs` of the service

        compose.yaml:8:37: `o: addr=10.0.0.1` cannot be honoured
          8 |   e: { driver_opts: { type: nfs, o: "addr=10.0.0.1", device: ":/e" } }
            |                                     ^^^^^^^^^^^^^^^
          hint: a volume can be a path of this computer, by `type: none`, `o: bind` and `device`; what is in memory is a `tmpfs` of the service

        compose.yaml:9:3: the volume is another project's and a path of this computer at once
          9 |   f: { external: true, name: shared, driver_opts: { type: none, o: bind, device: /f } }
            |   ^
          hint: leave `external` or `driver_opts` out
    "#]].assert_eq(&shown("compose.yaml", text, &[], &[]));
}
