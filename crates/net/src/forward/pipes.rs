//! The pipes that bytes pass through on their way between two sockets. A connection holds one only while
//! bytes are in flight, so thousands of idle connections hold none.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much passes at once at most. A pipe's room is counted in pieces, and a piece of a stream at full speed is
/// 32 KiB: what passes is limited by the pipe.
pub(super) const PASSED_BYTES: usize = 1024 * 1024;

/// The room of the pipes that are kept, four times that which pipes are born with (16 pieces): fewer calls for
/// the same bytes. See docs/decisions/0071-carrying-bytes.md.
const ROOM_BYTES: usize = 256 * 1024;

/// How many empty pipes are kept for the next transfer; more than this many at once are closed after use. As only
/// they are larger, an ordinary user's budget for pipes (`fs.pipe-user-pages-soft`) is touched by a sixteenth.
const KEPT_MAX: usize = 16;

/// A pipe: two descriptors, and pages only while it holds bytes.
#[derive(Debug)]
pub(super) struct Pipe {
    _permit: OwnedSemaphorePermit,
    /// The end that is read.
    pub read: OwnedFd,
    /// The end that is written.
    pub write: OwnedFd,
}

/// The pipes that are not in use, all of them empty, and how many more there may be: those who do not read
/// must not take all descriptors.
#[derive(Debug)]
pub(super) struct Pipes {
    kept: Mutex<Vec<Pipe>>,
    most: usize,
    room: Arc<Semaphore>,
}

impl Pipes {
    /// None yet, and at most `most` at once.
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most, room: Arc::new(Semaphore::new(most)) }
    }

    /// A pipe, kept or new; an error where there may be no more.
    pub(super) fn take(&self) -> io::Result<Pipe> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(pipe) = kept {
            return Ok(pipe);
        }
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(io::Error::other)?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if self.most.saturating_sub(self.room.available_permits()) <= KEPT_MAX {
            // A user whose budget is spent gets the usual room, which does as well.
            let _ = fcntl_setpipe_size(&write, ROOM_BYTES);
        }
        Ok(Pipe { _permit: permit, read, write })
    }

    /// Takes a pipe back. It must be empty: one that is not belongs to its connection and is dropped with it.
    pub(super) fn put(&self, pipe: Pipe) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(pipe);
        }
    }
}
