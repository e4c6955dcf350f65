//! Published ports as a file says them.

use expect_test::expect;

use super::*;

#[test]
fn a_port_may_be_left_for_the_computer_to_choose() {
    check(
        "machines:\n  web: { image: web, ports: ['0:80', '127.0.0.2:0:80/udp', {port: 0, target: 81}, '80'] }\n  \
         many: { image: web, replicas: 2, ports: ['0:80'] }",
        expect![[r#"
            name: my-shop
            networks:
              default:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: auto, lease: 3600s, slaac: false }
            machines:
              many-1:
                kind: container
                driver: native
                networks:
                  default: { aliases: [many] }
                ports:
                  - "127.0.0.1:0:80/tcp"
                image: "web:latest"
              many-2:
                kind: container
                driver: native
                networks:
                  default: { aliases: [many] }
                ports:
                  - "127.0.0.1:0:80/tcp"
                image: "web:latest"
              web:
                kind: container
                driver: native
                networks:
                  default: {}
                ports:
                  - "127.0.0.1:0:80/tcp"
                  - "127.0.0.2:0:80/udp"
                  - "127.0.0.1:0:81/tcp"
                  - "127.0.0.1:80:80/tcp"
                image: "web:latest"
        "#]],
    );
}

#[test]
fn what_is_left_to_choose_is_one_port_of_each_machine() {
    check(
        "machines:\n  a: { image: web, ports: ['0-10:80-90'] }\n  b: { image: web, ports: ['0:80-90'] }\n  \
         c: { image: web, ports: ['0:80', '0:80'] }\n  d: { image: web, ports: ['0'] }\n  \
         e: { image: web, ports: ['80:0'] }\n  f: { image: web, replicas: 2, ports: ['0:80', '81:81'] }\n  \
         g: { image: web, ports: [{port: 0, target: 80-81}] }",
        expect![[r#"
            stead.yaml:2:28: `0-10` is no range: `0` alone is one port that this computer chooses
              2 |   a: { image: web, ports: ['0-10:80-90'] }
                |                            ^^^^^^^^^^^^
              hint: write `0:80` for each port that is to have one, or a range from 1 on

            stead.yaml:3:28: `0` is one port that this computer chooses, and cannot lead to 11 targets
              3 |   b: { image: web, ports: ['0:80-90'] }
                |                            ^^^^^^^^^
              hint: write `0:80`, `0:81` and so on

            stead.yaml:4:36: `0:80` stands here twice
              4 |   c: { image: web, ports: ['0:80', '0:80'] }
                |                                    ^^^^^^
              hint: leave one of them out

            stead.yaml:5:28: `0` is not a port from 1 to 65535
              5 |   d: { image: web, ports: ['0'] }
                |                            ^^^
              hint: write `1` or more

            stead.yaml:6:28: `0` is not a port from 1 to 65535
              6 |   e: { image: web, ports: ['80:0'] }
                |                            ^^^^^^
              hint: write `1` or more

            stead.yaml:7:49: several machines cannot be published on one port
              7 |   f: { image: web, replicas: 2, ports: ['0:80', '81:81'] }
                |                                                 ^^^^^^^
              hint: write `0:80`: then each has a port that this computer chooses; or publish one machine that passes on to them, all found by their common name

            stead.yaml:8:28: `0` is one port that this computer chooses, and cannot lead to 2 targets
              8 |   g: { image: web, ports: [{port: 0, target: 80-81}] }
                |                            ^
              hint: write `0:80`, `0:81` and so on
        "#]],
    );
}

#[test]
fn a_project_publishes_only_so_many_ports() {
    let ports: String = (0..17).map(|n| format!("\"127.0.0.{}:1-1024:1-1024\",\n", n + 1)).collect();
    check(
        &format!("defaults: {{kind: vm, driver: external}}\nmachines: {{a: {{ports: [\n{ports}]}}}}\n"),
        expect![[r#"
            stead.yaml:19:1: the project publishes more than 16384 ports
             19 | "127.0.0.17:1-1024:1-1024",
                | ^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: publish fewer, or reach machines by their own addresses
        "#]],
    );
}
