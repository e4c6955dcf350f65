//! Names of entries: what they mean inside the root, and which of them are marks that something is gone.

use super::BadLayer;

/// What a layer puts before the name of something that is gone.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// In a directory: nothing of the lower layers is in it.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS kept notes for itself under such names.
const NOTE: &[u8] = b".wh..wh.";

/// The last part of a name, and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf<'a> {
    /// The root itself.
    Root,
    /// Something to be there.
    Entry(&'a [u8]),
    /// This is not there any more.
    Whiteout(&'a [u8]),
    /// The directory begins empty.
    Opaque,
    /// AUFS's own: nothing.
    Note,
}

/// Makes a name relative to the root, without `.`, `..` and doubled slashes. Absolute ones are meant from the root, as
/// everybody takes them; `..` may not lead out of it.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, BadLayer> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| BadLayer::new("its name leads out of the root"))?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// The directory that a clean name is in, and its last part.
pub(super) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (name.get(..slash).unwrap_or_default(), name.get(slash + 1..).unwrap_or_default()),
        None => (&[], name),
    }
}

/// Puts a name behind a clean path.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') }
}

/// The directory of a clean name, and what its last part stands for.
pub(super) fn classify(name: &[u8]) -> Result<(&[u8], Leaf<'_>), BadLayer> {
    let (directory, last) = split(name);
    // Overlayfs would not mind, but whoever packs the tree again would make whiteouts of it.
    if directory.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
        return Err(BadLayer::new("it is inside of a whiteout"));
    }
    let leaf = match last.strip_prefix(WHITEOUT) {
        _ if last.is_empty() => Leaf::Root,
        _ if last == OPAQUE => Leaf::Opaque,
        _ if last.starts_with(NOTE) => Leaf::Note,
        Some(b"" | b"." | b"..") => {
            return Err(BadLayer::new("a whiteout of nothing, or of its own directory"));
        }
        Some(gone) => Leaf::Whiteout(gone),
        None => Leaf::Entry(last),
    };
    Ok((directory, leaf))
}

/// The same for an archive in which no name stands for anything else.
pub(super) fn literal(name: &[u8]) -> (&[u8], Leaf<'_>) {
    let (directory, last) = split(name);
    (directory, if last.is_empty() { Leaf::Root } else { Leaf::Entry(last) })
}

/// A name for people: without control characters, and not without end.
pub(super) fn show(name: &[u8]) -> String {
    const CHARS_MAX: usize = 200;
    let text = String::from_utf8_lossy(name);
    let shown: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Result<(&str, Leaf<'_>), &str>) {
        let cleaned = clean(name.as_bytes());
        let read = cleaned.as_ref().map_err(Clone::clone).and_then(|name| classify(name));
        match expected {
            Ok((directory, leaf)) => assert_eq!(read.unwrap(), (directory.as_bytes(), leaf), "{name}"),
            Err(why) => {
                let error = read.unwrap_err().to_string();
                assert!(error.contains(why), "{name}: {error}");
            }
        }
    }

    #[test]
    fn names_are_meant_from_the_root() {
        check("a", Ok(("", Leaf::Entry(b"a"))));
        check("./a//b/", Ok(("a", Leaf::Entry(b"b"))));
        check("/etc/passwd", Ok(("etc", Leaf::Entry(b"passwd"))));
        check("a/../b", Ok(("", Leaf::Entry(b"b"))));
        check("./", Ok(("", Leaf::Root)));
        check("a/..", Ok(("", Leaf::Root)));
        check("..", Err("out of the root"));
        check("a/../../b", Err("out of the root"));
        check("/../etc/passwd", Err("out of the root"));
    }

    #[test]
    fn whiteouts_are_told_from_entries() {
        check("a/.wh.b", Ok(("a", Leaf::Whiteout(b"b"))));
        check(".wh..wh..opq", Ok(("", Leaf::Opaque)));
        check("a/.wh..wh.plnk", Ok(("a", Leaf::Note)));
        check(".wh..b", Ok(("", Leaf::Whiteout(b".b"))));
        check("a.wh.b", Ok(("", Leaf::Entry(b"a.wh.b"))));
        check("a/.wh.", Err("a whiteout of nothing"));
        check("a/.wh..", Err("a whiteout of nothing"));
        check("a/.wh...", Err("a whiteout of nothing"));
        check(".wh.a/b", Err("inside of a whiteout"));
        check(".wh..wh..opq/.wh.b", Err("inside of a whiteout"));
    }

    #[test]
    fn shown_names_do_not_drive_the_terminal() {
        assert_eq!(show(b"a\x1b[1m\xff"), "a\\u{1b}[1m\u{fffd}");
        assert_eq!(show(&[b'x'; 300]).chars().count(), 201);
    }
}
