//! What happened to machines, networks and volumes: a line of JSON for each event, in a file that is bounded. Commands
//! and keepers write to it, each line at once, so that lines do not mix; whoever fills the file puts it aside, and so at
//! most one older file is kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_model::name::MachineId;
use stead_model::step::Step;

use crate::home::Home;
use crate::log::timestamp;

/// Some thousands of events; a second file of this size is kept.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What somebody else may have written, so that one line does not fill the memory.
const LINE_MAX_BYTES: usize = 16 << 10;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: RFC 3339 in UTC, which sorts as times do.
    pub time: String,
    /// To what kind of thing.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// To which: `web.shop`.
    pub name: String,
    /// What.
    pub action: Action,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// The kinds of things that something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A machine.
    Machine,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It was made.
    Create,
    /// It was started; `restarts` says how often by its keeper.
    Start,
    /// Its first process ended, with `exit_code`.
    Die,
    /// It had no memory left.
    Oom,
    /// It is `healthy` or `unhealthy` from now on.
    Health,
    /// It was sent a `signal`.
    Kill,
    /// It was held.
    Pause,
    /// It goes on.
    Unpause,
    /// A command ended it.
    Stop,
    /// A `snapshot` of it was taken.
    Snapshot,
    /// It went back to a `snapshot`, or to its image.
    Restore,
    /// It has another name: its old one is `from`.
    Rename,
    /// A `program` was started in it.
    Exec,
    /// It is gone.
    Rm,
    /// It was to go with its end, and is not gone yet: `why`. That is tried again.
    RmFailed,
}

impl Event {
    /// One of a machine, now.
    pub fn of_machine(id: &MachineId, action: Action) -> Self {
        Self::now(Kind::Machine, id.to_string(), action)
    }

    fn now(kind: Kind, name: String, action: Action) -> Self {
        let time = timestamp(SystemTime::now());
        Self { time, kind, name, action, attributes: BTreeMap::new() }
    }

    /// The same with more about it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.insert(name.to_owned(), value.to_string());
        self
    }

    /// What a step that was carried out is to those who look for events; machines' keepers tell the rest.
    pub fn of_step(step: &Step) -> Option<Self> {
        Some(match step {
            Step::MachineAdd(id, state, _) => {
                let image = state.image();
                let event = Self::of_machine(id, Action::Create);
                image.map_or(event.clone(), |image| event.with("image", image))
            }
            Step::MachineStop(id, _) => Self::of_machine(id, Action::Stop),
            Step::MachineRemove(id, ..) => Self::of_machine(id, Action::Rm),
            Step::NetworkAdd(id, _) => Self::now(Kind::Network, id.to_string(), Action::Create),
            Step::NetworkRemove(id, _) => Self::now(Kind::Network, id.to_string(), Action::Rm),
            Step::VolumeAdd(id, _) => Self::now(Kind::Volume, id.to_string(), Action::Create),
            Step::VolumeRemove(id) => Self::now(Kind::Volume, id.to_string(), Action::Rm),
            Step::ProjectAdd(..)
            | Step::ProjectRemove(_)
            | Step::EngineStart
            | Step::EngineStop
            | Step::SwitchboardStart
            | Step::UplinkAdd(_)
            | Step::UplinkRemove(_)
            | Step::NetworkChange(..)
            | Step::VolumeChange(..)
            | Step::LeaseAdd(..)
            | Step::LeaseRemove(..)
            | Step::MachineChange(..)
            | Step::MachineStart(..)
            | Step::MachineAwait(..)
            | Step::MachineProvision(..)
            | Step::NicAdd(..)
            | Step::NicChange(..)
            | Step::NicRemove(..)
            | Step::PortAdd(..)
            | Step::PortRemove(..)
            | Step::PortLeaseAdd(..)
            | Step::PortLeaseRemove(..) => return None,
        })
    }
}

/// The events of a home.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// Makes no file.
    pub fn new(home: &Home) -> Self {
        Self { path: home.journal() }
    }

    /// Writes an event down. What is told of an event is worth less than the event: a failure is only warned of.
    pub fn note(&self, event: &Event) {
        if let Err(error) = self.append(event) {
            tracing::warn!("{error:#}");
        }
    }

    /// Writes an event down that nobody hears of otherwise.
    pub fn append(&self, event: &Event) -> Result<()> {
        let doing = || format!("cannot write to {}", self.path.display());
        let mut line = serde_json::to_vec(event).with_context(doing)?;
        line.push(b'\n');
        let open = || File::options().create(true).append(true).open(&self.path);
        let mut file = open().with_context(doing)?;
        if file.metadata().with_context(doing)?.len() >= FILE_MAX_BYTES {
            file.lock().with_context(doing)?;
            // Somebody else may have put it aside meanwhile.
            let is_same = |other: fs::Metadata| other.ino() == file.metadata().map_or(0, |own| own.ino());
            if fs::metadata(&self.path).is_ok_and(is_same) {
                fs::rename(&self.path, older(&self.path)).with_context(doing)?;
            }
            file = open().with_context(doing)?;
        }
        file.write_all(&line).with_context(doing)
    }

    /// Reads what there is, from the oldest on, and what comes after that with each further call.
    pub fn reader(&self) -> Reader {
        Reader { path: self.path.clone(), file: None, rest: Vec::new(), has_begun: false }
    }
}

