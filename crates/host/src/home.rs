//! A home: the two directories in which one user's stead keeps what outlives a process. Two homes on one
//! computer do not see each other.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lock::{is_at, lock_directory};

/// The directories of a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// What survives a restart of the computer: records, volumes.
    pub state: PathBuf,
    /// What does not: sockets, pid files, what is being served.
    pub run: PathBuf,
}

/// What of the environment says where the home is.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `STEAD_HOME`: moves both directories.
    pub stead_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The effective user id.
    pub uid: u32,
}

impl Environment {
    /// Reads this process's.
    pub fn observe() -> Self {
        let path = |key| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        // "All paths set in these environment variables must be absolute": others count as not set.
        let base = |key| path(key).filter(|path| path.is_absolute());
        Self {
            stead_home: path("STEAD_HOME"),
            data_home: base("XDG_DATA_HOME"),
            runtime_dir: base("XDG_RUNTIME_DIR"),
            home: path("HOME"),
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

impl Home {
    /// Where the home is; pure.
    pub fn new(environment: &Environment) -> Result<Self> {
        if let Some(home) = &environment.stead_home {
            let home = std::path::absolute(home).context("cannot make STEAD_HOME absolute")?;
            return Ok(Self { state: home.join("state"), run: home.join("run") });
        }
        if environment.uid == 0 {
            return Ok(Self { state: "/var/lib/stead".into(), run: "/run/stead".into() });
        }
        let data = match (&environment.data_home, &environment.home) {
            (Some(data), _) => data.clone(),
            (None, Some(home)) => home.join(".local/share"),
            (None, None) => bail!("neither STEAD_HOME, XDG_DATA_HOME nor HOME is set; hint: {OTHER_HOME}"),
        };
        let run = match &environment.runtime_dir {
            Some(run) => run.join("stead"),
            // Without a session manager nobody makes a runtime directory for us.
            None => PathBuf::from(format!("/tmp/stead-{}", environment.uid)),
        };
        Ok(Self { state: data.join("stead"), run })
    }

    /// Makes the directories that are missing, for this user alone.
    pub fn prepare(&self) -> Result<()> {
        self.make_around_state()
            .and_then(|()| make(&self.state, &mut Vec::new()).map_err(anyhow::Error::from))
            .with_context(|| cannot_make(&self.state))?;
        self.make_run().with_context(|| cannot_make(&self.run))?;
        for directory in [&self.state, &self.run] {
            let mode = own_directory(directory)?.map_or(0, |metadata| metadata.mode());
            if mode & 0o077 != 0 {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                    .with_context(|| format!("cannot keep others out of {}", directory.display()))?;
            }
        }
        Ok(())
    }

    /// Makes what is missing around the directory for what is kept, with the word in it of what that was: all appears at
    /// once, under its own name, so that a kill leaves none that nobody knows of, and of two who are the first one is.
    fn make_around_state(&self) -> Result<()> {
        for _ in 0..FIRST_ATTEMPTS {
            let missing = missing(&self.state);
            let [outermost, _, ..] = missing.as_slice() else { return Ok(()) };
            let (Some(name), Some(place)) = (outermost.file_name(), outermost.parent()) else {
                return Ok(());
            };
            sweep(place, name);
            let unfinished = place.join(begun(name, &format!("{}-{}", std::process::id(), unique())));
            DirBuilder::new().mode(0o700).create(&unfinished)?;
            // Another first command may have taken it for what was left.
            let held = File::open(&unfinished).ok().filter(|file| file.try_lock().is_ok());
            if !held.as_ref().is_some_and(|file| is_at(file, &unfinished)) {
                continue;
            }
            let below =
                self.state.strip_prefix(outermost).context("a path is not below its own beginning")?;
            let made = DirBuilder::new().recursive(true).mode(0o700).create(unfinished.join(below));
            let around: Vec<&PathBuf> = missing.iter().filter(|path| **path != self.state).collect();
            let is_first = made.map_err(anyhow::Error::from).and_then(|()| {
                record(&unfinished.join(below).join(MADE_AROUND), &around)?;
                Ok(fs::rename(&unfinished, outermost).is_ok())
            });
            if !matches!(is_first, Ok(true)) {
                fs::remove_dir_all(&unfinished)?;
            }
            if is_first? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the directory for what lives. Those around it are written down before they are made.
    fn make_run(&self) -> Result<()> {
        if self.run.is_dir() {
            return Ok(());
        }
        let _held = lock_directory(&self.state, FIRST_LIMIT, &mut |_| {})?;
        let missing = missing(&self.run);
        let around = || missing.iter().filter(|path| **path != self.run);
        let known = self.goes_with_it();
        if around().next().is_some() {
            record(&self.made_around(), &around().chain(&known).collect::<Vec<_>>())?;
        }
        let mut made = Vec::new();
        make(&self.run, &mut made)?;
        if around().any(|path| !made.contains(path)) {
            // Somebody else made it meanwhile.
            record(
                &self.made_around(),
                &around().filter(|path| made.contains(path)).chain(&known).collect::<Vec<_>>(),
            )?;
        }
        Ok(())
    }

    /// The directory that holds both and nothing else, where `STEAD_HOME` says where they are.
    fn around(&self) -> Option<&Path> {
        self.state.parent().filter(|around| self.run.parent() == Some(*around))
    }

    /// Says which directories around them were made by us.
    fn made_around(&self) -> PathBuf {
        self.state.join(MADE_AROUND)
    }

    /// The directories that go with the home, those within others first: the ones around it that were made for it.
    pub fn goes_with_it(&self) -> Vec<PathBuf> {
        let Ok(text) = fs::read(self.made_around()) else { return Vec::new() };
        if text.is_empty() {
            // As earlier versions said that it was the one around both.
            return self.around().map(Path::to_owned).into_iter().collect();
        }
        let all: Vec<PathBuf> = serde_json::from_slice(&text).unwrap_or_default();
        let is_around = |path: &&PathBuf| self.state.starts_with(path) || self.run.starts_with(path);
        let all: BTreeSet<PathBuf> = all.iter().filter(is_around).cloned().collect();
        all.into_iter().rev().collect()
    }

    /// Refuses directories of somebody else: in `/tmp` anyone could have made them before us, and what is in
    /// them is believed.
    pub fn check(&self) -> Result<()> {
        [&self.state, &self.run].into_iter().try_for_each(|directory| own_directory(directory).map(drop))
    }

    /// Whether anything of this home exists.
    pub fn exists(&self) -> bool {
        self.state.exists() || self.run.exists()
    }

    /// The records.
    pub fn database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// The directory of the project for networks and machines that were made by command.
    pub fn loose_project(&self) -> PathBuf {
        self.state.join("default")
    }

    /// Where volumes are: a directory a project, and in it one a volume.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// The machines that we run: a directory each.
    pub fn machines(&self) -> PathBuf {
        self.state.join("machines")
    }

    /// The volumes without a name of those that are made anew, until they are.
    pub fn aside(&self) -> PathBuf {
        self.state.join("aside")
    }

    /// The files of those that are to be like others, until they are machines.
    pub fn clones(&self) -> PathBuf {
        self.state.join("clones")
    }

    /// The sockets and pids of their keepers: a directory each.
    pub fn keepers(&self) -> PathBuf {
        self.run.join("machines")
    }

    /// Texts of secrets and configs that stand in projects' files.
    pub fn texts(&self) -> PathBuf {
        self.state.join("texts")
    }

    /// The store of images.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// What buildah keeps of the images that it built.
    pub fn build(&self) -> PathBuf {
        self.state.join("build")
    }

    /// What builds need while they last.
    pub fn building(&self) -> PathBuf {
        self.state.join("building")
    }

    /// What happened to machines, networks and volumes.
    pub fn journal(&self) -> PathBuf {
        self.state.join("events.jsonl")
    }

    /// The keys of logins.
    pub fn ssh(&self) -> PathBuf {
        self.state.join("ssh")
    }

    /// The kernels of guests.
    pub fn kernels(&self) -> PathBuf {
        self.state.join("kernels")
    }

    /// Guests that were saved when they had booted, for others to go on from.
    pub fn templates(&self) -> PathBuf {
        self.state.join("templates")
    }

    /// The images of disks that machines were made from.
    pub fn disks(&self) -> PathBuf {
        self.state.join("disks")
    }

    /// What runs guests here, once that was tried.
    pub fn accelerator(&self) -> PathBuf {
        self.run.join("accelerator.json")
    }

    /// What the switchboard serves.
    pub fn served(&self) -> PathBuf {
        self.run.join("served.json")
    }

    /// The leases of machines that are not ours.
    pub fn strangers(&self) -> PathBuf {
        self.run.join("strangers.json")
    }

    /// The way out that was made, with what is needed to recognise it.
    pub fn uplink(&self) -> PathBuf {
        self.run.join("uplink.json")
    }

    /// What its end in the engine's namespace had then.
    pub fn uplink_end(&self) -> PathBuf {
        self.run.join("uplink-end.json")
    }
}

/// What says which directories around a home were made by us.
const MADE_AROUND: &str = "made-around";

/// Each time somebody else made one of the directories meanwhile; there are only so many.
const FIRST_ATTEMPTS: u32 = 10;

/// Who makes a directory has done that in milliseconds.
const FIRST_LIMIT: Duration = Duration::from_secs(10);

fn cannot_make(directory: &Path) -> String {
    format!("cannot make {}; hint: {OTHER_HOME}", directory.display())
}

/// The directories of a path that are not there, from the outermost to itself.
fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().take_while(|path| is_nowhere(path)).map(Path::to_owned).collect();
    missing.retain(|path| !path.as_os_str().is_empty());
    missing.reverse();
    missing
}

/// Writes down that these directories were made by us, or are about to be.
fn record(file: &Path, made: &[&PathBuf]) -> Result<()> {
    let text = serde_json::to_vec(made).context("cannot write paths as JSON")?;
    write_whole(file, &text)
}

/// What a directory is called until it is whole.
fn begun(name: &OsStr, who: &str) -> OsString {
    let mut begun = OsString::from(".");
    begun.push(name);
    begun.push(format!(".stead-{who}"));
    begun
}

/// A number that nothing else in this process has.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Takes away what those left who were killed as they made this directory: who still does holds its lock.
fn sweep(place: &Path, name: &OsStr) {
    let begins = begun(name, "");
    let Ok(entries) = fs::read_dir(place) else { return };
    let of_ours = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(begins.as_encoded_bytes()));
    for path in of_ours.map(|entry| entry.path()) {
        if matches!(own_directory(&path), Ok(Some(_)))
            && let Ok(directory) = File::open(&path)
            && directory.try_lock().is_ok()
        {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Makes a directory for this user alone, and those around it that are not there. Those that it made are added to `made`:
/// that is known for sure, as each is made or found by itself.
fn make(directory: &Path, made: &mut Vec<PathBuf>) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {
            made.push(directory.to_owned());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let around = directory.parent().filter(|around| !around.as_os_str().is_empty()).ok_or(error)?;
            make(around, made)?;
            // Not again from the start: some file systems say the same whatever is there.
            match DirBuilder::new().mode(0o700).create(directory) {
                Ok(()) => made.push(directory.to_owned()),
                // Another command was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
                Err(error) => return Err(error),
            }
            Ok(())
        }
        // A file in its place is told by whoever looks next.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where a file is written before it takes its place. Always the same, so that what a kill leaves behind is
/// overwritten by the next writer; writers hold the home's lock.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Takes away what a kill left of the writing of this file.
pub fn remove_unfinished(path: &Path) -> Result<()> {
    remove_if_there(&unfinished(path))
}

/// What to do about a home that cannot be had.
const OTHER_HOME: &str = "set STEAD_HOME to a directory of your own, where stead can write";

/// What is known of a directory that has to be ours; nothing if it is not there.
fn own_directory(directory: &Path) -> Result<Option<fs::Metadata>> {
    let metadata = match fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", directory.display())),
    };
    let uid = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != uid {
        bail!("{} is not a directory of user {uid}; hint: {OTHER_HOME}", directory.display());
    }
    Ok(Some(metadata))
}

/// Writes a small file whole or not at all, also across a loss of power.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, fs::File::sync_all)
}

/// The same, of a file that nobody writes and whoever comes to it may read.
pub fn write_for_all(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, |file| {
        // Whatever this user's files are like otherwise.
        file.set_permissions(fs::Permissions::from_mode(0o444))?;
        file.sync_all()
    })
}

/// Writes a small file whole or not at all, as long as there is power. It is for what processes that live know, which
/// go with the power as well: a file that was damaged by that is as good as none. So nothing waits for a disk.
pub fn write_run_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, |_| Ok(()))
}

/// A small file that is on the disk, and not yet in its place. Dropped, it never comes there.
#[derive(Debug)]
pub struct Prepared {
    path: PathBuf,
    is_put: bool,
}

impl Prepared {
    /// Waits for the disk.
    pub fn write(path: &Path, bytes: &[u8]) -> Result<Self> {
        prepare(path, bytes, fs::File::sync_all)
    }

