//! Archives that are no layers but hold images: their plain files, one after the other, and how such archives are written.

use std::io::{BufRead, Read};

use anyhow::{Context, Result, bail};

use super::Limits;
use super::archive::{Archive, Kind};
use super::header::BLOCK;
use super::metadata::Metadata;
use super::name::show;
use super::pack_header::{Described, render};
use super::stream::decompressed;
use super::time::Time;

/// An entry of an archive.
pub(crate) enum Item<'a> {
    /// A plain file.
    File {
        /// Its path.
        name: String,
        /// What is in it.
        content: &'a mut dyn Read,
    },
    /// A link.
    Link {
        /// Its path.
        name: String,
        /// Where it leads, as it is written.
        target: String,
        /// Whether that is seen from where the link is, or from the archive's root.
        is_relative: bool,
    },
}

/// Reads an archive, compressed or not, to its end. Directories are passed over.
pub(crate) fn each_item(
    reader: impl Read + Send,
    limits: &Limits,
    mut each: impl FnMut(Item<'_>) -> Result<()>,
) -> Result<()> {
    let ((), _) = decompressed(reader, |chunks| {
        let mut archive = Archive::new(chunks, limits);
        while let Some(entry) = archive.next()? {
            let shown = show(&entry.name);
            let text = |bytes: &[u8]| {
                let text = String::from_utf8(bytes.to_vec()).ok();
                text.with_context(|| format!("entry `{shown}` has a name that is no text"))
            };
            let name = text(&entry.name)?;
            match entry.kind {
                Kind::File(contents) => {
                    let is_whole =
                        contents.parts.iter().map(|(_, length)| length).sum::<u64>() == contents.size;
                    if !is_whole {
                        bail!("entry `{shown}` has holes");
                    }
                    each(Item::File { name, content: &mut Content { archive: &mut archive } })
                }
                Kind::HardLink(target) => {
                    each(Item::Link { name, target: text(&target)?, is_relative: false })
                }
                Kind::Symlink(target) => each(Item::Link { name, target: text(&target)?, is_relative: true }),
                Kind::Directory | Kind::Character(..) | Kind::Block(..) | Kind::Fifo => Ok(()),
            }
            .with_context(|| format!("entry `{shown}`"))?;
        }
        archive.drain()
    })?;
    Ok(())
}

/// What is in a file of an archive.
struct Content<'a, 'b, R> {
    archive: &'a mut Archive<'b, R>,
}

impl<R: BufRead> Read for Content<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.archive.contents().map_err(std::io::Error::other)?.read(buffer)?;
        self.archive.consume(read).map_err(std::io::Error::other)?;
        Ok(read)
    }
}

/// The blocks before a plain file of an archive.
pub(crate) fn file_header(name: &str, size_bytes: u64) -> Vec<u8> {
    header(b'0', 0o644, name, size_bytes)
}

/// The blocks of a directory of an archive, whose name ends with a slash.
pub(crate) fn directory_header(name: &str) -> Vec<u8> {
    header(b'5', 0o755, name, 0)
}

fn header(kind: u8, mode: u32, name: &str, size: u64) -> Vec<u8> {
    let mtime = Time { seconds: 0, nanoseconds: 0 };
    let metadata = Metadata { mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
    render(&Described {
        kind,
        name: name.as_bytes(),
        link: b"",
        size,
        device: (0, 0),
        metadata: &metadata,
        real_size: None,
    })
}

/// What fills up the last block of a file.
pub(crate) fn padding(size_bytes: u64) -> Vec<u8> {
    let rest = size_bytes.next_multiple_of(BLOCK as u64) - size_bytes;
    vec![0; usize::try_from(rest).unwrap_or_default()]
}

/// What ends an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
