//! What is typed for the programs in a guest, and the size of their terminals.

use std::collections::VecDeque;

use stead_agent::Call;
use stead_agent::message::{Size, Word};

use super::Guest;

/// What a program is sent and does not read waits here.
const TYPED_MAX_BYTES: usize = 64 * 1024;

/// What is to be read by a program.
#[derive(Debug, Default)]
pub(super) struct Typed {
    bytes: VecDeque<u8>,
    ends: bool,
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
        let typed = self.typed.entry(call).or_default();
        if !typed.ends {
            typed.bytes.extend(bytes);
        }
        self.type_on(call);
        self.send();
    }

    /// Nothing more will be typed for it.
    pub(in crate::machine) fn end_input(&mut self, call: Call) {
        self.typed.entry(call).or_default().ends = true;
        self.type_on(call);
        self.send();
    }

    pub(in crate::machine) fn has_input_backlog(&self) -> bool {
        self.typed.values().any(|typed| typed.bytes.len() > TYPED_MAX_BYTES)
    }

    pub(super) fn type_on(&mut self, call: Call) {
        let Some(typed) = self.typed.get_mut(&call) else { return };
        loop {
            let (first, _) = typed.bytes.as_slices();
            if first.is_empty() {
                break;
            }
            let count = self.session.input(call, first);
            if count == 0 {
                return;
            }
            typed.bytes.drain(..count);
        }
        if typed.ends {
            self.typed.remove(&call);
            self.session.end_input(call);
        }
    }
}
