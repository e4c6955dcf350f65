//! Trees of directories that somebody else made, as deep as they like: walked by open directories, of which only the
//! last few are held, and never by a path. So neither the number of descriptors that a process may have nor the length
//! of a path is a limit to what can be counted or taken away; nor is memory, as a directory's names are read in batches.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

/// Directories that are open at the same time: far fewer than the 1024 files that a process may have by default.
const OPEN_MAX: usize = 64;

/// Names of a directory that are held at the same time: it may have millions.
const NAMES_MAX: usize = 4096;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is in a tree that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Files of any kind.
    Files,
    /// Cgroups, whose files go with them.
    Cgroups,
}

/// Takes a tree away; what is not there is no error.
pub(crate) fn remove(tree: &Path, contents: Contents) -> Result<(), Errno> {
    let top = match take(CWD, tree, contents)? {
        Taken::Gone => return Ok(()),
        Taken::Directory(fd) => fd,
    };
    let mut way = Way::begin(top, Walk::Remove(contents))?;
    while let Some(level) = way.0.last_mut() {
        let Some(name) = level.next(Walk::Remove(contents))? else {
            let Some((parent, name)) = way.leave()? else { break };
            gone(unlinkat(parent, &name, AtFlags::REMOVEDIR))?;
            continue;
        };
        match take(level.fd()?, name.as_c_str(), contents)? {
            Taken::Gone => {}
            Taken::Directory(fd) => way.enter(name, fd, Walk::Remove(contents))?,
        }
    }
    gone(unlinkat(CWD, tree, AtFlags::REMOVEDIR))
}

/// Shows each directory of a tree to somebody who may say that it is not there any more.
pub(crate) fn visit(
    tree: &Path,
    mut look: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let top = match openat(CWD, tree, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    look(top.as_fd())?;
    let mut way = Way::begin(top, Walk::Look)?;
    while let Some(level) = way.0.last_mut() {
        let Some(name) = level.next(Walk::Look)? else {
            if way.leave()?.is_none() {
                break;
            }
            continue;
        };
        match openat(level.fd()?, name.as_c_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(errno),
            Ok(fd) => {
                look(fd.as_fd())?;
                way.enter(name, fd, Walk::Look)?;
            }
        }
    }
    Ok(())
}

/// What became of a name.
enum Taken {
    Gone,
    /// It is a directory with something in it.
    Directory(OwnedFd),
}

/// Takes away what is at a name, if that can be done at one blow.
fn take(parent: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy, what: Contents) -> Result<Taken, Errno> {
    let flags = match what {
        Contents::Files => AtFlags::empty(),
        Contents::Cgroups => AtFlags::REMOVEDIR,
    };
    let refused = match unlinkat(parent, name, flags) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Taken::Gone),
        // A directory; or, of cgroups, one that has others in it or processes.
        Err(errno @ (Errno::ISDIR | Errno::PERM | Errno::BUSY | Errno::NOTEMPTY)) => errno,
        Err(errno) => return Err(errno),
    };
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(fd) => Ok(Taken::Directory(fd)),
        Err(Errno::NOENT) => Ok(Taken::Gone),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(refused),
        Err(errno) => Err(errno),
    }
}

fn gone(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// From the top to where one is.
struct Way(Vec<Level>);

struct Level {
    /// Only of the last few.
    fd: Option<OwnedFd>,
    /// Device and inode: which directory it is.
    identity: (u64, u64),
    name: CString,
    /// What was read of what is in it, and not looked at yet.
    below: Vec<CString>,
    /// From where there is more to be read.
    more: Option<i64>,
}

/// What a tree is walked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// All goes that one comes by.
    Remove(Contents),
    /// All stays, and directories are looked at.
    Look,
}

impl Level {
    fn new(name: CString, fd: OwnedFd, walk: Walk) -> Result<Self, Errno> {
        let (below, more) = names(fd.as_fd(), walk, 0)?;
        Ok(Self { identity: identity(fd.as_fd())?, fd: Some(fd), name, below, more })
    }

    /// What is in it and comes next.
    fn next(&mut self, walk: Walk) -> Result<Option<CString>, Errno> {
        if self.below.is_empty()
            && let Some(from) = self.more
        {
            (self.below, self.more) = names(self.fd()?, walk, from)?;
        }
        Ok(self.below.pop())
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.fd.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }
}

