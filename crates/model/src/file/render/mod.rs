//! A project to the text of a file that reads back as the same project.

mod build;
mod container;
mod dev;
mod json;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

pub use json::{render_json, render_json_with};

use super::{Build, Pull};
use crate::name::{Alias, LOOSE_PROJECT, Name};
use crate::project::{
    Addressing, Condition, Dhcp, Guard, Machine, Network, Nic, Pool, Project, Runs, Subnet, Volume,
};
use crate::provision::Script;

/// Where the images of machines come from, as far as the file says it: what is no part of the project itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// When they are pulled.
    pub pull: BTreeMap<Name, Pull>,
    /// How they are built.
    pub builds: BTreeMap<Name, Build>,
}

/// The text of a `stead.yaml`, with everything said and nothing left to defaults.
pub fn render(project: &Project) -> String {
    render_with(project, &Origins::default())
}

/// The same with what the file says of the images of its machines.
pub fn render_with(project: &Project, origins: &Origins) -> String {
    let mut text = format!("name: {}\n", name(&project.name));
    render_networks(&mut text, project);
    if !project.machines.is_empty() {
        text.push_str("machines:\n");
    }
    for (of, machine) in &project.machines {
        let _ = writeln!(text, "  {}:", name(of));
        render_machine(&mut text, machine);
        build::render(&mut text, origins.pull.get(of), origins.builds.get(of));
    }
    render_volumes(&mut text, project);
    build::render_secrets(&mut text, origins.builds.values());
    text
}

fn render_networks(text: &mut String, Project { networks, external_networks, .. }: &Project) {
    if !networks.is_empty() || !external_networks.is_empty() {
        text.push_str("networks:\n");
    }
    for (of, network) in networks {
        let _ = writeln!(text, "  {}:", name(of));
        render_network(text, network);
    }
    for (of, id) in external_networks {
        let _ = writeln!(text, "  {}: {}", name(of), external(&id.project, &id.name));
    }
}

/// One that another project has.
fn external(project: &Name, of: &Name) -> String {
    let whole = if project.as_str() == LOOSE_PROJECT { of.to_string() } else { format!("{of}.{project}") };
    format!("{{ external: true, name: {} }}", quoted(&whole))
}

fn render_volumes(text: &mut String, Project { volumes, external_volumes, .. }: &Project) {
    if volumes.is_empty() && external_volumes.is_empty() {
        return;
    }
    if external_volumes.is_empty() && volumes.values().all(|volume| *volume == Volume::default()) {
        let _ = writeln!(text, "volumes: {}", list(&volumes.keys().cloned().collect()));
        return;
    }
    text.push_str("volumes:\n");
    let own = volumes.iter().map(|(of, volume)| {
        let size = volume.size_bytes.map(|bytes| format!(" size: {bytes} ")).unwrap_or_default();
        (of, format!("{{{size}}}"))
    });
    let external = external_volumes.iter().map(|(of, id)| (of, external(&id.project, &id.name)));
    for (of, keys) in own.chain(external).collect::<BTreeMap<_, _>>() {
        let _ = writeln!(text, "  {}: {keys}", name(of));
    }
}

/// Names like `no` or `null` mean something else to YAML, or to some readers of it.
fn name(name: &Name) -> String {
    word(name.as_str())
}

fn word(word: &str) -> String {
    match word {
        // `1e3` is a number.
        _ if word.starts_with(|c: char| c.is_ascii_digit()) => format!("\"{word}\""),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" => format!("\"{word}\""),
        _ => word.to_owned(),
    }
}

fn list(names: &BTreeSet<Name>) -> String {
    words(names.iter().map(Name::as_str))
}

fn words<'w>(names: impl Iterator<Item = &'w str>) -> String {
    format!("[{}]", names.map(word).collect::<Vec<_>>().join(", "))
}

/// Any text in double quotes, safe from YAML and from variables. JSON's escapes are YAML's too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('$', "$$")
}

