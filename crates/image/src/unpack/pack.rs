//! Directories as archives: what changed over the lower layers, or a whole tree. The same tree always gives the same bytes: names
//! are sorted, and holes are where there is nothing but zeros, wherever the file system has put them.

use std::collections::{HashMap, HashSet};
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
use super::layers::{Layers, is_opaque, is_whiteout};
use super::metadata::{Metadata, Target};
use super::name::{OPAQUE, WHITEOUT, join, show, split};
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

/// What becomes of something when it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is packed as it is.
    Kept,
    /// A file is packed without its contents.
    Emptied,
    /// It is left out, with all that is in it.
    LeftOut,
}

/// Writes what the upper directory of an overlayfs changes as a layer.
///
/// The mount must not have used `redirect_dir` or `metacopy`: then the directory alone does not tell what changed.
pub fn pack_diff(upper: &Path, space: XattrSpace, writer: impl Write) -> Result<Packed> {
    let form = Form::Overlay { space, whiteouts: Whiteouts::Devices };
    pack(&[upper], Packer::new(form, &|_| Fate::Kept, writer))
}

/// The same for upper directories that lie upon each other and upon layers, of both the nearest first: one layer that
/// changes what they change together. What one of them hides of the others is not in it, nor a mark for that: overlayfs
/// shows a mark where there is nothing to hide. `fate` is asked by path, from the root.
pub fn pack_diffs(
    uppers: &[&Path],
    layers: &[&Path],
    space: XattrSpace,
    fate: &dyn Fn(&[u8]) -> Fate,
    writer: impl Write,
) -> Result<Packed> {
    let below = Layers::open(layers.iter().copied(), Some(space))?;
    let packer = Packer::new(Form::Overlay { space, whiteouts: Whiteouts::Devices }, fate, writer);
    pack(uppers, Packer { below: Some(below), ..packer })
}

/// Writes all that is in a directory.
pub fn pack_tree(root: &Path, writer: impl Write) -> Result<Packed> {
    pack(&[root], Packer::new(Form::Flat, &|_| Fate::Kept, writer))
}

/// Writes what has this name in a directory, with all that is in it, by this name.
pub fn pack_named(directory: &Path, name: &[u8], writer: impl Write) -> Result<Packed> {
    let root = Tree::open(directory)?;
    let stat = stat(root.root.fd(), name)?.context("there is no such file")?;
    let real = Real { stat, layer: 0 };
    let child = Child { shown: name.to_vec(), name: name.to_vec(), what: What::Real(Box::new(real)) };
    let mut packer = Packer::new(Form::Flat, &|_| Fate::Kept, writer);
    let first = packer.child(&[root.root.fd()], Ground::Seen, &child, name)?;
    packer.descend(first.into_iter().collect())
}

fn pack<W: Write>(roots: &[&Path], mut packer: Packer<'_, W>) -> Result<Packed> {
    let roots = roots.iter().map(|root| Tree::open(root)).collect::<Result<Vec<_>>>()?;
    let fds = roots.iter().map(|root| Ok(open_directory(root.root.fd(), b".")?)).collect::<Result<_>>()?;
    let first = packer.directory(fds, Ground::Seen, Vec::new())?;
    packer.descend(vec![first])
}

/// A directory whose header is written.
struct Level {
    /// Of each upper directory that has it, the uppermost first.
    fds: Vec<OwnedFd>,
    ground: Ground,
    path: Vec<u8>,
    /// The last comes first.
    children: Vec<Child>,
}

/// What the layers below have in the place of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// It is seen, but for what the directory has.
    Seen,
    /// The directory hides it, and says so.
    HiddenHere,
    /// One above the directory hides it.
    HiddenAbove,
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
    Real(Box<Real>),
}

/// Something that is there.
struct Real {
    stat: Stat,
    /// The upper directory that it is of.
    layer: usize,
}

struct Packer<'a, W> {
    out: Out<W>,
    form: Form,
    fate: &'a dyn Fn(&[u8]) -> Fate,
    /// What it lies upon, where that is known.
    below: Option<Layers<'static>>,
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

impl<'a, W: Write> Packer<'a, W> {
    fn new(form: Form, fate: &'a dyn Fn(&[u8]) -> Fate, writer: W) -> Self {
        Self {
            out: Out { writer, hash: Sha256::new(), bytes: 0 },
            form,
            fate,
            below: None,
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
            let fds: Vec<BorrowedFd<'_>> = level.fds.iter().map(AsFd::as_fd).collect();
            let inner = self.child(&fds, level.ground, &child, &path);
            levels.extend(inner.with_context(|| format!("could not pack `{}`", show(&path)))?);
        }
        self.finish()
    }

