//! Directories that are deleted: they go out of sight first, at one blow, so that half of what was in one is never
//! taken for the whole.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tree;
use crate::home::Home;

/// Where they are meanwhile.
pub(super) fn place(home: &Home) -> PathBuf {
    home.state.join("going")
}

/// Takes a directory out of sight. [`tidy`] deletes it.
pub(super) fn send(home: &Home, directory: &Path, name: &str) -> Result<()> {
    send_by(home, directory, name, |to| Ok(fs::rename(directory, to)?))
}

/// The same for one that may be anybody's: its owner alone may move it to another directory.
pub(super) fn send_of_others(home: &Home, program: &Path, directory: &Path, name: &str) -> Result<()> {
    send_by(home, directory, name, |to| tree::shift(program, directory, to))
}

fn send_by(home: &Home, directory: &Path, name: &str, shift: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let going = place(home);
    let doing = || format!("cannot delete {}", directory.display());
    fs::create_dir_all(&going).with_context(doing)?;
    // One of this name that could not be deleted may be there still.
    let mut places = (0_u32..).map(|number| going.join(format!("{name}.{number}")));
    let free = places.find(|place| !place.exists()).unwrap_or_else(|| going.join(name));
    shift(&free).with_context(doing)
}

/// Deletes what is out of sight. What cannot be deleted stays there, and keeps neither the rest of it nor what the
/// command is for from being done: the next command tries again, and `purge` says it.
pub(super) fn tidy(home: &Home, program: &Path) -> Result<()> {
    let going = place(home);
    let entries = match fs::read_dir(&going) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", going.display())),
    };
    for entry in entries.flatten() {
        if let Err(error) = tree::delete(program, &entry.path()) {
            tracing::warn!("what was deleted is not all gone yet: {error:#}");
        }
    }
    // Unless something stays in it.
    let _not_empty = fs::remove_dir(&going);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_deleted_keeps_nothing_else_from_going() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home { state: temporary.path().join("state"), run: temporary.path().join("run") };
        for name in ["a", "b", "c"] {
            fs::create_dir_all(place(&home).join(name).join("inner")).unwrap();
        }
        // Who is not root cannot delete what is in a directory without the right to write.
        let stuck = place(&home).join("b");
        let set = |mode| {
            fs::set_permissions(&stuck, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        set(0o500);
        tidy(&home, "/nonexistent".as_ref()).unwrap();
        assert!(!place(&home).join("a").exists() && !place(&home).join("c").exists());
        assert_eq!(place(&home).exists(), !rustix::process::geteuid().is_root());
        if stuck.exists() {
            set(0o700);
        }
        tidy(&home, "/nonexistent".as_ref()).unwrap();
        assert!(!place(&home).exists());
    }
}
