//! What runs a machine, and for containers of ours what is mounted in them.

use std::collections::BTreeMap;

use super::super::problem::Problem;
use super::super::spec::{At, Given, MachineSpec, Mounted, VolumeSpec};
use super::unknown;
use crate::capability;
use crate::container::{Container, Mount};
use crate::name::Name;
use crate::project::{Driver, Kind, Runs};
use crate::vm::Vm;

/// What the machine is and what runs it, if that can be told.
pub(super) fn runs(
    machine: &MachineSpec,
    volumes: &[(At<Name>, VolumeSpec)],
    problems: &mut Vec<Problem>,
) -> Option<(Kind, Runs)> {
    let (name, place) = (&machine.name.value, &machine.name.place);
    if let (Given::Absent, Given::Absent) = (&machine.kind, &machine.driver) {
        let message = format!("machine `{name}` has no image");
        problems.push(place.problem(message).hint(
            "write `image: debian:12`, or whichever it is made of; or its `kind` and `driver: external`, if somebody else runs it",
        ));
        return None;
    }
    if let Given::Absent = machine.kind {
        let message = format!("machine `{name}` has no kind");
        problems.push(place.problem(message).hint("write `kind: container`, `kind: microvm` or `kind: vm`"));
    }
    if let Given::Absent = machine.driver {
        let kind = machine.kind.value().map_or_else(String::new, |kind| format!(" of kind `{kind}`"));
        let message = format!("no driver of this version runs machine `{name}`{kind}");
        let hint = match machine.kind.value() {
            Some(Kind::Container | Kind::Microvm | Kind::Vm) => {
                "write its `image`, or `driver: external` if somebody else runs it"
            }
            None => "write `driver: external` if somebody else runs it",
        };
        problems.push(place.problem(message).hint(hint));
    }
    let mounts = mounts(machine, volumes, problems);
    let (kind, driver) = (machine.kind.value()?, machine.driver.value()?);
    match (driver, kind) {
        (Driver::External, _) => {
            if let Some(place) = &machine.contained {
                let message = format!(
                    "`{}` says what stead is to run, but somebody else runs machine `{name}`",
                    place.text
                );
                problems.push(place.problem(message).hint("leave it out, or write `driver: native`"));
            }
            Some((kind, Runs::External))
        }
        (Driver::Native, Kind::Microvm | Kind::Vm) => {
            let message = format!("driver `native` runs only containers, and machine `{name}` is a `{kind}`");
            let hint = match kind {
                Kind::Microvm | Kind::Vm => "write `kind: container`, or `driver: qemu`",
                Kind::Container => "write `kind: container`, or `driver: external`",
            };
            problems.push(place.problem(message).hint(hint));
            None
        }
        (Driver::Qemu, Kind::Container) => {
            let message =
                format!("driver `qemu` runs only microVMs and vms, and machine `{name}` is a `{kind}`");
            problems.push(place.problem(message).hint("write `kind: microvm`, or leave `driver` out"));
            None
        }
        (Driver::Qemu, Kind::Vm) => Some((kind, Runs::Vm(vm(machine, mounts, problems)?))),
        (Driver::Native, Kind::Container) => {
            let container = with_image(machine, problems)?;
            Some((kind, Runs::Container(Box::new(complete(container, mounts)))))
        }
        (Driver::Qemu, Kind::Microvm) => {
            let container = complete(with_image(machine, problems)?, mounts);
            for lack in capability::lacks(driver, &container) {
                let message = format!("machine `{name}` is a `{kind}`, which {}", lack.what);
                problems.push(place.problem(message).hint(lack.hint));
            }
            Some((kind, Runs::Microvm(Box::new(container))))
        }
    }
}

fn vm(
    machine: &MachineSpec,
    mounts: BTreeMap<String, Mounted>,
    problems: &mut Vec<Problem>,
) -> Option<Box<Vm>> {
    let (name, place) = (&machine.name.value, &machine.name.place);
    if let Given::Absent = machine.vm {
        let message = format!("machine `{name}` has no image");
        problems
            .push(place.problem(message).hint("write the path of a disk image, `image: ./debian-12.qcow2`"));
    }
    let mut vm = machine.vm.value()?;
    for (target, mounted) in mounts {
        match mounted {
            Mounted::Is(mount) => drop(vm.mounts.insert(target, mount)),
            Mounted::Own => {
                let message = format!("machine `{name}` is a `vm`, all of whose own files are on its disk");
                let hint = format!("leave `{target}` out, or name a volume for it: `data:{target}`");
                problems.push(place.problem(message).hint(hint));
            }
        }
    }
    for lack in capability::vm_lacks(&vm) {
        let message = format!("machine `{name}` is a `vm`, which {}", lack.what);
        problems.push(place.problem(message).hint(lack.hint));
    }
    Some(vm)
}

fn with_image(machine: &MachineSpec, problems: &mut Vec<Problem>) -> Option<Box<Container>> {
    if let Given::Absent = machine.container {
        let message = format!("machine `{}` has no image", machine.name.value);
        let hint = "write `image: debian:12`, or whichever it is made of";
        problems.push(machine.name.place.problem(message).hint(hint));
    }
    machine.container.value()
}

fn complete(container: Box<Container>, mounts: BTreeMap<String, Mounted>) -> Container {
    let mut container = *container;
    for (target, mounted) in mounts {
        match mounted {
            Mounted::Own => {
                container.own_volumes.insert(target);
            }
            Mounted::Is(mount) => {
                container.mounts.insert(target, mount);
            }
        }
    }
    container
}

/// The mounts by their places: no place twice, and only volumes that there are.
fn mounts(
    machine: &MachineSpec,
    volumes: &[(At<Name>, VolumeSpec)],
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Mounted> {
    let mut mounts = BTreeMap::new();
    for At { value: (target, mounted), place } in &machine.mounts {
        let mut mounted = mounted.clone();
        if let Mounted::Is(Mount::Volume { name, external, .. }) = &mut mounted {
            match volumes.iter().find(|(volume, _)| volume.value == *name) {
                Some((_, VolumeSpec::External(id))) => *external = Some(id.clone()),
                Some((_, VolumeSpec::Own(_))) => {}
                None => {
                    let at = At { value: name.clone(), place: place.clone() };
                    problems.push(unknown(&at, "volume", volumes.iter().map(|(volume, _)| &volume.value)));
                }
            }
        }
        if mounts.insert(target.clone(), mounted).is_some() {
            let message = format!("two things are mounted at `{target}`");
            problems.push(place.problem(message).hint("leave one of them out"));
        }
    }
    mounts
}
