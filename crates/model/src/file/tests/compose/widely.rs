//! What people write beside the usual: taken, with a warning where it changes nothing, and told where somebody asks for it.

use expect_test::expect;

use super::super::containers::shown;
use super::check;

#[test]
fn priorities_say_the_order_of_networks_and_who_is_started_again_is_said() {
    check(
        "services:
  a:
    image: x
    networks: {n: , default: {priority: 10}, m: {gw_priority: 1, priority: -5}}
    depends_on: {b: {condition: service_started, restart: true}, c: {condition: service_started}}
    deploy: {resources: {reservations: {cpus: '0.25', memory: 20M}}}
  b: {image: x, cpu_shares: 7, deploy: {resources: {reservations: {cpus: 2}}}}
  c: {image: x, deploy: {resources: {reservations: {cpus: 1000}}}}
networks: {n: , m: }
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
              m:
                subnet: auto
                subnet6: auto
                addressing: managed
                reach: "nat"
                mtu: 1500
                dhcp: { pool: off, lease: 3600s, slaac: false }
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
                  m: {}
                  default: {}
                  "n": {}
                depends_on:
                  b: { condition: service_started, restart: true }
                  c: { condition: service_started }
                image: "x:latest"
                cpu_shares: 1024
                mem_reservation: 20971520
              b:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "x:latest"
                cpu_shares: 7
              c:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "x:latest"
                cpu_shares: 262144
        "#]],
    );
}

/// What people write and Compose takes.
const WIDELY: &str = "services:
  a:
    image: x
    command: npm install && npm start
    entrypoint: env A=b>c
    build: {context: ., cache_from: [a:b], cache_to: [a:c]}
    logging: {options: {compress: 'true', tag: t, max-file: 2}}
    secrets: [{source: s, uid: '1', mode: 0400}]
    annotations: {a: b}
    runtime: runc
    ports: [':81:81', '82:82/TCP']
    tmpfs: ['/t:exec,size=1m']
    hostname: my_host
    extra_hosts: ['my_db:10.0.0.1']
    user: '${NO_UID}:${NO_GID}'
    volumes:
      - {type: volume, source: v, target: /v, x-any: 1, volume: {nocopy: true}}
      - {type: volume, source: v, target: /w, volume: {nocopy: false}}
      - v:/u:nocopy,ro
      - /var/run/docker.sock:/var/run/docker.sock
    networks: {n: {x-any: 1}}
    depends_on: {b: {condition: service_started, x-any: 1}}
  b: {image: x}
networks: {n: {labels: [a=b]}}
volumes: {v: {name: other, labels: {a: b}}}
secrets: {s: {file: ./s, labels: [a=b]}}
";

