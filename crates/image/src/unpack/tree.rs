//! A directory as a root of its own: names are resolved inside of it one part at a time by open directories, and
//! symlinks are followed by us and not by the kernel. So nothing that an archive says leads out, on any kernel, and a symlink
//! of a layer below is followed as well as one of this layer.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat, unlinkat};
use rustix::io::Errno;

use super::BadLayer;
use super::name::{join, split};

/// A directory that is open.
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    /// From the root, without symlinks.
    pub(super) path: Vec<u8>,
    parent: Option<Rc<Place>>,
}

impl Place {
    /// A subdirectory that was opened.
    pub(super) fn below(self: &Rc<Self>, name: &[u8], fd: OwnedFd) -> Rc<Self> {
        Rc::new(Self { fd, path: join(&self.path, name), parent: Some(Rc::clone(self)) })
    }

    /// What the descriptor is borrowed for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What is at a name in a directory, for who wants to go down there.
pub(super) enum Step {
    Down(OwnedFd),
    Link(Vec<u8>),
    Missing,
    /// Something that is neither.
    Other,
}

/// The kernel follows no more of them either.
const LINKS_MAX: usize = 40;
/// Files of ours that are open at the same time are far fewer than a process may have by default, 1024.
const OPEN_MAX: usize = 128;

/// Open directories by the names under which an archive knows them.
pub(super) struct Tree {
    pub(super) root: Rc<Place>,
    open: HashMap<Vec<u8>, Rc<Place>>,
}

impl Tree {
    /// Opens a directory as a root.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fd = openat(CWD, path, DIRECTORY & !OFlags::NOFOLLOW, Mode::empty())
            .with_context(|| format!("could not open `{}`", path.display()))?;
        let root = Rc::new(Place { fd, path: Vec::new(), parent: None });
        Ok(Self { root, open: HashMap::new() })
    }

    /// A directory that was found before.
    pub(super) fn known(&self, path: &[u8]) -> Option<Rc<Place>> {
        if path.is_empty() { Some(Rc::clone(&self.root)) } else { self.open.get(path).cloned() }
    }

    /// Forgets what was found, because something was replaced on a way there.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// The directory at a clean name. `visit` sees each step for the first time, and may take another: it makes what is
    /// missing, or says where a symlink of a lower layer leads to.
    pub(super) fn directory(
        &mut self,
        path: &[u8],
        mut visit: impl FnMut(&Rc<Place>, &[u8], Step) -> Result<Step>,
    ) -> Result<Rc<Place>> {
        let mut known = path;
        let mut here = loop {
            match self.known(known) {
                Some(place) => break place,
                None => known = split(known).0,
            }
        };
        let mut at = known.len();
        while at < path.len() {
            let from = if at == 0 { 0 } else { at + 1 };
            let rest = path.get(from..).unwrap_or_default();
            let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            here = self.enter(&here, rest.get(..length).unwrap_or_default(), &mut visit)?;
            at = from + length;
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            self.open.insert(path.get(..at).unwrap_or_default().to_vec(), Rc::clone(&here));
        }
        Ok(here)
    }

    /// Goes down by one name, and wherever symlinks lead.
    fn enter(
        &self,
        from: &Rc<Place>,
        name: &[u8],
        visit: &mut impl FnMut(&Rc<Place>, &[u8], Step) -> Result<Step>,
    ) -> Result<Rc<Place>> {
        let mut here = Rc::clone(from);
        let mut names = vec![name.to_vec()];
        let mut links = 0;
        while let Some(name) = names.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here = here.parent.clone().unwrap_or(here);
                    continue;
                }
                _ => {}
            }
            let step = visit(&here, &name, step(here.fd(), &name)?)?;
            match step {
                Step::Down(fd) => here = here.below(&name, fd),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(BadLayer::new("symlinks lead in a circle").into());
                    }
                    if target.starts_with(b"/") {
                        here = Rc::clone(&self.root);
                    }
                    names.extend(target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
                }
                Step::Missing | Step::Other => {
                    let path = super::name::show(&join(&here.path, &name));
                    return Err(BadLayer::new(format!("`{path}` is no directory")).into());
                }
            }
        }
        Ok(here)
    }
}

/// How directories are opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory in a directory.
pub(super) fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(directory, name, DIRECTORY, Mode::empty())
}

/// What is at a name.
pub(super) fn step(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Step> {
    match open_directory(directory, name) {
        Ok(fd) => Ok(Step::Down(fd)),
        Err(Errno::NOENT) => Ok(Step::Missing),
        Err(Errno::NOTDIR | Errno::LOOP) => match readlinkat(directory, name, Vec::new()) {
            Ok(target) => Ok(Step::Link(target.into_bytes())),
            Err(_) => Ok(Step::Other),
        },
        Err(error) => Err(error).with_context(|| format!("could not open `{}`", super::name::show(name))),
    }
}

/// What the kernel says of a name that need not be there.
pub(super) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What kind of thing it is.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The names in a directory, in the order of their bytes.
pub(super) fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).context("could not read a directory")? {
        let name = entry.context("could not read a directory")?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Takes away what is at a name, with all that is in it. True if it was a directory.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let context = || format!("could not remove `{}`", super::name::show(name));
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => return Ok(false),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).with_context(context),
    }
    let mut stack = vec![(open_directory(directory, name).with_context(context)?, name.to_vec(), None)];
    // A directory stays on the stack until what is in it is gone.
    while let Some((fd, own, children)) = stack.last_mut() {
        let names = match children {
            Some(names) => names,
            None => children.insert(names(fd.as_fd())?),
        };
        let Some(child) = names.pop() else {
            let own = std::mem::take(own);
            stack.pop();
            let parent = stack.last().map_or(directory, |(fd, ..)| fd.as_fd());
            unlinkat(parent, &own, AtFlags::REMOVEDIR).with_context(context)?;
            continue;
        };
        match unlinkat(fd.as_fd(), &child, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let below = open_directory(fd.as_fd(), &child).with_context(context)?;
                stack.push((below, child, None));
            }
            Err(error) => return Err(error).with_context(context),
        }
    }
    Ok(true)
}
