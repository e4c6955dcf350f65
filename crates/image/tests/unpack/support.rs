//! Archives written byte by byte, and directories shown as text.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use stead_image::unpack::{Form, UnpackOptions, Unpacked, XattrSpace, unpack_layer};
use tempfile::TempDir;

/// An archive being written. Written here by the format's description, not by the product's own code.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// The fields of a header.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) link: &'a [u8],
    pub(crate) device: (u32, u32),
    pub(crate) body: &'a [u8],
}

impl<'a> Item<'a> {
    pub(crate) fn new(kind: u8, name: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self {
            name: name.as_ref(),
            kind,
            mode,
            owner: (0, 0),
            mtime: 1000,
            link: b"",
            device: (0, 0),
            body: b"",
        }
    }

    pub(crate) fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.owner.0).as_bytes());
        put(116, format!("{:07o}", self.owner.1).as_bytes());
        put(124, format!("{:011o}", self.body.len()).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, self.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        seal(&mut block);
        block
    }
}

/// Puts the checksum into a header.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

impl Tar {
    pub(crate) fn item(mut self, item: &Item<'_>) -> Self {
        self.0.extend(item.block());
        self.body(item.body)
    }

    /// A header that was changed by hand.
    pub(crate) fn raw(mut self, mut block: [u8; 512], body: &[u8]) -> Self {
        seal(&mut block);
        self.0.extend(block);
        self.body(body)
    }

    fn body(mut self, body: &[u8]) -> Self {
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, body: &str) -> Self {
        self.item(&Item { body: body.as_bytes(), ..Item::new(b'0', name) })
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.item(&Item::new(b'5', name))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.item(&Item { link: target.as_bytes(), mode: 0o777, ..Item::new(b'2', name) })
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.item(&Item { link: target.as_bytes(), ..Item::new(b'1', name) })
    }

    /// Records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
            body.extend(format!("{length} {key}=").bytes());
            body.extend(*value);
            body.push(b'\n');
        }
        self.item(&Item { body: &body, ..Item::new(b'x', "PaxHeaders/x") })
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A fresh directory, gone with the value. On a disk, where device nodes and attributes of all kinds are.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn flat() -> UnpackOptions {
    UnpackOptions { form: Form::Flat, ..UnpackOptions::default() }
}

/// What suits who runs the tests.
pub(crate) fn overlay() -> UnpackOptions {
    if is_real_root() { UnpackOptions::default() } else { UnpackOptions::rootless() }
}

pub(crate) fn space() -> XattrSpace {
    if is_real_root() { XattrSpace::Trusted } else { XattrSpace::User }
}

/// Whether we are root of the computer and not of a user namespace.
pub(crate) fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

pub(crate) fn unpack(archive: &[u8], into: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    unpack_layer(archive, into, options)
}

/// Unpacks an archive into a fresh directory and shows it.
pub(crate) fn shown(archive: &[u8], options: &UnpackOptions) -> String {
    let into = scratch();
    unpack(archive, into.path(), options).unwrap();
    show(into.path())
}

/// Everything in a directory, a line each, in the order of the names.
pub(crate) fn show(root: &Path) -> String {
    let mut lines = String::new();
    walk(root, root, &mut lines, true);
    lines
}

/// The same, without what shows how it came there.
pub(crate) fn show_without_times(root: &Path) -> String {
    let mut lines = String::new();
    walk(root, root, &mut lines, false);
    lines
}

fn walk(root: &Path, directory: &Path, lines: &mut String, with_times: bool) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    for path in paths {
        let about = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii();
        let kind = about.file_type();
        write!(lines, "{name} ").unwrap();
        let mode = about.mode() & 0o7777;
        match kind {
            _ if kind.is_dir() => write!(lines, "directory {mode:o}"),
            _ if kind.is_symlink() => {
                let target = fs::read_link(&path).unwrap();
                write!(lines, "-> {}", target.as_os_str().as_bytes().escape_ascii())
            }
            _ if kind.is_file() => write!(lines, "file {mode:o} {}", contents(&path)),
            _ if kind.is_fifo() => write!(lines, "fifo {mode:o}"),
            _ => {
                let word = if kind.is_char_device() { "character" } else { "block" };
                write!(lines, "{word} {}:{} {mode:o}", major(about.rdev()), minor(about.rdev()))
            }
        }
        .unwrap();
        if (about.uid(), about.gid()) != (0, 0) {
            write!(lines, " of {}:{}", about.uid(), about.gid()).unwrap();
        }
        if about.nlink() > 1 && !kind.is_dir() {
            write!(lines, " links {}", about.nlink()).unwrap();
        }
        for (key, value) in xattrs(&path) {
            write!(lines, " {key}={}", value.escape_ascii()).unwrap();
        }
        if with_times {
            write!(lines, " at {}", about.mtime()).unwrap();
            if about.mtime_nsec() != 0 {
                write!(lines, ".{:09}", about.mtime_nsec()).unwrap();
            }
        }
        lines.push('\n');
        if kind.is_dir() {
            walk(root, &path, lines, with_times);
        }
    }
}

fn contents(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    if bytes.len() <= 40 {
        format!("{:?}", bytes.escape_ascii().to_string())
    } else {
        let sum = bytes.iter().fold(14_695_981_039_346_656_037u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
        });
        format!("{} bytes {sum:x}", bytes.len())
    }
}

pub(crate) fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 65536];
    let length = llistxattr(path, list.as_mut_slice()).unwrap();
    let mut all: Vec<(String, Vec<u8>)> = list[..length]
        .split(|byte| *byte == 0)
        .filter(|key| !key.is_empty() && *key != b"security.selinux")
        .map(|key| {
            let mut value = vec![0; 65536];
            let length = lgetxattr(path, key, value.as_mut_slice()).unwrap();
            value.truncate(length);
            (String::from_utf8_lossy(key).into_owned(), value)
        })
        .collect();
    all.sort();
    all
}

/// Times of whiteouts mean nothing.
pub(crate) fn show_marks_alike(root: &Path) -> String {
    let lines = show(root);
    let line = |line: &str| match line.split_once(" character 0:0 ") {
        Some((name, _)) => format!("{name} is gone\n"),
        None => format!("{line}\n"),
    };
    lines.lines().map(line).collect()
}

/// The same, without how many links there are: overlayfs breaks some.
pub(crate) fn show_without_links(root: &Path) -> String {
    let lines = show(root);
    let without = |line: &str| match line.split_once(" links ") {
        Some((before, after)) => {
            format!("{before}{}\n", after.trim_start_matches(|letter: char| letter.is_ascii_digit()))
        }
        None => format!("{line}\n"),
    };
    lines.lines().map(without).collect()
}
