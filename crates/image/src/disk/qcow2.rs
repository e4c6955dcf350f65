//! QEMU's format of disks, as far as we need it: what its header says of an image, which is looked at before QEMU
//! is, and a new layer over an image. See `docs/interop/qcow2.txt` of QEMU.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

/// What each such file begins with.
pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";

/// The clusters of our layers.
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// One entry of the first table leads to a table with as many entries as go into a cluster, each of which leads to one.
const L1_ENTRY_BYTES: u64 = CLUSTER_BYTES * (CLUSTER_BYTES / 8);
/// So a layer's first table always has a whole cluster, and the disk can grow up to this size without being rewritten.
const LAYER_MAX_BYTES: u64 = L1_ENTRY_BYTES * (CLUSTER_BYTES / 8);
/// Where the parts of a layer are: its header, the table of counts of its clusters, the counts, its first table.
const COUNTS_TABLE_AT: u64 = CLUSTER_BYTES;
const COUNTS_AT: u64 = 2 * CLUSTER_BYTES;
const L1_AT: u64 = 3 * CLUSTER_BYTES;
const LAYER_BYTES: u64 = 4 * CLUSTER_BYTES;

const HEADER_BYTES: u32 = 104;
/// Where a header has the size of the disk, and that of its first table with its place.
const SIZE_AT: u64 = 24;
const L1_SIZE_AT: u64 = 36;
const L1_OFFSET_AT: u64 = 40;

/// Features that whoever reads a file must know.
mod incompatible {
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_ELSEWHERE: u64 = 1 << 2;
    /// Not cleanly closed, corrupt, data elsewhere, another compression, extended tables.
    pub(super) const KNOWN: u64 = 0b1_1111;
}

fn u32_at(header: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*header.get(at..)?.first_chunk()?))
}

fn u64_at(header: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*header.get(at..)?.first_chunk()?))
}

/// How large a disk is whose file begins so. What would lead QEMU to other files is refused.
pub(super) fn disk_bytes(header: &[u8]) -> Result<u64> {
    let field = |value: Option<u64>| value.context("its header is cut off");
    let version = field(u32_at(header, 4).map(u64::from))?;
    ensure!(matches!(version, 2 | 3), "it is of version {version} of the format, which nobody knows");
    let backing = field(u64_at(header, 8))?;
    ensure!(
        backing == 0,
        "it is only a layer over another file; hint: `qemu-img convert -O qcow2` makes one of both"
    );
    ensure!(field(u32_at(header, 32).map(u64::from))? == 0, "it is encrypted");
    if version == 3 {
        let features = field(u64_at(header, 72))?;
        ensure!(features & incompatible::DATA_ELSEWHERE == 0, "its data is in another file");
        ensure!(
            features & incompatible::CORRUPT == 0,
            "it is corrupt; hint: `qemu-img check -r all` may repair it"
        );
        ensure!(features & !incompatible::KNOWN == 0, "it has features that nobody knows");
    }
    let cluster_bits = field(u32_at(header, 20).map(u64::from))?;
    ensure!((9..=21).contains(&cluster_bits), "its clusters are of an impossible size");
    field(u64_at(header, 24))
}

/// How large the disk of a layer is whose file begins so: judged as an image is, and it can be nothing else.
pub(super) fn layer_bytes(header: &[u8]) -> Result<u64> {
    ensure!(header.starts_with(MAGIC), "it is not as it was made");
    disk_bytes(header)
}

