//! The file as written, in types. What does not fit was reported by [`super::structure`] and is absent or
//! [`Given::Wrong`] here.

mod build;
mod container;
mod dev;
mod machine;
mod mode;
mod mounts;
mod network;
mod view;
mod vm;

use std::collections::BTreeMap;
use std::path::Path;

use super::leaf;
use super::problem::{Problem, Span};
use super::yaml::Node;
use super::{Build, Pull};
use crate::name::{Name, VolumeId};
use crate::project::Volume;

pub(crate) use machine::{Dependency, MachineSpec, NicSpec};
pub(crate) use mounts::{Mounted, absolute};
pub(crate) use network::{Mode, NetworkSpec};
pub(crate) use view::{At, Given, Place, View};

/// The network of machines that name none, as in Compose.
pub(crate) const DEFAULT_NETWORK: &str = "default";

/// The whole file.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: Given<Name>,
    pub(crate) start: Place,
    pub(crate) networks: Vec<NetworkSpec>,
    /// The network `default`, for when something is on it and the file does not have it.
    pub(crate) implicit: Option<NetworkSpec>,
    pub(crate) machines: Vec<MachineSpec>,
    pub(crate) volumes: Vec<(At<Name>, VolumeSpec)>,
}

/// A volume as written.
#[derive(Clone, Debug)]
pub(crate) enum VolumeSpec {
    /// It is the project's.
    Own(Volume),
    /// It is not: this one is meant.
    External(VolumeId),
}

impl Spec {
    /// When images of machines are pulled, under the names that the machines have in the end.
    pub(crate) fn pulls(&self) -> BTreeMap<Name, Pull> {
        let mut pulls = BTreeMap::new();
        for machine in &self.machines {
            let Some(pull) = machine.pull.value() else { continue };
            pulls.extend(machine.names().into_iter().map(|name| (name, pull)));
        }
        pulls
    }

    /// How images of machines are built, under the same names.
    pub(crate) fn builds(&self) -> BTreeMap<Name, Build> {
        let mut builds = BTreeMap::new();
        for machine in &self.machines {
            let Some(build) = machine.build.value() else { continue };
            builds.extend(machine.names().into_iter().map(|name| (name, (*build).clone())));
        }
        builds
    }
}

/// Where paths of the file start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) home: Option<&'a str>,
}

/// What holds for all machines of a file.
pub(crate) struct Around<'a> {
    pub(crate) root: View<'a>,
    pub(crate) defaults: View<'a>,
    pub(crate) ground: Ground<'a>,
}

/// Reads a tree, with its defaults put where nothing is said. What does not go together within one value is
/// reported here.
pub(crate) fn read(tree: &Node, ground: Ground<'_>, problems: &mut Vec<Problem>) -> Spec {
    let root = View::new(tree, String::new());
    let around = Around { defaults: root.get("defaults"), root, ground };
    let (root, defaults) = (&around.root, &around.defaults);
    let implicit = DEFAULT_NETWORK.parse().ok().map(|value| At { value, place: Place::default() });
    let volumes = root.get("volumes");
    let bare = volumes.names().into_iter().map(|name| (name, VolumeSpec::Own(Volume::default())));
    let described = volumes.named().map(|(name, view)| {
        let volume = volume(&name.value, &view, problems);
        (name, volume)
    });
    let volumes = bare.chain(described).collect();
    let networks = root.get("networks");
    let machines = root.get("machines");
    Spec {
        name: root.get("name").read(leaf::name),
        start: Place { span: Span { line: 1, column: 1, chars: 0 }, ..Place::default() },
        networks: networks
            .named()
            .map(|(name, view)| network::read(name, &view, defaults, problems))
            .collect(),
        implicit: implicit.map(|name| network::read(name, &View::absent(), defaults, problems)),
        machines: machines
            .named()
            .map(|(name, view)| machine::read(name, &view, &around, problems))
            .collect(),
        volumes,
    }
}

/// A volume that is described. What an external one is like is not for this file to say.
fn volume(name: &Name, view: &View<'_>, problems: &mut Vec<Problem>) -> VolumeSpec {
    let size_bytes = view.get("size").read(leaf::quantity::volume_bytes).value();
    if !view.flag("external") {
        problems.extend(view.key_place("name").map(|place| {
            place
                .problem("the name of a volume of the project is the one in this file, within the project")
                .hint("leave it out, or write `external: true` beside it: then it is one that `stead volume create` made")
        }));
        return VolumeSpec::Own(Volume { size_bytes });
    }
    problems.extend(view.key_place("size").map(|place| {
        place.problem("how large an external volume may become is not this project's to say").hint(
            "leave it out, and give it a limit where it is made: `stead volume create --size`, or the file of its project",
        )
    }));
    let (project, name) = external(name, view);
    VolumeSpec::External(VolumeId::new(&project, &name))
}

/// Which one of another project is meant, as that project and its name.
fn external(name: &Name, view: &View<'_>) -> (Name, Name) {
    let usual = || (Name::of_loose_project(), name.clone());
    view.get("name").read(leaf::mount::external).value().unwrap_or_else(usual)
}
