//! The log of a machine: lines with the time and the stream they came by, in a file that is set aside when it has
//! grown large. The form is that of Kubernetes, which people and programs read:
//!
//! ```text
//! 2026-11-21T08:00:00.123456789Z stdout F a whole line
//! 2026-11-21T08:00:00.123456789Z stderr P a piece of one
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use stead_host::log::{Stream, file_name, timestamp};

/// A file that has grown beyond this is set aside.
const FILE_MAX_BYTES: u64 = 10 * 1024 * 1024;

/// So many files are kept, with the one that is written.
const FILES_MAX: u64 = 3;

/// A longer line is written in pieces: a machine that never ends a line gets no memory from us for it.
const LINE_MAX_BYTES: usize = 16 * 1024;

/// The log, as its keeper writes it.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    /// The number of the file that is written: they count upwards.
    number: u64,
    file: File,
    /// How much is in this file.
    length: u64,
    /// What came by each stream and has no end of line yet.
    unfinished: [Vec<u8>; 2],
    /// Whether something could not be written: it is said once.
    is_broken: bool,
}

impl Log {
    /// Goes on with the log in a directory, or starts one.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let doing = || format!("cannot write the log in {}", directory.display());
        fs::create_dir_all(directory).with_context(doing)?;
        let number = stead_host::log::numbers(directory).with_context(doing)?.last().copied().unwrap_or(0);
        let (file, length) = open(directory, number).with_context(doing)?;
        Ok(Self {
            directory: directory.to_owned(),
            number,
            file,
            length,
            unfinished: [Vec::new(), Vec::new()],
            is_broken: false,
        })
    }

    /// Takes what came by a stream. A log that cannot be written never holds up the machine.
    pub(super) fn take(&mut self, stream: Stream, mut bytes: &[u8]) {
        let mut text = Vec::new();
        let now = timestamp(SystemTime::now());
        let Some(unfinished) = self.unfinished.get_mut(stream as usize) else { return };
        while !bytes.is_empty() {
            let room = LINE_MAX_BYTES.saturating_sub(unfinished.len());
            let piece = bytes.get(..bytes.len().min(room)).unwrap_or(bytes);
            match piece.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    unfinished.extend(piece.iter().take(end));
                    write_line(&mut text, &now, stream, 'F', unfinished);
                    unfinished.clear();
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                }
                None => {
                    unfinished.extend_from_slice(piece);
                    bytes = bytes.get(piece.len()..).unwrap_or_default();
                    if unfinished.len() >= LINE_MAX_BYTES {
                        write_line(&mut text, &now, stream, 'P', unfinished);
                        unfinished.clear();
                    }
                }
            }
        }
        self.append(&text);
    }

    /// Writes what has no end of line: nothing more comes for now, and whoever reads shall see it.
    pub(super) fn flush(&mut self) {
        let mut text = Vec::new();
        let now = timestamp(SystemTime::now());
        for stream in [Stream::Output, Stream::Error] {
            if let Some(unfinished) =
                self.unfinished.get_mut(stream as usize).filter(|bytes| !bytes.is_empty())
            {
                write_line(&mut text, &now, stream, 'P', unfinished);
                unfinished.clear();
            }
        }
        self.append(&text);
    }

    /// Which file is written, and how much is in it.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.number, self.length)
    }

    fn append(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        if let Err(error) = self.file.write_all(text) {
            if !self.is_broken {
                tracing::error!("cannot write the log in {}: {error}", self.directory.display());
            }
            self.is_broken = true;
            return;
        }
        self.is_broken = false;
        self.length += text.len() as u64;
        if self.length >= FILE_MAX_BYTES
            && let Err(error) = self.rotate()
        {
            tracing::error!("cannot set the log in {} aside: {error:#}", self.directory.display());
        }
    }

    fn rotate(&mut self) -> Result<()> {
        let (file, length) = open(&self.directory, self.number + 1)?;
        (self.file, self.length, self.number) = (file, length, self.number + 1);
        if let Some(oldest) = self.number.checked_sub(FILES_MAX) {
            match fs::remove_file(self.directory.join(file_name(oldest))) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn open(directory: &Path, number: u64) -> std::io::Result<(File, u64)> {
    let file = File::options().create(true).append(true).open(directory.join(file_name(number)))?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

fn write_line(text: &mut Vec<u8>, now: &str, stream: Stream, whole: char, line: &[u8]) {
    text.extend_from_slice(format!("{now} {stream} {whole} ").as_bytes());
    text.extend_from_slice(line);
    text.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(directory: &Path) -> String {
        let mut text = String::new();
        for number in stead_host::log::numbers(directory).unwrap() {
            text += &fs::read_to_string(directory.join(file_name(number))).unwrap();
        }
        text.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect()
    }

    #[test]
    fn lines_are_whole_and_pieces_are_marked() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        log.take(Stream::Output, b"one\ntw");
        log.take(Stream::Error, b"oops\n");
        log.take(Stream::Output, b"o\nthree");
        log.flush();
        assert_eq!(read(directory.path()), "stdout F one\nstderr F oops\nstdout F two\nstdout P three\n");
        let mut again = Log::open(directory.path()).unwrap();
        again.take(Stream::Output, b"\n");
        assert!(read(directory.path()).ends_with("stdout P three\nstdout F \n"));
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        log.take(Stream::Output, &vec![b'x'; LINE_MAX_BYTES * 2 + 5]);
        assert_eq!(log.unfinished[0].len(), 5);
        assert_eq!(read(directory.path()).matches("stdout P x").count(), 2);
    }

    #[test]
    fn old_files_go_when_new_ones_come() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        let line = [vec![b'y'; 8190], vec![b'\n']].concat();
        for _ in 0..(FILE_MAX_BYTES / 8191) * (FILES_MAX + 1) + 10 {
            log.take(Stream::Output, &line);
        }
        let numbers = stead_host::log::numbers(directory.path()).unwrap();
        assert_eq!(numbers.len() as u64, FILES_MAX);
        assert_eq!(numbers.last(), Some(&log.position().0));
    }
}
