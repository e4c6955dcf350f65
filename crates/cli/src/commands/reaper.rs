//! What is to go goes: a process of its own removes a machine when it has ended, whatever became of the command that
//! made it.

use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context;

use stead_host::home::Home;
use stead_host::machine::Files;
use stead_model::name::MachineId;

use super::machines::remove_these;
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;

/// A machine that could not be removed, or that somebody has started again, is looked at after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A process that removes a machine when it has ended; at once if this command goes before it says that the machine
/// stands.
pub(crate) struct Reaper {
    process: Child,
    /// The machine.
    pub(crate) held: File,
    word: PipeWriter,
}

impl Reaper {
    /// Leaves such a process.
    pub(crate) fn new(home: &Home, id: &MachineId) -> anyhow::Result<Self> {
        let doing = "cannot start the process that is to remove it";
        let program = std::env::current_exe().context("cannot find this program")?;
        let held = Files::new(home, id).hold().context(doing)?;
        let (reader, word) = std::io::pipe().context(doing)?;
        let mut command = std::process::Command::new(program);
        let command = command.arg("__reap").arg(id.to_string()).current_dir("/");
        command.stdin(held.try_clone().context(doing)?).stdout(reader).stderr(Stdio::null());
        Ok(Self { process: command.spawn().context(doing)?, held, word })
    }

    /// The machine is as it was asked for: it goes when it ends, and no earlier.
    pub(crate) fn stands(&mut self) -> Result<(), Failure> {
        Ok(self.word.write_all(b".").context("the process that is to remove it has gone")?)
    }

    /// Ends it.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }
}

/// Removes a machine when it has ended: the one held as standard input, and no other that has its name by then. Whether
/// it stands is heard on what would be standard output.
pub(crate) fn reap(id: &MachineId, output: Output) -> Result<(), Failure> {
    // Nobody's terminal: what ends the command that started us does not end us.
    let _already_leader = rustix::process::setsid();
    let home = crate::session::home()?;
    let files = Files::new(&home, id);
    let held =
        File::from(std::io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?);
    let word =
        File::from(std::io::stdout().as_fd().try_clone_to_owned().context("there is no standard output")?);
    let stands = word.take(1).read_to_end(&mut Vec::new()).context("cannot hear whether it stands")? > 0;
    while files.are_of(&held) {
        if stands {
            // However it ended, it is over now; if it never ran, nothing is known of that.
            let _unknown = super::attach::outlast(&files);
        }
        let remove = || -> Result<(), Failure> {
            let mut session = Session::open()?;
            session.host.make_fleeting();
            let runs = session.observe()?.running.contains_key(id);
            if files.are_of(&held) && !(runs && stands) {
                remove_these(&mut session, std::slice::from_ref(id), output)?;
            }
            Ok(())
        };
        // Whatever hinders it (another command has the home for long, the disk is full), nobody else would do it.
        let _hindered = remove();
        if files.are_of(&held) {
            std::thread::sleep(AGAIN_AFTER);
        }
    }
    Ok(())
}