#[test]
fn what_people_write_is_taken() {
    let shown = shown("compose.yaml", WIDELY, &[], &[]);
    let machine = shown.split_once("  a:\n").unwrap().1.split_once("  b:\n").unwrap().0;
    let machine: String = machine.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    expect![[r#"
        kind: container
        driver: native
        networks:
        "n": {}
        ports:
        - "0.0.0.0:81:81/tcp"
        - "0.0.0.0:82:82/tcp"
        depends_on: [b]
        image: "x:latest"
        entrypoint: ["env", "A=b>c"]
        command: ["npm", "install", "&&", "npm", "start"]
        hostname: "my_host"
        volumes:
        - { type: bind, source: "/srv/shop/s", bind: { propagation: private, create_host_path: false }, target: "/run/secrets/s", read_only: true }
        - { type: tmpfs, tmpfs: { size: 1048576, exec: true }, target: "/t" }
        - { type: volume, source: v, volume: { nocopy: true }, target: "/u", read_only: true }
        - { type: volume, source: v, volume: { nocopy: true }, target: "/v" }
        - { type: bind, source: "/var/run/docker.sock", bind: { propagation: private, create_host_path: true }, target: "/var/run/docker.sock" }
        - { type: volume, source: v, target: "/w" }
        extra_hosts:
        - "my_db=10.0.0.1"
        logging: { options: { max-file: 2 } }
    "#]].assert_eq(&machine);
}

#[test]
fn what_changes_nothing_is_taken_with_a_warning() {
    let shown = shown("compose.yaml", WIDELY, &[], &[]);
    let told: String = shown
        .lines()
        .filter(|line| line.starts_with("compose.yaml"))
        .map(|line| format!("{line}\n"))
        .collect();
    expect![[r#"
        compose.yaml:4:14: `&&` is given to the program as it stands: no shell reads this line
        compose.yaml:6:25: `cache_from` changes nothing: the builder has a cache of its own, and neither takes nor leaves another
        compose.yaml:6:44: `cache_to` changes nothing: the builder has a cache of its own, and neither takes nor leaves another
        compose.yaml:7:25: `compress` changes nothing: logs are not compressed
        compose.yaml:7:43: `tag` changes nothing: a log has what the machine wrote, and nothing beside
        compose.yaml:8:27: `uid` changes nothing: the file is mounted with the owner and mode that it has
        compose.yaml:8:37: `mode` changes nothing: the file is mounted with the owner and mode that it has
        compose.yaml:9:5: `annotations` changes nothing: no other runtime is there to read them; people and programs read `labels`
        compose.yaml:15:11: the variable `NO_GID` is not set, so it stands for nothing
        compose.yaml:15:11: the variable `NO_UID` is not set, so it stands for nothing
        compose.yaml:24:16: `labels` changes nothing: in a file only machines have labels
        compose.yaml:25:15: `name` is not heeded: the volume is the project's own, by the name that it has in this file, and shared with no other
        compose.yaml:25:28: `labels` changes nothing: a volume that is made by a file has no labels; `stead volume create -l` gives it some
        compose.yaml:26:26: `labels` changes nothing: in a file only machines have labels
    "#]].assert_eq(&told);
}

#[test]
fn what_cannot_be_honoured_of_a_service_that_nobody_asks_for_is_told_once_somebody_does() {
    let text = "services:
  a: {image: x, depends_on: {gpu_1: {condition: service_started, required: false}}}
  gpu_1: {image: x, profiles: [gpu, all], network_mode: private, gpus: all, volumes: [nosuch:/x], restart: often}
";
    let rests = shown("compose.yaml", text, &[], &[]);
    assert!(rests.starts_with("name: shop\n") && !rests.contains("gpu"), "{rests}");
    let asked = shown("compose.yaml", text, &[], &["gpu"]);
    for told in [
        "`private` cannot be honoured",
        "`gpus` cannot be honoured",
        "`often`",
        "there is no volume `nosuch`",
    ] {
        assert!(asked.contains(told), "{told} is not in\n{asked}");
    }
    // What is there is held against it, however it came by what cannot be had, and whatever it is called.
    let wrong = "image: x, cap_drop: [ALLL], mem_limit: lots, gpus: all, user: 'a b'";
    for (text, profile) in [
        ("base: {WRONG, profiles: [p]}, a: {extends: base, profiles: !reset []}", ""),
        ("base: {WRONG, profiles: [p]}, a: {extends: {service: base}, profiles: [on]}", "on"),
        ("a: {WRONG, profiles: ['${NO_PROFILE}']}", ""),
        ("a: {WRONG, profiles: ['b@d']}", ""),
        ("web: {image: x, profiles: [p]}, web.b: {WRONG}", ""),
        ("web: {WRONG}, web.gpus: {image: x, profiles: [p]}, web.cap_drop: {image: x, profiles: [p]}", ""),
    ] {
        let text = format!("services: {{{}}}\n", text.replace("WRONG", wrong));
        let told = shown("compose.yaml", &text, &[], &[profile]);
        for key in ["`ALLL`", "`lots`", "`gpus` cannot", "`a b`"] {
            assert!(told.contains(key), "{key} of {text} is not in\n{told}");
        }
    }
    let other = shown("compose.yaml", &text.replace("a: {image: x,", "a: {image: x, pid: host,"), &[], &[]);
    assert!(other.contains("`pid` cannot be honoured") && !other.contains("gpus"), "{other}");
}

#[test]
fn a_file_may_call_its_project_by_name() {
    let named = |text: &str| {
        let line = "services: {a: {image: x, labels: ['of=${COMPOSE_PROJECT_NAME}'], container_name: '${COMPOSE_PROJECT_NAME}_db'}}";
        let shown = shown("compose.yaml", &format!("{text}{line}\n"), &[], &[]);
        let label = shown.lines().find(|line| line.contains("of=")).unwrap_or(&shown).trim().to_owned();
        assert!(!shown.contains("not set"), "{shown}");
        label
    };
    assert_eq!(named(""), "- \"of=shop\"");
    assert_eq!(named("name: mine\n"), "- \"of=mine\"");
    assert_eq!(named("name: ${NO_NAME:-other}\n"), "- \"of=other\"");
    assert_eq!(named("name: ${COMPOSE_PROJECT_NAME}\n"), "- \"of=shop\"");
}

#[test]
fn whose_a_secret_is_to_be_is_refused_of_a_text() {
    let text = "services: {a: {image: x, secrets: [{source: s, mode: 0400}], configs: [{source: c, uid: '1'}]}}\n\
        secrets: {s: {content: x}}\nconfigs: {c: {file: ./c}}\n";
    let told = shown("compose.yaml", text, &[], &[]);
    assert!(told.contains("`mode` cannot be honoured: what is no file of yours all can read"), "{told}");
    assert!(!told.contains("`uid`"), "{told}");
    let taken = shown("compose.yaml", &text.replace("content: x", "file: ./s"), &[], &[]);
    assert!(taken.contains("`mode` changes nothing") && taken.contains("`uid` changes nothing"), "{taken}");
}
