//! A bundle's mounts, made: before the change of root, below the place of the new one, where hooks look for them.
//!
//! What is this computer's is opened by the go-between, in this computer's namespaces and as whoever made it.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, open, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, open_tree,
};

use super::check::Plan;
use super::devices::{links, make, shown, wanted};
use super::inside::{Inside, Unspread};
use super::mounts::{Asked, Attributes, What};
use crate::cgroup::layout::Hierarchy;
use crate::copy::{self, How};
use crate::mounts::attach::{is_directory, onto, plain};
use crate::mounts::confined::{self, Make};
use crate::mounts::plan::READ_ONLY;
use crate::sys::{MountAttributes, mount_setattr};

/// Of files below `/proc` that may be covered: those that are covered to show a container's own share, as runc has them.
const COVERED: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// The kernel's new interface takes values of options up to this length.
const VALUE_MAX_BYTES: usize = 255;

/// What of this computer is shown in a container, each as a mount that is attached nowhere yet.
pub(crate) struct Sources {
    root: OwnedFd,
    /// For each bind mount that was asked for and could not be opened later.
    binds: Vec<Option<OwnedFd>>,
    /// Devices with their places, where no nodes can be made.
    devices: Vec<(String, OwnedFd)>,
    null: Option<OwnedFd>,
}

impl Sources {
    pub(crate) fn open(inside: &Inside<'_>) -> Result<Self> {
        let plan = inside.plan;
        let spread = Unspread::of(plan).tree;
        let root = tree(&plan.root, true, if spread == 0 { super::mounts::PRIVATE } else { spread })
            .with_context(|| format!("cannot open the root `{}`", plan.root.display()))?;
        // Once in namespaces of somebody else's they could not be found any more. Else they are opened one after the
        // other as they are mounted, because kernels list mounts in the order in which they were opened.
        let is_early = plan.namespaces.has("user") || plan.namespaces.joins("mount");
        let bind = |asked: &Asked| match &asked.what {
            What::Bind { source, recursive } if is_early => {
                tree(source, *recursive, Unspread::of_mount(plan, asked))
                    .map(Some)
                    .with_context(|| format!("cannot mount `{}` at `{}`", source.display(), asked.target))
            }
            What::Bind { .. } | What::Kernel { .. } | What::Cgroup | What::Remount => Ok(None),
        };
        let binds = plan.mounts.iter().map(bind).collect::<Result<_>>()?;
        let mut devices = Vec::new();
        if inside.is_in_user_namespace() {
            for device in wanted(plan).iter().filter(|device| device.kind != "p") {
                devices.push((device.path.clone(), shown(device)?));
            }
        }
        let null = (!plan.masked.is_empty()).then(|| tree(Path::new("/dev/null"), false, spread)).transpose();
        Ok(Self { root, binds, devices, null: null.context("cannot mount `/dev/null`")? })
    }

    /// What hides things.
    pub(crate) fn nothing(&self) -> Result<Nothing> {
        let file =
            self.null.as_ref().map(OwnedFd::try_clone).transpose().context("cannot keep `/dev/null`")?;
        Ok(Nothing { file, is_used: false })
    }
}

/// A file that hides others.
pub(crate) struct Nothing {
    file: Option<OwnedFd>,
    is_used: bool,
}

/// A copy of what is mounted there.
pub(crate) fn tree(source: &Path, recursive: bool, propagation: u64) -> rustix::io::Result<OwnedFd> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let tree =
        open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below)?;
    if propagation != 0 {
        let attributes = MountAttributes { propagation, ..MountAttributes::default() };
        mount_setattr(tree.as_fd(), attributes, true)?;
    }
    Ok(tree)
}

/// Mounts the root at its place, as only we see: a descriptor of it.
pub(crate) fn mount_root(plan: &Plan, sources: &Sources, record: &Path) -> Result<OwnedFd> {
    let doing = || format!("cannot mount the root at `{}`", plan.root.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Whoever is root of a user namespace may not see the place; then the root covers our whole tree at once.
    let (place, target) = match open(&plan.root, flags, Mode::empty()) {
        Ok(target) => (plan.root.clone(), target),
        Err(Errno::ACCESS) => (PathBuf::from("/"), open("/", flags, Mode::empty()).with_context(doing)?),
        Err(errno) => return Err(errno).with_context(doing),
    };
    if plan.namespaces.makes("mount") {
        // What is mounted upon a shared mount would be seen by others, and the root could not be changed.
        let above = mount_point(&place).with_context(doing)?;
        mount_change(&above, MountPropagationFlags::PRIVATE).with_context(doing)?;
    }
    if !plan.namespaces.has("mount") {
        // It will be there for all to see until the container is deleted.
        let id = mount_id(sources.root.as_fd()).with_context(doing)?;
        fs::write(record.join(MOUNT), id.to_string()).context("cannot keep on record what is mounted")?;
    }
    onto(&sources.root, &target).with_context(doing)?;
    open_tree(&sources.root, "", OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH)
        .with_context(doing)
}

/// The file in which is on record which mount is this computer's root for a container without a namespace of mounts.
const MOUNT: &str = "mount";

fn mount_id(fd: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH | rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(fd, "", flags, rustix::fs::StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
}

/// Takes away what was mounted in this computer's own namespace.
pub(crate) fn unmount(root: &Path, record: &Path) -> Result<()> {
    let Ok(id) = fs::read_to_string(record.join(MOUNT)) else { return Ok(()) };
    let doing = || format!("cannot unmount `{}`", root.display());
    let found = match open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).with_context(doing),
    };
    // Only what is ours: it may not have come that far.
    if mount_id(found.as_fd()).with_context(doing)?.to_string() == id {
        rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH).with_context(doing)?;
    }
    Ok(())
}

