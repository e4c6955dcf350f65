//! What the upper directory of an overlayfs changes of the layers below it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::FileType;

use super::XattrSpace;
use super::layers::{Layers, is_opaque, is_whiteout};
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

/// What changed, by paths from the root, in their order. The layers come with the nearest first.
pub fn changes<'a>(
    upper: &Path,
    layers: impl IntoIterator<Item = &'a Path>,
    space: XattrSpace,
) -> Result<Vec<(Vec<u8>, Change)>> {
    let layers = Layers::open(layers, Some(space))?;
    let root = Tree::open(upper)?.root;
    let mut found = Vec::new();
    let mut open: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let doing = || format!("could not look at `{}`", show(&path));
        // It may have gone meanwhile: then there is nothing in it.
        let Some(directory) = below(root.fd(), &path).with_context(doing)? else { continue };
        let own = names(directory.as_fd()).with_context(doing)?;
        if is_opaque(directory.as_fd(), space) {
            for name in hidden(&layers, &path, &own).with_context(doing)? {
                found.push((join(&path, &name), Change::Deleted));
            }
        }
        for name in own {
            let Some(stat) = stat(directory.as_fd(), &name)? else { continue };
            let whole = join(&path, &name);
            let is_below = layers.find(&whole)?.is_some();
            let is_gone = is_whiteout(directory.as_fd(), &name, &stat, space);
            match (is_gone, is_below) {
                (true, false) => continue,
                (true, true) => found.push((whole, Change::Deleted)),
                (false, _) => {
                    if file_type(&stat) == FileType::Directory {
                        open.push(whole.clone());
                    }
                    found.push((whole, if is_below { Change::Changed } else { Change::Added }));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What the layers show in a directory and an opaque one over it does not have.
fn hidden(layers: &Layers, path: &[u8], own: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut gone = Vec::new();
    for root in layers.roots() {
        let Some(directory) = below(root.as_fd(), path)? else { continue };
        for name in names(directory.as_fd())? {
            if !own.contains(&name) && !gone.contains(&name) && layers.find(&join(path, &name))?.is_some() {
                gone.push(name);
            }
        }
    }
    Ok(gone)
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
        let found = changes(&directory.path().join("upper"), layers, XattrSpace::User).unwrap();
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
}
