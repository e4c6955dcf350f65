//! `network_mode` of services.

use super::service::{is_empty, scalar};
use super::{entry, value};
use crate::file::Reading;
use crate::file::problem::{Problem, Span, quote};
use crate::file::yaml::{Entry, Node, Value};
use crate::name::Name;

/// In whose network a service is, as Compose says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In one of its own, on the networks that it names.
    Usual,
    /// In one of its own, with nothing in it.
    Off,
    Host,
    /// In that of this service.
    Service(Name),
    /// In that of the service that Docker would call so.
    Container(String),
}

/// Looks at the modes of all services: what is beside them, and whose network is meant by the name of a container.
pub(super) fn settle(services: &mut [(Name, Entry)], reading: &mut Reading<'_>) {
    let called: Vec<(String, Name)> = services
        .iter()
        .filter_map(|(name, service)| Some((container_name(service)?, name.clone())))
        .collect();
    let names: Vec<Name> = services.iter().map(|(name, _)| name.clone()).collect();
    for (_, service) in services {
        let path = format!("services.{}", service.key);
        let Value::Mapping(keys) = &mut service.node.value else { continue };
        check_networks(keys, &path, reading);
        let Some(mode) = keys.iter_mut().find(|key| key.key == "network_mode") else { continue };
        match scalar(&mode.node).and_then(|text| value::mode(text).ok()) {
            Some(Mode::Host) => drop_ports(keys, &path, reading),
            Some(Mode::Container(other)) => {
                let known = called.iter().find(|(text, _)| *text == other).map(|(_, name)| name);
                match known.or_else(|| names.iter().find(|name| name.as_str() == other)) {
                    Some(name) => mode.node.value = Value::Scalar(format!("service:{name}")),
                    None => {
                        reading.problems.push(nobody(mode, &path, &other));
                        mode.node.value = Value::Scalar("default".to_owned());
                    }
                }
            }
            Some(Mode::Usual | Mode::Off | Mode::Service(_)) | None => {}
        }
    }
}

/// What Docker would call a service, if the file says so, as names are here.
fn container_name(service: &Entry) -> Option<String> {
    let Value::Mapping(keys) = &service.node.value else { return None };
    let text = scalar(&keys.iter().find(|key| key.key == "container_name")?.node)?;
    Some(value::alias(text).ok()?.as_str().to_owned())
}

fn nobody(mode: &Entry, path: &str, other: &str) -> Problem {
    let text = scalar(&mode.node).unwrap_or_default();
    let message = format!("no service of this file has the `container_name` {}", quote(other));
    let hint = "write `service:NAME`, with a service of this file: networks of other projects' machines cannot be joined";
    Problem::found(mode.node.span, &format!("{path}.network_mode"), text, message).hint(hint)
}

/// One of the two would be passed over.
fn check_networks(keys: &mut Vec<Entry>, path: &str, reading: &mut Reading<'_>) {
    let is_said = |name: &str| keys.iter().any(|key| key.key == name && !is_empty(&key.node.value));
    if !is_said("network_mode") || !is_said("networks") {
        return;
    }
    for mode in keys.extract_if(.., |key| key.key == "network_mode") {
        let message = "`network_mode` and `networks` exclude each other";
        let problem = Problem::found(mode.key_span, &format!("{path}.network_mode"), "network_mode", message);
        reading.problems.push(problem.hint("leave one of them out"));
    }
}

/// As Compose does it.
fn drop_ports(keys: &mut Vec<Entry>, path: &str, reading: &mut Reading<'_>) {
    for ports in keys.extract_if(.., |key| key.key == "ports") {
        if is_empty(&ports.node.value) {
            continue;
        }
        let message = "`ports` changes nothing beside `network_mode: host`: whatever port the service listens on is this computer's own";
        let warning = Problem::found(ports.key_span, &format!("{path}.ports"), "ports", message);
        reading.warnings.push(warning.hint("leave it out"));
    }
}

/// Whether a service has a network of its own that it may name.
pub(super) fn is_usual(keys: &[Entry]) -> bool {
    let mode = keys.iter().find(|key| key.key == "network_mode").and_then(|key| scalar(&key.node));
    mode.is_none_or(|text| value::mode(text).is_ok_and(|mode| mode == Mode::Usual))
}

/// The key of a machine that says the same; nothing where that is the usual.
pub(super) fn translated(node: Node, span: Span) -> Option<Entry> {
    let said = |text: String| {
        let node = Node { span: node.span, value: Value::Scalar(text) };
        Some(entry("network_mode", span, node))
    };
    match scalar(&node).and_then(|text| value::mode(text).ok())? {
        // What is no container's was told.
        Mode::Usual | Mode::Container(_) => None,
        Mode::Off => Some(entry("networks", span, Node { value: Value::Sequence(Vec::new()), ..node })),
        Mode::Host => said("host".to_owned()),
        Mode::Service(name) => said(format!("machine:{name}")),
    }
}