/// Where what a path is in is mounted.
fn mount_point(path: &Path) -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read `/proc/self/mountinfo`")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| PathBuf::from(crate::cgroup::layout::unescape(point)));
    let found = points.filter(|point| path.starts_with(point)).max_by_key(|point| point.components().count());
    found.context("it is in no mount")
}

/// Mounts everything, and makes devices.
pub(crate) fn furnish(inside: &Inside<'_>, root: BorrowedFd<'_>, sources: &Sources) -> Result<()> {
    let plan = inside.plan;
    for (asked, bind) in plan.mounts.iter().zip(&sources.binds) {
        attach(inside, root, asked, bind.as_ref())
            .with_context(|| format!("cannot mount `{}`", asked.target.escape_debug()))?;
    }
    // Whoever mounts this computer's whole /dev wants that.
    let is_given = |asked: &&Asked| asked.target == "/dev" && matches!(asked.what, What::Bind { .. });
    if plan.mounts.iter().find(is_given).is_none() {
        links(root)?;
        for device in wanted(plan) {
            let doing = || format!("cannot make device `{}`", device.path.escape_debug());
            match sources.devices.iter().find(|(path, _)| *path == device.path) {
                Some((path, tree)) => {
                    let place = confined::place(root, path, Make::File).with_context(doing)?;
                    onto(tree, place).with_context(doing)?;
                }
                None => make(root, &device).with_context(doing)?,
            }
        }
    }
    Ok(())
}

fn attach(inside: &Inside<'_>, root: BorrowedFd<'_>, asked: &Asked, bind: Option<&OwnedFd>) -> Result<()> {
    let made = match &asked.what {
        What::Bind { source, recursive } => {
            let made = match bind {
                Some(early) => early.try_clone()?,
                None => tree(source, *recursive, Unspread::of_mount(inside.plan, asked))
                    .with_context(|| format!("cannot open `{}`", source.display()))?,
            };
            set(made.as_fd(), asked.own, false)?;
            made
        }
        What::Kernel { kind, .. } if long(asked) => return attach_long(root, asked, kind),
        What::Kernel { kind, source, options, copy_up } if kind == "tmpfs" => {
            return attach_tmpfs(root, asked, source, options, *copy_up);
        }
        What::Kernel { kind, source, options, .. } => kernel(kind, source, options, asked.own.set)?,
        What::Cgroup => return attach_cgroups(inside, root, asked),
        What::Remount => {
            let found = confined::open(root, &asked.target, OFlags::PATH).context("there is nothing")?;
            set(found.as_fd(), asked.own, false)?;
            set(found.as_fd(), asked.all, true)?;
            return spread(&found, asked);
        }
    };
    let target = place(root, asked, &made)?;
    set(made.as_fd(), asked.all, true)?;
    onto(&made, &target)?;
    spread(&made, asked)
}

/// One upon a directory has its mode, as runc has it, unless it was given one.
fn attach_tmpfs(
    root: BorrowedFd<'_>,
    asked: &Asked,
    source: &str,
    options: &[(String, Option<String>)],
    copy_up: bool,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let covered = confined::open(root, &asked.target, flags).ok();
    let mut options = options.to_vec();
    if let Some(covered) = covered.as_ref().filter(|_| !options.iter().any(|(key, _)| key == "mode")) {
        let mode = rustix::fs::fstat(covered)?.st_mode & 0o7777;
        options.push(("mode".to_owned(), Some(format!("{mode:o}"))));
    }
    // What is not to be written is filled before.
    let made = kernel("tmpfs", source, &options, asked.own.set & !READ_ONLY)?;
    if let Some(covered) = covered.filter(|_| copy_up) {
        let to = rustix::fs::openat(&made, ".", flags | OFlags::CLOEXEC, Mode::empty())?;
        copy::content_of(covered.as_fd(), to.as_fd(), How::Exact)
            .context("cannot fill it with what is at its place")?;
    }
    let target = place(root, asked, &made)?;
    set(made.as_fd(), Attributes { set: asked.own.set & READ_ONLY, clear: 0 }, false)?;
    set(made.as_fd(), asked.all, true)?;
    onto(&made, &target)?;
    spread(&made, asked)
}

