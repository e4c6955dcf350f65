//! Requests carried out, output carried, and everything waited for in one place.

mod output;
mod requests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use stead_agent::message::{Exited, Hello, Stage, VERSION, Word};
use stead_agent::mux::{Channel, Event, Mux, StreamId};
use stead_container::Failure;
use stead_model::name::Name;

use crate::boot::stage;
use crate::container::Container;
use crate::ending::Ending;
use crate::port::Link;
use crate::process::Process;
use crate::standstill::Hold;

/// What is read of a process or the host at once.
const READ_BYTES: usize = 16 * 1024;

/// The most words of a list that are said in one.
const LIST_PART: usize = 100;

/// What a stream is about.
enum Call {
    /// Its request has not come yet.
    New,
    /// It is told what happens.
    Watch,
    /// It has a container's output, and perhaps its input.
    Attach(Name),
    /// It has a process.
    Exec { container: Name, process: Process },
    /// It carries files, by this process; what that says as an error is kept.
    Files { process: Process, error: Vec<u8> },
}

/// Whose process it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Container(Name),
    Exec(StreamId),
    /// Of nobody any more: at this place among those that are left.
    Left(usize),
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Host,
    End(Owner),
    Output(Owner, Channel),
    Input(Owner),
}

/// The program, while it serves.
pub(crate) struct Agent {
    link: Link,
    mux: Mux,
    calls: BTreeMap<StreamId, Call>,
    pub(crate) containers: BTreeMap<Name, Container>,
    /// Processes whose call is gone, until they have ended.
    left: Vec<Process>,
    exits: Vec<Exited>,
    ending: Option<Ending>,
    /// Why a whole computer has not what it is to have of its host.
    lack: Option<String>,
    /// File systems that are held still.
    standstill: Option<Hold>,
    ground: Ground,
}

/// Where the program is.
pub(crate) struct Ground {
    /// How far the guest has got.
    pub(crate) stages: Vec<Stage>,
    /// What we are there.
    pub(crate) role: Role,
    /// What names of containers' cgroups begin with.
    pub(crate) cgroups: String,
}

/// What the program is in its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its first process: the guest is ours to set up and to end.
    First,
    /// A service of its system: what is done is done in the guest as it is, and not in containers.
    Service,
    /// One process among others, which runs containers.
    Beside,
}

fn hello() -> Vec<u8> {
    let hello = Hello { version: VERSION, program: env!("CARGO_PKG_VERSION").to_owned() };
    serde_json::to_vec(&hello).unwrap_or_default()
}

impl Agent {
    pub(crate) fn new(link: Link, mut ground: Ground) -> Result<Self> {
        if ground.role != Role::Service {
            crate::container::prepare()?;
        }
        ground.stages.push(stage("agent"));
        Ok(Self {
            link,
            mux: Mux::guest(hello()),
            calls: BTreeMap::new(),
            containers: BTreeMap::new(),
            left: Vec::new(),
            exits: Vec::new(),
            ending: None,
            lack: None,
            standstill: None,
            ground,
        })
    }

    /// Goes on until told to end, or until the host is gone for good.
    pub(crate) fn serve(mut self) -> Result<()> {
        loop {
            self.pump();
            self.standstill = self.standstill.take().filter(|hold| hold.until > Instant::now());
            if self.end_if_told()? {
                return Ok(());
            }
            let pending = self.mux.pending();
            let length = if pending.is_empty() { 0 } else { self.link.write(pending)? };
            self.mux.sent(length);
            for source in self.wait()? {
                if !self.attend(&source)? {
                    return Ok(());
                }
            }
        }
    }

