//! Commands that look at machines and at their files.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::{EventFilter, Filter};
use crate::complete;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*`
    #[arg(required = true, add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// Only what leads to this port of it: `80`, `80/tcp`, `53/udp`
    pub(crate) port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// Ports that this computer publishes: `[address:]port:target[/udp]`, or ranges of them; `80` is `80:80`, and of `0:80` any that is free
    #[arg(required = true, value_name = "PORT")]
    pub(crate) ports: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only of these machines: `web`, `web.shop` (with its project), `web*`
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Of all projects, not only of the one here
    #[arg(short, long)]
    pub(crate) all: bool,
    /// First those since then: `10m` ago, or `2026-11-21T08:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only until then, and then end
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only those of which this holds: `type=machine`, `event=die`, `name=web*`, `project=shop`
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<EventFilter>,
    /// Only those that there were
    #[arg(long)]
    pub(crate) no_stream: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The machines: `web`, `web.shop` (with its project), `web*` [default: all of the project here, else all]
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Only once
    #[arg(long)]
    pub(crate) no_stream: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Keep owners, by number, and what rights the files have by themselves
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// A path here or in a machine (`web:/etc/hosts`); `-` for an archive on standard input
    #[arg(add = ArgValueCompleter::new(complete::machine_paths))]
    pub(crate) source: String,
    /// The same; `-` for an archive on standard output
    #[arg(add = ArgValueCompleter::new(complete::machine_paths))]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only these: `web` (of the project here, or of all if it has none), `web.shop` (with its project), `web*`
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
    /// Machines of all projects, not only of the one here
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those of which this holds: `status=running`, `health=healthy`, `exited=1`, `name=web*`, `project=shop`,
    /// `label=tier=front`, `ancestor=debian:12`, `network=lan`, `volume=data`
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<Filter>,
    /// Only the one that was made last, of those that are meant
    #[arg(short, long, conflicts_with = "last")]
    pub(crate) latest: bool,
    /// Only so many that were made last, the last one first
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) last: Option<usize>,
    /// Only their names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
