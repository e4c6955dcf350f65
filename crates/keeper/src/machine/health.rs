//! How well a machine is: a program that is run in it from time to time.
//!
//! ```text
//! waiting ──(interval)──▶ entering ──▶ testing ──ended──▶ waiting  a failure within the start period does not count
//!                            └──(timeout)──┴──▶ killed: a failure; the next test waits until it is dead
//! ```
//!
//! Nothing here waits: what is in a container can hold still whoever comes in.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};

use stead_agent::Call;
use stead_container::{ExecRequest, Executed, Executing, Progress, Started, Stdio, begin_exec};
use stead_host::machine::{Exec, HealthState, Tested};
use stead_model::container::{HealthCheck, Launch, Signal};

use super::run::{Body, held};

/// What a test wrote last, for people.
const WORDS_MAX_BYTES: usize = 4096;

/// As many as Docker keeps.
const TESTS_KEPT: usize = 5;

/// One that was killed is dead when the kernel gets round to it; until then it is killed once more from time to time.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How well a machine is.
#[derive(Debug)]
pub(super) struct Health {
    check: HealthCheck,
    started: Instant,
    next: Instant,
    failures: u32,
    state: HealthState,
    test: Option<Test>,
    words: String,
    /// When the last test was begun.
    begun: Instant,
    /// How the last ones went, the oldest first.
    tests: VecDeque<Tested>,
}

/// A test that runs.
#[derive(Debug)]
struct Test {
    process: Process,
    begun: Instant,
    deadline: Instant,
    /// Whether it took too long, and is being killed.
    is_late: bool,
}

/// Its process.
#[derive(Debug)]
enum Process {
    /// On its way into the container.
    Entering(Executing, File),
    /// On this computer.
    Here(Executed, File),
    /// In a guest, and what it wrote.
    There(Call, VecDeque<u8>),
}

/// Ends a test with all that it started, but for what left its group. It leads one, and is our child: until we bury it
/// nobody else has its number.
fn kill(process: &Executed) -> Result<()> {
    stead_container::kill(process.pidfd.as_fd(), Signal::KILL)?;
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| kill_process_group(pid, rustix::process::Signal::KILL)) {
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(errno)) => Err(errno).context("cannot end what it started"),
    }
}

impl Health {
    pub(super) fn new(check: HealthCheck, started: Instant) -> Self {
        let mut health = Self {
            check,
            started,
            next: started,
            failures: 0,
            state: HealthState::Starting,
            test: None,
            words: String::new(),
            begun: started,
            tests: VecDeque::new(),
        };
        health.next = started + health.interval(started);
        health
    }

    pub(super) fn state(&self) -> HealthState {
        self.state
    }

    /// What the last test wrote.
    pub(super) fn last_words(&self) -> String {
        self.words.trim().to_owned()
    }

    /// How the last tests went, the oldest first.
    pub(super) fn tests(&self) -> Vec<Tested> {
        self.tests.iter().cloned().collect()
    }

