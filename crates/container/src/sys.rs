//! The system calls that no library has, or has only as unsafe functions: processes made with namespaces, programs
//! executed, seccomp and device filters loaded.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Namespaces that a process starts in, as flags of `clone3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces(u64);

impl Namespaces {
    /// Those of whoever starts it.
    pub(crate) const NONE: Self = Self(0);
    /// New ones by the flags of `clone(2)`.
    pub(crate) fn of(flags: u64) -> Self {
        Self(flags)
    }

    /// New ones of processes, mounts, names and inter-process communication.
    #[allow(clippy::cast_sign_loss)] // constants of the kernel's, all positive
    pub(crate) const CONTAINER: Self =
        Self((libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC) as u64);
}

/// Whose child a new process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// Whoever made it.
    Maker,
    /// The parent of whoever made it.
    Grandparent,
}

/// Where one is after [`fork`].
#[derive(Debug)]
pub(crate) enum Fork {
    /// In the new process.
    Child,
    /// In the old one.
    Parent(Child),
}

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number, as whoever made it sees it.
    pub(crate) pid: u32,
    /// A descriptor of it.
    pub(crate) pidfd: OwnedFd,
}

/// Makes a process like this one, in new namespaces, and, where that is given, in a cgroup of version 2.
///
/// The caller has one thread: then the copy may do all that this process may, memory included.
pub(crate) fn fork(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    parent: Parent,
) -> rustix::io::Result<Fork> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: all bytes zero is a lawful `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.0 | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    args.pidfd = (&raw mut pidfd) as u64;
    match parent {
        Parent::Maker => args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs()),
        // It then sends the signal that we send.
        Parent::Grandparent => args.flags |= u64::from(libc::CLONE_PARENT.unsigned_abs()),
    }
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without `CLONE_VM` the child has a copy of our memory and goes on on a copy of our stack; as this
    // process has one thread, no lock in that memory is held by anybody. `args` is as large as we say.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match u32::try_from(made) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => {
            // SAFETY: the kernel made this descriptor for us just now.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent(Child { pid, pidfd }))
        }
        Err(_) => Err(last_error()),
    }
}

/// Ends this process at once: nothing of what whoever made it left behind is run.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces of mounts, cgroups or users; its children into one of time.
pub(crate) fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    let lawful =
        UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP | UnshareFlags::NEWUSER | UnshareFlags::NEWTIME;
    // SAFETY: only `CLONE_FILES` endangers anything, and the mask does not let it through.
    unsafe { rustix::thread::unshare_unsafe(what & lawful) }
}

/// Becomes a program; the error if that failed.
pub(crate) fn execute(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |texts: &[CString]| {
        let end = std::iter::once(std::ptr::null());
        texts.iter().map(|text| text.as_ptr()).chain(end).collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: a text and two lists of texts, each ending with a null, all of which live until the call returns.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_error()
}

/// Has all signals do what they do in a new program, and blocks none. What is ignored stays so in programs that
/// are executed, and Rust ignores SIGPIPE.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: no function of ours is installed. SIGKILL, SIGSTOP and the C library's own are refused,
        // which changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is made before it is used, and nobody asks for the old one.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks all signals, and waits for one: its number. For process 1 of a container, which takes them in turn.
pub(crate) fn next_signal() -> rustix::io::Result<i32> {
    // SAFETY: a full set is made before it is used; nobody asks for more than the number.
    let signal = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    if signal < 0 { Err(last_error()) } else { Ok(signal) }
}

/// Blocks all signals that can be.
pub(crate) fn block_signals() {
    // SAFETY: a full set is made before it is used, and nobody asks for the old one.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Sends a signal to a process by its number: only within a namespace of processes in which it cannot have
/// changed hands, as process 1 does to its children.
pub(crate) fn kill(pid: i32, signal: i32) -> rustix::io::Result<()> {
    // SAFETY: takes two numbers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// Sends a signal by its number, which may be a real-time one.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> rustix::io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a descriptor that lives, numbers, and no further information.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Closes all descriptors from this one on but one. Only for a process that then uses none of them, whatever owns
/// them. That they are closed in the program would not do: until it is there, its path may lead over them.
pub(crate) fn close_others(first: u32, kept: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let kept = u32::try_from(kept.as_raw_fd()).unwrap_or_default();
    if kept > first {
        close_range(first, kept - 1)?;
    }
    close_range(first.max(kept.saturating_add(1)), u32::MAX)
}

/// Closes all descriptors from 3 on. Only for a process that then uses none of them, whatever owns them.
pub(crate) fn close_all() -> rustix::io::Result<()> {
    close_range(3, u32::MAX)
}

fn close_range(first: u32, last: u32) -> rustix::io::Result<()> {
    // SAFETY: takes numbers. The callers from here on only wait or become a program, and end by `_exit` otherwise, so
    // no owner of a descriptor is dropped.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Attributes of mounts, as `mount_setattr(2)` has them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountAttributes {
    /// `MOUNT_ATTR_*` to have.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` not to have.
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`; 0 for no change.
    pub(crate) propagation: u64,
}

/// Changes what is mounted at this descriptor and, if asked, all that is mounted below.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
    recursive: bool,
) -> rustix::io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let MountAttributes { set, clear, propagation } = attributes;
    let attr = MountAttr { set, clear, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: a descriptor that lives, an empty text, and a structure as large as we say that is only read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// One instruction of a seccomp filter: classic BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// The kind of a namespace that a descriptor stands for, as the flag of `clone(2)`.
pub(crate) fn namespace_kind(namespace: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: a descriptor that lives and a request that has no argument; it changes nothing.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    u64::try_from(kind).map_err(|_| last_error())
}

/// Their type has its sign elsewhere in musl.
#[allow(clippy::cast_lossless, clippy::cast_possible_wrap)]
const FIFREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
#[allow(clippy::cast_lossless, clippy::cast_possible_wrap)]
const FITHAW: libc::Ioctl = 0xc004_5878_u32 as libc::Ioctl;

/// Writes a file system to its disk and holds it still: who writes to it waits.
pub(crate) fn freeze(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // SAFETY: a descriptor that lives; the kernel does not look at the argument.
    if unsafe { libc::ioctl(file.as_raw_fd(), FIFREEZE, 0) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// Lets one go on that is held.
pub(crate) fn thaw(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // SAFETY: a descriptor that lives; the kernel does not look at the argument.
    if unsafe { libc::ioctl(file.as_raw_fd(), FITHAW, 0) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// Has this process and its children keep to a filter of system calls, for good; with flags of `seccomp(2)`.
pub(crate) fn load_seccomp(filter: &[Instruction], flags: u32) -> rustix::io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const Instruction,
    }
    let length = u16::try_from(filter.len()).map_err(|_| Errno::TOOBIG)?;
    let program = Program { length, filter: filter.as_ptr() };
    // SAFETY: `Program` is the kernel's `sock_fprog`, with as many instructions as it says; it is only read.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Has the processes of a cgroup of version 2 keep to a device program, given as eBPF instructions.
pub(crate) fn attach_device_filter(cgroup: BorrowedFd<'_>, program: &[u64]) -> rustix::io::Result<()> {
    const LOAD: u32 = 5;
    const ATTACH: u32 = 8;
    const CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        length: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        ifindex: u32,
        expected_attach: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
        replace: u32,
    }
    let length = u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let load = Load {
        kind: CGROUP_DEVICE,
        length,
        instructions: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `Load` is the beginning of the kernel's `bpf_attr`, with as many instructions as it says and a
    // text that ends; it is only read. The kernel verifies the program itself.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const load, size_of::<Load>()) };
    let Ok(fd) = RawFd::try_from(loaded) else { return Err(last_error()) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel made this descriptor for us just now.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: cgroup.as_raw_fd().unsigned_abs(),
        program: loaded.as_fd().as_raw_fd().unsigned_abs(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replace: 0,
    };
    // SAFETY: `Attach` is the kernel's `bpf_attr` of this command, with two descriptors that live.
    let done = unsafe { libc::syscall(libc::SYS_bpf, ATTACH, &raw const attach, size_of::<Attach>()) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// What a file has besides its mode (`struct fsxattr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) flags: u32,
    extent_bytes: u32,
    extents: u32,
    pub(crate) project: u32,
    cow_extent_bytes: u32,
    pad: [u8; 8],
}

