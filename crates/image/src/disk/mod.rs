//! The images of disks: what a file is, told by what it begins with and nothing else; a copy of our own, which is found by
//! its digest and which machines share; and a machine's own layer over that.
//!
//! QEMU would find out a file's format by itself, and open whatever a file says that it is a layer over. So it is told
//! everything, and what could lead it elsewhere does not get here.

mod qcow2;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use stead_model::image::Digest;
use stead_model::vm::{DiskFormat, DiskImage};

use crate::reflink::reflink;

/// The copies of a home.
#[derive(Clone, Debug)]
pub struct DiskStore {
    root: PathBuf,
}

/// What there is at a path that is to be the disk of machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// What is no disk, and why not.
    NoDisk(String),
    /// The image of a disk.
    Disk(DiskImage),
}

/// What is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Enough of a file to know what it is.
const HEAD_BYTES: usize = 512;

/// What files begin with that people may take for images of disks, and what they are.
const OTHERS: [(&[u8], &str); 8] = [
    (b"KDMV", "of VMware (vmdk)"),
    (b"# Disk DescriptorFile", "of VMware (vmdk)"),
    (b"vhdxfile", "of Hyper-V (vhdx)"),
    (b"conectix", "of Hyper-V (vhd)"),
    (b"<<< ", "of VirtualBox (vdi)"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"\xfd7zXZ\0", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
];

/// A file whose digest is known, as long as it is still the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of its last change, as its owner sees it and as the kernel does.
    changed: [i64; 4],
    image: DiskImage,
}

/// Tells the format of a disk, and its size.
fn judge(head: &[u8], file_bytes: u64) -> Result<(DiskFormat, u64)> {
    if head.starts_with(qcow2::MAGIC) {
        return Ok((DiskFormat::Qcow2, qcow2::disk_bytes(head)?));
    }
    if let Some((_, what)) = OTHERS.iter().find(|(start, _)| head.starts_with(start)) {
        let hint =
            if what.starts_with("of") { "`qemu-img convert -O qcow2` makes one of it" } else { "unpack it" };
        bail!("it is neither raw nor qcow2, but {what}; hint: {hint}");
    }
    ensure!(file_bytes > 0, "it is empty");
    ensure!(file_bytes.is_multiple_of(512), "a disk has whole sectors, and it has {file_bytes} bytes");
    ensure!(
        head.get(510..512) == Some(&[0x55, 0xaa]),
        "it is no image of a disk: neither qcow2, nor with a table of partitions"
    );
    Ok((DiskFormat::Raw, file_bytes))
}

fn head(file: &File) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let reader = file;
    reader.take(HEAD_BYTES as u64).read_to_end(&mut head).context("cannot read it")?;
    Ok(head)
}

fn digest_of(sum: Sha256) -> Result<Digest> {
    let hex: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().context("a digest is not one")
}

/// Reads a file to its end, and gives each piece with its place to `take`.
fn read_all(mut file: &File, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    file.seek(SeekFrom::Start(0)).context("cannot read it")?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                take(at, buffer.get(..length).unwrap_or_default())?;
                at += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read it"),
        }
    }
}

/// By what it is seen that a file is another one, or was changed.
type Marks = (u64, u64, u64, [i64; 4]);

fn marks(file: &File) -> Result<Marks> {
    let seen = file.metadata().context("cannot look at it")?;
    let changed = [seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec()];
    Ok((seen.dev(), seen.ino(), seen.len(), changed))
}

fn identity((device, inode, bytes, changed): Marks, image: DiskImage) -> Known {
    Known { device, inode, bytes, changed, image }
}

/// What a file is.
fn inspect(file: &File) -> Result<Found> {
    let judged = judge(&head(file)?, file.metadata().context("cannot look at it")?.len());
    let (format, bytes) = match judged {
        Ok(judged) => judged,
        Err(why) => return Ok(Found::NoDisk(format!("{why:#}"))),
    };
    let before = marks(file)?;
    let mut sum = Sha256::new();
    read_all(file, |_, piece| {
        sum.update(piece);
        Ok(())
    })?;
    ensure!(marks(file)? == before, "it changed while it was read; hint: do that again when it is complete");
    Ok(Found::Disk(DiskImage { digest: digest_of(sum)?, format, bytes }))
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let is_file = file.metadata().context("cannot look at it")?.is_file();
    ensure!(is_file, "{} is no file", path.display());
    Ok(file)
}

