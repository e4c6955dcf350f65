//! One run of a guest: its VMM, the stream of its agent, and what is asked of that. Nothing here waits.
//!
//! ```text
//! booting ──Started──▶ running ──Exited──▶ ending (written to disk, switched off) ──▶ the VMM ends
//!    └──Failed, or too late──▶ told to quit ──too late──▶ killed
//! ```

mod computer;
mod ending;
mod look;
mod role;
mod saving;
mod told;
mod typed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use stead_agent::message::{self, Request, Size, Stage, Word};
use stead_agent::mux::Channel;
use stead_agent::{Call, Happening, Session};
use stead_container::Failure;
use stead_host::log::Stream;
use stead_host::machine::Exec;
use stead_model::container::{Launch, Signal};
use stead_net::process::ProcessId;
use stead_vmm::Order;

use self::look::Seen;
use self::role::{Role, Wanted};
use self::saving::Saving;
pub(super) use self::saving::Use;
use self::typed::{Early, Typing};
use super::boot::{Boot, Booted, Streams};
use super::console::Console;
use super::control::{Answered, Control};
use super::kept::Words;
use super::set_up::{Texts, in_guest, now_ns};
use super::shares::{Server, given};
use super::template::Beginning;

/// Translated, on a computer that has much else to do, a guest takes long.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// What is said before the guest listens is lost.
const GREETING: Duration = Duration::from_secs(1);
/// What is read at once; more is read at the next turn.
const READ_MAX_BYTES: usize = 256 * 1024;

/// What its agent could not do is told so often.
const REFUSALS_MAX: u32 = 20;

/// The container's name in its guest.
const MAIN: &str = "main";

/// What has happened in a guest.
#[derive(Debug)]
pub(super) enum Heard {
    /// The machine's program runs.
    Started,
    /// It does not, and the guest ends.
    Failed(Failure),
    /// The guest has got so far.
    Stage(Stage),
    /// The machine wrote something.
    Output(Stream, Vec<u8>),
    /// A program that was started in it wrote something.
    ExecOutput(Call, Stream, Vec<u8>),
    /// It ended; or it never ran, for this reason.
    ExecEnded(Call, u8, Option<String>),
    /// What was asked for; or why it cannot be told.
    Seen(Call, Result<Value, String>),
    /// It was saved for others, or went on from where another one was.
    Template(Use),
    /// Signals that had waited were sent.
    Signalled,
    /// The agent of a whole computer is there, or nobody waits for it any more.
    Met,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Booting,
    Running,
    Ending,
}

/// A guest while its VMM runs.
pub(super) struct Guest {
    pub(super) pidfd: OwnedFd,
    pub(super) process: ProcessId,
    child: Child,
    agent: UnixStream,
    pub(super) control: Control,
    pub(super) console: Console,
    /// What serves the files of this computer that it is given.
    shares: Option<Server>,
    session: Session,
    state: State,
    role: Role,
    /// What happened while nothing was heard.
    news: Vec<Heard>,
    execs: BTreeSet<Call>,
    looks: BTreeMap<Call, Seen>,
    typing: Typing,
    early: Early,
    saving: Saving,
    /// Whether its file systems were told to stand still.
    stands_still: bool,
    /// Bytes that came and were passed on, but not yet acknowledged: those who watch are slow.
    owed: Vec<(Call, usize)>,
    has_pending: bool,
    /// Nothing more comes of the agent's stream.
    is_cut: bool,
    greet_at: Instant,
    end_by: Option<Instant>,
    /// By when the VMM, which was told to, is to have ended.
    quit_by: Option<Instant>,
    /// How often its agent could not do what it was asked.
    refusals: u32,
    /// By when the VMM has ended with what served its files, or is told to.
    unserved_by: Option<Instant>,
    /// How far it says that it got.
    stage: String,
    /// What its VMM says of itself.
    words: Words,
    /// What served its files said last.
    share_words: String,
    exited: Option<message::Exited>,
    /// Why it was killed.
    why: Option<String>,
}

