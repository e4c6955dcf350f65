//! What holds for all files: nothing panics, projects read back, and the schema agrees with the parser.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test that meets a new variant fails")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use serde_json::Value as Json;

use super::super::published::EXAMPLE;
use super::super::yaml::{self, Node, Value};
use super::compose::SHOP;
use super::projects::projects;
use super::read;
use crate::file::shape::{self, Form, Shape};
use crate::file::{Variables, published, render, schema, structure, variables};

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*|[ -~\n\t:&*\\[\\]{}#'\"|>!$-]{0,200}") {
        if let Err(problems) = read(&text) {
            prop_assert!(!problems.problems.is_empty());
            prop_assert!(!problems.to_string().contains(|c: char| c.is_control() && c != '\n'));
        }
        let _ = variables(".env", &text, &Variables::new());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_damaged_example_is_read_or_refused(at in 0..EXAMPLE.len(), cut in 0_usize..20, put in "[\\PC\n\t]{0,4}") {
        let mut text = EXAMPLE.to_owned();
        text.replace_range(at..(at + cut).min(EXAMPLE.len()), &put);
        if let Err(problems) = read(&text) {
            prop_assert!(!problems.problems.is_empty());
        }
    }

    #[test]
    fn a_damaged_file_of_compose_is_read_or_refused(at in 0..SHOP.len(), cut in 0_usize..40, put in "[\\PC\n\t]{0,4}|- |\\{\\}|\\[\\]|~") {
        let mut text = SHOP.to_owned();
        text.replace_range(at..(at + cut).min(SHOP.len()), &put);
        match read(&text) {
            Ok(parsed) => prop_assert_eq!(read(&render(&parsed.project)).unwrap().project, parsed.project),
            Err(problems) => prop_assert!(!problems.problems.is_empty()),
        }
    }

    #[test]
    fn a_project_reads_back_from_its_own_text(project in projects()) {
        let text = render(&project);
        match read(&text) {
            Ok(parsed) => prop_assert_eq!(parsed.project, project),
            Err(problems) => prop_assert!(false, "{text}\n{problems}"),
        }
        prop_assert!(valid(&text), "the schema refuses\n{text}");
    }
}

