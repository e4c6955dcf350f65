//! Unpacked layers copied onto one directory, for computers without overlayfs.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, Stat, fstat, linkat, mkdirat};

use super::copy::{Node, Original, copy, observe};
use super::layers::{is_opaque, is_whiteout};
use super::metadata::{DEFAULT_ACL, Dresser, Metadata, Target, remove_xattr, xattrs};
use super::name::{join, show, split};
use super::tree::{Step, Tree, file_type, names, open_directory, remove, stat};
use super::{Form, Owners, Skips, Whiteouts, XattrSpace};

/// Copies unpacked layers, the lowest first, onto a directory, so that it becomes what overlayfs would show. Blocks are shared
/// where the file system can.
pub fn flatten(layers: &[PathBuf], space: XattrSpace, into: &Path, owners: Owners) -> Result<Skips> {
    let mut dresser = Dresser { owners, form: Form::Flat, born: None, umask: 0o777, skips: Skips::default() };
    for layer in layers {
        let context = || format!("could not copy layer `{}`", layer.display());
        lay(layer, into, space, &mut dresser).with_context(context)?;
    }
    Ok(dresser.skips)
}

/// A directory that is being copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    path: Vec<u8>,
    metadata: Metadata,
    /// The last comes first.
    names: Vec<Vec<u8>>,
}

struct Layer<'a> {
    form: Form,
    space: XattrSpace,
    dresser: &'a mut Dresser,
    tree: Tree,
    /// Where files went that have more names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

fn lay(layer: &Path, into: &Path, space: XattrSpace, dresser: &mut Dresser) -> Result<()> {
    let form = Form::Overlay { space, whiteouts: Whiteouts::Devices };
    let (from, to) = (Tree::open(layer)?, Tree::open(into)?);
    let open = |tree: &Tree| open_directory(tree.root.fd(), b".");
    let (from, root) = (open(&from)?, open(&to)?);
    let mut layer = Layer { form, space, dresser, tree: to, links: HashMap::new() };
    let mut levels = vec![layer.level(from, root, Vec::new())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            layer.leave(level)?;
            levels.pop();
            continue;
        };
        let path = join(&level.path, &name);
        let inner = layer.node(level, &name, &path);
        levels.extend(inner.with_context(|| format!("could not copy `{}`", show(&path)))?);
    }
    Ok(())
}

impl Layer<'_> {
    fn level(&self, from: OwnedFd, to: OwnedFd, path: Vec<u8>) -> Result<Level> {
        let stat = fstat(&from)?;
        let metadata = observe(Target::Open(from.as_fd()), &stat, self.form)?;
        // What is made in it would inherit that.
        remove_xattr(to.as_fd(), DEFAULT_ACL)?;
        if is_opaque(from.as_fd(), self.space) {
            for name in names(to.as_fd())? {
                remove(to.as_fd(), &name)?;
            }
        }
        let mut names = names(from.as_fd())?;
        names.reverse();
        Ok(Level { from, to, path, metadata, names })
    }

    /// Copies what is at a name. Gives a directory that is to be gone through next.
    fn node(&mut self, level: &Level, name: &[u8], path: &[u8]) -> Result<Option<Level>> {
        let (from, to) = (level.from.as_fd(), level.to.as_fd());
        let Some(stat) = stat(from, name)? else { bail!("it vanished while it was read") };
        let there = self::stat(to, name)?.map(|stat| file_type(&stat));
        let is_directory = file_type(&stat) == FileType::Directory;
        let stays = is_directory && there == Some(FileType::Directory);
        if there.is_some() && !stays {
            remove(to, name)?;
            self.tree.forget();
        }
        if is_whiteout(from, name, &stat, self.space) {
            return Ok(None);
        }
        if !is_directory {
            self.file(Node { directory: from, name }, &stat, Node { directory: to, name }, path)?;
            return Ok(None);
        }
        if !stays {
            mkdirat(to, name, Mode::RWXU)?;
        }
        self.level(open_directory(from, name)?, open_directory(to, name)?, path.to_vec()).map(Some)
    }

    fn file(&mut self, from: Node<'_>, stat: &Stat, to: Node<'_>, path: &[u8]) -> Result<()> {
        if file_type(stat) == FileType::Socket {
            return Ok(());
        }
        let id = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&id)
        {
            let (directory, name) = split(first);
            let strict = |_: &std::rc::Rc<super::tree::Place>, _: &[u8], step: Step| Ok(step);
            let place = self.tree.directory(directory, strict)?;
            return Ok(linkat(place.fd(), name, to.directory, to.name, AtFlags::empty())?);
        }
        let form = self.form;
        copy(Original { node: from, stat, form }, to, self.dresser, None)?;
        if stat.st_nlink > 1 {
            self.links.insert(id, path.to_vec());
        }
        Ok(())
    }

    /// What is in the directory is done: now its own attributes, and those of the layers below go.
    fn leave(&mut self, level: &Level) -> Result<()> {
        let target = Target::Open(level.to.as_fd());
        for (key, _) in xattrs(target)? {
            let stays = level.metadata.xattrs.iter().any(|(other, _)| *other == key);
            if !stays && Form::Flat.outside(&key).is_some() {
                remove_xattr(level.to.as_fd(), &key)?;
            }
        }
        let context = || format!("directory `{}`", show(&level.path));
        self.dresser.dress(target, &level.metadata, &level.path).with_context(context)
    }
}
