//! Directories as archives: what changed over the lower layers, or a whole tree. The same tree always gives the same bytes: names
//! are sorted, and holes are where there is nothing but zeros, wherever the file system has put them.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};
use rustix::io::pread;
use sha2::{Digest as _, Sha256};
use stead_model::image::Digest;

use super::copy::{Node, data, open_file};
use super::header::BLOCK;
use super::layers::{is_opaque, is_whiteout};
use super::metadata::{Metadata, Target};
use super::name::{OPAQUE, WHITEOUT, join, show};
use super::pack_header::{Described, render};
use super::tree::{Tree, file_type, names, open_directory, stat};
use super::{Form, Skips, Whiteouts, XattrSpace};

/// What an archive was made to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the archive, uncompressed.
    pub diff_id: Digest,
    /// Its size.
    pub bytes: u64,
    /// How many entries it has.
    pub entries: u64,
    /// What no archive can hold.
    pub skips: Skips,
}

/// Writes what the upper directory of an overlayfs changes as a layer.
///
/// The mount must not have used `redirect_dir` or `metacopy`: then the directory alone does not tell what changed.
pub fn pack_diff(upper: &Path, space: XattrSpace, writer: impl Write) -> Result<Packed> {
    pack(upper, Form::Overlay { space, whiteouts: Whiteouts::Devices }, writer)
}

/// Writes all that is in a directory.
pub fn pack_tree(root: &Path, writer: impl Write) -> Result<Packed> {
    pack(root, Form::Flat, writer)
}

/// Writes what has this name in a directory, with all that is in it, by this name.
pub fn pack_named(directory: &Path, name: &[u8], writer: impl Write) -> Result<Packed> {
    let root = Tree::open(directory)?;
    let stat = stat(root.root.fd(), name)?.context("there is no such file")?;
    let child = Child { shown: name.to_vec(), name: name.to_vec(), what: What::Real(Box::new(stat)) };
    let mut packer = Packer::new(Form::Flat, writer);
    let first = packer.child(root.root.fd(), &child, name)?;
    packer.descend(first.into_iter().collect())
}

fn pack(root: &Path, form: Form, writer: impl Write) -> Result<Packed> {
    let mut packer = Packer::new(form, writer);
    let root = Tree::open(root)?;
    let fd = open_directory(root.root.fd(), b".")?;
    let first = packer.directory(fd, Vec::new())?;
    packer.descend(vec![first])
}

/// A directory whose header is written.
struct Level {
    fd: OwnedFd,
    path: Vec<u8>,
    /// The last comes first.
    children: Vec<Child>,
}

/// Something in a directory.
struct Child {
    /// What the archive calls it.
    shown: Vec<u8>,
    name: Vec<u8>,
    what: What,
}

enum What {
    /// The directory is opaque, or something is gone.
    Mark,
    Real(Box<Stat>),
}

struct Packer<W> {
    out: Out<W>,
    form: Form,
    /// Where files are that have more names.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
    skips: Skips,
    buffer: Vec<u8>,
}

struct Out<W> {
    writer: W,
    hash: Sha256,
    bytes: u64,
}

const BUFFER_BYTES: usize = 256 << 10;
/// Zeros in multiples of this may become holes.
const HOLE_BYTES: u64 = 64 << 10;
/// Not every reader knows sparse files, so it has to pay.
const HOLES_BYTES_MIN: u64 = 4 << 20;

