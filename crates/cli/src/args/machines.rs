//! The arguments of commands about machines that exist.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use stead_model::container::Signal;
use stead_model::image::Reference;
use stead_model::name::Name;

use super::values::{Tail, named};
use crate::complete;

#[derive(Debug, Args)]
pub(crate) struct MachinesArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*` [default: all of the project here]
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*` [default: all of the project here]
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Watch the machine, of which there may be one, until it ends, and end with its exit code
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// The same, and let it read what is typed here
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Boot microVMs, though they could go on from where another one was saved when it had booted
    #[arg(long)]
    pub(crate) cold: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*` [default: all of the project here]
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// How many seconds they may take to end by themselves [default: as they were made, or 10]
    #[arg(short, long, alias = "timeout", value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) how: StopArgs,
    /// Boot microVMs, though they could go on from where another one was saved when it had booted
    #[arg(long)]
    pub(crate) cold: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*`
    #[arg(required = true, add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: Signal,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*`
    #[arg(required = true, add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Even if they run: they are ended at once
    #[arg(short, long)]
    pub(crate) force: bool,
    /// With the volumes of theirs that have no name: as without it
    #[arg(short, long)]
    pub(crate) volumes: bool,
    // The common option of that name has the letter that `--force` has everywhere.
    /// The project file; of several each goes over those before it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// The machine: `web`; a microVM or a vm may not run
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// Its new name
    #[arg(value_parser = named)]
    pub(crate) name: Name,
}

#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) source: String,
    /// The name of the new one
    #[arg(value_parser = named)]
    pub(crate) name: Name,
    /// The snapshot whose files it is to have [default: those that the machine has now]
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::snapshots))]
    pub(crate) snapshot: Option<Name>,
    /// Start it
    #[arg(long)]
    pub(crate) start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// What the image is to be called: `team/web:v1`
    pub(crate) image: Reference,
    /// The snapshot that it is to be made of [default: what the machine has now]
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::snapshots))]
    pub(crate) snapshot: Option<Name>,
    /// What there is to say of it, for its history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Who made it, for its history
    #[arg(short, long, value_name = "NAME")]
    pub(crate) author: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// Only watch
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Do not send signals on to the machine
    #[arg(long)]
    pub(crate) no_signals: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Leave it to itself
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Let it read what is typed here
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give it no terminal, and let it read what is piped in, as Compose's `exec -T` does
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub(crate) no_tty: bool,
    /// More environment: `NAME=value`, or `NAME` as it is here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Files with lines `NAME=value`, or `NAME` as it is here; taken as they stand
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_file: Vec<PathBuf>,
    /// Where it starts [default: where the machine's program did]
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(crate) workdir: Option<String>,
    /// As whom: `user[:group]` [default: as the machine's program]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Let it do all that you may do
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Whether it is the user's login shell instead, which another command asks for.
    #[arg(skip)]
    pub(crate) login: bool,
    /// What of signals to us it is told.
    #[arg(skip)]
    pub(crate) told: Told,
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<String>,
}

impl ExecArgs {
    /// Whether it reads what stands here.
    pub(crate) fn reads(&self) -> bool {
        // A terminal is left to the shell here, which may have put us into the background.
        self.interactive || (self.no_tty && !std::io::stdin().is_terminal())
    }
}

/// What a program is told of signals that the command which waits for it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    /// All of them.
    #[default]
    Each,
    /// All but that we are hung up on, of which it learns by the end of its input.
    ButHangup,
    /// That it is to end.
    End,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// As whom [default: the one whom `dev` made in it, else root]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
}

#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// As whom [default: the one whom `dev` made in it, else root]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// What `ssh` is told besides: its options, and a command
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) args: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SshConfigArgs {
    /// Have ~/.ssh/config include it, by one line
    #[arg(long)]
    pub(crate) install: bool,
    /// Take that line away again
    #[arg(long, conflicts_with = "install")]
    pub(crate) remove: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*` [default: all of the project here]
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Go on until they end
    #[arg(short, long)]
    pub(crate) follow: bool,
    // The common option of that name has the letter that `--follow` has everywhere.
    /// The project file; of several each goes over those before it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Vec<PathBuf>,
    /// Only so many of the last lines of each; or `all`
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<Tail>,
    /// Only since then: `10m` ago, or `2026-11-21T08:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only until then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// With the time of each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}
