//! An archive read from its beginning to its end, entry by entry. Only what has to be in memory is kept there: names
//! and attributes, within limits.
//!
//! Where writers disagree we read as Go's `archive/tar` does, because it is what layers are made and judged with: links and
//! devices have no contents whatever their size says, and global PAX headers change nothing.

use std::io::BufRead;

use anyhow::{Context, Result};

use super::header::{BLOCK, Block, Header, sparse_goes_on, sparse_parts};
use super::metadata::Metadata;
use super::pax::Records;
use super::{BadLayer, Limits};

/// An entry, without its contents.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) metadata: Metadata,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File(Contents),
    Directory,
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// What is in a file: parts at their offsets in the order in which the archive has them, holes between them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) size: u64,
    /// Ascending, within the size. One part that is all of it, where the file is not sparse.
    pub(super) parts: Vec<(u64, u64)>,
}

/// The map of a sparse file has no more parts.
const PARTS_MAX: usize = 1 << 20;

/// An archive being read.
pub(super) struct Archive<'a, R> {
    source: R,
    limits: &'a Limits,
    /// Of the archive, so far.
    bytes: u64,
    entries: u64,
    /// Of the entry's contents, still to be read, and what fills its last block.
    left: u64,
    padding: u64,
}

impl<'a, R: BufRead> Archive<'a, R> {
    pub(super) fn new(source: R, limits: &'a Limits) -> Self {
        Self { source, limits, bytes: 0, entries: 0, left: 0, padding: 0 }
    }