/// Where the events are that no longer are in the file itself.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// A reading of the journal that goes on as it grows.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Option<File>,
    /// What has no end of line yet.
    rest: Vec<u8>,
    has_begun: bool,
}

impl Reader {
    /// The events that are new.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        if !self.has_begun {
            self.has_begun = true;
            self.file = open(&older(&self.path))?;
        }
        self.drain(&mut events)?;
        // The file that is read may have been put aside: all of it is read before the next one.
        let current = open(&self.path)?;
        let number = |file: &Option<File>| {
            file.as_ref().and_then(|file| file.metadata().ok()).map(|metadata| metadata.ino())
        };
        if number(&current) != number(&self.file) {
            self.file = current;
            self.rest.clear();
            self.drain(&mut events)?;
        }
        Ok(events)
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let doing = || format!("cannot read {}", self.path.display());
        let Some(file) = &mut self.file else { return Ok(()) };
        file.read_to_end(&mut self.rest).with_context(doing)?;
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(end);
        let whole = std::mem::replace(&mut self.rest, rest);
        if self.rest.len() > LINE_MAX_BYTES {
            self.rest.clear();
        }
        // A line that a loss of power has cut says nothing.
        events
            .extend(whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        Ok(())
    }

    /// Passes over what there is.
    pub fn skip(&mut self) -> Result<()> {
        self.has_begun = true;
        self.file = open(&self.path)?;
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::End(0)).with_context(|| format!("cannot read {}", self.path.display()))?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal { path: directory.path().join("events.jsonl") };
        (directory, journal)
    }

    fn event(number: usize) -> Event {
        let id: MachineId = "web.shop".parse().unwrap();
        Event::of_machine(&id, Action::Exec).with("number", number)
    }

    fn numbers(events: &[Event]) -> Vec<usize> {
        events.iter().map(|event| event.attributes["number"].parse().unwrap()).collect()
    }

    #[test]
    fn what_is_noted_is_read_in_order_and_once() {
        let (_directory, journal) = journal();
        let mut reader = journal.reader();
        assert_eq!(reader.read().unwrap(), []);
        journal.note(&event(1));
        journal.note(&event(2));
        assert_eq!(numbers(&reader.read().unwrap()), [1, 2]);
        assert_eq!(reader.read().unwrap(), []);
        journal.note(&event(3));
        assert_eq!(numbers(&reader.read().unwrap()), [3]);
        let mut late = journal.reader();
        late.skip().unwrap();
        journal.note(&event(4));
        assert_eq!(numbers(&late.read().unwrap()), [4]);
        assert_eq!(numbers(&journal.reader().read().unwrap()), [1, 2, 3, 4]);
    }

    #[test]
    fn a_full_journal_is_put_aside_and_readers_miss_nothing() {
        let (_directory, journal) = journal();
        let mut reader = journal.reader();
        journal.note(&event(0));
        assert_eq!(numbers(&reader.read().unwrap()), [0]);
        // As if it had filled up meanwhile, with what nobody can read.
        let mut file = File::options().append(true).open(&journal.path).unwrap();
        let junk = vec![b'x'; usize::try_from(FILE_MAX_BYTES).unwrap()];
        file.write_all(&junk).and_then(|()| file.write_all(b"\n")).unwrap();
        journal.note(&event(1));
        assert_eq!(numbers(&reader.read().unwrap()), [1]);
        assert_eq!(numbers(&journal.reader().read().unwrap()), [0, 1]);
        assert!(fs::metadata(&journal.path).unwrap().len() < 1000);
        // Twice, and the oldest go.
        file = File::options().append(true).open(&journal.path).unwrap();
        file.write_all(&junk).and_then(|()| file.write_all(b"\n")).unwrap();
        journal.note(&event(2));
        assert_eq!(numbers(&journal.reader().read().unwrap()), [1, 2]);
    }
}
