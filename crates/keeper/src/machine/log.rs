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
use stead_host::machine::Files;
use stead_model::container::{LOG_FILE_BYTES, LOG_FILES, LogLimits};

/// A longer line is written in pieces: a machine that never ends a line gets no memory from us for it.
const LINE_MAX_BYTES: usize = 16 * 1024;

/// The log, as its keeper writes it.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    /// How large a file may become.
    file_max_bytes: u64,
    /// How many are kept, with the one that is written.
    files_max: u64,
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
    pub(super) fn open(directory: &Path, limits: LogLimits) -> Result<Self> {
        let doing = || format!("cannot write the log in {}", directory.display());
        fs::create_dir_all(directory).with_context(doing)?;
        let number = stead_host::log::numbers(directory).with_context(doing)?.last().copied().unwrap_or(0);
        let (file, length) = open(directory, number).with_context(doing)?;
        let log = Self {
            directory: directory.to_owned(),
            file_max_bytes: limits.file_bytes.unwrap_or(LOG_FILE_BYTES),
            files_max: limits.files.unwrap_or(LOG_FILES).max(1).into(),
            number,
            file,
            length,
            unfinished: [Vec::new(), Vec::new()],
            is_broken: false,
        };
        // There may be more of them than are kept from now on.
        log.remove_oldest().with_context(doing)?;
        Ok(log)
    }

    /// Goes on where the files of the machine are now.
    pub(super) fn follow(&mut self, old: &Files, new: &Files) {
        old.follow(new, &mut self.directory);
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

    /// Writes whole lines, those together that fit into one file.
    fn append(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let room = usize::try_from(self.file_max_bytes.saturating_sub(self.length)).unwrap_or(usize::MAX);
            let end_within = |text: &[u8]| text.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
            let fits = text.get(..room).map_or(Some(text.len()), end_within);
            let end = match fits {
                Some(end) => end,
                None if self.length > 0 => {
                    if let Err(error) = self.rotate() {
                        tracing::error!(
                            "cannot set the log in {} aside: {error:#}",
                            self.directory.display()
                        );
                        return;
                    }
                    continue;
                }
                // A line that is longer than a file has one for itself.
                None => text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1),
            };
            let (lines, rest) = text.split_at(end);
            self.write(lines);
            text = rest;
        }
    }

    fn write(&mut self, text: &[u8]) {
        if let Err(error) = self.file.write_all(text) {
            if !self.is_broken {
                tracing::error!("cannot write the log in {}: {error}", self.directory.display());
            }
            self.is_broken = true;
            // What a full disk took of it would be the beginning of the next line.
            if let Err(error) = self.file.set_len(self.length) {
                tracing::error!("cannot take back a piece of a line: {error}");
            }
            return;
        }
        self.is_broken = false;
        self.length += text.len() as u64;
    }

    fn rotate(&mut self) -> Result<()> {
        let (file, length) = open(&self.directory, self.number + 1)?;
        (self.file, self.length, self.number) = (file, length, self.number + 1);
        self.remove_oldest()
    }

    fn remove_oldest(&self) -> Result<()> {
        let Some(oldest) = self.number.checked_sub(self.files_max) else { return Ok(()) };
        for number in stead_host::log::numbers(&self.directory)?.into_iter().filter(|n| *n <= oldest) {
            match fs::remove_file(self.directory.join(file_name(number))) {
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
        let mut log = Log::open(directory.path(), LogLimits::default()).unwrap();
        log.take(Stream::Output, b"one\ntw");
        log.take(Stream::Error, b"oops\n");
        log.take(Stream::Output, b"o\nthree");
        log.flush();
        assert_eq!(read(directory.path()), "stdout F one\nstderr F oops\nstdout F two\nstdout P three\n");
        let mut again = Log::open(directory.path(), LogLimits::default()).unwrap();
        again.take(Stream::Output, b"\n");
        assert!(read(directory.path()).ends_with("stdout P three\nstdout F \n"));
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), LogLimits::default()).unwrap();
        log.take(Stream::Output, &vec![b'x'; LINE_MAX_BYTES * 2 + 5]);
        assert_eq!(log.unfinished[0].len(), 5);
        assert_eq!(read(directory.path()).matches("stdout P x").count(), 2);
    }

    #[test]
    fn old_files_go_when_new_ones_come_and_none_is_too_large() {
        let directory = tempfile::tempdir().unwrap();
        let sizes = || -> Vec<u64> {
            let numbers = stead_host::log::numbers(directory.path()).unwrap();
            numbers.iter().map(|n| directory.path().join(file_name(*n)).metadata().unwrap().len()).collect()
        };
        let limits = LogLimits { file_bytes: Some(1000), files: Some(3) };
        let mut log = Log::open(directory.path(), limits).unwrap();
        let lines = b"a line\n".repeat(200);
        for _ in 0..10 {
            log.take(Stream::Output, &lines);
        }
        assert!(sizes().len() == 3 && sizes().iter().all(|size| *size <= 1000), "{:?}", sizes());
        assert!(read(directory.path()).lines().all(|line| line == "stdout F a line"));
        // A line that is longer than a file is in one of its own.
        log.take(Stream::Output, &[&[b'x'; 2000][..], b"\nand more\n"].concat());
        assert!(read(directory.path()).ends_with("x\nstdout F and more\n"));
        assert_eq!(sizes().len(), 3);
        // Fewer are kept from now on.
        let limits = LogLimits { file_bytes: None, files: Some(1) };
        let mut log = Log::open(directory.path(), limits).unwrap();
        assert_eq!(sizes().len(), 1);
        log.take(Stream::Output, &lines);
        assert_eq!(sizes().len(), 1);
        assert_eq!(stead_host::log::numbers(directory.path()).unwrap().last(), Some(&log.position().0));
    }
}
