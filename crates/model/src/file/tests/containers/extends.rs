//! Machines that take from another what they do not say.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "it is data")]
fn a_machine_takes_from_another_what_it_does_not_say() {
    check_with(
        r#"
volumes: [data]
machines:
  base:
    image: one
    command: serve --all
    environment: [A=base, B=base]
    networks: [default]
    volumes: [./a:/a, ./b:/b]
    depends_on: [far]
    healthcheck: {test: [CMD, a, b], interval: 5s}
    cap_add: [NET_ADMIN]
    dns: 10.0.0.53
    deploy: {resources: {limits: {cpus: 1, pids: 5}}}
  web:
    extends: base
    image: two
    command:
    environment: {B: web}
    networks: {default: {aliases: [www]}}
    volumes: [data:/b]
    depends_on: {far: {condition: service_healthy}}
    healthcheck: {test: c}
    cap_add: [NET_ADMIN, SYS_TIME]
    dns: [10.0.0.54]
    deploy: {resources: {limits: {cpus: 2}}}
  far:
    extends: {machine: far, file: common/more.yaml}
    environment: {OWN: 1}
"#,
        &[
            (
                "common/more.yaml",
                "machines:\n  far: {extends: {machine: root, file: ../root.yaml}, env_file: far.env, volumes: [\"./x:/x:ro,slave\", ~/h:/h]}\n",
            ),
            (
                "root.yaml",
                "machines: {root: {image: root, environment: {R: 1}, security_opt: [seccomp=./s.json]}}\n",
            ),
            ("common/far.env", "FAR=1\n"),
        ],
        &[],
        expect![[r#"
            machines:
              base:
                kind: container
                driver: native
                networks:
                  default: {}
                depends_on: [far]
                image: "one:latest"
                command: ["serve", "--all"]
                environment:
                  - "A=base"
                  - "B=base"
                volumes:
                  - { type: bind, source: "/srv/shop/a", bind: { propagation: private, create_host_path: true }, target: "/a" }
                  - { type: bind, source: "/srv/shop/b", bind: { propagation: private, create_host_path: true }, target: "/b" }
                dns: ["10.0.0.53"]
                cpus: 1.000
                pids_limit: 5
                cap_add: ["NET_ADMIN"]
                healthcheck: { test: ["CMD", "a", "b"], interval: 5000ms }
              far:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "root:latest"
                environment:
                  - "FAR=1"
                  - "OWN=1"
                  - "R=1"
                volumes:
                  - { type: bind, source: "/root/h", bind: { propagation: private, create_host_path: true }, target: "/h" }
                  - { type: bind, source: "/srv/shop/common/x", bind: { propagation: slave, create_host_path: true }, target: "/x", read_only: true }
                security_opt: ["seccomp=/srv/shop/s.json"]
              web:
                kind: container
                driver: native
                networks:
                  default: { aliases: [www] }
                depends_on:
                  far: { condition: service_healthy }
                image: "two:latest"
                environment:
                  - "A=base"
                  - "B=web"
                volumes:
                  - { type: bind, source: "/srv/shop/a", bind: { propagation: private, create_host_path: true }, target: "/a" }
                  - { type: volume, source: data, target: "/b" }
                dns: ["10.0.0.53", "10.0.0.54"]
                cpus: 2.000
                pids_limit: 5
                cap_add: ["NET_ADMIN", "SYS_TIME"]
                healthcheck: { test: [CMD-SHELL, "c"], interval: 5000ms }
            volumes: [data]
        "#]],
    );
    check_with(
        r#"
machines:
  a: {extends: b}
  b: {extends: c}
  c: {extends: a, image: x}
  d: {extends: basee, image: x}
  e: {extends: {machine: x, file: bad.yaml}, image: x}
  f: {extends: {machine: y, file: bad.yaml}, image: x}
  g: {extends: {machine: y, file: none.yaml}, image: x}
  base: {image: y}
"#,
        &[("bad.yaml", "machines:\n  x: {imag: y, volumes: [x]}\n")],
        &[],
        expect![[r#"
            stead.yaml:3:16: machines extend each other: `b → c → a → b`
              3 |   a: {extends: b}
                |                ^
              hint: leave one of them out

            stead.yaml:4:16: machines extend each other: `c → a → b → c`
              4 |   b: {extends: c}
                |                ^
              hint: leave one of them out

            stead.yaml:5:16: machines extend each other: `a → b → c → a`
              5 |   c: {extends: a, image: x}
                |                ^
              hint: leave one of them out

            stead.yaml:6:16: there is no machine `basee` to extend
              6 |   d: {extends: basee, image: x}
                |                ^^^^^
              hint: did you mean `base`?

            stead.yaml:7:16: in `bad.yaml`, line 2, column 7: there is no key `imag` here
              7 |   e: {extends: {machine: x, file: bad.yaml}, image: x}
                |                ^
              hint: did you mean `image`?

            stead.yaml:7:16: in `bad.yaml`, line 2, column 26: `x` is not a place in the machine
              7 |   e: {extends: {machine: x, file: bad.yaml}, image: x}
                |                ^
              hint: a place is an absolute path, like `/srv/data`

            stead.yaml:8:16: there is no machine `y` to extend
              8 |   f: {extends: {machine: y, file: bad.yaml}, image: x}
                |                ^
              hint: did you mean `x`?

            stead.yaml:9:16: there is no file `none.yaml`
              9 |   g: {extends: {machine: y, file: none.yaml}, image: x}
                |                ^
              hint: write it, or name another; a path is relative to the file that names it
        "#]],
    );
}
