//! `shell`: somebody logs in.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::args::{ExecArgs, Global, ShellArgs, Told};
use crate::failure::Failure;

/// Runs a user's login shell in a machine, at a terminal if we have one.
pub(crate) fn shell(global: &Global, args: &ShellArgs) -> Result<ExitCode, Failure> {
    super::exec::exec(global, &login(args, std::io::stdin().is_terminal() && std::io::stdout().is_terminal()))
}

fn login(args: &ShellArgs, tty: bool) -> ExecArgs {
    // What the shell has to know of the terminal, which is here.
    let env = if tty { vec!["TERM".to_owned(), "COLORTERM".to_owned()] } else { Vec::new() };
    ExecArgs {
        interactive: true,
        tty,
        env,
        workdir: None,
        user: Some(args.user.clone().unwrap_or_else(|| "0".to_owned())),
        privileged: false,
        login: true,
        told: Told::Each,
        machine: args.machine.clone(),
        // For an agent from before there were logins.
        command: vec!["/bin/sh".to_owned(), "-l".to_owned()],
    }
}