    /// How many entries there were.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; none at the end. Contents that nobody has read are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(block) = self.header()? else {
                return if extensions.are_none() {
                    Ok(None)
                } else {
                    Err(BadLayer::new("the archive ends with an extension that extends nothing").into())
                };
            };
            let header = Header::parse(&block)?;
            self.begin(header.size);
            match header.kind {
                b'x' => extensions.pax = Some(Records::parse(&self.extension()?)?),
                b'L' => extensions.name = Some(until_nul(self.extension()?)),
                b'K' => extensions.link = Some(until_nul(self.extension()?)),
                b'g' => {}
                _ => {
                    self.entries += 1;
                    if self.entries > self.limits.entries {
                        return Err(self.limits.broken("entries", self.limits.entries));
                    }
                    let name = extensions.path(&header);
                    let entry = self.entry(header, extensions);
                    return entry.with_context(|| format!("entry `{}`", super::name::show(&name))).map(Some);
                }
            }
        }
    }

    /// The next bytes of the entry's contents, as many as are there; nothing after the last.
    pub(super) fn contents(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.source.fill_buf()?;
        if bytes.is_empty() {
            return Err(BadLayer::cut().into());
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.get(..length).unwrap_or_default())
    }

    /// Says how many of those bytes are done with.
    pub(super) fn consume(&mut self, length: usize) -> Result<()> {
        self.left = self.left.saturating_sub(length as u64);
        self.count(length)
    }

    /// Reads all that follows the last entry, which belongs to the digest.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            let length = self.source.fill_buf()?.len();
            if length == 0 {
                return Ok(());
            }
            self.count(length)?;
        }
    }

    fn count(&mut self, length: usize) -> Result<()> {
        self.source.consume(length);
        self.bytes += length as u64;
        if self.bytes > self.limits.bytes {
            return Err(self.limits.broken("bytes", self.limits.bytes));
        }
        Ok(())
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<()> {
        loop {
            match self.contents()?.len() {
                0 => break,
                length => self.consume(length)?,
            }
        }
        // Writers that forget the end of the archive do not fill its last block either, as umoci's `insert`.
        while self.padding > 0 {
            let bytes = self.source.fill_buf()?.len();
            let length = usize::try_from(self.padding).unwrap_or(BLOCK).min(bytes);
            self.padding = if length == 0 { 0 } else { self.padding.saturating_sub(length as u64) };
            self.count(length)?;
        }
        Ok(())
    }

    /// The next block that is not empty. Two empty ones are the end, and so is, for writers that forgot them, the end of
    /// the file.
    fn header(&mut self) -> Result<Option<Block>> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let block = self.block()?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        if self.source.fill_buf()?.is_empty() || self.block()?.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Err(BadLayer::new("an empty block is followed by one that is not").into())
    }

    /// A block that is not counted as contents.
    fn block(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK];
        let mut rest = block.as_mut_slice();
        while !rest.is_empty() {
            let bytes = self.source.fill_buf()?;
            if bytes.is_empty() {
                return Err(BadLayer::cut().into());
            }
            let length = bytes.len().min(rest.len());
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(bytes.get(..length).unwrap_or_default());
            rest = later;
            self.count(length)?;
        }
        Ok(block)
    }

    /// All of the contents, which are an extension of the next header.
    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > self.limits.extension_bytes {
            return Err(self.limits.broken("bytes of one extension", self.limits.extension_bytes));
        }
        let mut all = Vec::new();
        loop {
            let bytes = self.contents()?;
            all.extend_from_slice(bytes);
            match bytes.len() {
                0 => return Ok(all),
                length => self.consume(length)?,
            }
        }
    }

    fn entry(&mut self, header: Header, extensions: Extensions) -> Result<Entry> {
        let mut name = extensions.path(&header);
        let pax = extensions.pax.unwrap_or_default();
        let link = pax.link.or(extensions.link).unwrap_or(header.link);
        let [uid, gid] = [(pax.uid, header.uid), (pax.gid, header.gid)].map(|(pax, own)| pax.unwrap_or(own));
        let metadata = Metadata {
            mode: header.mode,
            uid: owner(uid)?,
            gid: owner(gid)?,
            mtime: pax.mtime.unwrap_or(header.mtime),
            xattrs: pax.xattrs,
        };
        let is_file = matches!(header.kind, 0 | b'0' | b'7' | b'S');
        self.begin(if is_file { pax.size.unwrap_or(header.size) } else { 0 });
        let kind = match header.kind {
            // A writer of old has no other word for a directory.
            0 if name.ends_with(b"/") => {
                self.begin(0);
                Kind::Directory
            }
            b'S' => Kind::File(self.gnu_sparse(header.sparse)?),
            0 | b'0' | b'7' => {
                name = pax.sparse.name.clone().unwrap_or(name);
                Kind::File(self.file(pax.sparse)?)
            }
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Character(header.device.0, header.device.1),
            b'4' => Kind::Block(header.device.0, header.device.1),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(BadLayer::new(format!("it is of unknown type `{}`", other.escape_ascii())).into());
            }
        };
        Ok(Entry { name, kind, metadata })
    }

    fn file(&mut self, sparse: super::pax::Sparse) -> Result<Contents> {
        let size = sparse.real_size;
        let (map, size) = match (sparse.map, size) {
            (_, Some(size)) if sparse.is_version_1 => (self.map_before_contents()?, size),
            (Some(map), Some(size)) => (map, size),
            _ => {
                let whole = Contents { size: self.left, parts: vec![(0, self.left)] };
                return self.checked(whole);
            }
        };
        let pair = |pair: &[u64]| match pair {
            [offset, length] => Some((*offset, *length)),
            _ => None,
        };
        let parts: Option<Vec<_>> = map.chunks(2).map(pair).collect();
        let parts = parts.ok_or_else(|| BadLayer::new("the map of a sparse file is damaged"))?;
        self.checked(Contents { size, parts })
    }

    /// Decimal numbers, each in a line: how many parts, then the offset and the length of each.
    fn map_before_contents(&mut self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut number: Option<u64> = None;
        loop {
            if self.left < BLOCK as u64 {
                return Err(BadLayer::new("the map of a sparse file is damaged").into());
            }
            let block = self.block()?;
            self.left -= BLOCK as u64;
            for byte in block {
                number = match (byte, number) {
                    (b'0'..=b'9', so_far) => {
                        let digit = u64::from(byte - b'0');
                        so_far
                            .unwrap_or_default()
                            .checked_mul(10)
                            .and_then(|number| number.checked_add(digit))
                    }
                    (b'\n', Some(number)) => {
                        numbers.push(number);
                        match numbers.split_first() {
                            Some((count, map)) if map.len() as u64 == count.saturating_mul(2) => {
                                return Ok(map.to_vec());
                            }
                            _ => None,
                        }
                    }
                    _ => return Err(BadLayer::new("the map of a sparse file is damaged").into()),
                };
            }
            if numbers.len() > 2 * PARTS_MAX {
                return Err(self.limits.broken("parts of a sparse file", PARTS_MAX as u64));
            }
        }
    }

    fn gnu_sparse(&mut self, sparse: Option<super::header::GnuSparse>) -> Result<Contents> {
        let Some(mut sparse) = sparse else {
            return Err(BadLayer::new("a sparse file of GNU's in an archive that is not").into());
        };
        while sparse.is_extended {
            let block = self.block()?;
            sparse.parts.extend(sparse_parts(block.get(..504).unwrap_or_default())?);
            sparse.is_extended = sparse_goes_on(&block);
            if sparse.parts.len() > PARTS_MAX {
                return Err(self.limits.broken("parts of a sparse file", PARTS_MAX as u64));
            }
        }
        self.checked(Contents { size: sparse.real_size, parts: sparse.parts })
    }

    fn checked(&self, contents: Contents) -> Result<Contents> {
        if contents.size > self.limits.file_bytes {
            return Err(self.limits.broken("bytes of one file", self.limits.file_bytes));
        }
        let mut end = 0;
        let mut sum = 0;
        for (offset, length) in &contents.parts {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= contents.size);
            end = next.ok_or_else(|| BadLayer::new("the map of a sparse file goes back, or over its end"))?;
            sum += length;
        }
        if sum != self.left {
            return Err(BadLayer::new("the map of a sparse file is not that of its contents").into());
        }
        Ok(contents)
    }
}

/// What came before a header and changes what it says.
#[derive(Default)]
struct Extensions {
    pax: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    fn are_none(&self) -> bool {
        self.pax.is_none() && self.name.is_none() && self.link.is_none()
    }

    fn path(&self, header: &Header) -> Vec<u8> {
        let pax = self.pax.as_ref();
        let sparse = pax.and_then(|pax| pax.sparse.name.as_ref());
        let path = sparse.or_else(|| pax?.path.as_ref()).or(self.name.as_ref());
        path.unwrap_or(&header.name).clone()
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// The highest of all numbers means nobody.
fn owner(id: i64) -> Result<u32, BadLayer> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| BadLayer::new(format!("no owner has the number {id}")))
}
