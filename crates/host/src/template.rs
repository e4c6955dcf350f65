//! Templates: guests that were saved when they had booted and been told nothing yet, so that others of the same hardware go on
//! from there instead of booting.
//!
//! A template is made by the keeper of a machine that boots anyway, beside its place, and gets there when it is whole. It
//! is good until the computer starts anew: so it need not be on the disk when it is used, and what the processor, its
//! microcode and the kernel of this computer are like is the same for all that use it.
//!
//! ```text
//! begin ─▶ Unfinished (one at a time) ──finish──▶ in its place, the least used ones go
//!               ├──dropped, or its keeper killed──▶ as if it had never been
//!               └──pruned, or its kernel removed──▶ the same, though its keeper goes on
//! in its place ──removed──▶ called something else at one blow, then taken apart
//! ```
//!
//! What was cut off half-way has a name with a dot; whoever begins one takes that away first, and all that is of no use.

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::fs::fstatfs;
use serde::{Deserialize, Serialize};

use crate::home::{Home, remove_if_there, write_run_file};

/// As many shapes of machines as somebody works with at a time.
const COUNT_MAX: usize = 8;
/// What they may take of the disk. One has some hundred megabytes.
const BYTES_MAX: u64 = 2 << 30;
/// What one of them may take. What a kernel of some gigabytes has written when it has booted is far less.
pub const ONE_MAX_BYTES: u64 = 512 << 20;
/// What could not be used, or not be made, is not tried again for so long: each time somebody waits for a second boot.
const BAD_FOR: Duration = Duration::from_secs(60 * 60);

const STATE: &str = "state";
const ABOUT: &str = "about.json";
const LOCK: &str = ".lock";
const UNFINISHED: &str = ".new";
/// What the names of those begin with that are being removed.
const GONE: &str = ".gone-";
/// The same of marks that one is of no use.
const BAD: &str = ".bad-";

