//! Whole computers: the copies of the images that their disks are layers over, and what their keepers are told.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use stead_image::disk::DiskStore;
use stead_model::address::digest;
use stead_model::name::MachineId;
use stead_model::vm::{DiskImage, MEMORY_MIB, MadeVm};

use super::{LinuxHost, guest};
use crate::history::Layer;
use crate::home::Home;
use crate::machine::{Assignment, Boots, Files, Guest, Seed};

/// The images of disks of a home.
pub fn disks(home: &Home) -> DiskStore {
    DiskStore::new(&home.disks())
}

/// Makes the directory of a machine, and the copy of its image.
pub(super) fn add(host: &LinuxHost, id: &MachineId, made: &MadeVm) -> Result<()> {
    let wanted = &made.wish.image;
    let image = made.image.as_ref().with_context(|| format!("there is no {}", wanted.display()))?;
    disks(&host.home).keep(wanted, image)?;
    if host.is_prepared(id) {
        return Ok(());
    }
    let files = Files::new(&host.home, id);
    for directory in [files.log(), files.present(), files.own_volumes()] {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // The last one says that the rest is there.
    Layer::new(&files, 0).make()
}

/// Takes away the copies of images that no machine is made from any more.
pub(super) fn tidy(host: &mut LinuxHost) -> Result<()> {
    if !host.home.disks().exists() {
        return Ok(());
    }
    let machines = host.records()?.machines;
    let images: BTreeSet<DiskImage> =
        machines.values().filter_map(|state| state.vm()?.image.clone()).collect();
    disks(&host.home).keep_only(&images)
}

/// All that a keeper needs to know.
pub(super) fn assignment(host: &mut LinuxHost, id: &MachineId, made: &MadeVm) -> Result<Assignment> {
    let image = made.image.clone().context("its image was never here")?;
    let launch = made.wish.launch(&id.name);
    // A machine that is made anew from another image is another one to cloud-init as well.
    let marks = digest(&[&id.to_string(), image.digest.as_str()]);
    let instance: String = marks.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let seed =
        made.wish.cloud_init.clone().map(|told| Seed { instance_id: format!("stead-{instance}"), told });
    let guest = Guest {
        cpus: made.wish.cpus.unwrap_or(1),
        memory_mib: made.wish.memory_mib.unwrap_or(MEMORY_MIB),
        disk_bytes: made.disk_bytes(),
        nics: guest::nics(host, id)?,
        boots: Boots::Disk { image: Box::new(image), firmware: made.wish.firmware, seed },
    };
    Ok(Assignment {
        guest: Some(guest),
        cgroup: format!("{}/{id}", host.home_id()?),
        hosts: String::new(),
        resolv_conf: String::new(),
        layers: Vec::new(),
        launch,
        volumes: super::volume::of_machine(&host.home, id, &made.wish.mounts),
    })
}
