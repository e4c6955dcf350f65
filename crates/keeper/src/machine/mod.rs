//! The keeper: the process that looks after one machine. It is the parent of the machine's first process, writes
//! its log, carries its output to those who watch, sees how well it is, starts it again where that is wanted, and
//! writes down how it ended. It has one thread, and waits in one place.
//!
//! ```text
//!            ┌──────────── back-off ◀─── ended, to be started again ───┐
//!            ▼                                                         │
//! spawn ─▶ running ──Stop──▶ stopping ──(grace)──▶ killed ──▶ ended ───┴──▶ exit.json, gone
//! ```
//!
//! Killed itself, it takes nothing along but its ends of the machine's pipes: the next command finds the machine
//! without a keeper and ends it.

mod answering;
mod boot;
mod clients;
mod console;
mod control;
mod flat;
mod guest;
mod health;
mod kept;
mod lifecycle;
mod log;
mod named;
mod network;
mod run;
mod scope;
mod set_up;
mod shares;
mod stages;
mod template;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use stead_container::{CODE_OURS, Failure};
use stead_host::frame::Frame;
use stead_host::home::{Home, remove_if_there, write_run_file};
use stead_host::log::Stream;
use stead_host::machine::{Answer, Assignment, Exit, Files, Phase, Report};
use stead_model::name::MachineId;
use stead_model::project::Condition;
use stead_net::anchor;
use stead_net::process::{ProcessId, let_go_of_program};

use self::boot::Boot;
use self::clients::{CLIENTS_MAX, Client, Role};
use self::guest::{Guest, Heard};
use self::lifecycle::Life;
use self::log::Log;
use self::scope::Scope;

/// Those who read the last words of a machine that ended get so long.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// What is read at once of what a machine writes.
const READ_BYTES: usize = 32 * 1024;

/// Looks after a machine until it has ended for good.
pub fn run(home: &Home, id: &MachineId) -> Result<()> {
    seal();
    let scope = scope::enter(home, id);
    // Nobody's terminal: what ends the command that started us does not end us.
    let _already_leader = rustix::process::setsid();
    let _unnamed = rustix::thread::set_name(c"stead-keeper");
    let mut report = Reporter(Some(std::io::stdout()));
    let files = Files::new(home, id);
    let lock_path = files.lock();
    let lock = File::create(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        bail!("another keeper looks after `{id}`");
    }
    match Keeper::start(home, id, files, scope) {
        Ok(mut keeper) => {
            if keeper.life.phase() != Phase::Booting {
                report.tell(&Report::Started)?;
            }
            let_go_of_program();
            keeper.serve(&mut report)?;
            keeper.part()
        }
        Err(failure) => report.tell(&Report::Failed { why: failure.text.clone(), code: failure.code }),
    }
}

/// Sees to it that a container cannot write to our program by `/proc/<pid>/exe` (CVE-2019-5736). Only root of the
/// computer could, whose program is root's; a kernel before 5.12 cannot prevent it.
fn seal() {
    if rustix::process::geteuid().is_root()
        && let Err(error) = stead_container::seal()
    {
        tracing::warn!("our program is not sealed: {error:#}");
    }
}

/// Tells whoever started us how it went, once; then nobody waits for our output any more.
struct Reporter(Option<std::io::Stdout>);

impl Reporter {
    fn tell(&mut self, report: &Report) -> Result<()> {
        let Some(mut stdout) = self.0.take() else { return Ok(()) };
        let mut line = serde_json::to_vec(report).context("cannot write a report as JSON")?;
        line.push(b'\n');
        // Nobody may be left to hear it, which is no reason to end.
        let _unheard = stdout.write_all(&line).and_then(|()| stdout.flush());
        let null = File::options().write(true).open("/dev/null").context("cannot open /dev/null")?;
        rustix::stdio::dup2_stdout(&null).context("cannot close our standard output")
    }
}

/// What is waited for, in the order of the descriptors of one call of `poll`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Init,
    Output,
    Error,
    Input,
    Health,
    Agent,
    AgentWanted,
    Console,
    ConsoleWanted,
    Control,
    ControlWanted,
    Shares,
    Words,
    Client(usize),
}

fn frame_of(stream: Stream) -> Frame {
    match stream {
        Stream::Output => Frame::Output,
        Stream::Error => Frame::Error,
    }
}

struct Keeper {
    files: Files,
    listener: UnixListener,
    log: Log,
    life: Life,
    clients: Vec<Client>,
}