    fn keep(&mut self, now: Instant, code: Option<u8>) {
        let took = now.duration_since(self.begun);
        let at = SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH);
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if self.tests.len() == TESTS_KEPT {
            self.tests.pop_front();
        }
        let output = self.last_words();
        self.tests.push_back(Tested { at_ms: ms(at), took_ms: ms(took), code, output });
    }

    /// The test that runs, which is ready when it has ended.
    pub(super) fn process(&self) -> Option<BorrowedFd<'_>> {
        match &self.test.as_ref()?.process {
            Process::Entering(executing, _) => Some(executing.fd()),
            Process::Here(process, _) => Some(process.pidfd.as_fd()),
            Process::There(..) => None,
        }
    }

    pub(super) fn is_testing(&self) -> bool {
        self.test.is_some()
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        Some(self.test.as_ref().map_or(self.next, |test| test.deadline))
    }

    /// The machine was held for so long: all that is due is due later.
    pub(super) fn put_off(&mut self, by: Duration) {
        self.next += by;
        if let Some(test) = &mut self.test {
            test.deadline += by;
        }
    }

    fn is_starting_up(&self, now: Instant) -> bool {
        self.state == HealthState::Starting
            && now.duration_since(self.started) < Duration::from_millis(self.check.start_period_ms)
    }

    fn interval(&self, now: Instant) -> Duration {
        let ms = if self.is_starting_up(now) { self.check.start_interval_ms } else { self.check.interval_ms };
        Duration::from_millis(ms)
    }

    /// Does what is due: begins a test, or ends one that takes too long.
    pub(super) fn look(&mut self, now: Instant, body: &mut Body, launch: &Launch, state: &Path) {
        match (&self.test, body) {
            (Some(test), body) => {
                if test.deadline <= now {
                    self.end_late(now, body);
                }
            }
            (None, Body::Guest(guest)) if !guest.is_ready() => {}
            (None, body) if self.next <= now => {
                if let Err(error) = self.begin(now, body, launch, state) {
                    self.words = format!("{error:#}");
                    self.judge(now, None);
                }
            }
            (None, _) => {}
        }
    }

    /// Ends a test that takes too long: a failure, once. Its end is then seen as that of any other.
    fn end_late(&mut self, now: Instant, body: &mut Body) {
        let Some(test) = &mut self.test else { return };
        let was_late = std::mem::replace(&mut test.is_late, true);
        test.deadline = now + KILL_AGAIN;
        let is_over = match (&test.process, body) {
            (Process::Entering(executing, _), _) => {
                executing.kill();
                false
            }
            (Process::Here(process, _), _) => {
                if let Err(error) = kill(process) {
                    tracing::warn!("cannot end a health test: {error:#}");
                }
                false
            }
            (Process::There(call, _), Body::Guest(guest)) => {
                guest.cancel(*call);
                true
            }
            (Process::There(..), Body::Container(_)) => true,
        };
        if is_over {
            self.test = None;
        }
        if !was_late {
            self.words = format!("it took longer than {} ms", self.check.timeout_ms);
            self.judge(now, None);
        }
    }

    fn begin(&mut self, now: Instant, body: &mut Body, launch: &Launch, state: &Path) -> Result<()> {
        self.begun = now;
        let deadline = now + Duration::from_millis(self.check.timeout_ms);
        let process = match body {
            Body::Container(container) => self.begin_here(container, launch, state)?,
            Body::Guest(guest) => {
                let exec = Exec { args: self.check.args.clone(), ..Exec::default() };
                Process::There(guest.exec(&exec)?, VecDeque::new())
            }
        };
        self.words.clear();
        self.test = Some(Test { process, begun: now, deadline, is_late: false });
        Ok(())
    }

    fn begin_here(&self, container: &Started, launch: &Launch, state: &Path) -> Result<Process> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        rustix::io::ioctl_fionbio(&read, true).context("cannot make a pipe")?;
        let null = File::open("/dev/null").context("cannot open /dev/null")?;
        let request = ExecRequest {
            pid: container.pid,
            pidfd: container.pidfd.as_fd(),
            launch,
            state,
            args: &self.check.args,
            env: &[],
            cwd: None,
            user: None,
            privileged: false,
            login: false,
            stdio: Stdio::Streams { stdin: null.as_fd(), stdout: write.as_fd(), stderr: write.as_fd() },
        };
        Ok(Process::Entering(begin_exec(&request)?, File::from(read)))
    }

    /// A program in a guest wrote something; false if it was none of ours.
    pub(super) fn hear(&mut self, from: Call, bytes: &[u8]) -> bool {
        let Some(Test { process: Process::There(call, words), .. }) = &mut self.test else { return false };
        let is_ours = *call == from;
        if is_ours {
            keep_last(words, bytes);
        }
        is_ours
    }

    /// A program in a guest has ended; false if it was none of ours.
    pub(super) fn ended(&mut self, ended: Call, code: u8, why: Option<&str>) -> bool {
        let Some(Test { process: Process::There(call, words), .. }) = &mut self.test else { return false };
        if *call != ended {
            return false;
        }
        let words = Vec::from(std::mem::take(words));
        self.words = why.map_or_else(|| String::from_utf8_lossy(&words).into_owned(), str::to_owned);
        self.test = None;
        self.judge(Instant::now(), why.is_none().then_some(code));
        true
    }

    /// The test has come further, or has ended.
    pub(super) fn attend(&mut self) -> Result<()> {
        let Some(mut test) = self.test.take() else { return Ok(()) };
        match test.process {
            Process::Entering(executing, output) => match executing.go_on() {
                Ok(Progress::Going(executing)) => test.process = Process::Entering(executing, output),
                Ok(Progress::Done(executed)) => test.process = Process::Here(executed, output),
                Err(_) if test.is_late => return Ok(()),
                Err(failure) => {
                    self.words = failure.to_string();
                    self.judge(Instant::now(), None);
                    return Ok(());
                }
            },
            Process::Here(process, mut output) => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let status = waitid(WaitId::PidFd(process.pidfd.as_fd()), options);
                if let Some(status) = status.context("cannot look after a health test")? {
                    tracing::debug!("a health test took {:?}", test.begun.elapsed());
                    if !test.is_late {
                        self.words = last_words(&mut output);
                        self.judge(Instant::now(), Some(code_of(&status)));
                    }
                    return Ok(());
                }
                test.process = Process::Here(process, output);
            }
            there @ Process::There(..) => test.process = there,
        }
        self.test = Some(test);
        Ok(())
    }

    /// A test has ended, with an exit code if it had one.
    fn judge(&mut self, now: Instant, code: Option<u8>) {
        self.keep(now, code);
        if code == Some(0) {
            self.failures = 0;
            self.state = HealthState::Healthy;
        } else if !self.is_starting_up(now) {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.check.retries {
                self.state = HealthState::Unhealthy;
            }
        }
        self.next = now + self.interval(now);
    }
}

