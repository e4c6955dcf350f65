//! The command line of an OCI runtime, as callers of runc give it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use stead_model::container::Signal;

/// Run containers of OCI bundles, for programs that drive such runtimes
#[derive(Debug, Parser)]
#[command(name = "stead oci", version, arg_required_else_help = true)]
#[command(after_help = "\
  stead oci spec && stead oci run box
  podman --runtime /usr/bin/stead-oci run …

The program does the same when it is called by the name `stead-oci`.")]
pub(crate) struct OciCli {
    #[command(flatten)]
    pub(crate) global: OciGlobal,
    #[command(subcommand)]
    pub(crate) command: OciCommand,
}

#[derive(Debug, Args)]
pub(crate) struct OciGlobal {
    /// Where containers are on record [default: /run/stead/oci, or below XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Where failures and warnings are written, beside standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) log_format: LogFormat,
    /// Write there what is being done, too
    #[arg(long)]
    pub(crate) debug: bool,
    /// Not supported: cgroups are made in their file system
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Taken as it is: whether we are root of a user namespace is seen
    #[arg(long, hide = true, value_name = "auto|true|false", num_args = 0..=1, require_equals = true)]
    pub(crate) rootless: Option<Option<String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OciCommand {
    /// Make a container of a bundle; its program waits for `start`
    Create(MakeBundleArgs),
    /// Start the program of a container that was made
    Start(IdArgs),
    /// Make a container, start it, and delete it when it has ended
    Run(RunBundleArgs),
    /// Tell what a container is doing
    State(IdArgs),
    /// Send a container's first process a signal
    Kill(KillBundleArgs),
    /// Delete a container that has ended
    Delete(DeleteArgs),
    /// Run another program in a container
    Exec(Box<ExecBundleArgs>),
    /// List containers
    List(ListArgs),
    /// List the processes of a container
    Ps(PsBundleArgs),
    /// Hold a container still
    Pause(IdArgs),
    /// Let a container that is held still go on
    Resume(IdArgs),
    /// Write a config.json to begin with
    Spec(SpecArgs),
    /// Tell what this runtime can do, as JSON
    Features,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct MakeBundleArgs {
    /// The container's name
    pub(crate) id: String,
    /// The directory with its config.json
    #[arg(short, long, default_value = ".", hide_default_value = true)]
    pub(crate) bundle: PathBuf,
    /// A file for the number of its first process
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// A socket that gets its terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// How many open files from 3 on it has, too
    #[arg(long, default_value_t = 0, value_name = "COUNT", hide_default_value = true)]
    pub(crate) preserve_fds: u32,
    /// Not supported: the root is changed by pivot_root alone
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Said by callers of runc; no keyring is made in any case
    #[arg(long, hide = true)]
    pub(crate) no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunBundleArgs {
    #[command(flatten)]
    pub(crate) make: MakeBundleArgs,
    /// Leave it to itself
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not delete it when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KillBundleArgs {
    /// The container
    pub(crate) id: String,
    /// The signal
    #[arg(default_value = "TERM")]
    pub(crate) signal: Signal,
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The containers
    #[arg(required = true)]
    pub(crate) id: Vec<String>,
    /// End it first if need be; one that is not there is no error
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecBundleArgs {
    /// The container
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "process")]
    pub(crate) command: Vec<String>,
    /// A file with all about the program, as `process` of a config.json
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["command", "cwd", "env", "user", "tty"])]
    pub(crate) process: Option<PathBuf>,
    /// Where it starts
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// More environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// As whom, in numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Leave it to itself
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// A file for its number
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// A socket that gets its terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// How many open files from 3 on it has, too
    #[arg(long, default_value_t = 0, value_name = "COUNT", hide_default_value = true)]
    pub(crate) preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// In which form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: TableOrJson,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsBundleArgs {
    /// The container
    pub(crate) id: String,
    /// In which form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: TableOrJson,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableOrJson {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// The directory to write it to
    #[arg(short, long, default_value = ".", hide_default_value = true)]
    pub(crate) bundle: PathBuf,
}

/// Reads a command line of the runtime; ends the program with a word to the person if it is wrong.
pub(crate) fn parse_oci(words: impl IntoIterator<Item = OsString>) -> OciCli {
    OciCli::parse_from(words)
}