impl Keeper {
    fn start(home: &Home, id: &MachineId, files: Files, scope: Scope) -> Result<Self, Failure> {
        let mut keeper = Self::prepare(home, id, files)?;
        let begun = keeper.begin().map_err(|failure| scope.explain(failure, keeper.life.launch()));
        begun.inspect_err(|failure| keeper.fail(failure))?;
        Ok(keeper)
    }

    /// Starts the machine, if need be without overlayfs.
    fn begin(&mut self) -> Result<(), Failure> {
        let failure = match self.life.start() {
            Err(failure) if failure.code == CODE_OURS => failure,
            done => return done,
        };
        if !self.life.copy_image(&self.files)? {
            return Err(failure);
        }
        self.life.clean()?;
        self.life.start()
    }

    /// Everything but the machine itself.
    fn prepare(home: &Home, id: &MachineId, files: Files) -> Result<Self> {
        let begun = Instant::now();
        let mut client = anchor::Client::connect(&home.run)?.context("the engine is gone")?;
        let assignment = Assignment::load(&files)?;
        let namespace = network::namespace(&mut client, id, &assignment.launch.network, &files)?;
        if !rustix::process::geteuid().is_root() {
            anchor::join_users(client.process())?;
        }
        if let Some(plan) = &assignment.guest {
            let (home, id, files, plan) = (home.clone(), id.clone(), files.clone(), plan.clone());
            Boot { home, id, files, plan, volumes: BTreeMap::new() }.prepare()?;
        }
        let log = Log::open(&files.log(), assignment.launch.log)?;
        remove_if_there(&files.socket())?;
        remove_if_there(&files.exit())?;
        let listener = stead_net::unix::listen(&files.socket())?;
        listener.set_nonblocking(true).context("cannot listen")?;
        ProcessId::own()?.store(&files.pid())?;
        let life = Life::new((home, id), &files, &assignment, (namespace, begun))?;
        Ok(Self { files, listener, log, life, clients: Vec::new() })
    }

    /// Writes down why the machine could not be started. The failure is what matters; what cannot be cleared away
    /// the next command finds.
    fn fail(&self, failure: &Failure) {
        let exit = serde_json::to_vec(&self.life.failed_exit(failure)).unwrap_or_default();
        let results = [
            write_run_file(&self.files.exit(), &exit),
            self.life.clean(),
            remove_if_there(&self.files.socket()),
            remove_if_there(&self.files.pid()),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!("{error:#}");
        }
    }

    /// Goes on until the machine has ended for good.
    fn serve(&mut self, report: &mut Reporter) -> Result<()> {
        while !self.life.is_over() {
            let was_testing = self.life.is_testing();
            for source in self.wait()? {
                self.attend(source)?;
            }
            self.life.look_at_the_clock();
            if self.life.guest_mut().is_some_and(|guest| guest.has_news()) {
                self.hear_agent();
            }
            self.tell_first_start(report)?;
            self.hear_control();
            self.answer_waiting();
            let was_asked = !self.clients.is_empty();
            self.forget_clients();
            let is_asked_no_more = was_asked && self.clients.is_empty();
            if is_asked_no_more || (was_testing && !self.life.is_testing()) {
                let_go_of_program();
            }
        }
        self.tell_first_start(report)
    }

    /// Tells whoever started us how that went, when it is known.
    fn tell_first_start(&mut self, report: &mut Reporter) -> Result<()> {
        match self.life.take_first_start() {
            None => Ok(()),
            Some(Ok(())) => report.tell(&Report::Started),
            Some(Err(failure)) => report.tell(&Report::Failed { why: failure.text, code: failure.code }),
        }
    }

    /// Forgets those that are done; the programs of those that went are hung up on. What those who watch have read
    /// makes room for more.
    fn forget_clients(&mut self) {
        let now = Instant::now();
        self.clients.iter_mut().for_each(|client| client.let_go_if_stuck(now));
        let is_held = self.is_held();
        let is_let_go =
            |client: &Client| client.is_done() && matches!(client.role, Role::Holding { lets_go: true, .. });
        for _ in self.clients.iter().filter(|client| is_let_go(client)) {
            if let Err(error) = self.life.let_go() {
                tracing::warn!("{error:#}");
            }
        }
        if let Some(guest) = self.life.guest_mut() {
            for client in self.clients.iter().filter(|client| client.is_done()) {
                if let Role::Exec(call) | Role::Looking(call) = client.role {
                    guest.cancel(call);
                }
            }
            let main = guest.main();
            let is_slow =
                |call| self.clients.iter().any(|client| client.role == Role::Exec(call) && client.is_slow());
            guest.acknowledge(|call| if Some(call) == main { is_held } else { is_slow(call) });
        }
        self.clients.retain(|client| !client.is_done());
    }

