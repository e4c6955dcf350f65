//! Services of Compose as machines of ours.

use super::{entry, link, mapping, mode, text, value};
use crate::file::Reading;
use crate::file::leaf::quantity;
use crate::file::problem::{Problem, Span};
use crate::file::spec::DEFAULT_NETWORK;
use crate::file::yaml::{Entry, Node, Value};

pub(super) fn all(node: Node, reading: &mut Reading<'_>) -> Node {
    if !matches!(node.value, Value::Mapping(_)) {
        return node;
    }
    let span = node.span;
    let mut services = super::renamed(node, "services", value::service, reading);
    mode::settle(&mut services, reading);
    for (_, service) in &services {
        check_mac(service, reading);
        check_cpus(service, reading);
    }
    let mut links = Vec::new();
    let machines = services.into_iter().enumerate().map(|(index, (name, mut service))| {
        let path = format!("services.{}.links", service.key);
        links.extend(taken(&mut service.node, "links").map(|node| (index, path, node)));
        named(name.as_str(), service)
    });
    let mut machines: Vec<Entry> = machines.collect();
    link::resolve(&mut machines, links, reading);
    mapping(span, machines)
}

/// Takes a key out of a mapping.
fn taken(node: &mut Node, key: &str) -> Option<Node> {
    let Value::Mapping(keys) = &mut node.value else { return None };
    let at = keys.iter().position(|entry| entry.key == key)?;
    Some(keys.remove(at).node)
}

/// The networks that a machine is on.
pub(super) fn nets_of(machine: &Entry) -> Vec<String> {
    nics(machine).map_or_else(
        || vec![DEFAULT_NETWORK.to_owned()],
        |nics| nics.iter().map(|nic| nic.key.clone()).collect(),
    )
}

/// The names that a machine has, each with its network.
pub(super) fn names_of(machine: &Entry) -> Vec<(String, String)> {
    let own = nets_of(machine).into_iter().map(|network| (network, machine.key.clone()));
    let nics = nics(machine).unwrap_or_default().iter();
    let more = nics.flat_map(|nic| {
        let Value::Mapping(keys) = &nic.node.value else { return Vec::new() };
        let aliases = keys.iter().find(|key| key.key == "aliases").map(|key| &key.node.value);
        let Some(Value::Sequence(items)) = aliases else { return Vec::new() };
        items.iter().filter_map(|item| Some((nic.key.clone(), scalar(item)?.to_owned()))).collect()
    });
    own.chain(more).collect()
}

/// The nics of a machine; nothing where it does not say which it has.
fn nics(machine: &Entry) -> Option<&[Entry]> {
    let Value::Mapping(keys) = &machine.node.value else { return None };
    if keys.iter().any(|key| key.key == "network_mode") {
        return Some(&[]);
    }
    match &keys.iter().find(|key| key.key == "networks")?.node.value {
        Value::Mapping(nics) => Some(nics),
        Value::Sequence(_) => Some(&[]),
        Value::Null | Value::Unknown | Value::Scalar(_) => None,
    }
}

/// A service's own MAC is that of its nic, where it has one nic and that says none.
fn check_mac(service: &Entry, reading: &mut Reading<'_>) {
    let Value::Mapping(keys) = &service.node.value else { return };
    let key = |name: &str| keys.iter().find(|entry| entry.key == name);
    let Some(mac) = key("mac_address") else { return };
    let has_mac = |nic: &Entry| matches!(&nic.node.value, Value::Mapping(keys) if keys.iter().any(|key| key.key == "mac_address"));
    let is_clear = match key("networks").map(|entry| &entry.node.value) {
        _ if !mode::is_usual(keys) => false,
        Some(Value::Mapping(nics)) => nics.len() < 2 && !nics.iter().any(has_mac),
        Some(Value::Sequence(nics)) => nics.len() < 2,
        Some(Value::Null | Value::Unknown | Value::Scalar(_)) | None => true,
    };
    if !is_clear {
        let message = "`mac_address` of a service is for one that is on one network, and says none there";
        let path = format!("services.{}.mac_address", service.key);
        let problem = Problem::found(mac.key_span, &path, "mac_address", message);
        reading.problems.push(problem.hint("write it under one of its `networks` instead"));
    }
}

