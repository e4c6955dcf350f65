//! Files of the Compose specification, as people have them.

mod bound;
mod names;
mod refused;
mod widely;

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

            compose.yaml:4:22: `internal` of an external network is not this project's to say
              4 | networks: {default: {internal: On, external: y}}
                |                      ^^^^^^^^
              hint: leave it out, and say it where the network is made: `stead network create`, or the file of its project
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
            compose.yaml:2:38: `type: tmpfs` cannot be honoured
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                      ^^^^^
              hint: a volume can be a path of this computer, by `type: none`, `o: bind` and `device`; what is in memory is a `tmpfs` of the service

            compose.yaml:2:48: `o: size=1g` cannot be honoured
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                                ^^^^^^^
              hint: a volume can be a path of this computer, by `type: none`, `o: bind` and `device`; what is in memory is a `tmpfs` of the service

            compose.yaml:2:63: `0` leaves no room at all
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                                               ^
              hint: leave it out, and there is no limit

            compose.yaml:2:77: there is no key `x` here
              2 | volumes: {data: {driver_opts: {type: tmpfs, o: size=1g, size: 0, device: a, x: 1}}}
                |                                                                             ^
              hint: did you mean `o`?
        "#]],
    );
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
