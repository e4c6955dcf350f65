//! What is asked of a guest beside its programs: what it uses, what it changed, files in and out.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use stead_agent::Call;
use stead_agent::message::{Request, Word};
use stead_host::machine::Look;
use stead_model::name::Name;

use super::{Guest, Heard, MAIN, State};

/// What is kept of a list that a guest tells: many thousands of files. More is refused.
const LIST_MAX_BYTES: usize = 16 << 20;

/// What has come so far of what a guest tells.
#[derive(Debug, Default)]
pub(super) struct Seen {
    values: Vec<Value>,
    bytes: usize,
}

impl Seen {
    /// Takes in a word; false if it is none of those that are asked for, or too much.
    fn take(&mut self, word: &Word) -> bool {
        let count = self.values.len();
        match word {
            Word::Usage(usage) => self.push(usage),
            Word::Processes(some) => some.iter().for_each(|process| self.push(process)),
            Word::Changes(some) => some.iter().for_each(|change| self.push(change)),
            _ => {}
        }
        self.values.len() > count && self.bytes <= LIST_MAX_BYTES
    }

    fn push(&mut self, told: &impl Serialize) {
        let Ok(text) = serde_json::to_string(told) else { return };
        self.bytes += text.len();
        self.values.extend(serde_json::from_str::<Value>(&text));
    }
}

impl Guest {
    /// Asks for something that is told at once.
    pub(in crate::machine) fn look_into(&mut self, what: Look) -> Result<Call> {
        let name = self.ready()?;
        anyhow::ensure!(self.session.is_met(), "its agent has not come up yet");
        let call = self.session.ask(&match what {
            Look::Usage => Request::Usage(name),
            Look::Processes => Request::Processes(name),
            Look::Changes => Request::Changes(name),
            Look::Written => Request::Sync,
            Look::StandsStill => Request::StandStill,
        })?;
        self.stands_still |= what == Look::StandsStill;
        self.looks.insert(call, Seen::default());
        self.send();
        Ok(call)
    }

    /// After it was held, its file systems go on as well.
    pub(in crate::machine) fn goes_on(&mut self) {
        if std::mem::take(&mut self.stands_still) {
            if let Err(error) = self.session.ask(&Request::GoOn) {
                tracing::warn!("its file systems stand still for some seconds more: {error:#}");
            }
            self.send();
        }
    }

    /// Takes files out: their parcel is output.
    pub(in crate::machine) fn read(&mut self, path: String) -> Result<Call> {
        let request = Request::Read { container: self.ready()?, path };
        self.carry(&request)
    }

    /// Puts files in: their parcel is input.
    pub(in crate::machine) fn write(&mut self, path: String, keep_owners: bool) -> Result<Call> {
        let request = Request::Write { container: self.ready()?, path, keep_owners };
        self.carry(&request)
    }

    fn carry(&mut self, request: &Request) -> Result<Call> {
        let call = self.session.ask(request)?;
        self.execs.insert(call);
        self.send();
        Ok(call)
    }

    fn ready(&self) -> Result<Name> {
        anyhow::ensure!(self.state == State::Running, "it is not up yet, or about to end");
        self.role.may_ask(self.session.is_met())?;
        MAIN.parse().context("a container in a guest has no name")
    }

    /// Something was said about what was asked; false if it was not asked here.
    pub(super) fn see(&mut self, call: Call, word: &Word, events: &mut Vec<Heard>) -> bool {
        let Some(seen) = self.looks.get_mut(&call) else { return false };
        let failure = match word {
            Word::Done => None,
            Word::Failed { why, .. } => Some(why.clone()),
            word if seen.take(word) => None,
            _ => Some("its agent said what nobody asked for, or too much of it".to_owned()),
        };
        if let Some(why) = failure {
            self.looks.remove(&call);
            self.session.cancel(call);
            events.push(Heard::Seen(call, Err(why)));
        }
        true
    }

    /// All was said about it.
    pub(super) fn has_seen(&mut self, call: Call, broken: Option<&str>, events: &mut Vec<Heard>) {
        let Some(seen) = self.looks.remove(&call) else { return };
        let told = match broken {
            None => Ok(Value::Array(seen.values)),
            Some(why) => Err(why.to_owned()),
        };
        events.push(Heard::Seen(call, told));
    }
}
