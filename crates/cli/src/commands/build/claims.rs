//! What the names mean that buildah looks images up by. Its storage is for all builds, and a name has one meaning there:
//! builds for which it means the same go on together, and one for which it means something else waits until they ended.
//! What a name was to the last build is kept as long as the storage, which has the name for that image until then.
//!
//! ```text
//! shared, and the file says what we mean ── held until the build ends
//!      │ it says something else      ▲
//!      ▼                             │ looked at again: another may have been faster
//! alone: nobody builds with the name ─ what we mean is written
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use stead_image::digest_of;
use stead_model::image::Digest;

/// What a name means that is none of our store's: what registries say. Where it was one, it is taken from the storage
/// before this is written.
const OTHERS: &str = "registries";

/// A name, which means the same until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    _held: File,
    pub(super) name: String,
    /// The image of our store; none if registries say which one it is.
    pub(super) meaning: Option<Digest>,
}

/// Claims a name, whose meaning is asked for whenever it may have changed. Who claims several claims them in their order,
/// so that no two wait for each other. An image of our store that the name is no longer for is to `lose` it.
pub(super) fn claim(
    directory: &Path,
    name: &str,
    mean: impl Fn() -> Result<Option<Digest>>,
    lose: impl Fn() -> Result<()>,
    waits: impl Fn(),
) -> Result<Claim> {
    let doing = || format!("cannot claim the name {name} in {}", directory.display());
    fs::create_dir_all(directory).with_context(doing)?;
    // A name may be longer than a file's.
    let path = directory.join(digest_of(name.as_bytes()).hex());
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path).with_context(doing)?;
    loop {
        taken(file.try_lock_shared(), || file.lock_shared(), &waits).with_context(doing)?;
        let meaning = mean()?;
        if says(&file, meaning.as_ref()).with_context(doing)? {
            return Ok(Claim { _held: file, name: name.to_owned(), meaning });
        }
        file.unlock().with_context(doing)?;
        taken(file.try_lock(), || file.lock(), &waits).with_context(doing)?;
        let meaning = mean()?;
        if meaning.is_none() && is_of_our_store(&file).with_context(doing)? {
            lose()?;
        }
        write(&file, meaning.as_ref()).with_context(doing)?;
        file.unlock().with_context(doing)?;
    }
}

fn taken(
    tried: Result<(), TryLockError>,
    wait: impl Fn() -> io::Result<()>,
    waits: impl Fn(),
) -> io::Result<()> {
    match tried {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            waits();
            wait()
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn words(meaning: Option<&Digest>) -> &str {
    meaning.map_or(OTHERS, Digest::as_str)
}

fn says(file: &File, meaning: Option<&Digest>) -> io::Result<bool> {
    let expected = words(meaning).as_bytes();
    // One more than it may have.
    let mut found = vec![0; expected.len() + 1];
    let length = file.read_at(&mut found, 0)?;
    Ok(found.get(..length) == Some(expected))
}

/// Whether the last one who wrote meant an image of our store. Half of what was written says so, too.
fn is_of_our_store(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.len() > 0 && !says(file, None)?)
}

/// At no moment it says nothing where it said something.
fn write(file: &File, meaning: Option<&Digest>) -> io::Result<()> {
    let words = words(meaning).as_bytes();
    file.write_all_at(words, 0)?;
    file.set_len(words.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc;

    #[test]
    fn those_who_mean_the_same_go_on_together_and_others_wait_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let digest = |digit: &str| -> Digest { format!("sha256:{}", digit.repeat(64)).parse().unwrap() };
        let of = |name: &str, meaning: Option<Digest>, waits: &dyn Fn()| {
            claim(directory.path(), name, || Ok(meaning.clone()), || Ok(()), waits).unwrap()
        };
        let nobody = || panic!("nobody is in the way");
        let one = of("a:1", Some(digest("1")), &nobody);
        let same = of("a:1", Some(digest("1")), &nobody);
        let other = of("b:1", None, &nobody);
        let (told, hear) = mpsc::channel();
        std::thread::scope(|scope| {
            let late = scope.spawn(|| of("a:1", None, &|| told.send(()).unwrap()));
            hear.recv().unwrap();
            drop(one);
            assert!(!late.is_finished());
            drop(same);
            assert_eq!(late.join().unwrap().meaning, None);
        });
        // Nobody has it any more: it is as new.
        assert_eq!(of("a:1", Some(digest("2")), &nobody).meaning, Some(digest("2")));
        assert_eq!(other.name, "b:1");
    }

    #[test]
    fn what_changed_while_we_waited_is_what_it_means() {
        let directory = tempfile::tempdir().unwrap();
        let digest = |digit: &str| -> Digest { format!("sha256:{}", digit.repeat(64)).parse().unwrap() };
        let old = claim(directory.path(), "a:1", || Ok(Some(digest("1"))), || Ok(()), || {}).unwrap();
        let now = std::sync::Mutex::new((Some(old), digest("2")));
        let got = claim(
            directory.path(),
            "a:1",
            || Ok(Some(now.lock().unwrap().1.clone())),
            || Ok(()),
            || *now.lock().unwrap() = (None, digest("3")),
        );
        assert_eq!(got.unwrap().meaning, Some(digest("3")));
    }

    #[test]
    fn a_name_is_lost_once_and_only_where_it_was_ours() {
        let directory = tempfile::tempdir().unwrap();
        let digest: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        let lost = std::cell::Cell::new(0);
        let of = |meaning: Option<Digest>, loses: bool| {
            let lose = || {
                lost.set(lost.get() + 1);
                anyhow::ensure!(loses, "it cannot be taken away");
                Ok(())
            };
            claim(directory.path(), "a:1", || Ok(meaning.clone()), lose, || {}).map(drop)
        };
        of(None, true).unwrap();
        of(Some(digest), true).unwrap();
        assert_eq!(lost.get(), 0);
        // What could not be done is tried again.
        assert!(of(None, false).is_err());
        of(None, true).unwrap();
        of(None, true).unwrap();
        assert_eq!(lost.get(), 2);
    }
}
