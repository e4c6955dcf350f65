//! The arguments of the commands about snapshots.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use stead_model::name::Name;

use crate::complete;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Keep a machine's files as they are now
    #[command(after_help = "\
  stead snapshot create web before -d 'before the upgrade'

Of a container or a vm that does not run it costs nothing: what was written is set aside, and only what is written from
now on takes more room. One that runs is held while what it wrote is copied; of a microVM all of its disk is, whether it
runs or not. In a guest that runs the agent has all file systems stand still meanwhile, so that they are in order. Volumes
and other mounts are no part of it, nor is what is in memory. Where the file system shares blocks nothing is copied. An
ordinary user without a control group of his own stops a container first, and anybody a vm without the agent
(`cloud_init: off`).")]
    Create(SnapshotCreateArgs),
    /// List snapshots
    #[command(after_help = "\
SIZE is what came with a snapshot, beyond its parent's. `*` is where the machine began that it is now.")]
    Ls(SnapshotListArgs),
    /// Forget snapshots of a machine; the machine and its other snapshots stay as they are
    Rm {
        /// The machine: `web`, or `web.shop` (with its project)
        #[arg(add = ArgValueCompleter::new(complete::machines))]
        machine: String,
        /// The snapshots
        #[arg(required = true, add = ArgValueCompleter::new(complete::snapshots))]
        snapshots: Vec<Name>,
    },
    /// Set a machine back to a snapshot; what it wrote since is lost
    #[command(after_help = "\
One that runs is ended first and then started again; killed in between, the command leaves it stopped. All snapshots
stay, and volumes are as they are. To the cloud-init of a vm it is no new machine.")]
    Restore {
        /// The machine: `web`, or `web.shop` (with its project)
        #[arg(add = ArgValueCompleter::new(complete::machines))]
        machine: String,
        /// The snapshot
        #[arg(add = ArgValueCompleter::new(complete::snapshots))]
        snapshot: Name,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotCreateArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// What it is to be called [default: snap0, snap1 and so on]
    pub(crate) name: Option<Name>,
    /// What there is to say of it
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotListArgs {
    /// Only of these machines: `web`, `web.shop` (with its project), `web*` [default: all of the project here, or of all]
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machines: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// The machine: `web`, or `web.shop` (with its project)
    #[arg(add = ArgValueCompleter::new(complete::machines))]
    pub(crate) machine: String,
    /// The snapshot [default: `initial`, else what its image is]
    #[arg(add = ArgValueCompleter::new(complete::snapshots))]
    pub(crate) snapshot: Option<Name>,
}
