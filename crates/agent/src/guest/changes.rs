//! What a container changed of its image: what overlayfs keeps above that, held against it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use stead_agent::message::{Change, Changed};

/// The marks of overlayfs: a directory that hides what is below it, and a file that does.
const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT: &str = "trusted.overlay.whiteout";

/// What of `lower` is changed by `upper`, by paths within the root; in no order.
pub(crate) fn changes(upper: &Path, lower: &Path) -> Result<Vec<Changed>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let here = upper.join(&path);
        let doing = || format!("cannot look at `/{}`", path.display());
        let entries = match fs::read_dir(&here) {
            // It has gone meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(doing)?,
        };
        if has_mark(&here, OPAQUE) {
            found.extend(names(&lower.join(&path)).into_iter().filter_map(|name| {
                let is_gone = fs::symlink_metadata(here.join(&name)).is_err();
                is_gone.then(|| changed(&path.join(name), Change::Deleted))
            }));
        }
        for entry in entries.flatten() {
            let whole = path.join(entry.file_name());
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            let is_below = fs::symlink_metadata(lower.join(&whole)).is_ok();
            match (is_whiteout(&entry.path(), &metadata), is_below) {
                (true, false) => {}
                (true, true) => found.push(changed(&whole, Change::Deleted)),
                (false, _) => {
                    found.push(changed(&whole, if is_below { Change::Changed } else { Change::Added }));
                    if metadata.is_dir() {
                        open.push(whole);
                    }
                }
            }
        }
    }
    Ok(found)
}

fn changed(path: &Path, change: Change) -> Changed {
    Changed { path: format!("/{}", path.to_string_lossy()), change }
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

fn is_whiteout(path: &Path, metadata: &Metadata) -> bool {
    (metadata.file_type().is_char_device() && metadata.rdev() == 0)
        || (metadata.is_file() && metadata.len() == 0 && has_mark(path, WHITEOUT))
}

fn has_mark(path: &Path, name: &str) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(path, name, &mut value).is_ok_and(|length| length == 0 || value == *b"y")
}