/// Processor time has one limit, which is none of too little.
fn check_cpus(service: &Entry, reading: &mut Reading<'_>) {
    let Value::Mapping(keys) = &service.node.value else { return };
    let key = |name: &str| keys.iter().find(|entry| entry.key == name);
    let Some(quota) = key("cpu_quota") else { return };
    let (message, hint) = match milli(&quota.node, key("cpu_period").map(|period| &period.node)) {
        Some(milli) if milli < value::CPUS_MIN_MILLI => {
            ("`cpu_quota` is less than a hundredth of a processor", "give it more, or a shorter `cpu_period`")
        }
        _ if key("cpus").is_some() => ("`cpu_quota` and `cpus` exclude each other", "leave one of them out"),
        _ => return,
    };
    let path = format!("services.{}.cpu_quota", service.key);
    reading.problems.push(Problem::found(quota.key_span, &path, "cpu_quota", message).hint(hint));
}

/// Whether nothing is said: to Compose, no networks are the default one.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Mapping(entries) => entries.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Scalar(_) | Value::Unknown => false,
    }
}

/// A service as a machine of this name.
fn named(name: &str, mut service: Entry) -> Entry {
    let keys = match std::mem::replace(&mut service.node.value, Value::Null) {
        Value::Mapping(keys) => keys,
        Value::Null => Vec::new(),
        // What is no service was told; nothing follows from it.
        other @ (Value::Unknown | Value::Scalar(_) | Value::Sequence(_)) => {
            service.node.value = other;
            return Entry { key: name.to_owned(), ..service };
        }
    };
    service.node.value = Value::Mapping(machine(name, keys, service.key_span));
    Entry { key: name.to_owned(), ..service }
}

/// Names of services, in a list or as keys, as those of machines; aliases likewise.
fn names(mut node: Node) -> Node {
    let ours = |text: &mut String| {
        // Names of services are such, too.
        if let Ok(name) = value::alias(text) {
            name.as_str().clone_into(text);
        }
    };
    match &mut node.value {
        Value::Sequence(items) => {
            for item in items {
                if let Value::Scalar(text) = &mut item.value {
                    ours(text);
                }
            }
        }
        Value::Mapping(entries) => entries.iter_mut().for_each(|entry| ours(&mut entry.key)),
        Value::Scalar(text) => ours(text),
        Value::Null | Value::Unknown => {}
    }
    node
}

