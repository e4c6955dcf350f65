//! The disks that limits name by their paths, and the numbers by which cgroups name them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use stead_model::container::{DiskRates, Limits};

/// A disk of this computer, and how fast it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// `8:0`.
    pub(crate) number: String,
    pub(crate) rates: DiskRates,
}

/// What to do about a disk that is none.
pub(super) const HINT: &str =
    "name a whole disk of this computer, by one path: `lsblk --nodeps --paths` shows them";

/// The disks, and why others are none.
pub(super) fn disks(limits: &Limits) -> (Vec<Disk>, Vec<String>) {
    let (mut disks, mut refused): (Vec<Disk>, Vec<String>) = Default::default();
    let numbers = limits.disk_rates.iter().map(|(path, rates)| (path, rates, number(path)));
    for (path, rates, number) in numbers {
        match number {
            Ok(number) if disks.iter().any(|disk| disk.number == number) => {
                refused.push(format!("`{}` is a disk that has rates by another path", path.display()));
            }
            Ok(number) => disks.push(Disk { number, rates: *rates }),
            Err(why) => refused.push(why),
        }
    }
    (disks, refused)
}

/// The number of a disk, or why it is none.
fn number(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => format!("there is no disk `{shown}`"),
        _ => format!("cannot look at `{shown}`: {error}"),
    })?;
    if !found.file_type().is_block_device() {
        return Err(format!("`{shown}` is no disk"));
    }
    let device = found.rdev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let known = PathBuf::from("/sys/dev/block").join(&number);
    let place = fs::canonicalize(&known)
        .map_err(|_| format!("there is no disk {number}, which `{shown}` stands for"))?;
    match place.join("partition").exists().then(|| place.parent()?.file_name()).flatten() {
        Some(whole) => Err(format!(
            "`{shown}` is a part of disk `/dev/{}`, and the kernel limits disks as a whole",
            whole.display()
        )),
        None => Ok(number),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_told() {
        for (path, expected) in [
            ("/dev/null", "`/dev/null` is no disk"),
            ("/dev", "`/dev` is no disk"),
            ("/nosuch/disk", "there is no disk `/nosuch/disk`"),
        ] {
            assert_eq!(number(path.as_ref()).unwrap_err(), expected);
        }
    }
}
