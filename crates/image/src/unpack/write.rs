//! Entries of an archive become what they describe. Directories get their owner, mode, attributes and time at the very end:
//! what is made in them would change the time, and would inherit groups and access lists.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Mode, ftruncate, linkat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::{Errno, pwrite};

use super::archive::{Archive, Contents, Entry, Kind};
use super::copy::{CREATE, Node, Original, copy};
use super::maker::{Maker, Pending, make_whiteout};
use super::metadata::{Metadata, Target};
use super::name::{Leaf, classify, clean, join, literal, show, split};
use super::time::Time;
use super::tree::{Place, Step, Tree, file_type, names, open_directory, remove, stat};
use super::{BadLayer, Below, Devices, Fill, Form, Marks, Skips, UnpackOptions};
use crate::room::Room;

/// Reads the archive to its end and makes what it says.
pub(super) fn unpack(
    source: impl BufRead,
    into: &Path,
    options: &UnpackOptions,
    below: &Below<'_>,
) -> Result<Written> {
    let mut archive = Archive::new(source, &options.limits);
    let mut unpacker = Unpacker::new(into, options, below)?;
    while let Some(entry) = archive.next()? {
        let outcome = unpacker.entry(&mut archive, &entry);
        outcome.with_context(|| format!("entry `{}`", show(&entry.name)))?;
    }
    archive.drain()?;
    let size_bytes = unpacker.size_bytes;
    let (skips, is_standalone) = unpacker.finish()?;
    Ok(Written { entries: archive.entries(), size_bytes, is_standalone, skips })
}

/// What was made.
pub(super) struct Written {
    pub(super) entries: u64,
    pub(super) size_bytes: u64,
    pub(super) is_standalone: bool,
    pub(super) skips: Skips,
}

struct Unpacker<'a> {
    tree: Tree,
    maker: Maker<'a>,
    /// Written into files so far.
    size_bytes: u64,
    /// None where the disk may become full.
    room: Option<Room>,
}

impl<'a> Unpacker<'a> {
    fn new(into: &Path, options: &'a UnpackOptions, below: &'a Below<'a>) -> Result<Self> {
        let tree = Tree::open(into)?;
        let maker = Maker::new(into, &tree.root, options, below)?;
        let room = match options.fill {
            Fill::ButForOthers => Some(Room::default()),
            Fill::Wholly => None,
        };
        Ok(Self { tree, maker, size_bytes: 0, room })
    }

    fn entry<R: BufRead>(&mut self, archive: &mut Archive<'_, R>, entry: &Entry) -> Result<()> {
        let limits = &self.maker.options.limits;
        if entry.name.len() > limits.name_bytes {
            return Err(limits.broken("bytes of one name", limits.name_bytes as u64));
        }
        let path = clean(&entry.name)?;
        if path.iter().filter(|byte| **byte == b'/').count() > limits.depth {
            return Err(limits.broken("directories around one entry", limits.depth as u64));
        }
        self.take_room(0, 1)?;
        let (directory, leaf) = match self.maker.options.marks {
            Marks::Whiteouts => classify(&path)?,
            Marks::None => literal(&path),
        };
        match leaf {
            Leaf::Note => Ok(()),
            Leaf::Root if entry.kind == Kind::Directory => {
                self.maker.hold(Vec::new(), Pending::Set(entry.metadata.clone()))
            }
            Leaf::Root => Err(BadLayer::new("the root can only be a directory").into()),
            Leaf::Whiteout(name) => self.whiteout(directory, name, entry.metadata.mtime),
            Leaf::Opaque => self.opaque(directory, entry.metadata.mtime),
            Leaf::Entry(name) => {
                let parent = self.directory(directory, entry.metadata.mtime)?;
                let path = join(&parent.path, name);
                self.maker.wrote(&path)?;
                self.make(archive, entry, &Spot { parent: &parent, name, path: &path })?;
                if self.maker.has_followed_lower {
                    self.tree.forget();
                }
                Ok(())
            }
        }
    }

