//! How what a machine says goes together with what it extends, and a file with one that goes over it, as Compose has it:
//! mappings key by key, lists one after the other; what is told apart by a name or a place is there once, however it is
//! written. [`MACHINE`] and [`FILE`] say for which keys it is otherwise.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::Dialect;
use super::compose::ports_of_docker;
use super::environment::last_of_each;
use super::leaf::container::{capability, host};
use super::leaf::mount;
use super::leaf::network::any_address;
use super::leaf::port::{PortRange, Ports, port, port_range, published_range};
use super::problem::Span;
use super::yaml::{Entry, Node, Value};
use crate::project::Protocol;

/// How two values of one key go together.
enum Rule {
    /// The one on top alone, even if it is nothing.
    Replaced,
    /// Names with values: a mapping, or a list of `NAME=value`.
    Pairs,
    /// Names with more under each; in a list a name alone says this much.
    Names(&'static [(&'static str, &'static str)]),
    /// A list in which each of these is there once, or a single value of it.
    List(Place),
    /// Names with addresses: a list of both, or a mapping. Those of both are there.
    Hosts,
    /// The ports, which are told apart by all that is said of them.
    Ports,
    /// A mapping; a text is what stands under this key of it.
    Keyed(&'static str),
    /// A mapping, which is another one with another `driver`.
    OfDriver,
    /// Mappings key by key, lists one after the other without what comes twice, else the one on top.
    Usual,
}

/// What tells the items of a list apart; nothing for an item that is like no other.
type Place = fn(&Node) -> Option<String>;

type Rules = &'static [(&'static [&'static str], Rule)];

/// The keys of machines, by their path; `*` is any name.
const MACHINE: Rules = &[
    (&["command"], Rule::Replaced),
    (&["entrypoint"], Rule::Replaced),
    (&["healthcheck", "test"], Rule::Replaced),
    (&["environment"], Rule::Pairs),
    (&["labels"], Rule::Pairs),
    (&["sysctls"], Rule::Pairs),
    (&["build", "args"], Rule::Pairs),
    (&["build", "labels"], Rule::Pairs),
    (&["extra_hosts"], Rule::Hosts),
    (&["networks"], Rule::Names(&[])),
    (
        &["depends_on"],
        Rule::Names(&[("condition", "service_started"), ("required", "true"), ("restart", "false")]),
    ),
    (&["build"], Rule::Keyed("context")),
    (&["logging"], Rule::OfDriver),
    (&["ports"], Rule::Ports),
    (&["volumes"], Rule::List(mounted)),
    (&["tmpfs"], Rule::List(in_memory)),
    (&["devices"], Rule::List(device)),
    (&["secrets"], Rule::List(secret)),
    (&["configs"], Rule::List(config)),
    (&["build", "secrets"], Rule::List(source)),
    (&["blkio_config", "device_read_bps"], Rule::List(file)),
    (&["blkio_config", "device_write_bps"], Rule::List(file)),
    (&["blkio_config", "device_read_iops"], Rule::List(file)),
    (&["blkio_config", "device_write_iops"], Rule::List(file)),
    (&["env_file"], Rule::List(file)),
    (&["label_file"], Rule::List(file)),
    (&["dns"], Rule::List(address)),
    (&["dns_search"], Rule::List(text)),
    (&["cap_add"], Rule::List(right)),
    (&["cap_drop"], Rule::List(right)),
    (&["security_opt"], Rule::List(option)),
    (&["dev", "keys"], Rule::List(text)),
];

/// The keys of a file beside its machines.
const FILE: Rules = &[
    (&["volumes"], Rule::Names(&[])),
    // A network has one subnet of each family.
    (&["networks", "*", "ipam", "config"], Rule::List(family)),
];

/// What a file has machines under, and one of them.
const MACHINES: [&str; 2] = ["machines", "services"];

/// A file over another: what has one name in both goes together as a machine does with the one that it extends.
pub(crate) fn files(base: Node, own: Node, dialect: Dialect) -> Node {
    let said = said_publish(&own).or_else(|| said_publish(&base));
    over(&[], base, own, Usual { publish: said.unwrap_or(usual_publish(dialect)), dialect })
}

/// What is meant by ports of a file that do not say all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usual {
    publish: IpAddr,
    dialect: Dialect,
}

/// A machine over the one that it extends.
pub(crate) fn merge(base: Node, own: Node, usual: Usual) -> Node {
    over(&[MACHINES[0], "*"], base, own, usual)
}

/// The labels of a machine over those that files have for it.
pub(crate) fn labels(base: Node, own: Node) -> Node {
    if own.value == Value::Null { base } else { by_pairs(base, own) }
}

/// What is meant by ports of this file that do not say all.
pub(crate) fn usual(tree: &Node, dialect: Dialect) -> Usual {
    Usual { publish: said_publish(tree).unwrap_or(usual_publish(dialect)), dialect }
}

fn said_publish(tree: &Node) -> Option<IpAddr> {
    any_address(&said(&entry(tree, "defaults")?.node, &["publish"])?).ok()
}

fn usual_publish(dialect: Dialect) -> IpAddr {
    match dialect {
        Dialect::Stead => Ipv4Addr::LOCALHOST.into(),
        Dialect::Compose => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn rule(path: &[&str]) -> &'static Rule {
    let (rules, path) = match path {
        [machines, _, path @ ..] if MACHINES.contains(machines) => (MACHINE, path),
        path => (FILE, path),
    };
    let is_it = |pattern: &[&str]| {
        pattern.len() == path.len()
            && pattern.iter().zip(path).all(|(pattern, key)| *pattern == "*" || pattern == key)
    };
    rules.iter().find(|(pattern, _)| is_it(pattern)).map_or(&Rule::Usual, |(_, rule)| rule)
}

/// What stands at `path` in both.
fn over(path: &[&str], base: Node, own: Node, usual: Usual) -> Node {
    let rule = rule(path);
    if own.value == Value::Null && !matches!(rule, Rule::Replaced) {
        return base;
    }
    let joined = |base, own| joined(path, base, own, usual);
    match rule {
        Rule::Replaced => own,
        Rule::Pairs => by_pairs(base, own),
        Rule::Hosts => listed(hosts(base), hosts(own), named_host),
        Rule::Names(alone) => joined(named(base, alone), named(own, alone)),
        Rule::List(place) => listed(list(base), list(own), place),
        Rule::Ports => listed(base, own, |item| published(item, usual)),
        Rule::Keyed(key) => joined(keyed(base, key), keyed(own, key)),
        Rule::OfDriver => match (said(&base, &["driver"]), said(&own, &["driver"])) {
            (Some(one), Some(other)) if one != other => own,
            _ => joined(base, own),
        },
        Rule::Usual => joined(base, own),
    }
}

fn by_pairs(base: Node, own: Node) -> Node {
    by_key(pairs(base), pairs(own), |_, _, own| own)
}

fn joined(path: &[&str], base: Node, own: Node, usual: Usual) -> Node {
    match (&base.value, &own.value) {
        (Value::Mapping(_), Value::Mapping(_)) => by_key(base, own, |key, base, own| {
            let path: Vec<&str> = path.iter().copied().chain([key]).collect();
            over(&path, base, own, usual)
        }),
        (Value::Sequence(_), Value::Sequence(_)) => listed(base, own, text),
        _ => own,
    }
}

/// Mappings over each other, where `both` says what becomes of a key that is in both. What is below comes first: networks
/// are in their order.
fn by_key(base: Node, own: Node, both: impl Fn(&str, Node, Node) -> Node) -> Node {
    let (span, own) = (own.span, own.value);
    let (Value::Mapping(above), Value::Mapping(mut entries)) = (own.clone(), base.value) else {
        return Node { span, value: own };
    };
    let places: BTreeMap<String, usize> =
        entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
    for own in above {
        match places.get(&own.key).and_then(|place| entries.get_mut(*place)) {
            None => entries.push(own),
            Some(entry) => {
                let value = std::mem::replace(&mut entry.node.value, Value::Null);
                let below = Node { span: entry.node.span, value };
                *entry = Entry { node: both(&own.key, below, own.node), ..own };
            }
        }
    }
    Node { span, value: Value::Mapping(entries) }
}

/// Lists one after the other; what is at a place that one below has stands in its stead.
fn listed(base: Node, own: Node, place: impl Fn(&Node) -> Option<String>) -> Node {
    let span = own.span;
    let (mut items, more) = match (base.value, own.value) {
        (Value::Sequence(items), Value::Sequence(more)) => (items, more),
        (_, value) => return Node { span, value },
    };
    let places = items.iter().enumerate().filter_map(|(at, item)| Some((place(item)?, at)));
    // Of those that are there twice the first one is replaced; the other is told.
    let mut places: BTreeMap<String, usize> = places.rev().collect();
    for item in more {
        let at = place(&item).and_then(|place| places.remove(&place));
        match at.and_then(|at| items.get_mut(at)) {
            Some(below) => *below = item,
            None => items.push(item),
        }
    }
    Node { span, value: Value::Sequence(items) }
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Entry> {
    let Value::Mapping(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key)
}

/// The text under the first of these keys that is there.
fn said(item: &Node, keys: &[&str]) -> Option<String> {
    text(&keys.iter().find_map(|key| entry(item, key))?.node)
}

fn text(item: &Node) -> Option<String> {
    if let Value::Scalar(text) = &item.value { Some(text.clone()) } else { None }
}

/// The text of an item, or the one under the first of these keys that it has.
fn text_or(item: &Node, keys: &[&str]) -> Option<String> {
    text(item).or_else(|| said(item, keys))
}

/// A place in a machine without what means nothing there.
fn clean(target: &str) -> String {
    mount::target(target).unwrap_or_else(|_| target.to_owned())
}

/// Names of volumes may be Compose's own here, so only the target is read.
fn mounted(item: &Node) -> Option<String> {
    let target = text(item).map(|text| text.split(':').nth(1).unwrap_or(&text).to_owned());
    Some(clean(&target.or_else(|| said(item, &["target"]))?))
}

fn in_memory(item: &Node) -> Option<String> {
    text(item).map(|text| clean(text.split(':').next().unwrap_or(&text)))
}

fn device(item: &Node) -> Option<String> {
    let short = text(item).map(|text| {
        let mut parts = text.split(':');
        let source = parts.next().unwrap_or_default();
        // What follows may as well be what may be done with it.
        parts.next().filter(|second| second.starts_with('/')).unwrap_or(source).to_owned()
    });
    Some(clean(&short.or_else(|| said(item, &["target", "source"]))?))
}

fn secret(item: &Node) -> Option<String> {
    within("/run/secrets", item)
}

fn config(item: &Node) -> Option<String> {
    within("", item)
}

fn within(directory: &str, item: &Node) -> Option<String> {
    let target = text_or(item, &["target", "source"])?;
    Some(clean(&if target.starts_with('/') { target } else { format!("{directory}/{target}") }))
}

fn source(item: &Node) -> Option<String> {
    text_or(item, &["source"])
}

fn file(item: &Node) -> Option<String> {
    text_or(item, &["path"])
}

fn address(item: &Node) -> Option<String> {
    text(item).map(|text| any_address(&text).map_or(text, |address| address.to_string()))
}

fn named_host(item: &Node) -> Option<String> {
    text(item).map(|text| host(&text).map_or(text, |(name, address)| format!("{name}={address}")))
}

fn right(item: &Node) -> Option<String> {
    text(item).map(|text| capability(&text).unwrap_or(text))
}

fn option(item: &Node) -> Option<String> {
    text(item).map(|text| text.split(['=', ':']).next().unwrap_or_default().to_owned())
}

fn family(item: &Node) -> Option<String> {
    said(item, &["subnet"]).map(|subnet| if subnet.contains(':') { "IPv6" } else { "IPv4" }.to_owned())
}

/// A port is told apart by all that is said of it: in either form, in Compose's words and in ours.
fn published(item: &Node, usual: Usual) -> Option<String> {
    let ports = match (&item.value, usual.dialect) {
        (Value::Scalar(text), Dialect::Compose) => {
            let ports = ports_of_docker(text);
            let (first, last) = (port(ports.first()?).ok()?, port(ports.last()?).ok()?);
            Ports { target: PortRange { last: last.target.last, ..first.target }, ..first }
        }
        (Value::Scalar(text), Dialect::Stead) => port(text).ok()?,
        (Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_), dialect) => {
            long_port(item, dialect)?
        }
    };
    Some(format!("{:?}", Ports { address: Some(ports.address.unwrap_or(usual.publish)), ..ports }))
}

fn long_port(item: &Node, dialect: Dialect) -> Option<Ports> {
    let target = port_range(&said(item, &["target"])?).ok()?;
    let port = said(item, &["published", "port"]).filter(|text| !text.is_empty());
    let port = match (port, dialect) {
        (Some(text), _) => published_range(&text).ok()?,
        (None, Dialect::Compose) => published_range("0").ok()?,
        (None, Dialect::Stead) => target,
    };
    let protocol = match said(item, &["protocol"]).as_deref() {
        None | Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        Some(_) => return None,
    };
    let address = said(item, &["host_ip", "address"]).map(|text| any_address(&text)).transpose().ok()?;
    Some(Ports { address, port, target, protocol })
}

/// Names with addresses as a list of `name=address`.
fn hosts(node: Node) -> Node {
    let Value::Mapping(entries) = &node.value else { return node };
    let each = |entry: &Entry| {
        let addresses = match &entry.node.value {
            Value::Sequence(items) => items.as_slice(),
            Value::Null | Value::Unknown | Value::Scalar(_) | Value::Mapping(_) => {
                std::slice::from_ref(&entry.node)
            }
        };
        let line = |address: &Node| {
            let value =
                text(address).map_or(Value::Unknown, |text| Value::Scalar(format!("{}={text}", entry.key)));
            Node { span: address.span, value }
        };
        addresses.iter().map(line).collect::<Vec<_>>()
    };
    Node { span: node.span, value: Value::Sequence(entries.iter().flat_map(each).collect()) }
}

/// A list of `NAME=value` as a mapping.
fn pairs(node: Node) -> Node {
    mapped(node, |item| {
        let Value::Scalar(text) = &item.value else { return None };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Value::Scalar(value.to_owned())),
            None => (text.clone(), Value::Null),
        };
        Some((key, value))
    })
}

/// A list of names as a mapping with nothing under them.
pub(crate) fn names(node: Node) -> Node {
    named(node, &[])
}

/// A list of names as a mapping with this under each.
fn named(node: Node, alone: &[(&str, &str)]) -> Node {
    mapped(node, |item| {
        let Value::Scalar(name) = &item.value else { return None };
        let leaf = |(key, text): &(&str, &str)| at(item.span, key, Value::Scalar((*text).to_owned()));
        let value = Value::Mapping(alone.iter().map(leaf).collect());
        Some((name.clone(), if alone.is_empty() { Value::Null } else { value }))
    })
}

fn mapped(node: Node, read: impl Fn(&Node) -> Option<(String, Value)>) -> Node {
    let Value::Sequence(items) = &node.value else { return node };
    let entries = items.iter().filter_map(|item| {
        let (key, value) = read(item)?;
        Some(at(item.span, &key, value))
    });
    Node { span: node.span, value: Value::Mapping(last_of_each(entries)) }
}

fn at(span: Span, key: &str, value: Value) -> Entry {
    Entry { key: key.to_owned(), key_span: span, node: Node { span, value } }
}

/// A text as a mapping with it under this key.
fn keyed(node: Node, key: &str) -> Node {
    let span = node.span;
    if let Value::Scalar(_) = &node.value {
        return Node { span, value: Value::Mapping(vec![at(span, key, node.value)]) };
    }
    node
}

/// A single value as a list of it.
fn list(node: Node) -> Node {
    match &node.value {
        Value::Scalar(_) => Node { span: node.span, value: Value::Sequence(vec![node]) },
        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::yaml;

    fn tree(text: &str) -> Node {
        yaml::parse(text, &mut Vec::new()).unwrap_or_else(|problem| panic!("{text}: {}", problem.message))
    }

    /// A tree in one line.
    fn line(node: &Node) -> String {
        let all = |parts: Vec<String>| parts.join(", ");
        match &node.value {
            Value::Null => "~".to_owned(),
            Value::Unknown => "?".to_owned(),
            Value::Scalar(text) => text.clone(),
            Value::Sequence(items) => format!("[{}]", all(items.iter().map(line).collect())),
            Value::Mapping(entries) => {
                let entry = |entry: &Entry| format!("{}: {}", entry.key, line(&entry.node));
                format!("{{{}}}", all(entries.iter().map(entry).collect()))
            }
        }
    }

    /// What becomes of a machine's keys: those below, those on top, and both together.
    const OF_MACHINES: &[(&str, &str, &str)] = &[
        // Commands are replaced, also by nothing: the image's own.
        ("command: [a]", "command: b c", "command: b c"),
        ("entrypoint: a", "entrypoint:", "entrypoint: ~"),
        (
            "healthcheck: {test: [CMD, a], retries: 1}",
            "healthcheck: {test: b}",
            "healthcheck: {test: b, retries: 1}",
        ),
        // Whatever says nothing else leaves what is below.
        ("ports: ['1:1']", "ports:", "ports: [1:1]"),
        ("user: a", "user: b", "user: b"),
        // Names with values, in either form.
        ("environment: {A: 1, B: 1}", "environment: [B=2, C]", "environment: {A: 1, B: 2, C: ~}"),
        ("environment: [A=1]", "environment: {A: }", "environment: {A: ~}"),
        (
            "environment: {command: a, dns: a}",
            "environment: {command: b, dns: b}",
            "environment: {command: b, dns: b}",
        ),
        ("labels: [a=1, a=2]", "labels: {b: 1}", "labels: {a: 2, b: 1}"),
        ("sysctls: {net.a: 1}", "sysctls: [net.a=2]", "sysctls: {net.a: 2}"),
        (
            "extra_hosts: ['a:10.0.0.1', 'b:::1']",
            "extra_hosts: {a: [10.0.0.2, 10.0.0.1], b: '[::1]'}",
            "extra_hosts: [a=10.0.0.1, b=[::1], a=10.0.0.2]",
        ),
        ("build: ./a", "build: {args: [A=1]}", "build: {context: ./a, args: [A=1]}"),
        ("build: {context: a, args: {A: 1}}", "build: {args: [A]}", "build: {context: a, args: {A: ~}}"),
        ("build: {secrets: [a]}", "build: {secrets: [{source: a}, b]}", "build: {secrets: [{source: a}, b]}"),
        // Names with more under each.
        (
            "networks: [b, a]",
            "networks: {a: {aliases: [x]}, c: }",
            "networks: {b: ~, a: {aliases: [x]}, c: ~}",
        ),
        ("networks: {a: {aliases: [x]}}", "networks: [a]", "networks: {a: {aliases: [x]}}"),
        (
            "networks: {dns: {aliases: [x, y]}}",
            "networks: {dns: {aliases: [y, z]}}",
            "networks: {dns: {aliases: [x, y, z]}}",
        ),
        (
            "depends_on: {a: {condition: service_healthy, restart: false}}",
            "depends_on: [a]",
            "depends_on: {a: {condition: service_started, restart: false, required: true}}",
        ),
        (
            "depends_on: [a]",
            "depends_on: {a: {condition: service_healthy}}",
            "depends_on: {a: {condition: service_healthy, required: true, restart: false}}",
        ),
        // What is mounted, by its place.
        ("volumes: ['db_data:/data', ./a:/b]", "volumes: ['x:/data/']", "volumes: [x:/data/, ./a:/b]"),
        (
            "volumes: ['a:/data']",
            "volumes: [{type: bind, source: ./x, target: //data}]",
            "volumes: [{type: bind, source: ./x, target: //data}]",
        ),
        (
            "volumes: [{target: /a/., type: tmpfs}, /b]",
            "volumes: ['/a', ./c:/c:ro]",
            "volumes: [/a, /b, ./c:/c:ro]",
        ),
        ("tmpfs: /run:size=1m", "tmpfs: [/run/, /tmp]", "tmpfs: [/run/, /tmp]"),
        (
            "devices: ['/dev/a:r', /dev/b:/dev/c]",
            "devices: ['/dev/a', {source: /dev/x, target: /dev/c}]",
            "devices: [/dev/a, {source: /dev/x, target: /dev/c}]",
        ),
        (
            "blkio_config: {device_read_bps: [{path: /dev/a, rate: 1}, {path: /dev/b, rate: 2}]}",
            "blkio_config: {weight: 10, device_read_bps: [{path: /dev/b, rate: 3}, {path: /dev/c, rate: 4}]}",
            "blkio_config: {device_read_bps: [{path: /dev/a, rate: 1}, {path: /dev/b, rate: 3}, {path: /dev/c, rate: 4}], weight: 10}",
        ),
        (
            "secrets: [a, {source: b, target: c}]",
            "secrets: [{source: x, target: a}, {source: y, target: /run/secrets/c}]",
            "secrets: [{source: x, target: a}, {source: y, target: /run/secrets/c}]",
        ),
        (
            "configs: [a, b]",
            "configs: [{source: x, target: /a}, {source: b}]",
            "configs: [{source: x, target: /a}, {source: b}]",
        ),
        // Ports, by all that is said of them.
        (
            "ports: ['8080:80', '443:443']",
            "ports: [{target: 80, published: '8080'}]",
            "ports: [{target: 80, published: 8080}, 443:443]",
        ),
        (
            "ports: [{target: 80, port: 8080, protocol: udp}]",
            "ports: ['127.0.0.1:8080:80/udp']",
            "ports: [127.0.0.1:8080:80/udp]",
        ),
        (
            "ports: ['8080:80']",
            "ports: ['0.0.0.0:8080:80', '8080:80/udp', '8080:81']",
            "ports: [8080:80, 0.0.0.0:8080:80, 8080:80/udp, 8080:81]",
        ),
        (
            "ports: ['[::1]:1-2:1-2']",
            "ports: [{host_ip: '0:0::1', target: 1-2}]",
            "ports: [{host_ip: 0:0::1, target: 1-2}]",
        ),
        ("ports: [80]", "ports: ['80:80']", "ports: [80:80]"),
        // Other lists, and single values that are one.
        ("dns: 1.1.1.1", "dns: [1.1.1.1, '::1']", "dns: [1.1.1.1, ::1]"),
        ("dns: ['::1']", "dns: '0::1'", "dns: [0::1]"),
        ("dns_search: [a, b]", "dns_search: b", "dns_search: [a, b]"),
        (
            "env_file: [a.env, b.env]",
            "env_file: [{path: a.env, required: false}, c.env]",
            "env_file: [{path: a.env, required: false}, b.env, c.env]",
        ),
        ("env_file: a.env", "env_file: b.env", "env_file: [a.env, b.env]"),
        ("label_file: [a, b]", "label_file: a", "label_file: [a, b]"),
        ("cap_add: [NET_ADMIN]", "cap_add: [CAP_NET_ADMIN, sys_time]", "cap_add: [CAP_NET_ADMIN, sys_time]"),
        (
            "security_opt: ['seccomp:a', no-new-privileges]",
            "security_opt: [seccomp=unconfined]",
            "security_opt: [seccomp=unconfined, no-new-privileges]",
        ),
        ("group_add: [a]", "group_add: [b, a]", "group_add: [a, b]"),
        ("dev: {keys: a.pub}", "dev: {keys: [b.pub]}", "dev: {keys: [a.pub, b.pub]}"),
        ("dev: {groups: [a]}", "dev: true", "dev: true"),
        ("provision: [a, b]", "provision: [{run: b}, c]", "provision: [a, b, {run: b}, c]"),
        // Options are of a driver.
        (
            "logging: {options: {max-size: 1m}}",
            "logging: {driver: local, options: {max-file: 2}}",
            "logging: {options: {max-size: 1m, max-file: 2}, driver: local}",
        ),
        (
            "logging: {driver: json-file, options: {max-size: 1m}}",
            "logging: {driver: local}",
            "logging: {driver: local}",
        ),
    ];

    #[test]
    fn each_key_of_a_machine_goes_together_as_compose_has_it() {
        for (base, own, both) in OF_MACHINES {
            let merged = merge(tree(base), tree(own), usual(&tree("{}"), Dialect::Stead));
            assert_eq!(line(&merged), format!("{{{both}}}"), "{base} under {own}");
            // So it does where files go over each other.
            for machines in MACHINES {
                let file = |text| {
                    tree(&format!("{{{machines}: {{ports: {{{text}}}}}, defaults: {{publish: 127.0.0.1}}}}"))
                };
                let merged = files(file(base), file(own), Dialect::Stead);
                assert_eq!(
                    line(&merged),
                    format!("{{{machines}: {{ports: {{{both}}}}}, defaults: {{publish: 127.0.0.1}}}}"),
                    "{base} under {own}"
                );
            }
        }
    }

    #[test]
    fn files_go_together_by_their_names() {
        for (base, own, both) in [
            ("volumes: [a]", "volumes: {a: , b: }", "volumes: {a: ~, b: ~}"),
            (
                "services: {a: {image: a}}",
                "services: {a: , b: {image: b}}",
                "services: {a: {image: a}, b: {image: b}}",
            ),
            ("networks: {a: {joins: [b]}}", "networks: {a: {joins: [c]}}", "networks: {a: {joins: [b, c]}}"),
            (
                "networks: {a: {ipam: {config: [{subnet: 10.0.5.0/24}, {subnet: 'fd00::/64'}]}}}",
                "networks: {a: {ipam: {config: [{subnet: 10.0.6.0/24, gateway: 10.0.6.1}]}}}",
                "networks: {a: {ipam: {config: [{subnet: 10.0.6.0/24, gateway: 10.0.6.1}, {subnet: fd00::/64}]}}}",
            ),
            ("secrets: {a: {file: b}}", "secrets: {a: {file: c}}", "secrets: {a: {file: c}}"),
            // Where nothing says otherwise Compose publishes on all.
            (
                "services: {a: {ports: ['1:1']}}",
                "services: {a: {ports: ['0.0.0.0:1:1']}}",
                "services: {a: {ports: [0.0.0.0:1:1]}}",
            ),
            // One that leaves the port of this computer open is another than one that does not.
            (
                "services: {a: {ports: ['80:80', '81']}}",
                "services: {a: {ports: ['80', {target: 81, published: ''}]}}",
                "services: {a: {ports: [80:80, {target: 81, published: }, 80]}}",
            ),
        ] {
            let merged = files(tree(base), tree(own), Dialect::Compose);
            assert_eq!(line(&merged), format!("{{{both}}}"), "{base} under {own}");
        }
    }
}
