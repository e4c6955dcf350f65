//! Files that are copied from layers below, on a file system whose files can share blocks.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{statvfs, syncfs};
use stead_image::unpack::{Owners, UnpackOptions, flatten};
use tempfile::TempDir;

use crate::support::{Item, Tar, is_real_root, overlay, scratch, space, unpack};

/// An XFS of its own in a file.
struct Disk {
    _directory: TempDir,
    at: PathBuf,
}

impl Disk {
    /// None where nobody can mount one.
    fn new() -> Option<Self> {
        let directory = scratch();
        let [file, at] = ["disk", "at"].map(|name| directory.path().join(name));
        fs::File::create(&file).unwrap().set_len(512 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        let has_worked = |line: &mut Command| line.output().is_ok_and(|output| output.status.success());
        let is_there = is_real_root()
            && has_worked(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&file))
            && has_worked(Command::new("mount").args(["-o", "loop"]).args([&file, &at]));
        is_there.then_some(Self { _directory: directory, at })
    }

    fn left_bytes(&self) -> u64 {
        syncfs(fs::File::open(&self.at).unwrap()).unwrap();
        let disk = statvfs(&self.at).unwrap();
        disk.f_bfree * disk.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.at).status().unwrap();
        assert!(status.success() || std::thread::panicking());
    }
}

#[test]
fn copies_of_files_of_lower_layers_share_their_blocks_where_the_file_system_can() {
    let Some(disk) = Disk::new() else {
        let why = "only root of a computer with XFS can mount a file system whose files share blocks";
        // Past the test runner, which shows nothing of tests that do not fail.
        return writeln!(std::io::stdout(), "NOT TESTED HERE: {why}").unwrap();
    };
    let body: Vec<u8> =
        (0..8u32 << 20).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let [lower, upper, flat] = ["lower", "upper", "flat"].map(|name| {
        let path = disk.at.join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    unpack(&Tar::default().item(&Item { body: &body, ..Item::new(b'0', "big") }).end(), &lower, &overlay())
        .unwrap();
    let before = disk.left_bytes();
    // A second name, in another layer, is a copy of the file.
    let options = UnpackOptions { lower: vec![lower.clone()], ..overlay() };
    unpack(&Tar::default().hard_link("again", "big").end(), &upper, &options).unwrap();
    flatten(&[lower, upper.clone()], space(), &flat, Owners::Keep).unwrap();
    let is_whole = |path: &Path| fs::read(path).unwrap() == body;
    assert!(is_whole(&upper.join("big")) && is_whole(&flat.join("again")) && is_whole(&flat.join("big")));
    let taken = before.saturating_sub(disk.left_bytes());
    assert!(taken < 8 << 20, "copies of {} bytes took {taken}", body.len());
}