    fn make<R: BufRead>(
        &mut self,
        archive: &mut Archive<'_, R>,
        entry: &Entry,
        spot: &Spot<'_>,
    ) -> Result<()> {
        let metadata = &entry.metadata;
        match &entry.kind {
            Kind::Directory => self.make_directory(spot, metadata),
            Kind::File(contents) => self.file(archive, spot, contents, metadata),
            Kind::HardLink(target) => self.hard_link(spot, target, metadata.mtime),
            Kind::Symlink(target) => {
                if target.is_empty() {
                    return Err(BadLayer::new("a symlink to nothing").into());
                }
                self.place(spot, |directory, name| symlinkat(target.as_slice(), directory, name))?;
                let maker = &mut self.maker;
                maker.dresser.dress_symlink(spot.target(), metadata, spot.path)
            }
            Kind::Character(0, 0) if self.maker.options.form != Form::Flat => {
                self.maker.dresser.skips.add(spot.path, "device node: overlayfs takes 0/0 for a whiteout");
                Ok(())
            }
            Kind::Character(major, minor) => {
                self.node(spot, FileType::CharacterDevice, (*major, *minor), metadata)
            }
            Kind::Block(major, minor) => self.node(spot, FileType::BlockDevice, (*major, *minor), metadata),
            Kind::Fifo => self.node(spot, FileType::Fifo, (0, 0), metadata),
        }
    }

    fn take_room(&mut self, bytes: u64, files: u64) -> Result<()> {
        match &mut self.room {
            Some(room) => Ok(room.take(self.tree.root.fd(), bytes, files)?),
            None => Ok(()),
        }
    }

    /// The directory at a clean name, made if it is missing.
    fn directory(&mut self, path: &[u8], mtime: Time) -> Result<Rc<Place>> {
        let maker = &mut self.maker;
        self.tree.directory(path, |here, name, step| maker.step(here, name, step, mtime))
    }

