//! What is typed for the programs in a guest, and the size of their terminals.

use std::collections::{BTreeMap, VecDeque};

use stead_agent::message::{Size, Word};
use stead_agent::{Call, Session};

use super::Guest;

/// What a program is sent and does not read waits here.
const TYPED_MAX_BYTES: usize = 64 * 1024;

/// What is to be read by the programs in a guest, of each apart: none waits for what another does not read.
#[derive(Debug, Default)]
pub(super) struct Typing(BTreeMap<Call, Typed>);

/// What is to be read by a program.
#[derive(Debug, Default)]
struct Typed {
    bytes: VecDeque<u8>,
    ends: bool,
}

impl Typing {
    /// More was typed.
    fn take(&mut self, call: Call, bytes: &[u8]) {
        let typed = self.0.entry(call).or_default();
        if !typed.ends {
            typed.bytes.extend(bytes);
        }
    }

    fn end(&mut self, call: Call) {
        self.0.entry(call).or_default().ends = true;
    }

    /// Nobody will read it.
    pub(super) fn forget(&mut self, call: Call) {
        self.0.remove(&call);
    }

    fn has_backlog(&self, call: Call) -> bool {
        self.0.get(&call).is_some_and(|typed| typed.bytes.len() > TYPED_MAX_BYTES)
    }

    /// Sends as much as the program has room for.
    fn send(&mut self, call: Call, session: &mut Session) {
        let Some(typed) = self.0.get_mut(&call) else { return };
        loop {
            let (first, _) = typed.bytes.as_slices();
            if first.is_empty() {
                break;
            }
            let count = session.input(call, first);
            if count == 0 {
                return;
            }
            typed.bytes.drain(..count);
        }
        if typed.ends {
            self.0.remove(&call);
            session.end_input(call);
        }
    }
}

impl Guest {
    /// A program's terminal has this size from now on: rows and columns, two bytes each.
    pub(in crate::machine) fn resize(&mut self, call: Call, bytes: &[u8]) {
        let [r1, r2, c1, c2] = *bytes else { return };
        let size = Size { rows: u16::from_be_bytes([r1, r2]), columns: u16::from_be_bytes([c1, c2]) };
        self.session.say(call, &Word::Resize(size));
        self.send();
    }

    /// What was typed for a program.
    pub(in crate::machine) fn input(&mut self, call: Call, bytes: &[u8]) {
        if self.is_read(call) {
            self.typing.take(call, bytes);
            self.type_on(call);
            self.send();
        }
    }

    /// Nothing more will be typed for it.
    pub(in crate::machine) fn end_input(&mut self, call: Call) {
        if self.is_read(call) {
            self.typing.end(call);
            self.type_on(call);
            self.send();
        }
    }

    /// Whether so much waits for a program to read it that no more is taken.
    pub(in crate::machine) fn has_input_backlog(&self, call: Call) -> bool {
        self.typing.has_backlog(call)
    }

    pub(super) fn type_on(&mut self, call: Call) {
        self.typing.send(call, &mut self.session);
    }

    /// Whether there is a program yet that may read.
    fn is_read(&self, call: Call) -> bool {
        Some(call) == self.main() || self.execs.contains(&call)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use stead_agent::message::Request;

    use super::*;

    #[test]
    fn a_program_that_does_not_read_holds_up_no_other_and_leaves_nothing() {
        let mut session = Session::numbered(1);
        let [first, second] = [(); 2].map(|()| session.ask(&Request::Watch).unwrap());
        let mut typing = Typing::default();
        while !typing.has_backlog(first) {
            typing.take(first, &[b'x'; 8192]);
            typing.send(first, &mut session);
        }
        assert!(!typing.has_backlog(second));
        typing.take(second, b"ls\n");
        typing.end(second);
        typing.send(second, &mut session);
        assert!(!typing.0.contains_key(&second), "what it reads is sent, and forgotten");
        typing.forget(first);
        assert!(!typing.has_backlog(first));
    }
}