#[test]
fn the_schema_and_the_parser_agree() {
    let agree = [
        (EXAMPLE, true),
        ("", true),
        ("x-any: {a: [1]}\nvolumes: {a: , b: {}}\n", true),
        ("networks: {a: {reach: {bridged: eth0}, addressing: none}, b: }\n", true),
        (
            "networks: {a: {mtu: \"${PORT}\", subnet: \"${S:-auto}\", dhcp: {slaac: true, lease: 1h30m}}}\n",
            true,
        ),
        (
            "machines: {a: {kind: vm, driver: external, ports: [80, \"[::1]:1-2:3-4/udp\", {target: 80, address: \"::\"}]}}\n",
            true,
        ),
        ("netwroks: {}\n", false),
        ("- a\n", false),
        ("name: [a]\n", false),
        ("name: Shop\n", false),
        ("name: stead\n", false),
        ("networks: {Lan: {}}\n", false),
        ("networks: {host: {}}\n", false),
        ("networks: {a: {subnet: nat}}\n", false),
        ("networks: {a: {subnet6: fd00::/48}}\n", false),
        ("networks: {a: {mtu: 12}}\n", false),
        ("networks: {a: {mtu: big}}\n", false),
        ("networks: {a: {reach: {}}}\n", false),
        ("networks: {a: {reach: {bridge: eth0}}}\n", false),
        ("networks: {a: {boot: }}\n", false),
        ("networks: {a: {dhcp: {lease: soon}}}\n", false),
        ("networks: {a: {dhcp: {slaac: maybe}}}\n", false),
        ("networks: {a: {joins: b}}\n", false),
        ("machines: {a: {kind: pod}}\n", false),
        ("machines: {a: {kind: vm, driver: external, networks: {default: {mac: x}}}}\n", false),
        ("machines: {a: {kind: vm, driver: external, ports: {a: 1}}}\n", false),
        ("machines: {a: {kind: vm, driver: external, ports: [http]}}\n", false),
        ("machines: {a: {kind: vm, driver: external, ports: [{port: 1}]}}\n", false),
        ("machines: {a: {image: debian:12}}\n", true),
        ("machines: {a: {image: web, cpus: 0.5, mem_limit: 512m, ports: [80], command: sleep 1}}\n", true),
        ("machines: {a: {image: web, environment: {A: 1, B: true, C: x}, labels: [a=b, c]}}\n", true),
        ("machines: {a: {image: web, ulimits: {nofile: -1, core: {soft: 1, hard: 2}}}}\n", true),
        ("machines: {a: {image: web, volumes: [./a:/b:ro, /c, {type: tmpfs, target: /d}]}}\n", true),
        ("machines: {a: {image: web, restart: \"no\", stop_signal: 9, user: 1000, init: true}}\n", true),
        ("machines: {a: {image: web, healthcheck: {test: [CMD, a], interval: 5s}}}\n", true),
        (
            "machines: {a: {image: web, depends_on: {b: {condition: service_healthy}}}, b: {image: web}}\n",
            true,
        ),
        ("machines: {a: {image: web, cpus: many}}\n", false),
        ("machines: {a: {image: web, mem_limit: lots}}\n", false),
        ("machines: {a: {image: web, volumes: [a:b]}}\n", false),
        ("machines: {a: {image: web, restart: often}}\n", false),
        ("machines: {a: {image: web, ulimits: {files: 1}}}\n", false),
        ("machines: {a: {image: web, depends_on: {b: {condition: up}}}, b: {image: web}}\n", false),
        ("machines: {a: {image: web, healthcheck: {interval: 5}}}\n", false),
        (
            "machines: {a: {image: web, provision: [date, {run: \"date\\n\", user: web, environment: [A=1]}]}}\n",
            true,
        ),
        ("machines: {a: {image: web, provision: [{run: date, when: start}]}}\n", false),
        ("machines: {a: {image: web, provision: date}}\n", false),
        ("machines: {a: {image: web, mode: init}}\n", false),
        ("machines: {a: {image: web, build: .}}\n", true),
        ("machines: {a: {image: web, restart: false}}\n", true),
        ("machines: {a: {image: web, restart: true}}\n", false),
        ("networks: {a: {reach: {bridged: 5}, addressing: none}}\n", true),
    ];
    agree.into_iter().for_each(|(text, expected)| check_agreement(text, expected));
}

#[test]
fn the_schema_and_the_parser_agree_on_volumes() {
    let agree = [
        ("volumes: {a: {size: 1}, b: {size: 1.5g}, c: {size: 10 GiB}}\n", true),
        ("volumes: {a: {size: 0}}\n", false),
        ("volumes: {a: {size: 0g}}\n", false),
        ("volumes: {a: {sise: 1g}}\n", false),
        ("volumes: {a: {external: true}, b: {external: true, name: Data_1.shop}}\n", true),
        ("volumes: {a: {external: yes}}\n", false),
        ("volumes: {a: {external: true, name: data.shop.x}}\n", false),
        ("volumes: {a: {external: true, name: ./data}}\n", false),
        ("networks: {a: {external: true}, b: {external: true, name: Data_1.shop}}\n", true),
        ("networks: {a: {external: yes}}\n", false),
        ("networks: {a: {external: true, name: lan.shop.x}}\n", false),
        ("machines: {m: {image: x, volumes: ['a:/b:nocopy', 'a:/c:ro,nocopy']}}\nvolumes: [a]\n", true),
        ("machines: {m: {image: x, volumes: ['a:/b:copy']}}\nvolumes: [a]\n", false),
    ];
    agree.into_iter().for_each(|(text, expected)| check_agreement(text, expected));
}

#[test]
fn the_schema_and_the_parser_agree_on_users_to_work_as() {
    let agree = [
        ("machines: {a: {image: web, dev: true}, b: {image: web, dev: false}}\n", true),
        (
            "machines: {a: {image: web, dev: {user: joe, uid: 1001, shell: /bin/zsh, groups: [a], sudo: false, keys: [], password_hash: $$6$$a$$b}}}\n",
            true,
        ),
        ("machines: {a: {image: web, dev: {keys: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB}}}\n", true),
        ("machines: {a: {image: web, dev: {user: Joe}}}\n", false),
        ("machines: {a: {image: web, dev: {uid: 0}}}\n", false),
        ("machines: {a: {image: web, dev: {shell: zsh}}}\n", false),
        ("machines: {a: {image: web, dev: {keys: [a]}}}\n", false),
        ("machines: {a: {image: web, dev: {password_hash: secret}}}\n", false),
        ("machines: {a: {image: web, dev: yes}}\n", false),
    ];
    agree.into_iter().for_each(|(text, expected)| check_agreement(text, expected));
}

