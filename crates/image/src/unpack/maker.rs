//! What is made on the way to an entry, and what directories are given at the end.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Mode, fstat, mkdirat, mknodat, openat, readlinkat, unlinkat};
use rustix::process::{getegid, geteuid};

use super::copy::{CREATE, observe};
use super::layers::{Layers, is_whiteout};
use super::metadata::{
    DEFAULT_ACL, Dresser, Metadata, Target, mtime, remove_xattr, set_mtime, set_xattr, umask, xattr, xattrs,
};
use super::name::{WHITEOUT, join, show, split};
use super::time::Time;
use super::tree::{Place, Step, file_type, open_directory, stat};
use super::{BadLayer, Below, Form, Skips, UnpackOptions, Whiteouts, XattrSpace};

/// What is kept in memory until the end. Ten million entries of usual names are a tenth of it.
const HELD_BYTES_MAX: usize = 2 << 30;
/// What a name costs beside its bytes.
const HELD_BYTES_EACH: usize = 150;

/// All but the tree, so that it can be asked while the tree is walked.
pub(super) struct Maker<'a> {
    pub(super) options: &'a UnpackOptions,
    pub(super) dresser: Dresser,
    /// The directory itself, and the layers below it.
    pub(super) layers: Layers<'a>,
    pub(super) pending: BTreeMap<Vec<u8>, Pending>,
    /// Of a flat directory: what this layer has put there, and all that it is in.
    pub(super) written: HashSet<Vec<u8>>,
    held_bytes: usize,
    /// Whether a name led through a symlink of a lower layer. One of this layer may come to hide it.
    pub(super) has_followed_lower: bool,
    pub(super) is_root_opaque: bool,
    pub(super) is_standalone: bool,
}

/// What a directory is still to be given.
pub(super) enum Pending {
    Set(Metadata),
    /// It was there, and is to look as if nothing had been done in it.
    Restore {
        mtime: Time,
        default_acl: Option<Vec<u8>>,
    },
}

impl<'a> Maker<'a> {
    pub(super) fn new(
        into: &Path,
        root: &Place,
        options: &'a UnpackOptions,
        below: &'a Below<'a>,
    ) -> Result<Self> {
        let space = options.form.space();
        let layers = Layers::open([into], space)?;
        let stat = fstat(&root.fd)?;
        let us = (geteuid().as_raw(), getegid().as_raw());
        // Elsewhere directories hand down their group.
        let is_plain = space.is_some() && stat.st_gid == us.1 && stat.st_mode & 0o2000 == 0;
        let dresser = Dresser {
            owners: options.owners,
            form: options.form,
            born: is_plain.then_some(us),
            umask: if is_plain { umask() } else { 0o777 },
            skips: Skips::default(),
        };
        let mut maker = Self {
            options,
            dresser,
            layers: if space.is_some() { layers.over(below) } else { layers },
            pending: BTreeMap::new(),
            written: HashSet::new(),
            held_bytes: 0,
            has_followed_lower: false,
            is_root_opaque: false,
            is_standalone: true,
        };
        maker.note(&[], root.fd())?;
        Ok(maker)
    }

    /// One step on the way to an entry's directory.
    pub(super) fn step(&mut self, here: &Rc<Place>, name: &[u8], step: Step, time: Time) -> Result<Step> {
        let path = join(&here.path, name);
        match step {
            Step::Down(fd) => {
                if self.options.form == Form::Flat {
                    self.note(&path, fd.as_fd())?;
                }
                Ok(Step::Down(fd))
            }
            Step::Missing => self.missing(here, name, time),
            Step::Other => {
                let (Some(space), Some(stat)) = (self.options.form.space(), stat(here.fd(), name)?) else {
                    return Ok(Step::Other);
                };
                if !is_whiteout(here.fd(), name, &stat, space) {
                    return Ok(Step::Other);
                }
                // It went, and something came in its place.
                unlinkat(here.fd(), name, AtFlags::empty())?;
                let down = self.make_parent(here, name, Metadata::made_up(time))?;
                self.set_opaque(here.fd(), name)?;
                Ok(down)
            }
            Step::Link(target) => Ok(Step::Link(target)),
        }
    }

    /// A directory that the layer takes for granted: as the layers below have it, else made up.
    fn missing(&mut self, here: &Rc<Place>, name: &[u8], time: Time) -> Result<Step> {
        self.is_standalone = false;
        let path = join(&here.path, name);
        let found = if self.options.form == Form::Flat { None } else { self.layers.find(&path)? };
        let metadata = match found.as_ref().map(|found| (found, file_type(&found.stat))) {
            Some((found, FileType::Directory)) => {
                let fd = open_directory(found.directory.as_fd(), name)?;
                observe(Target::Open(fd.as_fd()), &found.stat, self.options.form)?
            }
            Some((found, FileType::Symlink)) => {
                self.has_followed_lower = true;
                return Ok(Step::Link(readlinkat(&found.directory, name, Vec::new())?.into_bytes()));
            }
            _ => Metadata::made_up(time),
        };
        self.make_parent(here, name, metadata)
    }

