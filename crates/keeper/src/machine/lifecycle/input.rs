//! What is typed into a machine, and the size of its terminal.

use std::io::Write;

use stead_container::WindowSize;

use super::super::guest::Guest;
use super::super::run::set_size;
use super::{INPUT_MAX_BYTES, Life};

impl Life {
    pub(in crate::machine) fn has_input_backlog(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.typed.len() > INPUT_MAX_BYTES)
            || self.guest().is_some_and(Guest::has_main_backlog)
    }

    pub(in crate::machine) fn take_input(&mut self, bytes: &[u8]) {
        if let Some(guest) = self.guest_mut() {
            return match guest.is_computer() {
                true => guest.console.take(bytes),
                false => guest.type_main(bytes),
            };
        }
        if let Some(run) = self.run.as_mut().filter(|run| run.input.is_some() && !run.input_ends) {
            run.typed.extend(bytes);
        }
        self.write_input();
    }

    pub(in crate::machine) fn end_input(&mut self) {
        let tty = self.launch.tty;
        if let Some(guest) = self.guest_mut() {
            if guest.is_computer() {
                return guest.console.take(&[4]);
            }
            if tty {
                guest.type_main(&[4]);
            }
            return guest.end_main();
        }
        if let Some(run) = &mut self.run {
            run.input_ends = true;
            if tty {
                // What a person would type: a terminal has no other end of input.
                run.typed.push_back(4);
            }
        }
        self.write_input();
    }

    /// Writes what was typed, as far as the machine takes it.
    pub(in crate::machine) fn write_input(&mut self) {
        let tty = self.launch.tty;
        let Some(run) = &mut self.run else { return };
        while let (Some(input), (first, _)) = (&mut run.input, run.typed.as_slices())
            && !first.is_empty()
        {
            match input.write(first) {
                Ok(length) => drop(run.typed.drain(..length)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => run.close_input(),
            }
        }
        if run.input_ends && !tty {
            run.close_input();
        }
    }

    /// The terminal has this size from now on: rows and columns, two bytes each.
    pub(in crate::machine) fn resize(&mut self, bytes: &[u8]) {
        let [r1, r2, c1, c2] = *bytes else { return };
        if let Some(guest) = self.guest_mut() {
            // A serial line has no size.
            if !guest.is_computer() {
                guest.resize_main(bytes);
            }
            return;
        }
        let size = WindowSize { rows: u16::from_be_bytes([r1, r2]), columns: u16::from_be_bytes([c1, c2]) };
        let terminal = self.run.as_ref().filter(|_| self.launch.tty).and_then(|run| run.output.as_ref());
        if let Some(terminal) = terminal
            && let Err(errno) = set_size(terminal, size)
        {
            tracing::debug!("cannot resize the terminal: {errno}");
        }
    }
}
