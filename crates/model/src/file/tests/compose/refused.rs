//! What cannot be honoured, and how that is told.

use expect_test::expect;

use super::super::containers::shown;
use super::check;

#[test]
fn a_mac_and_processor_time_that_mean_nothing_are_told() {
    check(
        "services:
  a: {image: x, mac_address: 02:00:00:00:00:01, networks: [default, n], cpu_quota: 1000, cpu_period: 1000000, userns_mode: auto}
  b: {image: x, mac_address: 02:00:00:00:00:02, networks: {n: {mac_address: 02:00:00:00:00:03}}, cpu_quota: 5000, cpus: 2}
  c: {image: x, mac_address: 02:00:00:00:00:04, network_mode: none, cpu_quota: much, cpu_period: 2s}
networks: {n: }
volumes: {v: {labels: [a=b]}}
",
        expect![[r#"
            compose.yaml:2:17: `mac_address` of a service is for one that is on one network, and says none there
              2 |   a: {image: x, mac_address: 02:00:00:00:00:01, networks: [default, n], cpu_quota: 1000, cpu_period:…
                |                 ^^^^^^^^^^^
              hint: write it under one of its `networks` instead

            compose.yaml:2:73: `cpu_quota` is less than a hundredth of a processor
              2 | …00:00:00:00:01, networks: [default, n], cpu_quota: 1000, cpu_period: 1000000, userns_mode: auto}
                |                                          ^^^^^^^^^
              hint: give it more, or a shorter `cpu_period`

            compose.yaml:2:124: `userns_mode: auto` cannot be honoured
              2 | …1000, cpu_period: 1000000, userns_mode: auto}
                |                                          ^^^^
              hint: machines have no user namespace of their own: leave it out

            compose.yaml:3:17: `mac_address` of a service is for one that is on one network, and says none there
              3 |   b: {image: x, mac_address: 02:00:00:00:00:02, networks: {n: {mac_address: 02:00:00:00:00:03}}, cpu…
                |                 ^^^^^^^^^^^
              hint: write it under one of its `networks` instead

            compose.yaml:3:98: `cpu_quota` and `cpus` exclude each other
              3 | … {n: {mac_address: 02:00:00:00:00:03}}, cpu_quota: 5000, cpus: 2}
                |                                          ^^^^^^^^^
              hint: leave one of them out

            compose.yaml:4:17: `mac_address` of a service is for one that is on one network, and says none there
              4 |   c: {image: x, mac_address: 02:00:00:00:00:04, network_mode: none, cpu_quota: much, cpu_period: 2s}
                |                 ^^^^^^^^^^^
              hint: write it under one of its `networks` instead

            compose.yaml:4:80: `much` is not a time
              4 |   c: {image: x, mac_address: 02:00:00:00:00:04, network_mode: none, cpu_quota: much, cpu_period: 2s}
                |                                                                                ^^^^
              hint: it is written in microseconds, like `50000`, or like `50ms`

            compose.yaml:4:98: `2s` is too long a period
              4 |   c: {image: x, mac_address: 02:00:00:00:00:04, network_mode: none, cpu_quota: much, cpu_period: 2s}
                |                                                                                                  ^^
              hint: it is at most a second, `1000000`
        "#]],
    );
}

#[test]
fn what_is_elsewhere_is_named() {
    check(
        "include: ['https://example.org/a.yaml', 'oci://example.org/a:1', 'git@example.org:a.git']
services:
  a: {image: x, secrets: [s], volumes: [{type: npipe, source: a, target: /a}, {type: cluster, source: a, target: /b}]}
  b: {extends: {service: b, file: 'https://example.org/b.yaml'}}
secrets: {s: {external: true}}
configs: {c: {external: false}}
",
        expect![[r#"
            compose.yaml:1:11: `https://example.org/a.yaml` is not of this computer, and is not fetched
              1 | include: ['https://example.org/a.yaml', 'oci://example.org/a:1', 'git@example.org:a.git']
                |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: fetch it yourself, and name the file

            compose.yaml:1:41: `oci://example.org/a:1` is not of this computer, and is not fetched
              1 | include: ['https://example.org/a.yaml', 'oci://example.org/a:1', 'git@example.org:a.git']
                |                                         ^^^^^^^^^^^^^^^^^^^^^^^
              hint: fetch it yourself, and name the file

            compose.yaml:1:66: `git@example.org:a.git` is not of this computer, and is not fetched
              1 | include: ['https://example.org/a.yaml', 'oci://example.org/a:1', 'git@example.org:a.git']
                |                                                                  ^^^^^^^^^^^^^^^^^^^^^^^
              hint: fetch it yourself, and name the file

            compose.yaml:3:48: `npipe` is not `volume` or `bind` or `tmpfs`
              3 | …mage: x, secrets: [s], volumes: [{type: npipe, source: a, target: /a}, {type: cluster, source: a, ta…
                |                                          ^^^^^
              hint: `volume`: a volume of `volumes`, or one that goes with the machine | `bind`: a file or directory of this computer | `tmpfs`: a file system in memory

            compose.yaml:3:86: `cluster` is not `volume` or `bind` or `tmpfs`
              3 | …: npipe, source: a, target: /a}, {type: cluster, source: a, target: /b}]}
                |                                          ^^^^^^^
              hint: `volume`: a volume of `volumes`, or one that goes with the machine | `bind`: a file or directory of this computer | `tmpfs`: a file system in memory

            compose.yaml:4:3: machine `b` has no image
              4 |   b: {extends: {service: b, file: 'https://example.org/b.yaml'}}
                |   ^
              hint: write `image: debian:12`, or whichever it is made of

            compose.yaml:4:16: `https://example.org/b.yaml` is not of this computer, and is not fetched
              4 |   b: {extends: {service: b, file: 'https://example.org/b.yaml'}}
                |                ^
              hint: fetch it yourself, and name the file

            compose.yaml:5:25: `external: true` cannot be honoured
              5 | secrets: {s: {external: true}}
                |                         ^^^^
              hint: nothing outside of the project keeps any: write `file:`, `content:` or `environment:` instead

            compose.yaml:6:11: nothing says what is in it
              6 | configs: {c: {external: false}}
                |           ^
              hint: write `file:`, `content:` or `environment:`
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is every key")]
fn what_cannot_be_honoured_is_refused_by_name() {
    check(
        r#"models: {m: {model: x}}
services:
  my_app:
    image: x
  a:
    build: .
    image: x
    logging: {driver: json-file, options: {compress: "true", tag: x, max-size: 10}}
    network_mode: host
    ports: ["3000", "127.0.0.1::80", {target: 80}, "8000-8002:80", "80:80/sctp"]
    links: ["db:database"]
    container_name: My_App
    pid: host
    ipc: host
    userns_mode: host
    cpu_quota: 50000
    mem_swappiness: 10
    gpus: all
    runtime: runsc
    volumes_from: [b]
    external_links: [c]
    mac_address: 02:00:00:00:00:01
    dns_opt: [ndots:1]
    domainname: example
    cgroup_parent: x
    storage_opt: {size: 1G}
    post_start: [{command: x}]
    develop: {watch: []}
    oom_kill_disable: true
    extra_hosts: ["host.docker.internal:gateway"]
    security_opt: [label=disable, apparmor:unconfined, apparmor=mine]
    volumes: [nosuch:/x, "data:/y:z", {type: bind, source: ./a, target: /a, bind: {selinux: z}, consistency: cached}]
    env_file: [{path: web.env, format: raw}]
    depends_on: {b: {condition: service_started, restart: true}}
    deploy: {mode: global, endpoint_mode: vip, placement: {}, restart_policy: {condition: any, max_attempts: 3}, resources: {reservations: {cpus: "1", devices: []}}}
    blkio_config: {weight_device: []}
    networks: {default: {priority: 5, link_local_ips: [], driver_opts: {}}, n: {}}
    secrets: [{source: s, uid: "1", mode: 0400}]
    unknown_key: 1
  b: {image: x, x-any: 1, attach: false, mode: system}
networks:
  n: {driver: overlay, external: true, name: other, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.254, ip_range: 10.9.0.0/25}, {subnet: 10.10.0.0/24}]}}
  n_: {attachable: true, labels: [a], driver_opts: {x: 1}}
volumes:
  data: {driver: nfs, driver_opts: {o: bind}, name: x}
  Data: {external: true}
secrets:
  s: {environment: TOKEN}
configs:
  c: {content: hello}
"#,
        expect![[r#"
            compose.yaml:1:1: `models` cannot be honoured: language models are not run here
              1 | models: {m: {model: x}}
                | ^^^^^^
              hint: run one in a service

            compose.yaml:8:80: `10` does not hold a line
              8 |     logging: {driver: json-file, options: {compress: "true", tag: x, max-size: 10}}
                |                                                                                ^^
              hint: write `1k` or more

            compose.yaml:9:5: `network_mode` and `networks` exclude each other
              9 |     network_mode: host
                |     ^^^^^^^^^^^^
              hint: leave one of them out

            compose.yaml:10:52: 3 ports cannot lead to 1 targets
             10 |     ports: ["3000", "127.0.0.1::80", {target: 80}, "8000-8002:80", "80:80/sctp"]
                |                                                    ^^^^^^^^^^^^^^
              hint: both ranges have the same length

            compose.yaml:10:68: `sctp` is not `tcp` or `udp`
             10 |     ports: ["3000", "127.0.0.1::80", {target: 80}, "8000-8002:80", "80:80/sctp"]
                |                                                                    ^^^^^^^^^^^^
              hint: no other can be published; machines of one network reach each other by any

            compose.yaml:11:13: there is no machine `db`
             11 |     links: ["db:database"]
                |             ^^^^^^^^^^^^^
              hint: did you mean `b`?

            compose.yaml:12:21: `my-app` is the name of another machine
             12 |     container_name: My_App
                |                     ^^^^^^
              hint: take another alias; names that several machines have in common are none of a machine

            compose.yaml:13:5: `pid` cannot be honoured: every machine has its own
             13 |     pid: host
                |     ^^^
              hint: leave it out

            compose.yaml:14:10: `ipc: host` cannot be honoured
             14 |     ipc: host
                |          ^^^^
              hint: every machine has its own: leave it out

            compose.yaml:17:5: `mem_swappiness` cannot be honoured: the kernel decides what it swaps
             17 |     mem_swappiness: 10
                |     ^^^^^^^^^^^^^^
              hint: write `memswap_limit`

            compose.yaml:18:5: `gpus` cannot be honoured: devices are not chosen by what they can do
             18 |     gpus: all
                |     ^^^^
              hint: name them under `devices`

            compose.yaml:19:14: `runtime: runsc` cannot be honoured
             19 |     runtime: runsc
                |              ^^^^^
              hint: stead is the runtime: leave it out

            compose.yaml:20:5: `volumes_from` cannot be honoured: volumes are named
             20 |     volumes_from: [b]
                |     ^^^^^^^^^^^^
              hint: name them under `volumes` of both

            compose.yaml:21:5: `external_links` cannot be honoured: machines of other projects are not linked
             21 |     external_links: [c]
                |     ^^^^^^^^^^^^^^
              hint: put both into one project

            compose.yaml:22:5: `mac_address` of a service is for one that is on one network, and says none there
             22 |     mac_address: 02:00:00:00:00:01
                |     ^^^^^^^^^^^
              hint: write it under one of its `networks` instead

            compose.yaml:23:5: `dns_opt` cannot be honoured: the resolver has no options
             23 |     dns_opt: [ndots:1]
                |     ^^^^^^^
              hint: leave it out

            compose.yaml:24:5: `domainname` cannot be honoured: a host has one name
             24 |     domainname: example
                |     ^^^^^^^^^^
              hint: write the whole of it as `hostname`

            compose.yaml:25:5: `cgroup_parent` cannot be honoured: every machine has its own
             25 |     cgroup_parent: x
                |     ^^^^^^^^^^^^^
              hint: leave it out

            compose.yaml:26:5: `storage_opt` cannot be honoured: the size of a root is not limited
             26 |     storage_opt: {size: 1G}
                |     ^^^^^^^^^^^
              hint: leave it out

            compose.yaml:27:5: `post_start` cannot be honoured: nothing is run beside the program
             27 |     post_start: [{command: x}]
                |     ^^^^^^^^^^
              hint: let the image's entrypoint do it

            compose.yaml:29:23: `oom_kill_disable: true` cannot be honoured
             29 |     oom_kill_disable: true
                |                       ^^^^
              hint: write `oom_score_adj: -1000`

            compose.yaml:30:19: `gateway` is not an address
             30 |     extra_hosts: ["host.docker.internal:gateway"]
                |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: an address is written like `127.0.0.1` or `::1`

            compose.yaml:31:56: the security option `apparmor=mine` cannot be honoured
             31 |     security_opt: [label=disable, apparmor:unconfined, apparmor=mine]
                |                                                        ^^^^^^^^^^^^^
              hint: there are `no-new-privileges`, `seccomp=unconfined` and `seccomp=<path of a profile>`

            compose.yaml:32:15: there is no volume `nosuch`
             32 |     volumes: [nosuch:/x, "data:/y:z", {type: bind, source: ./a, target: /a, bind: {selinux: z}, cons…
                |               ^^^^^^^^^
              hint: there are data, data

            compose.yaml:35:20: `mode: global` cannot be honoured
             35 |     deploy: {mode: global, endpoint_mode: vip, placement: {}, restart_policy: {condition: any, max_a…
                |                    ^^^^^^
              hint: write `replicas`

            compose.yaml:35:110: `condition: any` has no number of attempts
             35 | …_policy: {condition: any, max_attempts: 3}, resources: {reservations: {cpus: "1", devices: []}}}
                |                                          ^
              hint: write `condition: on-failure`, or leave it out

            compose.yaml:35:152: `devices` cannot be honoured: devices are not chosen by what they can do
             35 | …, resources: {reservations: {cpus: "1", devices: []}}}
                |                                          ^^^^^^^
              hint: name them under `devices`

            compose.yaml:36:20: `weight_device` cannot be honoured: a weight holds for all disks
             36 |     blkio_config: {weight_device: []}
                |                    ^^^^^^^^^^^^^
              hint: leave it out, or use `weight`

            compose.yaml:37:39: `link_local_ips` cannot be honoured: a nic has one address of each family
             37 |     networks: {default: {priority: 5, link_local_ips: [], driver_opts: {}}, n: {}}
                |                                       ^^^^^^^^^^^^^^
              hint: leave it out

            compose.yaml:37:59: `driver_opts` cannot be honoured: drivers have no options here
             37 |     networks: {default: {priority: 5, link_local_ips: [], driver_opts: {}}, n: {}}
                |                                                           ^^^^^^^^^^^
              hint: leave it out

            compose.yaml:38:27: `uid` cannot be honoured: what is no file of yours all can read
             38 |     secrets: [{source: s, uid: "1", mode: 0400}]
                |                           ^^^
              hint: leave it out, or write it to a file and name that

            compose.yaml:38:37: `mode` cannot be honoured: what is no file of yours all can read
             38 |     secrets: [{source: s, uid: "1", mode: 0400}]
                |                                     ^^^^
              hint: leave it out, or write it to a file and name that

            compose.yaml:39:5: there is no key `unknown_key` here
             39 |     unknown_key: 1
                |     ^^^^^^^^^^^
              hint: leave it out

            compose.yaml:40:42: there is no key `mode` here
             40 |   b: {image: x, x-any: 1, attach: false, mode: system}
                |                                          ^^^^
              hint: leave it out

            compose.yaml:42:15: `driver: overlay` cannot be honoured
             42 |   n: {driver: overlay, external: true, name: other, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 1…
                |               ^^^^^^^
              hint: leave it out: every network is a bridge

            compose.yaml:42:53: `ipam` of an external network is not this project's to say
             42 | …: overlay, external: true, name: other, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.254, i…
                |                                          ^^^^
              hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project

            compose.yaml:42:100: the gateway `10.9.0.254` cannot be honoured
             42 | …config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.254, ip_range: 10.9.0.0/25}, {subnet: 10.10.0.0/24}]}…
                |                                          ^^^^^^^^^^
              hint: it is the first address, `10.9.0.1`: leave it out

            compose.yaml:42:112: `ip_range` cannot be honoured: addresses come from the whole subnet
             42 | …bnet: 10.9.0.0/24, gateway: 10.9.0.254, ip_range: 10.9.0.0/25}, {subnet: 10.10.0.0/24}]}}
                |                                          ^^^^^^^^
              hint: leave it out

            compose.yaml:42:145: a network has at most one subnet of each family
             42 | …0.254, ip_range: 10.9.0.0/25}, {subnet: 10.10.0.0/24}]}}
                |                                          ^^^^^^^^^^^^
              hint: leave one of them out, or make it a network of its own

            compose.yaml:43:3: `n` and `n_` are both `n` here
             43 |   n_: {attachable: true, labels: [a], driver_opts: {x: 1}}
                |   ^^
              hint: rename one of them

            compose.yaml:43:53: there is no key `x` here
             43 |   n_: {attachable: true, labels: [a], driver_opts: {x: 1}}
                |                                                     ^
              hint: there are com.docker.network.driver.mtu

            compose.yaml:45:3: nothing says which path the volume is
             45 |   data: {driver: nfs, driver_opts: {o: bind}, name: x}
                |   ^^^^
              hint: write its `device`

            compose.yaml:45:18: `driver: nfs` cannot be honoured
             45 |   data: {driver: nfs, driver_opts: {o: bind}, name: x}
                |                  ^^^
              hint: leave it out: every volume is local

            compose.yaml:46:3: `data` and `Data` are both `data` here
             46 |   Data: {external: true}
                |   ^^^^
              hint: rename one of them

            compose.yaml:46:3: the volume `data` stands here twice
             46 |   Data: {external: true}
                |   ^^^^
              hint: leave one of them out
        "#]],
    );
}

#[test]
fn what_of_a_build_cannot_be_honoured_is_named() {
    let text = "services:
  web:
    build:
      context: .
      platforms: [linux/amd64]
      ssh: [default]
      network: host
";
    let said = shown("compose.yaml", text, &[], &[]);
    for key in ["platforms", "ssh", "network"] {
        assert!(said.contains(&format!("`{key}` cannot be honoured")), "{key} is not in\n{said}");
    }
}
