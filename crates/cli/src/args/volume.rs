//! The arguments of the commands about volumes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use stead_model::name::Name;

use super::Force;
use super::values::named;
use crate::complete;

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List volumes, and which machines use them
    Ls(VolumeListArgs),
    /// Make a volume without a project file (in project `default`; other files name it as `external`)
    #[command(
        after_help = "  stead volume create data\n  stead volume create --size 10GiB data\n  stead run -v data:/var/lib/data …"
    )]
    Create(VolumeCreateArgs),
    /// Tell all about volumes: where they are, how large, who uses them
    Inspect {
        /// The volumes: `data`, `data.shop` (with its project), `data*`
        #[arg(required = true, add = ArgValueCompleter::new(complete::volumes))]
        volumes: Vec<String>,
    },
    /// Delete volumes that no machine uses; their data is lost
    Rm {
        /// The volumes: `data`, `data.shop` (with its project), `data*`
        #[arg(required = true, add = ArgValueCompleter::new(complete::volumes))]
        volumes: Vec<String>,
        #[command(flatten)]
        consent: Force,
        // The common option of that name has the letter that Docker's `--force` has.
        /// The project file; of several each goes over those before it
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Vec<PathBuf>,
    },
    /// Delete all volumes that no machine uses, also those of projects that are down; their data is lost
    Prune {
        /// Only those with this label: `NAME`, or `NAME=VALUE`
        #[arg(long, value_name = "LABEL")]
        label: Vec<String>,
        #[command(flatten)]
        consent: Force,
    },
}

#[derive(Debug, Args)]
pub(crate) struct VolumeListArgs {
    /// Only these: `data` (of the project here, or of all if it has none), `data.shop`, `data*` [default: all]
    #[arg(add = ArgValueCompleter::new(complete::volumes))]
    pub(crate) volumes: Vec<String>,
    /// Only those that no machine uses
    #[arg(long)]
    pub(crate) unused: bool,
    /// Only those with this label: `NAME`, or `NAME=VALUE`
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Vec<String>,
    /// Only their names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// The volume's name
    #[arg(value_parser = named)]
    pub(crate) name: Name,
    /// What its files may take at most: `10GiB`, `512m` (as root, on ext4 mounted with `prjquota`)
    #[arg(long, value_name = "BYTES", value_parser = stead_model::file::volume_bytes)]
    pub(crate) size: Option<u64>,
    /// Labels: `NAME=VALUE`
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
}