fn machine(own_name: &str, keys: Vec<Entry>, span: Span) -> Vec<Entry> {
    let mut ours = vec![text("kind", span, "container"), text("driver", span, "native")];
    let (mut also_known, mut mac, mut quota, mut period, mut set_aside) = (None, None, None, None, None);
    for Entry { key, key_span, node } in keys {
        match key.as_str() {
            "container_name" => also_known = Some(names(node)),
            // Documentation by specification, or only what says the usual is left.
            "expose" | "attach" | "develop" | "userns_mode" | "isolation" | "ipc" | "cgroup"
            | "oom_kill_disable" | "runtime" => {}
            "network_mode" => ours.extend(mode::translated(node, key_span)),
            "networks" if is_empty(&node.value) => {}
            "networks" => ours.push(entry("networks", key_span, networks(by_priority(node)))),
            "ports" => ours.push(entry("ports", key_span, ports(node))),
            "volumes" => ours.push(entry("volumes", key_span, each(node, volume))),
            "depends_on" => ours.push(entry("depends_on", key_span, names(node))),
            "deploy" => {
                let mut node = without(node, &DEPLOY_IGNORED);
                let reserved = below(&mut node, "resources").and_then(|node| below(node, "reservations"));
                set_aside = reserved.and_then(|node| taken(node, "cpus"));
                ours.push(entry("deploy", key_span, node));
            }
            "mac_address" => mac = Some(node),
            // Taken together below.
            "cpu_quota" => quota = Some(node),
            "cpu_period" => period = Some(node),
            "scale" => ours.push(entry("replicas", key_span, node)),
            "pull_policy" => ours.push(entry("pull_policy", key_span, pull_policy(node))),
            _ => ours.push(Entry { key, key_span, node }),
        }
    }
    // In another's network it is found by that one's names.
    let has_nics = !ours.iter().any(|entry| entry.key == "network_mode");
    if let Some(Node { span, value: Value::Scalar(name) }) = also_known
        && name != own_name
        && has_nics
    {
        alias(&mut ours, span, &name, None);
    }
    if let Some(mac) = mac.filter(|_| has_nics) {
        own_mac(&mut ours, mac);
    }
    ours.extend(quota.and_then(|quota| cpus(&quota, period.as_ref())));
    if !ours.iter().any(|entry| entry.key == "cpu_shares") {
        ours.extend(set_aside.and_then(|cpus| shares(&cpus)));
    }
    ours
}

/// What is under a key of a mapping.
fn below<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    let Value::Mapping(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|entry| entry.key == name).map(|entry| &mut entry.node)
}

/// Processors that are set aside, as a weight: who has more of them set aside has more of what all want.
fn shares(cpus: &Node) -> Option<Entry> {
    let milli = quantity::cpus_milli(scalar(cpus)?).ok()??;
    // Nobody has less than those who reserve nothing.
    let shares = (u64::from(milli) * SHARES_OF_ONE / 1000).clamp(SHARES_OF_ONE, SHARES_MAX);
    Some(text("cpu_shares", cpus.span, &shares.to_string()))
}

/// The weight of one processor, which is the usual one, and the greatest that there is.
const SHARES_OF_ONE: u64 = 1024;
const SHARES_MAX: u64 = 262_144;

/// What Compose leaves to clusters, and what says the usual.
const DEPLOY_IGNORED: [&str; 6] =
    ["mode", "labels", "endpoint_mode", "placement", "rollback_config", "update_config"];

/// The MAC of the only nic.
fn own_mac(ours: &mut Vec<Entry>, mac: Node) {
    let span = mac.span;
    let Some(networks) = value_of(ours, "networks", span) else { return };
    if networks.value == Value::Null {
        networks.value = Value::Mapping(vec![entry(DEFAULT_NETWORK, span, mapping(span, Vec::new()))]);
    }
    let Value::Mapping(nics) = &mut networks.value else { return };
    // Of several it was told.
    let [nic] = nics.as_mut_slice() else { return };
    if nic.node.value == Value::Null {
        nic.node.value = Value::Mapping(Vec::new());
    }
    if let Value::Mapping(keys) = &mut nic.node.value {
        keys.push(entry("mac", span, mac));
    }
}

/// A quota of each period as thousandths of a processor; nothing where there is no limit.
fn milli(quota: &Node, period: Option<&Node>) -> Option<u64> {
    let time = |node: &Node| value::microseconds(scalar(node)?).ok().flatten();
    Some(time(quota)? * 1000 / period.and_then(time).unwrap_or(value::PERIOD_USUAL))
}

fn cpus(quota: &Node, period: Option<&Node>) -> Option<Entry> {
    let milli = milli(quota, period)?;
    Some(text("cpus", quota.span, &format!("{}.{:03}", milli / 1000, milli % 1000)))
}

pub(super) fn scalar(node: &Node) -> Option<&str> {
    if let Value::Scalar(text) = &node.value { Some(text) } else { None }
}

fn each(mut node: Node, change: impl Fn(Node) -> Node) -> Node {
    if let Value::Sequence(items) = node.value {
        node.value = Value::Sequence(items.into_iter().map(change).collect());
    }
    node
}