/// Where it is mounted. What the kernel shows is mounted where it belongs, not where a link leads, and nothing hides
/// or forges what is below `/proc`.
fn place(root: BorrowedFd<'_>, asked: &Asked, made: &OwnedFd) -> Result<OwnedFd> {
    let kernel = match &asked.what {
        What::Kernel { kind, .. } => Some(kind.as_str()),
        What::Bind { .. } | What::Cgroup | What::Remount => None,
    };
    if matches!(kernel, Some("proc" | "sysfs")) && matches!(asked.target.as_str(), "/proc" | "/sys") {
        return plain(root, &asked.target);
    }
    let make = if is_directory(made)? { Make::Directory } else { Make::File };
    let target = confined::place(root, &asked.target, make)?;
    let is_proc = |fd: &OwnedFd| fstatfs(fd).map(|stat| stat.f_type == PROC_SUPER_MAGIC);
    if is_proc(&target)?
        && !is_proc(made)?
        && !COVERED.contains(&asked.target.as_str())
        && asked.target != "/proc"
    {
        bail!("the place is in /proc");
    }
    if confined::is_same(&target, root)? {
        bail!("the place is the root itself");
    }
    Ok(target)
}

fn set(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> Result<()> {
    if attributes.is_none() {
        return Ok(());
    }
    let Attributes { set, clear } = attributes;
    mount_setattr(mount, MountAttributes { set, clear, propagation: 0 }, recursive)
        .context("cannot set its options")
}

fn spread(mount: &OwnedFd, asked: &Asked) -> Result<()> {
    asked.propagation.iter().try_for_each(|propagation| {
        let attributes = MountAttributes { propagation: propagation.flag, ..MountAttributes::default() };
        mount_setattr(mount.as_fd(), attributes, propagation.recursive).context("cannot set how it spreads")
    })
}

fn kernel(
    kind: &str,
    source: &str,
    options: &[(String, Option<String>)],
    attributes: u64,
) -> Result<OwnedFd> {
    let made = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", source)?;
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
                None => fsconfig_set_flag(&context, key.as_str())?,
            }
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or_default());
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    made().with_context(|| format!("a file system `{}` was refused", kind.escape_debug()))
}

fn long(asked: &Asked) -> bool {
    let What::Kernel { options, .. } = &asked.what else { return false };
    options.iter().any(|(key, value)| {
        value.as_ref().map_or(key.ends_with("iversion"), |value| value.len() > VALUE_MAX_BYTES)
    })
}

/// What an option without a value is to the kernel's old interface, if it is one of all file systems: its flag, or none if
/// it takes one away.
fn flag(key: &str, value: Option<&String>) -> Option<MountFlags> {
    /// `MS_I_VERSION` of `mount(2)`.
    const COUNTED: u32 = 1 << 23;
    match (key, value) {
        ("sync", None) => Some(MountFlags::SYNCHRONOUS),
        ("dirsync", None) => Some(MountFlags::DIRSYNC),
        ("mand", None) => Some(MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        ("lazytime", None) => Some(MountFlags::LAZYTIME),
        ("iversion", None) => Some(MountFlags::from_bits_retain(COUNTED)),
        ("async" | "nomand" | "nolazytime" | "noiversion", None) => Some(MountFlags::empty()),
        _ => None,
    }
}

/// By the kernel's old interface, which takes longer options, and counts changes of files (`iversion`).
fn attach_long(root: BorrowedFd<'_>, asked: &Asked, kind: &str) -> Result<()> {
    let What::Kernel { source, options, .. } = &asked.what else { return Ok(()) };
    let target = confined::place(root, &asked.target, Make::Directory)?;
    if fstatfs(&target)?.f_type == PROC_SUPER_MAGIC {
        bail!("the place is in /proc");
    }
    if confined::is_same(&target, root)? {
        bail!("the place is the root itself");
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
    let flags = options.iter().filter_map(|(key, value)| flag(key, value.as_ref()));
    let flags = flags.fold(MountFlags::empty(), |all, flag| all | flag);
    let words = options.iter().filter(|(key, value)| flag(key, value.as_ref()).is_none());
    let words = words.map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    });
    let data = std::ffi::CString::new(words.collect::<Vec<_>>().join(","))?;
    mount(source.as_str(), path.as_str(), kind, flags, Some(data.as_c_str()))
        .with_context(|| format!("a file system `{}` was refused", kind.escape_debug()))?;
    let mounted = confined::open(root, &asked.target, OFlags::PATH)?;
    set(mounted.as_fd(), asked.own, false)?;
    set(mounted.as_fd(), asked.all, true)?;
    spread(&mounted, asked)
}

