//! Where a container is, and what the one who keeps it hands over: everything but what it is to be.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use stead_model::name::Name;

/// Where a container's parts are on this computer. All directories exist, but `root`'s content.
#[derive(Debug)]
pub struct Place {
    /// Its image's unpacked layers, the lowest first; none of them is ever written.
    pub layers: Vec<PathBuf>,
    /// What it changes of them.
    pub upper: PathBuf,
    /// Whether it goes when it ends: what it changes then need not reach the disk, and is lost with the computer.
    pub is_passing: bool,
    /// A directory for overlayfs, on the same file system as `upper`.
    pub work: PathBuf,
    /// An empty directory, on which its root is mounted, as only it sees.
    pub root: PathBuf,
    /// The project's volumes that it mounts.
    pub volumes: BTreeMap<Name, PathBuf>,
    /// The directory in which its own volumes are, each in one named after its place.
    pub own_volumes: PathBuf,
    /// The text of `/etc/hosts`; as the image has it where absent.
    pub hosts: Option<String>,
    /// The text of `/etc/resolv.conf`; as the image has it where absent.
    pub resolv_conf: Option<String>,
    /// Its network namespace.
    pub netns: OwnedFd,
    /// Its cgroup, below the one in which all ours are: a relative path, which no other container has.
    pub cgroup: String,
    /// A directory of its keeper's, in which files for its present run are made.
    pub state: PathBuf,
}

/// What a process in a container reads and writes.
#[derive(Clone, Copy, Debug)]
pub enum Stdio<'a> {
    /// These.
    Streams {
        /// Standard input.
        stdin: BorrowedFd<'a>,
        /// Standard output.
        stdout: BorrowedFd<'a>,
        /// Standard error.
        stderr: BorrowedFd<'a>,
    },
    /// A terminal, which is made in the container.
    Terminal(WindowSize),
}

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// How many characters go in a line.
    pub columns: u16,
    /// How many lines there are.
    pub rows: u16,
}

impl Default for WindowSize {
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

/// Why a process in a container did not start, with the exit code that says who can act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 125: we could not; 126: the program cannot be executed; 127: there is no such program.
    pub code: u8,
    /// Which stage failed, where and why.
    pub text: String,
}

/// We could not, before the program was to run.
pub const CODE_OURS: u8 = 125;
/// The program is there, but cannot be executed.
pub(crate) const CODE_NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
pub(crate) const CODE_NOT_FOUND: u8 = 127;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|error| Self { code: CODE_OURS, text: format!("{error:#}") })
    }
}
