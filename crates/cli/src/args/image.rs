//! The arguments of the commands about images and registries.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use stead_model::image::{Platform, Reference};

use super::Force;
use crate::complete;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images that are here
    #[command(after_help = "\
SIZE is what an image takes, stored and unpacked; OWN is what of it no other image has, and so what removing it frees.")]
    Ls {
        /// Only these: `debian:12`, `debian*`, `*/web:*`
        #[arg(add = ArgValueCompleter::new(complete::images))]
        images: Vec<String>,
        /// Only their ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Get images from their registries; what is here already is not fetched again
    Pull(PullArgs),
    /// Build an image by the instructions of a Dockerfile
    #[command(after_help = super::BUILDERS)]
    Build(ImageBuildArgs),
    /// Send an image to a registry
    Push(PushArgs),
    /// Show all about an image
    Inspect(OneImage),
    /// Show the changes that made an image, the last one first
    History(OneImage),
    /// Give an image one more name
    Tag {
        /// The image: its name, or the first digits of its id
        #[arg(add = ArgValueCompleter::new(complete::images))]
        image: String,
        /// The new name; an image that had it loses it
        name: Reference,
    },
    /// Remove names of images, and with its last name the image
    Rm {
        /// The images: their names, or the first digits of their ids
        #[arg(required = true, add = ArgValueCompleter::new(complete::images))]
        images: Vec<String>,
        /// One that is named by its id goes with all its names
        #[arg(short, long)]
        force: bool,
    },
    /// Remove the images that have no name, unless a machine is made of them, and what builds keep for later ones
    Prune {
        /// Those with names too
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        consent: Force,
    },
    /// Make an image of the archive of a root file system
    #[command(after_help = "  stead image import rootfs.tar.zst lab/root:1 -- /bin/sh -l")]
    Import(ImportArgs),
    /// Write all files of an image into one archive, as its machines see them
    #[command(
        after_help = "  stead image export debian:12 --output rootfs.tar\n  stead image export debian:12 | tar t"
    )]
    Export(ExportArgs),
    /// Write images into an archive that stead, Docker, Podman and skopeo load
    Save(SaveArgs),
    /// Take images out of an archive of Docker's, or out of an OCI layout, packed or not
    Load(LoadArgs),
}

/// For which platform an image is.
#[derive(Debug, Args)]
pub(crate) struct ForPlatform {
    /// For which platform: `linux/arm64` [default: this computer's]
    #[arg(long)]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The images: `debian:12`, `registry.example/team/web:v1`, `web@sha256:…`
    #[arg(required = true)]
    pub(crate) images: Vec<Reference>,
    /// Do not tell how far it is, and print only their ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct ImageBuildArgs {
    /// The directory that it is built from
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) context: PathBuf,
    /// What it is to be called
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<Reference>,
    /// The instructions [default: the `Dockerfile` of the directory]
    #[arg(short = 'f', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) dockerfile: Option<PathBuf>,
    /// Values for its `ARG`s: `NAME=value`, or `NAME` as it is here
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// The stage to build [default: the last one]
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Labels of the image: `NAME=value`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Files that instructions may read while they run: `id=password,src=./password.txt`
    #[arg(long)]
    pub(crate) secret: Vec<String>,
    /// Do all anew, whatever is known of earlier builds
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Pull the images that it starts from anew
    #[arg(long)]
    pub(crate) pull: bool,
    /// Do not tell what is done
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image: its name, or the first digits of its id
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub(crate) image: String,
    /// Where to: `registry.example/team/web:v1` [default: as the image is called]
    #[arg(value_name = "AS")]
    pub(crate) target: Option<Reference>,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct OneImage {
    /// The image: its name, or the first digits of its id
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive: tar, plain or compressed by gzip or zstd; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) archive: PathBuf,
    /// What the image is to be called
    pub(crate) name: Reference,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
    /// What its machines run where nobody says so
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The image: its name, or the first digits of its id
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub(crate) image: String,
    /// The archive to write [default: standard output]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// The images: their names, or the first digits of their ids
    #[arg(required = true, add = ArgValueCompleter::new(complete::images))]
    pub(crate) images: Vec<String>,
    /// The archive to write [default: standard output]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Write an OCI layout into this directory instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "output")]
    pub(crate) layout: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The archive, or the directory of an OCI layout [default: standard input]
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: Option<PathBuf>,
    /// The same, as an option
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath, conflicts_with = "path")]
    pub(crate) input: Option<PathBuf>,
    /// What an image is called that has no name there
    #[arg(long)]
    pub(crate) name: Option<Reference>,
    #[command(flatten)]
    pub(crate) platform: ForPlatform,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The registry: `registry.example`, `127.0.0.1:5000` [default: docker.io]
    #[arg(default_value = "docker.io", hide_default_value = true)]
    pub(crate) registry: String,
    /// The name there; asked for where nobody says it
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Read the password from standard input, not from the terminal
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry: `registry.example`, `127.0.0.1:5000` [default: docker.io]
    #[arg(default_value = "docker.io", hide_default_value = true)]
    pub(crate) registry: String,
}
