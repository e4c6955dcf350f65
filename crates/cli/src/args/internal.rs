//! The arguments of commands that stead runs itself as.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// A script that is run in a machine.
#[derive(Debug, Subcommand)]
pub(crate) enum ProvisionCommand {
    /// Sees to it that it is run, and remembers that.
    #[command(name = "__provision", hide = true)]
    Script,
    /// Runs it.
    #[command(name = "__exec", hide = true)]
    Exec {
        /// The process that wants it.
        parent: i32,
    },
}

/// What is done with a tree of files as what may do it to files of whichever owner.
#[derive(Debug, Subcommand)]
pub(crate) enum TreeCommand {
    #[command(name = "__delete", hide = true)]
    Delete { tree: PathBuf },
    #[command(name = "__shift", hide = true)]
    Shift { from: PathBuf, to: PathBuf },
    #[command(name = "__copy-layer", hide = true)]
    CopyLayer { from: PathBuf, to: PathBuf },
    #[command(name = "__link-layer", hide = true)]
    LinkLayer { from: PathBuf, to: PathBuf },
    #[command(name = "__renew-layer", hide = true)]
    RenewLayer { layer: PathBuf },
    #[command(name = "__measure", hide = true)]
    Measure { tree: PathBuf },
}

#[derive(Debug, Args)]
pub(crate) struct InternalEnter {
    pub(crate) run: PathBuf,
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    #[arg(long)]
    pub(crate) resolv_conf: Option<String>,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct InternalDetached {
    #[arg(long)]
    pub(crate) own_mounts: bool,
    pub(crate) parent: i32,
    pub(crate) program: PathBuf,
    #[arg(last = true)]
    pub(crate) words: Vec<std::ffi::OsString>,
}
