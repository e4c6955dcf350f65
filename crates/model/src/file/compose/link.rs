//! Links of services: the other comes before, and is found by the name that the link gives it. Here a name holds for all
//! machines of a network, so one that would mean two of them is refused.

use std::collections::BTreeMap;

use super::service::{alias, names_of, nets_of, order};
use super::value;
use crate::file::Reading;
use crate::file::problem::{Problem, Span, quote};
use crate::file::yaml::{Entry, Node, Value};

/// What one service calls another.
struct Link {
    to: String,
    name: String,
    text: String,
    path: String,
    item: Node,
}

/// Gives machines the names that others link them by; `links` are those of the machines, by their place among them.
pub(super) fn resolve(machines: &mut [Entry], links: Vec<(usize, String, Node)>, reading: &mut Reading<'_>) {
    let mut known: BTreeMap<(String, String), String> = BTreeMap::new();
    for machine in machines.iter() {
        for (network, name) in names_of(machine) {
            known.insert((network, name), machine.key.clone());
        }
    }
    for (from, path, node) in links {
        let links = read(node, &path);
        let Some(machine) = machines.get_mut(from) else { continue };
        let mut others: Vec<(String, Span)> = Vec::new();
        for Link { to, item, .. } in &links {
            // One may be linked by several names.
            if others.iter().all(|(other, _)| other != to) {
                others.push((to.clone(), item.span));
            }
        }
        order(machine, others);
        let around = nets_of(machine);
        for link in links.into_iter().filter(|link| link.name != link.to) {
            // Who is not there is told where the order of machines is looked at.
            let Some(other) = machines.iter_mut().find(|machine| machine.key == link.to) else { continue };
            let shared: Vec<String> = nets_of(other).into_iter().filter(|net| around.contains(net)).collect();
            for network in shared {
                let place = (network.clone(), link.name.clone());
                match known.get(&place).filter(|known| **known != link.to) {
                    None => {
                        let is_new = known.insert(place, link.to.clone()).is_none();
                        if let (true, Value::Mapping(keys)) = (is_new, &mut other.node.value) {
                            alias(keys, link.item.span, &link.name, Some(&network));
                        }
                    }
                    Some(third) => {
                        let message = format!(
                            "the link {} cannot be honoured: {} is `{third}` for all machines of network `{network}`",
                            quote(&link.text),
                            quote(&link.name)
                        );
                        let problem = Problem::found(link.item.span, &link.path, &link.text, message);
                        let hint = "take another name, or put them on networks that do not have both";
                        reading.problems.push(problem.hint(hint));
                    }
                }
            }
        }
    }
}

/// The links of a list; what is none was told.
fn read(node: Node, path: &str) -> Vec<Link> {
    let Value::Sequence(items) = node.value else { return Vec::new() };
    let read = |(index, item): (usize, Node)| {
        let Value::Scalar(text) = &item.value else { return None };
        let text = text.clone();
        let (to, name) = text.split_once(':').unwrap_or((&text, &text));
        let (to, name) = (value::service(to).ok()?.to_string(), value::alias(name).ok()?.to_string());
        Some(Link { to, name, path: format!("{path}[{index}]"), item, text })
    };
    items.into_iter().enumerate().filter_map(read).collect()
}
