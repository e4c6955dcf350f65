//! `/dev`: which devices a container has, made as nodes, or, where the kernel does not let us make them, as mounts
//! of this computer's.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, chmodat, mknodat, symlinkat};
use rustix::io::Errno;
use stead_model::container::{self, Rights};

use super::attach::onto;
use super::confined::{self, Make};
use super::prepare::clone;

/// What every container has, by major and minor numbers.
const USUAL: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What a system has, too, where this computer does: to mount file systems in user space and to make networks.
const SYSTEMS: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

/// What programs look for that the kernel keeps elsewhere.
pub(crate) const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its place in the container.
    pub(crate) target: String,
    /// What may be done with it, of `r`, `w` and `m`.
    pub(crate) access: String,
    pub(crate) is_block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) owner: Option<(u32, u32)>,
}

/// What every container has.
pub(crate) fn usual() -> Vec<Node> {
    let node = |(name, major, minor): &(&str, u32, u32)| Node {
        target: format!("/dev/{name}"),
        access: "rwm".to_owned(),
        is_block: false,
        major: *major,
        minor: *minor,
        mode: 0o666,
        owner: None,
    };
    USUAL.iter().map(node).collect()
}

/// The devices of a container: the usual ones and those it was given.
pub(crate) fn nodes(rights: &Rights, mode: container::Mode) -> Result<Vec<Node>> {
    let mut nodes = usual();
    if mode == container::Mode::System {
        for path in SYSTEMS {
            // Where this computer has none, neither has the container.
            nodes.extend(observe(Path::new(path), path, "rwm").unwrap_or_default());
        }
    }
    if rights.privileged {
        below(Path::new("/dev"), "/dev", "rwm", &mut nodes)?;
    }
    for device in &rights.devices {
        let doing = || format!("cannot give device `{}`", device.source.display());
        let is_directory = fs::metadata(&device.source).with_context(doing)?.is_dir();
        if is_directory {
            below(&device.source, &device.target, &device.access, &mut nodes).with_context(doing)?;
        } else {
            let node = observe(&device.source, &device.target, &device.access).with_context(doing)?;
            nodes.push(node.context("it is no device").with_context(doing)?);
        }
    }
    Ok(nodes)
}

/// The device at this path, if it is one.
fn observe(source: &Path, target: &str, access: &str) -> std::io::Result<Option<Node>> {
    let metadata = fs::metadata(source)?;
    let kind = metadata.file_type();
    let (is_block, is_character) = (kind.is_block_device(), kind.is_char_device());
    Ok((is_block || is_character).then(|| Node {
        target: target.to_owned(),
        access: access.to_owned(),
        is_block,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        owner: Some((metadata.uid(), metadata.gid())),
    }))
}

/// All devices in a directory, but those that a container has its own of.
fn below(source: &Path, target: &str, access: &str, nodes: &mut Vec<Node>) -> Result<()> {
    const OWN: [&str; 9] = ["pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "console", "ptmx"];
    let doing = || format!("cannot read `{}`", source.display());
    for entry in fs::read_dir(source).with_context(doing)? {
        let entry = entry.with_context(doing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().with_context(doing)?;
        let own = target == "/dev" && OWN.contains(&name.as_str());
        if own || kind.is_symlink() {
            continue;
        }
        let inner = format!("{target}/{name}");
        if kind.is_dir() {
            below(&entry.path(), &inner, access, nodes)?;
        } else if !nodes.iter().any(|node| node.target == inner) {
            nodes.extend(observe(&entry.path(), &inner, access).with_context(doing)?);
        }
    }
    Ok(())
}

/// Where this computer has the device: for a mount of it where no node can be made.
fn source_of(node: &Node, rights: &Rights) -> String {
    let given = rights.devices.iter().find(|device| device.target == node.target);
    given.map_or_else(|| node.target.clone(), |device| device.source.display().to_string())
}

/// A device that is to be mounted, with the mount.
pub(crate) struct Bound(Vec<(String, OwnedFd)>);

/// This computer's devices, to be mounted. Where nodes can be made, there are none.
pub(crate) fn bound(nodes: &[Node], rights: &Rights, is_mapped: bool) -> Result<Bound> {
    if !is_mapped {
        return Ok(Bound(Vec::new()));
    }
    let mut made = Vec::new();
    for node in nodes {
        let source = source_of(node, rights);
        let tree = clone(Path::new(&source)).with_context(|| format!("cannot mount device `{source}`"))?;
        made.push((node.target.clone(), tree));
    }
    Ok(Bound(made))
}

/// Fills `/dev`.
pub(crate) fn fill(root: BorrowedFd<'_>, nodes: &[Node], bound: &Bound) -> Result<()> {
    let dev = confined::open(root, "/dev", OFlags::PATH | OFlags::DIRECTORY).context("there is no `/dev`")?;
    for (leads_to, name) in LINKS {
        symlinkat(leads_to, &dev, name).with_context(|| format!("cannot make `/dev/{name}`"))?;
    }
    for (target, tree) in &bound.0 {
        let doing = || format!("cannot mount device `{target}`");
        let place = confined::place(root, target, Make::File).with_context(doing)?;
        onto(tree.as_fd(), place).with_context(doing)?;
    }
    if bound.0.is_empty() {
        for node in nodes {
            make(root, node).with_context(|| format!("cannot make device `{}`", node.target))?;
        }
    }
    Ok(())
}

fn make(root: BorrowedFd<'_>, node: &Node) -> Result<()> {
    let (parent, name) = node.target.rsplit_once('/').context("its place is no absolute path")?;
    if name.is_empty() {
        bail!("its place has no name");
    }
    let parent = confined::place(root, parent, Make::Directory)?;
    let kind = if node.is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
    match mknodat(
        &parent,
        name,
        kind,
        Mode::from_raw_mode(node.mode),
        rustix::fs::makedev(node.major, node.minor),
    ) {
        Ok(()) => {}
        // Given twice, or the image has one outside of /dev.
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    chmodat(&parent, name, Mode::from_raw_mode(node.mode), rustix::fs::AtFlags::empty())?;
    if let Some((uid, gid)) = node.owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
