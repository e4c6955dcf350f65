//! Whole computers: the copies of the images that their disks are layers over, and what their keepers are told.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use stead_image::disk::DiskStore;
use stead_model::address::digest;
use stead_model::name::MachineId;
use stead_model::vm::{DiskImage, MEMORY_MIB, MadeVm};

use super::{LinuxHost, guest};
use crate::history::Layer;
use crate::home::{Home, write_whole};
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
    if let Some(files) = host.prepared_files(id) {
        return renew(&files);
    }
    let files = Files::new(&host.home, id);
    for directory in [files.log(), files.present(), files.own_volumes()] {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // One that was made before there were lots stays what it was, however it is changed.
    if !files.are_whole() {
        renew(&files)?;
    }
    // The last one says that the rest is there.
    Layer::new(&files, 0).make()
}

/// Makes it a machine that no other is or was. A disk may have been that of machines with its name before: a clone's, of
/// which it is a clone again.
pub(super) fn renew(files: &Files) -> Result<()> {
    const LOTS: &str = "/proc/sys/kernel/random/uuid";
    let lot = fs::read(LOTS).with_context(|| format!("cannot read `{LOTS}`"))?;
    write_whole(&files.instance(), &lot)
}

/// What this machine is to cloud-init. A machine that is made anew from another image is another one, and so is one that
/// has another name.
fn instance(files: &Files, id: &MachineId, image: &DiskImage) -> Result<String> {
    let path = files.instance();
    let lot = match fs::read_to_string(&path) {
        Ok(lot) => Some(lot),
        // Of one that was made before there were any.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let id = id.to_string();
    let marks: Vec<&str> = [id.as_str(), image.digest.as_str()].into_iter().chain(lot.as_deref()).collect();
    let marks: String = digest(&marks).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("stead-{marks}"))
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
    let volumes = super::volume::to_start(&host.home, id, &made.wish.mounts)?;
    let image = made.image.clone().context("its image was never here")?;
    let launch = made.wish.launch(&id.name);
    let instance_id = instance(&Files::new(&host.home, id), id, &image)?;
    let seed = made.wish.cloud_init.clone().map(|told| Seed { instance_id, told });
    let guest = Guest {
        cpus: made.wish.cpus.unwrap_or(1),
        memory_mib: made.wish.memory_mib.unwrap_or(MEMORY_MIB),
        disk_bytes: made.disk_bytes(),
        nics: guest::nics(host, id)?,
        is_cold: true,
        boots: Boots::Disk { image: Box::new(image), firmware: made.wish.firmware, seed },
    };
    Ok(Assignment {
        guest: Some(guest),
        cgroup: format!("{}/{id}", host.home_id()?),
        hosts: String::new(),
        resolv_conf: String::new(),
        layers: Vec::new(),
        launch,
        volumes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_one_to_its_cloud_init_and_no_other_of_its_name_is() {
        let temporary = tempfile::tempdir().unwrap();
        let files = Files { state: temporary.path().to_owned(), run: temporary.path().join("run") };
        let [db, copy]: [MachineId; 2] = ["db.shop", "copy.shop"].map(|name| name.parse().unwrap());
        let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let image = DiskImage { digest, format: stead_model::vm::DiskFormat::Raw, bytes: 1 << 20 };
        let known = |id: &MachineId| instance(&files, id, &image).unwrap();
        // One that was made before machines were told apart stays what it was.
        let old = known(&db);
        renew(&files).unwrap();
        let first = known(&db);
        assert!(first != old && first == known(&db) && first != known(&copy));
        renew(&files).unwrap();
        assert!(known(&db) != first);
    }
}
