//! Room on the disk. Archives may say far more than they hold: a megabyte of gzip is a gigabyte of zeros. So whoever adds to the
//! store looks at the disk as it fills, and stops while the other programs of this computer still have room.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::{StatVfs, fstatvfs};

/// What is kept free, as a share of the disk: so much that small disks are of use.
const RESERVE_SHARE: u64 = 20;
/// And at most. Between two looks, until what was written is taken away again, others live on that.
const RESERVE_MAX_BYTES: u64 = 256 << 20;
/// The same of files: file systems that have only so many of them keep a table.
const RESERVE_MAX_FILES: u64 = 10_000;
/// As many as unpack layers at once: together they stay within the reserve between two looks.
const WRITERS: u64 = 4;

/// What may be written before the disk is looked at again: at first nothing.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: u64,
    files: u64,
    written_bytes: u64,
}

/// What a disk has, and has left for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disk {
    bytes: u64,
    left_bytes: u64,
    /// None where any number of files can be made.
    files: u64,
    left_files: u64,
}

/// Why nothing more is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    disk: Disk,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// So much of it is written already.
    More(u64),
    /// So much was to be written.
    Bytes(u64),
}

impl Room {
    /// Says that so much was written, or is about to be, to the disk that this file is on: a piece of it at a time, so that
    /// as many writers as there are stay within what is kept free.
    pub(crate) fn take(&mut self, at: impl AsFd, bytes: u64, files: u64) -> Result<(), NoRoom> {
        self.written_bytes += bytes;
        if let (Some(bytes), Some(files)) = (self.bytes.checked_sub(bytes), self.files.checked_sub(files)) {
            (self.bytes, self.files) = (bytes, files);
            return Ok(());
        }
        // A file system that does not answer has the last word by what it refuses to write.
        let Some(disk) = Disk::of(at) else { return Ok(()) };
        (self.bytes, self.files) = disk.until_next_look(bytes, Wanted::More(self.written_bytes))?;
        Ok(())
    }
}

/// Whether this many bytes can be written to the disk that this file is on.
pub fn needs(at: impl AsFd, bytes: u64) -> Result<(), NoRoom> {
    let Some(disk) = Disk::of(at) else { return Ok(()) };
    disk.until_next_look(bytes, Wanted::Bytes(bytes)).map(drop)
}

impl Disk {
    fn of(at: impl AsFd) -> Option<Self> {
        let StatVfs { f_frsize, f_blocks, f_bavail, f_files, f_favail, .. } = fstatvfs(at).ok()?;
        Some(Self {
            bytes: f_blocks.saturating_mul(f_frsize),
            left_bytes: f_bavail.saturating_mul(f_frsize),
            files: f_files,
            left_files: f_favail,
        })
    }

    fn reserve_bytes(&self) -> u64 {
        (self.bytes / RESERVE_SHARE).min(RESERVE_MAX_BYTES)
    }

    fn reserve_files(&self) -> u64 {
        (self.files / RESERVE_SHARE).min(RESERVE_MAX_FILES)
    }

    // Some file systems have no figures.
    fn lacks_bytes(&self, bytes: u64) -> bool {
        self.bytes > 0 && self.left_bytes.saturating_sub(self.reserve_bytes()) < bytes.max(1)
    }

    fn lacks_files(&self) -> bool {
        self.files > 0 && self.left_files <= self.reserve_files()
    }

    /// How many bytes and files may be written after these bytes before the next look, if they may.
    fn until_next_look(self, bytes: u64, wanted: Wanted) -> Result<(u64, u64), NoRoom> {
        if self.lacks_bytes(bytes) || self.lacks_files() {
            return Err(NoRoom { disk: self, wanted });
        }
        let step = |all, reserve| if all == 0 { u64::MAX } else { reserve / WRITERS };
        Ok((step(self.bytes, self.reserve_bytes()), step(self.files, self.reserve_files())))
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disk, wanted } = self;
        f.write_str("the disk is full but for what is kept free: ")?;
        if disk.lacks_bytes(0) || !disk.lacks_files() {
            let [left, all, reserve] = [disk.left_bytes, disk.bytes, disk.reserve_bytes()].map(mib);
            write!(f, "{left} of {all} are left, {reserve} are for others")?;
        } else {
            let (left, all, reserve) = (disk.left_files, disk.files, disk.reserve_files());
            write!(f, "{left} of {all} files can still be made, {reserve} are for others")?;
        }
        match wanted {
            Wanted::More(written) => {
                write!(f, ", and there is more of this than the {} so far", mib(*written))?;
            }
            Wanted::Bytes(bytes) => write!(f, ", and this has {}", mib(*bytes))?,
        }
        f.write_str("; hint: make room (`stead image prune` takes away images that no machine uses), or keep a home on a larger disk (`STEAD_HOME`)")
    }
}

impl std::error::Error for NoRoom {}

impl From<NoRoom> for std::io::Error {
    fn from(no_room: NoRoom) -> Self {
        Self::new(std::io::ErrorKind::StorageFull, no_room)
    }
}

fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(bytes: u64, left_bytes: u64) -> Disk {
        Disk { bytes, left_bytes, files: 100_000, left_files: 90_000 }
    }

    #[track_caller]
    fn refused(disk: Disk, expected: &str) {
        let told = disk.until_next_look(0, Wanted::More(7 * MIB)).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn a_share_is_kept_free_of_small_disks_and_a_figure_of_large_ones() {
        assert_eq!(disk(40 * MIB, 3 * MIB).until_next_look(0, Wanted::More(0)), Ok((MIB / 2, 1250)));
        refused(
            disk(40 * MIB, 2 * MIB),
            "2.0 MiB of 40.0 MiB are left, 2.0 MiB are for others, and there is more of this than the 7.0 MiB so far",
        );
        let large = |left_bytes| disk(MIB << 20, left_bytes).until_next_look(0, Wanted::More(0));
        assert_eq!(large(257 * MIB), Ok((64 * MIB, 1250)));
        large(256 * MIB).unwrap_err();
    }

    #[test]
    fn files_run_out_as_well() {
        let files = |files, left_files| Disk { files, left_files, ..disk(40 * MIB, 30 * MIB) };
        refused(files(2000, 100), "100 of 2000 files can still be made, 100 are for others");
        assert_eq!(files(2000, 101).until_next_look(0, Wanted::More(0)), Ok((MIB / 2, 25)));
        files(10_000_000, 10_000).until_next_look(0, Wanted::More(0)).unwrap_err();
    }

    #[test]
    fn a_disk_without_figures_is_asked_no_further() {
        let none = Disk { bytes: 0, left_bytes: 0, files: 0, left_files: 0 };
        assert_eq!(none.until_next_look(1 << 60, Wanted::More(0)), Ok((u64::MAX, u64::MAX)));
    }

    #[test]
    fn what_is_more_than_there_is_beside_what_is_kept_free_is_not_begun() {
        let ask = |bytes| disk(40 * MIB, 5 * MIB).until_next_look(bytes, Wanted::Bytes(bytes));
        assert_eq!(ask(3 * MIB), Ok((MIB / 2, 1250)));
        let told = ask(3 * MIB + 1).unwrap_err().to_string();
        assert!(told.contains("5.0 MiB of 40.0 MiB are left, 2.0 MiB are for others"), "{told}");
        assert!(told.contains("and this has 3.0 MiB"), "{told}");
        ask(1 << 60).unwrap_err();
    }
}
