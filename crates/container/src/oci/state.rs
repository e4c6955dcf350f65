//! What is on record of containers: a directory for each, below a root that callers may choose.
//!
//! ```text
//! <root>/<id>/record.json   who it is, written anew as a whole
//!             config.json   what the bundle said when it was made
//!             cgroup.json   where its cgroups are (`cgroup`)
//!             start.sock    on which its first process waits for `start`; nobody does once it is the program
//!             lock          held by who changes it
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use serde::{Deserialize, Serialize};

use super::check::Refused;
use crate::cgroup::Cgroup;
pub(crate) use crate::stamp::Stamp;

/// The specification's version that states are in.
pub(crate) const VERSION: &str = "1.2.0";

/// How far the making of a container got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Creating,
    Created,
}

/// What is on record of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) created: String,
    pub(crate) phase: Phase,
    pub(crate) maker: Option<Stamp>,
    pub(crate) first: Option<Stamp>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It was made, and waits to be started.
    Created,
    /// Its program runs.
    Running,
    /// Its program is held still.
    Paused,
    /// It has ended, or was never made to the end.
    Stopped,
}

impl Status {
    /// The specification's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's state, as the specification has it, and what callers of runc expect beside that.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    oci_version: &'static str,
    /// Its name.
    pub id: String,
    /// What it is doing.
    pub status: Status,
    /// Its first process; 0 if there is none.
    pub pid: u32,
    /// Its bundle.
    pub bundle: PathBuf,
    rootfs: PathBuf,
    /// When it was made.
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Record {
    /// The state with this status, as this process sees the container's first one.
    pub(crate) fn state(&self, status: Status, pid: u32) -> State {
        State {
            oci_version: VERSION,
            id: self.id.clone(),
            status,
            pid,
            bundle: self.bundle.clone(),
            rootfs: self.root.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// A container's directory.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) directory: PathBuf,
    pub(crate) id: String,
}

/// Held by who changes a container; let go of when dropped, or when its process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

/// Hooks run under the lock, so that it can take as long as they do.
const LOCK_LIMIT: Duration = Duration::from_secs(120);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(10);

impl Room {
    /// Where a container of this name is on record.
    pub(crate) fn new(root: &Path, id: &str) -> Result<Self> {
        let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if id.is_empty() || id.len() > 200 || !id.chars().all(lawful) || matches!(id, "." | "..") {
            return Err(Refused::one(format!("`{}` is no name of a container", id.escape_debug())).into());
        }
        Ok(Self { directory: root.join(id), id: id.to_owned() })
    }

    /// Makes it; refused if there is one.
    pub(crate) fn make(&self) -> Result<()> {
        let root = self.directory.parent().context("there is no directory for containers")?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        fs::DirBuilder::recursive(&mut builder, true)
            .create(root)
            .with_context(|| format!("cannot make `{}`", root.display()))?;
        match fs::DirBuilder::new().mode(0o700).create(&self.directory) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Refused::one(format!("there is a container `{}` already", self.id)).into())
            }
            Err(error) => Err(error).with_context(|| format!("cannot make `{}`", self.directory.display())),
        }
    }

    /// Waits for whoever is changing the container; refused if there is none.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.directory.join("lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let deadline = Instant::now() + LOCK_LIMIT;
        let fd = match open(&path, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(self.missing()),
            Err(errno) => return Err(errno).with_context(|| format!("cannot open `{}`", path.display())),
        };
        // Of this process alone: children of ours, which become containers, do not hold it.
        while let Err(errno) = fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            if !matches!(errno, Errno::AGAIN | Errno::ACCESS | Errno::INTR) {
                return Err(errno).context("cannot lock the container");
            }
            if Instant::now() > deadline {
                bail!("waited {} s for another command that changes `{}`", LOCK_LIMIT.as_secs(), self.id);
            }
            std::thread::sleep(LOCK_LOOK_EVERY);
        }
        // It may have been deleted, and even made anew, meanwhile.
        let held = rustix::fs::fstat(&fd)?;
        match rustix::fs::stat(&path) {
            Ok(found) if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino) => {
                Ok(Lock(File::from(fd)))
            }
            _ => Err(self.missing()),
        }
    }

    /// That there is no such container.
    pub(crate) fn missing(&self) -> anyhow::Error {
        Refused::one(format!("container `{}` does not exist", self.id)).into()
    }

    /// Puts what is known on record, as a whole.
    pub(crate) fn store(&self, record: &Record) -> Result<()> {
        let (path, fresh) = (self.directory.join("record.json"), self.directory.join("record.new"));
        fs::write(&fresh, serde_json::to_vec(record)?)
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// What is on record; absent where its maker got no further than the directory.
    pub(crate) fn load(&self) -> Result<Option<Record>> {
        match fs::read(self.directory.join("record.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text).context("the record cannot be read")?),
            Err(error) if error.kind() == ErrorKind::NotFound && self.directory.is_dir() => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.missing()),
            Err(error) => Err(error).context("cannot read the record"),
        }
    }

    /// What a container is doing, by what is to be seen of its processes.
    pub(crate) fn status(&self, record: &Record) -> Result<Status> {
        let is_alive = |process: Option<Stamp>| process.map_or(Ok(false), Stamp::is_alive);
        let is_made = record.phase == Phase::Creating && is_alive(record.maker)?;
        if !is_alive(record.first)? {
            return Ok(if is_made { Status::Creating } else { Status::Stopped });
        }
        Ok(match record.phase {
            Phase::Creating if is_made => Status::Creating,
            // Its maker died: it ends as soon as it notices.
            Phase::Creating => Status::Stopped,
            Phase::Created if self.is_waiting() => Status::Created,
            Phase::Created if !is_alive(record.first)? => Status::Stopped,
            Phase::Created if Cgroup::load(&self.directory).is_ok_and(|cgroup| cgroup.is_frozen()) => {
                Status::Paused
            }
            Phase::Created => Status::Running,
        })
    }

    /// Whether the first process waits for `start`.
    fn is_waiting(&self) -> bool {
        // Where its queue is full, it is there.
        matches!(self.connect(SocketFlags::NONBLOCK), Ok(_) | Err(Errno::AGAIN))
    }

    /// A connection to the first process.
    pub(crate) fn connect(&self, flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?;
        let directory = self.open()?;
        connect(&fd, &Self::address(&directory)?)?;
        Ok(fd)
    }

    /// The socket on which the first process waits.
    pub(crate) fn listen(&self) -> rustix::io::Result<OwnedFd> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let directory = self.open()?;
        bind(&fd, &Self::address(&directory)?)?;
        listen(&fd, 16)?;
        Ok(fd)
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        open(&self.directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Addresses of sockets are short, paths may be long.
    fn address(directory: &OwnedFd) -> rustix::io::Result<SocketAddrUnix> {
        SocketAddrUnix::new(format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd()))
    }

    /// Removes what is on record. The lock goes last.
    pub(crate) fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove `{}`", self.directory.display()))
            }
            _ => Ok(()),
        }
    }
}
