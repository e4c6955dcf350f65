//! Which namespaces a container is in: new ones, and those that it joins.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::check::open;
use super::config::Namespace;
use crate::sys;

/// A kind of namespace: the specification's word, the flag of `clone(2)`, and how it is joined.
struct Kind {
    word: &'static str,
    flag: u64,
    /// Its name in `/proc/self/ns`.
    file: &'static str,
    link: LinkNameSpaceType,
}

#[allow(clippy::cast_sign_loss)] // constants of the kernel's, all positive
const KINDS: [Kind; 8] = [
    Kind { word: "user", flag: libc::CLONE_NEWUSER as u64, file: "user", link: LinkNameSpaceType::User },
    Kind { word: "pid", flag: libc::CLONE_NEWPID as u64, file: "pid", link: LinkNameSpaceType::ProcessID },
    Kind { word: "network", flag: libc::CLONE_NEWNET as u64, file: "net", link: LinkNameSpaceType::Network },
    Kind { word: "mount", flag: libc::CLONE_NEWNS as u64, file: "mnt", link: LinkNameSpaceType::Mount },
    Kind {
        word: "ipc",
        flag: libc::CLONE_NEWIPC as u64,
        file: "ipc",
        link: LinkNameSpaceType::InterProcessCommunication,
    },
    Kind {
        word: "uts",
        flag: libc::CLONE_NEWUTS as u64,
        file: "uts",
        link: LinkNameSpaceType::HostNameAndNISDomainName,
    },
    Kind {
        word: "cgroup",
        flag: libc::CLONE_NEWCGROUP as u64,
        file: "cgroup",
        link: LinkNameSpaceType::ControlGroup,
    },
    Kind { word: "time", flag: libc::CLONE_NEWTIME as u64, file: "time", link: LinkNameSpaceType::Time },
];

/// A kind's word, for those who ask (`features`).
pub(crate) fn words() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.word).collect()
}

/// The namespaces of a container. What is neither made nor joined is this computer's.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    made: Vec<&'static str>,
    joined: Vec<(&'static str, OwnedFd)>,
}

impl Namespaces {
    /// Whether a new one of this kind is made.
    pub(crate) fn makes(&self, word: &str) -> bool {
        self.made.contains(&word)
    }

    /// Whether one of this kind is joined.
    pub(crate) fn joins(&self, word: &str) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == word)
    }

    /// Whether one of this kind is made or joined.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.makes(word) || self.joins(word)
    }

    /// What is given to `clone3` to make them, but for a user namespace, which comes first, and one of time, in which only
    /// the next process is.
    pub(crate) fn flags(&self) -> sys::Namespaces {
        let is_cloned = |word: &str| !matches!(word, "user" | "time");
        let flags = KINDS.iter().filter(|kind| is_cloned(kind.word) && self.makes(kind.word));
        sys::Namespaces::of(flags.fold(0, |all, kind| all | kind.flag))
    }

    /// Joins those that are joined. What only root of a user namespace may join comes after that.
    pub(crate) fn join(&self) -> Result<()> {
        let mut left = Vec::new();
        for (word, fd) in self.joined.iter().filter(|(word, _)| *word != "user") {
            match move_into_link_name_space(fd.as_fd(), link(word)) {
                Ok(()) => {}
                Err(Errno::PERM) if self.joins("user") => left.push((word, fd)),
                Err(errno) => return Err(errno).with_context(|| format!("cannot join namespace `{word}`")),
            }
        }
        let users = self.joined.iter().filter(|(word, _)| *word == "user").map(|(word, fd)| (word, fd));
        for (word, fd) in users.chain(left) {
            move_into_link_name_space(fd.as_fd(), link(word))
                .with_context(|| format!("cannot join namespace `{word}`"))?;
        }
        Ok(())
    }
}

fn link(word: &str) -> Option<LinkNameSpaceType> {
    KINDS.iter().find(|kind| kind.word == word).map(|kind| kind.link)
}

/// Checks what was asked; `bad` gets all reasons why not. One that cannot be joined counts as one that is made, so that
/// nobody complains that it is missing.
pub(crate) fn parse(asked: &[Namespace], bad: &mut Vec<String>) -> Namespaces {
    let mut found = Namespaces::default();
    for namespace in asked {
        let shown = namespace.kind.escape_debug();
        let Some(kind) = KINDS.iter().find(|kind| kind.word == namespace.kind) else {
            bad.push(format!("`{shown}` is no kind of namespace"));
            continue;
        };
        if found.has(kind.word) {
            bad.push(format!("namespace `{shown}` is given twice"));
        } else if namespace.path.is_empty() {
            found.made.push(kind.word);
        } else {
            match join(kind, &namespace.path) {
                Ok(Some(fd)) => found.joined.push((kind.word, fd)),
                Ok(None) => {}
                Err(why) => {
                    bad.push(format!("namespace `{shown}`: {why}"));
                    found.made.push(kind.word);
                }
            }
        }
    }
    found
}

/// What to join; nothing where we are in it already: then it is this computer's, whatever its path.
fn join(kind: &Kind, path: &str) -> Result<Option<OwnedFd>, String> {
    let shown = path.escape_debug();
    if !path.starts_with('/') {
        return Err(format!("its path is not absolute: `{shown}`"));
    }
    let fd = open(path).map_err(|error| format!("cannot open `{shown}`: {error}"))?;
    match sys::namespace_kind(fd.as_fd()) {
        Ok(flag) if flag == kind.flag => {}
        Ok(_) => return Err(format!("`{shown}` is a namespace of another kind")),
        Err(_) => return Err(format!("`{shown}` is no namespace")),
    }
    let own = rustix::fs::stat(format!("/proc/self/ns/{}", kind.file)).ok();
    let theirs = rustix::fs::fstat(&fd).ok();
    let is_own = own
        .zip(theirs)
        .is_some_and(|(own, theirs)| (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino));
    Ok((!is_own).then_some(fd))
}
