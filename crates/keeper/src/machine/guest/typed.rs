//! What is typed for the programs in a guest, the size of their terminals, and what came for one before it was asked for.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, ensure};
use stead_agent::message::{Request, Size, Word};
use stead_agent::{Call, Session};
use stead_model::container::Signal;

use super::role::Role;
use super::{Guest, Heard, MAIN};

/// What a program is sent and does not read waits here.
const TYPED_MAX_BYTES: usize = 64 * 1024;
/// Signals that wait. Whoever sends more sends them for nothing.
const SIGNALS_MAX: usize = 32;

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

/// What came for the machine's own program before that was asked for.
#[derive(Debug, Default)]
pub(super) struct Early {
    typed: Typed,
    size: Option<Vec<u8>>,
    signals: Vec<Signal>,
}

impl Guest {
    /// What was typed for the machine's own program.
    pub(in crate::machine) fn type_main(&mut self, bytes: &[u8]) {
        match self.main() {
            Some(main) => self.input(main, bytes),
            None if self.early.typed.ends => {}
            None => self.early.typed.bytes.extend(bytes),
        }
    }

    /// Nothing more will be typed for it.
    pub(in crate::machine) fn end_main(&mut self) {
        match self.main() {
            Some(main) => self.end_input(main),
            None => self.early.typed.ends = true,
        }
    }

    /// Its terminal has this size from now on.
    pub(in crate::machine) fn resize_main(&mut self, bytes: &[u8]) {
        match self.main() {
            Some(main) => self.resize(main, bytes),
            None => self.early.size = Some(bytes.to_owned()),
        }
    }

    /// Whether so much waits for it to read it that no more is taken.
    pub(in crate::machine) fn has_main_backlog(&self) -> bool {
        let early = self.early.typed.bytes.len() > TYPED_MAX_BYTES;
        early || self.main().is_some_and(|main| self.has_input_backlog(main))
    }

    /// Sends a signal to the machine's first process.
    pub(in crate::machine) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Role::Computer(_) = self.role {
            return self.signal_computer(signal);
        }
        if signal == Signal::KILL && self.is_booting() {
            // Nothing of the machine runs yet, or has for long.
            self.quit("it was killed".to_owned());
            return Ok(());
        }
        if self.main().is_none() {
            return self.signal_early(signal);
        }
        let container = MAIN.parse().context("a container in a guest has no name")?;
        self.session.ask(&Request::Signal { container, signal })?;
        self.send();
        Ok(())
    }

    /// A signal for it waits until it is asked for.
    fn signal_early(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.early.signals.len() < SIGNALS_MAX, "it comes up, and {SIGNALS_MAX} signals wait for it");
        self.early.signals.push(signal);
        Ok(())
    }

    /// Whether signals wait that it has not got.
    pub(in crate::machine) fn is_to_be_signalled(&self) -> bool {
        !self.early.signals.is_empty()
    }

    /// It is asked for now: what came before goes to it.
    pub(super) fn hand_over_early(&mut self) -> Result<()> {
        let Early { typed, size, signals } = std::mem::take(&mut self.early);
        if let Some(size) = size {
            self.resize_main(&size);
        }
        let (bytes, ends) = (Vec::from(typed.bytes), typed.ends);
        if !bytes.is_empty() {
            self.type_main(&bytes);
        }
        if ends {
            self.end_main();
        }
        if !signals.is_empty() {
            self.news.push(Heard::Signalled);
        }
        signals.into_iter().try_for_each(|signal| self.signal(signal))
    }

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
