//! `shell`: somebody logs in.

use std::io::IsTerminal;
use std::process::ExitCode;

use stead_model::name::MachineId;
use stead_model::observed::Observed;
use stead_model::provision::ScriptId;

use crate::args::{ExecArgs, Global, ShellArgs, Told};
use crate::failure::Failure;
use crate::session::look;

/// Runs a user's login shell in a machine, at a terminal if we have one.
pub(crate) fn shell(global: &Global, args: &ShellArgs) -> Result<ExitCode, Failure> {
    let whom = match &args.user {
        Some(user) => user.clone(),
        None => usual_user(global, &args.machine).map_err(Failure::before_program)?,
    };
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    super::exec::exec(global, &login(args, whom, tty))
}

fn usual_user(global: &Global, pattern: &str) -> Result<String, Failure> {
    let seen = look()?.observe()?;
    let id = super::machines::chosen_first(global, pattern, &seen)?;
    Ok(user_to_work_as(&id, &seen).unwrap_or("0").to_owned())
}

/// Who works in a machine, if its file said so once and they are there: whom people log in as unless they say otherwise.
pub(super) fn user_to_work_as<'s>(id: &MachineId, seen: &'s Observed) -> Option<&'s str> {
    seen.provisioned.get(id)?.iter().find_map(ScriptId::user)
}

fn login(args: &ShellArgs, user: String, tty: bool) -> ExecArgs {
    // What the shell has to know of the terminal, which is here.
    let env = if tty { vec!["TERM".to_owned(), "COLORTERM".to_owned()] } else { Vec::new() };
    ExecArgs {
        detach: false,
        interactive: true,
        tty,
        no_tty: !tty,
        env,
        env_file: Vec::new(),
        workdir: None,
        user: Some(user),
        privileged: false,
        login: true,
        told: Told::Each,
        machine: args.machine.clone(),
        // For an agent from before there were logins.
        command: vec!["/bin/sh".to_owned(), "-l".to_owned()],
    }
}
