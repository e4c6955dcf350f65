//! Commands that only print or write words: version, schema, completions, manual pages.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::args::Shell;
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

/// A manual page for each command that people see.
pub(crate) fn manual(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut command = crate::args::command().disable_help_subcommand(true);
    command.build();
    pages(&command, dir)
        .with_context(|| format!("cannot write manual pages to {}", dir.display()))
        .map_err(Failure::from)
}

fn pages(command: &clap::Command, dir: &Path) -> std::io::Result<()> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.into_iter().try_for_each(|command| pages(command, dir))?;
    // Else the foot of a page says `enter`, and nothing of whose it is.
    let page = clap_mangen::Man::new(command.clone()).source(concat!("stead ", env!("CARGO_PKG_VERSION")));
    page.manual("stead").generate_to(dir).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_that_people_see() {
        let directory = tempfile::tempdir().unwrap();
        manual(directory.path()).unwrap();
        let names = std::fs::read_dir(directory.path()).unwrap();
        let names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        for name in ["stead.1", "stead-up.1", "stead-network.1", "stead-network-enter.1"] {
            assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("__") || name.contains("man")), "{names:?}");
        let page = std::fs::read_to_string(directory.path().join("stead-network-enter.1")).unwrap();
        assert!(page.contains("stead-network-enter 1"), "{page}");
    }
}
