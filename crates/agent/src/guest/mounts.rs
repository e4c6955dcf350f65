//! Files of the host in a whole computer: mounted where its file says, in its own system, so that whoever is in it has them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use stead_agent::MOUNTS;
use stead_agent::message::Mounts;

use crate::boot::mkdir;
use crate::setup::mount_one;

/// The device that they come by is there at once, or a moment after its module was loaded.
const DEVICE_LIMIT: Duration = Duration::from_secs(10);
const DEVICE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Mounts them, unless they are there.
pub(crate) fn mount(wanted: &Mounts) -> Result<()> {
    mkdir(Path::new("/run/stead"))?;
    mkdir(Path::new(MOUNTS))?;
    // Who may read a volume is up to its place, and not to be seen beside that.
    fs::set_permissions(MOUNTS, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close `{MOUNTS}`"))?;
    let deadline = Instant::now() + DEVICE_LIMIT;
    while !is_mounted(&Path::new(MOUNTS).join(wanted.from.name.as_str())) {
        match mount_one(&wanted.from) {
            Ok(()) => break,
            Err(error) if is(&error, Errno::NODEV) => {
                return Err(error.context("its kernel has no virtio-fs, by which files of its host come"));
            }
            Err(error) if is(&error, Errno::INVAL) && Instant::now() < deadline => {
                std::thread::sleep(DEVICE_LOOK_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
    stead_container::mount_here(&wanted.mounts, &wanted.volumes)
}

fn is(error: &anyhow::Error, errno: Errno) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Errno>() == Some(&errno))
}

/// Whether something is mounted at this place.
fn is_mounted(place: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    place.parent().is_some_and(|parent| device(place).is_some() && device(place) != device(parent))
}
