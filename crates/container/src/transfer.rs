//! Files carried between this computer and a container: whatever links are in the container, nothing outside of its
//! root is read or written there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use stead_model::container::{Launch, Mount};

use crate::copy::{self, How};
use crate::mounts::attach::onto;
use crate::mounts::confined::{self, Make};
use crate::mounts::prepare::bind;
use crate::mounts::{plan, root};
use crate::place::Place;
use crate::stamp::Stamp;
use crate::sys;

/// Who owns what was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Whoever owned the original, by number; with all its rights.
    Keep,
    /// We, and it has no rights by itself.
    Ours,
}

/// Where paths begin.
#[derive(Debug)]
pub enum Root {
    /// At this computer's root, or the directory that we are in.
    Here,
    /// In this directory, which is a container's root.
    Container(OwnedFd),
}

/// A place to carry from or to.
#[derive(Debug)]
pub struct End<'a> {
    /// Where its path begins.
    pub root: &'a Root,
    /// The path.
    pub path: &'a str,
}

/// That nothing is where something is to be carried from, or no directory where it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nothing {
    /// Where not.
    pub path: String,
    /// Whether it has to be a directory.
    pub is_directory: bool,
    /// Whether it is the container's path.
    pub is_inside: bool,
}

impl std::fmt::Display for Nothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.is_directory { "directory " } else { "" };
        write!(f, "there is no {what}`{}`", self.path)
    }
}

impl std::error::Error for Nothing {}

/// The root of a container that runs, as its first process sees it: which is told by its number and when it started.
pub fn running_root(pid: u32, started: u64) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let root = openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open `{path}`"))?;
    // Looked at when it is open: if the number has changed hands, this is somebody else's root.
    if !(Stamp { pid, started }).is_alive()? {
        bail!("the machine has just ended");
    }
    Ok(root)
}

/// The root of a container that does not run, with its volumes and with what of this computer is in it. Must be called
/// in a process with one thread, which has it to itself from then on.
pub fn stopped_root(launch: &Launch, place: &Place) -> Result<OwnedFd> {
    sys::unshare(UnshareFlags::NEWNS).context("cannot make a mount namespace")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Before our mounts are cut off: what is mounted on this computer may be shared.
    let mut mounts = Vec::new();
    for (target, mount) in &launch.mounts {
        let source = match mount {
            Mount::Volume { name, .. } => {
                place.volumes.get(name).context("a volume of it has no place")?.clone()
            }
            Mount::Bind { source, .. } => source.clone(),
            Mount::Tmpfs { .. } => continue,
        };
        mounts.push((target.clone(), source));
    }
    for target in &launch.own_volumes {
        mounts.push((target.clone(), plan::own_volume(&place.own_volumes, target)));
    }
    // What is not there yet comes to be when the container is started.
    mounts.retain(|(_, source)| source.exists());
    let made = mounts.iter().map(|(target, source)| {
        let made = bind(source, stead_model::container::Propagation::Private)?;
        Ok((target, source.is_dir(), made))
    });
    let made = made.collect::<Result<Vec<_>>>()?;
    root::mount_root(place, root::is_mapped_here()?)?;
    let root = openat(CWD, &place.root, flags, Mode::empty()).context("cannot open its root")?;
    for (target, is_directory, made) in made {
        let make = if is_directory { Make::Directory } else { Make::File };
        let doing = || format!("cannot mount at `{target}`");
        let at = confined::place(root.as_fd(), target, make).with_context(doing)?;
        onto(made, at).with_context(doing)?;
    }
    Ok(root)
}

/// Carries a file, or a directory with all that is in it. As with `cp`: to a directory that exists it goes into that;
/// of a source that ends with `/.` only the content is carried.
pub fn transfer(from: &End<'_>, to: &End<'_>, owners: Owners) -> Result<()> {
    let how = match owners {
        Owners::Keep => How::Archive,
        Owners::Ours => How::Plain,
    };
    let source = from.source()?;
    let target = to.target()?;
    match (source, target) {
        (Source::Content(from), Target::Into(to)) => copy::content_of(from.as_fd(), to.as_fd(), how),
        (Source::Content(from), Target::At(directory, name)) => {
            copy::one((from.as_fd(), c"."), (directory.as_fd(), &name), how)
        }
        (Source::Named(from, name, _), Target::Into(to)) => {
            copy::one((from.as_fd(), &name), (to.as_fd(), &name), how)
        }
        (Source::Content(_) | Source::Named(_, _, true), Target::Over(..)) => {
            bail!("`{}` is a file, and a directory cannot take its place", to.path)
        }
        (Source::Named(_, _, false), Target::At(..)) if to.path.ends_with('/') => {
            bail!("`{}` is no directory", to.path)
        }
        (Source::Named(from, old, _), Target::At(directory, name) | Target::Over(directory, name)) => {
            copy::one((from.as_fd(), &old), (directory.as_fd(), &name), how)
        }
    }
    .with_context(|| format!("cannot carry `{}` to `{}`", from.path, to.path))
}

