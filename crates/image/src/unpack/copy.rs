//! A file, symlink or node copied from one directory to another with all that belongs to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    FileType, Mode, OFlags, SeekFrom, Stat, copy_file_range, fstat, ftruncate, mknodat, openat, readlinkat,
    seek, symlinkat,
};
use rustix::io::Errno;

use super::Form;
use super::metadata::{Dresser, Metadata, Target};
use super::tree::file_type;
use crate::reflink::reflink;
use crate::room::Room;

/// How regular files are made.
pub(super) const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How regular files are opened to be read: a pipe that was put in their place in the meantime does not hold us up.
pub(super) const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What is copied at once at most before the disk is looked at.
const PIECE_BYTES: u64 = 256 << 10;

/// Something in a directory.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
}

/// What is copied: anything but a directory.
#[derive(Clone, Copy)]
pub(super) struct Original<'a> {
    pub(super) node: Node<'a>,
    pub(super) stat: &'a Stat,
    /// Of the layer that it is in, whose own attributes stay behind.
    pub(super) form: Form,
}

/// Copies it. With `room` others keep some: blocks that are shared take none.
pub(super) fn copy(
    original: Original<'_>,
    to: Node<'_>,
    dresser: &mut Dresser,
    room: Option<&mut Room>,
) -> Result<()> {
    let Original { node: from, stat, form } = original;
    let named = Target::Named(to.directory, to.name);
    match file_type(stat) {
        FileType::RegularFile => {
            let source = open_file(from)?;
            let metadata = observe(Target::Open(source.as_fd()), stat, form)?;
            let copy = openat(to.directory, to.name, CREATE, Mode::from_raw_mode(metadata.mode & 0o777))
                .context("could not make it")?;
            copy_contents(source.as_fd(), copy.as_fd(), room).context("could not copy its contents")?;
            dresser.dress_new(copy.as_fd(), &metadata, to.name)
        }
        FileType::Symlink => {
            let metadata = observe(Target::Named(from.directory, from.name), stat, form)?;
            let target = readlinkat(from.directory, from.name, Vec::new()).context("could not read it")?;
            symlinkat(target, to.directory, to.name).context("could not make it")?;
            dresser.dress_symlink(named, &metadata, to.name)
        }
        kind => {
            let metadata = observe(Target::Named(from.directory, from.name), stat, form)?;
            let mode = Mode::from_raw_mode(metadata.mode & 0o777);
            match mknodat(to.directory, to.name, kind, mode, stat.st_rdev) {
                Ok(()) => dresser.dress(named, &metadata, to.name),
                Err(error @ Errno::PERM) => {
                    dresser.skips.add(to.name, format!("device node: {error}"));
                    Ok(())
                }
                Err(error) => Err(error).context("could not make it"),
            }
        }
    }
}

/// Opens a regular file; anything else is an error.
pub(super) fn open_file(node: Node<'_>) -> Result<OwnedFd> {
    let file = openat(node.directory, node.name, READ, Mode::empty()).context("could not open it")?;
    if file_type(&fstat(&file)?) != FileType::RegularFile {
        bail!("it was replaced while it was read");
    }
    Ok(file)
}

/// What the kernel has, with attributes as who uses the layer sees them.
pub(super) fn observe(target: Target<'_>, stat: &Stat, form: Form) -> Result<Metadata> {
    let mut metadata = Metadata::observe(target, stat)?;
    let xattrs = std::mem::take(&mut metadata.xattrs).into_iter();
    metadata.xattrs = xattrs.filter_map(|(key, value)| Some((form.outside(&key)?, value))).collect();
    Ok(metadata)
}

/// Shares the blocks where the file system can; else copies in the kernel, and leaves holes where they are.
fn copy_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut room: Option<&mut Room>) -> Result<()> {
    let size = u64::try_from(fstat(from)?.st_size)?;
    if size == 0 || reflink(from, to)? {
        return Ok(());
    }
    let mut at = 0;
    while let Some((start, end)) = data(from, at, size)? {
        let (mut read, mut write) = (start, start);
        while read < end {
            let piece = if room.is_some() { PIECE_BYTES } else { u64::MAX };
            let length = usize::try_from(piece.min(end - read)).unwrap_or(usize::MAX);
            let copied = copy_file_range(from, Some(&mut read), to, Some(&mut write), length)?;
            if copied == 0 {
                bail!("it became shorter while it was read");
            }
            if let Some(room) = room.as_deref_mut() {
                room.take(to, copied as u64, 0)?;
            }
        }
        at = end;
    }
    Ok(ftruncate(to, size)?)
}

/// The next stretch of a file that is not a hole.
pub(super) fn data(file: BorrowedFd<'_>, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows of no holes.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}
