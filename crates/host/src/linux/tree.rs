//! Trees of files that go, are copied, or are measured. Some of them belong to users whom, on an ordinary user's computer,
//! only the root of a user namespace can speak for.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// What stead is called with to delete a tree of files as such a root.
const DELETE_WORD: &str = "__delete";
/// To give one another place.
const SHIFT_WORD: &str = "__shift";
/// To copy the layer of a machine.
const COPY_WORD: &str = "__copy-layer";
/// To have more names for the files of such a layer.
const LINK_WORD: &str = "__link-layer";
/// To make such a layer that of another machine.
const RENEW_WORD: &str = "__renew-layer";
/// To measure a tree.
const MEASURE_WORD: &str = "__measure";

/// Deletes a tree; what is not there is no error.
pub fn delete(program: &Path, tree: &Path) -> Result<()> {
    match stead_container::delete(tree) {
        Err(_) if !rustix::process::geteuid().is_root() => {
            let deleted = as_root(program, DELETE_WORD, &[tree]).map(drop);
            deleted.with_context(|| format!("cannot delete {}", tree.display()))
        }
        deleted => deleted,
    }
}

/// Gives a tree another place in the same file system.
pub(super) fn shift(program: &Path, from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() =>
        {
            as_root(program, SHIFT_WORD, &[from, to]).map(drop)
        }
        shifted => Ok(shifted?),
    }
}

/// Copies what is in a directory, and what the directory itself is, to another that is empty.
pub(super) fn copy(program: &Path, from: &Path, to: &Path) -> Result<()> {
    let copied = match rustix::process::geteuid().is_root() {
        true => stead_container::copy_layer(from, to),
        false => as_root(program, COPY_WORD, &[from, to]).map(drop),
    };
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The same for layers that nobody writes any more: the files are the same ones.
pub(super) fn link(program: &Path, from: &Path, to: &Path) -> Result<()> {
    let linked = match rustix::process::geteuid().is_root() {
        true => stead_container::link_layer(from, to),
        false => as_root(program, LINK_WORD, &[from, to]).map(drop),
    };
    linked.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Takes from a layer what the machine that wrote it is known by; gives how many secrets that were.
pub(super) fn renew(program: &Path, layer: &Path) -> Result<u64> {
    if rustix::process::geteuid().is_root() {
        return stead_container::renew_layer(layer);
    }
    let told = as_root(program, RENEW_WORD, &[layer])?;
    told.trim().parse().context("a number was to be told")
}

/// What the files of a tree take; nothing if it is not there.
pub fn measure(program: &Path, tree: &Path) -> Result<u64> {
    let told = match taken_bytes(tree) {
        Ok(bytes) => return Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(_) if !rustix::process::geteuid().is_root() => as_root(program, MEASURE_WORD, &[tree]),
        Err(error) => Err(error.into()),
    };
    let bytes = told.and_then(|text| text.trim().parse().context("a number was to be told"));
    bytes.with_context(|| format!("cannot measure {}", tree.display()))
}

fn as_root(program: &Path, word: &str, paths: &[&Path]) -> Result<String> {
    let args: Vec<OsString> =
        [word.into()].into_iter().chain(paths.iter().map(|path| path.as_os_str().to_owned())).collect();
    stead_net::anchor::run_as_root(program, &args)
}

/// The blocks of a file, or of all files in a directory.
pub fn taken_bytes(path: &Path) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut known = BTreeSet::new();
    let mut bytes = 0;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        // A file of several names takes its room once.
        if known.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.blocks() * BLOCK_BYTES;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(bytes)
}
