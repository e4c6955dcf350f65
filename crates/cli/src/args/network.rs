//! Commands about networks.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use stead_model::address::Mac;
use stead_model::name::{Alias, LOOSE_PROJECT, Name, NameError, as_ours};
use stead_model::project::Kind;

use super::values::named;
use crate::complete;

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List networks
    Ls,
    /// Show a network: addresses, machines, strangers that were given an address, ports with their traffic
    Inspect {
        /// The network: `lan`, or `lan.shop` (with its project)
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
    },
    /// Make a network without a project file (in project `default`; other files name it as `external`)
    Create(CreateArgs),
    /// Remove networks that `create` made
    Rm {
        /// The networks' names
        #[arg(required = true, value_parser = loose_name, add = ArgValueCompleter::new(complete::loose_networks))]
        networks: Vec<Name>,
        /// Even if machines have nics on it: they lose them
        #[arg(short = 'f', long)]
        force: bool,
    },
    /// Give a machine a nic on a network that `create` made
    Connect(ConnectArgs),
    /// Take a machine's nic off a network that `create` made; a machine that somebody else runs goes with its last one
    Disconnect {
        /// The network's name
        #[arg(value_parser = loose_name, add = ArgValueCompleter::new(complete::loose_networks))]
        network: Name,
        /// The machine's name
        #[arg(value_parser = loose_name, add = ArgValueCompleter::new(complete::machines_on))]
        machine: Name,
    },
    /// Run a program in a container's network namespace, or in the one where the networks are
    #[command(after_help = "\
The program has the files of this computer; only its network is another, and in a container
whom it asks for names. Without root it takes itself for root, and may set up its network.

  stead network enter -m web -- ip address
  stead network enter -- tcpdump -ni any port 67

Exit codes: the program's own; 125 if stead failed before it ran.")]
    Enter(EnterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The network's name
    #[arg(value_parser = named)]
    pub(crate) name: Name,
    /// Its IPv4 subnet: a range such as 10.1.2.0/24, `auto` or `off`
    #[arg(long, default_value = "auto", value_name = "RANGE")]
    pub(crate) subnet: String,
    /// Its IPv6 subnet: a /64, `auto` or `off`
    #[arg(long, default_value = "auto", value_name = "RANGE")]
    pub(crate) subnet6: String,
    /// Who gives machines their addresses: stead by DHCP, they themselves, or nobody we know of
    #[arg(long, default_value = "managed", value_name = "WHO", value_parser = ["managed", "static", "none"])]
    pub(crate) addressing: String,
    /// What lies beyond: `nat` (what this computer reaches), `isolated` (nothing) or `bridged:LINK` (the real
    /// network behind a link of this computer) [default: nat; with addressing none: isolated]
    #[arg(long, value_name = "WHERE")]
    pub(crate) reach: Option<String>,
    /// The largest packet [default: 1500]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The network's name
    #[arg(value_parser = loose_name, add = ArgValueCompleter::new(complete::loose_networks))]
    pub(crate) network: Name,
    /// The machine's name
    #[arg(value_parser = loose_name, add = ArgValueCompleter::new(complete::machines_not_on))]
    pub(crate) machine: Name,
    /// There is no such machine here, somebody else runs it: a container gets a network namespace, the others TAPs
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<ForeignKind>,
    /// Its IPv4 address [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<Ipv4Addr>,
    /// Its IPv6 address [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address6: Option<Ipv6Addr>,
    /// Its MAC [default: one made from the names]
    #[arg(long)]
    pub(crate) mac: Option<Mac>,
    /// One more name for it on this network; may be said several times
    #[arg(long, value_name = "NAME", value_parser = more_names)]
    pub(crate) alias: Vec<Alias>,
}

/// The kind of a machine that somebody else runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ForeignKind {
    Container,
    Microvm,
    Vm,
}

impl From<ForeignKind> for Kind {
    fn from(kind: ForeignKind) -> Self {
        match kind {
            ForeignKind::Container => Self::Container,
            ForeignKind::Microvm => Self::Microvm,
            ForeignKind::Vm => Self::Vm,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    /// The container: `web`, or `web.shop` (with its project) [default: where all bridges are]
    #[arg(short, long, add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

fn more_names(text: &str) -> Result<Alias, NameError> {
    as_ours(text).parse()
}

/// The name of what a command made, with its project or without.
fn loose_name(text: &str) -> Result<Name, String> {
    let text = match text.rsplit_once('.') {
        Some((name, LOOSE_PROJECT)) => name,
        Some((_, project)) => {
            return Err(format!("what is in project `{project}` is changed in the project's file"));
        }
        None => text,
    };
    named(text).map_err(|error| error.to_string())
}
