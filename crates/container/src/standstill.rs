//! A computer's file systems held still from inside: what is on its disks meanwhile is what they would have if they had
//! been unmounted. Who writes waits until they go on.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::io::Errno;

use crate::cgroup::layout::unescape;
use crate::sys;

/// File systems that are held still, for as long as this lasts.
#[derive(Debug, Default)]
pub struct Standstill {
    held: Vec<File>,
}

impl Standstill {
    /// Has all that was written on disk, and holds those of these file systems that can be held; others are written.
    pub fn begin(places: &[PathBuf]) -> Result<Self> {
        // One that was mounted over, or has gone meanwhile, is not held.
        let opened: Vec<(&PathBuf, File)> =
            places.iter().filter_map(|place| Some((place, File::open(place).ok()?))).collect();
        // Those that cannot be held, and so that nobody waits long for those that can.
        rustix::fs::sync();
        let mut standstill = Self::default();
        for (place, file) in opened {
            match sys::freeze(file.as_fd()) {
                Ok(()) => standstill.held.push(file),
                // vfat and its like, what was mounted over, and what somebody else holds.
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::BUSY) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("cannot hold `{}` still", place.display()));
                }
            }
        }
        Ok(standstill)
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        for file in self.held.iter().rev() {
            // It fails only if somebody else has let it go on.
            let _not_held = sys::thaw(file.as_fd());
        }
    }
}

/// Lets file systems go on whose holder was killed. The kernel holds them for nobody's sake, and so for ever.
pub fn let_go_on(places: &[PathBuf]) {
    for place in places.iter().rev() {
        // One that is gone is held no more, and of the others it fails only if nothing holds them.
        let _not_held = File::open(place).map(|file| sys::thaw(file.as_fd()));
    }
}

/// Where the file systems of this computer are that can be held.
pub fn held_places() -> Result<Vec<PathBuf>> {
    const TABLE: &str = "/proc/self/mountinfo";
    fs::read_to_string(TABLE).map(|table| places(&table)).with_context(|| format!("cannot read `{TABLE}`"))
}

/// Where file systems on disks are mounted that can be written: each once, what lies upon others first.
fn places(mountinfo: &str) -> Vec<PathBuf> {
    let mut known: Vec<&str> = Vec::new();
    let mut places = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (mut before, mut after) = (before.split(' ').skip(2), after.split(' ').skip(1));
        let (Some(device), Some(place)) = (before.next(), before.nth(1)) else { continue };
        let (Some(source), Some(options)) = (after.next(), after.next()) else { continue };
        let is_written = source.starts_with("/dev/") && options.split(',').any(|option| option == "rw");
        if is_written && !known.contains(&device) {
            known.push(device);
            places.push(PathBuf::from(unescape(place)));
        }
    }
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_on_disks_are_held_once_and_the_upper_ones_first() {
        let table = "\
            21 28 0:20 / /proc rw,nosuid - proc proc rw\n\
            28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n\
            30 28 254:15 / /boot/efi rw shared:2 - vfat /dev/vda15 rw,fmask=0022\n\
            31 28 254:1 /srv /mnt/a\\040b ro - ext4 /dev/vda1 rw\n\
            32 28 11:0 / /media ro - iso9660 /dev/sr0 ro\n\
            33 28 0:40 / /srv rw - virtiofs stead rw\n";
        assert_eq!(places(table), [PathBuf::from("/boot/efi"), PathBuf::from("/")]);
    }
}
