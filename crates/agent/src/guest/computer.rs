//! A whole computer that others have booted, and in which we are a service: programs are run in it as it is, and it is
//! ended as its own system ends.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use stead_agent::message::{Ending, Exec};
use stead_container::{Failure, HereRequest};
use stead_model::container::DEFAULT_PATH;

use crate::process::{Process, Wish};

/// Starts a program, as root if nothing else is said.
pub(crate) fn exec(exec: &Exec) -> Result<Process, Failure> {
    let mut env = if exec.login { Vec::new() } else { vec![format!("PATH={DEFAULT_PATH}")] };
    if exec.tty.is_some() {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &exec.env {
        let name = entry.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    Process::start(Wish::of(exec), |stdio| {
        let executed = stead_container::exec_here(&HereRequest {
            args: &exec.args,
            env: &env,
            cwd: exec.cwd.as_deref(),
            user: exec.user.as_deref().unwrap_or_default(),
            privileged: exec.privileged,
            login: exec.login,
            stdio,
        })?;
        Ok((executed.pid, executed.pidfd, executed.terminal))
    })
}

/// Has the system end, by whatever it has for that. It ends us, too.
pub(crate) fn end(how: Ending) -> Result<()> {
    let word = match how {
        Ending::PowerOff => "poweroff",
        Ending::Reboot => "reboot",
    };
    let systemd: &[&str] = &["systemctl", "--no-block", word];
    let mut tried = Vec::new();
    for words in [systemd, &[word]] {
        let [program, args @ ..] = words else { continue };
        let command = Command::new(program)
            .args(args)
            .env("PATH", DEFAULT_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match command.with_context(|| format!("cannot run `{program}`")) {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => tried.push(format!("`{program}` ended with {status}")),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    bail!("its system cannot be told to end: {}", tried.join("; "))
}
