//! A machine that gets another name: where its files are then, and which of them say it.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use stead_model::name::MachineId;

use super::{Assignment, Files};
use crate::home::Home;

impl Files {
    /// Those of the machine if it were called so.
    #[must_use]
    pub fn named(&self, id: &MachineId) -> Self {
        let name = id.to_string();
        Self { state: self.state.with_file_name(&name), run: self.run.with_file_name(name) }
    }

    /// Where a file of the machine is when it has moved there; others stay where they are.
    pub fn follow(&self, to: &Self, path: &mut PathBuf) {
        for (old, new) in [(&self.state, &to.state), (&self.run, &to.run)] {
            if let Ok(rest) = path.strip_prefix(old) {
                *path = new.join(rest);
                return;
            }
        }
    }

    /// What the machine is called by now whose directory is held; nothing if it is gone.
    pub fn find(home: &Home, held: &File) -> Option<MachineId> {
        let entries = fs::read_dir(home.machines()).into_iter().flatten().flatten();
        let mut ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<MachineId>().ok());
        ids.find(|id| Self::new(home, id).are_of(held))
    }

    /// The same files by paths that lead to them whatever the machine is called by then. Without a keeper they are what they
    /// are: nobody has to find them again.
    pub fn hold_all(&self) -> HeldFiles {
        let open = |path: &PathBuf| File::open(path).ok();
        match open(&self.state).zip(open(&self.run)) {
            Some((state, run)) => {
                let by = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                HeldFiles { files: Self { state: by(&state), run: by(&run) }, _open: Some((state, run)) }
            }
            None => HeldFiles { files: self.clone(), _open: None },
        }
    }
}

/// The files of a machine, found whatever it is called.
#[derive(Debug)]
pub struct HeldFiles {
    files: Files,
    _open: Option<(File, File)>,
}

impl Deref for HeldFiles {
    type Target = Files;

    fn deref(&self) -> &Files {
        &self.files
    }
}

impl Assignment {
    /// The same for a machine whose files have moved. It keeps its host name until it is started anew.
    pub fn take_name(&mut self, from: &Files, (to, id): (&Files, &MachineId)) {
        self.layers.iter_mut().for_each(|layer| from.follow(to, layer));
        self.cgroup = cgroup_of(&self.cgroup, id);
    }
}

/// What the control group of a machine is called that is called so by now.
pub fn cgroup_of(before: &str, id: &MachineId) -> String {
    before.rsplit_once('/').map_or_else(|| id.to_string(), |(home, _)| format!("{home}/{id}"))
}
