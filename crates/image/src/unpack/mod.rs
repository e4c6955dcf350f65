//! Layers of images as directories, and directories as layers.
//!
//! A layer is an archive of what it adds and of marks for what it takes away. [`unpack_layer`] makes a directory of it that
//! overlayfs can lay over those of the layers below, or carries it out on one directory where there is no overlayfs;
//! [`flatten`] does the same with layers that are unpacked already. [`pack_diff`] and [`pack_tree`] go the other way.
//!
//! Archives are written by strangers. Nothing in them leads out of the directory, and everything has a limit; but what was
//! unpacked before an error stays where it is: unpack into a directory that is taken away when that happens.

mod archive;
mod changes;
mod copy;
pub(crate) mod files;
mod flatten;
mod header;
mod layers;
mod maker;
mod metadata;
mod name;
mod pack;
mod pack_header;
mod pax;
mod stream;
mod time;
mod tree;
mod write;

use std::fmt;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use stead_model::image::Digest;

pub use changes::{Change, changes};
pub use flatten::flatten;
pub use pack::{Fate, Packed, pack_diff, pack_diffs, pack_named, pack_tree};

/// How a layer is unpacked. The default is what root does for overlayfs.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {
    /// What becomes of whiteouts.
    pub form: Form,
    /// Which names are whiteouts.
    pub marks: Marks,
    /// What becomes of owners that do not exist here.
    pub owners: Owners,
    /// What becomes of device nodes.
    pub devices: Devices,
    /// The unpacked layers below, the nearest first. They are asked for what the layer takes for granted: files that it
    /// links to, and directories that it puts something into without naming them.
    pub lower: Vec<PathBuf>,
    /// What no layer may go beyond.
    pub limits: Limits,
    /// How full the disk may become.
    pub fill: Fill,
}

/// Says, when somebody wants to know, where the unpacked layers below are, the nearest first.
pub(crate) type Below<'a> = dyn Fn() -> Result<Vec<PathBuf>> + 'a;

/// What a directory is for, and so what whiteouts become in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// To be a layer of an overlayfs.
    Overlay {
        /// Where overlayfs keeps its own attributes.
        space: XattrSpace,
        /// What stands for something that is gone.
        whiteouts: Whiteouts,
    },
    /// To be used as it is: what a layer takes away is taken away at once. Layers are unpacked into it one after the other.
    Flat,
}

/// Which names are marks that something is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Those that layers have: `.wh.…`.
    #[default]
    Whiteouts,
    /// None: this is an archive of files, in which every name is one.
    None,
}

/// Where overlayfs keeps its own attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSpace {
    /// `trusted.overlay.`, which takes root outside of user namespaces.
    Trusted,
    /// `user.overlay.`, for mounts with the option `userxattr`.
    User,
}

/// What stands for something that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Character devices 0/0. Everybody may make them since Linux 5.8, and overlayfs in user namespaces came later.
    Devices,
    /// Empty files with an attribute, for file systems without device nodes. Overlayfs knows them since Linux 6.7.
    Attributes,
}

/// What becomes of owners that do not exist in this user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// They are an error.
    #[default]
    Keep,
    /// Such files are ours. Their set-uid and set-gid bits go: they were meant for somebody else.
    KeepOrOwn,
}

/// What becomes of device nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// They are made; those that the kernel refuses are left out.
    #[default]
    Make,
    /// They are left out.
    Skip,
}

/// How full the disk may become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// As full as leaves others some room: strangers say how much there is of a layer.
    #[default]
    ButForOthers,
    /// As full as it gets: it is what somebody wants to have there.
    Wholly,
}

/// What no layer may go beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the uncompressed archive.
    pub bytes: u64,
    /// Files, directories and all else.
    pub entries: u64,
    /// Of one file, its holes too.
    pub file_bytes: u64,
    /// Of one entry's name.
    pub name_bytes: usize,
    /// How many directories an entry may be in.
    pub depth: usize,
    /// Of a PAX header or a GNU long name.
    pub extension_bytes: u64,
}

/// What was made of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the uncompressed archive, to be compared with what the image's configuration says.
    pub diff_id: Digest,
    /// How many entries the archive has.
    pub entries: u64,
    /// What was written into files.
    pub size_bytes: u64,
    /// Whether the directory would be the same over any other layers, so that images can share it by its `diff_id` alone.
    /// It is not when something of the layers below was needed, or missing.
    pub is_standalone: bool,
    /// What could not be done here.
    pub skips: Skips,
}

/// What was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    /// The first of them.
    pub first: Vec<Skip>,
    /// How many there are.
    pub count: u64,
}

/// An entry that was left out, or not made in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Its name, for people.
    pub name: String,
    /// What was left out and why.
    pub what: String,
}

/// What is wrong with a layer, as opposed to what this computer would not do. Whoever cares finds it in the chain of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLayer(String);

/// A list that somebody may read.
const SKIPS_MAX: usize = 100;

impl Default for Form {
    fn default() -> Self {
        Self::Overlay { space: XattrSpace::Trusted, whiteouts: Whiteouts::Devices }
    }
}

impl Default for Limits {
    /// Ten times what the largest images need. The disk is the nearer limit, see [`Fill`].
    fn default() -> Self {
        Self {
            bytes: 1 << 40,
            entries: 10_000_000,
            file_bytes: 8 << 40,
            name_bytes: 4096,
            depth: 255,
            extension_bytes: 1 << 20,
        }
    }
}

impl UnpackOptions {
    /// What root of a user namespace does for overlayfs.
    pub fn rootless() -> Self {
        let form = Form::Overlay { space: XattrSpace::User, whiteouts: Whiteouts::Devices };
        Self { form, owners: Owners::KeepOrOwn, ..Self::default() }
    }
}

/// Unpacks a layer into a directory that exists. How it is compressed (gzip, zstd, not at all) is seen from its first bytes.
/// Nothing is synchronised with the disk: do so, once, before saying anywhere that the layer is there.
pub fn unpack_layer(reader: impl Read + Send, into: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    unpack_layer_over(&|| Ok(options.lower.clone()), reader, into, options)
}

/// The same over layers that are waited for where it makes a difference what is below.
pub(crate) fn unpack_layer_over(
    below: &Below<'_>,
    reader: impl Read + Send,
    into: &Path,
    options: &UnpackOptions,
) -> Result<Unpacked> {
    let (written, diff_id) =
        stream::decompressed(reader, |chunks| write::unpack(chunks, into, options, below))?;
    let write::Written { entries, size_bytes, is_standalone, skips } = written;
    Ok(Unpacked { diff_id, entries, size_bytes, is_standalone, skips })
}

/// Reads an uncompressed archive as [`unpack_layer`] does, but makes nothing of it: gives the number of its entries.
pub fn check_archive(reader: impl BufRead, limits: &Limits) -> Result<u64> {
    let mut archive = archive::Archive::new(reader, limits);
    while let Some(entry) = archive.next()? {
        let name = name::clean(&entry.name)?;
        name::classify(&name)?;
    }
    archive.drain()?;
    Ok(archive.entries())
}

impl Limits {
    fn broken(&self, what: &str, limit: u64) -> anyhow::Error {
        BadLayer::new(format!("it has more than {limit} {what}")).into()
    }
}

impl Skips {
    fn add(&mut self, name: &[u8], what: impl Into<String>) {
        self.count += 1;
        if self.first.len() < SKIPS_MAX {
            self.first.push(Skip { name: name::show(name), what: what.into() });
        }
    }
}

impl BadLayer {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    fn cut() -> Self {
        Self::new("the archive is cut off")
    }
}

impl fmt::Display for BadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadLayer {}
