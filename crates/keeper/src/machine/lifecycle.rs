//! The machine's life: started, told to end, ended, started again. Nothing here waits: the keeper does, in one place.

mod ending;
mod guest;
mod hold;
mod input;
mod named;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use stead_container::{Failure, Place};
use stead_host::home::Home;
use stead_host::journal::{Action, Event, Journal};
use stead_host::log::Stream;
use stead_host::machine::{Assignment, Exit, Files, HealthState, Phase, Stage, Tested};
use stead_model::container::{Launch, Signal};
use stead_model::name::MachineId;
use stead_model::project::Condition;
use stead_net::process::ProcessId;

use super::boot::Boot;
use super::guest::{Guest, Heard};
use super::health::Health;
use super::run::{Body, Run};
use super::set_up::Texts;
use super::stages::Stages;

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
    /// When its first run was begun, which is with its keeper.
    begun: Option<Instant>,
    /// Since when it is held.
    paused: Option<Instant>,
    /// How well it was when that was written down last.
    told_health: Option<HealthState>,
    launch: Launch,
    place: Place,
    /// The file that says what to run.
    assignment: PathBuf,
    /// How its guest is started, if it has one.
    boot: Option<(Boot, Texts)>,
    /// How the first start went, once that is known and until it is told.
    first_start: Option<Result<(), Failure>>,
    /// Whether a whole computer was switched on, which whoever started it was told.
    told_start: bool,
    /// Why the present start failed, if it did.
    boot_failure: Option<Failure>,
    run: Option<Run>,
    phase: Phase,
    restarts: u32,
    /// Those since it has recovered, which its policy counts.
    attempts: u32,
    back_off: Duration,
    restart_at: Option<Instant>,
    /// Whether it is to be started again at once when it has ended.
    restarts_next: bool,
    asked_to_end: bool,
    /// Whether that is only because the computer goes off.
    with_computer: bool,
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
        (netns, begun): (OwnedFd, Instant),
    ) -> Result<Self> {
        let own = files.own()?.written;
        let place = Place {
            layers: if own.is_flat() { Vec::new() } else { assignment.layers.clone() },
            upper: own.writable(),
            work: own.work(),
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
            let volumes = assignment.volumes.clone();
            (Boot { home: home.clone(), id: id.clone(), files: files.clone(), plan, volumes }, texts)
        });
        Ok(Self {
            id: id.clone(),
            journal: Journal::new(home),
            begun: Some(begun),
            paused: None,
            told_health: None,
            launch: assignment.launch.clone(),
            place,
            assignment: files.assignment(),
            boot,
            first_start: None,
            told_start: false,
            boot_failure: None,
            run: None,
            phase: Phase::Running,
            restarts: 0,
            attempts: 0,
            back_off: BACK_OFF_FIRST,
            restart_at: None,
            restarts_next: false,
            asked_to_end: false,
            with_computer: false,
            is_over: false,
            last: None,
            started_ms: now_ms(),
        })
    }

    /// Whom the machine asks for names may have changed while it ran, and its addresses: a network was taken off it.
    fn ask_anew(&mut self) {
        let text = std::fs::read(&self.assignment).ok();
        // Where it cannot be read it is as it was.
        if let Some(assignment) = text.and_then(|text| serde_json::from_slice::<Assignment>(&text).ok()) {
            self.place.hosts = Some(assignment.hosts);
            self.place.resolv_conf = Some(assignment.resolv_conf);
        }
    }

    /// Starts the machine.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let mut stages = Stages::new(self.begun.take().unwrap_or_else(Instant::now));
        let run = match &self.boot {
            None => Run::new(&self.launch, &self.place, stages)?,
            Some((boot, texts)) => {
                stages.reach("prepared");
                let guest = match boot.is_computer() {
                    true => Guest::new_computer(boot, &self.launch, &self.place.netns)?,
                    false => Guest::new(boot, &self.launch, texts, (&self.place.netns, None))?,
                };
                Run::in_guest(guest, &self.launch, stages)
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
            Some(HealthState::Healthy) => {
                self.run.iter_mut().for_each(|run| run.stages.reach_first("healthy"));
                "healthy"
            }
            Some(HealthState::Unhealthy) => "unhealthy",
            Some(HealthState::Starting) | None => return,
        };
        self.note(Action::Health, |event| event.with("health", word));
    }

    /// Copies the image's files, if they cannot be mounted: whether it did, and it is worth another try.
    pub(super) fn copy_image(&mut self, files: &Files) -> Result<bool> {
        let own = files.own()?.written;
        if self.place.layers.is_empty() || !super::flat::copy(&own, &self.place.layers)? {
            return Ok(false);
        }
        (self.place.layers, self.place.upper) = (Vec::new(), own.writable());
        Ok(true)
    }

    /// How the first start went, once, when that is known.
    pub(super) fn take_first_start(&mut self) -> Option<Result<(), Failure>> {
        self.first_start.take()
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
                    self.begin_tests();
                }
                Heard::Stage(stage) => {
                    self.run.iter_mut().for_each(|run| run.stages.hear(stage.clone()));
                }
                Heard::Met => {
                    if self.phase == Phase::Booting {
                        self.phase = Phase::Running;
                    }
                    self.begin_tests();
                }
                Heard::Template(to) => self.run.iter_mut().for_each(|run| run.stages.use_template(*to)),
                Heard::Signalled => {
                    let sent = self.run.as_mut().and_then(|run| run.sent.as_mut());
                    sent.into_iter().for_each(|(_, at)| *at = Instant::now());
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
                Heard::Output(..) | Heard::Seen(..) => {}
            }
        }
        events
    }

    /// It runs from now on, and is looked at how well it is.
    fn begin_tests(&mut self) {
        let Some(run) = &mut self.run else { return };
        run.started = Instant::now();
        run.health = self.launch.health.clone().map(|check| Health::new(check, run.started));
    }

    pub(super) fn launch(&self) -> &Launch {
        &self.launch
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

    /// How far its present run has got.
    pub(super) fn stages(&self) -> Vec<Stage> {
        self.run.as_ref().map(|run| run.stages.all()).unwrap_or_default()
    }

    pub(super) fn health(&self) -> Option<HealthState> {
        self.launch.health.as_ref()?;
        let known = self.run.as_ref().and_then(|run| run.health.as_ref());
        Some(known.map_or(HealthState::Starting, Health::state))
    }

    /// How its last health tests went.
    pub(super) fn tests(&self) -> Vec<Tested> {
        self.run.as_ref().and_then(|run| run.health.as_ref()).map(Health::tests).unwrap_or_default()
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

    /// Whether it is being seen how well it is.
    pub(super) fn is_testing(&self) -> bool {
        self.run.as_ref().and_then(|run| run.health.as_ref()).is_some_and(Health::is_testing)
    }

    /// When something is due without anything happening.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let run = self.run.as_ref();
        let health = run.and_then(|run| run.health.as_ref()).and_then(Health::next_look);
        let is_tested = self.phase != Phase::Paused && self.guest().is_none_or(Guest::is_ready);
        let health = health.filter(|_| is_tested);
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
        self.with_computer = false;
        self.restarts_next = false;
        self.restarts = self.restarts.saturating_add(1);
        self.ask_anew();
        self.attempts = self.attempts.saturating_add(1);
        if let Err(failure) = self.start() {
            self.last = Some(self.exit_of(failure.code, false, Some(failure.text)));
            self.decide();
        }
    }

    pub(super) fn attend_health(&mut self) -> Result<()> {
        match self.run.as_mut().and_then(|run| run.health.as_mut()) {
            Some(health) => health.attend(),
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
                let words = words.filter(|words| !words.is_empty());
                let words = words.unwrap_or_else(|| "its test fails, and says nothing".into());
                Some(Err(format!("it is not well: {words}")))
            }
            (Condition::Healthy, Some(HealthState::Starting)) | (Condition::Completed, _) => None,
        }
    }
}
