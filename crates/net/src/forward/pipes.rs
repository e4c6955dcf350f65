//! The pipes that bytes pass through on their way between two sockets. A connection holds one only while
//! bytes are in flight, so thousands of idle connections hold none.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};

/// How much passes at once: the size a pipe is born with. Larger ones were no faster when measured, and
/// ordinary users have a budget for them; see docs/decisions/0030-splice.md.
pub(super) const PIPE_BYTES: usize = 64 * 1024;

/// How many empty pipes are kept for the next transfer; more than this many at once are closed after use.
const KEPT_MAX: usize = 16;

/// A pipe: two descriptors, and pages only while it holds bytes.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The end that is read.
    pub read: OwnedFd,
    /// The end that is written.
    pub write: OwnedFd,
}

/// The pipes that are not in use, all of them empty.
#[derive(Debug, Default)]
pub(super) struct Pipes(Mutex<Vec<Pipe>>);

impl Pipes {
    /// A pipe, kept or new.
    pub(super) fn take(&self) -> io::Result<Pipe> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(pipe) = kept {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    /// Takes a pipe back. It must be empty: one that is not belongs to its connection and is dropped with it.
    pub(super) fn put(&self, pipe: Pipe) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(pipe);
        }
    }
}
