//! Netlink messages as bytes: a header, a fixed part, and attributes (type, length, value) that nest.
//! Everything is in the computer's own byte order and aligned to four bytes; where a protocol wants network
//! order (nftables), the value is given in it.

/// `sizeof(struct nlmsghdr)`.
pub(super) const HEADER_BYTES: usize = 16;
/// `sizeof(struct nlattr)`.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
const TYPE_MASK: u16 = 0x3fff;

/// One message in the making. Its sequence number is filled in when it is sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of type `kind` with its fixed part.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        pad(&mut bytes);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = length16(ATTRIBUTE_HEADER_BYTES + value.len());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(&mut self.bytes);
    }

    /// Adds a text that ends in NUL.
    pub(super) fn put_text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value);
    }

    /// Adds a number in the computer's byte order.
    pub(super) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds a number in network byte order.
    pub(super) fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.nest_after(kind | NESTED, &[], fill);
    }

    /// Adds an attribute that holds a fixed part and then what `fill` adds.
    pub(super) fn nest_after(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.put(kind, fixed);
        fill(self);
        let length = length16(self.bytes.len() - start);
        self.overwrite(start, &length.to_ne_bytes());
    }

    /// Adds flags to the header's.
    pub(super) fn add_flags(&mut self, flags: u16) {
        let all = u16_at(&self.bytes, 6).unwrap_or(0) | flags;
        self.overwrite(6, &all.to_ne_bytes());
    }

    /// The finished message.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.overwrite(0, &length.to_ne_bytes());
        self.overwrite(8, &sequence.to_ne_bytes());
        self.bytes
    }

    fn overwrite(&mut self, at: usize, value: &[u8]) {
        self.bytes.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
    }
}

/// An attribute's length. What we send is far below the limit: links have a few hundred bytes, and lists
/// of set elements are cut into pieces (see `nft::wire`).
fn length16(length: usize) -> u16 {
    debug_assert!(length <= usize::from(u16::MAX), "an attribute of {length} bytes");
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message as received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    /// Its type.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages in a datagram. One that is cut short ends the list.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER_BYTES..length)?;
        let received =
            Received { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)?, body };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

/// The attributes in `bytes`, as type and value. One that is cut short ends the list.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of type `kind`.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The first `N` bytes from `at`.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A number in the computer's byte order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

/// A number in the computer's byte order.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

/// A text up to its first NUL. What is not UTF-8 (a link named by somebody else) is shown with `U+FFFD`.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_with_its_nested_attributes() {
        let mut message = Message::new(16, 5, &[1, 2, 3, 4]);
        message.put_text(3, "lan");
        message.nest(18, |inner| inner.put_u32(1, 7));
        let bytes = message.finish(9);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].flags, all[0].sequence), (16, 5, 9));
        let attributes_of = &all[0].body[4..];
        assert_eq!(attribute(attributes_of, 3).map(text).as_deref(), Some("lan"));
        let inner = attribute(attributes_of, 18).unwrap();
        assert_eq!(attribute(inner, 1).and_then(|value| u32_at(value, 0)), Some(7));
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_ends_the_list() {
        let bytes = Message::new(16, 0, &[0; 4]).finish(1);
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0, "{end}");
        }
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
    }
}
