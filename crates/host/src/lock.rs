//! One command at a time changes a home. The others wait, and say for whom.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::home::Home;

/// A change takes seconds; a command that holds the home this long is stuck.
const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// From then on waiting feels like hanging.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// How often a waiting command tries again.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// As much of a holder's command line as tells which it is.
const HOLDER_MAX_CHARS: usize = 100;

/// The right to change a home, held until dropped. The kernel frees it when its holder dies.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// Another command holds the home for longer than one does that is not stuck.
#[derive(Debug)]
pub struct Held(
    /// Which.
    pub String,
);

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} still holds the home after {} s", self.0, WAIT_LIMIT.as_secs())
    }
}

impl std::error::Error for Held {}

/// Takes the lock, waiting for another command if need be; `waiting` is told once, after half a second.
pub fn lock(home: &Home, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<HomeLock> {
    home.prepare()?;
    loop {
        let file = open(home, true).with_context(|| doing(home))?;
        match turn(home, file, me, waiting)? {
            Some(lock) => return Ok(lock),
            None => home.prepare()?,
        }
    }
}

/// The same for a command that only looks: in a home that is not there, or is purged meanwhile, nobody does anything.
pub fn lock_if_there(home: &Home, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<Option<HomeLock>> {
    match open(home, false) {
        Ok(file) => turn(home, file, me, waiting),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| doing(home)),
    }
}

fn open(home: &Home, make: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(make).truncate(false).open(home.run.join("lock"))
}

fn doing(home: &Home) -> String {
    format!("cannot lock {}", home.run.join("lock").display())
}

/// Waits until the file is ours. None if who held it has purged the home: what we have locked is nobody's file any more.
fn turn(home: &Home, mut file: File, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<Option<HomeLock>> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) if is_at(&file, &home.run.join("lock")) => break,
            Ok(()) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| doing(home)),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited > WAIT_LIMIT {
            return Err(Held(holder(&mut file)).into());
        }
        if !told && waited > TELL_AFTER {
            told = true;
            waiting(&holder(&mut file));
        }
        std::thread::sleep(RETRY_EVERY);
    }
    // Who holds it is only for the message above: a failure to write it changes nothing. What is left after the line was
    // said by others; to cut it off could take as long as a disk does.
    let me: String = me.chars().filter(|c| !c.is_control()).collect();
    let line = format!("`{me}` (process {})\n", std::process::id());
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(line.as_bytes()));
    Ok(Some(HomeLock { _file: file }))
}

/// Keeps two commands from bringing up the project in this directory at once: one sees nothing of the jobs that the other
/// has already seen complete. `waiting` is told once, after half a second, of whom.
pub fn lock_project(directory: &Path, waiting: &mut dyn FnMut(&str)) -> Result<File> {
    lock_directory(directory, WAIT_LIMIT, waiting)
}

pub(crate) fn lock_directory(
    directory: &Path,
    limit: Duration,
    waiting: &mut dyn FnMut(&str),
) -> Result<File> {
    let doing = || format!("cannot lock {}", directory.display());
    let file = File::open(directory).with_context(doing)?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited > limit {
            let (who, limit_s) = (holder_of_directory(&file), limit.as_secs());
            // It may well wait for a job of the project that takes this long.
            bail!(
                "{who} still holds {} after {limit_s} s; hint: run it again when that has ended, or end it; any program \
                 that may read the directory can hold its lock (`chmod go-rx` keeps other users out)",
                directory.display()
            );
        }
        if !told && waited > TELL_AFTER {
            told = true;
            waiting(&holder_of_directory(&file));
        }
        std::thread::sleep(RETRY_EVERY);
    }
}

/// Takes the lock if nobody has it, and nothing is to be waited for. A home of which nothing runs has none.
pub fn lock_if_free(home: &Home) -> Result<Option<HomeLock>> {
    let Ok(file) = open(home, false) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) if is_at(&file, &home.run.join("lock")) => Ok(Some(HomeLock { _file: file })),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| doing(home)),
    }
}

/// Whether this is the file that is found by this path.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().ok().zip(std::fs::metadata(path).ok()).is_some_and(|(a, b)| same(a, b))
}

/// The words that the holder left.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(200).read_to_string(&mut text));
    match read {
        Ok(length) if length > 0 => {
            text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
        }
        Ok(_) | Err(_) => "another command".to_owned(),
    }
}

/// The process that has the lock of a directory, in which no words can be left: as the kernel knows it, if it is one that
/// can be seen from here.
fn holder_of_directory(directory: &File) -> String {
    let holder = || {
        let metadata = directory.metadata().ok()?;
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let pid = holder_among(&locks, &metadata, &|pid| has_open(pid, &metadata))?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
        let line: String = line.chars().filter(|c| !c.is_control()).take(HOLDER_MAX_CHARS).collect();
        Some(if line.is_empty() { format!("process {pid}") } else { format!("`{line}` (process {pid})") })
    };
    holder().unwrap_or_else(|| "another process".to_owned())
}

