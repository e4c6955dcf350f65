//! What processes wrote, carried to the host.

use stead_agent::message::{Exited, Word};
use stead_agent::mux::{Channel, Mux, StreamId};

use super::{Agent, Call, READ_BYTES};
use crate::process::Process;

/// Why files could not be carried is said in no more.
const WORDS_MAX_BYTES: usize = 4096;

impl Agent {
    /// Carries what processes wrote, in turn, as far as the host takes it, and tells of those that ended.
    pub(super) fn pump(&mut self) {
        for (name, container) in &mut self.containers {
            for channel in [Channel::Output, Channel::Error] {
                if container.exited.is_some() {
                    container.read(channel);
                }
            }
            let Some((id, _)) = container.attached else { continue };
            let mux = &mut self.mux;
            container.backlog.send(|channel, bytes| mux.send(id, channel, bytes));
            if let Some(exited) = container.exited.as_ref().filter(|_| container.process.is_over())
                && container.backlog.is_sent()
            {
                container.attached = None;
                self.calls.remove(&id);
                // The longest there is fits.
                let _said =
                    serde_json::to_vec(&Word::Exited(exited.clone())).is_ok_and(|word| mux.say(id, &word));
                mux.end(id);
                debug_assert_eq!(exited.container, *name);
            }
        }
        let mut over = Vec::new();
        for (id, call) in &mut self.calls {
            let (process, words) = match call {
                Call::Exec { process, .. } => (process, None),
                Call::Files { process, error } => (process, Some(error)),
                Call::New | Call::Watch | Call::Attach(_) => continue,
            };
            let mux = &mut self.mux;
            carry_to(mux, *id, process, Channel::Output);
            match words {
                Some(words) => keep_words(process, words),
                None => carry_to(mux, *id, process, Channel::Error),
            }
            if process.is_over() {
                over.push(*id);
            }
        }
        over.into_iter().for_each(|id| self.process_is_over(id));
    }

    /// Says how a process of a call ended.
    fn process_is_over(&mut self, id: StreamId) {
        match self.calls.remove(&id) {
            Some(Call::Exec { container, process }) => {
                let code = process.code.unwrap_or(255);
                self.finish(id, &Word::Exited(Exited { container, code, out_of_memory: false }));
            }
            Some(Call::Files { process, .. }) if process.code == Some(0) => self.finish(id, &Word::Done),
            Some(Call::Files { error, .. }) => {
                let text = String::from_utf8_lossy(&error);
                let text = text.trim().trim_start_matches("stead-agent: ").to_owned();
                self.fail(id, &anyhow::anyhow!(text).into());
            }
            Some(Call::New | Call::Watch | Call::Attach(_)) | None => {}
        }
    }
}

/// Carries what a process wrote, as far as the host takes it.
fn carry_to(mux: &mut Mux, id: StreamId, process: &mut Process, channel: Channel) {
    let mut buffer = [0; READ_BYTES];
    loop {
        let room = mux.room(id).min(READ_BYTES);
        let length = process.read(channel, buffer.get_mut(..room).unwrap_or_default());
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return };
        mux.send(id, channel, bytes);
    }
}

/// Keeps what a process says as an error.
fn keep_words(process: &mut Process, words: &mut Vec<u8>) {
    let mut buffer = [0; READ_BYTES];
    loop {
        let length = process.read(Channel::Error, &mut buffer);
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return };
        words.extend(bytes.iter().take(WORDS_MAX_BYTES.saturating_sub(words.len())));
    }
}
