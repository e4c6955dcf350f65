//! `network_mode` of a machine, and the keys that say nothing beside it.

use super::view::{Given, Place, View};
use crate::container::NetworkMode;
use crate::file::leaf::{container as value, network as wire};
use crate::file::problem::Problem;
use crate::name::Name;

/// The mode.
pub(super) fn read(view: &View<'_>) -> Given<NetworkMode> {
    view.get("network_mode").read(wire::mode)
}

/// Reports what stands beside it and would count for nothing.
pub(super) fn refuse_beside(mode: &Given<NetworkMode>, view: &View<'_>, problems: &mut Vec<Problem>) {
    let Some(mode) = mode.value() else { return };
    let mut refuse = |place: Option<Place>, why: &str, hint: &str| {
        problems.extend(place.map(|place| place.problem(why).hint(hint)));
    };
    refuse(
        view.key_place("networks"),
        "`networks` and `network_mode` exclude each other",
        "leave one of them out",
    );
    if mode.is_own() {
        return;
    }
    refuse(
        view.key_place("mode").filter(|_| view.get("mode").place.text == "system"),
        &format!("a system has a network of its own, and `network_mode: {mode}` is another's"),
        "leave one of the two out",
    );
    let (ports, parameters) = match &mode {
        NetworkMode::Own | NetworkMode::Host => (
            "leave it out: whatever port it listens on is this computer's own".to_owned(),
            "set it on this computer, if at all".to_owned(),
        ),
        NetworkMode::Machine(other) => (
            format!("write it under `{other}`: what listens here is reached there, too"),
            format!("write it under `{other}`"),
        ),
    };
    refuse(
        view.key_place("ports"),
        &format!("no ports are published of a machine with `network_mode: {mode}`"),
        &ports,
    );
    for place in network_parameters(view) {
        let why = format!("`{}` is a parameter of a network that is not the machine's own", place.text);
        refuse(Some(place), &why, &parameters);
    }
    if let NetworkMode::Machine(other) = &mode {
        refuse_names(other, view, problems);
    }
}

/// What a machine is called and finds by name is the other's.
fn refuse_names(other: &Name, view: &View<'_>, problems: &mut Vec<Problem>) {
    for key in ["hostname", "extra_hosts", "dns", "dns_search"] {
        if let Some(place) = view.key_place(key) {
            let why = format!("`{key}` is that of machine `{other}`, in whose network it is");
            problems.push(place.problem(why).hint(format!("write it under `{other}`")));
        }
    }
}

/// Where kernel parameters of networks are set.
fn network_parameters(view: &View<'_>) -> Vec<Place> {
    let sysctls = view.get("sysctls");
    let is_of_network = |name: &str| name.starts_with("net.") || name.starts_with("net/");
    let listed = sysctls.each(value::sysctl_pair).into_iter().filter(|at| is_of_network(&at.value.0));
    let mapped = sysctls.entries().filter(|(key, _)| is_of_network(key.value));
    listed.map(|at| at.place).chain(mapped.map(|(key, _)| key.place)).collect()
}
