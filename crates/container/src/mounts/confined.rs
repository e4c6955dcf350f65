//! Paths of a container, looked up within a directory that is its root: whatever its links say, nothing outside of it
//! is reached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat, openat2, readlinkat, statat,
    statx,
};
use rustix::io::Errno;

/// How many links a path may have.
const LINKS_MAX: u32 = 40;

/// The kernel gives up on `..` whenever something is renamed or mounted anywhere on the computer meanwhile.
const TRIES_MAX: u32 = 10_000;

/// What is made where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// Opens what is at this path, links followed.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let below = path.trim_start_matches('/');
    let below = if below.is_empty() { "." } else { below };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut left = TRIES_MAX;
    loop {
        match openat2(root, below, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) if left > 0 => left -= 1,
            done => return done,
        }
    }
}

/// Opens what is at this path as a place to mount at, and makes it and the directories above where they are missing.
pub(crate) fn place(root: BorrowedFd<'_>, path: &str, make: Make) -> rustix::io::Result<OwnedFd> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let mut left = LINKS_MAX;
    let mut wanted: Vec<PathBuf> = parts(Path::new(path)).rev().collect();
    let mut done = PathBuf::new();
    while let Some(part) = wanted.pop() {
        if part.as_os_str() == ".." {
            done.pop();
            continue;
        }
        let parent = open_directory(root, &done)?;
        match statat(&parent, &part, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                left = left.checked_sub(1).ok_or(Errno::LOOP)?;
                let link = readlinkat(&parent, &part, Vec::new())?;
                let link = PathBuf::from(std::ffi::OsString::from(link.to_string_lossy().into_owned()));
                if link.is_absolute() {
                    done.clear();
                }
                wanted.extend(parts(&link).rev());
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) if wanted.is_empty() && make == Make::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(openat(&parent, &part, flags, Mode::from_raw_mode(0o644))?);
            }
            Err(Errno::NOENT) => mkdirat(&parent, &part, Mode::from_raw_mode(0o755))?,
            Err(errno) => return Err(errno),
        }
        done.push(part);
    }
    open(root, &done.to_string_lossy(), OFlags::PATH)
}

/// Whether both are the same place: of the same file system, mounted once.
pub(crate) fn is_same(one: impl AsFd, other: impl AsFd) -> rustix::io::Result<bool> {
    let look = |fd| -> rustix::io::Result<_> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = statx(fd, "", AtFlags::EMPTY_PATH, wanted)?;
        Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
    };
    Ok(look(one.as_fd())? == look(other.as_fd())?)
}

fn open_directory(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    open(root.as_fd(), &path.to_string_lossy(), OFlags::PATH | OFlags::DIRECTORY)
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = PathBuf> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_others_rename_meanwhile_keeps_nothing_from_being_found() {
        let dir = tempfile::tempdir().unwrap();
        let [root, one, two] = ["root/etc", "one", "two"].map(|name| dir.path().join(name));
        fs::create_dir_all(root).unwrap();
        fs::write(&one, "").unwrap();
        let root = fs::File::open(dir.path().join("root")).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    fs::rename(&one, &two).unwrap();
                    fs::rename(&two, &one).unwrap();
                }
            });
            let found =
                (0..20_000).try_for_each(|_| open(root.as_fd(), "/etc/../etc/..", OFlags::PATH).map(drop));
            is_over.store(true, Ordering::Relaxed);
            found.unwrap();
        });
    }

    /// Makes this path in a root with links, and says what then is where.
    #[track_caller]
    fn check(path: &str, make: Make, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../run/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("../../..", root.join("up")).unwrap();
        symlink("/var/real", root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = fs::File::open(&root).unwrap();
        let said = match place(fd.as_fd(), path, make) {
            Ok(_) => fs::metadata(root.join(expected)).map_or("elsewhere", |m| match make {
                Make::File if m.is_file() => expected,
                Make::Directory if m.is_dir() => expected,
                Make::File | Make::Directory => "of another kind",
            }),
            Err(errno) => &format!("{errno:?}"),
        };
        assert_eq!(said, expected);
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["root"]);
    }

    #[test]
    fn what_is_missing_is_made_where_links_lead_within_the_root() {
        check("/etc", Make::Directory, "etc");
        check("/a/b/c", Make::Directory, "a/b/c");
        check("/a/file", Make::File, "a/file");
        check("/etc/resolv.conf", Make::File, "run/resolve/stub.conf");
        check("/up/etc/new", Make::Directory, "etc/new");
        check("/up/x/y", Make::Directory, "x/y");
        check("/absolute/y", Make::Directory, "var/real/y");
        check("/../../../z", Make::Directory, "z");
        check(
            "/loop/x",
            Make::Directory,
            "Os { code: 40, kind: FilesystemLoop, message: \"Too many levels of symbolic links\" }",
        );
    }
}