/// Values of a key, separated by blanks: those that both take, and those that both refuse.
const VALUES: [(&str, &str, &str); 45] = [
    (
        "networks: {a: {subnet: V}}",
        "10.0.5.0/29 10.0.0.0/8 169.253.0.0/16 auto off $S",
        "10.0.5.0/30 10.0.5.0/32 10.0.0.0/7 300.0.5.0/24 127.0.1.0/24 169.254.1.0/24 224.0.0.0/8 0.1.0.0/16 10.0.5.0/033",
    ),
    (
        "networks: {a: {subnet6: 'V'}}",
        "fd00:5::/64 2001:db8::/64 100::/64 auto",
        "fe80::/64 ff00::/64 ::/64 1::/64 fd00:5::/65 fd00:fffff::/64 fd00:::::::::::/64",
    ),
    ("networks: {a: {mtu: \"V\"}}", "1280 1500 01500 9216 $M", "575 9217 12 65536 99999"),
    (
        "networks: {a: {reach: 'V', addressing: none}}",
        "isolated bridged:eth0",
        "bridged:a/b bridged:é bridged: bridged:abcdefghijklmnop",
    ),
    (
        "networks: {a: {subnet: 10.0.5.0/24, dhcp: {pool: 'V'}}}",
        "10.0.5.9-10.0.5.90 off",
        "10.0.5.9-10.0.5.900 10.0.5.9-",
    ),
    ("networks: {a: {dhcp: {lease: 'V'}}}", "1h 1d1s 90s", "'' 1s1h h"),
    (
        "machines: {a: {kind: vm, driver: external, networks: {default: {mac: 'V'}}}}",
        "02:00:00:00:00:07 $M",
        "01:00:00:00:00:07 0f:00:00:00:00:07 02:00:00:00:00",
    ),
    (
        "machines: {a: {image: web, ports: ['V']}}",
        "80 0080:80 0:80 65535:1 1-2:3-4 127.0.0.1:8080:80 '[::1]:80:80' 80/udp $P 80:$P",
        "0:80-0 0-10:80-90 80:0 70000 65536 80:65536 1.2.3.256:80:80 '[:::1]:80:80' 99999:80 0 80-0 '[::1:80:80'",
    ),
    ("machines: {a: {image: web, ports: [V]}}", "1 65535", "0 65536 -1"),
    ("machines: {a: {image: web, ports: [{target: 'V'}]}}", "80 1-9", "0 0-1 65536 1-65536"),
    (
        "machines: {a: {image: web, ports: [{target: 80, address: 'V'}]}}",
        "0.0.0.0 :: ::1 '[::1]' 1:2:3:4:5:6:7:8 ::ffff:1.2.3.4",
        "256.0.0.1 1.2.3 01.2.3.4 1:2:3:4:5:6:7 ::: 1::2::3 12345::",
    ),
    ("machines: {a: {image: web, ports: [V]}}", "1;2 80:80;81:80", "80;80 81:80;81:80"),
    ("machines: {a: {image: web, depends_on: [V]}, b: {image: web}}", "b", "b;b"),
    ("machines: {a: {image: web, networks: [V]}}\nnetworks: {x: {}, y: {}}", "x x;y", "x;x"),
    ("networks: {a: {joins: [V]}, b: {}}", "b", "b;b"),
    ("volumes: [V]", "a;b", "a;a"),
    (
        "machines: {a: {image: web, volumes: [V]}}",
        "/a;/b ./a:/b './a:/b:ro,rslave' './a:/b:Z,ro' ~/a:/b /...",
        "/a;/a ./a:/b;./a:/b ./a:/b:rx a/b:/c ~joe/x:/a / data:/ /./: ''",
    ),
    (
        "machines: {a: {image: web, tmpfs: [V]}}",
        "/a;/b '/a:size=1m,mode=1777,ro' '/a:noexec,nosuid'",
        "/a;/a '/a:size=lots' '/a:mode=9' '/a:suid' / '/a:ro,'",
    ),
    ("machines: {a: {image: web, secrets: [V]}}\nsecrets: {s: {content: a}}", "s", "s;s"),
    (
        "machines: {a: {image: 'V'}}",
        "debian:12 localhost/a a.b:5000/c/d:e 5 '[::1]:5000/a' $I",
        "Debian -a a/ a:-b a@sha256:12 a_b a..b/-c",
    ),
    ("machines: {a: {image: web, hostname: 'V'}}", "a a.b a-1.b", "-a a- a. a_b ''"),
    (
        "machines: {a: {image: web, extra_hosts: ['V']}}",
        "a:1.2.3.4 a=::1",
        "a:1.2.3.400 -a:1.2.3.4 a:gateway",
    ),
    ("machines: {a: {image: web, dns: 'V'}}", "1.1.1.1 ::1", "1.1.1.256 1.1.1"),
    (
        "machines: {a: {image: web, security_opt: ['V']}}",
        "no-new-privileges no-new-privileges:true seccomp=unconfined",
        "no-new-privileges:yes apparmor=off seccomp=profile.json seccomp",
    ),
    (
        "machines: {a: {image: web, devices: ['V']}}",
        "/dev/fuse /dev/a:/dev/b:rm /dev/a:mwr",
        "/dev/a:rr /dev/a:/dev/b:rwmr /dev/a:x",
    ),
    (
        "machines: {a: {image: web, sysctls: ['V']}}",
        "net.core.a=1 net/a=1 kernel.shmmax=1 kernel.hostname=a fs.mqueue.a=1",
        "kernel.panic=1 vm.swappiness=1 net=1 fs.file-max=1",
    ),
    ("machines: {a: {image: web, user: 'V'}}", "1000:1000 joe", "a/b a: a:b/c"),
    ("machines: {a: {image: web, group_add: ['V']}}", "audio 29", "a/b a:b"),
    ("machines: {a: {image: web, stop_signal: 'V'}}", "9 SIGTERM RTMIN+1", "0 SIGNO_1"),
    ("machines: {a: {image: web, cpus: V}}", "0.5 2 0 .5", "-1 -0.5 . ''"),
    ("machines: {a: {image: web, cpu_shares: V}}", "0 2 1024 262144", "1 262145 -2 '1' '262145' '300000'"),
    ("machines: {a: {image: web, oom_score_adj: 'V'}}", "-1000 1000 0 -0", "1001 -1001 9999"),
    (
        "machines: {a: {image: web, blkio_config: {device_read_bps: [{path: /dev/sda, rate: 'V'}]}}}",
        "1 10mb 0.5k",
        "0 0k 0.0 -1 1q",
    ),
    (
        "machines: {a: {image: web, blkio_config: {device_write_iops: [{path: 'V', rate: 5}]}}}",
        "/dev/sda /dev/disk/by-id/a:b",
        "sda ./sda ''",
    ),
    (
        "machines: {a: {image: web, blkio_config: {device_write_iops: [{path: /dev/sda, rate: V}]}}}",
        "1 4294967295 '7'",
        "0 -1 1k 4294967296 99999999999 '0'",
    ),
    ("machines: {a: {image: web, mem_limit: 'V'}}", "512m 1.5GiB 16777216", "5i -1m"),
    ("machines: {a: {image: web, mem_limit: \"V\"}}", "1_g 64__MiB", "1\\tg 1\\u00a0g _1g 1g_ 1g\\t"),
    ("machines: {a: {image: web, init: \"V\"}}", "true True TRUE false False FALSE $F", "yes tRUE '' 1"),
    ("machines: {a: {image: web, ulimits: {nofile: 'V'}}}", "-1 5 unlimited", "-2 1.5"),
    ("machines: {a: {image: web, dev: {uid: 'V'}}}", "1000 4200000000", "0 4400000000 9999999999"),
    ("machines: {a: {image: web, dev: {shell: 'V'}}}", "/bin/zsh", "/bin/ /"),
    (
        "machines: {a: {image: web, dev: {keys: ['V']}}}",
        "ssh-ed25519_AAAAC3NzaC1lZDI1NTE5AAAAIB",
        "ssh-ed25519_AAAA rsa_AAAAC3NzaC1lZDI1NTE5AAAAIB",
    ),
    ("machines: {a: {image: web, replicas: 'V'}}", "0 1 42 100", "101 1000 99999"),
    ("machines: {a: {image: web, environment: ['V']}}", "A=1 A=", "=1 ="),
    ("networks: {a: {boot: {file: 'V'}}}", "a 5 $F", "''"),
];