/// A new layer for a disk of this size, with nothing in it.
pub(super) fn layer(bytes: u64) -> Result<Vec<u8>> {
    ensure!(bytes <= LAYER_MAX_BYTES, "a disk has at most {} TiB", LAYER_MAX_BYTES >> 40);
    let mut file = vec![0; usize::try_from(LAYER_BYTES).context("no memory for a layer")?];
    let l1_size = u32::try_from(bytes.div_ceil(L1_ENTRY_BYTES)).context("too large a disk")?;
    let mut put = |at: u64, field: &[u8]| {
        let place = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(room) = file.get_mut(place..).and_then(|rest| rest.get_mut(..field.len())) {
            room.copy_from_slice(field);
        }
    };
    put(0, MAGIC);
    put(4, &3u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(SIZE_AT, &bytes.to_be_bytes());
    put(L1_SIZE_AT, &l1_size.to_be_bytes());
    put(L1_OFFSET_AT, &L1_AT.to_be_bytes());
    put(48, &COUNTS_TABLE_AT.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    // Counts have two bytes.
    put(96, &4u32.to_be_bytes());
    put(100, &HEADER_BYTES.to_be_bytes());
    put(COUNTS_TABLE_AT, &COUNTS_AT.to_be_bytes());
    for cluster in 0..LAYER_BYTES / CLUSTER_BYTES {
        put(COUNTS_AT + 2 * cluster, &1u16.to_be_bytes());
    }
    Ok(file)
}

/// Makes the disk of a layer of ours larger, while nobody uses it.
pub(super) fn grow(file: &File, bytes: u64) -> Result<()> {
    ensure!(bytes <= LAYER_MAX_BYTES, "a disk has at most {} TiB", LAYER_MAX_BYTES >> 40);
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0).context("cannot read its header")?;
    let now = layer_bytes(&header)?;
    let is_ours = u32_at(&header, 20) == Some(CLUSTER_BITS) && u64_at(&header, 40) == Some(L1_AT);
    ensure!(is_ours, "it is not as it was made");
    if bytes < now {
        bail!("its disk has {now} bytes, and would be cut off at {bytes}");
    }
    let l1_size = u32::try_from(bytes.div_ceil(L1_ENTRY_BYTES)).context("too large a disk")?;
    // The table first: a larger one than the disk needs is lawful.
    file.write_all_at(&l1_size.to_be_bytes(), L1_SIZE_AT).context("cannot write its header")?;
    file.write_all_at(&bytes.to_be_bytes(), SIZE_AT).context("cannot write its header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl Fn(&mut Vec<u8>), expected: &str) {
        let mut file = layer(3 << 30).unwrap();
        change(&mut file);
        let said = disk_bytes(&file).map_or_else(|error| error.to_string(), |bytes| bytes.to_string());
        assert_eq!(said, expected);
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        check(|_| {}, "3221225472");
        check(
            |file| file[15] = 104,
            "it is only a layer over another file; hint: `qemu-img convert -O qcow2` makes one of both",
        );
        check(|file| file[79] = 4, "its data is in another file");
        check(|file| file[72] = 1, "it has features that nobody knows");
        check(|file| file[35] = 1, "it is encrypted");
        check(|file| file[7] = 9, "it is of version 9 of the format, which nobody knows");
        check(|file| file.truncate(20), "its header is cut off");
    }

    #[test]
    fn a_layer_grows_and_never_shrinks() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&layer(3 << 30).unwrap(), 0).unwrap();
        grow(&file, 5 << 30).unwrap();
        let mut header = [0; 104];
        file.read_exact_at(&mut header, 0).unwrap();
        assert_eq!((disk_bytes(&header).unwrap(), u32_at(&header, 36)), (5 << 30, Some(10)));
        assert_eq!(
            grow(&file, 4 << 30).unwrap_err().to_string(),
            "its disk has 5368709120 bytes, and would be cut off at 4294967296"
        );
    }

    #[test]
    fn a_layer_that_is_damaged_does_not_grow() {
        #[track_caller]
        fn refused(change: impl Fn(&mut Vec<u8>), expected: &str) {
            let file = tempfile::tempfile().unwrap();
            let mut content = layer(3 << 30).unwrap();
            change(&mut content);
            file.write_all_at(&content, 0).unwrap();
            assert_eq!(grow(&file, 5 << 30).unwrap_err().to_string(), expected);
            let mut after = vec![0; content.len()];
            file.read_exact_at(&mut after, 0).unwrap();
            assert!(after == content);
        }
        refused(|file| file[0] = 0, "it is not as it was made");
        refused(|file| file[79] = 2, "it is corrupt; hint: `qemu-img check -r all` may repair it");
        refused(|file| file[47] = 1, "it is not as it was made");
        refused(
            |file| file[15] = 104,
            "it is only a layer over another file; hint: `qemu-img convert -O qcow2` makes one of both",
        );
        refused(|file| file[23] = 99, "its clusters are of an impossible size");
    }
}