/// Who of `/proc/locks` has the lock of this directory. Its device there is another than `stat` tells where a file system
/// has several (btrfs one for each subvolume, overlayfs): then it is the one who has the directory open, as far as
/// `has_open` can tell, or the only one with a lock of such a number.
fn holder_among(locks: &str, directory: &Metadata, has_open: &dyn Fn(u32) -> Option<bool>) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(directory.dev()), rustix::fs::minor(directory.dev()));
    let (place, number) =
        (format!("{major:02x}:{minor:02x}:{}", directory.ino()), format!(":{}", directory.ino()));
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`; of those who wait there is an arrow before the kind.
    let words = locks.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let held = words.filter_map(|words| match words.as_slice() {
        ["FLOCK", _, _, pid, at, ..] if at.ends_with(&number) => {
            Some((pid.parse::<u32>().ok().filter(|pid| *pid > 0)?, *at == place))
        }
        _ => None,
    });
    let held: Vec<(u32, bool)> = held.collect();
    if let Some((pid, _)) = held.iter().find(|(_, is_there)| *is_there) {
        return Some(*pid);
    }
    let judged: Vec<(u32, Option<bool>)> = held.iter().map(|(pid, _)| (*pid, has_open(*pid))).collect();
    if let Some((pid, _)) = judged.iter().find(|(_, open)| *open == Some(true)) {
        return Some(*pid);
    }
    match judged.iter().filter(|(_, open)| open.is_none()).collect::<Vec<_>>().as_slice() {
        [(pid, _)] => Some(*pid),
        _ => None,
    }
}

/// Whether a process has a directory open; none if that cannot be seen.
fn has_open(pid: u32, directory: &Metadata) -> Option<bool> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut known = files.filter_map(|file| std::fs::metadata(file.path()).ok());
    Some(known.any(|file| (file.dev(), file.ino()) == (directory.dev(), directory.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().into(), run: directory.path().into() };
        let first = lock(&home, "stead up", &mut |_| panic!("nobody holds it")).unwrap();
        let mut first = Some(first);
        let mut told = Vec::new();
        lock(&home, "stead down", &mut |holder| {
            told.push(holder.to_owned());
            first.take();
        })
        .unwrap();
        assert_eq!(told, [format!("`stead up` (process {})", std::process::id())]);
    }

    #[test]
    fn of_a_longer_word_that_another_left_nothing_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().into(), run: directory.path().into() };
        drop(lock(&home, "stead network connect somewhere", &mut |_| panic!("nobody holds it")).unwrap());
        let _held = lock(&home, "stead\nrm", &mut |_| panic!("nobody holds it")).unwrap();
        let mut file = open(&home, false).unwrap();
        assert_eq!(holder(&mut file), format!("`steadrm` (process {})", std::process::id()));
    }

    #[test]
    fn a_directory_is_waited_for_with_a_limit_and_its_holder_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let me = format!("(process {})", std::process::id());
        let mut first = Some(lock_project(directory.path(), &mut |_| panic!("nobody holds it")).unwrap());
        let mut told = Vec::new();
        let mut tell = |holder: &str| told.push(holder.to_owned());
        let error = lock_directory(directory.path(), TELL_AFTER * 2, &mut tell).unwrap_err().to_string();
        assert_eq!(told.len(), 1);
        assert!(told[0].ends_with(&me), "{told:?}");
        let at = directory.path().display();
        assert!(error.starts_with(&format!("{} still holds {at} after 1 s; hint: ", told[0])), "{error}");
        lock_project(directory.path(), &mut |_| drop(first.take())).unwrap();
    }

    #[test]
    fn a_holder_is_found_where_the_kernel_calls_the_device_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = std::fs::metadata(directory.path()).unwrap();
        let number = metadata.ino();
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let line = |pid: u32, device: &str, number: u64| {
            format!(
                "1: FLOCK  ADVISORY  WRITE {pid} {device}:{number} 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 9 {device}:{number} 0 EOF\n"
            )
        };
        let check = |locks: &str, open: &dyn Fn(u32) -> Option<bool>, expected: Option<u32>| {
            assert_eq!(holder_among(locks, &metadata, open), expected, "{locks}");
        };
        let (here, elsewhere) = (format!("{major:02x}:{minor:02x}"), "ff:7e");
        let two = line(5, elsewhere, number) + &line(6, elsewhere, number);
        check(&(two.clone() + &line(7, &here, number)), &|_| Some(false), Some(7));
        check(&two, &|pid| Some(pid == 6), Some(6));
        check(&two, &|pid| (pid == 5).then_some(false), Some(6));
        check(&two, &|_| None, None);
        check(&line(5, elsewhere, number), &|_| None, Some(5));
        check(&line(5, elsewhere, number + 1), &|_| None, None);
        let _open = File::open(directory.path()).unwrap();
        assert_eq!(has_open(std::process::id(), &metadata), Some(true));
        assert_eq!(has_open(0, &metadata), None);
    }

    #[test]
    fn the_lock_of_a_home_that_was_purged_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { state: directory.path().join("state"), run: directory.path().join("run") };
        let first = lock(&home, "stead purge", &mut |_| panic!("nobody holds it")).unwrap();
        let mut first = Some(first);
        let _second = lock(&home, "stead up", &mut |_| {
            std::fs::remove_dir_all(&home.run).unwrap();
            first.take();
        })
        .unwrap();
        // A third one, whose file is that in the directory, has to wait for the second.
        let third = OpenOptions::new().write(true).open(home.run.join("lock")).unwrap();
        assert!(matches!(third.try_lock(), Err(TryLockError::WouldBlock)));
    }
}
