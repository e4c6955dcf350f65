//! Our own program, out of reach of containers.
//!
//! A process on its way into a container is still this program. If what it is to become is a script whose interpreter
//! is `/proc/self/exe`, the kernel runs this program inside, where the container's libraries can open its file and,
//! once it ended, write it (CVE-2019-5736). And an init of ours is this program for as long as it lives. So whoever
//! makes or joins containers runs from a mount of its file that cannot be written, is attached nowhere, and that
//! nobody can therefore change.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{StatVfsMountFlags, fstatvfs};

use crate::mounts::plan::READ_ONLY;
use crate::mounts::prepare::clone;
use crate::sys::{self, MountAttributes, mount_setattr};

/// Our own program.
const OWN: &str = "/proc/self/exe";

/// Has this program run from where nobody can write: at once, if it does so already, else by running it again with the
/// same arguments and environment. To be called first thing by whoever makes or joins containers; as root, be it of a
/// user namespace.
pub fn seal() -> Result<()> {
    if is_sealed()? {
        return rename();
    }
    match run_again()? {}
}

/// A program of ours, sealed. Run as `/proc/self/fd/<number>` it needs not run itself again.
pub fn sealed(program: &Path) -> Result<OwnedFd> {
    let tree = clone(program).context("cannot mount our own program")?;
    let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
    mount_setattr(tree.as_fd(), attributes, false).context("cannot seal our own program")?;
    Ok(tree)
}

fn is_sealed() -> Result<bool> {
    let file = File::open(OWN).context("cannot open our own program")?;
    let flags = fstatvfs(&file).context("cannot look at our own program")?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY))
}

/// The kernel calls a program after the last part of its path, which was the number of a descriptor.
fn rename() -> Result<()> {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&first).file_name().unwrap_or_default();
    let name = CString::new(name.to_owned().into_vec())?;
    rustix::thread::set_name(&name).context("cannot name ourselves")
}

fn run_again() -> Result<Infallible> {
    let tree = sealed(Path::new(OWN))?;
    let path = CString::new(format!("/proc/self/fd/{}", tree.as_raw_fd()))?;
    let args = std::env::args_os().map(|arg| CString::new(arg.into_vec()));
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        CString::new(entry)
    });
    let env = env.collect::<Result<Vec<_>, _>>()?;
    let errno = sys::execute(&path, &args, &env);
    Err(anyhow!(errno).context("cannot run our own program again"))
}