impl<W: Write> Packer<W> {
    fn new(form: Form, writer: W) -> Self {
        Self {
            out: Out { writer, hash: Sha256::new(), bytes: 0 },
            form,
            links: HashMap::new(),
            entries: 0,
            skips: Skips::default(),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Goes through directories, the last one first, to the end of the archive.
    fn descend(mut self, mut levels: Vec<Level>) -> Result<Packed> {
        while let Some(level) = levels.last_mut() {
            let Some(child) = level.children.pop() else {
                levels.pop();
                continue;
            };
            let path = join(&level.path, &child.shown);
            let inner = self.child(level.fd.as_fd(), &child, &path);
            levels.extend(inner.with_context(|| format!("could not pack `{}`", show(&path)))?);
        }
        self.finish()
    }

    fn directory(&mut self, fd: OwnedFd, path: Vec<u8>) -> Result<Level> {
        let metadata = self.observe(Target::Open(fd.as_fd()), &fstat(&fd)?, &path)?;
        let name = if path.is_empty() { b"./".to_vec() } else { [&path, &b"/"[..]].concat() };
        self.entry(&Described { kind: b'5', name: &name, ..Described::of(&metadata) })?;
        let mut children = Vec::new();
        for name in names(fd.as_fd())? {
            let Some(stat) = stat(fd.as_fd(), &name)? else { continue };
            let is_gone = self.form.space().is_some_and(|space| is_whiteout(fd.as_fd(), &name, &stat, space));
            let what = if is_gone { What::Mark } else { What::Real(Box::new(stat)) };
            let shown = if is_gone { [WHITEOUT, &name].concat() } else { name.clone() };
            if !is_gone && name.starts_with(WHITEOUT) {
                bail!("`{}` in it would be a whiteout in a layer", show(&name));
            }
            children.push(Child { shown, name, what });
        }
        if self.form.space().is_some_and(|space| is_opaque(fd.as_fd(), space)) {
            children.push(Child { shown: OPAQUE.to_vec(), name: Vec::new(), what: What::Mark });
        }
        children.sort_by(|one, other| other.shown.cmp(&one.shown));
        Ok(Level { fd, path, children })
    }

    /// Writes an entry; a directory is to be gone through next.
    fn child(&mut self, directory: BorrowedFd<'_>, child: &Child, path: &[u8]) -> Result<Option<Level>> {
        let node = Node { directory, name: &child.name };
        match &child.what {
            What::Mark => {
                let nothing = Metadata { mode: 0o600, ..Metadata::made_up(super::time::Time::default()) };
                self.entry(&Described { kind: b'0', name: path, ..Described::of(&nothing) })?;
                Ok(None)
            }
            What::Real(stat) if file_type(stat) == FileType::Directory => {
                self.directory(open_directory(directory, &child.name)?, path.to_vec()).map(Some)
            }
            What::Real(stat) => self.node(node, stat, path).map(|()| None),
        }
    }

    fn node(&mut self, node: Node<'_>, stat: &Stat, path: &[u8]) -> Result<()> {
        let id = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&id).cloned() {
                let mut metadata = self.observe(Target::Named(node.directory, node.name), stat, path)?;
                // They are with the first name.
                metadata.xattrs.clear();
                return self.entry(&Described {
                    kind: b'1',
                    name: path,
                    link: &first,
                    ..Described::of(&metadata)
                });
            }
            self.links.insert(id, path.to_vec());
        }
        let kind = match file_type(stat) {
            FileType::RegularFile => return self.file(node, path),
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            _ => {
                self.skips.add(path, "archives have no sockets");
                return Ok(());
            }
        };
        let metadata = self.observe(Target::Named(node.directory, node.name), stat, path)?;
        let link = match kind {
            b'2' => readlinkat(node.directory, node.name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        let device =
            if matches!(kind, b'3' | b'4') { (major(stat.st_rdev), minor(stat.st_rdev)) } else { (0, 0) };
        self.entry(&Described { kind, name: path, link: &link, device, ..Described::of(&metadata) })
    }

    fn file(&mut self, node: Node<'_>, path: &[u8]) -> Result<()> {
        let file = open_file(node)?;
        let stat = fstat(&file)?;
        let metadata = self.observe(Target::Open(file.as_fd()), &stat, path)?;
        let size = u64::try_from(stat.st_size)?;
        let parts = if size >= HOLES_BYTES_MIN { self.parts(file.as_fd(), size)? } else { vec![(0, size)] };
        let kept: u64 = parts.iter().map(|(_, length)| length).sum();
        let described = Described { kind: b'0', name: path, size, ..Described::of(&metadata) };
        if size - kept < HOLES_BYTES_MIN {
            self.entry(&described)?;
            self.contents(file.as_fd(), &[(0, size)])
        } else {
            let map = map(&parts, size);
            let all = kept + map.len() as u64;
            self.entry(&Described { size: all, real_size: Some(size), ..described })?;
            self.out.put(&map)?;
            self.contents(file.as_fd(), &parts)
        }
    }

    /// Where there is something but zeros.
    fn parts(&mut self, file: BorrowedFd<'_>, size: u64) -> Result<Vec<(u64, u64)>> {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        while let Some((start, _)) = data(file, at, size)? {
            // A whole piece, because the file system may count in smaller ones.
            at = start - start % HOLE_BYTES;
            let length = HOLE_BYTES.min(size - at);
            let piece = self.buffer.get_mut(..usize::try_from(length)?).context("a piece fits the buffer")?;
            read_all(file, at, piece)?;
            if piece.iter().any(|byte| *byte != 0) {
                match parts.last_mut() {
                    Some((start, kept)) if *start + *kept == at => *kept += length,
                    _ => parts.push((at, length)),
                }
            }
            at += length;
        }
        Ok(parts)
    }

    fn contents(&mut self, file: BorrowedFd<'_>, parts: &[(u64, u64)]) -> Result<()> {
        let mut total = 0;
        for (offset, length) in parts {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(BUFFER_BYTES);
                let piece = self.buffer.get_mut(..length).context("a piece fits the buffer")?;
                read_all(file, at, piece)?;
                self.out.put(piece)?;
                at += length as u64;
            }
            total += length;
        }
        self.out.pad(total)
    }