/// What a file has besides its mode.
pub(crate) fn extra(file: BorrowedFd<'_>) -> rustix::io::Result<Extra> {
    const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
    let mut extra = Extra::default();
    // SAFETY: the kernel writes an `fsxattr`, which `Extra` is, and no longer knows of it when the call returns.
    let done = unsafe { libc::syscall(libc::SYS_ioctl, file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut extra) };
    if done < 0 { Err(last_error()) } else { Ok(extra) }
}

/// Sets it.
pub(crate) fn set_extra(file: BorrowedFd<'_>, extra: &Extra) -> rustix::io::Result<()> {
    const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
    // SAFETY: the kernel reads an `fsxattr`, which `Extra` is and which lives.
    let done = unsafe {
        libc::syscall(libc::SYS_ioctl, file.as_raw_fd(), FS_IOC_FSSETXATTR, std::ptr::from_ref(extra))
    };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// What a quota allows and what of it is used (`struct if_dqblk`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quota {
    /// In parts of 1024 bytes; 0 is no limit.
    pub(crate) hard_kib: u64,
    pub(crate) soft_kib: u64,
    pub(crate) used_bytes: u64,
    files_hard: u64,
    files_soft: u64,
    pub(crate) files_used: u64,
    blocks_time: u64,
    files_time: u64,
    pub(crate) valid: u32,
    pad: u32,
}

