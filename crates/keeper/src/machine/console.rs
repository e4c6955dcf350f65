//! The console of a guest: what its kernel says, kept in a file of bounded size, and what is typed there.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::kept::Kept;

/// What is typed faster than the guest reads.
const TYPED_MAX_BYTES: usize = 4 * 1024;
/// What is read at once; more is read at the next turn.
const READ_MAX_BYTES: usize = 64 * 1024;
/// How a kernel that gives up says so.
const PANIC: &str = "Kernel panic - not syncing";

/// A guest's serial line, on which its kernel talks: the end of that here, all of it within limits in a file. Who sits
/// at it can type.
pub(super) struct Console {
    pub(super) line: Option<UnixStream>,
    kept: Kept,
    typed: VecDeque<u8>,
    /// Whether what is typed waits until it is let go.
    is_held: bool,
}

impl Console {
    pub(super) fn new(line: UnixStream, path: &Path) -> Self {
        Self { line: Some(line), kept: Kept::new(path), typed: VecDeque::new(), is_held: false }
    }

    /// From now on what is typed waits.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// What was typed goes to the guest.
    pub(super) fn let_go(&mut self) {
        self.is_held = false;
        self.send();
    }

    /// What was typed and waits is for another one.
    pub(super) fn hand_on(&mut self, other: &mut Self) {
        let typed: Vec<u8> = std::mem::take(&mut self.typed).into();
        other.take(&typed);
    }

    /// What it said last.
    pub(super) fn history(&self) -> Vec<u8> {
        self.kept.tail()
    }

    /// What a person typed. A line that takes nothing has a limit of what is kept for it.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let room = TYPED_MAX_BYTES.saturating_sub(self.typed.len());
        self.typed.extend(bytes.iter().take(room));
        self.send();
    }

    pub(super) fn is_typed(&self) -> bool {
        !self.is_held && !self.typed.is_empty()
    }

    /// Sends as much as the line takes.
    pub(super) fn send(&mut self) {
        while let (Some(line), (first, _)) = (&mut self.line, self.typed.as_slices())
            && !first.is_empty()
            && !self.is_held
        {
            match line.write(first) {
                Ok(count) if count > 0 => drop(self.typed.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The VMM ends, which is seen when it is read.
                Ok(_) | Err(_) => self.typed.clear(),
            }
        }
    }

    /// Reads what came, and keeps it.
    pub(super) fn read(&mut self) -> Vec<u8> {
        let mut buffer = [0; 8 * 1024];
        let mut all = Vec::new();
        while let Some(line) = &mut self.line
            && all.len() < READ_MAX_BYTES
        {
            match line.read(&mut buffer) {
                Ok(0) => self.line = None,
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.kept.take(bytes);
                    all.extend_from_slice(bytes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.line = None,
            }
        }
        all
    }

    /// What was said last, if anything was.
    pub(super) fn last_line(&self) -> String {
        self.kept.line(|line| !line.trim().is_empty()).unwrap_or_else(|| "none".to_owned())
    }

    /// With which words the kernel gave up, if it did.
    pub(super) fn panic(&self) -> Option<String> {
        self.kept.line(|line| line.contains(PANIC) && !line.contains("end Kernel panic"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_kept_and_what_is_typed_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut console = Console::new(ours, &directory.path().join("console.log"));
        theirs.write_all(b"[1.0] a\r\n[2.0] Kernel panic - not syncing: b\r\n---[ end Kernel panic - not syncing: b ]---\r\n").unwrap();
        assert!(console.read().ends_with(b" ]---\r\n"));
        assert_eq!(console.panic().unwrap(), "[2.0] Kernel panic - not syncing: b");
        assert!(console.last_line().starts_with("---[ end"));
        for _ in 0..1000 {
            theirs.write_all(&[b'x'; 100]).unwrap();
            console.read();
        }
        assert_eq!(console.history().len(), 16 * 1024);
        console.take(b"ls\n");
        let mut typed = [0; 3];
        theirs.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"ls\n");
        drop(theirs);
        console.take(b"gone");
        console.read();
        assert!(console.line.is_none() && !console.is_typed());
    }

    #[test]
    fn what_is_typed_while_it_is_held_waits_and_may_be_for_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let console = |name: &str| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            (Console::new(ours, &directory.path().join(name)), theirs)
        };
        let ((mut first, mut of_first), (mut second, mut of_second)) = (console("a"), console("b"));
        first.hold();
        first.take(b"secret\n");
        first.send();
        assert!(!first.is_typed());
        let mut typed = [0; 16];
        assert_eq!(of_first.read(&mut typed).unwrap_err().kind(), ErrorKind::WouldBlock);
        second.hold();
        first.hand_on(&mut second);
        first.let_go();
        assert_eq!(of_first.read(&mut typed).unwrap_err().kind(), ErrorKind::WouldBlock);
        second.let_go();
        assert_eq!(of_second.read(&mut typed).unwrap(), 7);
        assert!(typed.starts_with(b"secret\n"));
    }
}