    fn entry(&mut self, entry: &Described<'_>) -> Result<()> {
        self.entries += 1;
        self.out.put(&render(entry))
    }

    /// What belongs into the archive of the attributes that the kernel has.
    fn observe(&mut self, target: Target<'_>, stat: &Stat, path: &[u8]) -> Result<Metadata> {
        let mut metadata = Metadata::observe(target, stat)?;
        let mut xattrs = Vec::new();
        for (key, value) in std::mem::take(&mut metadata.xattrs) {
            if let Some(space) = self.form.space()
                && let Some(name) = ["redirect", "metacopy"].into_iter().find(|name| key == space.key(name))
            {
                bail!("overlayfs has it only as a reference to a lower layer (`{name}`)");
            }
            match self.form.outside(&key) {
                None => {}
                // That ends the name in a PAX record.
                Some(key) if key.contains(&b'=') => {
                    self.skips.add(path, format!("attribute `{}`: archives have no such names", show(&key)));
                }
                Some(key) => xattrs.push((key, value)),
            }
        }
        xattrs.sort();
        metadata.xattrs = xattrs;
        Ok(metadata)
    }

    fn finish(mut self) -> Result<Packed> {
        self.out.put(&[0; 2 * BLOCK])?;
        self.out.writer.flush().context("could not write the archive")?;
        let hex = self
            .out
            .hash
            .finalize()
            .iter()
            .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
        Ok(Packed { diff_id: hex.parse()?, bytes: self.out.bytes, entries: self.entries, skips: self.skips })
    }
}

impl<W: Write> Out<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.writer.write_all(bytes).context("could not write the archive")
    }

    fn pad(&mut self, length: u64) -> Result<()> {
        let padding = usize::try_from(length.wrapping_neg() % BLOCK as u64)?;
        self.put([0; BLOCK].get(..padding).unwrap_or_default())
    }
}

impl<'a> Described<'a> {
    fn of(metadata: &'a Metadata) -> Self {
        Self { kind: 0, name: &[], link: &[], size: 0, device: (0, 0), metadata, real_size: None }
    }
}

/// The map of a sparse file as GNU tar 1.0 has it: numbers in lines, filled up to whole blocks.
fn map(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    // Other readers want to see where it ends.
    let ends = parts.last().is_none_or(|(offset, length)| offset + length < size);
    let last = if ends { Some((size, 0)) } else { None };
    let mut text = format!("{}\n", parts.len() + usize::from(ends));
    for (offset, length) in parts.iter().copied().chain(last) {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn read_all(file: BorrowedFd<'_>, at: u64, into: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let length = pread(file, rest, at + done as u64).context("could not read it")?;
        if length == 0 {
            bail!("it became shorter while it was read");
        }
        done += length;
    }
    Ok(())
}
