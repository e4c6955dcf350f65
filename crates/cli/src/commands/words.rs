//! Commands that only print or write words: version, schema, completions, manual pages.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use serde::Serialize;

use crate::args::{Cli, Shell};
use crate::failure::Failure;
use crate::output::{Output, raw};
use crate::session::home;

#[derive(Serialize)]
struct Version {
    version: &'static str,
    state: String,
    run: String,
}

/// The version, and where things are.
pub(crate) fn version(output: Output) -> Result<(), Failure> {
    let home = home()?;
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        state: home.state.display().to_string(),
        run: home.run.display().to_string(),
    };
    let text =
        || format!("stead {}\nstate in {}\nsockets in {}\n", version.version, version.state, version.run);
    output.data(&version, text).map_err(Failure::from)
}

/// The JSON Schema of the project file.
pub(crate) fn schema() -> Result<(), Failure> {
    raw(&stead_model::file::schema()).map_err(Failure::from)
}

/// A script that asks this program what can follow.
pub(crate) fn completion(shell: Shell) -> Result<(), Failure> {
    let shell: &dyn clap_complete::env::EnvCompleter = match shell {
        Shell::Bash => &clap_complete::env::Bash,
        Shell::Zsh => &clap_complete::env::Zsh,
        Shell::Fish => &clap_complete::env::Fish,
    };
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "stead", "stead", "stead", &mut script)
        .context("cannot write the script")?;
    raw(&String::from_utf8_lossy(&script)).map_err(Failure::from)
}

/// A manual page for each command.
pub(crate) fn manual(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write manual pages to {}", dir.display()))
        .map_err(Failure::from)
}
