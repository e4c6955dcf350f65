//! The records of a PAX header, which say what its fields cannot hold: `30 mtime=1700000000.123456789\n`.

use super::BadLayer;
use super::time::Time;

/// What the records of one entry say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// What GNU tar says of sparse files. Versions 0.0 and 0.1 have the map here, 1.0 before the contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) is_version_1: bool,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths by turns.
    pub(super) map: Option<Vec<u64>>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Reads all records; those that mean nothing to us are left out.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, BadLayer> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(|| BadLayer::new("a PAX record is damaged"))?;
            records.take(key, value).ok_or_else(|| {
                BadLayer::new(format!("the PAX record `{}` has no lawful value", super::name::show(key)))
            })?;
            bytes = rest;
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(Time::parse(value)?) },
            b"GNU.sparse.major" => self.sparse.is_version_1 = number::<u64>(value)? == Some(1),
            b"GNU.sparse.name" => self.sparse.name = name(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number(value)?,
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|number| !number.is_empty());
                self.sparse.map = Some(numbers.map(|text| number(text)?).collect::<Option<_>>()?);
            }
            // Of version 0.0: one pair of records for each part, in their order.
            b"GNU.sparse.numblocks" => self.sparse.map = Some(Vec::new()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                if map.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") {
                    return None;
                }
                map.push(number(value)??);
            }
            key => {
                if let Some(xattr) = key.strip_prefix(XATTR) {
                    if xattr.is_empty() || xattr.contains(&0) {
                        return None;
                    }
                    self.xattrs.retain(|(name, _)| name != xattr);
                    self.xattrs.push((xattr.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// One record's key and value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // The length counts the whole record, itself too.
    let space = bytes.iter().take(12).position(|byte| *byte == b' ')?;
    let length: usize = number(bytes.get(..space)?)??;
    let text = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (text.get(..equals)?, text.get(equals + 1..)?);
    (!key.is_empty()).then_some((key, value, bytes.get(length..)?))
}

/// An empty value takes the record back, so the header's own field holds.
fn name(value: &[u8]) -> Option<Option<Vec<u8>>> {
    match value {
        [] => Some(None),
        value if value.contains(&0) => None,
        value => Some(Some(value.to_vec())),
    }
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<Option<T>> {
    match value {
        [] => Some(None),
        [b'+', ..] => None,
        value => Some(Some(std::str::from_utf8(value).ok()?.parse().ok()?)),
    }
}

/// Writes a record, its own length in front.
pub(super) fn render(key: &[u8], value: &[u8], into: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length = rest + length.to_string().len();
    }
    into.extend(length.to_string().bytes());
    into.push(b' ');
    into.extend(key);
    into.push(b'=');
    into.extend(value);
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in 0..1200 {
            let value = vec![b'x'; length];
            let mut bytes = Vec::new();
            render(b"SCHILY.xattr.user.a", &value, &mut bytes);
            assert_eq!(Records::parse(&bytes).unwrap().xattrs, [(b"user.a".to_vec(), value)]);
        }
    }

    #[test]
    fn records_are_read() {
        let records = Records::parse(
            b"12 path=a/b\n30 mtime=1700000000.123456789\n11 uid=4242\n6 gid=\n19 comment=whatever\n",
        );
        assert_eq!(records.unwrap_err().to_string(), "a PAX record is damaged");
        let records =
            Records::parse(b"12 path=a/b\n15 mtime=17.25\n12 uid=4242\n7 gid=\n15 comment=abc\n").unwrap();
        let mtime = Some(Time { seconds: 17, nanoseconds: 250_000_000 });
        let expected = Records { path: Some(b"a/b".to_vec()), mtime, uid: Some(4242), ..Records::default() };
        assert_eq!(records, expected);
    }

    #[test]
    fn sparse_maps_have_three_forms() {
        let old = b"26 GNU.sparse.numblocks=2\n23 GNU.sparse.offset=1\n25 GNU.sparse.numbytes=2\n\
                    23 GNU.sparse.offset=5\n25 GNU.sparse.numbytes=6\n";
        assert_eq!(Records::parse(old).unwrap().sparse.map, Some(vec![1, 2, 5, 6]));
        assert_eq!(
            Records::parse(b"26 GNU.sparse.map=1,2,5,6\n").unwrap().sparse.map,
            Some(vec![1, 2, 5, 6])
        );
        assert!(Records::parse(b"22 GNU.sparse.major=1\n").unwrap().sparse.is_version_1);
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 a=bc",
            b"6 =bc\n",
            b"99999999999999999999 a=b\n",
            b"0 a=b\n",
            b"+6 a=b\n",
            b"9 path=\0\n",
            b"11 uid=0x10\n",
            b"10 size=-1\n",
            b"18 SCHILY.xattr.=\n",
            b"25 GNU.sparse.numbytes=2\n",
            b"22 GNU.sparse.offset=\n",
            b"22 GNU.sparse.map=1,x\n",
        ] {
            Records::parse(bytes).expect_err(&String::from_utf8_lossy(bytes));
        }
    }
}
