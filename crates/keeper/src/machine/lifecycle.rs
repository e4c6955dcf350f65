//! The machine's life: started, told to end, ended, started again. Nothing here waits: the keeper does, in one place.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rustix::io::Errno;

use rustix::process::{WaitId, WaitIdOptions, waitid};

use stead_container::{Failure, Place, WindowSize};
use stead_host::home::Home;
use stead_host::journal::{Action, Event, Journal};
use stead_host::log::Stream;
use stead_host::machine::{Assignment, Exit, Files, HealthState, Phase};
use stead_model::container::{Launch, Mode, Restart, Signal};
use stead_model::name::MachineId;
use stead_model::project::Condition;
use stead_net::process::ProcessId;

use super::boot::Boot;
use super::flat;
use super::guest::{Guest, Heard, Texts};
use super::health::Health;
use super::run::{Body, Run, set_size};

/// Before the first start anew; each further wait is twice as long.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// A machine that ran for so long has recovered: the next wait is the first one again.
const RECOVERED_AFTER: Duration = Duration::from_secs(10);

/// What is typed faster than the machine reads waits here.
const INPUT_MAX_BYTES: usize = 64 * 1024;

/// The machine, from its first start to its last end.
pub(super) struct Life {
    id: MachineId,
    journal: Journal,
    /// Since when it is held.
    paused: Option<Instant>,
    /// How well it was when that was written down last.
    told_health: Option<HealthState>,
    launch: Launch,
    place: Place,
    /// How its guest is started, if it has one.
    boot: Option<(Boot, Texts)>,
    /// How the first start went, once that is known and until it is told.
    first_start: Option<Result<(), Failure>>,
    /// Why the present start failed, if it did.
    boot_failure: Option<Failure>,
    run: Option<Run>,
    phase: Phase,
    restarts: u32,
    back_off: Duration,
    restart_at: Option<Instant>,
    /// Whether it is to be started again at once when it has ended.
    restarts_next: bool,
    asked_to_end: bool,
    is_over: bool,
    last: Option<Exit>,
    started_ms: u64,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Life {
    pub(super) fn new(
        (home, id): (&Home, &MachineId),
        files: &Files,
        assignment: &Assignment,
        netns: OwnedFd,
    ) -> Result<Self> {
        let place = Place {
            layers: if files.is_flat() { Vec::new() } else { assignment.layers.clone() },
            upper: files.writable(),
            work: files.work(),
            root: files.root(),
            volumes: assignment.volumes.clone(),
            own_volumes: files.own_volumes(),
            hosts: Some(assignment.hosts.clone()),
            resolv_conf: Some(assignment.resolv_conf.clone()),
            netns,
            cgroup: assignment.cgroup.clone(),
            state: files.present(),
            is_passing: false,
        };
        // What a keeper that was killed has left.
        stead_container::remove(&place.state)
            .with_context(|| format!("cannot clear away what is left of `{id}`"))?;
        let boot = assignment.guest.clone().map(|plan| {
            let texts =
                Texts { hosts: assignment.hosts.clone(), resolv_conf: assignment.resolv_conf.clone() };
            (Boot { home: home.clone(), id: id.clone(), files: files.clone(), plan }, texts)
        });
        Ok(Self {
            id: id.clone(),
            journal: Journal::new(home),
            paused: None,
            told_health: None,
            launch: assignment.launch.clone(),
            place,
            boot,
            first_start: None,
            boot_failure: None,
            run: None,
            phase: Phase::Running,
            restarts: 0,
            back_off: BACK_OFF_FIRST,
            restart_at: None,
            restarts_next: false,
            asked_to_end: false,
            is_over: false,
            last: None,
            started_ms: now_ms(),
        })
    }

    /// Starts the machine.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let run = match &self.boot {
            None => Run::new(&self.launch, &self.place)?,
            Some((boot, texts)) => {
                let guest = Guest::new(boot, &self.launch, texts, &self.place.netns)?;
                Run::in_guest(guest, &self.launch)
            }
        };
        self.started_ms = now_ms();
        self.phase = if self.boot.is_some() { Phase::Booting } else { Phase::Running };
        self.run = Some(run);
        self.told_health = None;
        self.note(Action::Start, |event| match self.restarts {
            0 => event,
            restarts => event.with("restarts", restarts),
        });
        Ok(())
    }

    /// Writes down what happens to it.
    fn note(&self, action: Action, more: impl Fn(Event) -> Event) {
        self.journal.note(&more(Event::of_machine(&self.id, action)));
    }

    /// Writes down how well it is, if that has changed.
    fn note_health(&mut self) {
        let health = self.health();
        if health == self.told_health {
            return;
        }
        self.told_health = health;
        let word = match health {
            Some(HealthState::Healthy) => "healthy",
            Some(HealthState::Unhealthy) => "unhealthy",
            Some(HealthState::Starting) | None => return,
        };
        self.note(Action::Health, |event| event.with("health", word));
    }

    /// Copies the image's files, if they cannot be mounted: whether it did, and it is worth another try.
    pub(super) fn copy_image(&mut self, files: &Files) -> Result<bool> {
        if self.place.layers.is_empty() || !flat::copy(files, &self.place.layers)? {
            return Ok(false);
        }
        (self.place.layers, self.place.upper) = (Vec::new(), files.writable());
        Ok(true)
    }

    /// How the first start went, once, when that is known.
    pub(super) fn take_first_start(&mut self) -> Option<Result<(), Failure>> {
        self.first_start.take()
    }

    fn guest(&self) -> Option<&Guest> {
        match &self.run.as_ref()?.body {
            Body::Guest(guest) => Some(guest),
            Body::Container(_) => None,
        }
    }

    pub(super) fn guest_mut(&mut self) -> Option<&mut Guest> {
        match &mut self.run.as_mut()?.body {
            Body::Guest(guest) => Some(guest),
            Body::Container(_) => None,
        }
    }

    pub(super) fn agent(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.stream()
    }

    pub(super) fn agent_wanted(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.stream_wanted()
    }

    pub(super) fn console(&self) -> Option<BorrowedFd<'_>> {
        self.guest()?.console()
    }

    /// What the guest's agent says: what is the machine's own is heeded here, the rest is for those who watch.
    pub(super) fn hear_agent(&mut self) -> Vec<Heard> {
        let events = self.guest_mut().map(Guest::hear).unwrap_or_default();
        for event in &events {
            match event {
                Heard::Started => {
                    self.started_ms = now_ms();
                    if self.phase == Phase::Booting {
                        self.phase = Phase::Running;
                    }
                    if self.restarts == 0 {
                        self.first_start = Some(Ok(()));
                    }
                    if let Some(run) = &mut self.run {
                        run.started = Instant::now();
                        run.health = self.launch.health.clone().map(|check| Health::new(check, run.started));
                    }
                }
                Heard::Failed(failure) => self.boot_failure = Some(failure.clone()),
                Heard::ExecOutput(call, _, bytes) => {
                    if let Some(health) = self.run.as_mut().and_then(|run| run.health.as_mut()) {
                        health.hear(*call, bytes);
                    }
                }
                Heard::ExecEnded(call, code, why) => {
                    if let Some(health) = self.run.as_mut().and_then(|run| run.health.as_mut()) {
                        health.ended(*call, *code, why.as_deref());
                    }
                }
                Heard::Output(..) => {}
            }
        }
        events
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    pub(super) fn started_ms(&self) -> u64 {
        self.started_ms
    }

    pub(super) fn runs_since(&self) -> Option<Instant> {
        self.run.as_ref().map(|run| run.started)
    }

    pub(super) fn init_process(&self) -> Option<ProcessId> {
        self.run.as_ref().and_then(|run| run.process)
    }

    pub(super) fn health(&self) -> Option<HealthState> {
        self.launch.health.as_ref()?;
        let known = self.run.as_ref().and_then(|run| run.health.as_ref());
        Some(known.map_or(HealthState::Starting, Health::state))
    }

    pub(super) fn init(&self) -> Option<BorrowedFd<'_>> {
        self.run.as_ref().map(|run| run.body.pidfd())
    }

    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.run.as_ref()?.output.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn error(&self) -> Option<BorrowedFd<'_>> {
        self.run.as_ref()?.error.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn health_process(&self) -> Option<BorrowedFd<'_>> {
        self.run.as_ref()?.health.as_ref()?.process()
    }

    /// The machine's standard input, if something is to be written there.
    pub(super) fn input_wanted(&self) -> Option<BorrowedFd<'_>> {
        let run = self.run.as_ref().filter(|run| !run.typed.is_empty())?;
        run.input.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn has_input_backlog(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.typed.len() > INPUT_MAX_BYTES)
            || self.guest().is_some_and(Guest::has_input_backlog)
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.launch.tty
    }

    /// Reads what the machine wrote; 0 if nothing is there now, or ever again.
    pub(super) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> usize {
        let Some(run) = &mut self.run else { return 0 };
        let from = match stream {
            Stream::Output => &mut run.output,
            Stream::Error => &mut run.error,
        };
        let Some(file) = from else { return 0 };
        loop {
            match file.read(buffer) {
                Ok(length) => {
                    if length == 0 {
                        *from = None;
                    }
                    return length;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return 0,
                // A terminal whose last user has gone says EIO.
                Err(_) => {
                    *from = None;
                    return 0;
                }
            }
        }
    }

    pub(super) fn take_input(&mut self, bytes: &[u8]) {
        if let Some(guest) = self.guest_mut() {
            let main = guest.main();
            return guest.input(main, bytes);
        }
        if let Some(run) = self.run.as_mut().filter(|run| run.input.is_some() && !run.input_ends) {
            run.typed.extend(bytes);
        }
        self.write_input();
    }

    pub(super) fn end_input(&mut self) {
        let tty = self.launch.tty;
        if let Some(guest) = self.guest_mut() {
            let main = guest.main();
            if tty {
                guest.input(main, &[4]);
            }
            return guest.end_input(main);
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
    pub(super) fn write_input(&mut self) {
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
    pub(super) fn resize(&mut self, bytes: &[u8]) {
        let [r1, r2, c1, c2] = *bytes else { return };
        if let Some(guest) = self.guest_mut() {
            return guest.resize(guest.main(), bytes);
        }
        let size = WindowSize { rows: u16::from_be_bytes([r1, r2]), columns: u16::from_be_bytes([c1, c2]) };
        let terminal = self.run.as_ref().filter(|_| self.launch.tty).and_then(|run| run.output.as_ref());
        if let Some(terminal) = terminal
            && let Err(errno) = set_size(terminal, size)
        {
            tracing::debug!("cannot resize the terminal: {errno}");
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        let run = self.run.as_mut().context("it waits to be started again")?;
        run.body.signal(signal)?;
        self.note(Action::Kill, |event| event.with("signal", signal));
        Ok(())
    }

    pub(super) fn pause(&mut self) -> Result<()> {
        anyhow::ensure!(self.phase == Phase::Running, "it does not run");
        anyhow::ensure!(self.boot.is_none(), "a microVM cannot be held yet");
        stead_container::pause(&self.place.state)?;
        self.phase = Phase::Paused;
        self.paused = Some(Instant::now());
        self.note(Action::Pause, |event| event);
        Ok(())
    }

    pub(super) fn unpause(&mut self) -> Result<()> {
        anyhow::ensure!(self.phase == Phase::Paused, "it is not paused");
        stead_container::unpause(&self.place.state)?;
        self.phase = Phase::Running;
        let health = self.run.as_mut().and_then(|run| run.health.as_mut());
        if let (Some(since), Some(health)) = (self.paused.take(), health) {
            health.put_off(since.elapsed());
        }
        self.note(Action::Unpause, |event| event);
        Ok(())
    }

    /// Ends the machine for good.
    pub(super) fn stop(&mut self, grace_ms: Option<u64>) {
        self.restarts_next = false;
        self.end(grace_ms);
    }

    /// Ends the machine, and starts it anew.
    pub(super) fn restart(&mut self, grace_ms: Option<u64>) {
        self.restarts_next = true;
        self.end(grace_ms);
    }

    fn end(&mut self, grace_ms: Option<u64>) {
        if self.phase == Phase::Paused
            && let Err(error) = self.unpause()
        {
            tracing::warn!("cannot let it go on, so it will be killed: {error:#}");
        }
        self.asked_to_end = true;
        self.phase = Phase::Stopping;
        let grace = Duration::from_millis(grace_ms.unwrap_or(self.launch.stop_grace_ms));
        let Some(run) = &mut self.run else {
            // It waits to be started again: now, or never.
            self.restart_at = self.restarts_next.then(Instant::now);
            self.is_over = !self.restarts_next;
            return;
        };
        match &mut run.body {
            // Nothing of it runs yet that could be asked.
            Body::Guest(guest) if guest.is_booting() => guest.kill("it was told to end".to_owned()),
            body => {
                if let Err(error) = body.signal(self.launch.stop_signal) {
                    tracing::warn!("cannot ask it to end: {error:#}");
                }
            }
        }
        let kill_at = Instant::now() + grace;
        run.kill_at = Some(run.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    /// When something is due without anything happening.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let run = self.run.as_ref();
        let health = run.and_then(|run| run.health.as_ref()).and_then(Health::next_look);
        let health = health.filter(|_| self.phase != Phase::Paused);
        let guest = self.guest().and_then(Guest::next_look);
        [self.restart_at, run.and_then(|run| run.kill_at), health, guest].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if let Some(run) = &mut self.run {
            if run.kill_at.is_some_and(|at| at <= now) {
                run.kill_at = None;
                // All others in there go with the first one.
                if let Err(error) = run.body.signal(Signal::KILL) {
                    tracing::error!("cannot kill it: {error:#}");
                }
                if let Body::Guest(guest) = &mut run.body {
                    guest.is_killed(now);
                }
            }
            if let Body::Guest(guest) = &mut run.body {
                guest.look(now);
            }
            // A test of one that is held would be held as well, and we with it until it has begun.
            if let Some(health) = &mut run.health
                && self.phase != Phase::Paused
            {
                health.look(now, &mut run.body, &self.launch, &self.place.state);
            }
        }
        self.note_health();
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.begin_again();
        }
    }

    fn begin_again(&mut self) {
        self.asked_to_end = false;
        self.restarts_next = false;
        self.restarts = self.restarts.saturating_add(1);
        if let Err(failure) = self.start() {
            self.last = Some(self.exit_of(failure.code, false, Some(failure.text)));
            self.decide();
        }
    }

    /// The machine's first process has ended.
    pub(super) fn reap(&mut self) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let recovered = run.started.elapsed() >= RECOVERED_AFTER && self.phase != Phase::Booting;
        let (code, out_of_memory, why) = match self.guest().is_some() {
            true => self.reap_guest(),
            false => match self.reap_container()? {
                Some((code, out_of_memory)) => (code, out_of_memory, None),
                None => return Ok(()),
            },
        };
        self.last = Some(self.exit_of(code, out_of_memory, why));
        if out_of_memory {
            self.note(Action::Oom, |event| event);
        }
        self.note(Action::Die, |event| event.with("exit_code", code));
        self.run = None;
        if recovered {
            self.back_off = BACK_OFF_FIRST;
        }
        // All that it left goes with it; what does not is tried again before the next start, which fails without that.
        if let Err(error) = self.clean() {
            tracing::error!("{error:#}");
        }
        if matches!(self.first_start, Some(Err(_))) {
            // What never ran is not started again: whoever started it is told why.
            self.is_over = true;
        } else {
            self.decide();
        }
        Ok(())
    }

    /// The VMM has ended, and says how that is to be seen.
    fn reap_guest(&mut self) -> (u8, bool, Option<String>) {
        let Some(Run { body: Body::Guest(guest), .. }) = self.run.take() else { return (255, false, None) };
        let ended = guest.ended();
        match (self.boot_failure.take(), ended) {
            (Some(failure), _) => {
                let (code, why) = (failure.code, failure.text.clone());
                self.first_start = Some(Err(failure)).filter(|_| self.restarts == 0);
                (code, false, Some(why))
            }
            (None, Ok(exited)) => (exited.code, exited.out_of_memory, None),
            (None, Err(failure)) => {
                let (code, why) = (failure.code, failure.text.clone());
                if self.phase == Phase::Booting && self.restarts == 0 {
                    self.first_start = Some(Err(Failure { code: 125, text: failure.text }));
                }
                // One that was told to end and did not was killed.
                (if self.asked_to_end { 137 } else { code }, false, Some(why))
            }
        }
    }

    /// How the container's first process has ended, if it has.
    fn reap_container(&mut self) -> Result<Option<(u8, bool)>> {
        let Some(Run { body: Body::Container(container), .. }) = &self.run else { return Ok(None) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(container.pidfd.as_fd()), options) {
            Ok(Some(status)) => status,
            Ok(None) | Err(Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno).context("cannot look after the machine's first process"),
        };
        let end = End::new(self.launch.mode, status.exit_status(), status.terminating_signal());
        self.restarts_next |= end.reboots && !self.asked_to_end;
        let usage = stead_container::usage(&self.place.state, container.pid);
        let out_of_memory = usage.is_ok_and(|usage| usage.oom_kills.is_some_and(|kills| kills > 0));
        Ok(Some((end.code, out_of_memory)))
    }

    fn exit_of(&self, code: u8, out_of_memory: bool, why: Option<String>) -> Exit {
        let (started_ms, asked) = (self.started_ms, self.asked_to_end);
        Exit { code, at_ms: now_ms(), started_ms, asked, out_of_memory, why }
    }

    /// Whether it is started again after it ended, and when.
    fn decide(&mut self) {
        if self.restarts_next {
            self.restart_at = Some(Instant::now());
            return;
        }
        let failed = self.last.as_ref().is_some_and(|exit| exit.code != 0);
        if self.asked_to_end || !is_restarted(self.launch.restart, failed, self.restarts) {
            self.is_over = true;
            return;
        }
        self.phase = Phase::Restarting;
        self.restart_at = Some(Instant::now() + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
    }

    pub(super) fn reap_health(&mut self) -> Result<()> {
        match self.run.as_mut().and_then(|run| run.health.as_mut()) {
            Some(health) => health.reap(),
            None => Ok(()),
        }
    }

    /// Whether it is so far; or why it never will be.
    pub(super) fn has_reached(&self, condition: Condition) -> Option<Result<(), String>> {
        match (condition, self.health()) {
            (Condition::Started, _) | (Condition::Healthy, Some(HealthState::Healthy)) => Some(Ok(())),
            (Condition::Healthy, None) => {
                Some(Err("nobody looks whether it is well: it has no health check".into()))
            }
            (Condition::Healthy, Some(HealthState::Unhealthy)) => {
                let words = self.run.as_ref().and_then(|run| run.health.as_ref()).map(Health::last_words);
                Some(Err(format!("it is not well: {}", words.unwrap_or_default())))
            }
            (Condition::Healthy, Some(HealthState::Starting)) | (Condition::Completed, _) => None,
        }
    }

    /// How it ended.
    pub(super) fn exit(&self) -> Exit {
        self.last.clone().unwrap_or_else(|| self.exit_of(255, false, Some("it never ran".to_owned())))
    }

    /// How it failed to start at all.
    pub(super) fn failed_exit(&self, failure: &Failure) -> Exit {
        self.exit_of(failure.code, false, Some(failure.text.clone()))
    }

    /// Takes away what its last run left.
    pub(super) fn clean(&self) -> Result<()> {
        stead_container::remove(&self.place.state).context("cannot clear away what is left of the machine")
    }
}

/// How a machine's first process ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// As shells say it: its own, or 128 and the signal that ended it.
    code: u8,
    /// Whether it is to come up again, as it says itself.
    reboots: bool,
}

impl End {
    /// A system that switches itself off is ended by the kernel with SIGINT, one that reboots with SIGHUP (reboot(2)).
    /// Nothing else ends the first process of a container by either.
    fn new(mode: Mode, code: Option<i32>, signal: Option<i32>) -> Self {
        const INT: i32 = rustix::process::Signal::INT.as_raw();
        const HUP: i32 = rustix::process::Signal::HUP.as_raw();
        match (mode, code, signal) {
            (Mode::System, None, Some(INT)) => Self { code: 0, reboots: false },
            (Mode::System, None, Some(HUP)) => Self { code: 0, reboots: true },
            (_, code, signal) => {
                let code = code.or(signal.map(|signal| signal.saturating_add(128)));
                Self { code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255), reboots: false }
            }
        }
    }
}

/// Whether a machine that ended is started again.
fn is_restarted(policy: Restart, failed: bool, restarts: u32) -> bool {
    match policy {
        Restart::No => false,
        Restart::OnFailure(None) => failed,
        Restart::OnFailure(Some(times)) => failed && restarts < times,
        Restart::Always | Restart::UnlessStopped => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_goes_off_by_itself_has_ended_well() {
        let end = |mode, code, signal| {
            let End { code, reboots } = End::new(mode, code, signal);
            (code, reboots)
        };
        assert_eq!(end(Mode::System, None, Some(2)), (0, false));
        assert_eq!(end(Mode::System, None, Some(1)), (0, true));
        assert_eq!(end(Mode::System, None, Some(9)), (137, false));
        assert_eq!(end(Mode::Application, None, Some(1)), (129, false));
        assert_eq!(end(Mode::Application, Some(7), None), (7, false));
    }

    #[test]
    fn the_policy_decides_who_is_started_again() {
        use Restart::{Always, No, OnFailure, UnlessStopped};
        for (policy, failed, restarts, expected) in [
            (No, true, 0, false),
            (OnFailure(None), false, 0, false),
            (OnFailure(None), true, 1000, true),
            (OnFailure(Some(2)), true, 1, true),
            (OnFailure(Some(2)), true, 2, false),
            (Always, false, 1000, true),
            (UnlessStopped, true, 0, true),
        ] {
            assert_eq!(is_restarted(policy, failed, restarts), expected, "{policy} {failed} {restarts}");
        }
    }
}