/// A mapping's keys under other names.
fn renamed(mut node: Node, name: impl Fn(&str) -> &str) -> Node {
    if let Value::Mapping(entries) = &mut node.value {
        for entry in entries {
            entry.key = name(&entry.key).to_owned();
        }
    }
    node
}

fn without(mut node: Node, keys: &[&str]) -> Node {
    if let Value::Mapping(entries) = &mut node.value {
        entries.retain(|entry| !keys.contains(&entry.key.as_str()));
    }
    node
}

/// The networks in the order that they are to have: the first one has the default route.
fn by_priority(mut node: Node) -> Node {
    let Value::Mapping(entries) = &mut node.value else { return node };
    let of = |entry: &Entry, name: &str| {
        let Value::Mapping(keys) = &entry.node.value else { return 0 };
        let key = keys.iter().find(|key| key.key == name);
        key.and_then(|key| value::priority(scalar(&key.node)?).ok()).unwrap_or(0)
    };
    entries.sort_by_key(|entry| std::cmp::Reverse((of(entry, "gw_priority"), of(entry, "priority"))));
    for entry in entries {
        if let Value::Mapping(keys) = &mut entry.node.value {
            keys.retain(|key| !["gw_priority", "priority"].contains(&key.key.as_str()));
        }
    }
    node
}

/// The networks as a mapping, under our names for them and their keys.
fn networks(node: Node) -> Node {
    let ours = |name: &str| value::resource(name).map_or_else(|_| name.to_owned(), |name| name.to_string());
    let entries = match node.value {
        Value::Sequence(items) => {
            let read =
                |item: Node| Some(entry(&ours(scalar(&item)?), item.span, mapping(item.span, Vec::new())));
            items.into_iter().filter_map(read).collect()
        }
        Value::Mapping(entries) => {
            let nic_key = |key: &str| match key {
                "ipv4_address" => "address".to_owned(),
                "ipv6_address" => "address6".to_owned(),
                "mac_address" => "mac".to_owned(),
                other => other.to_owned(),
            };
            let read = |Entry { key, key_span, mut node }: Entry| {
                if let Value::Mapping(keys) = &mut node.value {
                    for key in keys {
                        key.key = nic_key(&key.key);
                        if key.key == "aliases" {
                            let aliases = std::mem::replace(&mut key.node.value, Value::Null);
                            key.node = names(Node { span: key.node.span, value: aliases });
                        }
                    }
                }
                entry(&ours(&key), key_span, node)
            };
            entries.into_iter().map(read).collect()
        }
        Value::Null | Value::Unknown | Value::Scalar(_) => return node,
    };
    mapping(node.span, entries)
}

fn ports(mut node: Node) -> Node {
    if let Value::Sequence(items) = node.value {
        node.value = Value::Sequence(items.into_iter().flat_map(port).collect());
    }
    node
}

/// One that is left open is one that the computer chooses, for each target.
fn port(node: Node) -> Vec<Node> {
    let span = node.span;
    let node = without(node, &["mode", "name", "app_protocol"]);
    let node = renamed(node, |key| match key {
        "published" => "port",
        "host_ip" => "address",
        other => other,
    });
    match node.value {
        Value::Scalar(text) => {
            let ours = value::ports_of_docker(&text).into_iter();
            ours.map(|text| Node { span, value: Value::Scalar(text) }).collect()
        }
        Value::Mapping(mut entries) => {
            entries.retain(|entry| entry.key != "port" || scalar(&entry.node) != Some(""));
            if entries.iter().any(|entry| entry.key == "port") {
                return vec![mapping(span, entries)];
            }
            entries.push(text("port", span, "0"));
            let target =
                entries.iter().find(|entry| entry.key == "target").and_then(|entry| scalar(&entry.node));
            let Some(range) = target.map(str::to_owned) else { return vec![mapping(span, entries)] };
            let one = |target: String| {
                let mut entries = entries.clone();
                for entry in entries.iter_mut().filter(|entry| entry.key == "target") {
                    entry.node.value = Value::Scalar(target.clone());
                }
                mapping(span, entries)
            };
            value::targets(&range).into_iter().map(one).collect()
        }
        value @ (Value::Null | Value::Unknown | Value::Sequence(_)) => vec![Node { span, value }],
    }
}