#[test]
fn the_schema_and_the_parser_agree_on_what_stands_twice_whether_it_is_used_or_not() {
    let lists = [
        ("ports: [80, 81]", "ports: [80, 80]"),
        ("ports: [{target: 80, port: 81}, 80]", "ports: [{target: 80, port: 81}, {port: 81, target: 80}]"),
        ("networks: [x, y]", "networks: [x, x]"),
        ("depends_on: [b, c]", "depends_on: [b, b]"),
        ("volumes: [/a, /b]", "volumes: [/a, /a]"),
        ("tmpfs: [/a, /b]", "tmpfs: [/a, /a]"),
        ("secrets: [s, t]", "secrets: [s, s]"),
        ("configs: [k]", "configs: [k, k]"),
    ];
    // The last is over what it extends, which alone is not there this time.
    let uses = [
        "a: {image: web, V}",
        "a: {image: web, V, replicas: 0}",
        "a: {image: web, V, profiles: [p]}",
        "a: {image: web, V, replicas: 0}, d: {extends: a, replicas: 1}",
    ];
    for (once, twice) in lists {
        for how in uses {
            for (list, expected) in [(once, true), (twice, false)] {
                let machines = how.replace('V', list);
                check_agreement(
                    &format!(
                        "machines: {{{machines}, b: {{image: web}}, c: {{image: web}}}}\nnetworks: {{x: {{}}, y: {{}}}}\n\
                         secrets: {{s: {{content: a}}, t: {{content: a}}}}\nconfigs: {{k: {{content: a}}}}\n"
                    ),
                    expected,
                );
            }
        }
    }
}

