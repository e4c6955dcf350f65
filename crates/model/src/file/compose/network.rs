//! Networks of Compose in our words.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::table::MTU_OPTION;
use super::{entry, external, is_true, mapping, renamed, text, value, whose};
use crate::address::{nth4, nth6};
use crate::file::leaf::{self, network::any_address};
use crate::file::problem::{Problem, Span, quote};
use crate::file::yaml::{Entry, Node, Value};
use crate::file::{Reading, join};

const SHARED: &str =
    "leave it out; other projects name it by this one, like `name: lan.shop` beside `external: true`";

pub(super) fn all(node: Node, reading: &mut Reading<'_>) -> Node {
    let span = node.span;
    let networks = renamed(node, "networks", value::resource, reading);
    let ours = networks.into_iter().map(|(name, network)| {
        let path = join("networks", &network.key);
        let node = one(network.node, &path, reading);
        entry(name.as_str(), network.key_span, node)
    });
    mapping(span, ours.collect())
}

fn one(node: Node, path: &str, reading: &mut Reading<'_>) -> Node {
    let keys = match node.value {
        Value::Mapping(keys) => keys,
        Value::Null => Vec::new(),
        // What is no network was told; nothing follows from it.
        Value::Unknown | Value::Scalar(_) | Value::Sequence(_) => return node,
    };
    let (mut ours, mut whose_is_it, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for Entry { key, key_span, node } in keys {
        let before = ours.len();
        match key.as_str() {
            "internal" if is_true(&node) => ours.push(text("reach", node.span, "isolated")),
            "enable_ipv4" if is_false(&node) => ours.push(text("subnet", node.span, "off")),
            "enable_ipv6" if is_false(&node) => ours.push(text("subnet6", node.span, "off")),
            "ipam" => ours.extend(subnets(&node, &join(path, "ipam.config"), reading)),
            "driver_opts" => ours.extend(mtu(&node)),
            // Only what says the usual is left, and whose it is.
            word => whose_is_it.extend(external(word, key_span, node)),
        }
        said.extend((ours.len() > before).then_some((key, key_span)));
    }
    once(&mut ours, path, reading);
    if whose(&mut whose_is_it, path, ("network", SHARED), reading) {
        ours.clear();
        for (key, span) in said {
            let message = format!("`{key}` of an external network is not this project's to say");
            let problem = Problem::found(span, &join(path, &key), &key, message);
            reading.problems.push(problem.hint(
                "leave it out, and say it where the network is made: `stead network create`, or the file of its project",
            ));
        }
    } else {
        // Services may have any address of the subnet; there are no strangers on the networks of Compose.
        let dhcp = mapping(node.span, vec![text("pool", node.span, "off")]);
        ours.push(entry("dhcp", node.span, dhcp));
    }
    for name in whose_is_it.iter().filter(|key| key.key == "name") {
        if let Value::Scalar(text) = &name.node.value
            && let Err(wrong) = leaf::mount::external(text)
        {
            reading.problems.push(wrong.at(name.node.span, &join(path, "name"), text));
        }
    }
    ours.append(&mut whose_is_it);
    mapping(node.span, ours)
}

fn is_false(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(text) if text == "false")
}

fn mtu(options: &Node) -> Option<Entry> {
    let Value::Mapping(keys) = &options.value else { return None };
    let option = keys.iter().find(|key| key.key == MTU_OPTION)?;
    Some(Entry { key: "mtu".to_owned(), ..option.clone() })
}

fn scalar<'n>(node: &'n Node, key: &str) -> Option<(&'n str, Span)> {
    let Value::Mapping(keys) = &node.value else { return None };
    let node = &keys.iter().find(|entry| entry.key == key)?.node;
    if let Value::Scalar(text) = &node.value { Some((text, node.span)) } else { None }
}

fn subnets(ipam: &Node, path: &str, reading: &mut Reading<'_>) -> Vec<Entry> {
    let Value::Mapping(keys) = &ipam.value else { return Vec::new() };
    let Some(config) = keys.iter().find(|key| key.key == "config") else { return Vec::new() };
    let Value::Sequence(items) = &config.node.value else { return Vec::new() };
    let mut found = Vec::new();
    for item in items {
        let Some((subnet, span)) = scalar(item, "subnet") else { continue };
        let (key, first) = if subnet.contains(':') {
            let net = subnet.parse::<Ipv6Net>().ok();
            ("subnet6", net.and_then(|net| nth6(net, 1)).map(IpAddr::V6))
        } else {
            let net = subnet.parse::<Ipv4Net>().ok();
            ("subnet", net.and_then(|net| nth4(net, 1)).map(IpAddr::V4))
        };
        found.push(text(key, span, subnet));
        let Some((gateway, span)) = scalar(item, "gateway") else { continue };
        if let (Ok(gateway), Some(first)) = (any_address(gateway), first)
            && gateway != first
        {
            let message = format!("the gateway {} cannot be honoured", quote(&gateway.to_string()));
            let problem = Problem::found(span, path, &gateway.to_string(), message);
            reading.problems.push(problem.hint(format!("it is the first address, `{first}`: leave it out")));
        }
    }
    found
}

/// A network has one subnet of each family.
fn once(ours: &mut Vec<Entry>, path: &str, reading: &mut Reading<'_>) {
    let mut known: Vec<String> = Vec::new();
    ours.retain(|entry| {
        let first = !known.contains(&entry.key);
        if first {
            known.push(entry.key.clone());
        } else {
            let message = "a network has at most one subnet of each family";
            let problem = Problem::found(entry.key_span, path, "", message);
            reading.problems.push(problem.hint("leave one of them out, or make it a network of its own"));
        }
        first
    });
}