fn volume(mut node: Node) -> Node {
    match &mut node.value {
        Value::Scalar(text) => *text = value::volume(text),
        Value::Mapping(entries) => {
            let source = entries.iter_mut().find(|entry| entry.key == "source");
            if let Some(Entry { node: Node { value: Value::Scalar(text), .. }, .. }) = source {
                *text = value::volume_name(text).map_or_else(|| text.clone(), |name| name.to_string());
            }
            entries.retain(|entry| entry.key != "consistency");
            for bind in entries.iter_mut().filter(|entry| entry.key == "bind") {
                if let Value::Mapping(keys) = &mut bind.node.value {
                    keys.retain(|entry| entry.key != "selinux");
                }
            }
        }
        Value::Null | Value::Unknown | Value::Sequence(_) => {}
    }
    node
}

fn pull_policy(mut node: Node) -> Node {
    if scalar(&node) == Some("if_not_present") {
        node.value = Value::Scalar("missing".to_owned());
    }
    node
}

/// The value of a key, which is made where it is missing.
fn value_of<'e>(ours: &'e mut Vec<Entry>, key: &str, span: Span) -> Option<&'e mut Node> {
    if !ours.iter().any(|entry| entry.key == key) {
        ours.push(entry(key, span, Node { span, value: Value::Null }));
    }
    ours.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
}

/// A link says that the other is started before; by its name it is found anyway.
pub(super) fn order(machine: &mut Entry, others: Vec<(String, Span)>) {
    let Value::Mapping(ours) = &mut machine.node.value else { return };
    let links: Vec<Node> =
        others.into_iter().map(|(name, span)| Node { span, value: Value::Scalar(name) }).collect();
    let Some(before) = links.first().and_then(|link| value_of(ours, "depends_on", link.span)) else { return };
    match &mut before.value {
        Value::Sequence(items) => {
            let known: Vec<Value> = items.iter().map(|item| item.value.clone()).collect();
            items.extend(links.into_iter().filter(|link| !known.contains(&link.value)));
        }
        Value::Mapping(entries) => {
            for link in links {
                let Some(name) = scalar(&link).filter(|name| entries.iter().all(|entry| entry.key != *name))
                else {
                    continue;
                };
                entries.push(entry(name, link.span, mapping(link.span, Vec::new())));
            }
        }
        value @ (Value::Null | Value::Unknown | Value::Scalar(_)) => *value = Value::Sequence(links),
    }
}

/// One more name on all of its networks, or on one.
pub(super) fn alias(ours: &mut Vec<Entry>, span: Span, name: &str, only: Option<&str>) {
    let Some(networks) = value_of(ours, "networks", span) else { return };
    if networks.value == Value::Null {
        networks.value = Value::Mapping(vec![entry(DEFAULT_NETWORK, span, mapping(span, Vec::new()))]);
    }
    let Value::Mapping(nics) = &mut networks.value else { return };
    for nic in nics.iter_mut().filter(|nic| only.is_none_or(|only| nic.key == only)) {
        if nic.node.value == Value::Null {
            nic.node.value = Value::Mapping(Vec::new());
        }
        let Value::Mapping(keys) = &mut nic.node.value else { continue };
        let Some(aliases) = value_of(keys, "aliases", span) else { continue };
        let alias = Node { span, value: Value::Scalar(name.to_owned()) };
        if let Value::Sequence(items) = &mut aliases.value {
            items.push(alias);
        } else {
            aliases.value = Value::Sequence(vec![alias]);
        }
    }
}