fn render_network(text: &mut String, network: &Network) {
    if network.addressing != Addressing::None {
        render_subnet(text, "subnet", network.subnet);
        render_subnet(text, "subnet6", network.subnet6);
    }
    let addressing = match &network.addressing {
        Addressing::Managed(_) => "managed",
        Addressing::Static => "static",
        Addressing::None => "none",
    };
    let reach = quoted(&network.reach.to_string());
    let _ = writeln!(text, "    addressing: {addressing}\n    reach: {reach}\n    mtu: {}", network.mtu);
    if !network.joins.is_empty() {
        let _ = writeln!(text, "    joins: {}", list(&network.joins));
    }
    if let Addressing::Managed(Dhcp { pool, lease_s, slaac }) = &network.addressing {
        let pool = match pool {
            Pool::Auto => "auto".to_owned(),
            Pool::Off => "off".to_owned(),
            Pool::Range(first, last) => format!("{first}-{last}"),
        };
        let _ = writeln!(text, "    dhcp: {{ pool: {pool}, lease: {lease_s}s, slaac: {slaac} }}");
    }
    if let Some(boot) = &network.boot {
        let server = boot.server.map_or_else(String::new, |server| format!(", server: \"{server}\""));
        let _ = writeln!(text, "    boot: {{ file: {}{server} }}", quoted(&boot.file));
    }
}

fn render_subnet<T: std::fmt::Display>(text: &mut String, key: &str, subnet: Subnet<T>) {
    let _ = match subnet {
        Subnet::Auto => writeln!(text, "    {key}: auto"),
        Subnet::Off => writeln!(text, "    {key}: off"),
        Subnet::Given(net) => writeln!(text, "    {key}: {net}"),
    };
}

fn render_machine(text: &mut String, machine: &Machine) {
    let _ = writeln!(text, "    kind: {}\n    driver: {}", machine.kind, machine.runs.driver());
    let mode = machine.runs.container().and_then(|container| container.network.word());
    if let Some(mode) = mode {
        let _ = writeln!(text, "    network_mode: {mode}");
    } else if machine.nics.is_empty() {
        text.push_str("    networks: []\n");
    } else {
        text.push_str("    networks:\n");
    }
    for nic in &machine.nics {
        let _ = writeln!(text, "      {}: {}", name(&nic.network), render_nic(nic));
    }
    if !machine.ports.is_empty() {
        text.push_str("    ports:\n");
    }
    for port in &machine.ports {
        let (bind, protocol) = (port.bind, port.bind.protocol);
        let socket = std::net::SocketAddr::new(bind.address, bind.port);
        let _ = writeln!(text, "      - \"{socket}:{}/{protocol}\"", port.target);
    }
    render_order(text, &machine.depends_on, &machine.restarts_with);
    match &machine.runs {
        Runs::External => {}
        Runs::Container(container) | Runs::Microvm(container) => container::render(text, container),
        Runs::Vm(vm) => vm::render(text, vm),
    }
    if let Some(dev) = &machine.dev {
        dev::render(text, dev);
    }
    if !machine.provision.is_empty() {
        text.push_str("    provision:\n");
    }
    for Script { text: run, user, environment } in &machine.provision {
        let user = user.as_ref().map(|user| format!(", user: {}", quoted(user))).unwrap_or_default();
        let pairs: Vec<String> =
            environment.iter().map(|(name, value)| quoted(&format!("{name}={value}"))).collect();
        let _ =
            writeln!(text, "      - {{ run: {}{user}, environment: [{}] }}", quoted(run), pairs.join(", "));
    }
}

fn render_order(text: &mut String, before: &BTreeMap<Name, Condition>, restarts_with: &BTreeSet<Name>) {
    if before.is_empty() {
        return;
    }
    if restarts_with.is_empty() && before.values().all(|condition| *condition == Condition::Started) {
        let _ = writeln!(text, "    depends_on: {}", list(&before.keys().cloned().collect()));
        return;
    }
    text.push_str("    depends_on:\n");
    for (on, condition) in before {
        let condition = match condition {
            Condition::Started => "service_started",
            Condition::Healthy => "service_healthy",
            Condition::Completed => "service_completed_successfully",
        };
        let restart = if restarts_with.contains(on) { ", restart: true" } else { "" };
        let _ = writeln!(text, "      {}: {{ condition: {condition}{restart} }}", name(on));
    }
}

fn render_nic(nic: &Nic) -> String {
    let mut keys = Vec::new();
    keys.extend(nic.address.map(|address| format!("address: {address}")));
    keys.extend(nic.address6.map(|address| format!("address6: \"{address}\"")));
    keys.extend(nic.mac.map(|mac| format!("mac: \"{mac}\"")));
    if !nic.aliases.is_empty() {
        keys.push(format!("aliases: {}", words(nic.aliases.iter().map(Alias::as_str))));
    }
    if nic.guard == Guard::Off {
        keys.push("guard: off".to_owned());
    }
    if keys.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", keys.join(", ")) }
}
