//! How two states differ, in words for people.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use crate::observed::MachineState;

/// The fields that differ between two states, as `key old -> new`, those of a part of it as `part.key`.
pub(crate) fn differences<T: Serialize>(from: &T, to: &T) -> String {
    let said = leaves(from, to).into_iter();
    let said: Vec<String> = said.map(|(path, old, new)| of_network(&path, &old, &new)).collect();
    said.join(", ")
}

/// How the parts of a network's state are called where they come or go as a whole.
fn of_network(path: &str, old: &Value, new: &Value) -> String {
    let addressing = |service: &Value| match service.get("dhcp") {
        None => "none",
        Some(Value::Null) => "static",
        Some(_) => "managed",
    };
    let dhcp = |dhcp: &Value| if dhcp.is_null() { "static" } else { "managed" };
    let key = network_key(path);
    match path {
        "service" => format!("{key} {} -> {}", addressing(old), addressing(new)),
        "service.dhcp" => format!("{key} {} -> {}", dhcp(old), dhcp(new)),
        "gateway" | "gateway6" => format!("{key} {} -> {}", subnet(old), subnet(new)),
        "service.dhcp.lease_s" => format!("{key} {}s -> {}s", plain(old), plain(new)),
        "service.dhcp.pool" => format!("{key} {} -> {}", range(old), range(new)),
        _ => format!("{key} {} -> {}", plain(old), plain(new)),
    }
}

/// What a part of a network's or a nic's state is called in the file.
fn network_key(path: &str) -> &str {
    match path {
        "gateway" => "subnet",
        "gateway6" => "subnet6",
        "service" | "service.dhcp" => "addressing",
        "service.dhcp.lease_s" => "dhcp.lease",
        "service.dhcp.pool" => "dhcp.pool",
        "service.dhcp.slaac" => "dhcp.slaac",
        "calls" => "host-gateway",
        path if path.starts_with("service.dhcp.boot") => "boot",
        path => path,
    }
}

/// The key of a network that was changed, if it is one alone. What follows from the subnet is not said by itself.
pub(crate) fn changed_network_key<T: Serialize>(from: &T, to: &T) -> Option<String> {
    let leaves = leaves(from, to);
    let keys: BTreeSet<&str> = leaves.iter().map(|(path, ..)| network_key(path)).collect();
    let mut own = keys.iter().filter(|key| **key != "dhcp.pool" || !keys.contains("subnet"));
    match (own.next(), own.next()) {
        (Some(key), None) => Some((*key).to_owned()),
        _ => None,
    }
}

/// The subnet that an address of ours is of.
fn subnet(value: &Value) -> String {
    let text = plain(value);
    text.parse::<IpNet>().map_or(text, |net| net.trunc().to_string())
}

/// Both ends of a range, as the file has them.
fn range(value: &Value) -> String {
    plain(value).replace('+', "-")
}

/// The keys of the file that make a machine another one. What is in them may be a secret, in an environment as in a
/// command, and is not told; but which image and kind it is.
pub(crate) fn machine_differences(from: &MachineState, to: &MachineState) -> String {
    let mut said: Vec<String> = Vec::new();
    for (path, old, new) in leaves(from, to) {
        let (old, new) = (plain(&old), plain(&new));
        let words = match said_of(&path) {
            Said::Nothing => continue,
            Said::Key(key) => key,
            Said::Values(key) => format!("{key} {old} -> {new}"),
        };
        if !said.contains(&words) {
            said.push(words);
        }
    }
    said.join(", ")
}

enum Said {
    /// Another key tells it.
    Nothing,
    Key(String),
    Values(String),
}

fn said_of(path: &str) -> Said {
    let Some(body) = path.strip_prefix("body") else { return Said::Values(path.to_owned()) };
    if body.is_empty() {
        return Said::Key("driver".to_owned());
    }
    // After the word for what was made of it; where that is another, so is its kind.
    let mut parts = body.splitn(5, '.').skip(2);
    match (parts.next(), parts.next()) {
        (Some("wish"), Some("image")) => Said::Values("image".to_owned()),
        (Some("wish"), Some(field)) => Said::Key(key_of(field, parts.next())),
        // The same name means another one by now.
        (Some("image"), _) => Said::Key("image".to_owned()),
        _ => Said::Nothing,
    }
}