    /// Writes a directory that is in these upper ones, the uppermost first.
    fn directory(&mut self, fds: Vec<OwnedFd>, ground: Ground, path: Vec<u8>) -> Result<Level> {
        let top = fds.first().context("a directory is in some layer")?;
        let metadata = self.observe(Target::Open(top.as_fd()), &fstat(top)?, &path)?;
        let name = if path.is_empty() { b"./".to_vec() } else { [&path, &b"/"[..]].concat() };
        self.entry(&Described { kind: b'5', name: &name, ..Described::of(&metadata) })?;
        let mut children: Vec<Child> = Vec::new();
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        let mut hides = ground == Ground::HiddenHere;
        for (layer, fd) in fds.iter().enumerate() {
            for name in names(fd.as_fd())? {
                let Some(stat) = stat(fd.as_fd(), &name)? else { continue };
                let space = self.form.space();
                let is_gone = space.is_some_and(|space| is_whiteout(fd.as_fd(), &name, &stat, space));
                if !is_gone && name.starts_with(WHITEOUT) {
                    bail!("`{}` in it would be a whiteout in a layer", show(&name));
                }
                // One of those above says what there is.
                if known.insert(name.clone()) {
                    children.push(child_of(name, Real { stat, layer }, is_gone));
                }
            }
            // Whatever those below have there is hidden, and so is what the image has.
            if self.form.space().is_some_and(|space| is_opaque(fd.as_fd(), space)) {
                hides = true;
                break;
            }
        }
        if hides {
            children.push(Child { shown: OPAQUE.to_vec(), name: Vec::new(), what: What::Mark });
        }
        children.sort_by(|one, other| other.shown.cmp(&one.shown));
        let ground = if hides { Ground::HiddenHere } else { ground };
        Ok(Level { fds, ground, path, children })
    }

    /// Writes an entry; a directory is to be gone through next.
    fn child(
        &mut self,
        fds: &[BorrowedFd<'_>],
        ground: Ground,
        child: &Child,
        path: &[u8],
    ) -> Result<Option<Level>> {
        let What::Real(real) = &child.what else {
            if self.marks(ground, child, path)? {
                let nothing = Metadata { mode: 0o600, ..Metadata::made_up(super::time::Time::default()) };
                self.entry(&Described { kind: b'0', name: path, ..Described::of(&nothing) })?;
            }
            return Ok(None);
        };
        let fate = (self.fate)(path);
        if fate == Fate::LeftOut {
            return Ok(None);
        }
        let directory = *fds.get(real.layer).context("it is in some layer")?;
        if file_type(&real.stat) != FileType::Directory {
            let node = Node { directory, name: &child.name };
            return self.node(node, &real.stat, path, fate).map(|()| None);
        }
        let mut inner = Vec::new();
        let mut ground = if ground == Ground::Seen { Ground::Seen } else { Ground::HiddenAbove };
        for fd in fds.iter().skip(real.layer) {
            let Some(stat) = stat(*fd, &child.name)? else { continue };
            // What is no directory hides all below it, also what the image has.
            if file_type(&stat) != FileType::Directory {
                ground = Ground::HiddenHere;
                break;
            }
            let opened = open_directory(*fd, &child.name)?;
            let ends = self.form.space().is_some_and(|space| is_opaque(opened.as_fd(), space));
            inner.push(opened);
            if ends {
                break;
            }
        }
        self.directory(inner, ground, path.to_vec()).map(Some)
    }

    /// Whether a mark belongs into the layer: there is something for it to hide, as far as that is known.
    fn marks(&self, ground: Ground, child: &Child, path: &[u8]) -> Result<bool> {
        let Some(below) = self.below.as_ref().filter(|_| !child.name.is_empty()) else { return Ok(true) };
        let place = join(split(path).0, &child.name);
        Ok(ground == Ground::Seen && below.find(&place)?.is_some())
    }

    fn node(&mut self, node: Node<'_>, stat: &Stat, path: &[u8], fate: Fate) -> Result<()> {
        let id = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 && fate == Fate::Kept {
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
            FileType::RegularFile => return self.file(node, path, fate),
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

    fn file(&mut self, node: Node<'_>, path: &[u8], fate: Fate) -> Result<()> {
        let file = open_file(node)?;
        let stat = fstat(&file)?;
        let metadata = self.observe(Target::Open(file.as_fd()), &stat, path)?;
        if fate == Fate::Emptied {
            return self.entry(&Described { kind: b'0', name: path, ..Described::of(&metadata) });
        }
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

fn child_of(name: Vec<u8>, real: Real, is_gone: bool) -> Child {
    if is_gone {
        Child { shown: [WHITEOUT, &name].concat(), name, what: What::Mark }
    } else {
        Child { shown: name.clone(), name, what: What::Real(Box::new(real)) }
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
