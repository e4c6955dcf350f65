//! The commands, one room each.

mod doctor;
mod enter;
mod internal;
mod network;
mod ps;
mod purge;
mod up;
mod words;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

/// The project of networks and machines that were made by command and are in no file of the user's.
pub(crate) const LOOSE_PROJECT: &str = "default";

/// Carries out a command line.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    let output = Output::new(global.format);
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Plan(args) => up::plan(&global, &args, output).map(done),
        Command::Up(args) => up::up(&global, &args, output).map(done),
        Command::Down(args) => up::down(&global, &args, output).map(done),
        Command::Ps(args) => ps::ps(&global, &args, output).map(done),
        Command::Ls => ps::ls(output).map(done),
        Command::Network(command) => network::run(&global, command, output),
        Command::Doctor => doctor::run(output),
        Command::Purge(consent) => purge::run(consent, output).map(done),
        Command::Version => words::version(output).map(done),
        Command::Schema => words::schema().map(done),
        Command::Completion { shell } => words::completion(shell).map(done),
        Command::Man { dir } => words::manual(&dir).map(done),
        Command::Anchor { dir } => internal::anchor(&dir).map(done),
        Command::Switchboard { state, run } => internal::switchboard(state, run).map(done),
        Command::Enter(args) => internal::enter(args),
    }
}
