//! Files of the Compose specification, as people have them.

use expect_test::{Expect, expect};

use super::containers::shown;

/// A shop of some years.
pub(super) const SHOP: &str = r#"version: "3.8"
name: My_Shop
x-common: &common
  restart: unless-stopped
  env_file: web.env
  x-note: [nobody, reads, this]
services:
  web:
    <<: *common
    image: 127.0.0.1:5000/shop/web:${TAG:-1.0}
    container_name: shopfront
    command: gunicorn -b 0.0.0.0:8000 "shop:app"
    ports:
      - "8080:8000"
      - "127.0.0.1:8443:8443/tcp"
      - target: 53
        published: "5353"
        protocol: udp
        mode: host
    expose: ["8000"]
    environment:
      DATABASE_URL: postgres://shop:${DB_PASSWORD}@db/shop
      DEBUG: "false"
      WORKERS: 4
      TOKEN:
      NOT_SET:
    networks: [front_end, back]
    depends_on:
      db: {condition: service_healthy, restart: false}
      cache: {condition: service_started}
    volumes:
      - static_files:/srv/static
      - ./config.toml:/etc/shop/config.toml:ro
      - type: volume
        source: static_files
        target: /srv/again
    secrets: [db_password]
    healthcheck:
      test: ["CMD-SHELL", "curl -f http://localhost:8000/ || exit 1"]
      interval: 30s
      timeout: 3s
      retries: 3
      start_period: 40s
    deploy:
      mode: replicated
      resources:
        limits: {cpus: "0.50", memory: 512M}
        reservations: {memory: 128M}
  worker:
    <<: *common
    image: 127.0.0.1:5000/shop/web:${TAG:-1.0}
    command: ["celery", "worker"]
    networks: {back: {aliases: [jobs]}}
    depends_on: [db, cache]
    scale: 2
    stop_grace_period: 1m30s
  db:
    image: postgres:16-alpine
    volumes: ["db_data:/var/lib/postgresql/data", /var/cache]
    networks: {back: {ipv4_address: 172.28.255.10}}
    shm_size: 128mb
    healthcheck: {test: pg_isready -U shop, interval: 5s}
  cache:
    image: redis:7
    links: [db]
    networks: [back]
    read_only: true
    tmpfs: /tmp
    ulimits: {nofile: {soft: 20000, hard: 40000}, nproc: 65535}
    sysctls: [net.core.somaxconn=1024]
    pull_policy: if_not_present
    profiles: []
  tools:
    image: busybox
    profiles: [debug]
    network_mode: none
networks:
  front_end:
  back:
    driver: bridge
    internal: true
    ipam: {driver: default, config: [{subnet: 172.28.0.0/16, gateway: 172.28.0.1}]}
    driver_opts: {com.docker.network.driver.mtu: 1400}
volumes:
  db_data:
  static_files: {driver: local}
secrets:
  db_password: {file: ./secrets/db_password.txt}
