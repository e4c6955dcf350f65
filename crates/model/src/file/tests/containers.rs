//! Machines that stead runs: every key, what is wrong with it, and any container at all.

mod any;
mod builds;
mod extends;
mod labels;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use expect_test::expect;

pub(super) use any::any_container;

use super::{check, read};
use crate::file::{
    COMPOSE_OVERRIDES, FileText, Origins, Pull, Source, Variables, files, parse, render_json_with,
    render_with,
};

/// A file whose project is `shop` in `/srv/shop`, with other files beside it.
#[track_caller]
fn check_with(text: &str, others: &[(&str, &str)], profiles: &[&str], expected: expect_test::Expect) {
    let shown = shown("stead.yaml", text, others, profiles);
    expected.assert_eq(
        shown.find("machines:").filter(|_| shown.starts_with("name:")).map_or(&*shown, |at| &shown[at..]),
    );
}

/// The project that a file is, or what is said of it.
pub(super) fn shown(file_name: &str, text: &str, others: &[(&str, &str)], profiles: &[&str]) -> String {
    let env = [("TOKEN", "t$1"), ("HOME", "/root")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = Variables::from(env);
    let profiles: BTreeSet<String> = profiles.iter().map(|name| (*name).to_owned()).collect();
    let dir = std::path::Path::new("/srv/shop");
    let over = others.iter().filter(|(name, _)| name.starts_with("over") || COMPOSE_OVERRIDES.contains(name));
    let (names, over): (Vec<&str>, Vec<String>) =
        over.map(|(name, text)| (*name, (*text).to_owned())).unzip();
    let source = Source { profiles: &profiles, over: &over, ..Source::new(file_name, text, &env, dir) };
    let files = files(&source, |path| {
        let found = others.iter().find(|(name, _)| dir.join(name) == path);
        found.map_or(FileText::Missing, |(_, text)| FileText::Text((*text).to_owned()))
    });
    match parse(&Source { files: &files, ..source }) {
        Ok(parsed) => {
            let warnings = parsed.warnings.map_or(String::new(), |warnings| warnings.to_string());
            format!("{}{warnings}", crate::file::render(&parsed.project))
        }
        Err(problems) => {
            let names = [file_name].into_iter().chain(names).map(str::to_owned);
            let parts = problems.parted(&names.zip(source.lines()).collect::<Vec<_>>());
            parts.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn a_machine_with_an_image_is_a_container_of_ours() {
    check_with(
        "machines: {web: {image: nginx}}",
        &[],
        &[],
        expect![[r#"
        machines:
          web:
            kind: container
            driver: native
            networks:
              default: {}
            image: "nginx:latest"
    "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is every key")]
fn every_key_of_a_container_is_read() {
    check_with(
        r#"
defaults: {user: nobody, stop_grace_period: 3s}
secrets: {password: {file: secret/password.txt}}
configs: {site: {file: /etc/site.conf}}
volumes: [data]
machines:
  db: {image: "postgres:16", healthcheck: {test: pg_isready, interval: 2s}}
  web:
    image: 127.0.0.1:5000/lab/web:1.2
    platform: arm64
    mode: system
    entrypoint: /entry.sh --mode "a b"
    command: ["--x", 8, "$$HOME"]
    environment: [A=1, B=, TOKEN]
    env_file: [one.env, {path: two.env, required: false}, {path: none.env, required: false}]
    working_dir: /srv
    user: 1000:1000
    group_add: [audio, 44]
    hostname: web1.example
    labels: {team: shop, "a.b/c": , n: 7}
    tty: true
    stdin_open: true
    init: true
    volumes:
      - data:/var/lib/data
      - ./site/../www:/srv/www/:ro
      - ~/cache:/cache:rslave
      - /own
      - {type: bind, source: ../x, target: /x, read_only: true, bind: {create_host_path: false, propagation: shared}}
      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700, uid: 7, gid: "8"}}
      - {type: volume, source: data, target: /again}
    tmpfs: /run:size=64m,uid=1000,gid=1000,mode=1770
    secrets: [password, {source: password, target: pw}, {source: password, target: /etc/pw}]
    configs: [site]
    extra_hosts: ["printer:10.1.0.9", "six=[fd00::1]", "printer=10.1.0.8", "printer:10.1.0.9"]
    dns: 10.1.0.53
    dns_search: [corp.example]
    cpus: 1.5
    cpu_shares: 512
    cpuset: 0-1
    mem_limit: 512m
    memswap_limit: 1g
    mem_reservation: 256m
    pids_limit: 100
    blkio_config: {weight: 500, device_read_bps: [{path: /dev/sda, rate: 1mb}, {path: "/dev/disk/by-id/a:1", rate: 5}], device_write_iops: [{path: /dev/sda, rate: 10}]}
    shm_size: 128m
    ulimits: {nofile: {soft: 1024, hard: 4096}, core: 0, memlock: -1}
    oom_score_adj: -500
    deploy: {resources: {limits: {cpus: "1.5", pids: 100}}}
    cap_add: [cap_net_admin, SYS_TIME]
    cap_drop: [all]
    privileged: true
    security_opt: ["no-new-privileges:true", seccomp=./seccomp.json]
    read_only: true
    devices: [/dev/fuse, "/dev/sda:/dev/x:r", {source: /dev/kvm, permissions: rw}]
    sysctls: {net.ipv4.ip_forward: 1}
    stop_signal: INT
    stop_grace_period: 1m30s
    restart: on-failure:3
    healthcheck: {test: [CMD, curl, -f, localhost], timeout: 3s, retries: 5, start_period: 1m, start_interval: 500ms}
    depends_on: {db: {condition: service_healthy}}
"#,
        &[("one.env", "A=0\nC=one # said\nD=$TOKEN\nTOKEN\n"), ("two.env", "C='two'\n")],
        &[],
        expect![[r#"
            machines:
              db:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "postgres:16"
                user: "nobody"
                stop_grace_period: 3000ms
                healthcheck: { test: [CMD-SHELL, "pg_isready"], interval: 2000ms }
              web:
                kind: container
                driver: native
                networks:
                  default: {}
                depends_on:
                  db: { condition: service_healthy }
                image: "127.0.0.1:5000/lab/web:1.2"
                platform: "linux/arm64"
                mode: system
                entrypoint: ["/entry.sh", "--mode", "a b"]
                command: ["--x", "8", "$$HOME"]
                environment:
                  - "A=1"
                  - "B="
                  - "C=two"
                  - "D=t$$1"
                  - "TOKEN=t$$1"
                working_dir: "/srv"
                user: "1000:1000"
                group_add: ["44", "audio"]
                hostname: "web1.example"
                labels:
                  - "a.b/c="
                  - "n=7"
                  - "team=shop"
                tty: true
                stdin_open: true
                init: true
                volumes:
                  - { type: volume, source: data, target: "/again" }
                  - { type: bind, source: "/root/cache", bind: { propagation: slave, create_host_path: true }, target: "/cache" }
                  - { type: bind, source: "/srv/shop/secret/password.txt", bind: { propagation: private, create_host_path: false }, target: "/etc/pw", read_only: true }
                  - { type: tmpfs, tmpfs: { size: 67108864, mode: "1770", uid: 1000, gid: 1000 }, target: "/run" }
                  - { type: bind, source: "/srv/shop/secret/password.txt", bind: { propagation: private, create_host_path: false }, target: "/run/secrets/password", read_only: true }
                  - { type: bind, source: "/srv/shop/secret/password.txt", bind: { propagation: private, create_host_path: false }, target: "/run/secrets/pw", read_only: true }
                  - { type: bind, source: "/etc/site.conf", bind: { propagation: private, create_host_path: false }, target: "/site", read_only: true }
                  - { type: bind, source: "/srv/shop/www", bind: { propagation: private, create_host_path: true }, target: "/srv/www", read_only: true }
                  - { type: tmpfs, tmpfs: { size: 1048576, mode: "700", uid: 7, gid: 8 }, target: "/t" }
                  - { type: volume, source: data, target: "/var/lib/data" }
                  - { type: bind, source: "/srv/x", bind: { propagation: shared, create_host_path: false }, target: "/x", read_only: true }
                  - { type: volume, target: "/own" }
                extra_hosts:
                  - "printer=10.1.0.9"
                  - "printer=10.1.0.8"
                  - "six=fd00::1"
                dns: ["10.1.0.53"]
                dns_search: ["corp.example"]
                cpus: 1.500
                cpu_shares: 512
                cpuset: "0-1"
                mem_limit: 536870912
                memswap_limit: 1073741824
                mem_reservation: 268435456
                pids_limit: 100
                blkio_config: { weight: 500, device_read_bps: [{ path: "/dev/disk/by-id/a:1", rate: 5 }, { path: "/dev/sda", rate: 1048576 }], device_write_iops: [{ path: "/dev/sda", rate: 10 }] }
                shm_size: 134217728
                ulimits:
                  core: { soft: 0, hard: 0 }
                  memlock: { soft: -1, hard: -1 }
                  nofile: { soft: 1024, hard: 4096 }
                oom_score_adj: -500
                cap_add: ["NET_ADMIN", "SYS_TIME"]
                cap_drop: ["ALL"]
                privileged: true
                security_opt: ["no-new-privileges", "seccomp=/srv/shop/seccomp.json"]
                read_only: true
                devices:
                  - { source: "/dev/fuse", target: "/dev/fuse", permissions: rwm }
                  - { source: "/dev/sda", target: "/dev/x", permissions: r }
                  - { source: "/dev/kvm", target: "/dev/kvm", permissions: rw }
                sysctls:
                  - "net.ipv4.ip_forward=1"
                stop_signal: SIGINT
                stop_grace_period: 90000ms
                restart: "on-failure:3"
                healthcheck: { test: ["CMD", "curl", "-f", "localhost"], timeout: 3000ms, start_period: 60000ms, start_interval: 500ms, retries: 5 }
            volumes: [data]
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one file and what is said of it")]
fn every_problem_of_containers_is_told() {
    check(
        r#"
secrets: {password: {file: ./p}, "a/b": {file: x}}
machines:
  a:
    image: Debian 12
    comand: x
    entrypoint: "echo 'open"
    environment: [A, "=b"]
    env_file: nowhere.env
    working_dir: srv
    user: "a b"
    volumes: [dat:/x, data:/x, x, {type: bind, target: /y}, {target: /z, bind: {}}, {type: tmpfs, source: data, target: /q}]
    tmpfs: ["/x:noexec", "/y"]
    secrets: [pasword]
    extra_hosts: ["a:gateway"]
    cpus: 0.001
    mem_limit: 5q
    ulimits: {nofile: {soft: 5, hard: 4}, files: 1}
    deploy: {resources: {limits: {cpus: 2}}}
    cap_add: [NET_ADMN]
    security_opt: [apparmor=mine]
    devices: [fuse]
    blkio_config: {device_read_bps: [{path: sda, rate: 1q}, {path: /dev/sda}], device_write_iops: [{path: /dev/sda, rate: 10}, {path: /dev/sda, rate: 1k}, {path: /dev/sda, rate: 11}]}
    sysctls: {vm.swappiness: 1}
    stop_signal: SIGFOO
    stop_grace_period: 10
    restart: allways
    healthcheck: {test: [curl]}
    platform: windows/amd64/x/y
    pull_policy: build
  b:
    image: web
    cpus: 1
    mem_limit: 100m
    memswap_limit: 50m
    mem_reservation: 200m
    deploy: {resources: {limits: {cpus: 2, memory: 100m}}}
    volumes: [./a:/a, "/b:/a", "~/x:/c"]
    healthcheck: {disable: true}
    ports: [80]
  c: {image: web, driver: external}
  d: {image: web, kind: vm}
  e: {kind: container}
  f: {driver: native, kind: container}
  g: {command: x, depends_on: {b: {condition: service_healthy}, e: {condition: service_done}, h: {condition: service_completed_successfully}}}
  h: {kind: vm, driver: external}
volumes: [data]
"#,
        expect![[r#"
            stead.yaml:2:34: `a/b` cannot name a file
              2 | secrets: {password: {file: ./p}, "a/b": {file: x}}
                |                                  ^^^^^
              hint: letters, digits, `_`, `.` and `-`, not first `.` or `-`

            stead.yaml:5:12: `Debian 12` is no image: a name has parts of `a-z`, `0-9`, and single `.`, `_`, `-` within them, with `/` between
              5 |     image: Debian 12
                |            ^^^^^^^^^
              hint: an image is written like `debian:12` or `ghcr.io/owner/name:1.2`

            stead.yaml:6:5: there is no key `comand` here
              6 |     comand: x
                |     ^^^^^^
              hint: did you mean `command`?

            stead.yaml:7:17: `echo 'open` has a `'` that is not closed
              7 |     entrypoint: "echo 'open"
                |                 ^^^^^^^^^^^^
              hint: close it, or write a list of words

            stead.yaml:8:19: the variable `A` is not set
              8 |     environment: [A, "=b"]
                |                   ^
              hint: set it, or give it a value here; `""` is an empty one

            stead.yaml:8:22: `` cannot be a name
              8 |     environment: [A, "=b"]
                |                      ^^^^
              hint: write `NAME=value`

            stead.yaml:9:15: there is no file `nowhere.env`
              9 |     env_file: nowhere.env
                |               ^^^^^^^^^^^
              hint: write it, or `{ path: …, required: false }`

            stead.yaml:10:18: `srv` is not an absolute path
             10 |     working_dir: srv
                |                  ^^^
              hint: it starts with `/`

            stead.yaml:11:11: `a b` is not `user` or `user:group`
             11 |     user: "a b"
                |           ^^^^^
              hint: names or numbers, like `1000:1000`

            stead.yaml:12:15: there is no volume `dat`
             12 |     volumes: [dat:/x, data:/x, x, {type: bind, target: /y}, {target: /z, bind: {}}, {type: tmpfs, so…
                |               ^^^^^^
              hint: did you mean `data`?

            stead.yaml:12:23: two things are mounted at `/x`
             12 |     volumes: [dat:/x, data:/x, x, {type: bind, target: /y}, {target: /z, bind: {}}, {type: tmpfs, so…
                |                       ^^^^^^^
              hint: leave one of them out

            stead.yaml:12:32: `x` is not a place in the machine
             12 |     volumes: [dat:/x, data:/x, x, {type: bind, target: /y}, {target: /z, bind: {}}, {type: tmpfs, so…
                |                                ^
              hint: a place is an absolute path, like `/srv/data`

            stead.yaml:12:35: a bind needs the path of its `source`
             12 |     volumes: [dat:/x, data:/x, x, {type: bind, target: /y}, {target: /z, bind: {}}, {type: tmpfs, so…
                |                                   ^
              hint: it starts with `/`, `./`, `../` or `~/`

            stead.yaml:12:61: `bind` says nothing of type `volume`
             12 | …, data:/x, x, {type: bind, target: /y}, {target: /z, bind: {}}, {type: tmpfs, source: data, target: …
                |                                          ^
              hint: leave it out, or write another `type`

            stead.yaml:12:85: `source` says nothing of type `tmpfs`
             12 | …d, target: /y}, {target: /z, bind: {}}, {type: tmpfs, source: data, target: /q}]
                |                                          ^
              hint: leave it out, or write another `type`

            stead.yaml:13:13: two things are mounted at `/x`
             13 |     tmpfs: ["/x:noexec", "/y"]
                |             ^^^^^^^^^^^
              hint: leave one of them out

            stead.yaml:14:15: there is no secret `pasword`
             14 |     secrets: [pasword]
                |               ^^^^^^^
              hint: did you mean `password`?

            stead.yaml:15:19: `gateway` is not an address
             15 |     extra_hosts: ["a:gateway"]
                |                   ^^^^^^^^^^^
              hint: an address is written like `127.0.0.1` or `::1`

            stead.yaml:16:11: `0.001` is not a number of processors
             16 |     cpus: 0.001
                |           ^^^^^
              hint: it is written like `0.5`, `2` or `1.25`, and at least `0.01`

            stead.yaml:17:16: `5q` is not a size
             17 |     mem_limit: 5q
                |                ^^
              hint: a size is written like `512m`, `1.5g`, or `1048576` for bytes

            stead.yaml:18:15: what holds of `nofile` is above what it may be raised to
             18 |     ulimits: {nofile: {soft: 5, hard: 4}, files: 1}
                |               ^^^^^^
              hint: `soft` is at most `hard`

            stead.yaml:18:43: there is no key `files` here
             18 |     ulimits: {nofile: {soft: 5, hard: 4}, files: 1}
                |                                           ^^^^^
              hint: there are as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack

            stead.yaml:20:15: there is no capability `NET_ADMN`
             20 |     cap_add: [NET_ADMN]
                |               ^^^^^^^^
              hint: did you mean `NET_ADMIN`?

            stead.yaml:21:20: the security option `apparmor=mine` cannot be honoured
             21 |     security_opt: [apparmor=mine]
                |                    ^^^^^^^^^^^^^
              hint: there are `no-new-privileges`, `seccomp=unconfined` and `seccomp=<path of a profile>`

            stead.yaml:22:15: `fuse` is not a device of this computer
             22 |     devices: [fuse]
                |               ^^^^
              hint: it is written like `/dev/fuse`

            stead.yaml:23:45: `sda` is not a disk of this computer
             23 | …blkio_config: {device_read_bps: [{path: sda, rate: 1q}, {path: /dev/sda}], device_write_iops: [{path…
                |                                          ^^^
              hint: it is written like `/dev/sda`

            stead.yaml:23:56: `1q` is not a size
             23 | …g: {device_read_bps: [{path: sda, rate: 1q}, {path: /dev/sda}], device_write_iops: [{path: /dev/sda,…
                |                                          ^^
              hint: a size is written like `512m`, `1.5g`, or `1048576` for bytes

            stead.yaml:23:61: the key `rate` is missing
             23 | …evice_read_bps: [{path: sda, rate: 1q}, {path: /dev/sda}], device_write_iops: [{path: /dev/sda, rate…
                |                                          ^
              hint: write `rate: 10mb`

            stead.yaml:23:151: `1k` is not a whole number from 1 to 4294967295
             23 | …/sda, rate: 10}, {path: /dev/sda, rate: 1k}, {path: /dev/sda, rate: 11}]}
                |                                          ^^
              hint: write it in digits, without a fraction and a unit

            stead.yaml:23:163: `/dev/sda` has a rate already
             23 | …10}, {path: /dev/sda, rate: 1k}, {path: /dev/sda, rate: 11}]}
                |                                          ^^^^^^^^
              hint: leave one of them out

            stead.yaml:24:15: `vm.swappiness` is not a kernel parameter that a container has of its own
             24 |     sysctls: {vm.swappiness: 1}
                |               ^^^^^^^^^^^^^
              hint: there are `net.…`, `kernel.msg…`, `kernel.sem`, `kernel.shm…` and `fs.mqueue.…`

            stead.yaml:25:18: `SIGFOO` is no signal, such as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`
             25 |     stop_signal: SIGFOO
                |                  ^^^^^^
              hint: `SIGTERM` asks a program to end, and is the usual one

            stead.yaml:26:24: `10` is not a time
             26 |     stop_grace_period: 10
                |                        ^^
              hint: with its unit: `10ms`, `10s` or `10m`

            stead.yaml:27:14: `allways` is not `no`, `on-failure`, `on-failure:<times>`, `always` or `unless-stopped`
             27 |     restart: allways
                |              ^^^^^^^
              hint: did you mean `always`?

            stead.yaml:28:25: the test is no command
             28 |     healthcheck: {test: [curl]}
                |                         ^
              hint: write `[CMD, program, …]`, `[CMD-SHELL, "a line"]`, `[NONE]`, or a line for the shell

            stead.yaml:29:15: `windows/amd64/x/y` is no platform, such as `linux/amd64` or `linux/arm64/v8`
             29 |     platform: windows/amd64/x/y
                |               ^^^^^^^^^^^^^^^^^
              hint: leave it out for this computer's own, or write it as "system/processor"

            stead.yaml:35:20: memory and swap together are less than memory alone
             35 |     memswap_limit: 50m
                |                    ^^^
              hint: `memswap_limit` is at least `mem_limit`

            stead.yaml:36:22: it cannot get by with more memory than it may use
             36 |     mem_reservation: 200m
                |                      ^^^^
              hint: `mem_reservation` is at most `mem_limit`

            stead.yaml:37:41: `cpus` says something else
             37 |     deploy: {resources: {limits: {cpus: 2, memory: 100m}}}
                |                                         ^
              hint: leave one of them out

            stead.yaml:38:23: two things are mounted at `/a`
             38 |     volumes: [./a:/a, "/b:/a", "~/x:/c"]
                |                       ^^^^^^^
              hint: leave one of them out

            stead.yaml:41:7: `image` says what stead is to run, but somebody else runs machine `c`
             41 |   c: {image: web, driver: external}
                |       ^^^^^
              hint: leave it out, or write `driver: native`

            stead.yaml:42:14: a vm is made from a file yet, and `web:latest` is an image's name
             42 |   d: {image: web, kind: vm}
                |              ^^^
              hint: write the path of a disk image, like `./debian-12.qcow2`

            stead.yaml:43:3: no driver of this version runs machine `e` of kind `container`
             43 |   e: {kind: container}
                |   ^
              hint: write its `image`, or `driver: external` if somebody else runs it

            stead.yaml:44:3: machine `f` has no image
             44 |   f: {driver: native, kind: container}
                |   ^
              hint: write `image: debian:12`, or whichever it is made of

            stead.yaml:45:3: machine `g` has no image
             45 |   g: {command: x, depends_on: {b: {condition: service_healthy}, e: {condition: service_done}, h: {co…
                |   ^
              hint: write `image: debian:12`, or whichever it is made of; or its `kind` and `driver: external`, if somebody else runs it

            stead.yaml:45:32: machine `b` is never known to be healthy: its health check is off
             45 |   g: {command: x, depends_on: {b: {condition: service_healthy}, e: {condition: service_done}, h: {co…
                |                                ^
              hint: write `condition: service_started`

            stead.yaml:45:80: `service_done` is not `service_started` or `service_healthy` or `service_completed_successfully`
             45 | …ition: service_healthy}, e: {condition: service_done}, h: {condition: service_completed_successfully…
                |                                          ^^^^^^^^^^^^
              hint: `service_started`: it was started | `service_healthy`: its health check says that it is well | `service_completed_successfully`: it ended, and with 0

            stead.yaml:45:95: machine `h` is never known to be completed: somebody else runs it
             45 | …healthy}, e: {condition: service_done}, h: {condition: service_completed_successfully}}}
                |                                          ^
              hint: write `condition: service_started`
        "#]],
    );
}

#[test]
fn several_machines_are_found_by_one_name() {
    check_with(
        "machines: {web: {image: nginx, replicas: 2, networks: {default: {aliases: [www]}}}, lb: {image: lb, depends_on: [web]}, nobody: {image: x, deploy: {replicas: 0}}}",
        &[],
        &[],
        expect![[r#"
            machines:
              lb:
                kind: container
                driver: native
                networks:
                  default: {}
                depends_on: [web-1, web-2]
                image: "lb:latest"
              web-1:
                kind: container
                driver: native
                networks:
                  default: { aliases: [web, www] }
                image: "nginx:latest"
              web-2:
                kind: container
                driver: native
                networks:
                  default: { aliases: [web, www] }
                image: "nginx:latest"
        "#]],
    );
    check(
        "networks: {n: {subnet: 10.0.0.0/24}}\nmachines: {web: {image: nginx, replicas: 2, ports: [80], networks: {n: {address: 10.0.0.7}}}, web-1: {image: x}, o: {image: x, replicas: 0}, l: {image: x, depends_on: [o]}}",
        expect![[r#"
            stead.yaml:2:42: there is a machine `web-1` already
              2 | …achines: {web: {image: nginx, replicas: 2, ports: [80], networks: {n: {address: 10.0.0.7}}}, web-1: …
                |                                          ^
              hint: rename one of them

            stead.yaml:2:53: several machines cannot be published on one port
              2 | …eb: {image: nginx, replicas: 2, ports: [80], networks: {n: {address: 10.0.0.7}}}, web-1: {image: x},…
                |                                          ^^
              hint: write `0:80`: then each has a port that this computer chooses; or publish one machine that passes on to them, all found by their common name

            stead.yaml:2:82: several machines cannot have one address
              2 | …2, ports: [80], networks: {n: {address: 10.0.0.7}}}, web-1: {image: x}, o: {image: x, replicas: 0}, …
                |                                          ^^^^^^^^
              hint: leave it out, or write one machine

            stead.yaml:2:169: machine `o` has no replicas
              2 | …eplicas: 0}, l: {image: x, depends_on: [o]}}
                |                                          ^
              hint: leave it out, or write `required: false` under it
        "#]],
    );
    let parsed = read("machines:\n  web: {image: x, replicas: 2, pull_policy: always}\n").unwrap();
    assert_eq!(parsed.sources.find("machines.web-2").map(|span| (span.line, span.column)), Some((2, 3)));
    let pulls = ["web-1", "web-2"].map(|name| (name.parse().unwrap(), Pull::Always));
    assert_eq!(parsed.pull, BTreeMap::from(pulls));
}

#[test]
fn profiles_leave_machines_out() {
    let text = "machines:\n  web: {image: x, depends_on: {dbg: {required: false}}}\n  dbg: {image: y, profiles: [debug, all], env_file: none.env}\n";
    check_with(
        text,
        &[],
        &[],
        expect![[r#"
        machines:
          web:
            kind: container
            driver: native
            networks:
              default: {}
            image: "x:latest"
    "#]],
    );
    check_with(
        text,
        &[("none.env", "A=1")],
        &["debug"],
        expect![[r#"
            machines:
              dbg:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "y:latest"
                environment:
                  - "A=1"
              web:
                kind: container
                driver: native
                networks:
                  default: {}
                depends_on: [dbg]
                image: "x:latest"
        "#]],
    );
    check_with(
        "machines:\n  web: {image: x, depends_on: [dbg]}\n  dbg: {image: y, profiles: [debug]}\n",
        &[],
        &[],
        expect![[r#"
            stead.yaml:2:32: machine `dbg` is only there with profile `debug`
              2 |   web: {image: x, depends_on: [dbg]}
                |                                ^^^
              hint: ask for the profile, give this machine the same, or write `required: false`
        "#]],
    );
    let dormant = read(text).unwrap().dormant;
    assert_eq!(
        dormant,
        BTreeMap::from([("dbg".parse().unwrap(), ["debug", "all"].map(String::from).into())])
    );
    // Each of several by its own name, unless another has that.
    let text = "machines:\n  w: {image: x, replicas: 2, profiles: [a]}\n  rest: {image: x, replicas: 0}\n  w-1: {image: x}\n";
    let dormant = read(text).unwrap().dormant;
    let dormant: Vec<String> =
        dormant.iter().map(|(name, profiles)| format!("{name} {profiles:?}")).collect();
    assert_eq!(dormant, ["rest {}", "w-2 {\"a\"}"]);
}

#[test]
fn bad_lines_of_other_files_are_told_where_they_are_named() {
    check_with(
        "machines:\n  a:\n    image: x\n    env_file:\n      - bad.env\n      - none.env\n      - ~/x.env\n",
        &[("bad.env", "OK=1\n1A=2\nB=$NOPE\n")],
        &[],
        expect![[r#"
            stead.yaml:5:9: in `bad.env`, line 2, column 1: `1A` cannot name a variable
              5 |       - bad.env
                |         ^^^^^^^
              hint: a name has letters, digits, `_`, `.` and `-` and starts with a letter or `_`

            stead.yaml:5:9: in `bad.env`, line 3, column 1: the variable `NOPE` is not set
              5 |       - bad.env
                |         ^^^^^^^
              hint: set it, or write `${NOPE:-default}`, or `${NOPE:-}` for an empty text

            stead.yaml:6:9: there is no file `none.env`
              6 |       - none.env
                |         ^^^^^^^^
              hint: write it, or `{ path: …, required: false }`

            stead.yaml:7:9: there is no file `~/x.env`
              7 |       - ~/x.env
                |         ^^^^^^^
              hint: write it, or `{ path: …, required: false }`
        "#]],
    );
}

/// A few lines that would be millions of values; what is said of them, without the lines.
#[track_caller]
fn check_bomb(text: &str, others: &[(&str, &str)], expected: &str) {
    let shown = shown("stead.yaml", text, others, &[]);
    let said = shown.lines().find(|line| line.contains("more than")).unwrap_or(&shown);
    assert_eq!(said, expected);
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    let many: String = (0..3000).map(|n| format!("A{n}=1,")).collect();
    let lines = many.replace(',', "\n");
    let machines = |keys: &str| (0..900).map(|n| format!("  m{n}: {{{keys}}}\n")).collect::<String>();
    check_bomb(
        &format!("machines:\n  base: {{image: x, environment: [{many}]}}\n{}", machines("extends: base")),
        &[],
        "stead.yaml:35:3: the machines have more than 100000 values with all that they extend",
    );
    check_bomb(
        &format!("machines:\n{}", machines("image: x, env_file: f.env")),
        &[("f.env", &lines)],
        "stead.yaml:36:3: the machines have more than 100000 variables and labels with those of their files",
    );
    check_bomb(
        &format!("machines:\n{}", machines("image: x, replicas: 100, environment: {A: 1, B: 2}")),
        &[],
        "stead.yaml:252:30: the machines of which there are several have more than 100000 values",
    );
    let long: String = (0..90_000).map(|n| format!("A{n}=1,")).collect();
    assert!(read(&format!("machines: {{a: {{image: x, environment: [{long}]}}}}\n")).is_ok());
}

#[test]
fn a_project_is_json_with_the_types_of_its_values() {
    let text = "name: shop
machines:
  web: { image: web, command: ['8080', 'yes', $$HOME], hostname: '1', tty: true, mem_limit: 8m, networks: [] }
";
    let json = crate::file::render_json(&read(text).unwrap().project);
    let expected = serde_json::json!({ "name": "shop", "machines": { "web": {
        "kind": "container", "driver": "native", "networks": [], "image": "web:latest",
        "command": ["8080", "yes", "$HOME"], "hostname": "1", "tty": true, "mem_limit": 8_388_608,
    } } });
    assert_eq!(json, expected);
}

#[test]
fn a_limit_of_memory_that_nothing_can_be_started_in_is_refused() {
    let text = |size: &str| format!("machines: {{ a: {{ image: x, mem_limit: {size}, networks: [] }} }}\n");
    assert!(read(&text("6m")).is_ok() && read(&text("-1")).is_ok());
    let said = read(&text("1k")).unwrap_err().to_string();
    let expected = "stead.yaml:1:39: no program can be started in so little memory";
    assert!(said.starts_with(expected) && said.contains("hint: 6 MiB are the least: `6m`"), "{said}");
}

#[test]
fn secrets_and_configs_are_mounted_in_their_long_form_as_well() {
    let text = "machines:
  a:
    image: a
    secrets: [word, { source: key }, { source: key, target: other }]
    configs: [{ source: site, target: /etc/site.conf }]
    networks: []
secrets: { word: { file: w }, key: { file: k } }
configs: { site: { file: s } }
";
    let project = read(text).unwrap().project;
    let container = project.machines[&"a".parse().unwrap()].runs.container().unwrap();
    let places: Vec<&String> = container.mounts.keys().collect();
    assert_eq!(places, ["/etc/site.conf", "/run/secrets/key", "/run/secrets/other", "/run/secrets/word"]);
}