/// What is carried.
#[derive(Debug)]
pub enum Source {
    /// All that is in a directory.
    Content(OwnedFd),
    /// What has this name in a directory, and whether it is a directory itself.
    Named(OwnedFd, CString, bool),
}

/// Where to.
pub(crate) enum Target {
    /// Into a directory.
    Into(OwnedFd),
    /// To a name in a directory, where nothing is.
    At(OwnedFd, CString),
    /// The same, where there is something.
    Over(OwnedFd, CString),
}

impl End<'_> {
    /// Opens what is at a path, links followed within the root.
    fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        match self.root {
            Root::Here => openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
            Root::Container(root) => confined::open(root.as_fd(), path, flags),
        }
    }

    /// The directory that it names.
    pub fn directory(&self) -> Result<OwnedFd> {
        let directory = self.open(self.path, OFlags::RDONLY | OFlags::DIRECTORY);
        directory.map_err(|errno| self.told(errno.into(), self.path, true))
    }

    /// Why something cannot be used: if it is not there, by that alone.
    fn told(&self, error: anyhow::Error, path: &str, is_directory: bool) -> anyhow::Error {
        match error.downcast_ref::<Errno>().copied() {
            Some(Errno::NOENT | Errno::NOTDIR) => {
                let is_inside = matches!(self.root, Root::Container(_));
                Nothing { path: path.to_owned(), is_directory, is_inside }.into()
            }
            _ => error.context(format!("`{}`", self.path)),
        }
    }

    /// The directory in which it has its name, and that name; none if it is a directory by how it is written.
    pub fn named(&self) -> Result<Option<(OwnedFd, CString)>> {
        let Some((parent, name)) = split(self.path) else { return Ok(None) };
        let parent = self.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Some((parent, CString::new(name)?)))
    }

    /// What is carried from there.
    pub fn source(&self) -> Result<Source> {
        let told = |error| self.told(error, self.path, false);
        let Some((parent, name)) = self.named().map_err(told)? else {
            return Ok(Source::Content(self.directory()?));
        };
        let kind = kind(&parent, &name).map_err(|errno| told(errno.into()))?;
        if self.path.ends_with('/') && kind != FileType::Directory {
            bail!("`{}` is no directory", self.path);
        }
        Ok(Source::Named(parent, name, kind == FileType::Directory))
    }

    pub(crate) fn target(&self) -> Result<Target> {
        let directory = split(self.path).map_or(self.path, |(parent, _)| parent);
        self.find_target().map_err(|error| self.told(error, directory, true))
    }

    fn find_target(&self) -> Result<Target> {
        match self.open(self.path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => return Ok(Target::Into(directory)),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let Some((parent, name)) = self.named()? else { return Err(Errno::NOENT.into()) };
        match kind(&parent, &name) {
            Ok(_) => Ok(Target::Over(parent, name)),
            Err(Errno::NOENT) => Ok(Target::At(parent, name)),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn kind(directory: &OwnedFd, name: &CStr) -> rustix::io::Result<FileType> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// A path's directory and its last part, if that is a name.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => (".", path),
    };
    (!matches!(
        Path::new(name).components().next(),
        None | Some(std::path::Component::CurDir | std::path::Component::ParentDir)
    ))
    .then_some((parent, name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_path_is_a_directory_and_a_name_unless_it_is_a_directory_by_how_it_is_written() {
        for (path, expected) in [
            ("a", Some((".", "a"))),
            ("/a", Some(("/", "a"))),
            ("a/b/", Some(("a", "b"))),
            ("../a", Some(("..", "a"))),
            ("/", None),
            (".", None),
            ("a/.", None),
            ("a/..", None),
            ("", None),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }

    /// Carries into or out of a container's root that has links which lead out, and lists both sides.
    #[track_caller]
    fn check(from: &str, to: &str, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let put = |path: &str, text: &str| {
            let path = base.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("host/secret", "host");
        put("host/sub/file", "own");
        put("inside/etc/passwd", "inner");
        put("inside/secret", "inner");
        put("inside/tool", "tool");
        fs::set_permissions(base.join("inside/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink(base.join("host"), base.join("inside/out")).unwrap();
        symlink("../host/secret", base.join("inside/link")).unwrap();
        symlink("../../../..", base.join("inside/up")).unwrap();
        let container = Root::Container(fs::File::open(base.join("inside")).unwrap().into());
        let text = base.join("host").display().to_string();
        let (from, to) = (from.replace("HOST", &text), to.replace("HOST", &text));
        let end = |path: &str| match path.strip_prefix("web:") {
            Some(_) => &container,
            None => &Root::Here,
        };
        let bare = |path: &str| path.trim_start_matches("web:").to_owned();
        let (from_path, to_path) = (bare(&from), bare(&to));
        let from = End { root: end(&from), path: &from_path };
        let to = End { root: end(&to), path: &to_path };
        let before = list(base);
        let said = match transfer(&from, &to, Owners::Ours) {
            Ok(()) => {
                list(base).into_iter().filter(|line| !before.contains(line)).collect::<Vec<_>>().join(" ")
            }
            Err(_) => {
                assert_eq!(list(base), before);
                "refused".to_owned()
            }
        };
        assert_eq!(said, expected, "{from_path} to {to_path}");
    }

    fn list(base: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![base.to_owned()];
        while let Some(path) = open.pop() {
            let stat = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(base).unwrap().display().to_string();
            if stat.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if stat.is_symlink() {
                found.push(format!("{name}@"));
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.push(format!("{name}={text}:{:o}", stat.permissions().mode() & 0o7777));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_root_of_whoever_has_the_number_now_is_not_that_of_a_container_that_ended() {
        let own = Stamp::of(std::process::id()).unwrap().unwrap();
        assert!(running_root(own.pid, own.started).is_ok());
        let error = running_root(own.pid, own.started - 1).unwrap_err();
        assert_eq!(error.to_string(), "the machine has just ended");
    }

    #[test]
    fn what_goes_in_stays_within_the_containers_root() {
        check("HOST/secret", "web:/new", "inside/new=host:644");
        check("HOST/secret", "web:/etc", "inside/etc/secret=host:644");
        check("HOST/secret", "web:/etc/passwd", "inside/etc/passwd=host:644");
        check("HOST/sub", "web:/etc", "inside/etc/sub/file=own:644");
        check("HOST/sub/.", "web:/etc", "inside/etc/file=own:644");
        check("HOST/sub", "web:/new", "inside/new/file=own:644");
        check("HOST/sub/.", "web:/new", "inside/new/file=own:644");
        // The link leads out of the root: within it there is no such directory.
        check("HOST/sub/file", "web:/out/file", "refused");
        check("HOST/sub/file", "web:/up/etc", "inside/etc/file=own:644");
        check("HOST/sub/file", "web:/../../new", "inside/new=own:644");
        // A link that leads to nothing is replaced, and not what it leads to outside.
        check("HOST/sub/file", "web:/out", "inside/out=own:644");
        check("HOST/sub", "web:/secret", "refused");
        check("HOST/secret", "web:/none/", "refused");
        check("HOST/secret", "web:/none/x", "refused");
    }

    #[test]
    fn what_comes_out_was_within_the_containers_root_and_has_no_rights_by_itself() {
        check("web:/secret", "HOST/got", "host/got=inner:644");
        check("web:/secret", "HOST", "host/secret=inner:644");
        check("web:/link", "HOST/got", "host/got@");
        check("web:/out/secret", "HOST/got", "refused");
        check("web:/up/secret", "HOST/got", "host/got=inner:644");
        check("web:/tool", "HOST/got", "host/got=tool:755");
        check("web:/etc", "HOST", "host/etc/passwd=inner:644");
        check("web:/etc", "HOST/secret", "refused");
        check("web:/secret/", "HOST/got", "refused");
    }
}