    fn make_parent(&mut self, here: &Rc<Place>, name: &[u8], metadata: Metadata) -> Result<Step> {
        let path = join(&here.path, name);
        // Only a symlink leads to such a name, and no archive could say it again.
        if name.starts_with(WHITEOUT) {
            return Err(BadLayer::new(format!("`{}` is named like a whiteout", show(&path))).into());
        }
        mkdirat(here.fd(), name, Mode::RWXU).with_context(|| format!("could not make `{}`", show(&path)))?;
        let fd = open_directory(here.fd(), name)?;
        self.hold(path, Pending::Set(metadata))?;
        Ok(Step::Down(fd))
    }

    /// Remembers how a directory was that is there already.
    pub(super) fn note(&mut self, path: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
        if self.pending.contains_key(path) {
            return Ok(());
        }
        let default_acl = xattr(Target::Open(fd), DEFAULT_ACL)?;
        if default_acl.is_some() {
            remove_xattr(fd, DEFAULT_ACL)?;
        }
        let mtime = mtime(&fstat(fd)?);
        self.hold(path.to_vec(), Pending::Restore { mtime, default_acl })
    }

    pub(super) fn hold(&mut self, path: Vec<u8>, pending: Pending) -> Result<()> {
        let xattrs = match &pending {
            Pending::Set(metadata) => {
                metadata.xattrs.iter().map(|(key, value)| key.len() + value.len()).sum()
            }
            Pending::Restore { default_acl, .. } => default_acl.as_ref().map_or(0, Vec::len),
        };
        self.count(path.len() + xattrs)?;
        self.pending.insert(path, pending);
        Ok(())
    }

    /// Only a flat directory has to know.
    pub(super) fn wrote(&mut self, path: &[u8]) -> Result<()> {
        let mut path = path;
        while self.options.form == Form::Flat && !path.is_empty() && !self.written.contains(path) {
            self.count(path.len())?;
            self.written.insert(path.to_vec());
            path = split(path).0;
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.held_bytes += bytes + HELD_BYTES_EACH;
        if self.held_bytes > HELD_BYTES_MAX {
            return Err(self.options.limits.broken("bytes of names and attributes", HELD_BYTES_MAX as u64));
        }
        Ok(())
    }

    /// Forgets a directory that is gone, and all that were in it.
    pub(super) fn drop_pending(&mut self, path: &[u8]) {
        self.pending.remove(path);
        let (first, last) = ([path, b"/"].concat(), [path, b"0"].concat());
        let range = (Bound::Included(first), Bound::Excluded(last));
        let below: Vec<_> = self.pending.range(range).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| {
            self.pending.remove(path);
        });
    }

    pub(super) fn set_opaque(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let Some(space) = self.options.form.space() else { return Ok(()) };
        let fd = open_directory(directory, name)?;
        set_xattr(Target::Open(fd.as_fd()), &space.key("opaque"), b"y").context("could not make it opaque")
    }

    pub(super) fn settle(&mut self, place: &Place, pending: &Pending) -> Result<()> {
        let target = Target::Open(place.fd());
        match pending {
            Pending::Set(metadata) => {
                if self.options.form == Form::Flat {
                    for (key, _) in xattrs(target)? {
                        let stays = metadata.xattrs.iter().any(|(other, _)| *other == key);
                        if !stays && self.options.form.outside(&key).is_some() {
                            remove_xattr(place.fd(), &key).context("could not remove an attribute")?;
                        }
                    }
                }
                self.dresser.dress(target, metadata, &place.path)
            }
            Pending::Restore { mtime, default_acl } => {
                if let Some(acl) = default_acl {
                    set_xattr(target, DEFAULT_ACL, acl).context("could not give it its access list back")?;
                }
                set_mtime(target, *mtime)
            }
        }
    }
}

impl Form {
    /// Where overlayfs keeps its attributes in such a directory.
    pub(super) fn space(self) -> Option<XattrSpace> {
        match self {
            Self::Overlay { space, .. } => Some(space),
            Self::Flat => None,
        }
    }
}

/// Puts a mark that something of the layers below is gone.
pub(super) fn make_whiteout(
    directory: BorrowedFd<'_>,
    name: &[u8],
    space: XattrSpace,
    whiteouts: Whiteouts,
) -> Result<()> {
    match whiteouts {
        Whiteouts::Devices => mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0),
        Whiteouts::Attributes => {
            let place = Target::Open(directory);
            // It has to say that it has such files, unless it hides all.
            if xattr(place, &space.key("opaque"))?.is_none() {
                set_xattr(place, &space.key("opaque"), b"x").context("could not mark its directory")?;
            }
            let file = openat(directory, name, CREATE, Mode::empty()).context("could not make a whiteout")?;
            set_xattr(Target::Open(file.as_fd()), &space.key("whiteout"), b"y")
        }
    }
    .context("could not make a whiteout")
}
