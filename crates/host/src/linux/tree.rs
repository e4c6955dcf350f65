//! Trees of files that go. Some of them belong to users whom, on an ordinary user's computer, only the root of a user
//! namespace can speak for.

use std::path::Path;

use anyhow::{Context, Result};

/// What stead is called with to delete a tree of files as such a root.
const DELETE_WORD: &str = "__delete";

/// Deletes a tree; what is not there is no error.
pub(super) fn delete(program: &Path, tree: &Path) -> Result<()> {
    match stead_container::delete(tree) {
        Err(_) if !rustix::process::geteuid().is_root() => {
            let args = [DELETE_WORD.into(), tree.into()];
            let deleted = stead_net::anchor::run_as_root(program, &args).map(drop);
            deleted.with_context(|| format!("cannot delete {}", tree.display()))
        }
        deleted => deleted,
    }
}
