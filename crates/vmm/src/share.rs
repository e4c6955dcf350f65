//! What serves files of this computer to a guest: virtiofsd, in a jail of its own.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::jail::become_program;
use crate::{program, sys};

/// The program, which distributions do not have in `PATH`.
pub const VIRTIOFSD: &str = "virtiofsd";

/// Where else it is: Debian 12 has the one of QEMU's own, others the newer one.
const PLACES: [&str; 4] = ["/usr/libexec", "/usr/lib", "/usr/lib/qemu", "/usr/lib/virtiofsd"];

/// Where it is.
pub fn virtiofsd() -> Option<PathBuf> {
    let elsewhere =
        || PLACES.iter().map(|place| Path::new(place).join(VIRTIOFSD)).find(|path| path.is_file());
    program(VIRTIOFSD).or_else(elsewhere)
}

/// Leaves this computer's network and its mounts, so that what is mounted from now on is seen by this process alone.
pub fn leave_mounts(network: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
        .context("cannot enter its network namespace")?;
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .context("cannot make its namespaces")
}

/// Becomes what serves a directory. Returns only if that failed. It stays who it is, so that files belong to whom a guest
/// says; but sees no more than the directory, and ends with `parent`.
pub fn serve(
    program: &Path,
    listener_fd: i32,
    directory: &Path,
    parent: u32,
) -> Result<std::convert::Infallible> {
    let command: Vec<OsString> =
        std::iter::once(OsString::from(program)).chain(virtiofsd_args(listener_fd, directory)).collect();
    become_program(&command, parent)
}

/// Its arguments. Pure. They are in the form that both programs of this name know.
fn virtiofsd_args(listener_fd: i32, directory: &Path) -> Vec<OsString> {
    let mut source = OsString::from("source=");
    source.push(directory);
    let mut args: Vec<OsString> =
        vec!["-f".into(), format!("--fd={listener_fd}").into(), "-o".into(), source];
    // What it is in is a mount namespace already. Others read and write the same files, so nothing is kept for long.
    for option in ["sandbox=chroot", "cache=auto", "xattr", "announce_submounts", "log_level=warn"] {
        args.extend(["-o".into(), option.into()]);
    }
    // As many as the computer has it.
    args.push("--rlimit-nofile=0".into());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_one_directory_to_whoever_comes_to_its_socket() {
        let args = virtiofsd_args(7, Path::new("/run/a b"));
        let args: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        let expected = "-f|--fd=7|-o|source=/run/a b|-o|sandbox=chroot|-o|cache=auto|-o|xattr|-o|announce_submounts|-o|\
            log_level=warn|--rlimit-nofile=0";
        assert_eq!(args.join("|"), expected);
    }
}
