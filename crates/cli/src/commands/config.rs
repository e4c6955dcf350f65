//! `config` and `pull`: the project file as it is understood, and the images that it names.

use std::collections::BTreeSet;

use serde::Serialize;

use stead_model::file::{Origins, render_json_with, render_with};
use stead_model::image::Digest;
use stead_model::name::{MachineId, Name};
use stead_model::project::Project;

use super::{image, up};
use crate::args::{ConfigArgs, Format, Global, Only, ProjectPullArgs, PullWhen};
use crate::failure::Failure;
use crate::output::{Output, raw};
use crate::project::{self, Loaded};

/// Shows the file as it is understood.
pub(crate) fn config(global: &Global, args: &ConfigArgs, output: Output) -> Result<(), Failure> {
    let loaded = project::load(global)?;
    if args.quiet {
        return Ok(());
    }
    if let Some(names) = listed(&loaded, &args.only) {
        let text = || names.iter().map(|name| format!("{name}\n")).collect();
        return output.data(&names, text).map_err(Failure::from);
    }
    let origins = Origins { pull: loaded.pull, builds: loaded.builds };
    match output.format {
        Format::Text => raw(&render_with(&loaded.project, &origins)).map_err(Failure::from),
        Format::Json => {
            let json = render_json_with(&loaded.project, &origins);
            output.data(&json, String::new).map_err(Failure::from)
        }
    }
}

/// What is asked for by name only; nothing if that is everything.
fn listed(loaded: &Loaded, only: &Only) -> Option<Vec<String>> {
    let project = &loaded.project;
    if only.machines {
        Some(in_order(project).into_iter().map(ToString::to_string).collect())
    } else if only.images {
        let images = project.machines.values().filter_map(|machine| machine.runs.container());
        let images: BTreeSet<String> = images.map(|container| container.image.to_string()).collect();
        Some(images.into_iter().collect())
    } else if only.volumes {
        let names: BTreeSet<&Name> = project.volumes.keys().chain(project.external_volumes.keys()).collect();
        Some(names.into_iter().map(ToString::to_string).collect())
    } else if only.networks {
        let names: BTreeSet<&Name> =
            project.networks.keys().chain(project.external_networks.keys()).collect();
        Some(names.into_iter().map(ToString::to_string).collect())
    } else if only.profiles {
        let profiles: BTreeSet<&String> = loaded.dormant.values().flatten().collect();
        Some(profiles.into_iter().cloned().collect())
    } else {
        None
    }
}

/// The machines, each behind those that it depends on. A checked project has no cycle.
fn in_order(project: &Project) -> Vec<&Name> {
    let mut order: Vec<&Name> = Vec::new();
    while order.len() < project.machines.len() {
        let is_next = |(name, machine): &(&Name, &stead_model::project::Machine)| {
            let is_behind = |other: &Name| order.contains(&other) || !project.machines.contains_key(other);
            !order.contains(name) && machine.depends_on.keys().all(is_behind)
        };
        match project.machines.iter().find(is_next) {
            Some((name, _)) => order.push(name),
            None => break,
        }
    }
    order
}

/// An image that was got.
#[derive(Serialize)]
struct Pulled {
    image: String,
    id: Digest,
}

/// Gets the images of the project.
pub(crate) fn pull(global: &Global, args: &ProjectPullArgs, output: Output) -> Result<(), Failure> {
    let loaded = project::load_named(global, &args.machines, false)?;
    let chosen: BTreeSet<MachineId> = if args.include_deps {
        up::with_dependencies(&loaded.project, &args.machines)?
    } else {
        up::named(&loaded.project, &args.machines)?
    };
    let when = if args.missing { PullWhen::Missing } else { PullWhen::Always };
    let images = image::needed(&loaded, &chosen, Some(when))?;
    let wanted: BTreeSet<_> = loaded
        .project
        .machines
        .iter()
        .filter(|(name, _)| chosen.contains(&MachineId::new(&loaded.project.name, name)))
        .filter_map(|(_, machine)| machine.runs.container())
        .map(|container| (container.image.clone(), container.platform.clone()))
        .collect();
    let pulled: Vec<Pulled> = images
        .named
        .into_iter()
        .filter(|(key, _)| wanted.contains(key))
        .map(|((image, _), id)| Pulled { image: image.to_string(), id })
        .collect();
    let line = |one: &Pulled| format!("{} {}\n", one.id.short(), one.image);
    output.data(&pulled, || pulled.iter().map(line).collect()).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use stead_model::file::{Source, Variables, parse};

    #[test]
    fn machines_stand_behind_those_that_they_depend_on() {
        let text = "machines:
  a: { driver: external, kind: container, depends_on: [c] }
  b: { driver: external, kind: container }
  c: { driver: external, kind: container, depends_on: [b] }
";
        let none = Variables::default();
        let parsed = parse(&Source::new("stead.yaml", text, &none, Path::new("/srv/shop"))).unwrap();
        let order: Vec<String> = in_order(&parsed.project).into_iter().map(ToString::to_string).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }
}
