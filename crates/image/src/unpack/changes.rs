//! What the upper directory of an overlayfs changes of the layers below it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::FileType;

use super::XattrSpace;
use super::layers::{Layers, is_opaque};
use super::name::{join, show};
use super::tree::{Tree, file_type, names, open_directory, stat};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    Added,
    /// It, or something in it, is another.
    Changed,
    /// It is gone.
    Deleted,
}

/// What changed, by paths from the root, in their order. The upper directories lie upon each other and upon the layers; of
/// both the nearest comes first.
pub fn changes<'a>(
    uppers: impl IntoIterator<Item = &'a Path>,
    layers: impl IntoIterator<Item = &'a Path>,
    space: XattrSpace,
) -> Result<Vec<(Vec<u8>, Change)>> {
    let uppers: Vec<&Path> = uppers.into_iter().collect();
    let layers: Vec<&Path> = layers.into_iter().collect();
    let whole = Layers::open(uppers.iter().chain(&layers).copied(), Some(space))?;
    let layers = Layers::open(layers, Some(space))?;
    let mut touched = BTreeSet::new();
    for upper in uppers {
        touch(upper, &layers, space, &mut touched)?;
    }
    let mut found: Vec<(Vec<u8>, Change)> = Vec::new();
    let mut no_directories: BTreeSet<Vec<u8>> = BTreeSet::new();
    for path in touched {
        // What was in a directory went with it.
        if above(&path).any(|above| no_directories.contains(above)) {
            continue;
        }
        let (now, before) = (whole.find(&path)?, layers.find(&path)?);
        if now.as_ref().is_none_or(|now| file_type(&now.stat) != FileType::Directory) {
            no_directories.insert(path.clone());
        }
        match (now, before) {
            (Some(_), None) => found.push((path, Change::Added)),
            (Some(_), Some(_)) => found.push((path, Change::Changed)),
            (None, Some(_)) => found.push((path, Change::Deleted)),
            (None, None) => {}
        }
    }
    Ok(found)
}

/// The directories that a path leads through.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter_map(|(at, _)| path.get(..at))
}

/// Collects the paths of which an upper directory says something.
fn touch(
    upper: &Path,
    layers: &Layers<'_>,
    space: XattrSpace,
    touched: &mut BTreeSet<Vec<u8>>,
) -> Result<()> {
    let root = Tree::open(upper)?.root;
    let mut open: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let doing = || format!("could not look at `{}`", show(&path));
        // It may have gone meanwhile: then there is nothing in it.
        let Some(directory) = below(root.fd(), &path).with_context(doing)? else { continue };
        if is_opaque(directory.as_fd(), space) {
            touched.extend(hidden(layers, &path).with_context(doing)?);
        }
        for name in names(directory.as_fd()).with_context(doing)? {
            let Some(stat) = stat(directory.as_fd(), &name)? else { continue };
            let whole = join(&path, &name);
            if file_type(&stat) == FileType::Directory {
                open.push(whole.clone());
            }
            touched.insert(whole);
        }
    }
    Ok(())
}

/// What the layers have in a directory over which an opaque one lies.
fn hidden(layers: &Layers<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for root in layers.roots() {
        let Some(directory) = below(root.as_fd(), path)? else { continue };
        paths.extend(names(directory.as_fd())?.iter().map(|name| join(path, name)));
    }
    Ok(paths)
}

/// A directory, without following links; none if there is none.
fn below(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>> {
    let mut here = open_directory(root, b".")?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        match open_directory(here.as_fd(), part) {
            Ok(next) => here = next,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Some(here))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_in_the_upper_directory_is_added_where_no_layer_shows_it() {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.to_string_lossy().as_bytes()).unwrap();
        };
        for path in ["low/etc/hosts", "low/etc/old/one", "high/etc/motd", "upper/etc/hosts", "upper/new/file"]
        {
            put(path);
        }
        let layers = [directory.path().join("high"), directory.path().join("low")];
        let layers = layers.iter().map(std::path::PathBuf::as_path);
        let upper = directory.path().join("upper");
        let found = changes([upper.as_path()], layers, XattrSpace::User).unwrap();
        let found: Vec<(String, Change)> =
            found.into_iter().map(|(path, change)| (String::from_utf8(path).unwrap(), change)).collect();
        let expected = [
            ("etc", Change::Changed),
            ("etc/hosts", Change::Changed),
            ("new", Change::Added),
            ("new/file", Change::Added),
        ];
        assert_eq!(found, expected.map(|(path, change)| (path.to_owned(), change)));
    }

    #[test]
    fn upper_directories_upon_each_other_are_held_against_the_layers_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let put = |path: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "").unwrap();
        };
        let mark = |path: &str, name: &std::ffi::CStr| {
            rustix::fs::setxattr(at(path), name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        };
        for path in
            ["low/dir/a", "low/dir/b", "low/old/a", "low/kept", "first/dir/a", "first/dir/new", "first/was"]
        {
            put(path);
        }
        // First `dir/b` and `old/a` went; then all of `dir`, and what was new, while `old` is there anew.
        for path in ["first/dir/b", "first/old/a", "second/dir", "second/was"] {
            put(path);
            mark(path, c"user.overlay.whiteout");
        }
        put("second/old/c");
        mark("second/old", c"user.overlay.opaque");
        let uppers = [at("second"), at("first")];
        let low = at("low");
        let uppers = uppers.iter().map(std::path::PathBuf::as_path);
        let found = changes(uppers, [low.as_path()], XattrSpace::User).unwrap();
        let expected = [
            ("dir", Change::Deleted),
            ("old", Change::Changed),
            ("old/a", Change::Deleted),
            ("old/c", Change::Added),
        ];
        let found: Vec<(&str, Change)> =
            found.iter().map(|(path, change)| (std::str::from_utf8(path).unwrap(), *change)).collect();
        assert_eq!(found, expected);
    }
}
