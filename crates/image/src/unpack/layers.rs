//! Unpacked layers seen as overlayfs would show them: what is on top hides what is below.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, openat, readlinkat};

use super::metadata::{Target, xattr};
use super::name::join;
use super::tree::{DIRECTORY, file_type, open_directory, stat};
use super::{BadLayer, Below, XattrSpace};

/// The layers, the topmost first.
pub(super) struct Layers<'a> {
    roots: Vec<OwnedFd>,
    /// Further ones below those, opened when they are asked for.
    lower: OnceCell<Vec<OwnedFd>>,
    below: Option<&'a Below<'a>>,
    space: Option<XattrSpace>,
}

/// Something that is to be seen.
pub(super) struct Found {
    /// 0 is the topmost.
    pub(super) layer: usize,
    pub(super) directory: OwnedFd,
    pub(super) stat: Stat,
}

/// What one layer says of a path.
enum Seen {
    Found(OwnedFd, Stat),
    /// It is not there, whatever the layers below have.
    Hidden,
    Absent,
}

/// The kernel follows no more of them either.
const LINKS_MAX: usize = 40;

impl<'a> Layers<'a> {
    /// Opens them. Without a space nothing in them stands for something else.
    pub(super) fn open<'p>(
        paths: impl IntoIterator<Item = &'p Path>,
        space: Option<XattrSpace>,
    ) -> Result<Self> {
        let roots = paths.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { roots, lower: OnceCell::new(), below: None, space })
    }

    /// Their roots.
    pub(super) fn roots(&self) -> &[OwnedFd] {
        &self.roots
    }

    /// The same, with further ones below them.
    pub(super) fn over(self, below: &'a Below<'a>) -> Self {
        Self { below: Some(below), ..self }
    }

    /// The roots of those below.
    pub(super) fn lower(&self) -> Result<&[OwnedFd]> {
        let (Some(below), None) = (self.below, self.lower.get()) else {
            return Ok(self.lower.get().map_or(&[], Vec::as_slice));
        };
        let opened = below()?.iter().map(|path| open(path)).collect::<Result<_>>()?;
        Ok(self.lower.get_or_init(|| opened))
    }

    /// Whether it has made a difference so far what is below.
    pub(super) fn asked_lower(&self) -> bool {
        self.lower.get().is_some()
    }

    fn root(&self, layer: usize) -> Result<Option<&OwnedFd>> {
        match layer.checked_sub(self.roots.len()) {
            None => Ok(self.roots.get(layer)),
            Some(lower) => Ok(self.lower()?.get(lower)),
        }
    }

    /// What is at a path that leads through no symlink.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<Found>> {
        let mut layer = 0;
        while let Some(root) = self.root(layer)? {
            let seen = look(root.as_fd(), path, self.space);
            match seen.with_context(|| format!("could not look for `{}`", super::name::show(path)))? {
                Seen::Found(directory, stat) => return Ok(Some(Found { layer, directory, stat })),
                Seen::Hidden => return Ok(None),
                Seen::Absent => layer += 1,
            }
        }
        Ok(None)
    }

    /// The path that leads to the same through no symlink, but may be one.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.rsplit(|byte| *byte == b'/');
            parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
        };
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut names = parts(path);
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == b".." {
                here.pop();
                continue;
            }
            let path = join(&here.join(&b'/'), &name);
            if names.is_empty() {
                return Ok(Some(path));
            }
            let Some(found) = self.find(&path)? else { return Ok(None) };
            match file_type(&found.stat) {
                FileType::Directory => here.push(name),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(BadLayer::new("symlinks lead in a circle").into());
                    }
                    let target = readlinkat(&found.directory, name.as_slice(), Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    names.extend(parts(&target));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(here.join(&b'/')))
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, DIRECTORY & !OFlags::NOFOLLOW, Mode::empty())
        .with_context(|| format!("could not open `{}`", path.display()))
}

fn look(root: BorrowedFd<'_>, path: &[u8], space: Option<XattrSpace>) -> Result<Seen> {
    let mut here = open_directory(root, b".")?;
    let mut is_opaque = false;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        is_opaque |= space.is_some_and(|space| self::is_opaque(here.as_fd(), space));
        let Some(stat) = stat(here.as_fd(), part)? else { break };
        if space.is_some_and(|space| is_whiteout(here.as_fd(), part, &stat, space)) {
            return Ok(Seen::Hidden);
        }
        if parts.peek().is_none() {
            return Ok(Seen::Found(here, stat));
        }
        if file_type(&stat) != FileType::Directory {
            return Ok(Seen::Hidden);
        }
        here = open_directory(here.as_fd(), part)?;
    }
    Ok(if is_opaque { Seen::Hidden } else { Seen::Absent })
}

/// Whether a directory hides those below it.
pub(super) fn is_opaque(directory: BorrowedFd<'_>, space: XattrSpace) -> bool {
    let value = xattr(Target::Open(directory), &space.key("opaque"));
    matches!(value.as_ref().map(Option::as_deref), Ok(Some(b"y")))
}

/// Whether a name stands for something that is gone.
pub(super) fn is_whiteout(directory: BorrowedFd<'_>, name: &[u8], stat: &Stat, space: XattrSpace) -> bool {
    match file_type(stat) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile if stat.st_size == 0 => {
            let mark = xattr(Target::Named(directory, name), &space.key("whiteout"));
            matches!(mark, Ok(Some(_)))
        }
        _ => false,
    }
}