"#;

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&shown("compose.yaml", text, &[("web.env", "MODE=live\nEXTRA=$NOPE\n")], &[]));
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one file and what it is")]
fn a_web_service_with_a_database_a_cache_and_a_worker() {
    check(
        SHOP,
        expect![[r#"
            name: my-shop
            networks:
              back:
                subnet: 172.28.0.0/16
                subnet6: auto
                addressing: managed
                reach: "isolated"
                mtu: 1400
                dhcp: { pool: off, lease: 3600s, slaac: false }
              front-end:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: off, lease: 3600s, slaac: false }
            machines:
              cache:
                kind: container
                driver: native
                networks:
                  back: {}
                depends_on: [db]
                image: "redis:7"
                volumes:
                  - { type: tmpfs, target: "/tmp" }
                ulimits:
                  nofile: { soft: 20000, hard: 40000 }
                  nproc: { soft: 65535, hard: 65535 }
                read_only: true
                sysctls:
                  - "net.core.somaxconn=1024"
              db:
                kind: container
                driver: native
                networks:
                  back: { address: 172.28.255.10 }
                image: "postgres:16-alpine"
                volumes:
                  - { type: volume, source: db-data, target: "/var/lib/postgresql/data" }
                  - { type: volume, target: "/var/cache" }
                shm_size: 134217728
                healthcheck: { test: [CMD-SHELL, "pg_isready -U shop"], interval: 5000ms }
              web:
                kind: container
                driver: native
                networks:
                  front-end: { aliases: [shopfront] }
                  back: { aliases: [shopfront] }
                ports:
                  - "0.0.0.0:8080:8000/tcp"
                  - "127.0.0.1:8443:8443/tcp"
                  - "0.0.0.0:5353:53/udp"
                depends_on:
                  cache: { condition: service_started }
                  db: { condition: service_healthy }
                image: "127.0.0.1:5000/shop/web:1.0"
                command: ["gunicorn", "-b", "0.0.0.0:8000", "shop:app"]
                environment:
                  - "DATABASE_URL=postgres://shop:@db/shop"
                  - "DEBUG=false"
                  - "EXTRA="
                  - "MODE=live"
                  - "TOKEN=t$$1"
                  - "WORKERS=4"
                volumes:
                  - { type: bind, source: "/srv/shop/config.toml", bind: { propagation: private, create_host_path: true }, target: "/etc/shop/config.toml", read_only: true }
                  - { type: bind, source: "/srv/shop/secrets/db_password.txt", bind: { propagation: private, create_host_path: false }, target: "/run/secrets/db_password", read_only: true }
                  - { type: volume, source: static-files, target: "/srv/again" }
                  - { type: volume, source: static-files, target: "/srv/static" }
                cpus: 0.500
                mem_limit: 536870912
                mem_reservation: 134217728
                restart: "unless-stopped"
                healthcheck: { test: [CMD-SHELL, "curl -f http://localhost:8000/ || exit 1"], interval: 30000ms, timeout: 3000ms, start_period: 40000ms, retries: 3 }
              worker-1:
                kind: container
                driver: native
                networks:
                  back: { aliases: [jobs, worker] }
                depends_on: [cache, db]
                image: "127.0.0.1:5000/shop/web:1.0"
                command: ["celery", "worker"]
                environment:
                  - "EXTRA="
                  - "MODE=live"
                stop_grace_period: 90000ms
                restart: "unless-stopped"
              worker-2:
                kind: container
                driver: native
                networks:
                  back: { aliases: [jobs, worker] }
                depends_on: [cache, db]
                image: "127.0.0.1:5000/shop/web:1.0"
                command: ["celery", "worker"]
                environment:
                  - "EXTRA="
                  - "MODE=live"
                stop_grace_period: 90000ms
                restart: "unless-stopped"
            volumes: [db-data, static-files]
            compose.yaml:5:13: in `web.env`, line 2, column 1: the variable `NOPE` is not set, so it stands for nothing
              5 |   env_file: web.env
                |             ^^^^^^^
              hint: set it, or write `${NOPE:-default}`, or `${NOPE:-}` for an empty text

            compose.yaml:22:21: the variable `DB_PASSWORD` is not set, so it stands for nothing
             22 |       DATABASE_URL: postgres://shop:${DB_PASSWORD}@db/shop
                |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: set it, or write `${DB_PASSWORD:-default}`, or `${DB_PASSWORD:-}` for an empty text
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one file and what it is")]
fn a_blog_with_what_people_copy_from_each_other() {
    check(
        r#"services:
  db:
    image: mariadb:10.6.4-focal
    command: '--default-authentication-plugin=mysql_native_password'
    volumes:
      - db_data:/var/lib/mysql
    restart: always
    environment:
      - MYSQL_ROOT_PASSWORD=somewordpress
      - MYSQL_DATABASE=wordpress
    expose:
      - 3306
      - 33060
  wordpress:
    image: wordpress:latest
    ports:
      - 80:80
    restart: always
    environment:
      - WORDPRESS_DB_HOST=db
      - WORDPRESS_DB_PASSWORD=${WP_PASSWORD}
    cap_drop: [ALL]
    cap_add: [CHOWN, NET_BIND_SERVICE]
    security_opt: [no-new-privileges:true]
    init: true
    user: "33:33"
volumes:
  db_data:
"#,
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
                image: "mariadb:10.6.4-focal"
                command: ["--default-authentication-plugin=mysql_native_password"]
                environment:
                  - "MYSQL_DATABASE=wordpress"
                  - "MYSQL_ROOT_PASSWORD=somewordpress"
                volumes:
                  - { type: volume, source: db-data, target: "/var/lib/mysql" }
                restart: "always"
              wordpress:
                kind: container
                driver: native
                networks:
                  default: {}
                ports:
                  - "0.0.0.0:80:80/tcp"
                image: "wordpress:latest"
                environment:
                  - "WORDPRESS_DB_HOST=db"
                  - "WORDPRESS_DB_PASSWORD="
                user: "33:33"
                init: true
                cap_add: ["CHOWN", "NET_BIND_SERVICE"]
                cap_drop: ["ALL"]
                security_opt: ["no-new-privileges"]
                restart: "always"
            volumes: [db-data]
            compose.yaml:21:9: the variable `WP_PASSWORD` is not set, so it stands for nothing
             21 |       - WORDPRESS_DB_PASSWORD=${WP_PASSWORD}
                |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: set it, or write `${WP_PASSWORD:-default}`, or `${WP_PASSWORD:-}` for an empty text
        "#]],
    );
}

#[test]
fn a_variable_that_is_not_set_is_told_with_what_comes_of_it() {
    check(
        "services: {a: {image: 'nginx:${TAG}', user: \"$NOBODY\", group_add: [$GROUP], hostname: h$OTHER}}",
        expect![[r#"
            compose.yaml:1:23: the variable `TAG` is not set, so it stands for nothing
              1 | services: {a: {image: 'nginx:${TAG}', user: "$NOBODY", group_add: [$GROUP], hostname: h$OTHER}}
                |                       ^^^^^^^^^^^^^^
              hint: set it, or write `${TAG:-default}`, or `${TAG:-}` for an empty text

            compose.yaml:1:23: `nginx:` is no image: a tag has 1 to 128 of letters, digits, `_`, `.` and `-`, not first `.` or `-`
              1 | services: {a: {image: 'nginx:${TAG}', user: "$NOBODY", group_add: [$GROUP], hostname: h$OTHER}}
                |                       ^^^^^^^^^^^^^^
              hint: an image is written like `debian:12` or `ghcr.io/owner/name:1.2`

            compose.yaml:1:68: `` is not a group's name or number
              1 | services: {a: {image: 'nginx:${TAG}', user: "$NOBODY", group_add: [$GROUP], hostname: h$OTHER}}
                |                                                                    ^^^^^^
              hint: one of the machine's own `/etc/group`, like `audio`, or a number, like `29`

            compose.yaml:1:68: the variable `GROUP` is not set, so it stands for nothing
              1 | services: {a: {image: 'nginx:${TAG}', user: "$NOBODY", group_add: [$GROUP], hostname: h$OTHER}}
                |                                                                    ^^^^^^
              hint: set it, or write `${GROUP:-default}`, or `${GROUP:-}` for an empty text
        "#]],
    );
}

#[test]
fn services_extend_each_other_and_profiles_come_by_variable() {
    let base = "services:\n  base: {image: x, environment: [A=1], volumes: [./data:/data]}\n";
    let text = "services:\n  a: {extends: {service: base, file: common/base.yaml}}\n  b: {extends: {service: a}, profiles: [p], environment: {B: $UNSET}}\n";
    let shown = shown("my.yml", text, &[("common/base.yaml", base)], &["p"]);
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
              default: {}
            image: "x:latest"
            environment:
              - "A=1"
            volumes:
              - { type: bind, source: "/srv/shop/common/data", bind: { propagation: private, create_host_path: true }, target: "/data" }
          b:
            kind: container
            driver: native
            networks:
              default: {}
            image: "x:latest"
            environment:
              - "A=1"
              - "B="
            volumes:
              - { type: bind, source: "/srv/shop/common/data", bind: { propagation: private, create_host_path: true }, target: "/data" }
        my.yml:3:62: the variable `UNSET` is not set, so it stands for nothing
          3 |   b: {extends: {service: a}, profiles: [p], environment: {B: $UNSET}}
            |                                                              ^^^^^^
          hint: set it, or write `${UNSET:-default}`, or `${UNSET:-}` for an empty text
    "#]].assert_eq(&shown);
}

#[test]
fn what_compose_leaves_alone_or_holds_anyway_is_taken() {
    check(
        "services:
  a:
    image: x
    attach: false
    develop: {watch: [{path: ., action: sync, target: /x}]}
    cpu_quota: 50000
    mac_address: 02:00:00:00:00:01
    userns_mode: host
    security_opt: [apparmor:unconfined, label:disable]
    logging: {options: {compress: 'false', max-file: 2}}
    volumes: [{type: bind, source: ./a, target: /a, bind: {selinux: z}}]
    deploy: {labels: [a=b], placement: {constraints: [node.role==manager]}, endpoint_mode: vip, update_config: {order: start-first}, rollback_config: {}}
  b: {image: x, networks: [n], mac_address: 02:00:00:00:00:02, cpu_quota: 25ms, cpu_period: 10ms}
  c: {image: x, networks: [n], cpu_quota: -1}
networks:
  n: {attachable: true}
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
              "n":
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: off, lease: 3600s, slaac: false }
            machines:
              a:
                kind: container
                driver: native
                networks:
                  default: { mac: "02:00:00:00:00:01" }
                image: "x:latest"
                volumes:
                  - { type: bind, source: "/srv/shop/a", bind: { propagation: private, create_host_path: true }, target: "/a" }
                cpus: 0.500
                logging: { options: { max-file: 2 } }
              b:
                kind: container
                driver: native
                networks:
                  "n": { mac: "02:00:00:00:00:02" }
                image: "x:latest"
                cpus: 2.500
              c:
                kind: container
                driver: native
                networks:
                  "n": {}
                image: "x:latest"
        "#]],
    );
}

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

            compose.yaml:6:15: `labels` cannot be honoured: labels of volumes are not in the file
              6 | volumes: {v: {labels: [a=b]}}
                |               ^^^^^^
              hint: leave it out, or make it before by `stead volume create -l`
        "#]],
    );
}

#[test]
fn variables_of_a_raw_file_stand_as_they_are() {
    let text = "services: {a: {image: x, env_file: [{path: raw.env, format: raw}, {path: bad.env, format: raw, required: false}]}}\n";
    let raw = "# no\nA='one' # $TWO\n  B = x\nTOKEN\nNOT_SET\n";
    expect![[r#"
        compose.yaml:1:37: in `raw.env`, line 3, column 3: `B ` cannot name a variable
          1 | services: {a: {image: x, env_file: [{path: raw.env, format: raw}, {path: bad.env, format: raw, requi…
            |                                     ^
          hint: write `NAME=value`

        compose.yaml:1:67: in `bad.env`, line 2, column 2: `` cannot name a variable
          1 | …nv_file: [{path: raw.env, format: raw}, {path: bad.env, format: raw, required: false}]}}
            |                                          ^
          hint: write `NAME=value`
    "#]].assert_eq(&shown("compose.yaml", text, &[("raw.env", raw), ("bad.env", "\n =1\n")], &[]));
    let raw = raw.replace("B =", "B=");
    let read = shown("compose.yaml", text, &[("raw.env", &raw)], &[]);
    for variable in [r#"- "A='one' # $$TWO""#, r#"- "B= x""#, r#"- "TOKEN=t$$1""#] {
        assert!(read.contains(variable), "{read}");
    }
    assert!(!read.contains("NOT_SET"), "{read}");
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
fn flags_are_taken_as_compose_takes_them() {
    check(
        "services:
  a: {image: x, tty: yes, privileged: Off, init: TRUE, labels: {tty: yes}, depends_on: {b: {restart: no, condition: service_started}}}
  b: {image: x, read_only: maybe}
networks: {default: {internal: On, external: y}}
",
        expect![[r#"
            compose.yaml:3:28: `maybe` is not `true` or `false`
              3 |   b: {image: x, read_only: maybe}
                |                            ^^^^^
              hint: write one of these two words, without quotes

            compose.yaml:4:46: `external: true` cannot be honoured
              4 | networks: {default: {internal: On, external: y}}
                |                                              ^
              hint: projects share nothing here: leave it out, and the project has its own

            compose.yaml:4:46: `y` is taken for `true`, as YAML 1.1 had it
              4 | networks: {default: {internal: On, external: y}}
                |                                              ^
              hint: write `true`
        "#]],
    );
    check(
        "services:
  a: {image: x, tty: yes, privileged: Off, init: TRUE, labels: {tty: yes}}
networks: {default: {internal: True}}
",
        expect![[r#"
            name: shop
            networks:
              default:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "isolated"
                mtu: 1500
                dhcp: { pool: off, lease: 3600s, slaac: false }
            machines:
              a:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "x:latest"
                labels:
                  - "tty=yes"
                tty: true
                init: true
            compose.yaml:2:22: `yes` is taken for `true`, as YAML 1.1 had it
              2 |   a: {image: x, tty: yes, privileged: Off, init: TRUE, labels: {tty: yes}}
                |                      ^^^
              hint: write `true`

            compose.yaml:2:39: `Off` is taken for `false`, as YAML 1.1 had it
              2 |   a: {image: x, tty: yes, privileged: Off, init: TRUE, labels: {tty: yes}}
                |                                       ^^^
              hint: write `false`
        "#]],
    );
}

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
fn of_a_file_that_is_extended_only_the_wanted_service_counts() {
    let base = "services:
  base: {extends: more, volumes: [./data:/data]}
  more: {image: x, dns_opt: [a], environment: [A=$NOT_SET]}
  other: {image: '${NEEDED:?}', gpus: all, nosuch: 1}
volumes: {nosuch: {driver: nfs}}
";
    let text = "services:
  a: {extends: {service: base, file: base.yaml}}
  b: {extends: {service: base, file: base.yaml}}
";
    let told = shown("compose.yaml", text, &[("base.yaml", base)], &[]);
    expect![[r#"
        compose.yaml:2:16: in `base.yaml`, line 3, column 48: the variable `NOT_SET` is not set, so it stands for nothing
          2 |   a: {extends: {service: base, file: base.yaml}}
            |                ^
          hint: set it, or write `${NOT_SET:-default}`, or `${NOT_SET:-}` for an empty text

        compose.yaml:2:16: in `base.yaml`, line 3, column 20: `dns_opt` cannot be honoured: the resolver has no options
          2 |   a: {extends: {service: base, file: base.yaml}}
            |                ^
          hint: leave it out
    "#]].assert_eq(&told);
    let fine = base.replace("dns_opt: [a], ", "");
    let read = shown("compose.yaml", text, &[("base.yaml", &fine)], &[]);
    assert!(read.contains("/srv/shop/data"), "{read}");
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
    extra_hosts: ["host.docker.internal:host-gateway"]
    security_opt: [label=disable, apparmor:unconfined, apparmor=mine]
    volumes: [nosuch:/x, "data:/y:z", {type: bind, source: ./a, target: /a, bind: {selinux: z}, consistency: cached}]
    env_file: [{path: web.env, format: raw}]
    depends_on: {b: {condition: service_started, restart: true}}
    deploy: {mode: global, endpoint_mode: vip, placement: {}, restart_policy: {condition: any, max_attempts: 3}, resources: {reservations: {cpus: "1", devices: []}}}
    blkio_config: {device_read_bps: []}
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

            compose.yaml:8:54: `compress: true` cannot be honoured
              8 |     logging: {driver: json-file, options: {compress: "true", tag: x, max-size: 10}}
                |                                                      ^^^^^^
              hint: logs are not compressed: leave it out

            compose.yaml:8:62: `tag` cannot be honoured: a log has what the machine wrote, and nothing beside
              8 |     logging: {driver: json-file, options: {compress: "true", tag: x, max-size: 10}}
                |                                                              ^^^
              hint: leave it out

            compose.yaml:8:80: `10` does not hold a line
              8 |     logging: {driver: json-file, options: {compress: "true", tag: x, max-size: 10}}
                |                                                                                ^^
              hint: write `1k` or more

            compose.yaml:9:5: `network_mode` and `networks` exclude each other
              9 |     network_mode: host
                |     ^^^^^^^^^^^^
              hint: leave one of them out

            compose.yaml:9:19: `host` cannot be honoured
              9 |     network_mode: host
                |                   ^^^^
              hint: name `networks` instead; there are `none`, and `bridge`, which is the default network

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

            compose.yaml:19:5: `runtime` cannot be honoured: stead is the runtime
             19 |     runtime: runsc
                |     ^^^^^^^
              hint: leave it out

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

            compose.yaml:30:19: `host-gateway` cannot be honoured: machines do not reach into this computer
             30 |     extra_hosts: ["host.docker.internal:host-gateway"]
                |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: write an address

            compose.yaml:31:56: the security option `apparmor=mine` cannot be honoured
             31 |     security_opt: [label=disable, apparmor:unconfined, apparmor=mine]
                |                                                        ^^^^^^^^^^^^^
              hint: there are `no-new-privileges`, `seccomp=unconfined` and `seccomp=<path of a profile>`

            compose.yaml:32:15: there is no volume `nosuch`
             32 |     volumes: [nosuch:/x, "data:/y:z", {type: bind, source: ./a, target: /a, bind: {selinux: z}, cons…
                |               ^^^^^^^^^
              hint: there are data, data

            compose.yaml:34:59: `restart: true` cannot be honoured
             34 |     depends_on: {b: {condition: service_started, restart: true}}
                |                                                           ^^^^
              hint: a machine is not restarted with another: leave it out

            compose.yaml:35:20: `mode: global` cannot be honoured
             35 |     deploy: {mode: global, endpoint_mode: vip, placement: {}, restart_policy: {condition: any, max_a…
                |                    ^^^^^^
              hint: write `replicas`

            compose.yaml:35:110: `condition: any` has no number of attempts
             35 | …_policy: {condition: any, max_attempts: 3}, resources: {reservations: {cpus: "1", devices: []}}}
                |                                          ^
              hint: write `condition: on-failure`, or leave it out

            compose.yaml:35:141: `cpus` cannot be honoured: processors are not set aside
             35 | …ttempts: 3}, resources: {reservations: {cpus: "1", devices: []}}}
                |                                          ^^^^
              hint: write `cpu_shares`

            compose.yaml:35:152: `devices` cannot be honoured: devices are not chosen by what they can do
             35 | …, resources: {reservations: {cpus: "1", devices: []}}}
                |                                          ^^^^^^^
              hint: name them under `devices`

            compose.yaml:36:20: `device_read_bps` cannot be honoured: rates are not limited
             36 |     blkio_config: {device_read_bps: []}
                |                    ^^^^^^^^^^^^^^^
              hint: leave it out, or use `weight`

            compose.yaml:37:26: `priority` cannot be honoured: the first network has the default route
             37 |     networks: {default: {priority: 5, link_local_ips: [], driver_opts: {}}, n: {}}
                |                          ^^^^^^^^
              hint: put the networks into the order that you want

            compose.yaml:37:39: `link_local_ips` cannot be honoured: a nic has one address of each family
             37 |     networks: {default: {priority: 5, link_local_ips: [], driver_opts: {}}, n: {}}
                |                                       ^^^^^^^^^^^^^^
              hint: leave it out

            compose.yaml:37:59: `driver_opts` cannot be honoured: drivers have no options here
             37 |     networks: {default: {priority: 5, link_local_ips: [], driver_opts: {}}, n: {}}
                |                                                           ^^^^^^^^^^^
              hint: leave it out

            compose.yaml:38:27: `uid` cannot be honoured: the file is mounted as it is
             38 |     secrets: [{source: s, uid: "1", mode: 0400}]
                |                           ^^^
              hint: leave it out, and change the file itself

            compose.yaml:38:37: `mode` cannot be honoured: the file is mounted as it is
             38 |     secrets: [{source: s, uid: "1", mode: 0400}]
                |                                     ^^^^
              hint: leave it out, and change the file itself

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

            compose.yaml:42:34: `external: true` cannot be honoured
             42 |   n: {driver: overlay, external: true, name: other, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 1…
                |                                  ^^^^
              hint: projects share nothing here: leave it out, and the project has its own

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

            compose.yaml:43:26: `labels` cannot be honoured: in a file only machines have labels
             43 |   n_: {attachable: true, labels: [a], driver_opts: {x: 1}}
                |                          ^^^^^^
              hint: leave it out

            compose.yaml:43:53: there is no key `x` here
             43 |   n_: {attachable: true, labels: [a], driver_opts: {x: 1}}
                |                                                     ^
              hint: there are com.docker.network.driver.mtu

            compose.yaml:45:18: `driver: nfs` cannot be honoured
             45 |   data: {driver: nfs, driver_opts: {o: bind}, name: x}
                |                  ^^^
              hint: leave it out: every volume is local

            compose.yaml:45:37: `o` cannot be honoured: volumes are directories of stead's own
             45 |   data: {driver: nfs, driver_opts: {o: bind}, name: x}
                |                                     ^
              hint: mount a path of this computer instead, or a `tmpfs`

            compose.yaml:45:47: `name` cannot be honoured: its name is the one in this file, within the project
             45 |   data: {driver: nfs, driver_opts: {o: bind}, name: x}
                |                                               ^^^^
              hint: leave it out

            compose.yaml:46:3: `data` and `Data` are both `data` here
             46 |   Data: {external: true}
                |   ^^^^
              hint: rename one of them

            compose.yaml:46:3: the volume `data` stands here twice
             46 |   Data: {external: true}
                |   ^^^^
              hint: leave one of them out

            compose.yaml:46:20: `external: true` cannot be honoured
             46 |   Data: {external: true}
                |                    ^^^^
              hint: projects share nothing here: leave it out, and the project has its own
        "#]],
    );
}

/// A blog: the usual two services, with what people write beside them.
const BLOG: &str = r#"
services:
  blog:
    image: wordpress:6-apache
    depends_on:
      - database
    ports:
      - 8000:80
    restart: always
    environment:
      - WORDPRESS_DB_HOST=database
      - WORDPRESS_DB_USER=wp
      - WORDPRESS_DB_PASSWORD_FILE=/run/secrets/db_password
    secrets: [db_password]
    volumes:
      - content:/var/www/html
  database:
    image: mysql:8
    command: --default-authentication-plugin=mysql_native_password
    restart: always
    cap_add: [SYS_NICE]
    environment:
      MYSQL_DATABASE: wp
      MYSQL_RANDOM_ROOT_PASSWORD: "1"
    volumes:
      - type: volume
        source: db_data
        target: /var/lib/mysql
    healthcheck:
      test: [CMD, mysqladmin, ping, -h, localhost]
      interval: 5s
      retries: 10
    stop_grace_period: 1m
volumes:
  content:
  db_data: {}
secrets:
  db_password: { file: ./db_password.txt }
"#;

#[test]
fn a_blog_of_two_services_is_taken_as_it_is() {
    check_names(BLOG, &["blog", "database"]);
}

/// A web program that is built here, with a worker, a cache, a proxy before it and tools that are seldom wanted.
const BUILT: &str = r#"
name: example
x-app: &app
  build:
    context: ./app
    target: ${STAGE:-production}
    args:
      - PYTHON_VERSION=3.12
  environment: &env
    REDIS_URL: redis://cache:6379/0
  init: true
services:
  web:
    <<: *app
    command: ["gunicorn", "--bind", "0.0.0.0:8000", "app"]
    expose: [8000]
    depends_on:
      cache: { condition: service_started }
      migrate: { condition: service_completed_successfully }
    deploy: { replicas: 2, resources: { limits: { memory: 256M } } }
    networks: [front, back]
  worker:
    <<: *app
    command: celery worker
    networks: [back]
    stop_signal: SIGINT
  migrate:
    <<: *app
    command: ./manage.py migrate
    restart: on-failure
    networks: [back]
  cache:
    image: redis:7-alpine
    networks: { back: { aliases: [redis] } }
    tmpfs: /data
    read_only: true
    sysctls: { net.core.somaxconn: 1024 }
    ulimits: { nofile: { soft: 20000, hard: 40000 } }
  proxy:
    image: nginx:1.27
    ports: ["80:80", "443:443/tcp", { target: 443, published: 443, protocol: udp }]
    configs: [{ source: site, target: /etc/nginx/conf.d/default.conf }]
    networks: [front]
  shell:
    image: busybox
    profiles: [tools]
    stdin_open: true
    tty: true
    network_mode: none
networks:
  front:
  back: { internal: true }
configs:
  site: { file: ./site.conf }
"#;

#[test]
fn a_project_that_is_built_here_is_taken_as_it_is() {
    check_names(BUILT, &["cache", "migrate", "proxy", "web-1", "web-2", "worker"]);
}

/// The machines that a file of Compose comes to.
#[track_caller]
fn check_names(text: &str, expected: &[&str]) {
    let shown = shown("compose.yaml", text, &[], &[]);
    let machines = shown.split_once("\nmachines:\n").unwrap_or_else(|| panic!("{shown}")).1;
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':');
    let names: Vec<&str> =
        machines.lines().filter(is_name).map(|line| line.trim().trim_end_matches(':')).collect();
    assert_eq!(names, expected, "{shown}");
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
fn what_of_a_build_cannot_be_honoured_is_named() {
    let text = "services:
  web:
    build:
      context: .
      platforms: [linux/amd64]
      cache_from: [web:cache]
      ssh: [default]
      network: host
";
    let said = shown("compose.yaml", text, &[], &[]);
    for key in ["platforms", "cache_from", "ssh", "network"] {
        assert!(said.contains(&format!("`{key}` cannot be honoured")), "{key} is not in\n{said}");
    }
}

#[test]
fn logs_and_restarts_are_said_as_compose_has_them() {
    let text = r#"services:
  a:
    image: x
    logging: { driver: local, options: { max-size: 500k, max-file: "5" } }
    deploy: { restart_policy: { condition: on-failure, max_attempts: 3, delay: 5s, window: 120s } }
  b: { image: x, restart: always, deploy: { restart_policy: { condition: any } } }
  c: { image: x, restart: always, deploy: { restart_policy: { condition: none } } }
"#;
    let said = shown("compose.yaml", text, &[], &[]);
    assert!(said.contains("compose.yaml:7:45: `restart` says something else"), "{said}");
    let said = shown("compose.yaml", text.split("  c:").next().unwrap(), &[], &[]);
    for line in [
        "    logging: { options: { max-size: 512000, max-file: 5 } }\n",
        "    deploy: { restart_policy: { condition: on-failure, max_attempts: 3, delay: 5000ms, window: 120000ms } }\n",
        "    restart: \"always\"\n",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

#[test]
fn sizes_of_volumes_are_said_as_dockers_local_driver_has_them() {
    check(
        "services: {a: {image: x}}\nvolumes: {data_1: {driver: local, driver_opts: {size: 10g}}, free: {driver_opts: {}}}\n",
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
                  default: {}
                image: "x:latest"
            volumes:
              data-1: { size: 10737418240 }
              free: {}
        "#]],
    );
    check(
        "services: {a: {image: x}}\nvolumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}\n",
        expect![[r#"
            compose.yaml:2:32: `type` cannot be honoured: volumes are directories of stead's own
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                ^^^^
              hint: mount a path of this computer instead, or a `tmpfs`

            compose.yaml:2:45: `o` cannot be honoured: volumes are directories of stead's own
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                             ^
              hint: mount a path of this computer instead, or a `tmpfs`

            compose.yaml:2:63: `0` leaves no room at all
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                                               ^
              hint: leave it out, and there is no limit

            compose.yaml:2:66: `device` cannot be honoured: volumes are directories of stead's own
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                                                  ^^^^^^
              hint: mount a path of this computer instead, or a `tmpfs`

            compose.yaml:2:77: there is no key `x` here
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                                                             ^
              hint: did you mean `o`?
        "#]],
    );
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

            compose.yaml:4:37: `service:my_app` cannot be honoured
              4 |   my.app: { image: a, network_mode: 'service:my_app', pull_policy: daily, volumes: ['data:/a:nocopy'…
                |                                     ^^^^^^^^^^^^^^^^
              hint: name `networks` instead; there are `none`, and `bridge`, which is the default network

            compose.yaml:4:68: `daily` is not `missing` or `if_not_present` or `always` or `never` or `build`
              4 | …rk_mode: 'service:my_app', pull_policy: daily, volumes: ['data:/a:nocopy', 'data:/b:U'] }
                |                                          ^^^^^
              hint: `missing`: if it is not here | `if_not_present`: the same | `always`: each time the machine is created | `never`: not at all: it has to be here | `build`: not at all: it is built, each time that `stead up` runs

            compose.yaml:4:85: the option `nocopy` cannot be honoured: an empty volume gets what the image has there
              4 | …:my_app', pull_policy: daily, volumes: ['data:/a:nocopy', 'data:/b:U'] }
                |                                          ^^^^^^^^^^^^^^^^
              hint: leave it out, or mount a path of this computer, which stays as it is

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
    let said = |text: &str| super::containers::shown("compose.yaml", text, &[], &[]);
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
    let said = |text: &str| super::containers::shown("compose.yaml", text, &[], &[]);
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

#[test]
fn a_port_that_is_left_open_is_one_that_the_computer_chooses() {
    check(
        "services: {web: {image: web, ports: [80, '127.0.0.1::81/udp', '0:82', '[::1]::83', {target: 84}, {target: 85, published: ''}, {target: 86, published: 0}, 3000-3001/udp, '127.0.0.1::90-91', {target: 92-93}, '[::1]:8087:87', '[::]:8088:88']}}",
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
                ports:
                  - "0.0.0.0:0:80/tcp"
                  - "127.0.0.1:0:81/udp"
                  - "0.0.0.0:0:82/tcp"
                  - "[::1]:0:83/tcp"
                  - "0.0.0.0:0:84/tcp"
                  - "0.0.0.0:0:85/tcp"
                  - "0.0.0.0:0:86/tcp"
                  - "0.0.0.0:0:3000/udp"
                  - "0.0.0.0:0:3001/udp"
                  - "127.0.0.1:0:90/tcp"
                  - "127.0.0.1:0:91/tcp"
                  - "0.0.0.0:0:92/tcp"
                  - "0.0.0.0:0:93/tcp"
                  - "[::1]:8087:87/tcp"
                  - "[::]:8088:88/tcp"
                image: "web:latest"
        "#]],
    );
    check(
        "services: {web: {image: web, ports: [8002-8000, '0:90-91', '::1:80:80']}}",
        expect![[r#"
            compose.yaml:1:38: `8002-8000` runs backwards
              1 | services: {web: {image: web, ports: [8002-8000, '0:90-91', '::1:80:80']}}
                |                                      ^^^^^^^^^
              hint: write `8000-8002`

            compose.yaml:1:49: `0` is one port that this computer chooses, and cannot lead to 2 targets
              1 | services: {web: {image: web, ports: [8002-8000, '0:90-91', '::1:80:80']}}
                |                                                 ^^^^^^^^^
              hint: write `0:90`, `0:91` and so on

            compose.yaml:1:60: `::1` is not `[address:]port:target`
              1 | services: {web: {image: web, ports: [8002-8000, '0:90-91', '::1:80:80']}}
                |                                                            ^^^^^^^^^^^
              hint: an IPv6 address stands in brackets, like `[::1]:8080:80`
        "#]],
    );
}

#[test]
fn a_target_names_its_protocol_beside_it() {
    check(
        "services: {web: {image: web, expose: [80/udp], ports: [{target: 83/udp}, {target: 85/tcp, published: 9}]}}",
        expect![[r#"
            compose.yaml:1:65: `83/udp` is not a port from 1 to 65535
              1 | …web, expose: [80/udp], ports: [{target: 83/udp}, {target: 85/tcp, published: 9}]}}
                |                                          ^^^^^^
              hint: write it in digits, without a fraction and a unit

            compose.yaml:1:83: `85/tcp` is not a port from 1 to 65535
              1 | …dp], ports: [{target: 83/udp}, {target: 85/tcp, published: 9}]}}
                |                                          ^^^^^^
              hint: write it in digits, without a fraction and a unit
        "#]],
    );
}
