//! What somebody says who may say it without end, kept: all of it in a file that begins anew when it has grown large,
//! with one such file before it, and the last of it at hand.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};

/// What is kept of it in a file.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// What was said last, for people.
const TAIL_BYTES: usize = 16 * 1024;
/// What is read at once; more is read at the next turn.
const READ_MAX_BYTES: usize = 64 * 1024;

/// What was said, within limits.
pub(super) struct Kept {
    path: PathBuf,
    file: Option<File>,
    written_bytes: u64,
    tail: VecDeque<u8>,
}

impl Kept {
    /// Begins anew; what was kept before is set aside.
    pub(super) fn new(path: &Path) -> Self {
        let mut kept = Self { path: path.to_owned(), file: None, written_bytes: 0, tail: VecDeque::new() };
        kept.begin();
        kept
    }

    /// More was said. A full disk ends no machine.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let more = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..more);
        if self.written_bytes >= FILE_MAX_BYTES {
            self.begin();
        }
        self.written_bytes += bytes.len() as u64;
        if self.file.as_mut().is_some_and(|file| file.write_all(bytes).is_err()) {
            self.file = None;
        }
    }

    /// What was said last.
    pub(super) fn tail(&self) -> Vec<u8> {
        self.tail.iter().copied().collect()
    }

    /// The last line that is such a one.
    pub(super) fn line(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let bytes = self.tail();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| is_wanted(line))?;
        Some(line.trim().escape_debug().to_string())
    }

    fn begin(&mut self) {
        let before = self.path.with_extension("log.1");
        // The first time there is none.
        let _none = std::fs::rename(&self.path, before);
        self.file = File::create(&self.path)
            .inspect_err(|error| tracing::warn!("cannot write {}: {error}", self.path.display()))
            .ok();
        self.written_bytes = 0;
    }
}

/// What a program that works for a machine says: a VMM that its guest makes complain fills no disk.
pub(super) struct Words {
    pipe: Option<File>,
    kept: Kept,
}

impl Words {
    /// Keeps them in this file; with the end for the program to write to.
    pub(super) fn new(path: &Path) -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        rustix::io::ioctl_fionbio(&ours, true).context("cannot wait for a pipe")?;
        Ok((Self { pipe: Some(ours.into()), kept: Kept::new(path) }, theirs))
    }

    /// Is ready when something was said.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what was said.
    pub(super) fn hear(&mut self) {
        let mut buffer = [0; 8 * 1024];
        let mut total = 0;
        while let Some(pipe) = &mut self.pipe
            && total < READ_MAX_BYTES
        {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    total += count;
                    self.kept.take(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.pipe = None,
            }
        }
    }

    /// What it said last, to go after what is said of it.
    pub(super) fn last(&mut self) -> String {
        self.hear();
        let line = self.kept.line(|line| !line.trim().is_empty());
        line.map_or_else(String::new, |line| format!(": {line}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_who_speaks_without_end_fills_two_files_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmm.log");
        let (mut words, theirs) = Words::new(&path).unwrap();
        let mut theirs = File::from(theirs);
        let lines = [b'x'; 1023];
        for _ in 0..5 * FILE_MAX_BYTES / 1024 {
            theirs.write_all(&lines).unwrap();
            theirs.write_all(b"\n").unwrap();
            words.hear();
        }
        theirs.write_all(b"no \xff more\n\n").unwrap();
        assert_eq!(words.last(), ": no \u{fffd} more");
        let files: Vec<u64> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        let most = FILE_MAX_BYTES + 8 * 1024;
        assert!(files.len() == 2 && files.iter().all(|length| *length <= most), "{files:?}");
        drop(theirs);
        words.hear();
        assert!(words.pipe().is_none());
        assert_eq!(words.last(), ": no \u{fffd} more");
    }
}
