//! Files of this computer in a guest: which those are, where the guest has them, and the process that serves them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use stead_agent::MOUNTS;
use stead_container::Share;
use stead_host::home::remove_if_there;
use stead_host::machine::Files;
use stead_model::container::{Access, Launch, Mount, Propagation, is_made};
use stead_model::name::Name;
use stead_vmm::{VIRTIOFSD, missing_program, virtiofsd};

use super::kept::Words;

/// What stead is called with to serve files.
const WORD: &str = "__share";

/// The name of the file system with all of them, in the guest.
pub(super) const FILE_SYSTEM: &str = "share";

/// What a guest is given, and what is launched in it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// What is launched, with sources that are the guest's.
    pub(super) launch: Launch,
    /// Where its volumes are in the guest.
    pub(super) volumes: BTreeMap<Name, PathBuf>,
    /// In the guest each is a directory or file that has its number for a name.
    pub(super) shares: Vec<Share>,
    /// Directories that are made if they are not there.
    made: Vec<PathBuf>,
}

/// What of a launch needs files of this computer. Pure.
pub(super) fn given(launch: &Launch, volumes: &BTreeMap<Name, PathBuf>) -> Result<Given> {
    let mut launch = launch.clone();
    let (mut shares, mut made): (Vec<Share>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    let mut inside = BTreeMap::new();
    let mut share = |source: &Path, access: Access| {
        let known = shares.iter().position(|share| share.source == source);
        let number = known.unwrap_or(shares.len());
        match shares.get_mut(number) {
            // What is mounted twice, once to be written, is given to be written.
            Some(share) if access == Access::Write => share.access = Access::Write,
            Some(_) => {}
            None => shares.push(Share { source: source.to_owned(), access }),
        }
        Path::new(MOUNTS).join(FILE_SYSTEM).join(number.to_string())
    };
    for mount in launch.mounts.values_mut() {
        match mount {
            Mount::Volume { name, access, external: _, nocopy: _ } => {
                let source = volumes.get(name).with_context(|| format!("volume `{name}` is not there"))?;
                inside.insert(name.clone(), share(source, *access));
            }
            Mount::Bind { source, access, propagation, create } => {
                if is_made(source, std::mem::take(create)) {
                    made.push(source.clone());
                }
                (*source, *propagation) = (share(source, *access), Propagation::Private);
            }
            Mount::Tmpfs { .. } => {}
        }
    }
    Ok(Given { launch, volumes: inside, shares, made })
}

/// The process that serves a guest's files.
pub(super) struct Server {
    child: Child,
    pub(super) pidfd: OwnedFd,
    pub(super) words: Words,
}

impl Server {
    /// Starts it: what it serves, and the VMM's end of its socket.
    pub(super) fn start(given: &Given, files: &Files, netns: &OwnedFd) -> Result<(Self, UnixStream)> {
        for directory in given.made.iter().filter(|directory| !directory.exists()) {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make `{}`", directory.display()))?;
        }
        given.shares.iter().try_for_each(|share| look_at(&share.source))?;
        // A vm has a root of its own, and this one only for what it is given.
        fs::create_dir_all(files.root())
            .with_context(|| format!("cannot make {}", files.root().display()))?;
        let path = files.run.join("share.sock");
        remove_if_there(&path)?;
        let listener = stead_net::unix::listen(&path)?;
        let stream = stead_net::unix::connect(&path).context("cannot reach what serves its files")?;
        // Nobody else comes.
        remove_if_there(&path)?;
        fcntl_setfd(&listener, FdFlags::empty()).context("cannot hand over a descriptor")?;
        let program = virtiofsd().with_context(|| missing_program(VIRTIOFSD))?;
        let shares = serde_json::to_string(&given.shares).context("cannot write what is shared as JSON")?;
        let words: [OsString; 6] = [
            WORD.into(),
            std::process::id().to_string().into(),
            program.into(),
            listener.as_raw_fd().to_string().into(),
            files.root().into(),
            shares.into(),
        ];
        let (said, end) = Words::new(&files.share_log())?;
        let child = Command::new("/proc/self/exe")
            .args(words)
            .current_dir("/")
            .stdin(netns.try_clone().context("cannot share its network namespace")?)
            .stdout(Stdio::null())
            .stderr(end)
            .spawn()
            .context("cannot start what serves its files")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("it has no number")?;
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).context("cannot look after what serves its files")?;
        Ok((Self { child, pidfd, words: said }, stream))
    }

    /// Ends it, if it did not end with the VMM.
    pub(super) fn end(mut self) {
        // It may just have ended.
        let _ended = self.child.kill();
        if let Err(error) = self.child.wait() {
            tracing::warn!("cannot look after what served its files: {error}");
        }
    }
}

/// Whether a guest can have a file of this computer.
fn look_at(source: &Path) -> Result<()> {
    let metadata = fs::metadata(source).with_context(|| format!("cannot mount `{}`", source.display()))?;
    let kind = metadata.file_type();
    let what = if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        return Ok(());
    };
    bail!(
        "cannot mount `{}`: it is {what}, whose other end a guest cannot have; hint: leave it out, or write `kind: container`",
        source.display()
    );
}

#[cfg(test)]
mod tests {
    use stead_model::container::Owner;

    use super::*;

    #[test]
    fn each_source_is_given_once_and_written_only_where_that_was_asked_for() {
        let bind = |source: &str, access, create| Mount::Bind {
            source: source.into(),
            access,
            propagation: Propagation::Private,
            create,
        };
        let db: Name = "db".parse().unwrap();
        let mounts = [
            ("/a", bind("/home/a", Access::Read, false)),
            ("/b", bind("/home/b", Access::Read, true)),
            ("/c", bind("/home/b", Access::Write, false)),
            ("/d", Mount::Volume { name: db.clone(), external: None, access: Access::Write, nocopy: false }),
            (
                "/e",
                Mount::Tmpfs {
                    size_bytes: None,
                    mode: None,
                    owner: Owner::default(),
                    access: Access::Write,
                    exec: false,
                },
            ),
        ];
        let mounts = mounts.map(|(target, mount)| (target.to_owned(), mount));
        let launch = Launch { mounts: mounts.clone().into(), ..launch() };
        let given = given(&launch, &[(db.clone(), "/volumes/db".into())].into()).unwrap();
        let share = |source: &str, access| Share { source: source.into(), access };
        assert_eq!(
            given.shares,
            [
                share("/home/a", Access::Read),
                share("/home/b", Access::Write),
                share("/volumes/db", Access::Write)
            ]
        );
        assert_eq!(given.made, [PathBuf::from("/home/b")]);
        assert_eq!(given.volumes, [(db, PathBuf::from("/run/stead/mounts/share/2"))].into());
        assert_eq!(given.launch.mounts["/b"], bind("/run/stead/mounts/share/1", Access::Read, false));
        assert_eq!(given.launch.mounts["/e"], mounts[4].1);
    }

    fn launch() -> Launch {
        let mut wish = stead_model::container::Container::new("busybox:1".parse().unwrap());
        wish.command = Some(vec!["true".to_owned()]);
        wish.launch(&"web".parse().unwrap(), &stead_model::image::ImageConfig::default()).unwrap()
    }
}
