//! The guest's disks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use stead_agent::message::Disk;

/// A disk that the VMM has is there at once, or a moment after its module was loaded.
const DISK_LIMIT: Duration = Duration::from_secs(10);
const DISK_LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the file of the kernel's driver of virtio disks ends with.
pub(crate) const MODULE: &str = "-virtio_blk.ko";

/// Where the kernel has virtio devices.
const BUS: &str = "/sys/bus/virtio";
const DRIVER: &str = "virtio_blk";
/// What a virtio device says that is a disk.
const KIND: &str = "0x0002";

/// Whether the driver that is loaded next finds no device by itself: disks are found when it is known whose they are.
pub(crate) fn leave_to_us(is_ours: bool) -> Result<()> {
    let file = Path::new(BUS).join("drivers_autoprobe");
    let word = if is_ours { "0" } else { "1" };
    match fs::write(&file, word) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot write `{}`", file.display()))
        }
        // There are no virtio devices.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Has the kernel find the disks. In a guest that goes on from where another one was saved there are others now than those
/// that a driver of the kernel's own may have found then: they are found anew.
pub(crate) fn find(is_restored: bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(Path::new(BUS).join("devices")) else { return Ok(()) };
    let mut disks: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    disks.retain(|device| fs::read_to_string(device.join("device")).is_ok_and(|kind| kind.trim() == KIND));
    disks.sort();
    let driver = Path::new(BUS).join("drivers").join(DRIVER);
    let tell = |word: &str, device: &Path| {
        let name = device.file_name().unwrap_or_default();
        fs::write(driver.join(word), name.as_encoded_bytes())
            .with_context(|| format!("cannot find the disk `{}`", name.to_string_lossy()))
    };
    let is_found = |device: &&PathBuf| device.join("driver").exists();
    // All of them first, so that their names are free again.
    disks.iter().filter(is_found).filter(|_| is_restored).try_for_each(|device| tell("unbind", device))?;
    disks.iter().filter(|device| !is_found(device)).try_for_each(|device| tell("bind", device))
}

/// The device of a disk, waiting for it.
pub(crate) fn wait(disk: &Disk) -> Result<PathBuf> {
    let deadline = Instant::now() + DISK_LIMIT;
    loop {
        match disk {
            Disk::Path(path) if path.exists() => return Ok(path.clone()),
            Disk::Serial(serial) => {
                if let Some(found) = by_serial(serial)? {
                    return Ok(found);
                }
            }
            Disk::Path(_) => {}
        }
        if Instant::now() > deadline {
            let name = match disk {
                Disk::Serial(serial) => format!("with the serial `{serial}`"),
                Disk::Path(path) => format!("`{}`", path.display()),
            };
            bail!("waited {} s for a disk {name}", DISK_LIMIT.as_secs());
        }
        std::thread::sleep(DISK_LOOK_EVERY);
    }
}

fn by_serial(serial: &str) -> Result<Option<PathBuf>> {
    for disk in fs::read_dir("/sys/block").context("cannot list disks")?.flatten() {
        let found = fs::read_to_string(disk.path().join("serial")).unwrap_or_default();
        let device = Path::new("/dev").join(disk.file_name());
        if found.trim_end() == serial && device.exists() {
            return Ok(Some(device));
        }
    }
    Ok(None)
}