    fn make_directory(&mut self, spot: &Spot<'_>, metadata: &Metadata) -> Result<()> {
        let (directory, name) = (spot.parent.fd(), spot.name);
        // What it will not be allowed to do afterwards must be possible until then.
        let make = || mkdirat(directory, name, Mode::RWXU);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let was = stat(directory, name)?.map(|stat| file_type(&stat));
                if was == Some(FileType::Directory) {
                    let fd = open_directory(directory, name).context("could not open it")?;
                    self.maker.note(spot.path, fd.as_fd())?;
                } else {
                    // A whiteout, or something else of this layer: what is below does not show through any more.
                    self.clear(spot)?;
                    make().context("could not make it")?;
                    self.maker.set_opaque(directory, name)?;
                }
            }
            Err(error) => return Err(error).context("could not make it"),
        }
        self.maker.hold(spot.path.to_vec(), Pending::Set(metadata.clone()))
    }

    fn file<R: BufRead>(
        &mut self,
        archive: &mut Archive<'_, R>,
        spot: &Spot<'_>,
        contents: &Contents,
        metadata: &Metadata,
    ) -> Result<()> {
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let file = self.place(spot, |directory, name| openat(directory, name, CREATE, mode))?;
        let mut end = 0;
        // An empty part says nothing, though writers like to put one at the end.
        for (offset, length) in contents.parts.iter().filter(|(_, length)| *length > 0) {
            let (mut at, end_of_part) = (*offset, offset + length);
            while at < end_of_part {
                let written = put(archive, file.as_fd(), at, end_of_part)?;
                self.take_room(written, 0)?;
                at += written;
            }
            end = end_of_part;
            self.size_bytes += length;
        }
        if end < contents.size {
            ftruncate(&file, contents.size).context("could not give it its size")?;
        }
        let maker = &mut self.maker;
        maker.dresser.dress_new(file.as_fd(), metadata, spot.path)
    }

    fn node(
        &mut self,
        spot: &Spot<'_>,
        kind: FileType,
        (major, minor): (u32, u32),
        metadata: &Metadata,
    ) -> Result<()> {
        let is_device = kind != FileType::Fifo;
        if is_device && self.maker.options.devices == Devices::Skip {
            self.maker.dresser.skips.add(spot.path, "device node");
            return self.clear(spot);
        }
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let make = |directory: BorrowedFd<'_>, name: &[u8]| {
            mknodat(directory, name, kind, mode, makedev(major, minor))
        };
        self.clear(spot)?;
        match make(spot.parent.fd(), spot.name) {
            Ok(()) => {}
            Err(error @ Errno::PERM) if is_device => {
                self.maker.dresser.skips.add(spot.path, format!("device node: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error).context("could not make it"),
        }
        let maker = &mut self.maker;
        maker.dresser.dress(spot.target(), metadata, spot.path)
    }

    /// A second name for a file of this layer, or of one below, which then is copied up as overlayfs would do it.
    fn hard_link(&mut self, spot: &Spot<'_>, target: &[u8], mtime: Time) -> Result<()> {
        let absent = || BadLayer::new(format!("a hard link to `{}`, which is not there", show(target)));
        let target = clean(target)?;
        let (directory, name) = split(&target);
        if let Some(place) = self.tree.known(directory)
            && let Some(stat) = stat(place.fd(), name)?
            && !matches!(file_type(&stat), FileType::Directory | FileType::CharacterDevice)
            && stat.st_size > 0
        {
            return self.link(spot, Node { directory: place.fd(), name });
        }
        let path = self.maker.layers.resolve(&target)?.ok_or_else(absent)?;
        let (directory, name) = split(&path);
        let found = self.maker.layers.find(&path)?.ok_or_else(absent)?;
        if file_type(&found.stat) == FileType::Directory {
            return Err(BadLayer::new(format!("a hard link to the directory `{}`", show(&path))).into());
        }
        let from = Node { directory: found.directory.as_fd(), name };
        if found.layer == 0 {
            return self.link(spot, from);
        }
        self.maker.is_standalone = false;
        let parent = self.directory(directory, mtime)?;
        let to = Node { directory: parent.fd(), name };
        // Many layers may each ask for a copy of the same large file.
        self.take_room(0, 1)?;
        let (maker, room) = (&mut self.maker, self.room.as_mut());
        let original = Original { node: from, stat: &found.stat, form: maker.options.form };
        copy(original, to, &mut maker.dresser, room)
            .with_context(|| format!("could not copy `{}` from a lower layer", show(&path)))?;
        self.link(spot, to)
    }

    fn link(&mut self, spot: &Spot<'_>, from: Node<'_>) -> Result<()> {
        let same = |node: Node<'_>| {
            stat(node.directory, node.name).map(|stat| stat.map(|stat| (stat.st_dev, stat.st_ino)))
        };
        let to = Node { directory: spot.parent.fd(), name: spot.name };
        if same(to)?.is_some_and(|there| same(from).is_ok_and(|here| here == Some(there))) {
            return Ok(());
        }
        self.place(spot, |directory, name| {
            linkat(from.directory, from.name, directory, name, AtFlags::empty())
        })
    }

    /// Makes something where nothing may be, after making room if something is.
    fn place<T>(
        &mut self,
        spot: &Spot<'_>,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let outcome = match make(spot.parent.fd(), spot.name) {
            Err(Errno::EXIST) => {
                self.clear(spot)?;
                make(spot.parent.fd(), spot.name)
            }
            other => other,
        };
        outcome.context("could not make it")
    }

    /// Takes away what is at a name.
    fn clear(&mut self, spot: &Spot<'_>) -> Result<()> {
        let Some(stat) = stat(spot.parent.fd(), spot.name)? else { return Ok(()) };
        remove(spot.parent.fd(), spot.name)?;
        match file_type(&stat) {
            FileType::Directory => {
                self.tree.forget();
                self.maker.drop_pending(spot.path);
            }
            FileType::Symlink => self.tree.forget(),
            _ => {}
        }
        Ok(())
    }

    /// What is of this layer stays: a whiteout is about those below.
    fn whiteout(&mut self, directory: &[u8], name: &[u8], mtime: Time) -> Result<()> {
        let Form::Overlay { space, whiteouts } = self.maker.options.form else {
            return self.take_away(directory, name);
        };
        let parent = self.directory(directory, mtime)?;
        match stat(parent.fd(), name)?.map(|stat| file_type(&stat)) {
            Some(FileType::Directory) => self.maker.set_opaque(parent.fd(), name),
            Some(_) => Ok(()),
            None => make_whiteout(parent.fd(), name, space, whiteouts),
        }
    }

    fn opaque(&mut self, directory: &[u8], mtime: Time) -> Result<()> {
        if self.maker.options.form == Form::Flat {
            let Some(place) = self.existing(directory)? else { return Ok(()) };
            return self.empty(&place);
        }
        let place = self.directory(directory, mtime)?;
        match split(&place.path) {
            // Overlayfs does not ask the root.
            (_, []) => self.maker.is_root_opaque = true,
            _ => self.maker.set_opaque(place.fd(), b".")?,
        }
        Ok(())
    }

    /// A directory of a flat tree, if it is there.
    fn existing(&mut self, path: &[u8]) -> Result<Option<Rc<Place>>> {
        match self.maker.layers.resolve(&join(path, b"x"))? {
            Some(_) => self.directory(path, Time::default()).map(Some),
            None => Ok(None),
        }
    }

    /// A whiteout in a flat directory.
    fn take_away(&mut self, directory: &[u8], name: &[u8]) -> Result<()> {
        let Some(parent) = self.existing(directory)? else { return Ok(()) };
        let path = join(&parent.path, name);
        let spot = Spot { parent: &parent, name, path: &path };
        if !self.maker.written.contains(&path) {
            return self.clear(&spot);
        }
        match open_directory(parent.fd(), name) {
            Ok(fd) => self.empty(&parent.below(name, fd)),
            Err(_) => Ok(()),
        }
    }

    /// Takes away what is not of this layer, at any depth.
    fn empty(&mut self, place: &Rc<Place>) -> Result<()> {
        let mut places = vec![Rc::clone(place)];
        while let Some(place) = places.pop() {
            self.maker.note(&place.path, place.fd())?;
            for name in names(place.fd())? {
                let path = join(&place.path, &name);
                if !self.maker.written.contains(&path) {
                    self.clear(&Spot { parent: &place, name: &name, path: &path })?;
                } else if let Ok(fd) = open_directory(place.fd(), &name) {
                    places.push(place.below(&name, fd));
                }
            }
        }
        Ok(())
    }

    /// Directories get what they are to have, the inner ones before those that they are in.
    fn finish(mut self) -> Result<(Skips, bool)> {
        if self.maker.is_root_opaque {
            self.hide_roots()?;
        }
        self.tree.forget();
        for (path, pending) in std::mem::take(&mut self.maker.pending).into_iter().rev() {
            let strict = |_: &Rc<Place>, _: &[u8], step| match step {
                Step::Down(fd) => Ok(Step::Down(fd)),
                _ => Err(BadLayer::new("it is not the directory any more that it was").into()),
            };
            let context = || format!("directory `{}`", show(&path));
            let place = self.tree.directory(&path, strict).with_context(context)?;
            self.maker.settle(&place, &pending).with_context(context)?;
        }
        let is_standalone = self.maker.is_standalone && !self.maker.layers.asked_lower();
        Ok((self.maker.dresser.skips, is_standalone))
    }

    /// An opaque root: whiteouts for all that the roots of the lower layers have.
    fn hide_roots(&mut self) -> Result<()> {
        let Form::Overlay { space, whiteouts } = self.maker.options.form else { return Ok(()) };
        self.maker.is_standalone = false;
        let root = Rc::clone(&self.tree.root);
        for lower in self.maker.layers.lower()? {
            for name in names(lower.as_fd())? {
                match stat(root.fd(), &name)?.map(|stat| file_type(&stat)) {
                    None => make_whiteout(root.fd(), &name, space, whiteouts)?,
                    Some(FileType::Directory) => self.maker.set_opaque(root.fd(), &name)?,
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// A name in an open directory.
struct Spot<'a> {
    parent: &'a Rc<Place>,
    name: &'a [u8],
    path: &'a [u8],
}

impl Spot<'_> {
    fn target(&self) -> Target<'_> {
        Target::Named(self.parent.fd(), self.name)
    }
}

/// Writes the next bytes of the entry's contents, as many as are there, to their place. How many they were.
fn put<R: BufRead>(archive: &mut Archive<'_, R>, file: BorrowedFd<'_>, at: u64, end: u64) -> Result<u64> {
    let bytes = archive.contents()?;
    let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
    let written = pwrite(file, bytes.get(..length).unwrap_or_default(), at).context("could not write it")?;
    archive.consume(written)?;
    Ok(written as u64)
}