/// File systems that are in memory.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

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
    /// The kernel that has booted.
    kernel: PathBuf,
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
        let boot = this_boot()?;
        let keys = self.names()?.into_iter().filter(|name| !name.starts_with('.'));
        let mut all: Vec<Template> = keys.filter_map(|key| self.load(key, &boot)).collect();
        all.sort_by(|a, b| (b.used_unix_s, &b.key).cmp(&(a.used_unix_s, &a.key)));
        Ok(all)
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.root.display())),
        };
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
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
        let state = match File::open(directory.join(STATE)) {
            Ok(state) => Some(state),
            // Somebody removes it at this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(doing),
        };
        let length = state.as_ref().map(File::metadata).transpose().with_context(doing)?;
        let is_whole = template.is_current && length.is_some_and(|state| state.len() == template.bytes);
        let Some(state) = state.filter(|_| is_whole) else {
            self.remove(key)?;
            return Ok(None);
        };
        // Which ones go is decided by it, and nothing else.
        if let Ok(about) = File::open(directory.join(ABOUT)) {
            about.set_times(FileTimes::new().set_modified(SystemTime::now())).with_context(doing)?;
        }
        Ok(Some(state))
    }

    /// Begins to make one of a guest that boots this kernel; nothing where somebody else makes one at this moment, it is there,
    /// or was of no use lately. Refuses a disk that is too full for it, and memory.
    pub fn begin(&self, key: &str, about: About, kernel: &Path) -> Result<Option<Unfinished>> {
        let doing = || format!("cannot write {}", self.root.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).with_context(doing)?;
        let root = File::open(&self.root).with_context(doing)?;
        let is_in_memory = IN_MEMORY.contains(&fstatfs(&root).with_context(doing)?.f_type);
        ensure!(!is_in_memory, "{} is in memory, which they would take from others", self.root.display());
        self.begin_here(key, about, kernel, |bytes| self.make_room(&root, bytes))
    }

    fn begin_here(
        &self,
        key: &str,
        about: About,
        kernel: &Path,
        make_room: impl Fn(u64) -> Result<()>,
    ) -> Result<Option<Unfinished>> {
        let doing = || format!("cannot write {}", self.root.display());
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(self.root.join(LOCK));
        let lock = lock.with_context(doing)?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        let boot = this_boot()?;
        self.sweep(&boot)?;
        if self.is_bad(key) || self.load(key.to_owned(), &boot).is_some() {
            return Ok(None);
        }
        make_room(most_bytes(&about))?;
        let unfinished = self.root.join(UNFINISHED);
        fs::DirBuilder::new().mode(0o700).create(&unfinished).with_context(doing)?;
        let mut options = File::options();
        let state = options.create_new(true).write(true).mode(0o600).open(unfinished.join(STATE));
        let state = state.with_context(doing)?;
        let (templates, key, kernel) = (self.clone(), key.to_owned(), kernel.to_owned());
        Ok(Some(Unfinished { templates, key, about, kernel, state, _lock: lock }))
    }

    /// Refuses a disk that is too full, even without those that were used least lately: they go first.
    fn make_room(&self, root: &File, bytes: u64) -> Result<()> {
        let mut all = self.list()?;
        let theirs = all.iter().map(|template| template.bytes).sum();
        // Where that would not do, they are not removed for nothing.
        stead_image::room::needs(root, bytes.saturating_sub(theirs))?;
        loop {
            let lacks = match stead_image::room::needs(root, bytes) {
                Ok(()) => return Ok(()),
                Err(lacks) => lacks,
            };
            let Some(least) = all.pop() else { return Err(lacks.into()) };
            self.remove(&least.key)?;
        }
    }

    /// Takes away what those left who were killed, and what is of no use any more. For who holds the lock.
    fn sweep(&self, boot: &str) -> Result<()> {
        for name in self.names()? {
            let is_of_use = match (name.strip_prefix(BAD), name.starts_with(GONE) || name == UNFINISHED) {
                (Some(key), _) => self.is_bad(key),
                (None, true) => false,
                (None, false) => {
                    name.starts_with('.')
                        || self.load(name.clone(), boot).is_some_and(|template| template.is_current)
                }
            };
            if !is_of_use && let Err(error) = self.remove(&name) {
                tracing::warn!("{error:#}");
            }
        }
        Ok(())
    }

    /// Removes a file or a directory of ours: whether it was there. A directory gets another name first, so that nobody finds half
    /// of it. Machines that go on from it are not touched by that.
    fn remove(&self, name: &str) -> Result<bool> {
        let path = self.root.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(false) };
        if !metadata.is_dir() {
            remove_if_there(&path)?;
            return Ok(true);
        }
        if name.starts_with(GONE) {
            return remove_tree(&path).map(|()| true);
        }
        let gone = self.root.join(format!("{GONE}{}", name.trim_start_matches('.')));
        // Of one who was killed.
        remove_tree(&gone)?;
        match fs::rename(&path, &gone) {
            Ok(()) => remove_tree(&gone).map(|()| true),
            // Somebody else was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    /// Removes those that are of this kernel, or all, and the one that is being made; whose keeper goes on without it.
    pub fn prune(&self, kernel: Option<&str>) -> Result<()> {
        self.remove(UNFINISHED)?;
        for name in self.names()? {
            let is_meant = match (kernel, name.starts_with('.')) {
                (None, false) => true,
                (None, true) => name.starts_with(GONE) || name.starts_with(BAD),
                (Some(_), true) => false,
                (Some(kernel), false) => {
                    self.load(name.clone(), "").is_some_and(|template| template.about.kernel == kernel)
                }
            };
            if is_meant {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Removes one that is of no use, or that could not be made, and has none made in its place for a while.
    pub fn condemn(&self, key: &str) -> Result<()> {
        self.remove(key)?;
        let mark = self.root.join(format!("{BAD}{key}"));
        let doing = || format!("cannot write {}", mark.display());
        let mut options = File::options();
        let file =
            options.create(true).truncate(true).write(true).mode(0o600).open(&mark).with_context(doing)?;
        file.set_times(FileTimes::new().set_modified(SystemTime::now())).with_context(doing)
    }

    fn is_bad(&self, key: &str) -> bool {
        let since = fs::metadata(self.root.join(format!("{BAD}{key}"))).and_then(|mark| mark.modified());
        since.is_ok_and(|since| since.elapsed().unwrap_or_default() < BAD_FOR)
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
    /// By which it will be found.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where its state is to be written.
    pub fn state(&self) -> &File {
        &self.state
    }

    /// Refuses to go on where the disk fills, or it is larger than one may be.
    pub fn check_room(&self) -> Result<()> {
        let written = self.state.metadata().context("cannot look at it")?.len();
        let most = most_bytes(&self.about);
        ensure!(written <= ONE_MAX_BYTES, "it has more than {} MiB", ONE_MAX_BYTES >> 20);
        Ok(stead_image::room::needs(&self.state, most.saturating_sub(written))?)
    }

    /// It cannot be made; nor is that tried again for a while.
    pub fn give_up(self) {
        if let Err(error) = self.templates.condemn(&self.key) {
            tracing::warn!("{error:#}");
        }
    }

    /// Puts it in its place, now that it is whole: whether it is of use still. Where that fails it is not tried again for a
    /// while.
    pub fn finish(self) -> Result<bool> {
        let put = self.put();
        if put.is_err() {
            self.give_up();
        }
        put
    }

    fn put(&self) -> Result<bool> {
        let templates = &self.templates;
        let root = &templates.root;
        let doing = || format!("cannot write {}", root.display());
        let unfinished = root.join(UNFINISHED);
        let bytes = self.state.metadata().with_context(doing)?.len();
        let record = Record { about: self.about.clone(), bytes, boot: this_boot()? };
        let text = serde_json::to_vec(&record).context("cannot write what a template is of as JSON")?;
        match write_run_file(&unfinished.join(ABOUT), &text) {
            // Somebody wants none.
            Err(_) if !unfinished.exists() => return Ok(false),
            done => done?,
        }
        fs::rename(&unfinished, root.join(&self.key)).with_context(doing)?;
        // Whoever removes the kernel does so first, and then what is kept of it.
        if templates.is_bad(&self.key) || !self.kernel.exists() {
            templates.remove(&self.key)?;
            return Ok(false);
        }
        templates.thin_out().map(|()| true)
    }
}

/// The most that one of these is large.
fn most_bytes(about: &About) -> u64 {
    about.memory_mib.saturating_mul(1 << 20).min(ONE_MAX_BYTES)
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Where it was finished there is none.
        if let Err(error) = self.templates.remove(UNFINISHED) {
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

#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A directory with a kernel, and the templates of a home.
    fn templates() -> (tempfile::TempDir, Templates) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("vmlinuz"), "").unwrap();
        let root = directory.path().join("templates");
        fs::create_dir(&root).unwrap();
        (directory, Templates { root })
    }

    fn about() -> About {
        let (kernel, accelerator) = ("6.1".to_owned(), "tcg".to_owned());
        About { kernel, cpus: 1, memory_mib: 512, nics: 0, accelerator }
    }

    #[track_caller]
    fn begin(templates: &Templates, key: &str) -> Option<Unfinished> {
        templates.begin_here(key, about(), &templates.root.with_file_name("vmlinuz"), |_| Ok(())).unwrap()
    }

    #[track_caller]
    fn make(templates: &Templates, key: &str) {
        let unfinished = begin(templates, key).unwrap();
        unfinished.state().write_all(b"state").unwrap();
        assert!(unfinished.finish().unwrap());
    }

    fn keys(templates: &Templates) -> Vec<String> {
        templates.list().unwrap().into_iter().map(|template| template.key).collect()
    }

    /// All that is there but the lock.
    fn names(templates: &Templates) -> Vec<String> {
        let mut names = templates.names().unwrap();
        names.retain(|name| name != LOCK);
        names.sort();
        names
    }

    #[test]
    fn one_is_in_its_place_when_it_is_whole_and_others_make_none_meanwhile() {
        let (_directory, templates) = templates();
        assert!(templates.open("a").unwrap().is_none() && keys(&templates).is_empty());
        let unfinished = begin(&templates, "a").unwrap();
        assert!(begin(&templates, "a").is_none() && begin(&templates, "b").is_none());
        assert!(templates.open("a").unwrap().is_none());
        drop(unfinished);
        assert!(names(&templates).is_empty());
        make(&templates, "a");
        let state = templates.open("a").unwrap().unwrap();
        assert_eq!(std::io::read_to_string(&state).unwrap(), "state");
        assert!((&state).write_all(b"x").is_err(), "whoever goes on from it cannot write it");
        assert!(begin(&templates, "a").is_none());
        assert!(templates.remove("a").unwrap() && !templates.remove("a").unwrap());
        assert!(names(&templates).is_empty());
    }

    #[test]
    fn one_that_was_cut_short_or_is_of_an_earlier_start_of_the_computer_goes() {
        let (_directory, templates) = templates();
        make(&templates, "a");
        fs::write(templates.root.join("a").join(STATE), "sta").unwrap();
        assert!(templates.open("a").unwrap().is_none() && keys(&templates).is_empty());
        make(&templates, "a");
        fs::remove_file(templates.root.join("a").join(STATE)).unwrap();
        assert!(templates.open("a").unwrap().is_none() && keys(&templates).is_empty());
        make(&templates, "a");
        let file = templates.root.join("a").join(ABOUT);
        let record = Record { about: about(), bytes: 5, boot: "another".to_owned() };
        fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
        make(&templates, "b");
        assert_eq!(names(&templates), ["b"]);
    }

    #[test]
    fn what_was_cut_off_half_way_keeps_no_other_from_its_place_and_goes() {
        let (_directory, templates) = templates();
        // Of one who was killed while he made one, while he removed one, and of an earlier version that did so in place.
        for (name, file) in [(UNFINISHED, STATE), (".gone-a", STATE), ("a", STATE), ("b", ABOUT)] {
            fs::create_dir(templates.root.join(name)).unwrap();
            fs::write(templates.root.join(name).join(file), "half").unwrap();
        }
        assert!(templates.open("a").unwrap().is_none());
        make(&templates, "a");
        assert_eq!(names(&templates), ["a"]);
        // One is removed whose name somebody who was killed had given it already.
        fs::create_dir(templates.root.join(".gone-a")).unwrap();
        fs::write(templates.root.join(".gone-a").join(STATE), "half").unwrap();
        assert!(templates.remove("a").unwrap());
        assert!(names(&templates).is_empty());
    }

    #[test]
    fn one_of_no_use_is_not_made_again_for_a_while() {
        let (_directory, templates) = templates();
        make(&templates, "a");
        templates.condemn("a").unwrap();
        assert!(templates.open("a").unwrap().is_none() && begin(&templates, "a").is_none());
        make(&templates, "b");
        // Somebody made it meanwhile.
        let unfinished = begin(&templates, "c").unwrap();
        templates.condemn("c").unwrap();
        assert!(!unfinished.finish().unwrap());
        let long_ago = SystemTime::now() - 2 * BAD_FOR;
        let mark = File::open(templates.root.join(".bad-a")).unwrap();
        mark.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
        make(&templates, "a");
        assert_eq!(names(&templates), [".bad-c", "a", "b"]);
        templates.prune(None).unwrap();
        assert!(names(&templates).is_empty());
    }

    #[test]
    fn what_is_made_while_its_kernel_goes_or_all_are_removed_is_none() {
        let (directory, templates) = templates();
        make(&templates, "a");
        let unfinished = begin(&templates, "b").unwrap();
        templates.prune(Some("5.10")).unwrap();
        assert!(!unfinished.finish().unwrap());
        assert_eq!(names(&templates), ["a"]);
        let unfinished = begin(&templates, "b").unwrap();
        templates.prune(Some("6.1")).unwrap();
        assert!(!unfinished.finish().unwrap());
        assert!(names(&templates).is_empty());
        // The kernel went, and what is kept of it was looked for just before.
        let unfinished = begin(&templates, "b").unwrap();
        fs::remove_file(directory.path().join("vmlinuz")).unwrap();
        assert!(!unfinished.finish().unwrap());
        assert!(names(&templates).is_empty());
    }

    #[test]
    fn one_that_grows_too_large_is_refused() {
        let (_directory, templates) = templates();
        let unfinished = begin(&templates, "a").unwrap();
        unfinished.state().set_len(ONE_MAX_BYTES).unwrap();
        unfinished.check_room().unwrap();
        unfinished.state().set_len(ONE_MAX_BYTES + 1).unwrap();
        let refused = unfinished.check_room().unwrap_err().to_string();
        assert_eq!(refused, "it has more than 512 MiB");
        drop(unfinished);
        let large = About { memory_mib: u64::MAX, ..about() };
        assert_eq!(most_bytes(&large), ONE_MAX_BYTES);
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
