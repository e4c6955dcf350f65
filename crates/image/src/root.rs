//! The root of an image as one read-only file system in a file, for machines with a kernel of their own: built when
//! the first of them needs it, and gone with the image.
//!
//! It is erofs, as it is not compressed: it is made at the speed of copying, takes no more room than its files, and
//! knows no journal, no free space and no way to be written (decision 0120).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use stead_model::image::Image;

use crate::store::Store;
use crate::unpack::{Owners, XattrSpace, flatten};

impl Store {
    /// Where the root of an image is, once it is built.
    pub fn root_path(&self, image: &Image) -> PathBuf {
        self.root().join("roots").join(format!("{}.erofs", image.digest.hex()))
    }

    /// The root of an image whose layers are unpacked, built by `mkfs` if it is not there. Run it as root, or mapped
    /// to root. If another process builds it at this moment, that one's is taken.
    pub fn build_root(&self, image: &Image, mkfs: &Path) -> Result<PathBuf> {
        let path = self.root_path(image);
        if path.exists() {
            return Ok(path);
        }
        let _adding = self.adding()?;
        let hex = image.digest.hex();
        let _one = self.alone(&format!("root-{hex}"))?;
        if path.exists() {
            return Ok(path);
        }
        let unfinished = self.root().join("unpacking").join(format!("{hex}.erofs"));
        let flat = self.root().join("unpacking").join(format!("root-{hex}"));
        let built = self.make_root(image, mkfs, &flat, &unfinished);
        let cleaned = crate::store::remove_tree(&flat);
        built?;
        cleaned?;
        let doing = || format!("cannot write {}", path.display());
        File::open(&unfinished).and_then(|file| file.sync_all()).with_context(doing)?;
        fs::create_dir_all(self.root().join("roots")).with_context(doing)?;
        fs::rename(&unfinished, &path).with_context(doing)?;
        Ok(path)
    }

    fn make_root(&self, image: &Image, mkfs: &Path, flat: &Path, to: &Path) -> Result<()> {
        let layers = self.layer_paths(image);
        let tree = match layers.as_slice() {
            // What a lone layer takes away was not there.
            [layer] => layer,
            layers => {
                crate::store::remove_tree(flat)?;
                fs::create_dir(flat).with_context(|| format!("cannot make {}", flat.display()))?;
                let (space, owners) = match rustix::process::geteuid().is_root() && has_all_users() {
                    true => (XattrSpace::Trusted, Owners::Keep),
                    false => (XattrSpace::User, Owners::KeepOrOwn),
                };
                flatten(layers, space, flat, owners)?;
                flat
            }
        };
        let output = Command::new(mkfs).arg("-d0").arg(to).arg(tree).output();
        let output = output.with_context(|| format!("cannot run `{}`", mkfs.display()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.lines().last().unwrap_or("it left no word").escape_debug().to_string();
            bail!("`{}` failed ({}): {last}", mkfs.display(), output.status);
        }
        Ok(())
    }
}

/// Whether this process is in no user namespace but the first: there every user exists.
fn has_all_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