    /// Whether the machine's output has to wait for those who watch.
    fn is_held(&self) -> bool {
        self.clients.iter().any(|client| matches!(client.role, Role::Attached { .. }) && client.is_slow())
    }

    /// Waits until something is to be done, and says what.
    fn wait(&self) -> Result<Vec<Source>> {
        let is_read = !self.is_held();
        let life = &self.life;
        // The kernel of a microVM would stand still; what a whole computer says there is all that it says.
        let says_it_there = life.guest().is_some_and(Guest::is_computer);
        let all = [
            (Source::Listener, Some(self.listener.as_fd()), PollFlags::IN),
            (Source::Init, life.init(), PollFlags::IN),
            (Source::Output, life.output().filter(|_| is_read), PollFlags::IN),
            (Source::Error, life.error().filter(|_| is_read), PollFlags::IN),
            (Source::Input, life.input_wanted(), PollFlags::OUT),
            (Source::Health, life.health_process(), PollFlags::IN),
            (Source::Agent, life.agent(), PollFlags::IN),
            (Source::AgentWanted, life.agent_wanted(), PollFlags::OUT),
            (Source::Console, life.console().filter(|_| is_read || !says_it_there), PollFlags::IN),
            (Source::ConsoleWanted, life.console_wanted(), PollFlags::OUT),
            (Source::Control, life.control(), PollFlags::IN),
            (Source::ControlWanted, life.control_wanted(), PollFlags::OUT),
            (Source::Shares, life.shares(), PollFlags::IN),
        ];
        let all = all.into_iter().filter_map(|(source, fd, flags)| Some((source, fd?, flags)));
        let mut sources: Vec<(Source, BorrowedFd<'_>, PollFlags)> = all.collect();
        sources.extend(life.words().map(|pipe| (Source::Words, pipe, PollFlags::IN)));
        for (place, client) in self.clients.iter().enumerate() {
            let reads = client.may_send() && !client.has_typed_enough(&self.life);
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, client.has_backlog());
            sources.push((Source::Client(place), client.stream.as_fd(), flags));
        }
        let stuck_at = self.clients.iter().filter_map(Client::stuck_at);
        let next_look = self.life.next_look().into_iter().chain(stuck_at).min();
        let timeout = next_look.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(Timespec::try_from).transpose().context("a time limit is too long")?;
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).context("cannot wait"),
        }
        let happened = fds.iter().zip(&sources).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(happened.map(|(_, (source, ..))| *source).collect())
    }

    fn attend(&mut self, source: Source) -> Result<()> {
        match source {
            Source::Listener => self.accept(),
            Source::Init => {
                // What it wrote last comes before the news of its end.
                self.hear_agent();
                self.hear_control();
                self.hear_console();
                self.drain();
                self.life.reap()?;
                self.forget_calls();
            }
            Source::Output => {
                self.carry(Stream::Output);
            }
            Source::Error => {
                self.carry(Stream::Error);
            }
            Source::Input => self.life.write_input(),
            Source::Health => self.life.attend_health()?,
            Source::Agent => self.hear_agent(),
            Source::AgentWanted => self.life.guest_mut().into_iter().for_each(Guest::send),
            Source::Console => self.hear_console(),
            Source::ConsoleWanted => self.life.guest_mut().into_iter().for_each(|guest| guest.console.send()),
            // Heard before anything is answered, in any case.
            Source::Control => {}
            Source::ControlWanted => self.life.guest_mut().into_iter().for_each(|guest| guest.control.send()),
            Source::Shares => self.life.guest_mut().into_iter().for_each(Guest::shares_ended),
            Source::Words => self.life.guest_mut().into_iter().for_each(Guest::hear_words),
            Source::Client(place) => self.hear(place),
        }
        Ok(())
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        match Client::new(stream) {
            Ok(mut client) if self.clients.len() >= CLIENTS_MAX => {
                client.answer(&Answer::Failed("too many ask this keeper at the same time".to_owned()));
            }
            Ok(client) => self.clients.push(client),
            Err(error) => tracing::warn!("cannot take a request: {error:#}"),
        }
    }

    /// Carries what the machine wrote to the log and to those who watch: how much it was.
    fn carry(&mut self, stream: Stream) -> usize {
        let mut buffer = [0; READ_BYTES];
        let length = self.life.read(stream, &mut buffer);
        if let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) {
            self.pass_on(stream, bytes);
        }
        length
    }

    fn pass_on(&mut self, stream: Stream, bytes: &[u8]) {
        self.log.take(stream, bytes);
        let frame = frame_of(stream);
        for client in self.clients.iter_mut().filter(|client| matches!(client.role, Role::Attached { .. })) {
            client.frame(frame, bytes);
        }
    }

    /// Carries what a guest's kernel says to those who sit at its console.
    fn hear_console(&mut self) {
        let Some(guest) = self.life.guest_mut() else { return };
        let said = guest.console.read();
        // A whole computer has no other output.
        if guest.is_computer() && !said.is_empty() {
            self.pass_on(Stream::Output, &said);
        }
        for client in self.clients.iter_mut().filter(|client| client.role == Role::Console) {
            client.show_console(&said);
        }
    }

    /// Carries what comes from a guest.
    fn hear_agent(&mut self) {
        for event in self.life.hear_agent() {
            match event {
                Heard::Output(stream, bytes) => self.pass_on(stream, &bytes),
                Heard::ExecOutput(call, stream, bytes) => {
                    if let Some(client) = self.client_of(call) {
                        client.frame(frame_of(stream), &bytes);
                    }
                }
                Heard::ExecEnded(call, code, why) => {
                    let exit = Exit { code, why, ..self.life.exit() };
                    let text = serde_json::to_vec(&exit).unwrap_or_default();
                    if let Some(client) = self.client_of(call) {
                        client.frame(Frame::Exit, &text);
                        client.end();
                    }
                }
                Heard::Seen(call, told) => {
                    if let Some(client) = self.client_of(call) {
                        client.answer(&told.map_or_else(Answer::Failed, Answer::Seen));
                    }
                }
                Heard::Started | Heard::Failed(_) | Heard::Stage(_) | Heard::Met => {}
                Heard::Template(_) | Heard::Signalled => {}
            }
        }
    }

    /// Reads what is left in the machine's pipes: what it handed on to others may be written to without end.
    fn drain(&mut self) {
        for stream in [Stream::Output, Stream::Error] {
            let end = match stream {
                Stream::Output => self.life.output(),
                Stream::Error => self.life.error(),
            };
            let mut left = end.map_or(0, run::held);
            while left > 0 {
                match self.carry(stream) {
                    0 => break,
                    length => left = left.saturating_sub(length),
                }
            }
        }
        self.log.flush();
    }

    /// Writes down how it ended, tells those who wait, and goes.
    fn part(mut self) -> Result<()> {
        self.drain();
        let exit = self.life.exit();
        let text = serde_json::to_vec(&exit).context("cannot write how it ended as JSON")?;
        // Nobody waits for the disk: should the power go within seconds, the machine is one that was killed.
        // Be the disk full: those who wait are told all the same, and nothing is left that need not be.
        let results = [
            write_run_file(&self.files.exit(), &text),
            self.life.clean(),
            remove_if_there(&self.files.socket()),
            remove_if_there(&self.files.pid()),
        ];
        for client in &mut self.clients {
            match client.role {
                Role::Attached { .. } => {
                    client.frame(Frame::Exit, &text);
                    client.end();
                }
                Role::Awaiting(Condition::Completed) if exit.code == 0 => client.answer(&Answer::Done),
                Role::Awaiting(_) | Role::RestartWait => {
                    client.answer(&Answer::Failed(format!("it ended with exit code {}", exit.code)));
                }
                Role::StopWait => client.answer(&Answer::Done),
                Role::Ordered(_) | Role::Holding { .. } => {
                    client.answer(&Answer::Failed("it ended".to_owned()));
                }
                Role::Asking | Role::Console | Role::Exec(_) | Role::Looking(_) => client.end(),
            }
        }
        self.say_farewell();
        results.into_iter().collect()
    }

    /// Gives those who watch the time to read the last words.
    fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL_LIMIT;
        loop {
            self.clients.retain(|client| !client.is_done());
            let left = deadline.saturating_duration_since(Instant::now());
            if self.clients.is_empty() || left.is_zero() {
                return;
            }
            let mut fds: Vec<PollFd<'_>> =
                self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::OUT)).collect();
            let Ok(timeout) = Timespec::try_from(left) else { return };
            if poll(&mut fds, Some(&timeout)).is_err_and(|errno| errno != Errno::INTR) {
                return;
            }
            self.clients.iter_mut().for_each(Client::send);
        }
    }
}
