//! Keepers that are killed: their machines are started again, where their policy says so. The watcher has a thread for
//! that, which waits for the ends of keepers and has a process of ours do the rest as any command does: alone in the home.
//!
//! ```text
//! a keeper comes up ──▶ watched ──▶ it ends ──in order──▶ forgotten
//!                                      │ killed
//!                                      └── pause (longer each time) ──▶ `__revive`
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;

use stead_host::home::Home;
use stead_host::machine::{Assignment, Files};
use stead_model::container::Restart;
use stead_model::name::MachineId;
use stead_net::process::{ProcessId, let_go_of_program};

/// What stead is called with to start machines again whose keepers were killed.
const WORD: &str = "__revive";

/// A keeper says who it is a moment after it was begun; that of a guest, or on a busy computer, later.
const LOOK_AFTER: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// The pause before a machine is started again. As the switchboard's.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// If it was not killed for so long, the pause is as at first.
const CALM_AFTER: Duration = Duration::from_secs(60);

/// What cannot be started in so many attempts, which take some minutes, is left to a person.
const ATTEMPTS_MAX: u32 = 10;

/// A keeper whose machine is to be started again.
struct Watched {
    process: ProcessId,
    /// Until its end is known.
    handle: Option<OwnedFd>,
}

/// Has machines started again for as long as this process lives.
pub(crate) fn watch(home: &Home) -> Result<()> {
    let directory = home.keepers();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot watch keepers")?;
    // Whoever starts a keeper touches it.
    add_watch(&events, &directory, WatchFlags::ATTRIB | WatchFlags::ONLYDIR)
        .context("cannot watch keepers")?;
    let mut watched = BTreeMap::new();
    let mut lives = Lives::default();
    let mut looks = LOOK_AFTER.iter();
    loop {
        let mut dead = look(home, &mut watched);
        let limit = looks.next().copied().into_iter().chain(lives.next_in(Instant::now())).min();
        let limit = if dead.is_empty() { limit } else { Some(Duration::ZERO) };
        dead.extend(wait(&events, &watched, limit)?);
        if drain(&events)? {
            looks = LOOK_AFTER.iter();
        }
        for id in dead {
            watched.entry(id.clone()).and_modify(|one| one.handle = None);
            if was_killed(&Files::new(home, &id)) {
                lives.killed(id, Instant::now());
            }
        }
        if lives.start_due(Instant::now(), run) {
            looks = LOOK_AFTER.iter();
        }
        // It may wait for days now.
        let_go_of_program();
    }
}

/// Watches keepers of machines that are to be started again, as far as they are up. Those that are dead by then.
fn look(home: &Home, watched: &mut BTreeMap<MachineId, Watched>) -> BTreeSet<MachineId> {
    let entries = fs::read_dir(home.keepers()).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<MachineId>().ok());
    let ids: BTreeSet<MachineId> = ids.collect();
    watched.retain(|id, _| ids.contains(id));
    let mut dead = BTreeSet::new();
    for id in ids {
        let Ok(Some(process)) = ProcessId::load(&Files::new(home, &id).pid()) else { continue };
        if watched.get(&id).is_some_and(|known| known.process == process) || !is_started_again(home, &id) {
            continue;
        }
        let handle = process.handle().unwrap_or_else(|error| {
            // It counts as dead, and as it lives nothing is done: its machine is as it would be without us.
            tracing::warn!("the keeper of `{id}` is not watched: {error:#}");
            None
        });
        if handle.is_none() {
            dead.insert(id.clone());
        }
        watched.insert(id, Watched { process, handle });
    }
    dead
}

/// Whether a machine whose keeper was killed is to be started again: that is a failure, of whatever it is.
fn is_started_again(home: &Home, id: &MachineId) -> bool {
    let text = fs::read(Files::new(home, id).assignment()).unwrap_or_default();
    match serde_json::from_slice::<Assignment>(&text).map(|assignment| assignment.launch.restart) {
        Ok(Restart::Always | Restart::UnlessStopped | Restart::OnFailure(_)) => true,
        Ok(Restart::No) | Err(_) => false,
    }
}

/// Whether nobody told the machine to end, and its keeper has not lived to say how it did.
fn was_killed(files: &Files) -> bool {
    let exit = files.load_exit();
    exit.is_none_or(|exit| exit.lost && !exit.asked)
        && !files.stopping().exists()
        && files.assignment().exists()
}

/// Waits for ends of keepers, for keepers that come up, or for so long.
fn wait(
    events: &OwnedFd,
    watched: &BTreeMap<MachineId, Watched>,
    limit: Option<Duration>,
) -> Result<BTreeSet<MachineId>> {
    let limit = limit.map(Timespec::try_from).transpose().context("the limit is too long")?;
    let handles: Vec<(&MachineId, &OwnedFd)> =
        watched.iter().filter_map(|(id, one)| Some((id, one.handle.as_ref()?))).collect();
    let all = [events].into_iter().chain(handles.iter().map(|(_, handle)| *handle));
    let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).context("cannot wait for keepers"),
    }
    let ended = polled.iter().skip(1).map(|fd| !fd.revents().is_empty());
    Ok(handles.iter().zip(ended).filter(|(_, ended)| *ended).map(|((id, _), _)| (*id).clone()).collect())
}

