//! One command at a time changes a home. The others wait, and say for whom.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::home::Home;

/// A change takes seconds; a command that holds the home this long is stuck.
const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// How often a waiting command tries again.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The right to change a home, held until dropped. The kernel frees it when its holder dies.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// Takes the lock, waiting for another command if need be; `waiting` is told once, after half a second.
pub fn lock(home: &Home, me: &str, waiting: &mut dyn FnMut(&str)) -> Result<HomeLock> {
    let path = home.run.join("lock");
    let doing = || format!("cannot lock {}", path.display());
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.with_context(doing)?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited > WAIT_LIMIT {
            bail!("{} still holds the home after {} s", holder(&mut file), WAIT_LIMIT.as_secs());
        }
        if !told && waited > Duration::from_millis(500) {
            told = true;
            waiting(&holder(&mut file));
        }
        std::thread::sleep(RETRY_EVERY);
    }
    // Who holds it is only for the message above: a failure to write it changes nothing.
    let _ = file.set_len(0);
    let _ = file.seek(SeekFrom::Start(0));
    let _ = write!(file, "`{me}` (process {})", std::process::id());
    Ok(HomeLock { _file: file })
}

/// The words that the holder left.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(200).read_to_string(&mut text));
    match read {
        Ok(length) if length > 0 => text.chars().filter(|c| !c.is_control()).collect(),
        Ok(_) | Err(_) => "another command".to_owned(),
    }
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
}
