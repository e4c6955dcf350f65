//! Volumes without a name of a machine that is made anew: they are set aside while there is no machine to have them, and
//! are the new one's then.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_model::name::MachineId;

use super::going;
use crate::home::Home;
use crate::machine::Files;
use crate::state::Records;

fn place(home: &Home, id: &MachineId) -> PathBuf {
    home.aside().join(id.to_string())
}

/// Sets aside what a machine has that is about to go.
pub(super) fn set(home: &Home, id: &MachineId) -> Result<()> {
    let (from, to) = (Files::new(home, id).own_volumes(), place(home, id));
    if is_empty(&from)? {
        return Ok(());
    }
    if to.exists() {
        going::send(home, &to, &id.to_string())?;
    }
    fs::create_dir_all(home.aside())
        .and_then(|()| fs::rename(&from, &to))
        .with_context(|| format!("cannot set {} aside", from.display()))
}

/// Gives a machine what was set aside for it. One that has something of its own already keeps that.
pub(super) fn give_back(home: &Home, id: &MachineId) -> Result<()> {
    let (from, files) = (place(home, id), Files::new(home, id));
    let to = files.own_volumes();
    if !from.exists() || !files.state.exists() || !is_empty(&to)? {
        return Ok(());
    }
    fs::rename(&from, &to).with_context(|| format!("cannot put {} back", from.display()))?;
    // Unless something stays in it.
    let _not_empty = fs::remove_dir(home.aside());
    Ok(())
}

/// Takes out of sight what was set aside for machines that are not to have it; whether there was any.
pub(super) fn forget(home: &Home, is_one: impl Fn(&MachineId) -> bool) -> Result<bool> {
    let mut is_any = false;
    for id in all(home)?.into_iter().filter(is_one) {
        going::send(home, &place(home, &id), &id.to_string())?;
        is_any = true;
    }
    // Unless something stays in it.
    let _not_empty = fs::remove_dir(home.aside());
    Ok(is_any)
}

/// After a command that was killed: a machine that is on record has what is its own, whether it was about to go or had come;
/// what waits for one that is yet to be made goes on waiting while its project is known.
pub(super) fn tidy(home: &Home, records: &Records) -> Result<()> {
    let waiting = all(home)?.into_iter().filter(|id| records.machines.contains_key(id));
    waiting.map(|id| give_back(home, &id)).collect::<Result<Vec<()>>>()?;
    forget(home, |id| !records.projects.contains_key(&id.project)).map(drop)
}

fn all(home: &Home) -> Result<Vec<MachineId>> {
    let entries = match fs::read_dir(home.aside()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", home.aside().display())),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether there is nothing in a directory, or no such directory.
fn is_empty(path: &Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use stead_model::container::Container;
    use stead_model::observed::{Body, MachineState, MadeContainer};
    use stead_model::project::Kind;

    use super::*;

    struct Ground {
        _directory: tempfile::TempDir,
        home: Home,
        id: MachineId,
    }

    impl Ground {
        /// A machine with this in its volumes.
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let home = Home { state: directory.path().join("state"), run: directory.path().join("run") };
            let ground = Self { _directory: directory, home, id: "db.shop".parse().unwrap() };
            ground.make(text);
            ground
        }

        fn volumes(&self) -> PathBuf {
            Files::new(&self.home, &self.id).own_volumes()
        }

        fn make(&self, text: &str) {
            fs::create_dir_all(self.volumes()).unwrap();
            if !text.is_empty() {
                fs::write(self.volumes().join("data"), text).unwrap();
            }
        }

        fn lose(&self) {
            fs::remove_dir_all(Files::new(&self.home, &self.id).state).unwrap();
        }

        fn has(&self) -> Option<String> {
            fs::read_to_string(self.volumes().join("data")).ok()
        }

        /// What is on record: the project, and the machine or not.
        fn records(&self, has_machine: bool) -> Records {
            let wish = Container::new("x".parse().unwrap());
            let body = Body::Container(Box::new(MadeContainer { wish, image: None }));
            let machine = (self.id.clone(), MachineState { kind: Kind::Container, body });
            Records {
                projects: [(self.id.project.clone(), "/srv/shop".into())].into(),
                machines: has_machine.then_some(machine).into_iter().collect(),
                ..Records::default()
            }
        }
    }

    #[test]
    fn what_was_set_aside_is_the_next_ones_that_has_nothing_yet() {
        let ground = Ground::new("one");
        set(&ground.home, &ground.id).unwrap();
        ground.lose();
        give_back(&ground.home, &ground.id).unwrap();
        assert_eq!(ground.has(), None);
        ground.make("");
        give_back(&ground.home, &ground.id).unwrap();
        assert_eq!(ground.has().as_deref(), Some("one"));
        assert!(!ground.home.aside().exists());
        // Nothing is set aside of one that has nothing, and what it has itself is not written over.
        set(&ground.home, &ground.id).unwrap();
        ground.make("two");
        give_back(&ground.home, &ground.id).unwrap();
        assert_eq!(ground.has().as_deref(), Some("two"));
    }

    #[test]
    fn wherever_a_command_is_killed_nothing_is_lost_and_nothing_is_left_without_its_project() {
        // While it was about to go.
        let ground = Ground::new("one");
        set(&ground.home, &ground.id).unwrap();
        tidy(&ground.home, &ground.records(true)).unwrap();
        assert_eq!(ground.has().as_deref(), Some("one"));
        // Between the two.
        set(&ground.home, &ground.id).unwrap();
        ground.lose();
        tidy(&ground.home, &ground.records(false)).unwrap();
        assert!(place(&ground.home, &ground.id).exists());
        // When the new one was on record just now.
        ground.make("");
        tidy(&ground.home, &ground.records(true)).unwrap();
        assert_eq!(ground.has().as_deref(), Some("one"));
        // Somebody wants it anew, or the whole project is as its file says.
        set(&ground.home, &ground.id).unwrap();
        assert!(!forget(&ground.home, |id| id.name.as_str() == "web").unwrap());
        assert!(forget(&ground.home, |id| *id == ground.id).unwrap());
        assert!(!ground.home.aside().exists() && going::place(&ground.home).exists());
        ground.make("one");
        // Its project went.
        set(&ground.home, &ground.id).unwrap();
        ground.lose();
        tidy(&ground.home, &Records::default()).unwrap();
        assert!(!ground.home.aside().exists());
    }
}