#[test]
fn the_schema_and_the_parser_agree_on_values() {
    let mut wrong = Vec::new();
    for (text, taken, refused) in VALUES {
        let values = taken.split(' ').map(|value| (value, true));
        for (value, expected) in values.chain(refused.split(' ').map(|value| (value, false))) {
            let bare = value.trim_matches('\'');
            let value = if text.contains("'V'") { bare } else { value };
            let text = text.replace('V', &value.replace('_', " ").replace(';', ", "));
            // Of a variable that is not set the parser says only that.
            let parser = read(&text).is_ok() || text.contains('$');
            if (parser, valid(&text)) != (expected, expected) {
                wrong.push(format!("{text}: parser {parser}, schema {}", valid(&text)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[track_caller]
fn check_agreement(text: &str, expected: bool) {
    let parsed = read(text);
    assert_eq!(
        parsed.is_ok(),
        expected,
        "the parser\n{text}{}",
        parsed.err().map_or(String::new(), |p| p.to_string())
    );
    assert_eq!(valid(text), expected, "the schema\n{text}");
}

/// What the parser takes under any key the schema takes, too, whatever the value's type; and what is no single value
/// both judge alike. (Of single values the schema may take more: it does not know all that makes an address one.)
#[test]
fn under_every_key_the_schema_and_the_parser_agree_on_any_type() {
    const ODD: [&str; 14] = [
        "5",
        "-1",
        "1.5",
        "0",
        "true",
        "false",
        "null",
        "word",
        "[]",
        "[5]",
        "[true]",
        "[[]]",
        "{}",
        "{no-such-key: 5}",
    ];
    let mut wrong = Vec::new();
    each_shape("", shape::ROOT, &mut |path, shape| {
        let schema = published::shape(shape);
        for text in ODD {
            let node = yaml::parse(text, &mut Vec::new()).unwrap();
            let mut problems = Vec::new();
            structure::check(&node, shape, path, &mut problems);
            let (parser, schema) = (problems.is_empty(), accepts(&schema, &json(&node)));
            let may_differ = matches!(node.value, Value::Scalar(_)) && schema;
            if parser != schema && !may_differ {
                wrong.push(format!("{path}: {text}: parser {parser}, schema {schema}"));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What may stand under each key, and in each list and mapping.
pub(super) fn each_shape(path: &str, shape: Shape, look: &mut impl FnMut(&str, Shape)) {
    look(path, shape);
    for form in shape {
        match form {
            Form::Keys(keys) => {
                for key in keys.iter().flat_map(|group| group.iter()) {
                    each_shape(&format!("{path}.{}", key.name), key.shape, look);
                }
            }
            Form::Map(_, of) => each_shape(&format!("{path}.*"), of, look),
            Form::List(of) | Form::Set(of) => each_shape(&format!("{path}[]"), of, look),
            Form::Leaf(_) | Form::Nothing | Form::Ignored | Form::Inert(_) | Form::Refused(..) => {}
        }
    }
}

/// Whether the published schema takes a file, as an editor would see it.
fn valid(text: &str) -> bool {
    let tree = yaml::parse(text, &mut Vec::new()).unwrap();
    accepts(&serde_json::from_str(&schema()).unwrap(), &json(&tree))
}

/// A tree as YAML 1.2 readers make it of plain scalars.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null | Value::Unknown => Json::Null,
        Value::Scalar(text) => plain(text),
        Value::Sequence(items) => items.iter().map(json).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect()
        }
    }
}

/// What a scalar without quotes is to them.
pub(super) fn plain(text: &str) -> Json {
    match (text, serde_json::from_str(text)) {
        ("True" | "TRUE", _) => Json::Bool(true),
        ("False" | "FALSE", _) => Json::Bool(false),
        // To YAML it is whole.
        ("-0", _) => Json::from(0),
        // With blanks around it only quotes make it one.
        (_, Ok(value @ (Json::Number(_) | Json::Bool(_)))) if text == text.trim() => value,
        (_, Ok(_) | Err(_)) => Json::from(text),
    }
}

/// JSON Schema, as far as ours goes; an unknown keyword fails the test.
pub(super) fn accepts(schema: &Json, value: &Json) -> bool {
    if let Json::Bool(any) = schema {
        return *any;
    }
    let object = schema.as_object().unwrap();
    object.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" => true,
        // Judged with `additionalProperties`.
        "properties" | "patternProperties" => true,
        "anyOf" => rule.as_array().unwrap().iter().any(|schema| accepts(schema, value)),
        "not" => !accepts(rule, value),
        "const" => rule == value,
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule {
            Json::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
            kind => is(kind, value),
        },
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        "pattern" => value.as_str().is_none_or(|text| matches(rule, text)),
        "uniqueItems" => value
            .as_array()
            .is_none_or(|items| items.iter().enumerate().all(|(index, item)| !items[..index].contains(item))),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| accepts(rule, item))),
        "required" => value
            .as_object()
            .is_none_or(|o| rule.as_array().unwrap().iter().all(|key| o.contains_key(key.as_str().unwrap()))),
        "propertyNames" => {
            value.as_object().is_none_or(|o| o.keys().all(|key| accepts(rule, &Json::from(key.as_str()))))
        }
        "additionalProperties" => {
            value.as_object().is_none_or(|o| o.iter().all(|(key, value)| property(object, rule, key, value)))
        }
        other => panic!("the schema has `{other}`, which this test does not know"),
    })
}

fn property(schema: &serde_json::Map<String, Json>, additional: &Json, key: &str, value: &Json) -> bool {
    if let Some(schema) = schema.get("properties").and_then(|properties| properties.get(key)) {
        return accepts(schema, value);
    }
    let patterns = schema.get("patternProperties").and_then(Json::as_object);
    if let Some((_, schema)) =
        patterns.into_iter().flatten().find(|(pattern, _)| matches(&Json::from(pattern.as_str()), key))
    {
        return accepts(schema, value);
    }
    match additional {
        Json::Bool(allowed) => *allowed,
        schema => accepts(schema, value),
    }
}

fn is(kind: &Json, value: &Json) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("the schema has the type `{other}`, which this test does not know"),
    }
}

thread_local! {
    /// Making one of these takes far longer than to use it.
    static KNOWN: RefCell<BTreeMap<String, PikeVM>> = const { RefCell::new(BTreeMap::new()) };
}

fn matches(pattern: &Json, text: &str) -> bool {
    let pattern = pattern.as_str().unwrap();
    KNOWN.with_borrow_mut(|known| {
        let regex = known.entry(pattern.to_owned()).or_insert_with(|| PikeVM::new(pattern).unwrap());
        regex.is_match(&mut regex.create_cache(), text)
    })
}
