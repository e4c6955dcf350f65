//! The console of a guest: what its kernel says, kept in a file of bounded size.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// What a guest's kernel said last, for people.
const CONSOLE_TAIL_BYTES: usize = 8 * 1024;
/// How a kernel that gives up says so.
const PANIC: &str = "Kernel panic - not syncing";
/// What is kept of a console; then it begins anew, and one such file before is kept as well.
const CONSOLE_MAX_BYTES: u64 = 1 << 20;

/// What is read at once, as a guest may write without end; more is read at the next turn.
const READ_MAX_BYTES: usize = 64 * 1024;

/// What a guest's kernel says: the end of it here, all of it within limits in a file.
pub(super) struct Console {
    pub(super) pipe: Option<File>,
    path: PathBuf,
    file: Option<File>,
    written_bytes: u64,
    tail: VecDeque<u8>,
}

impl Console {
    pub(super) fn new(pipe: File, path: &Path) -> Self {
        let mut console = Self {
            pipe: Some(pipe),
            path: path.to_owned(),
            file: None,
            written_bytes: 0,
            tail: VecDeque::new(),
        };
        console.begin();
        console
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

    pub(super) fn read(&mut self) {
        let mut buffer = [0; 8 * 1024];
        let mut left = READ_MAX_BYTES;
        while let Some(pipe) = self.pipe.as_mut().filter(|_| left > 0) {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    left = left.saturating_sub(count);
                    self.keep(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let more = self.tail.len().saturating_sub(CONSOLE_TAIL_BYTES);
        self.tail.drain(..more);
        if self.written_bytes >= CONSOLE_MAX_BYTES {
            self.begin();
        }
        self.written_bytes += bytes.len() as u64;
        // A full disk does not end a machine.
        if self.file.as_mut().is_some_and(|file| file.write_all(bytes).is_err()) {
            self.file = None;
        }
    }

    /// What was said last, if anything was.
    pub(super) fn last_line(&self) -> String {
        self.tell(|line| !line.trim().is_empty()).unwrap_or_else(|| "none".to_owned())
    }

    /// With which words the kernel gave up, if it did.
    pub(super) fn panic(&self) -> Option<String> {
        self.tell(|line| line.contains(PANIC) && !line.contains("end Kernel panic"))
    }

    /// The last line that is such a one.
    fn tell(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| is_wanted(line))?;
        Some(line.trim().escape_debug().to_string())
    }
}