/// The quotas that a file system keeps (`struct fs_quota_statv`), as much of it as is used here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Quotas {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u32; 63],
}

/// A call about quotas of projects, on the file system that a file is on.
fn project_quotas<T>(file: BorrowedFd<'_>, what: u32, project: u32, data: &mut T) -> rustix::io::Result<()> {
    // The same number everywhere.
    const SYS_QUOTACTL_FD: libc::c_long = 443;
    const PRJQUOTA: u32 = 2;
    let command = (what << 8) | PRJQUOTA;
    let data = std::ptr::from_mut(data);
    // SAFETY: only the functions below call this, each with the structure that belongs to its command; it lives.
    let done = unsafe { libc::syscall(SYS_QUOTACTL_FD, file.as_raw_fd(), command, project, data) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Whether the file system that a file is on holds projects to their quotas.
pub(crate) fn enforces_project_quotas(file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    const Q_XGETQSTATV: u32 = 0x5808;
    const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
    let mut quotas = Quotas { version: 1, pad: 0, flags: 0, rest: [0; 63] };
    project_quotas(file, Q_XGETQSTATV, 0, &mut quotas)?;
    Ok(quotas.flags & FS_QUOTA_PDQ_ENFD != 0)
}

/// The quota of a project.
pub(crate) fn quota(file: BorrowedFd<'_>, project: u32) -> rustix::io::Result<Quota> {
    const Q_GETQUOTA: u32 = 0x80_0007;
    let mut quota = Quota::default();
    project_quotas(file, Q_GETQUOTA, project, &mut quota)?;
    Ok(quota)
}

/// Sets how much a project may have; 0 is no limit.
pub(crate) fn set_quota(file: BorrowedFd<'_>, project: u32, hard_kib: u64) -> rustix::io::Result<()> {
    const Q_SETQUOTA: u32 = 0x80_0008;
    const QIF_BLIMITS: u32 = 1;
    let mut quota = Quota { hard_kib, valid: QIF_BLIMITS, ..Quota::default() };
    project_quotas(file, Q_SETQUOTA, project, &mut quota)
}

pub(crate) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// What becomes of the first thread of [`fork_oddly`].
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    GoesOn,
    Ends,
}

/// Makes a process with two threads, called by bytes that are no text: its number.
#[cfg(test)]
pub(crate) fn fork_oddly(first: First) -> rustix::io::Result<u32> {
    // SAFETY: the C library has its own locks let go of in the child, which takes none of ours: all it does is below.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: a text that ends with a null, and lives.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"a) \xff".as_ptr()) };
            let other = std::thread::Builder::new().spawn(sleep_for_good);
            if other.is_err() {
                exit(1);
            }
            if first == First::Ends {
                // SAFETY: ends this thread alone, and holds no lock.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            sleep_for_good()
        }
        pid => u32::try_from(pid).map_err(|_| last_error()),
    }
}

#[cfg(test)]
fn sleep_for_good() -> ! {
    loop {
        std::thread::park();
    }
}