impl DiskStore {
    /// The copies in this directory, which is made when the first one comes.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn memory(&self) -> PathBuf {
        self.root.join("known.json")
    }

    fn recall(&self) -> BTreeMap<PathBuf, Known> {
        let text = fs::read(self.memory()).unwrap_or_default();
        // What cannot be read is found out again.
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// What the file at `path` is. A file that was looked at before is not read again.
    pub fn find(&self, path: &Path) -> Result<Found> {
        self.look(path).map(|(found, _)| found)
    }

    /// The same, with the marks that the file had before it was read.
    fn look(&self, path: &Path) -> Result<(Found, Option<Marks>)> {
        if !path.exists() {
            return Ok((Found::Nothing, None));
        }
        let file = open(path)?;
        let marks = marks(&file)?;
        if let Some(image) = self.kept(path, &file) {
            return Ok((Found::Disk(image), None));
        }
        if let Some(known) = self.recall().remove(path)
            && identity(marks, known.image.clone()) == known
        {
            return Ok((Found::Disk(known.image), Some(marks)));
        }
        let found = inspect(&file).with_context(|| format!("cannot tell what {} is", path.display()))?;
        Ok((found, Some(marks)))
    }

    /// The same, and remembers it.
    pub fn learn(&self, path: &Path) -> Result<Found> {
        let (image, marks) = match self.look(path)? {
            (Found::Disk(image), Some(marks)) => (image, marks),
            // One that there is nothing to remember of.
            (other, _) => return Ok(other),
        };
        let known = identity(marks, image.clone());
        let mut memory = self.recall();
        if memory.get(path) != Some(&known) {
            memory.retain(|path, _| path.exists());
            memory.insert(path.to_owned(), known);
            fs::create_dir_all(&self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
            let text = serde_json::to_vec(&memory).context("cannot write what is known as JSON")?;
            if let Err(error) = write(&self.memory(), &text) {
                // It is read again, then.
                tracing::warn!("{error:#}");
            }
        }
        Ok(Found::Disk(image))
    }

    /// The image whose copy this file is: it was read when that was made, and is what its name says.
    fn kept(&self, path: &Path, file: &File) -> Option<DiskImage> {
        let digest = format!("sha256:{}", path.file_stem()?.to_str()?).parse().ok()?;
        let (format, bytes) = judge(&head(file).ok()?, file.metadata().ok()?.len()).ok()?;
        let image = DiskImage { digest, format, bytes };
        (self.path(&image) == path).then_some(image)
    }

    /// Where the copy of an image is.
    pub fn path(&self, image: &DiskImage) -> PathBuf {
        self.root.join(format!("{}.{}", image.digest.hex(), image.format))
    }

    /// Makes a copy of our own of the file at `path`, unless there is one: what is done to that file later does nothing
    /// to machines that were made from it.
    pub fn keep(&self, path: &Path, image: &DiskImage) -> Result<()> {
        let to = self.path(image);
        if to.exists() {
            return Ok(());
        }
        let from = open(path)?;
        fs::create_dir_all(&self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
        let unfinished = to.with_extension("new");
        let doing = || format!("cannot make {}", unfinished.display());
        let options = File::options().read(true).write(true).create(true).truncate(true).open(&unfinished);
        let file = options.with_context(doing)?;
        let kept = copy(&from, &file).with_context(|| format!("cannot copy {}", path.display())).and_then(
            |digest| {
                ensure!(
                    digest == image.digest,
                    "{} changed while it was looked at; hint: do that again when it is complete",
                    path.display()
                );
                file.sync_all().with_context(doing)?;
                // Those of other users open it by a descriptor only.
                fs::rename(&unfinished, &to).with_context(|| format!("cannot make {}", to.display()))
            },
        );
        if kept.is_err() {
            // It would keep the disk full that it did not fit on.
            let _left = fs::remove_file(&unfinished);
        }
        kept
    }

    /// Takes away the copies of all but these images.
    pub fn keep_only(&self, images: &BTreeSet<DiskImage>) -> Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.root.display())),
        };
        let kept: BTreeSet<PathBuf> = images.iter().map(|image| self.path(image)).collect();
        for entry in entries.flatten() {
            let path = entry.path();
            if path != self.memory() && !kept.contains(&path) {
                match fs::remove_file(&path) {
                    // Somebody who had just written it has given it its name.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    result => result.with_context(|| format!("cannot delete {}", path.display()))?,
                }
            }
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // Two may write at once.
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file, by reference where the file system can, and with holes where there is nothing. Gives its digest.
fn copy(from: &File, to: &File) -> Result<Digest> {
    let mut sum = Sha256::new();
    if reflink(from.as_fd(), to.as_fd()).context("cannot write the copy")? {
        read_all(to, |_, piece| {
            sum.update(piece);
            Ok(())
        })?;
        return digest_of(sum);
    }
    let mut total = 0;
    read_all(from, |at, piece| {
        sum.update(piece);
        total = at + piece.len() as u64;
        if piece.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        to.write_all_at(piece, at).context("cannot write the copy")
    })?;
    to.set_len(total).context("cannot write the copy")?;
    digest_of(sum)
}

/// Makes a layer over an image, for a disk of this size; what is written goes there.
pub fn make_layer(path: &Path, bytes: u64) -> Result<()> {
    let unfinished = path.with_extension("new");
    let made = (|| {
        let mut file = File::create(&unfinished)?;
        file.write_all(&qcow2::layer(bytes).map_err(std::io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    })();
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Makes the disk of a layer so large, if it is smaller; while nobody uses it.
pub fn grow_layer(path: &Path, bytes: u64) -> Result<()> {
    let options = File::options().read(true).write(true).open(path);
    let file = options.with_context(|| format!("cannot open {}", path.display()))?;
    qcow2::grow(&file, bytes).with_context(|| format!("cannot use the layer {}", path.display()))
}

/// Opens a layer that is below others, to be read. What it may have become under a VMM that a guest took over leads
/// nowhere else.
pub fn open_layer(path: &Path) -> Result<File> {
    let file = open(path)?;
    let judged = head(&file).and_then(|head| qcow2::layer_bytes(&head));
    judged.with_context(|| format!("cannot use the layer {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(content: &[u8], expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        fs::write(&path, content).unwrap();
        let found = DiskStore::new(&directory.path().join("disks")).find(&path).unwrap();
        assert_eq!(found, Found::NoDisk(expected.to_owned()));
    }

    #[track_caller]
    fn image_of(found: Found) -> DiskImage {
        let Found::Disk(image) = found else { panic!("{found:?}") };
        image
    }

    fn raw(bytes: usize) -> Vec<u8> {
        let mut disk = vec![0; bytes];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn a_file_that_is_no_disk_is_told_apart() {
        refused(b"", "it is empty");
        refused(&raw(1000), "a disk has whole sectors, and it has 1000 bytes");
        refused(&[0; 1024], "it is no image of a disk: neither qcow2, nor with a table of partitions");
        refused(
            b"KDMV and so on",
            "it is neither raw nor qcow2, but of VMware (vmdk); hint: `qemu-img convert -O qcow2` makes one of it",
        );
        refused(b"\x1f\x8b", "it is neither raw nor qcow2, but compressed by gzip; hint: unpack it");
    }

    #[test]
    fn a_copy_outlives_the_file_and_goes_with_its_last_machine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let store = DiskStore::new(&directory.path().join("disks"));
        assert_eq!(store.find(&path).unwrap(), Found::Nothing);
        let mut disk = raw(3 << 20);
        disk[2 << 20] = 7;
        fs::write(&path, &disk).unwrap();
        let image = image_of(store.learn(&path).unwrap());
        assert_eq!((image.format, image.bytes), (DiskFormat::Raw, 3 << 20));
        store.keep(&path, &image).unwrap();
        assert_eq!(fs::read(store.path(&image)).unwrap(), disk);
        assert_eq!(image_of(store.find(&store.path(&image)).unwrap()), image);
        assert_eq!(image_of(store.learn(&store.path(&image)).unwrap()), image);
        // A file that was changed is another image.
        disk[2 << 20] = 8;
        fs::write(&path, &disk).unwrap();
        let other = image_of(store.find(&path).unwrap());
        assert_ne!(other, image);
        let error = store.keep(&path, &DiskImage { digest: image.digest.clone(), ..other.clone() });
        error.unwrap();
        store.keep(&path, &other).unwrap();
        store.keep_only(&[other.clone()].into()).unwrap();
        assert!(!store.path(&image).exists() && store.path(&other).exists());
    }

    #[test]
    fn a_layer_that_is_read_leads_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        make_layer(&path, 1 << 30).unwrap();
        open_layer(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[79] = 4;
        fs::write(&path, &bytes).unwrap();
        assert!(format!("{:#}", open_layer(&path).unwrap_err()).contains("its data is in another file"));
        fs::write(&path, raw(1024)).unwrap();
        assert!(format!("{:#}", open_layer(&path).unwrap_err()).contains("it is not as it was made"));
    }

    #[test]
    fn a_file_that_changes_under_us_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let store = DiskStore::new(&directory.path().join("disks"));
        fs::write(&path, raw(1024)).unwrap();
        let image = image_of(store.find(&path).unwrap());
        fs::write(&path, raw(2048)).unwrap();
        assert!(
            store.keep(&path, &image).unwrap_err().to_string().contains("changed while it was looked at")
        );
        assert!(!store.path(&image).exists());
    }
}