/// What a field of a container is called in the file; a part of it as well, where that has a name that people chose.
fn key_of(field: &str, part: Option<&str>) -> String {
    let key = match (field, part) {
        ("workdir", _) => "working_dir",
        ("groups", _) => "group_add",
        ("stdin", _) => "stdin_open",
        ("network", _) => "network_mode",
        ("mounts" | "own_volumes", _) => "volumes",
        ("disk_bytes", _) => "disk",
        ("memory_mib", _) => "mem_limit",
        ("stop_grace_ms", _) => "stop_grace_period",
        ("hosts", _) => "extra_hosts",
        ("restart" | "pace", _) => "restart",
        ("log", _) => "logging",
        ("health", _) => "healthcheck",
        ("one_off", _) => "it was made by `run`",
        ("limits", Some("cpus_milli")) => "cpus",
        ("limits", Some("memory_bytes")) => "mem_limit",
        ("limits", Some("memory_swap_bytes")) => "memswap_limit",
        ("limits", Some("memory_reservation_bytes")) => "mem_reservation",
        ("limits", Some("pids")) => "pids_limit",
        ("limits", Some("io_weight")) => "blkio_config",
        // The disk's path follows.
        ("limits", Some(part)) if part.starts_with("disk_rates") => "blkio_config",
        ("limits", Some("shm_bytes")) => "shm_size",
        ("limits", Some("oom_score")) => "oom_score_adj",
        ("rights", Some("capabilities_add")) => "cap_add",
        ("rights", Some("capabilities_drop")) => "cap_drop",
        ("rights", Some("no_new_privileges" | "seccomp")) => "security_opt",
        ("stop", Some("signal")) => "stop_signal",
        ("stop", Some("grace_ms")) => "stop_grace_period",
        ("limits" | "rights" | "stop", Some(part)) => part,
        ("environment" | "labels", Some(name)) => return format!("{field} {name}"),
        (field, _) => field,
    };
    key.to_owned()
}

/// Where two values differ: the way there, what it was and what it is.
type Leaf = (String, Value, Value);

fn leaves<T: Serialize>(from: &T, to: &T) -> Vec<Leaf> {
    let (Ok(from), Ok(to)) = (serde_json::to_value(from), serde_json::to_value(to)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    differing("", &from, &to, &mut found);
    found
}

fn differing(path: &str, from: &Value, to: &Value, found: &mut Vec<Leaf>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |values: &serde_json::Map<String, Value>| values.get(key).cloned();
                differing(&path, &of(from).unwrap_or_default(), &of(to).unwrap_or_default(), found);
            }
        }
        (old, new) if old != new => found.push((path.to_owned(), old.clone(), new.clone())),
        _ => {}
    }
}