impl Guest {
    /// Starts the VMM. What is to happen in the guest is asked for when it has booted.
    pub(super) fn new(
        boot: &Boot,
        launch: &Launch,
        texts: &Texts,
        (netns, beginning): (&OwnedFd, Option<Beginning>),
    ) -> Result<Self> {
        let given = given(&in_guest(launch), &boot.volumes)?;
        let beginning = beginning.unwrap_or_else(|| boot.beginning(&given));
        let booted = boot.start(netns, &given, &beginning)?;
        let session = Session::new().context("cannot begin a session with its agent")?;
        let wanted = Some(Box::new(Wanted::new(boot, launch, texts, (given, &beginning))?));
        let mut guest = Self::of(boot, booted, session, Role::Container { wanted, calls: None });
        guest.end_by = Some(Instant::now() + BOOT_LIMIT);
        if !matches!(beginning, Beginning::Boots) {
            guest.console.hold();
        }
        guest.saving = Saving::new(beginning);
        guest.send();
        Ok(guest)
    }

    fn of(boot: &Boot, booted: Booted, session: Session, role: Role) -> Self {
        let Booted { child, pidfd, process, streams, words, shares } = booted;
        let Streams { agent, control, console } = streams;
        Self {
            pidfd,
            process,
            child,
            agent,
            control: Control::new(control),
            console: Console::new(console, &boot.files.console()),
            shares,
            session,
            state: match role {
                Role::Container { .. } => State::Booting,
                Role::Computer(_) => State::Running,
            },
            role,
            news: Vec::new(),
            execs: BTreeSet::new(),
            looks: BTreeMap::new(),
            typing: Typing::default(),
            early: Early::default(),
            saving: Saving::No,
            stands_still: false,
            owed: Vec::new(),
            has_pending: true,
            is_cut: false,
            greet_at: Instant::now() + GREETING,
            end_by: None,
            quit_by: None,
            refusals: 0,
            unserved_by: None,
            stage: "vmm".to_owned(),
            words,
            share_words: String::new(),
            exited: None,
            why: None,
        }
    }

