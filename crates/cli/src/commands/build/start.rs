//! How builders are started: in the build's own directory, and ended with who waits for them.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::args::InternalDetached;
use crate::failure::Failure;

/// What stead is called with to become a program that ends with whoever started it.
const WORD: &str = "__detached";

/// A builder, and how it is started.
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    pub(super) directory: &'a Path,
    pub(super) environment: Vec<(&'static str, &'a OsStr)>,
    /// Whose mounts it has.
    pub(super) mounts: Mounts,
}

/// Whose mounts a program has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Mounts {
    /// Those of who starts it.
    Shared,
    /// Its own, where it can.
    Own,
}

/// What starts a program that ends with us: a program and its first words. The program, `--` and its own words follow.
pub(in crate::commands) fn words_before(mounts: Mounts) -> Result<Vec<OsString>> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut words = vec![own.into_os_string(), WORD.into()];
    words.extend((mounts == Mounts::Own).then(|| "--own-mounts".into()));
    words.push(std::process::id().to_string().into());
    Ok(words)
}

impl Start<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self, arguments: Vec<OsString>, stdout: Stdio) -> Result<()> {
        let words = words_before(self.mounts)?;
        let (own, words) = words.split_first().context("nothing to start")?;
        let mut command = Command::new(own);
        command.args(words).arg(self.program).arg("--").args(arguments);
        // Ended in the midst of it, it leaves what it had there.
        command.current_dir(self.directory).env("TMPDIR", self.directory);
        command.envs(self.environment.iter().copied());
        let name = self.program.file_name().unwrap_or_default().display();
        let status = command.stdin(Stdio::null()).stdout(stdout).status();
        let status = status.with_context(|| format!("cannot start `{name}`"))?;
        if status.success() {
            Ok(())
        } else {
            Err(anyhow!("`{name}` ended with {status}; it says why above"))
        }
    }
}

/// Where a builder's words go to the person: standard output is for data.
pub(super) fn words() -> Result<Stdio> {
    let words = std::io::stderr().as_fd().try_clone_to_owned().context("cannot share standard error")?;
    Ok(words.into())
}

/// Becomes a program that ends with its parent.
pub(in crate::commands) fn detached(args: &InternalDetached) -> Result<Infallible, Failure> {
    let InternalDetached { own_mounts, parent, program, words } = args;
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot tie ourselves to our parent")?;
    // It may have gone before that, and then nobody would tell us.
    if getppid().is_none_or(|now| now.as_raw_nonzero().get() != *parent) {
        return Err(anyhow!("who wanted the build has gone").into());
    }
    if *own_mounts && rustix::process::geteuid().is_root() {
        stead_net::anchor::own_mounts()?;
    }
    let error = Command::new(program).args(words).exec();
    Err(anyhow!(error).context(format!("cannot start `{}`", program.display())).into())
}
