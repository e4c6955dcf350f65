//! The watcher: starts the switchboard, and starts it again when it was killed, so that machines have their names,
//! addresses and ports again though nobody runs a command. It does nothing else, and so has nothing to be killed for.
//!
//! ```text
//! start ──▶ the switchboard runs ──told to end──▶ over
//!               ▲            │ killed, or it failed
//!               └── pause ◀──┘ (longer each time, unless it had run well) ── nothing is served any more ──▶ over
//! ```
//!
//! A command that takes the switchboard away, or starts one of its own, ends the watcher first. It takes no lock: that there
//! are never two switchboards is the switchboard's own. One whose watcher was killed goes on with another, who cannot be told
//! how it ended; but one that was told to end has taken its record away.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use stead_host::home::Home;
use stead_host::switchboard::{WORD, living, pid_path, watcher_path};
use stead_net::process::{ProcessId, let_go_of_program};

/// The pause before the first time that it is started again: soon, for whoever asks just now asks again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The pause grows to this. What kills it again and again is left to go on with other things meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One that has run for so long ran well.
const RAN_WELL_AFTER: Duration = Duration::from_secs(60);

/// How long the end of one is waited for that somebody else has started, before it is waited for again.
const FOREIGN_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The switchboard that is watched over.
enum Watched {
    Own(Child),
    /// That of a watcher that was killed.
    Foreign(ProcessId),
}

/// How it ended.
#[derive(Debug)]
enum Ended {
    /// As it was told to.
    Told,
    /// By itself.
    Failed(ExitStatus),
    /// Otherwise.
    Killed,
}

/// Watches over the switchboard of a home until that is told to end.
pub fn run(home: &Home) -> Result<()> {
    // Nobody's terminal: what ends the command that started us does not end us.
    let _already_leader = rustix::process::setsid();
    // A short name tells people what the process is; nothing depends on it.
    let _unnamed = rustix::thread::set_name(c"stead-watcher");
    let mut watched = match living(home)? {
        Some(process) => Watched::Foreign(process),
        None => Watched::Own(start(home)?),
    };
    ProcessId::own()?.store(&watcher_path(home))?;
    let mut pause = FIRST_PAUSE;
    let mut is_first = true;
    let_go_of_program();
    loop {
        let begun = Instant::now();
        let ended = watched.wait(home)?;
        let ran_well = begun.elapsed() > RAN_WELL_AFTER;
        if is_over(&ended, is_first && !ran_well) {
            return Ok(());
        }
        if ran_well {
            pause = FIRST_PAUSE;
        }
        watched = loop {
            tracing::warn!("the switchboard {ended} and is started again in {} ms", pause.as_millis());
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if !home.served().exists() {
                return Ok(());
            }
            match start(home) {
                Ok(child) => break Watched::Own(child),
                Err(error) => tracing::warn!("{error:#}"),
            }
        };
        is_first = false;
    }
}

impl Watched {
    fn wait(&mut self, home: &Home) -> Result<Ended> {
        match self {
            Self::Own(child) => {
                let status = child.wait().context("cannot wait for the switchboard")?;
                Ok(Ended::of(status))
            }
            Self::Foreign(process) => {
                while !process.wait_gone(FOREIGN_WAIT)? {}
                Ok(if pid_path(home).exists() { Ended::Killed } else { Ended::Told })
            }
        }
    }
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Told,
            Some(_) => Self::Failed(status),
            None => Self::Killed,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told => f.write_str("was told to end"),
            Self::Failed(status) => write!(f, "failed ({status})"),
            Self::Killed => f.write_str("was killed"),
        }
    }
}

/// Whether it is not to be started again: it was told to end, or it does not come up, which whoever had us start it waits
/// to hear.
fn is_over(ended: &Ended, is_first: bool) -> bool {
    match ended {
        Ended::Told => true,
        Ended::Failed(_) => is_first,
        Ended::Killed => false,
    }
}

/// As the program that we are, also where another version is in its place by now.
fn start(home: &Home) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stead").arg(WORD).arg(&home.state).arg(&home.run);
    command.spawn().context("cannot start the switchboard")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn who_was_told_to_end_or_never_came_up_is_not_started_again() {
        let (ended, failed, killed) = (0, 1 << 8, 9);
        for (status, is_first, over) in [
            (ended, true, true),
            (ended, false, true),
            (failed, true, true),
            (failed, false, false),
            (killed, true, false),
            (killed, false, false),
        ] {
            assert_eq!(
                is_over(&Ended::of(ExitStatus::from_raw(status)), is_first),
                over,
                "{status} {is_first}"
            );
        }
    }
}