/// As shells say it: its own, or 128 and the signal that ended it.
fn code_of(status: &WaitIdStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

fn keep_last(words: &mut VecDeque<u8>, bytes: &[u8]) {
    words.extend(bytes);
    let more = words.len().saturating_sub(WORDS_MAX_BYTES);
    drop(words.drain(..more));
}

/// The end of what was written to a pipe, up to now: what the test left behind may write without end.
fn last_words(output: &mut File) -> String {
    let mut words = VecDeque::new();
    let mut buffer = [0; 4096];
    let mut left = held(output.as_fd());
    while left > 0 {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                left = left.saturating_sub(length);
                keep_last(&mut words, buffer.get(..length).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&Vec::from(words)).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            args: vec!["true".to_owned()],
            interval_ms: 1000,
            timeout_ms: 500,
            start_period_ms: 10_000,
            start_interval_ms: 100,
            retries: 2,
        }
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn failures_count_after_the_start_period_only() {
        let start = Instant::now();
        let mut health = Health::new(check(), start);
        assert_eq!(health.next_look(), Some(at(start, 100)));
        health.judge(at(start, 100), Some(1));
        health.judge(at(start, 200), Some(1));
        assert_eq!((health.state(), health.next_look()), (HealthState::Starting, Some(at(start, 300))));
        health.judge(at(start, 10_000), Some(1));
        assert_eq!((health.state(), health.next_look()), (HealthState::Starting, Some(at(start, 11_000))));
        health.judge(at(start, 11_000), Some(1));
        assert_eq!(health.state(), HealthState::Unhealthy);
        health.judge(at(start, 12_000), Some(0));
        assert_eq!(health.state(), HealthState::Healthy);
    }

    #[test]
    fn the_last_tests_are_kept() {
        let start = Instant::now();
        let mut health = Health::new(check(), start);
        for code in 0..7 {
            health.begun = start;
            health.words = format!(" said {code}\n");
            health.judge(at(start, 250), Some(code).filter(|code| *code < 6));
        }
        let kept: Vec<_> =
            health.tests().into_iter().map(|test| (test.code, test.took_ms, test.output)).collect();
        let expected = [Some(2), Some(3), Some(4), Some(5), None];
        let expected: Vec<_> =
            expected.iter().zip(2..).map(|(code, number)| (*code, 250, format!("said {number}"))).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_due_while_it_is_held_is_due_later() {
        let start = Instant::now();
        let mut health = Health::new(check(), start);
        health.put_off(Duration::from_secs(3));
        assert_eq!(health.next_look(), Some(at(start, 3100)));
    }

    #[test]
    fn one_who_was_well_has_started() {
        let start = Instant::now();
        let mut health = Health::new(check(), start);
        health.judge(at(start, 100), Some(0));
        assert_eq!(health.next_look(), Some(at(start, 1100)));
        health.judge(at(start, 1100), Some(1));
        assert_eq!(health.state(), HealthState::Healthy);
        health.judge(at(start, 2100), Some(1));
        assert_eq!(health.state(), HealthState::Unhealthy);
    }

    #[test]
    fn one_who_never_stops_talking_is_heard_up_to_now() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let more = std::thread::spawn(move || {
            loop {
                match rustix::io::write(&write, &[b'x'; 4096]) {
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(_) => return,
                }
            }
        });
        let mut output = File::from(read);
        assert!(last_words(&mut output).len() <= WORDS_MAX_BYTES);
        drop(output);
        more.join().unwrap();
    }

    #[test]
    fn the_last_words_are_short() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[b'x'; 10_000]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(last_words(&mut file).len(), WORDS_MAX_BYTES);
    }
}
