//! The header of an entry as we write it: POSIX `ustar`, with a PAX header before it for all that does not fit.

use super::header::{BLOCK, Block};
use super::metadata::Metadata;
use super::name::split;
use super::pax;

/// An entry to be written.
pub(super) struct Described<'a> {
    pub(super) kind: u8,
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    /// Of what follows in the archive.
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) metadata: &'a Metadata,
    /// Of a sparse file, its holes too.
    pub(super) real_size: Option<u64>,
}

const NAME_BYTES: usize = 100;
/// Seven octal digits.
const ID_MAX: u32 = 0o7_777_777;
/// Eleven octal digits.
const NUMBER_MAX: u64 = 0o77_777_777_777;

/// The blocks before the entry's contents.
pub(super) fn render(entry: &Described<'_>) -> Vec<u8> {
    let records = records(entry);
    let mut bytes = Vec::new();
    let base = split(entry.name.strip_suffix(b"/").unwrap_or(entry.name)).1;
    let stand_in = |directory: &[u8]| -> Vec<u8> {
        let name = [directory, base].join(&b'/');
        name.into_iter().take(NAME_BYTES).collect()
    };
    if !records.is_empty() {
        let fields = Fields {
            kind: b'x',
            name: &stand_in(b"PaxHeaders.0"),
            mode: 0o644,
            size: records.len() as u64,
            ..Fields::default()
        };
        bytes.extend(fields.block());
        bytes.extend(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    let metadata = entry.metadata;
    let sparse_name = entry.real_size.map(|_| stand_in(b"GNUSparseFile.0"));
    let fields = Fields {
        kind: entry.kind,
        name: sparse_name.as_deref().unwrap_or(entry.name),
        link: entry.link,
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        size: entry.size,
        seconds: u64::try_from(metadata.mtime.seconds).unwrap_or_default(),
        device: entry.device,
    };
    bytes.extend(fields.block());
    bytes
}

/// What the fields cannot hold.
fn records(entry: &Described<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let metadata = entry.metadata;
    let mut put = |key: &[u8], value: &[u8]| pax::render(key, value, &mut bytes);
    if let Some(size) = entry.real_size {
        put(b"GNU.sparse.major", b"1");
        put(b"GNU.sparse.minor", b"0");
        put(b"GNU.sparse.name", entry.name);
        put(b"GNU.sparse.realsize", size.to_string().as_bytes());
    } else if entry.name.len() > NAME_BYTES {
        put(b"path", entry.name);
    }
    if entry.link.len() > NAME_BYTES {
        put(b"linkpath", entry.link);
    }
    for (key, id) in [("uid", metadata.uid), ("gid", metadata.gid)] {
        if id > ID_MAX {
            put(key.as_bytes(), id.to_string().as_bytes());
        }
    }
    if entry.size > NUMBER_MAX {
        put(b"size", entry.size.to_string().as_bytes());
    }
    let fits = u64::try_from(metadata.mtime.seconds).is_ok_and(|seconds| seconds <= NUMBER_MAX);
    if metadata.mtime.nanoseconds != 0 || !fits {
        put(b"mtime", metadata.mtime.render().as_bytes());
    }
    for (key, value) in &metadata.xattrs {
        put(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    bytes
}

#[derive(Default)]
struct Fields<'a> {
    kind: u8,
    name: &'a [u8],
    link: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    seconds: u64,
    device: (u32, u32),
}

impl Fields<'_> {
    fn block(&self) -> Block {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            block.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = *new);
        };
        // What does not fit is in the PAX header, and is 0 here.
        let id = |id: u32| format!("{:07o}", if id > ID_MAX { 0 } else { id });
        let long = |number: u64| format!("{:011o}", if number > NUMBER_MAX { 0 } else { number });
        let cut = |text: &[u8]| text.iter().copied().take(NAME_BYTES).collect::<Vec<u8>>();
        put(0, &cut(self.name));
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, id(self.uid).as_bytes());
        put(116, id(self.gid).as_bytes());
        put(124, long(self.size).as_bytes());
        put(136, long(self.seconds).as_bytes());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &cut(self.link));
        put(257, b"ustar\x0000");
        put(329, id(self.device.0).as_bytes());
        put(337, id(self.device.1).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        block.iter_mut().skip(148).zip(sum.bytes()).for_each(|(byte, new)| *byte = new);
        block
    }
}
