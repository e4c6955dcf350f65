//! Files below `/etc` of a container that runs, which go on being right as its nics come and go. They are mounted, so it is
//! the same file that says something else; and programs inside have it in their hands as well.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};

use crate::home::write_run_file;
use crate::machine::Assignment;

/// What is longer has little of ours in it, and is left to those who made it so.
const MAX_BYTES: u64 = 1024 * 1024;

/// Has a file say something else, unless the change is to nothing.
pub(super) fn edit(path: &Path, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Result<()> {
    let written = open(path).and_then(|file| {
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Ok(());
        }
        let mut there = Vec::new();
        (&file).take(MAX_BYTES).read_to_end(&mut there)?;
        let Some(text) = change(&there) else { return Ok(()) };
        file.write_all_at(&padded(&text, there.len()), 0)?;
        file.set_len(text.len() as u64)
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A text with empty lines up to a length: put over one that was so long, it is whole before the file is cut.
fn padded(text: &[u8], length: usize) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.resize(length.max(text.len()), b'\n');
    padded
}

/// Opens what is there, without waiting for anybody where that is no file.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Tells the keeper, who asks when it starts the machine again. When the file was written says when it was started first.
pub(super) fn assign(path: &Path, assignment: &Assignment) -> Result<()> {
    let text = serde_json::to_vec(assignment).context("cannot write an assignment as JSON")?;
    let begun = fs::metadata(path).and_then(|metadata| metadata.modified());
    let begun = begun.with_context(|| format!("cannot read {}", path.display()))?;
    write_run_file(path, &text)?;
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_modified(begun)).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_whole_before_the_file_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 10.10.10.10\nsearch long.example\n").unwrap();
        let after = b"nameserver 10.0.0.1\n";
        let killed = |path: &Path| {
            let length = fs::metadata(path).unwrap().len();
            open(path).unwrap().write_all_at(&padded(after, usize::try_from(length).unwrap()), 0).unwrap();
        };
        killed(&path);
        assert_eq!(fs::read_to_string(&path).unwrap().trim_end_matches('\n'), "nameserver 10.0.0.1");
        edit(&path, |_| Some(after.to_vec())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), after);
        edit(&path, |_| Some(b"longer than what was there\n".to_vec())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"longer than what was there\n");
    }

    #[test]
    fn what_is_no_file_or_is_far_too_long_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        edit(&path, |_| Some(b"127.0.0.1\tlocalhost\n".to_vec())).unwrap();
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        edit(&path, |_| Some(Vec::new())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX_BYTES + 1);
    }
}