    /// The agent's stream, unless nothing more comes of it.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_cut).then(|| self.agent.as_fd())
    }

    /// The same, if something is to be sent.
    pub(super) fn stream_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.stream().filter(|_| self.has_pending)
    }

    pub(super) fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.line.as_ref().map(AsFd::as_fd)
    }

    /// The same, if something was typed.
    pub(super) fn console_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.console().filter(|_| self.console.is_typed())
    }

    pub(super) fn shares(&self) -> Option<BorrowedFd<'_>> {
        self.shares.as_ref().map(|server| server.pidfd.as_fd())
    }

    /// What those who work for it say of themselves.
    pub(super) fn words(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = [Some(&self.words), self.shares.as_ref().map(|server| &server.words)];
        all.into_iter().flatten().filter_map(Words::pipe)
    }

    pub(super) fn hear_words(&mut self) {
        self.words.hear();
        self.shares.iter_mut().for_each(|server| server.words.hear());
    }

    pub(super) fn is_booting(&self) -> bool {
        self.state == State::Booting
    }

    /// When something is due without anything happening.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let greet_at = (!self.session.is_met() && self.is_heard()).then_some(self.greet_at);
        let all = [
            greet_at,
            self.end_by,
            self.quit_by,
            self.unserved_by,
            self.control.next_look(),
            self.next_look_at_computer(),
            self.saving.next_look(),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn look(&mut self, now: Instant) {
        if !self.session.is_met() && self.is_heard() && self.greet_at <= now {
            self.session.greet();
            self.greet_at = now + GREETING;
            self.send();
        }
        self.look_at_computer(now);
        self.look_at_saving(now);
        self.look_at_its_end(now);
    }

    /// Sends as much as the stream takes.
    pub(super) fn send(&mut self) {
        loop {
            let pending = self.session.pending();
            if pending.is_empty() || !self.role.is_heard() || self.is_cut {
                self.has_pending = false;
                return;
            }
            match self.agent.write(pending) {
                Ok(0) => self.is_cut = true,
                Ok(count) => self.session.sent(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.has_pending = true;
                    return;
                }
                // The VMM ends.
                Err(_) => self.is_cut = true,
            }
        }
    }

    /// Reads what the agent says, and tells what that means.
    pub(super) fn hear(&mut self) -> Vec<Heard> {
        let mut buffer = [0; 16 * 1024];
        let mut total = 0;
        while total < READ_MAX_BYTES && !self.is_cut {
            match self.agent.read(&mut buffer) {
                Ok(0) => self.is_cut = true,
                Ok(count) => {
                    total += count;
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Err(violation) = self.session.receive(bytes) {
                        self.is_cut = true;
                        self.quit(format!("its agent said what is against the protocol: {violation:?}"));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_cut = true,
            }
        }
        let mut events = std::mem::take(&mut self.news);
        while let Some(happening) = self.session.next_event() {
            self.take(happening, &mut events);
        }
        self.send();
        events
    }

    fn take(&mut self, happening: Happening, events: &mut Vec<Heard>) {
        match told::tamed(happening) {
            Happening::Hello(hello) => {
                tracing::debug!("the agent of version {} is there", hello.program);
                self.is_met(events);
            }
            Happening::Foreign(hello) => {
                let text = format!("its agent speaks version {} of the protocol", hello.version);
                self.fail(Failure { code: 125, text }, events);
            }
            Happening::Word(call, word) if self.see(call, &word, events) => {}
            Happening::Word(call, word) => self.heed(call, word, events),
            Happening::Bytes(call, channel, bytes) => {
                self.owed.push((call, bytes.len()));
                let stream = match channel {
                    Channel::Output | Channel::Input | Channel::Word => Stream::Output,
                    Channel::Error => Stream::Error,
                };
                if Some(call) == self.main() {
                    events.push(Heard::Output(stream, bytes));
                } else if self.execs.contains(&call) {
                    events.push(Heard::ExecOutput(call, stream, bytes));
                }
            }
            Happening::Room(call) => self.type_on(call),
            Happening::Over(call) => {
                self.typing.forget(call);
                self.has_seen(call, None, events);
                if self.execs.remove(&call) {
                    events.push(Heard::ExecEnded(call, 255, Some("nobody knows how it ended".to_owned())));
                }
            }
            Happening::Broken(call, why) => {
                self.typing.forget(call);
                self.has_seen(call, Some(&why), events);
                if self.execs.remove(&call) {
                    events.push(Heard::ExecEnded(call, 125, Some(why)));
                } else if self.role.is_start(call) {
                    self.fail(Failure { code: 125, text: why }, events);
                } else if self.is_mounting(call) {
                    self.are_not_mounted(why, events);
                } else if Some(call) == self.main() && self.state == State::Running {
                    self.quit(format!("its agent lost it: {why}"));
                }
            }
        }
    }

    /// Something was said about a call.
    fn heed(&mut self, call: Call, word: Word, events: &mut Vec<Heard>) {
        if self.heed_mounts(call, &word, events) {
            return;
        }
        match word {
            Word::Stage(stage) => {
                self.stage.clone_from(&stage.name);
                events.push(Heard::Stage(stage));
            }
            Word::Failed { why, code } if self.role.is_start(call) => {
                if self.role.is_last_of_start(call) {
                    self.is_sound();
                }
                self.fail(Failure { code, text: why }, events);
            }
            Word::Started { .. } if self.role.is_start(call) && self.state == State::Booting => {
                self.state = State::Running;
                self.end_by = None;
                events.push(Heard::Started);
            }
            Word::Exited(exited) if Some(call) == self.main() => {
                self.exited = Some(exited);
                self.shut_down();
            }
            Word::Exited(exited) if self.execs.remove(&call) => {
                events.push(Heard::ExecEnded(call, exited.code, None));
            }
            // Files were carried, or a program was started that is left to itself.
            Word::Done if self.execs.remove(&call) => events.push(Heard::ExecEnded(call, 0, None)),
            Word::Failed { why, code } if self.execs.remove(&call) => {
                events.push(Heard::ExecEnded(call, code, Some(why)));
            }
            Word::Failed { why, .. } => self.note_refusal(&why),
            Word::Done
            | Word::Started { .. }
            | Word::Attached { .. }
            | Word::Exited(_)
            | Word::Usage(_)
            | Word::Processes(_)
            | Word::Changes(_)
            | Word::Ports(_)
            | Word::InputEnd
            | Word::Resize(_)
            | Word::Signal(_) => {}
        }
    }

    /// Writes down what the agent says that it cannot do; not without end, as a guest may say what it likes.
    fn note_refusal(&mut self, why: &str) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= REFUSALS_MAX {
            tracing::warn!("the agent could not do what it was asked: {}", why.escape_debug());
        }
    }

    /// The machine's program cannot run, so the guest ends.
    fn fail(&mut self, failure: Failure, events: &mut Vec<Heard>) {
        if self.state == State::Booting {
            events.push(Heard::Failed(failure));
            self.shut_down();
        }
    }

    /// What was passed on is acknowledged: as much more may come. Not of calls for which somebody has to read first.
    pub(super) fn acknowledge(&mut self, waits: impl Fn(Call) -> bool) {
        let done = self.owed.extract_if(.., |(call, _)| !waits(*call));
        done.for_each(|(call, count)| self.session.taken(call, count));
        self.send();
    }

    /// Starts another program.
    pub(super) fn exec(&mut self, exec: &Exec) -> Result<Call> {
        anyhow::ensure!(self.state == State::Running, "it is not up yet");
        self.role.may_ask(self.session.is_met())?;
        let Exec { args, env, cwd, user, privileged, login, tty, stdin, detached } = exec.clone();
        let call = self.session.ask(&Request::Exec(message::Exec {
            container: MAIN.parse().context("a container in a guest has no name")?,
            args,
            env,
            cwd,
            user,
            privileged,
            login,
            tty: tty.map(|(rows, columns)| Size { rows, columns }),
            stdin,
            detached,
        }))?;
        self.execs.insert(call);
        self.send();
        Ok(call)
    }

    /// Nobody waits for a program any more.
    pub(super) fn cancel(&mut self, call: Call) {
        self.typing.forget(call);
        if self.execs.remove(&call) || self.looks.remove(&call).is_some() {
            self.session.cancel(call);
            self.send();
        }
    }

    /// Sends a signal to a program that was started in it.
    pub(super) fn signal_exec(&mut self, call: Call, signal: Signal) {
        self.session.say(call, &Word::Signal(signal));
        self.send();
    }

    /// Reads what its VMM says: which orders it carried out or refused.
    pub(super) fn hear_control(&mut self, now: Instant) -> Vec<Answered> {
        let mut answered = self.control.hear(now);
        self.heed_ports();
        if self.heed_saving(&answered, now) {
            // Of the others nobody else knows.
            answered.retain(|(_, order, _)| matches!(order, Order::Stop | Order::PressPower | Order::Quit));
            return answered;
        }
        if answered.iter().any(|(_, order, result)| *order == Order::Continue && result.is_ok()) {
            // Its clock stood still meanwhile.
            self.set_clock();
        }
        answered
    }

    fn set_clock(&mut self) {
        if let Err(error) = self.session.ask(&Request::SetClock { time_ns: now_ns() }) {
            tracing::warn!("its clock cannot be set: {error}");
        }
        self.send();
    }
}
