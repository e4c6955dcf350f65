//! The command line.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use stead_model::address::Mac;
use stead_model::name::Name;

use crate::complete;

/// Run Linux machines of every kind from one file, on one network.
#[derive(Debug, Parser)]
#[command(name = "stead", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Start in a directory with a `stead.yaml`: `stead plan` shows what `stead up` would do.\n\
    `stead doctor` tells what this computer can do."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The project file [default: stead.yaml here or in a directory above]
    #[arg(short, long, global = true, env = "STEAD_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Format,
    /// Tell what is being done, on standard error (or set STEAD_LOG, as in `STEAD_LOG=debug`)
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what `up` would change, and which key of the file asks for it
    Plan(PlanArgs),
    /// Make the project what its file says
    Up(UpArgs),
    /// Take the project's machines and networks away
    Down(DownArgs),
    /// List machines, their addresses and ports
    Ps(PsArgs),
    /// List projects
    Ls,
    /// Networks: list, look into, make, join
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Check what this computer can do, and how to mend what it cannot
    Doctor,
    /// Take away everything that stead has on this computer for this user
    Purge(Consent),
    /// Print the version, and where things are
    Version,
    /// Print the JSON Schema of stead.yaml, for editors
    Schema,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// The directory to write them to
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    #[command(name = "__anchor", hide = true)]
    Anchor { dir: PathBuf },
    #[command(name = "__switchboard", hide = true)]
    Switchboard { state: PathBuf, run: PathBuf },
    #[command(name = "__enter", hide = true)]
    Enter(InternalEnter),
}

/// Which shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Show what `down` would change instead
    #[arg(long)]
    pub(crate) down: bool,
    /// Choose addresses anew instead of taking those of stead.lock
    #[arg(long, conflicts_with = "down")]
    pub(crate) relock: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Choose addresses anew instead of taking those of stead.lock
    #[arg(long)]
    pub(crate) relock: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// The project [default: the one of the project file]
    #[arg(add = ArgValueCompleter::new(complete::projects))]
    pub(crate) project: Option<Name>,
    /// Delete its volumes too: their data is lost
    #[arg(long)]
    pub(crate) volumes: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Agreement to what cannot be undone.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Consent {
    /// Do not ask before data is lost
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only these machines, by name or pattern (`web`, `web.shop`, `web*`)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Those of all projects, not only of the one here
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List networks
    Ls,
    /// Show everything about a network
    Inspect {
        /// The network: `lan`, or `lan.shop`
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
    },
    /// Make a network that belongs to no project file (it is in project `default`)
    Create(CreateArgs),
    /// Remove a network that was made by `create`
    Rm {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::loose_networks))]
        network: Name,
        /// Also take the nics of machines off it
        #[arg(long)]
        force: bool,
    },
    /// Give a machine a nic on a network that was made by `create`
    Connect(ConnectArgs),
    /// Take a machine's nic off a network that was made by `create`
    Disconnect {
        /// The network
        #[arg(add = ArgValueCompleter::new(complete::loose_networks))]
        network: Name,
        /// The machine
        #[arg(add = ArgValueCompleter::new(complete::machines))]
        machine: Name,
    },
    /// Run a program among the networks: as a machine of kind `container`, or beside all of them
    Enter(EnterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name
    pub(crate) name: Name,
    /// Its IPv4 subnet: a range such as 10.1.2.0/24, `auto` or `off`
    #[arg(long, default_value = "auto", value_name = "RANGE")]
    pub(crate) subnet: String,
    /// Its IPv6 subnet: a /64, `auto` or `off`
    #[arg(long, default_value = "auto", value_name = "RANGE")]
    pub(crate) subnet6: String,
    /// Who gives machines their addresses: `managed`, `static` or `none`
    #[arg(long, default_value = "managed", value_name = "WHO")]
    pub(crate) addressing: String,
    /// What lies beyond: `nat`, `isolated` or `bridged:LINK`
    #[arg(long, default_value = "nat", value_name = "WHERE")]
    pub(crate) reach: String,
    /// The largest packet
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The network
    #[arg(add = ArgValueCompleter::new(complete::loose_networks))]
    pub(crate) network: Name,
    /// The machine; it is made if there is none of this name
    pub(crate) machine: Name,
    /// What kind of machine is made: its nic is a veth pair (container) or a TAP (microvm, vm)
    #[arg(long, default_value = "container", value_name = "KIND")]
    pub(crate) kind: String,
    /// Its IPv4 address [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<Ipv4Addr>,
    /// Its IPv6 address [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address6: Option<Ipv6Addr>,
    /// Its MAC [default: derived from the names]
    #[arg(long)]
    pub(crate) mac: Option<Mac>,
    /// More names for it there
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Vec<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    /// The machine whose network the program sees: `web`, or `web.shop` [default: all networks, from the engine's side]
    #[arg(short, long, add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct InternalEnter {
    pub(crate) run: PathBuf,
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}
