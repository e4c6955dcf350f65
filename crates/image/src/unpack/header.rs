//! The 512 bytes before every entry of an archive, in each of the dialects: v7, POSIX `ustar`, GNU and star.

use super::BadLayer;
use super::time::Time;

/// Archives are made of blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// A block of an archive.
pub(super) type Block = [u8; BLOCK];

/// What a header says, before the extensions of other headers are put over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    /// Of what follows in the archive.
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) device: (u32, u32),
    /// Only where the dialect is GNU's.
    pub(super) sparse: Option<GnuSparse>,
}

/// The parts of a sparse file that fit into its header, and whether more blocks of them follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GnuSparse {
    pub(super) parts: Vec<(u64, u64)>,
    pub(super) is_extended: bool,
    pub(super) real_size: u64,
}

impl Header {
    /// Reads a header whose checksum is right.
    pub(super) fn parse(block: &Block) -> Result<Self, BadLayer> {
        if !has_checksum(block) {
            return Err(BadLayer::new("a header's checksum is wrong: this is no archive, or it is damaged"));
        }
        let number = |at, length, what| {
            number(field(block, at, length))
                .ok_or_else(|| BadLayer::new(format!("a header's {what} is no number")))
        };
        let kind = field(block, 156, 1).first().copied().unwrap_or_default();
        let is_gnu = field(block, 257, 8) == b"ustar  \0";
        let is_posix = field(block, 257, 6) == b"ustar\0";
        let is_star = is_posix && field(block, 508, 4) == b"tar\0";
        let prefix = match (is_posix, is_star) {
            (true, true) => text(field(block, 345, 131)),
            (true, false) => text(field(block, 345, 155)),
            (false, _) => &[],
        };
        let name = match prefix {
            [] => text(field(block, 0, 100)).to_vec(),
            prefix => [prefix, text(field(block, 0, 100))].join(&b'/'),
        };
        let device =
            |at| number(at, 8, "device number").map(|number| u32::try_from(number).unwrap_or_default());
        let is_device = matches!(kind, b'3' | b'4') && (is_gnu || is_posix);
        Ok(Self {
            kind,
            name,
            link: text(field(block, 157, 100)).to_vec(),
            mode: u32::try_from(number(100, 8, "mode")? & 0o7777).unwrap_or_default(),
            uid: number(108, 8, "uid")?,
            gid: number(116, 8, "gid")?,
            size: u64::try_from(number(124, 12, "size")?)
                .map_err(|_| BadLayer::new("a header's size is negative"))?,
            mtime: Time { seconds: number(136, 12, "time")?, nanoseconds: 0 },
            device: if is_device { (device(329)?, device(337)?) } else { (0, 0) },
            sparse: if is_gnu && kind == b'S' { Some(GnuSparse::parse(block)?) } else { None },
        })
    }
}

impl GnuSparse {
    fn parse(block: &Block) -> Result<Self, BadLayer> {
        let real_size = number(field(block, 483, 12)).and_then(|size| u64::try_from(size).ok());
        Ok(Self {
            parts: sparse_parts(field(block, 386, 96))?,
            is_extended: field(block, 482, 1) != [0],
            real_size: real_size.ok_or_else(|| BadLayer::new("the size of a sparse file is no number"))?,
        })
    }
}

/// Reads pairs of offset and length, to the first that is empty.
pub(super) fn sparse_parts(bytes: &[u8]) -> Result<Vec<(u64, u64)>, BadLayer> {
    let wrong = || BadLayer::new("the map of a sparse file is damaged");
    let mut parts = Vec::new();
    for pair in bytes.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.first() == Some(&0) {
            break;
        }
        let read = |field| number(field).and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong);
        parts.push((read(offset)?, read(length)?));
    }
    Ok(parts)
}

/// Whether a block of the map says that another follows.
pub(super) fn sparse_goes_on(block: &Block) -> bool {
    field(block, 504, 1) != [0]
}

fn field(block: &Block, at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// What stands before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Some writers of old took bytes for signed ones, so either sum will do.
fn has_checksum(block: &Block) -> bool {
    let counted = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = || block.iter().enumerate().map(|(at, byte)| counted(at, *byte));
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    number(field(block, 148, 8)).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// Octal digits among spaces and NULs, or, with the highest bit of the first byte set, binary.
fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            let is_negative = first & 0x40 != 0;
            let first = if is_negative { i128::from(first.cast_signed()) } else { i128::from(first & 0x7f) };
            // 12 bytes at most, so it cannot overflow.
            let value = rest.iter().fold(first, |value, byte| (value << 8) | i128::from(*byte));
            i64::try_from(value).ok()
        }
        _ => {
            let padding = |byte: &u8| matches!(byte, 0 | b' ');
            let digits = field.iter().skip_while(|byte| padding(byte)).take_while(|byte| **byte != 0);
            let digits: Vec<u8> = digits.copied().collect();
            let end = digits.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
            digits.get(..end)?.iter().try_fold(0i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"12 4\0", None),
            (b"0x12\0", None),
            (b"-1\0", None),
            (b"9\0", None),
            (b"\x80\0\0\0\0\0\x01\x00", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_header() {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(b"name");
        let error = Header::parse(&block).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        assert_eq!(Header::parse(&block).unwrap().name, b"name");
    }
}