/// Takes what there is of events; whether there was any.
fn drain(events: &OwnedFd) -> Result<bool> {
    let mut buffer = [0_u8; 4096];
    let mut any = false;
    loop {
        match rustix::io::read(events, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(any),
            Ok(_) => any = true,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot hear of keepers"),
        }
    }
}

/// How often machines were killed, and when they are started again.
#[derive(Default)]
struct Lives(BTreeMap<MachineId, Life>);

struct Life {
    /// How often in a row it was killed, or could not be started.
    times: u32,
    /// When the last time was.
    last: Instant,
    /// When it is to be started, if it is.
    due: Option<Instant>,
    /// How often that has failed since.
    failed: u32,
}

impl Lives {
    fn killed(&mut self, id: MachineId, now: Instant) {
        let times = self.0.get(&id).map_or(0, |life| {
            let is_calm = now.duration_since(life.last) > CALM_AFTER + pause(life.times);
            if is_calm { 0 } else { life.times }
        });
        tracing::warn!(
            "the keeper of `{id}` was killed: it is started again in {} ms",
            pause(times).as_millis()
        );
        let life =
            Life { times: times.saturating_add(1), last: now, due: Some(now + pause(times)), failed: 0 };
        self.0.insert(id, life);
    }

    /// In what time something is to be started.
    fn next_in(&self, now: Instant) -> Option<Duration> {
        self.0.values().filter_map(|life| life.due).min().map(|due| due.saturating_duration_since(now))
    }

    /// Starts those that are due, whether there were any. Those for which that fails are due again.
    fn start_due(&mut self, now: Instant, run: impl Fn(&[String]) -> Result<()>) -> bool {
        let is_due = |life: &Life| life.due.is_some_and(|due| due <= now);
        let names: Vec<String> =
            self.0.iter().filter(|(_, life)| is_due(life)).map(|(id, _)| id.to_string()).collect();
        if names.is_empty() {
            return false;
        }
        let failure = run(&names).err();
        for life in self.0.values_mut().filter(|life| is_due(life)) {
            life.due = None;
            life.failed += 1;
            if failure.is_some() && life.failed < ATTEMPTS_MAX {
                life.due = Some(now + pause(life.times));
                life.times = life.times.saturating_add(1);
            }
        }
        if let Some(error) = failure {
            tracing::warn!("{} cannot be started again just now: {error:#}", names.join(", "));
        }
        true
    }
}

fn pause(times: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST_PAUSE)
}

/// As the program that we are, also where another version is in its place by now.
fn run(names: &[String]) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stead").arg(WORD).args(names).stdin(Stdio::null());
    let status = command.status().context("cannot start ourselves")?;
    if status.success() { Ok(()) } else { bail!("`{WORD}` ended with {status}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_a_pause_of_its_own_that_grows_and_a_calm_one_the_first_again() {
        let (mut lives, begin) = (Lives::default(), Instant::now());
        let killed = |lives: &mut Lives, name: &str, after_s: u64| {
            let now = begin + Duration::from_secs(after_s);
            lives.killed(name.parse().unwrap(), now);
            let pause = lives.next_in(now).unwrap();
            assert!(!lives.start_due(now, |_| panic!("it is too early")));
            assert!(lives.start_due(now + pause, |_| Ok(())));
            assert_eq!(lives.next_in(now), None);
            pause
        };
        assert_eq!(killed(&mut lives, "a.shop", 0), FIRST_PAUSE);
        assert_eq!(killed(&mut lives, "a.shop", 1), FIRST_PAUSE * 2);
        assert_eq!(killed(&mut lives, "b.shop", 1), FIRST_PAUSE);
        assert_eq!(killed(&mut lives, "a.shop", 2), FIRST_PAUSE * 4);
        assert_eq!(killed(&mut lives, "a.shop", 200), FIRST_PAUSE);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn what_cannot_be_started_is_tried_again_and_in_the_end_left() {
        let (mut lives, mut now) = (Lives::default(), Instant::now());
        lives.killed("a.shop".parse().unwrap(), now);
        let mut attempts = 0;
        while let Some(pause) = lives.next_in(now) {
            now += pause;
            assert!(lives.start_due(now, |names| bail!("{names:?} cannot be started")));
            attempts += 1;
        }
        assert_eq!(attempts, ATTEMPTS_MAX);
    }

    #[test]
    fn who_ended_in_order_or_was_told_to_was_not_killed() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().join("state"), run: directory.path().join("run") };
        let files = Files::new(&home, &"web.shop".parse().unwrap());
        fs::create_dir_all(&files.state).unwrap();
        fs::create_dir_all(&files.run).unwrap();
        // It never ran.
        assert!(!was_killed(&files));
        fs::write(files.assignment(), "{}").unwrap();
        assert!(was_killed(&files));
        let exit = |lost: bool, asked: bool| {
            let text = format!(
                "{{\"code\":137,\"at_ms\":1,\"started_ms\":0,\"asked\":{asked},\"out_of_memory\":false,\"lost\":{lost},\"why\":null}}"
            );
            fs::write(files.exit(), text).unwrap();
        };
        for (lost, asked, killed) in [(true, false, true), (true, true, false), (false, false, false)] {
            exit(lost, asked);
            assert_eq!(was_killed(&files), killed, "{lost} {asked}");
        }
        exit(true, false);
        fs::write(files.stopping(), "").unwrap();
        assert!(!was_killed(&files));
    }
}
