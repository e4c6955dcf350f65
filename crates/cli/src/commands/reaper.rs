//! What is to go goes: a process of its own removes a machine when it has ended, whatever became of the command that
//! made it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context;

use stead_host::home::Home;
use stead_host::journal::{Action, Event, Journal};
use stead_host::linux::LinuxHost;
use stead_host::machine::Files;
use stead_model::name::MachineId;
use stead_model::observed::Observed;

use super::machines::remove_one;
use super::network::is_written_down;
use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Session, look};

/// A machine that somebody has started again is looked at after this time; one that could not be removed after twice that,
/// and then each time after twice the last, as what hinders it may last,
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// but no less often than this: a person who has made room looks whether it is gone.
const AGAIN_AFTER_AT_MOST: Duration = Duration::from_secs(60);

/// How long the command waits for it before it does the work itself: longer than the work takes, shorter than people
/// wait without a word.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// What is said between the two: that the machine stands, and that it has gone;
const WELL: u8 = b'.';

/// that it could not be removed, or not yet.
const NOT_YET: u8 = b'!';

/// A process that removes a machine when it has ended; at once if this command goes before it says that the machine
/// stands.
pub(crate) struct Reaper {
    process: Child,
    /// The machine.
    pub(crate) held: File,
    word: UnixStream,
}

impl Reaper {
    /// Leaves such a process.
    pub(crate) fn new(home: &Home, id: &MachineId) -> anyhow::Result<Self> {
        let doing = "cannot start the process that is to remove it";
        let program = std::env::current_exe().context("cannot find this program")?;
        let held = Files::new(home, id).hold().context(doing)?;
        let (word, its) = UnixStream::pair().context(doing)?;
        let mut command = std::process::Command::new(program);
        let command = command.arg("__reap").arg(id.to_string()).current_dir("/");
        command.stdin(held.try_clone().context(doing)?).stdout(OwnedFd::from(its)).stderr(Stdio::null());
        Ok(Self { process: command.spawn().context(doing)?, held, word })
    }

    /// The machine is as it was asked for: it goes when it ends, and no earlier.
    pub(crate) fn stands(&mut self) -> Result<(), Failure> {
        Ok(self.word.write_all(&[WELL]).context("the process that is to remove it has gone")?)
    }

    /// Whether it has removed the machine, which has ended. It sees that end as soon as anybody, and two of us would
    /// look at the computer twice and wait for each other.
    pub(crate) fn has_removed(&mut self) -> bool {
        let mut word = [NOT_YET];
        let is_heard =
            self.word.set_read_timeout(Some(GONE_WITHIN)).is_ok() && self.word.read_exact(&mut word).is_ok();
        is_heard && word == [WELL]
    }

    /// Ends it.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }
}

/// Removes a machine when it has ended: the one held as standard input, and no other that has its name by then. Whether
/// it stands is heard on what would be standard output, and said there whether it is gone.
pub(crate) fn reap(id: &MachineId, output: Output) -> Result<(), Failure> {
    // Nobody's terminal: what ends the command that started us does not end us.
    let _already_leader = rustix::process::setsid();
    let home = crate::session::home()?;
    let files = Files::new(&home, id);
    let held =
        File::from(std::io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?);
    let mut word =
        File::from(std::io::stdout().as_fd().try_clone_to_owned().context("there is no standard output")?);
    let stands = Read::by_ref(&mut word)
        .take(1)
        .read_to_end(&mut Vec::new())
        .context("cannot hear whether it stands")?
        > 0;
    let mut going = Going { home, id: id.clone(), files, held, stands, output };
    let (mut pause, mut told) = (AGAIN_AFTER, None);
    loop {
        if going.stands && going.files.are_of(&going.held) {
            // However it ended, it is over now; if it never ran, nothing is known of that.
            let _unknown = super::attach::outlast(&going.files);
        }
        going.find();
        let gone = going.go();
        // The command may have gone long ago, and does not listen any more after the first word.
        let is_gone = matches!(gone, Ok((Gone::Wholly, _)));
        let _unheard = word.write_all(&[if is_gone { WELL } else { NOT_YET }]);
        match gone {
            Ok((Gone::Wholly, _)) => return Ok(()),
            Ok((Gone::RunsAgain, _)) => (pause, told) = (AGAIN_AFTER, None),
            // Whatever hinders it (another command has the home for long, the disk is full), nobody else would do it.
            Err(failure) => {
                going.tell(&failure, &mut told);
                pause = (pause * 2).min(AGAIN_AFTER_AT_MOST);
            }
        }
        std::thread::sleep(pause);
    }
}

/// Whether anything is left of the machine that is held, and no other has its name. Its directory goes first: what is on
/// record and in the file of its project may stay if the disk is full.
pub(crate) fn is_left(home: &Home, id: &MachineId, held: &File, seen: &Observed) -> Result<bool, Failure> {
    let files = Files::new(home, id);
    // One that somebody else runs has no directory, and took the name.
    let is_named = || match seen.machines.get(id) {
        Some(state) => Ok(state.is_ours()),
        None => is_written_down(home, id),
    };
    if files.are_of(held) {
        Ok(true)
    } else if files.state.exists() {
        Ok(false)
    } else {
        is_named()
    }
}

/// What became of a removal.
enum Gone {
    /// Nothing of the machine is left, or another one has its name.
    Wholly,
    /// Somebody has started it again: its next end is waited for.
    RunsAgain,
}

/// A machine that is to go.
struct Going {
    home: Home,
    id: MachineId,
    files: Files,
    held: File,
    stands: bool,
    output: Output,
}

impl Going {
    /// It may have got another name, and another machine the one that it had.
    fn find(&mut self) {
        if let Some(id) = Files::find(&self.home, &self.held) {
            (self.files, self.id) = (Files::new(&self.home, &id), id);
        }
    }

    /// What became of it, and what is to be closed when that has been said.
    fn go(&self) -> Result<(Gone, Option<LinuxHost>), Failure> {
        let is_left = |seen: &Observed| {
            Ok::<_, Failure>(
                Files::find(&self.home, &self.held).is_some()
                    || is_left(&self.home, &self.id, &self.held, seen)?,
            )
        };
        // A session would make a home that has been purged anew.
        if !self.files.are_of(&self.held) && !is_left(&look()?.observe()?)? {
            return Ok((Gone::Wholly, None));
        }
        let mut session = Session::open()?;
        session.host.make_fleeting();
        if Files::find(&self.home, &self.held).is_some_and(|id| id != self.id) {
            // It got another name just now.
            return Ok((Gone::RunsAgain, None));
        }
        let seen = session.observe()?;
        if !is_left(&seen)? {
            return Ok((Gone::Wholly, None));
        }
        if self.stands && self.files.are_of(&self.held) && seen.running.contains_key(&self.id) {
            return Ok((Gone::RunsAgain, None));
        }
        remove_one(&mut session, &self.id, &seen, self.output)?;
        Ok((Gone::Wholly, Some(session.part())))
    }

    /// Writes down why it is still there, once for each reason: nobody hears us, and nobody waits for us.
    fn tell(&self, failure: &Failure, told: &mut Option<String>) {
        let why = failure.text().trim_end().replace('\n', "; ");
        // It would be the last thing that is left of it.
        if told.as_ref() == Some(&why) || !self.home.state.exists() {
            return;
        }
        let event = Event::of_machine(&self.id, Action::RmFailed).with("why", &why);
        // The disk may be full, which may be why: it is told the next time, then.
        if Journal::new(&self.home).append(&event).is_ok() {
            *told = Some(why);
        }
    }
}
