//! Templates: guests that were saved when they had booted and been told nothing yet, so that others of the same hardware go on
//! from there instead of booting.
//!
//! A template is made by the keeper of a machine that boots anyway, beside its place, and gets there when it is whole. It
//! is good until the computer starts anew: so it need not be on the disk when it is used, and what the processor, its
//! microcode and the kernel of this computer are like is the same for all that use it.
//!
//! ```text
//! begin ─▶ Unfinished (one at a time) ──finish──▶ in its place, the least used ones go
//!               └──dropped, or its keeper killed──▶ as if it had never been
//! ```

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::home::{Home, write_run_file};

/// As many shapes of machines as somebody works with at a time.
const COUNT_MAX: usize = 8;
/// What they may take of the disk. One has some hundred megabytes.
const BYTES_MAX: u64 = 2 << 30;

const STATE: &str = "state";
const ABOUT: &str = "about.json";
const LOCK: &str = ".lock";
const UNFINISHED: &str = ".new";

/// What a template is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The kernel that has booted.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// Nics.
    pub nics: usize,
    /// What ran it.
    pub accelerator: String,
}

/// A template that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// By which it is found: a digest of all that it depends on.
    pub key: String,
    /// What it is of.
    pub about: About,
    /// How large it is.
    pub bytes: u64,
    /// When it was used last, in seconds since 1970.
    pub used_unix_s: u64,
    /// Whether it was made since this computer started.
    pub is_current: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    about: About,
    bytes: u64,
    boot: String,
}

/// The templates of a home.
#[derive(Clone, Debug)]
pub struct Templates {
    root: PathBuf,
}

/// A template that is being made. Dropped, it never was.
#[derive(Debug)]
pub struct Unfinished {
    templates: Templates,
    key: String,
    about: About,
    state: File,
    /// Held by one at a time, and let go by the kernel when that one dies.
    _lock: File,
}

impl Templates {
    /// Those of this home.
    pub fn of(home: &Home) -> Self {
        Self { root: home.templates() }
    }

    /// All of them, the one that was used last being the first.
    pub fn list(&self) -> Result<Vec<Template>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.root.display())),
        };
        let keys = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let boot = this_boot()?;
        let mut all: Vec<Template> =
            keys.filter(|key| !key.starts_with('.')).filter_map(|key| self.load(key, &boot)).collect();
        all.sort_by(|a, b| (b.used_unix_s, &b.key).cmp(&(a.used_unix_s, &a.key)));
        Ok(all)
    }

    fn load(&self, key: String, boot: &str) -> Option<Template> {
        let file = self.root.join(&key).join(ABOUT);
        let record: Record = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        let used = fs::metadata(&file).and_then(|metadata| metadata.modified()).ok()?;
        let used_unix_s = used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let is_current = record.boot == boot;
        Some(Template { key, about: record.about, bytes: record.bytes, used_unix_s, is_current })
    }

    /// The state of one, for reading alone, if it is here and whole. It counts as used now.
    pub fn open(&self, key: &str) -> Result<Option<File>> {
        let Some(template) = self.load(key.to_owned(), &this_boot()?) else { return Ok(None) };
        let directory = self.root.join(key);
        let doing = || format!("cannot open {}", directory.display());
        let state = File::open(directory.join(STATE)).with_context(doing)?;
        if !template.is_current || state.metadata().with_context(doing)?.len() != template.bytes {
            self.remove(key)?;
            return Ok(None);
        }
        let about = File::open(directory.join(ABOUT)).with_context(doing)?;
        about.set_times(FileTimes::new().set_modified(SystemTime::now())).with_context(doing)?;
        Ok(Some(state))
    }

    /// Begins to make one; nothing where somebody else makes one at this moment, or it is there.
    pub fn begin(&self, key: &str, about: About) -> Result<Option<Unfinished>> {
        let doing = || format!("cannot write {}", self.root.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).with_context(doing)?;
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(self.root.join(LOCK));
        let lock = lock.with_context(doing)?;
        if lock.try_lock().is_err() || self.root.join(key).exists() {
            return Ok(None);
        }
        let unfinished = self.root.join(UNFINISHED);
        // Of one who was killed.
        remove_tree(&unfinished)?;
        fs::DirBuilder::new().mode(0o700).create(&unfinished).with_context(doing)?;
        let mut options = File::options();
        let state = options.create_new(true).write(true).mode(0o600).open(unfinished.join(STATE));
        let state = state.with_context(doing)?;
        let (templates, key) = (self.clone(), key.to_owned());
        Ok(Some(Unfinished { templates, key, about, state, _lock: lock }))
    }

    /// Removes one: whether it was there. Machines that go on from it are not touched by that.
    pub fn remove(&self, key: &str) -> Result<bool> {
        let directory = self.root.join(key);
        let was_there = directory.exists();
        // What says that the rest is there goes first.
        crate::home::remove_if_there(&directory.join(ABOUT))?;
        remove_tree(&directory)?;
        Ok(was_there)
    }

    /// Removes those that are of no use any more, and of the others those that were used least lately.
    fn thin_out(&self) -> Result<()> {
        let (mut count, mut bytes) = (0, 0u64);
        for template in self.list()? {
            count += 1;
            bytes = bytes.saturating_add(template.bytes);
            if !template.is_current || count > COUNT_MAX || bytes > BYTES_MAX {
                self.remove(&template.key)?;
            }
        }
        Ok(())
    }
}