/// A value as the file would have it, without the quotes that a reader does not need.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("+"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Object(keys) => {
            let said: Vec<(&String, String)> = keys
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, plain(value)))
                .collect();
            match said.as_slice() {
                // A choice with something to it: `bridged:eth0`.
                [(key, value)] if keys.len() == 1 => format!("{key}:{value}"),
                said => {
                    let said = said.iter().map(|(key, value)| format!("{key}: {value}"));
                    format!("{{ {} }}", said.collect::<Vec<_>>().join(", "))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Container;
    use crate::observed::{Body, MadeContainer};
    use crate::project::Kind;
    use serde_json::json;

    #[track_caller]
    fn check(change: impl Fn(&mut MachineState, &mut MadeContainer), expected: &str) {
        let mut wish = Container::new("web:1".parse().expect("a reference"));
        wish.environment = [("A.B", "open sesame"), ("C", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        wish.limits.memory_bytes = Some(1 << 20);
        let made = MadeContainer { wish, image: None };
        let from = MachineState { kind: Kind::Container, body: Body::Container(Box::new(made.clone())) };
        let (mut to, mut made) = (from.clone(), made);
        change(&mut to, &mut made);
        if let Body::Container(inner) | Body::Microvm(inner) = &mut to.body {
            **inner = made;
        }
        assert_eq!(machine_differences(&from, &to), expected);
    }

    #[test]
    fn the_keys_of_the_file_are_named_and_no_secret_is_told() {
        check(|_, made| drop(made.wish.environment.insert("C".to_owned(), "2".to_owned())), "environment C");
        check(|_, made| drop(made.wish.environment.remove("A.B")), "environment A.B");
        check(
            |_, made| {
                made.wish.command = Some(vec!["login".to_owned(), "open sesame".to_owned()]);
                made.wish.limits.memory_bytes = None;
                made.wish.rights.no_new_privileges = true;
            },
            "command, mem_limit, security_opt",
        );
        check(
            |_, made| {
                let path = "/run".to_owned();
                made.wish.own_volumes.insert(path.clone());
                made.wish.mounts.insert(
                    path,
                    crate::container::Mount::Tmpfs {
                        size_bytes: None,
                        mode: None,
                        owner: crate::container::Owner::default(),
                        access: crate::container::Access::Read,
                        exec: false,
                    },
                );
            },
            "volumes",
        );
    }

    #[test]
    fn what_comes_or_goes_of_a_network_is_told_in_the_files_words() {
        let check = |path: &str, old: Value, new: Value, expected: &str| {
            assert_eq!(of_network(path, &old, &new), expected);
        };
        let dhcp = json!({ "pool": null, "lease_s": 3600, "slaac": false, "boot": null });
        let service = json!({ "domain": "shop.stead", "dhcp": dhcp.clone() });
        check("reach", json!("isolated"), json!({ "bridged": "eth0" }), "reach isolated -> bridged:eth0");
        check("service", Value::Null, service, "addressing none -> managed");
        check("service", json!({ "domain": "a", "dhcp": null }), Value::Null, "addressing static -> none");
        check("service.dhcp", dhcp, Value::Null, "addressing managed -> static");
        let boot = json!({ "file": "pxe.0", "server": "10.0.0.1" });
        let said = "boot none -> { file: pxe.0, server: 10.0.0.1 }";
        check("service.dhcp.boot", Value::Null, boot, said);
        check("gateway", json!("10.0.5.1/24"), Value::Null, "subnet 10.0.5.0/24 -> none");
        check("gateway6", json!("fd00::1/64"), json!("fd01::1/64"), "subnet6 fd00::/64 -> fd01::/64");
        check("service.dhcp.lease_s", json!(3600), json!(300), "dhcp.lease 3600s -> 300s");
        let pool = "dhcp.pool 10.0.0.9-10.0.0.20 -> none";
        check("service.dhcp.pool", json!(["10.0.0.9", "10.0.0.20"]), Value::Null, pool);
        check("mtu", json!(1500), json!(1400), "mtu 1500 -> 1400");
    }

    #[test]
    fn the_key_that_changed_a_network_is_known_if_it_is_one() {
        let network = |subnet: u8, mtu: u16| {
            let dhcp = json!({ "pool": [format!("10.0.{subnet}.9"), format!("10.0.{subnet}.20")] });
            let gateway = format!("10.0.{subnet}.1/24");
            json!({ "mtu": mtu, "gateway": gateway, "service": { "dhcp": dhcp } })
        };
        let key = |from: &Value, to: &Value| changed_network_key(from, to);
        assert_eq!(key(&network(1, 1500), &network(1, 1400)).as_deref(), Some("mtu"));
        assert_eq!(key(&network(1, 1500), &network(2, 1500)).as_deref(), Some("subnet"));
        assert_eq!(key(&network(1, 1500), &network(2, 1400)), None);
        assert_eq!(key(&network(1, 1500), &network(1, 1500)), None);
    }

    #[test]
    fn another_image_or_kind_is_told() {
        check(|_, made| made.wish.image = "web:2".parse().expect("a reference"), "image web:1 -> web:2");
        let digest = format!("sha256:{}", "0".repeat(64));
        check(|_, made| made.image = digest.parse().ok(), "image");
        check(
            |state, made| {
                state.kind = Kind::Microvm;
                state.body = Body::Microvm(Box::new(made.clone()));
            },
            "kind container -> microvm",
        );
        let external = MachineState { kind: Kind::Container, body: Body::External };
        let made = MadeContainer { wish: Container::new("web".parse().expect("a reference")), image: None };
        let ours = MachineState { body: Body::Container(Box::new(made)), ..external.clone() };
        assert_eq!(machine_differences(&external, &ours), "driver");
    }
}