    /// Waits until something is to be done, and says what.
    fn wait(&mut self) -> Result<Vec<Source>> {
        let has_more = !self.mux.pending().is_empty();
        let ending = self.ending.as_ref().and_then(|ending| ending.next_look(&self.containers));
        let goes_on = self.standstill.as_ref().map(|hold| hold.until);
        let timeout = ending.into_iter().chain(goes_on).min();
        let timeout = timeout.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(Timespec::try_from).transpose().context("a time limit is too long")?;
        let link = self.link.fd();
        let mut all = vec![(Source::Host, link.as_fd(), PollFlags::IN)];
        if has_more {
            all.push((Source::Host, link.as_fd(), PollFlags::OUT));
        }
        for (name, container) in &self.containers {
            let owner = Owner::Container(name.clone());
            sources(&mut all, &owner, &container.process, container.backlog.room() > 0);
        }
        for (id, call) in &self.calls {
            if let Call::Exec { process, .. } | Call::Files { process, .. } = call {
                sources(&mut all, &Owner::Exec(*id), process, self.mux.room(*id) > 0);
            }
        }
        for (place, process) in self.left.iter().enumerate() {
            all.push((Source::End(Owner::Left(place)), process.pidfd.as_fd(), PollFlags::IN));
        }
        let mut fds: Vec<PollFd<'_>> =
            all.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).context("cannot wait"),
        }
        let happened = fds.iter().zip(&all).filter(|(fd, _)| !fd.revents().is_empty());
        let mut happened: Vec<Source> = happened.map(|(_, (source, ..))| source.clone()).collect();
        happened.dedup();
        // The places of those that are left move when one goes.
        happened.reverse();
        Ok(happened)
    }

    /// False if the host is gone for good.
    fn attend(&mut self, source: &Source) -> Result<bool> {
        match source {
            Source::Host => return self.hear(),
            Source::Output(Owner::Container(name), channel) => {
                if let Some(container) = self.containers.get_mut(name) {
                    container.read(*channel);
                }
            }
            Source::End(Owner::Container(name)) => self.reap(name)?,
            Source::End(Owner::Exec(id)) => {
                if let Some(Call::Exec { process, .. } | Call::Files { process, .. }) = self.calls.get_mut(id)
                {
                    process.reap()?;
                }
            }
            Source::End(Owner::Left(place)) => {
                if let Some(process) = self.left.get_mut(*place) {
                    process.reap()?;
                    if process.code.is_some() {
                        self.left.remove(*place);
                    }
                }
            }
            Source::Input(owner) => self.type_on(owner),
            // Read as far as there is room, for all of them in turn.
            Source::Output(..) => {}
        }
        Ok(true)
    }

    fn reap(&mut self, name: &Name) -> Result<()> {
        let Some(container) = self.containers.get_mut(name) else { return Ok(()) };
        // What it wrote last comes before the news of its end.
        for channel in [Channel::Output, Channel::Error] {
            container.read(channel);
        }
        if let Some(exited) = container.reap(name)? {
            self.exits.push(exited.clone());
            self.tell(&Word::Exited(exited));
        }
        Ok(())
    }

    /// Goes on with what was typed.
    fn type_on(&mut self, owner: &Owner) {
        let done = match owner {
            Owner::Container(name) => self.containers.get_mut(name).and_then(|container| {
                let done = container.process.write_input();
                Some((container.attached?.0, done))
            }),
            Owner::Exec(id) => match self.calls.get_mut(id) {
                Some(Call::Exec { process, .. } | Call::Files { process, .. }) => {
                    Some((*id, process.write_input()))
                }
                Some(_) | None => None,
            },
            Owner::Left(_) => None,
        };
        if let Some((id, done)) = done {
            self.mux.taken(id, done);
        }
    }

    /// Takes in what the host sent. False if it is gone for good.
    fn hear(&mut self) -> Result<bool> {
        let mut buffer = [0; READ_BYTES];
        let Some(length) = self.link.read(&mut buffer)? else { return Ok(true) };
        if length == 0 {
            return Ok(false);
        }
        if let Err(violation) = self.mux.receive(buffer.get(..length).unwrap_or_default()) {
            eprintln!("stead-agent: {violation}");
            // Until it says hello anew nothing more is heard of it.
            self.forget_host();
            self.mux = Mux::guest(hello());
        }
        while let Some(event) = self.mux.next_event() {
            self.take(event);
        }
        Ok(true)
    }

    /// Drops what belongs to a host that is gone; containers stay.
    fn forget_host(&mut self) {
        for (_, call) in std::mem::take(&mut self.calls) {
            self.drop_call(call);
        }
    }

    fn drop_call(&mut self, call: Call) {
        match call {
            Call::Exec { process, .. } | Call::Files { process, .. } => {
                // A terminal hangs up with its descriptor; who writes to a pipe finds it broken. One that was buried
                // already cannot be once more.
                if process.code.is_none() {
                    self.left.push(process.hung_up());
                }
            }
            Call::Attach(name) => {
                if let Some(container) = self.containers.get_mut(&name) {
                    container.attached = None;
                    container.backlog.rewind();
                }
            }
            Call::New | Call::Watch => {}
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Hello(_) => {
                self.forget_host();
                if !self.ground.stages.iter().any(|stage| stage.name == "hello") {
                    self.reach("hello");
                }
            }
            Event::Opened(id) => drop(self.calls.insert(id, Call::New)),
            Event::Word(id, word) => match self.calls.get(&id) {
                Some(Call::New) => match serde_json::from_slice(&word) {
                    Ok(request) => self.carry_out(id, request),
                    Err(error) => self.fail(id, &anyhow::anyhow!("this is no request: {error}").into()),
                },
                Some(_) => match serde_json::from_slice(&word) {
                    Ok(word) => self.told(id, &word),
                    Err(_) => self.break_off(id, "this is no word of ours"),
                },
                None => {}
            },
            Event::Data(id, _, bytes) => {
                let done = self.input_of(id).map_or(bytes.len(), |process| process.take_input(&bytes));
                self.mux.taken(id, done);
            }
            Event::Room(id) => {
                if let Some(Call::Attach(name)) = self.calls.get(&id)
                    && let Some(container) = self.containers.get_mut(name)
                {
                    container.backlog.taken(self.mux.peer_taken(id));
                }
            }
            Event::Ended(_) => {}
            Event::Broken(id, _) => {
                if let Some(call) = self.calls.remove(&id) {
                    self.drop_call(call);
                }
            }
        }
    }

    /// The process whose input a stream is.
    fn input_of(&mut self, id: StreamId) -> Option<&mut Process> {
        match self.calls.get_mut(&id)? {
            Call::Exec { process, .. } | Call::Files { process, .. } => Some(process),
            Call::Attach(name) => {
                let container = self.containers.get_mut(name)?;
                container.attached.is_some_and(|(_, stdin)| stdin).then_some(&mut container.process)
            }
            Call::New | Call::Watch => None,
        }
    }

    /// The host said something about a call.
    fn told(&mut self, id: StreamId, word: &Word) {
        match word {
            Word::InputEnd => {
                let done = self.input_of(id).map_or(0, Process::end_input);
                self.mux.taken(id, done);
            }
            Word::Resize(size) => match self.calls.get(&id) {
                Some(Call::Exec { process, .. }) => process.resize(*size),
                Some(Call::Attach(name)) => {
                    if let Some(container) = self.containers.get(name) {
                        container.process.resize(*size);
                    }
                }
                Some(Call::New | Call::Watch | Call::Files { .. }) | None => {}
            },
            Word::Signal(signal) => {
                if let Some(Call::Exec { process, .. }) = self.calls.get(&id) {
                    // It may have ended meanwhile.
                    let _gone = stead_container::kill(process.pidfd.as_fd(), *signal);
                }
            }
            Word::Done
            | Word::Failed { .. }
            | Word::Started { .. }
            | Word::Attached { .. }
            | Word::Exited(_)
            | Word::Stage(_)
            | Word::Usage(_)
            | Word::Processes(_)
            | Word::Changes(_)
            | Word::Ports(_) => self.break_off(id, "this is for a guest to say"),
        }
    }

    /// Ends, if that was asked for and all containers have ended; false if not yet.
    fn end_if_told(&mut self) -> Result<bool> {
        let Some(ending) = &self.ending else { return Ok(false) };
        if !ending.look(&self.containers) {
            return Ok(false);
        }
        let (id, how) = (ending.call, ending.how);
        if self.ground.role == Role::First {
            for problem in crate::setup::unmount_all() {
                eprintln!("stead-agent: {problem}");
            }
        }
        self.finish(id, &Word::Done);
        crate::ending::say_goodbye(&mut self.link, &mut self.mux);
        if self.ground.role == Role::First {
            crate::ending::end(how)?;
        }
        Ok(true)
    }

    /// The guest has got so far.
    fn reach(&mut self, name: &str) {
        let stage = stage(name);
        self.ground.stages.push(stage.clone());
        self.tell(&Word::Stage(stage));
    }

    /// Tells all who want to know what happens.
    fn tell(&mut self, word: &Word) {
        let watchers: Vec<StreamId> =
            self.calls.iter().filter(|(_, call)| matches!(call, Call::Watch)).map(|(id, _)| *id).collect();
        for id in watchers {
            self.say(id, word);
        }
    }

    fn say(&mut self, id: StreamId, word: &Word) {
        if !serde_json::to_vec(word).is_ok_and(|word| self.mux.say(id, &word)) {
            self.break_off(id, "too much waits to be read");
        }
    }

    /// Says the last word of a call.
    fn finish(&mut self, id: StreamId, word: &Word) {
        self.say(id, word);
        self.mux.end(id);
        self.calls.remove(&id);
    }

    fn fail(&mut self, id: StreamId, failure: &Failure) {
        self.finish(id, &Word::Failed { why: failure.text.clone(), code: failure.code });
    }

    fn break_off(&mut self, id: StreamId, reason: &str) {
        self.mux.reset(id, reason);
        if let Some(call) = self.calls.remove(&id) {
            self.drop_call(call);
        }
    }
}

/// What of a process is to be waited for.
fn sources<'a>(
    all: &mut Vec<(Source, BorrowedFd<'a>, PollFlags)>,
    owner: &Owner,
    process: &'a Process,
    is_read: bool,
) {
    // Those that happened are attended to from the last on: its end comes after what it wrote.
    if process.code.is_none() {
        all.push((Source::End(owner.clone()), process.pidfd.as_fd(), PollFlags::IN));
    }
    for (channel, fd) in process.outputs().filter(|_| is_read) {
        all.push((Source::Output(owner.clone(), channel), fd, PollFlags::IN));
    }
    if let Some(fd) = process.input_wanted() {
        all.push((Source::Input(owner.clone()), fd, PollFlags::OUT));
    }
}
