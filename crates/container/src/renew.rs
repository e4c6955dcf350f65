//! A layer that is to be of another machine than the one that wrote it, which has an identity of its own. Whoever wrote
//! the layer may have put a link where a directory is expected: none is followed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fchown, openat, statat, unlinkat};
use rustix::io::Errno;
use stead_model::container::{IDENTITY_DIRECTORIES, Identity, identity};

use super::copy::names;

/// Takes from a layer what the machine that wrote it is known by. The files may be another layer's as well: they are
/// replaced here, and not changed. Gives how many secrets there were.
pub fn renew_layer(layer: &Path) -> Result<u64> {
    let root = openat(CWD, layer, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open `{}`", layer.display()))?;
    let mut secrets = 0;
    for path in IDENTITY_DIRECTORIES {
        let doing = || format!("cannot make the files in `/{path}` those of another machine");
        let Some(directory) = below(root.as_fd(), path).with_context(doing)? else { continue };
        for name in names(directory.as_fd()).with_context(doing)? {
            let whole = [path.as_bytes(), b"/", name.to_bytes()].concat();
            let Some(what) = identity(&whole) else { continue };
            let renewed = renew(directory.as_fd(), &name, what).with_context(doing)?;
            secrets += u64::from(renewed && what == Identity::Secret);
        }
    }
    Ok(secrets)
}

/// Whether there was anything to do.
fn renew(directory: BorrowedFd<'_>, name: &CStr, what: Identity) -> Result<bool> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        // An empty one may hide one of the layers below.
        FileType::RegularFile if stat.st_size > 0 => {}
        FileType::Symlink if what == Identity::Secret => {}
        _ => return Ok(false),
    }
    unlinkat(directory, name, AtFlags::empty())?;
    if what == Identity::Emptied {
        empty(directory, name, &stat)?;
    }
    Ok(true)
}

fn empty(directory: BorrowedFd<'_>, name: &CStr, like: &Stat) -> Result<()> {
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(directory, name, create, Mode::from_raw_mode(0o600))?;
    let owner = (rustix::fs::Uid::from_raw(like.st_uid), rustix::fs::Gid::from_raw(like.st_gid));
    fchown(&file, Some(owner.0), Some(owner.1))?;
    Ok(fchmod(&file, Mode::from_raw_mode(like.st_mode & 0o7777))?)
}

/// A directory of the layer, if it has it.
fn below(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(root, c".", flags, Mode::empty())?;
    for part in path.split('/') {
        match openat(&here, &*CString::new(part)?, flags, Mode::empty()) {
            Ok(next) => here = next,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Some(here))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_a_machine_is_known_by_goes_and_nothing_else_does() {
        let [mine, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let at = |path: &str| mine.path().join(path);
        let put = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        put("etc/machine-id", "0123456789abcdef\n");
        fs::set_permissions(at("etc/machine-id"), fs::Permissions::from_mode(0o444)).unwrap();
        fs::hard_link(at("etc/machine-id"), other.path().join("id")).unwrap();
        for name in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config"] {
            put(&format!("etc/ssh/{name}"), name);
        }
        // One that hides the image's.
        put("etc/ssh/ssh_host_dsa_key", "");
        put("home/etc/machine-id", "mine");
        put("run/stead-ssh/host-key", "ours");
        // A directory of this computer's that a link leads to stays as it is.
        fs::create_dir_all(at("var/lib")).unwrap();
        symlink(other.path(), at("var/lib/dbus")).unwrap();
        fs::write(other.path().join("machine-id"), "theirs").unwrap();
        assert_eq!(renew_layer(mine.path()).unwrap(), 2);
        let text = |path: &str| fs::read_to_string(at(path)).unwrap();
        assert_eq!((text("etc/machine-id"), text("home/etc/machine-id")), (String::new(), "mine".to_owned()));
        assert_eq!(fs::metadata(at("etc/machine-id")).unwrap().mode() & 0o7777, 0o444);
        assert!(!fs::read_to_string(other.path().join("id")).unwrap().is_empty());
        assert_eq!(fs::read_to_string(other.path().join("machine-id")).unwrap(), "theirs");
        let mut left: Vec<_> =
            fs::read_dir(at("etc/ssh")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["ssh_host_dsa_key", "sshd_config"]);
        assert!(!at("run/stead-ssh/host-key").exists());
        assert_eq!(renew_layer(mine.path()).unwrap(), 0);
    }
}
