//! What `--network` says that names no network: in whose network else a machine is.

use std::collections::BTreeMap;

use stead_model::container::{Container, NetworkMode};
use stead_model::name::{Name, as_ours};
use stead_model::project::{Machine, Project, Runs};

use crate::args::MachineArgs;
use crate::failure::Failure;

/// The mode as a file has it; nothing where networks are named.
pub(super) fn mode(args: &MachineArgs, project: &Project) -> Result<Option<String>, Failure> {
    let read = |text: &String| word(text, project).map(|word| word.map(|word| (text.clone(), word)));
    let modes = args.network.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
    let Some((text, word)) = modes.into_iter().flatten().next() else { return Ok(None) };
    if args.network.len() > 1 {
        return Err(Failure::request(&format!("`--network {text}` and another network"), "say one of them"));
    }
    let said = [
        ("--ip", args.ip.is_some()),
        ("--ip6", args.ip6.is_some()),
        ("--mac", args.mac.is_some()),
        ("--network-alias", !args.network_alias.is_empty()),
        ("--publish-all", args.publish_all),
    ];
    match said.into_iter().find(|(_, is_said)| *is_said) {
        None => Ok(Some(word)),
        Some((option, _)) => {
            let what = format!("`--network {text}` and `{option}`: the network is not the machine's own");
            Err(Failure::request(&what, "say one of them"))
        }
    }
}

/// One word as a file has it, if it is a mode.
fn word(text: &str, project: &Project) -> Result<Option<String>, Failure> {
    let (kind, other) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "host" if other.is_empty() => Ok(Some(text.to_owned())),
        "machine" | "container" => {
            let other = as_ours(other);
            let of_project = other.strip_suffix(&format!(".{}", project.name)).unwrap_or(&other);
            match project.machines.keys().any(|name| name.as_str() == of_project) {
                true => Ok(Some(format!("machine:{of_project}"))),
                false => {
                    let what = format!("`--network {text}`: no command made a machine `{other}`");
                    Err(Failure::request(
                        &what,
                        "`stead ps default` lists those; a machine of a project file is told so in the file",
                    ))
                }
            }
        }
        _ => Ok(None),
    }
}

/// The machines that a file needs in which one has this mode, with nothing that is not about their networks.
pub(super) fn stand_ins(first: Option<&Name>, project: &Project) -> BTreeMap<Name, Machine> {
    let mut needed = BTreeMap::new();
    let mut next = first;
    while let Some((name, machine)) = next.and_then(|name| project.machines.get_key_value(name)) {
        let container = machine.runs.container().filter(|container| !container.network.is_own());
        next = container.and_then(|container| container.network.other());
        if needed.insert(name.clone(), stand_in(machine, container)).is_some() {
            break;
        }
    }
    needed
}

fn stand_in(machine: &Machine, container: Option<&Container>) -> Machine {
    let bare = |container: &Container| {
        let network: NetworkMode = container.network.clone();
        Runs::Container(Box::new(Container { network, ..Container::new(container.image.clone()) }))
    };
    Machine {
        kind: machine.kind,
        runs: container.map_or(Runs::External, bare),
        nics: Vec::new(),
        ports: Vec::new(),
        depends_on: BTreeMap::new(),
        restarts_with: [].into(),
        dev: None,
        provision: Vec::new(),
    }
}
