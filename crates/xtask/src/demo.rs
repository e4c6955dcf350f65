//! `cargo xtask demo`: the tour, for real. Each scene is a command as a person types it and what its output must
//! hold; the commands and their whole output are printed, so what the README shows can be taken from here.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::Outcome;
use crate::inside::{self, Role};
use crate::programs::{self, cargo, root};
use crate::setup::{self, Chore};

/// The word for the part within the namespaces.
pub(crate) const STAGE: &str = "__demo";

/// A command of the tour. Its words are separated by spaces; there is no shell.
struct Scene {
    command: &'static str,
    /// Each of these is somewhere in what it writes.
    holds: &'static [&'static str],
}

const TOUR: &[Scene] = &[Scene { command: "stead version", holds: &["stead "] }];

/// The chore.
pub(crate) fn run() -> Result<Outcome> {
    if !setup::ensure(&[Chore::Demo])? {
        return Ok(Outcome::Refused);
    }
    programs::run(&mut cargo(&["build", "--release", "--package", "stead"]))?;
    let scratch = inside::scratch()?;
    let mut command = inside::command(Role::Root, scratch.path())?;
    command.args([Path::new("/proc/self/exe"), Path::new(STAGE), &root().join("target/release")]);
    let status = command.status().context("could not start the tour")?;
    Ok(if status.success() { Outcome::Good } else { Outcome::Bad })
}

/// The tour, with the program in `directory`, in an empty project directory.
pub(crate) fn inside(directory: &Path) -> Result<Outcome> {
    let place = tempfile::tempdir().context("could not make a directory")?;
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    for scene in TOUR {
        println!("$ {}", scene.command);
        let mut words = scene.command.split(' ');
        let program = words.next().unwrap_or_default();
        let output = Command::new("env")
            // `env` looks the program up on the path that it is given, std on ours.
            .args([&format!("PATH={path}"), program])
            .args(words)
            .current_dir(place.path())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("could not start `{}`", scene.command))?;
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        println!("{}", said.trim_end());
        let missing: Vec<_> = scene.holds.iter().filter(|text| !said.contains(**text)).collect();
        if !output.status.success() || !missing.is_empty() {
            println!("\nthe tour ends here: {}, and these words are missing: {missing:?}", output.status);
            return Ok(Outcome::Bad);
        }
    }
    Ok(Outcome::Good)
}