impl Way {
    fn begin(top: OwnedFd, walk: Walk) -> Result<Self, Errno> {
        Ok(Self(vec![Level::new(CString::default(), top, walk)?]))
    }

    fn enter(&mut self, name: CString, fd: OwnedFd, walk: Walk) -> Result<(), Errno> {
        self.0.push(Level::new(name, fd, walk)?);
        let far = self.0.len().checked_sub(OPEN_MAX + 1).and_then(|place| self.0.get_mut(place));
        if let Some(far) = far {
            far.fd = None;
        }
        Ok(())
    }

    /// Goes up: the directory where one is then, and the name of where one was. `None` at the top.
    fn leave(&mut self) -> Result<Option<(BorrowedFd<'_>, CString)>, Errno> {
        let Some(left) = self.0.pop() else { return Ok(None) };
        let Some(here) = self.0.last_mut() else { return Ok(None) };
        if here.fd.is_none() {
            let fd = openat(left.fd()?, c"..", DIRECTORY, Mode::empty())?;
            // Somebody moved it meanwhile: what is above is none of ours.
            if identity(fd.as_fd())? != here.identity {
                return Err(Errno::STALE);
            }
            here.fd = Some(fd);
        }
        Ok(Some((here.fd()?, left.name)))
    }
}

fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Some of what is in a directory, and from where there is more.
fn names(directory: BorrowedFd<'_>, walk: Walk, from: i64) -> Result<(Vec<CString>, Option<i64>), Errno> {
    let mut names = Vec::new();
    let mut entries = Dir::read_from(directory)?;
    if from != 0 {
        entries.seek(from)?;
    }
    for entry in entries {
        let entry = match entry {
            // It went while we looked.
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let is_wanted = walk == Walk::Remove(Contents::Files) || entry.file_type() == FileType::Directory;
        let name: &CStr = entry.file_name();
        if !is_wanted || name == c"." || name == c".." {
            continue;
        }
        names.push(name.to_owned());
        if names.len() == NAMES_MAX {
            let next = match walk {
                // What was read is gone then, so the rest begins where this did.
                Walk::Remove(_) => 0,
                Walk::Look => entry.offset(),
            };
            return Ok((names, Some(next)));
        }
    }
    Ok((names, None))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;

    /// Directories in each other, the names of which together are longer than a path may be.
    fn deep(top: &Path, levels: usize) {
        let name = "n".repeat(200);
        let mut here = openat(CWD, top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..levels {
            mkdirat(&here, name.as_str(), Mode::RWXU).unwrap();
            mkdirat(&here, "empty", Mode::RWXU).unwrap();
            openat(&here, "file", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
            here = openat(&here, name.as_str(), DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_paths_reach_is_walked_and_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        deep(&tree, 1500);
        let (mut count, mut most_open) = (0, 0);
        visit(&tree, |fd| {
            count += 1;
            most_open = most_open.max(std::os::fd::AsRawFd::as_raw_fd(&fd));
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 1 + 2 * 1500);
        // Other tests of this process have files open as well.
        assert!(most_open < 500, "{most_open}");
        std::os::unix::fs::symlink("/", tree.join("link")).unwrap();
        remove(&tree, Contents::Files).unwrap();
        assert!(!tree.exists());
        remove(&tree, Contents::Files).unwrap();
    }

    #[test]
    fn a_directory_with_very_many_names_is_walked_and_taken_away_in_batches() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let top = openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        for number in 0..2 * NAMES_MAX + 10 {
            mkdirat(&top, number.to_string(), Mode::RWXU).unwrap();
        }
        for walk in [Walk::Remove(Contents::Files), Walk::Remove(Contents::Cgroups), Walk::Look] {
            assert_eq!(names(top.as_fd(), walk, 0).unwrap().0.len(), NAMES_MAX, "{walk:?}");
        }
        let mut seen = std::collections::BTreeSet::new();
        visit(&tree, |fd| {
            seen.insert(identity(fd)?);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.len(), 1 + 2 * NAMES_MAX + 10);
        for number in 0..NAMES_MAX + 10 {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&top, format!("file{number}"), flags, Mode::RUSR).unwrap();
        }
        remove(&tree, Contents::Files).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_link_goes_and_not_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let (precious, link) = (directory.path().join("precious"), directory.path().join("link"));
        std::fs::create_dir_all(precious.join("more")).unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        remove(&link, Contents::Files).unwrap();
        assert!(precious.join("more").exists() && !link.is_symlink());
    }
}
