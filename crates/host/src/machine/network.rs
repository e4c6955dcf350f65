//! By which it is seen whether a machine is still in the network of another: that one may have got another namespace.

use std::fs;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Files;
use crate::home::write_run_file;

/// A network namespace, as long as somebody is in it: the kernel gives its number to no other then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMark {
    device: u64,
    inode: u64,
}

impl NetworkMark {
    /// Of a namespace that is open.
    pub fn of(namespace: BorrowedFd<'_>) -> Result<Self> {
        let seen = rustix::fs::fstat(namespace).context("cannot see a network namespace")?;
        Ok(Self { device: seen.st_dev, inode: seen.st_ino })
    }

    /// The one that a keeper wrote down which lives; nothing if it cannot be read.
    pub fn load(files: &Files) -> Option<Self> {
        serde_json::from_slice(&fs::read(files.network()).ok()?).ok()
    }

    /// Writes down where a machine is that is about to run.
    pub fn store(self, files: &Files) -> Result<()> {
        let text = serde_json::to_vec(&self).context("cannot write a network's mark as JSON")?;
        write_run_file(&files.network(), &text)
    }
}