    /// Takes its place: at one blow.
    pub fn put(mut self) -> Result<()> {
        let put = fs::rename(unfinished(&self.path), &self.path);
        self.is_put = put.is_ok();
        put.with_context(|| doing_write(&self.path))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.is_put {
            // Why it is not wanted matters, not whether its debris could be removed as well.
            let _ = fs::remove_file(unfinished(&self.path));
        }
    }
}

fn doing_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

fn prepare(path: &Path, bytes: &[u8], settle: impl Fn(&fs::File) -> std::io::Result<()>) -> Result<Prepared> {
    let prepared = Prepared { path: path.to_owned(), is_put: false };
    let written = fs::File::create(unfinished(path)).and_then(|mut file| {
        std::io::Write::write_all(&mut file, bytes)?;
        settle(&file)
    });
    written.with_context(|| doing_write(path)).map(|()| prepared)
}

fn replace(path: &Path, bytes: &[u8], settle: impl Fn(&fs::File) -> std::io::Result<()>) -> Result<()> {
    prepare(path, bytes, settle)?.put()
}

/// Removes a file that may already be gone.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // Where nothing can be written that is said before it is looked for.
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem && is_nowhere(path) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

fn is_nowhere(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(environment: &Environment, state: &str, run: &str) {
        let home = Home::new(environment).unwrap();
        assert_eq!((home.state.to_str().unwrap(), home.run.to_str().unwrap()), (state, run));
    }

    #[test]
    fn a_home_is_found_from_the_environment() {
        let mut environment = Environment { uid: 0, ..Environment::default() };
        check(&environment, "/var/lib/stead", "/run/stead");
        environment.uid = 1000;
        assert!(Home::new(&environment).is_err());
        environment.home = Some("/home/a".into());
        check(&environment, "/home/a/.local/share/stead", "/tmp/stead-1000");
        environment.runtime_dir = Some("/run/user/1000".into());
        environment.data_home = Some("/data".into());
        check(&environment, "/data/stead", "/run/user/1000/stead");
        environment.stead_home = Some("/x".into());
        check(&environment, "/x/state", "/x/run");
    }

    #[test]
    fn what_is_prepared_takes_its_place_or_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_whole(&path, b"before").unwrap();
        drop(Prepared::write(&path, b"never").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let prepared = Prepared::write(&path, b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        prepared.put().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn directories_that_were_made_for_a_home_are_known_and_no_others() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        fs::create_dir(path("there")).unwrap();
        let home = Home { state: path("a/share/stead"), run: path("there/stead") };
        home.prepare().unwrap();
        assert_eq!(home.goes_with_it(), [path("a/share"), path("a")]);
        home.prepare().unwrap();
        assert_eq!(home.goes_with_it(), [path("a/share"), path("a")]);
        // What is made later is known with what was made before.
        fs::remove_dir_all(path("there")).unwrap();
        home.prepare().unwrap();
        assert_eq!(home.goes_with_it(), [path("there"), path("a/share"), path("a")]);
        // Nobody makes us remove what is elsewhere.
        fs::write(home.made_around(), "[\"/tmp\", \"/etc\"]").unwrap();
        assert!(home.goes_with_it().iter().all(|path| home.state.starts_with(path)));
        let old = Home { state: path("x/state"), run: path("x/run") };
        fs::create_dir_all(&old.state).unwrap();
        assert!(old.goes_with_it().is_empty());
        fs::write(old.made_around(), "").unwrap();
        assert_eq!(old.goes_with_it(), [path("x")]);
    }

    #[test]
    fn what_a_killed_first_command_left_is_taken_away_and_several_first_ones_agree() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let home = Home { state: path("a/share/stead"), run: path("b/c/stead") };
        fs::create_dir_all(path(".a.stead-4711-0/share/stead")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| home.prepare().unwrap());
            }
        });
        assert_eq!(home.goes_with_it(), [path("b/c"), path("b"), path("a/share"), path("a")]);
        home.prepare().unwrap();
        let mut here: Vec<_> =
            fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        here.sort();
        assert_eq!(here, ["a", "b"]);
        assert_eq!(fs::metadata(path("a/share")).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_may_enter_is_closed_and_a_link_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home { state: temporary.path().join("state"), run: temporary.path().join("run") };
        fs::create_dir(&home.state).unwrap();
        fs::set_permissions(&home.state, fs::Permissions::from_mode(0o755)).unwrap();
        home.prepare().unwrap();
        assert_eq!(fs::metadata(&home.state).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir(&home.run).unwrap();
        std::os::unix::fs::symlink("/tmp", &home.run).unwrap();
        assert!(home.prepare().is_err());
        assert!(home.check().is_err());
    }

    #[test]
    fn what_another_user_put_in_the_way_is_not_believed() {
        let temporary = tempfile::tempdir().unwrap();
        // `/proc/1` is root's, or is nobody's in a user namespace; `/proc/self/task` is ours either way.
        let home = Home { state: temporary.path().join("state"), run: "/proc/sys".into() };
        let uid = rustix::process::geteuid().as_raw();
        if fs::metadata("/proc/sys").unwrap().uid() != uid {
            let error = home.check().unwrap_err().to_string();
            assert!(error.contains("is not a directory of user"), "{error}");
        }
        fs::create_dir(&home.state).unwrap();
        let home = Home { run: temporary.path().join("run"), ..home };
        home.check().unwrap();
        if uid == 0 {
            std::os::unix::fs::chown(&home.state, Some(1234), None).unwrap();
            let error = home.check().unwrap_err().to_string();
            assert!(error.contains("hint: set STEAD_HOME"), "{error}");
        }
    }
}