impl Unfinished {
    /// Where its state is to be written.
    pub fn state(&self) -> &File {
        &self.state
    }

    /// Puts it in its place, now that it is whole.
    pub fn finish(self) -> Result<()> {
        let root = &self.templates.root;
        let doing = || format!("cannot write {}", root.display());
        let unfinished = root.join(UNFINISHED);
        let bytes = self.state.metadata().with_context(doing)?.len();
        let record = Record { about: self.about.clone(), bytes, boot: this_boot()? };
        let text = serde_json::to_vec(&record).context("cannot write what a template is of as JSON")?;
        write_run_file(&unfinished.join(ABOUT), &text)?;
        fs::rename(&unfinished, root.join(&self.key)).with_context(doing)?;
        self.templates.thin_out()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Where it was finished there is none.
        if let Err(error) = remove_tree(&self.templates.root.join(UNFINISHED)) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Which start of this computer this is.
fn this_boot() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).context("cannot read which start of the computer this is")
}

fn remove_tree(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", directory.display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn templates() -> (tempfile::TempDir, Templates) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("templates");
        (directory, Templates { root })
    }

    fn about() -> About {
        let (kernel, accelerator) = ("6.1".to_owned(), "tcg".to_owned());
        About { kernel, cpus: 1, memory_mib: 512, nics: 0, accelerator }
    }

    #[track_caller]
    fn make(templates: &Templates, key: &str) {
        let unfinished = templates.begin(key, about()).unwrap().unwrap();
        unfinished.state().write_all(b"state").unwrap();
        unfinished.finish().unwrap();
    }

    fn keys(templates: &Templates) -> Vec<String> {
        templates.list().unwrap().into_iter().map(|template| template.key).collect()
    }

    #[test]
    fn one_is_in_its_place_when_it_is_whole_and_others_make_none_meanwhile() {
        let (_directory, templates) = templates();
        assert!(templates.open("a").unwrap().is_none() && keys(&templates).is_empty());
        let unfinished = templates.begin("a", about()).unwrap().unwrap();
        assert!(
            templates.begin("a", about()).unwrap().is_none()
                && templates.begin("b", about()).unwrap().is_none()
        );
        assert!(templates.open("a").unwrap().is_none());
        drop(unfinished);
        assert!(!templates.root.join(UNFINISHED).exists());
        // What one left who was killed.
        fs::create_dir(templates.root.join(UNFINISHED)).unwrap();
        fs::write(templates.root.join(UNFINISHED).join(STATE), "half").unwrap();
        make(&templates, "a");
        let state = templates.open("a").unwrap().unwrap();
        assert_eq!(std::io::read_to_string(&state).unwrap(), "state");
        assert!((&state).write_all(b"x").is_err(), "whoever goes on from it cannot write it");
        assert!(templates.begin("a", about()).unwrap().is_none());
        assert!(templates.remove("a").unwrap() && !templates.remove("a").unwrap());
        assert!(keys(&templates).is_empty());
    }

    #[test]
    fn one_that_was_cut_short_or_is_of_an_earlier_start_of_the_computer_goes() {
        let (_directory, templates) = templates();
        make(&templates, "a");
        fs::write(templates.root.join("a").join(STATE), "sta").unwrap();
        assert!(templates.open("a").unwrap().is_none() && keys(&templates).is_empty());
        make(&templates, "a");
        let file = templates.root.join("a").join(ABOUT);
        let record = Record { about: about(), bytes: 5, boot: "another".to_owned() };
        fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
        make(&templates, "b");
        assert_eq!(keys(&templates), ["b"]);
    }

    #[test]
    fn those_that_were_used_least_lately_go() {
        let (_directory, templates) = templates();
        for place in 0..COUNT_MAX {
            let key = place.to_string();
            make(&templates, &key);
            let used = SystemTime::now() - Duration::from_secs(1000 - place as u64);
            let file = File::open(templates.root.join(key).join(ABOUT)).unwrap();
            file.set_times(FileTimes::new().set_modified(used)).unwrap();
        }
        templates.open("0").unwrap().unwrap();
        make(&templates, "new");
        let kept = keys(&templates);
        assert!(
            kept.len() == COUNT_MAX && kept.contains(&"0".to_owned()) && !kept.contains(&"1".to_owned()),
            "{kept:?}"
        );
    }
}