/// The container's cgroups: version 2 alone where there is no other, else a directory for each hierarchy.
fn attach_cgroups(inside: &Inside<'_>, root: BorrowedFd<'_>, asked: &Asked) -> Result<()> {
    let layout = inside.layout;
    let is_own = inside.plan.namespaces.has("cgroup");
    let one = |hierarchy: &Hierarchy, names: Option<&str>, directory: Option<&Path>| -> Result<OwnedFd> {
        if is_own {
            let options = match names.map(|names| (names, names.strip_prefix("name="))) {
                None => vec![],
                Some((_, Some(name))) => {
                    vec![("none".to_owned(), None), ("name".to_owned(), Some(name.to_owned()))]
                }
                Some((names, None)) => names.split(',').map(|name| (name.to_owned(), None)).collect(),
            };
            return kernel(
                if names.is_some() { "cgroup" } else { "cgroup2" },
                "cgroup",
                &options,
                asked.own.set,
            );
        }
        let own = hierarchy.mount.join(&hierarchy.own);
        let tree = tree(directory.unwrap_or(&own), false, super::mounts::PRIVATE)?;
        set(tree.as_fd(), asked.own, false)?;
        Ok(tree)
    };
    if layout.legacy.is_empty() {
        let hierarchy = layout.unified.as_ref().context("this computer has no cgroups")?;
        let made = one(hierarchy, None, inside.cgroup.unified.as_deref())?;
        onto(&made, place(root, asked, &made)?)?;
        return spread(&made, asked);
    }
    let shelf =
        kernel("tmpfs", "tmpfs", &[("mode".to_owned(), Some("755".to_owned()))], asked.own.set & !READ_ONLY)?;
    onto(&shelf, place(root, asked, &shelf)?)?;
    let unified = layout.unified.iter().map(|found| (found, None, inside.cgroup.unified.as_deref()));
    let legacy = layout.legacy.iter().map(|(names, found)| {
        let names = names.join(",");
        let own =
            inside.cgroup.legacy.iter().find(|(known, _)| *known == names).map(|(_, path)| path.as_path());
        (found, Some(names), own)
    });
    for (hierarchy, names, own) in legacy.chain(unified) {
        let name =
            hierarchy.mount.file_name().context("a hierarchy has no name")?.to_string_lossy().into_owned();
        let made = one(hierarchy, names.as_deref(), own).with_context(|| format!("hierarchy `{name}`"))?;
        let target = confined::place(root, &format!("{}/{name}", asked.target), Make::Directory)?;
        onto(made, target)?;
        for link in names
            .iter()
            .flat_map(|names| names.split(','))
            .filter(|link| *link != name && !link.contains('='))
        {
            symlinkat(name.as_str(), &shelf, link)?;
        }
    }
    set(shelf.as_fd(), Attributes { set: asked.own.set & READ_ONLY, clear: 0 }, false)?;
    spread(&shelf, asked)
}

/// Covers it with nothing: a directory with an empty one that cannot be written, a file with `/dev/null`.
pub(crate) fn hide(root: BorrowedFd<'_>, path: &str, nothing: &mut Nothing) -> Result<()> {
    let target = match confined::open(root, path, OFlags::PATH) {
        Ok(target) => target,
        // Kernels differ in what they show.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if confined::is_same(&target, root)? {
        bail!("it is the root itself");
    }
    if is_directory(&target)? {
        return Ok(onto(kernel("tmpfs", "tmpfs", &[], READ_ONLY)?, target)?);
    }
    let first = nothing.file.as_ref().context("there is nothing to hide it with")?;
    if nothing.is_used {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        onto(open_tree(first, "", flags)?, target)?;
    } else {
        onto(first, target)?;
        nothing.is_used = true;
    }
    Ok(())
}

/// Has it be a mount of its own that cannot be written.
pub(crate) fn fix(root: BorrowedFd<'_>, path: &str) -> Result<()> {
    let target = match confined::open(root, path, OFlags::PATH) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if confined::is_same(&target, root)? {
        bail!("it is the root itself: `root.readonly` is for that");
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&target, "", flags)?;
    mount_setattr(tree.as_fd(), MountAttributes { set: READ_ONLY, ..MountAttributes::default() }, true)?;
    Ok(onto(tree, target)?)
}
