//! Blobs: contents named by their digests. One becomes visible whole and verified, or not at all; what was
//! received of one before a cut stays, and is gone on with; but of one that the disk has no room for nothing stays.
//!
//! ```text
//! partial/<hex>   received so far, locked by who receives it ── finish ──▶ blobs/sha256/<hex>
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};
use stead_model::image::Digest;

use super::Store;
use super::lock::{Lock, Share};
use crate::manifest::Descriptor;
use crate::room::{self, Room};

/// Another process that receives the same blob and gets nothing for so long is not waited for any more.
const STALLED: Duration = Duration::from_secs(300);

/// What is to be done about a blob.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nothing: it is here.
    Present,
    /// It is ours to receive.
    Receive(Box<Partial>),
}

/// A blob of which the digest is known while it is received. Nobody else receives it meanwhile.
#[derive(Debug)]
pub(crate) struct Partial {
    lock: Lock,
    path: PathBuf,
    target: PathBuf,
    wanted: Descriptor,
    hash: Sha256,
    have_bytes: u64,
    room: Room,
}

/// A blob that gets its name once it is whole. Dropped before that it is gone.
#[derive(Debug)]
pub(crate) struct NewBlob {
    lock: Lock,
    path: PathBuf,
    hash: Sha256,
    size_bytes: u64,
    room: Room,
    is_kept: bool,
}

/// The digest of these bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    finish_digest(Sha256::new_with_prefix(bytes))
}

pub(crate) fn finish_digest(hash: Sha256) -> Digest {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    match text.parse() {
        Ok(digest) => digest,
        Err(_) => unreachable!("a SHA-256 has 64 hexadecimal digits"),
    }
}

impl Store {
    /// Where a blob is, if it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is here. Its content was verified when it came.
    pub(crate) fn has_blob(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|meta| meta.len() == blob.size_bytes)
    }

    /// A small blob, verified again: what it says is believed. None if it is not here or is damaged.
    pub(crate) fn read_blob(&self, digest: &Digest, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut bytes = Vec::new();
        file.take(max_bytes + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if digest_of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        tracing::warn!("{} is damaged, it counts as absent", path.display());
        Ok(None)
    }

    /// Sees whether a blob is here, and if not makes it ours to receive. Waits while another process receives it;
    /// `waiting` is then called once.
    pub(crate) fn claim(&self, wanted: &Descriptor, waiting: impl FnOnce()) -> Result<Claim> {
        if self.has_blob(wanted) {
            return Ok(Claim::Present);
        }
        let path = self.root.join("partial").join(wanted.digest.hex());
        let (mut waiting, mut seen, mut since) = (Some(waiting), None, Duration::ZERO);
        let lock = Lock::take(&path, Share::One, |waited| {
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            let now = fs::metadata(&path).ok().map(|meta| meta.len());
            if now != seen {
                (seen, since) = (now, waited);
            }
            waited - since < STALLED
        })?;
        if self.has_blob(wanted) {
            lock.remove()?;
            return Ok(Claim::Present);
        }
        let target = self.blob_path(&wanted.digest);
        let (wanted, hash, room) = (wanted.clone(), Sha256::new(), Room::default());
        let mut partial = Partial { lock, path, target, wanted, hash, have_bytes: 0, room };
        partial.go_on()?;
        let missing_bytes = partial.wanted.size_bytes - partial.have_bytes;
        if missing_bytes > 0 {
            let fits = room::needs(partial.lock.file(), missing_bytes).map_err(io::Error::from);
            fits.or_else(|error| partial.give_up(error))?;
        }
        Ok(Claim::Receive(Box::new(partial)))
    }

    /// Keeps a small content, and says what it is called.
    pub(crate) fn keep(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let mut blob = self.new_blob()?;
        blob.write_all(bytes).context("cannot write a blob")?;
        blob.finish(self, media_type)
    }

    /// Starts a blob of which the digest is not known yet.
    pub(crate) fn new_blob(&self) -> Result<NewBlob> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("new-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.root.join("partial").join(name);
        let lock = Lock::attempt(&path, Share::One)?
            .with_context(|| format!("{} is in use, by whom?", path.display()))?;
        // A process with our number may have been killed.
        lock.file().set_len(0).with_context(|| format!("cannot write {}", path.display()))?;
        let (hash, room) = (Sha256::new(), Room::default());
        Ok(NewBlob { lock, path, hash, size_bytes: 0, room, is_kept: false })
    }
}

impl Partial {
    /// How much is here already.
    pub(crate) fn have_bytes(&self) -> u64 {
        self.have_bytes
    }

    /// What it is to be.
    pub(crate) fn wanted(&self) -> &Descriptor {
        &self.wanted
    }

    /// Takes what was received before.
    fn go_on(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = self.lock.file().read(&mut buffer).with_context(|| self.cannot("read"))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            self.hash.update(bytes);
            self.have_bytes += bytes.len() as u64;
            if self.have_bytes > self.wanted.size_bytes {
                return self.restart();
            }
        }
        Ok(())
    }

    /// Throws away what is here.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let mut file = self.lock.file();
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).with_context(|| self.cannot("write"))?;
        self.hash = Sha256::new();
        self.have_bytes = 0;
        Ok(())
    }

    /// Adds bytes. More than it is to have are refused, and so is what the disk has no room for: then all of it goes.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.wanted.size_bytes - self.have_bytes {
            bail!(
                "{} is larger than the {} bytes it is said to have",
                self.wanted.digest,
                self.wanted.size_bytes
            );
        }
        // Others receive at the same time, each with room for its own when it began.
        let fits = self.room.take(self.lock.file(), bytes.len() as u64, 0).map_err(io::Error::from);
        fits.and_then(|()| self.lock.file().write_all(bytes)).or_else(|error| self.give_up(error))?;
        self.hash.update(bytes);
        self.have_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Fails. What is here would keep a full disk full, so it goes; else it stays to be gone on with.
    fn give_up(&self, error: io::Error) -> Result<()> {
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            fs::remove_file(&self.path).with_context(|| self.cannot("remove"))?;
        }
        Err(error).with_context(|| format!("cannot keep {}", self.wanted.digest))
    }

    /// Whether all bytes are here.
    pub(crate) fn is_whole(&self) -> bool {
        self.have_bytes == self.wanted.size_bytes
    }

    /// Makes it visible, if it is what it is to be. Else nothing of it is kept.
    pub(crate) fn finish(mut self: Box<Self>) -> Result<()> {
        let found = finish_digest(self.hash.clone());
        if !self.is_whole() || found != self.wanted.digest {
            let have_bytes = self.have_bytes;
            self.restart()?;
            let wanted = &self.wanted;
            bail!("got {have_bytes} bytes of {found} instead of {} of {}", wanted.size_bytes, wanted.digest);
        }
        self.lock
            .file()
            .sync_data()
            .and_then(|()| fs::rename(&self.path, &self.target))
            .with_context(|| self.cannot("keep"))
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot {what} {}", self.path.display())
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.lock.file().write(bytes)?;
        self.room.take(self.lock.file(), written as u64, 0)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl NewBlob {
    /// Makes it visible under its digest.
    pub(crate) fn finish(mut self, store: &Store, media_type: &str) -> Result<Descriptor> {
        let digest = finish_digest(self.hash.clone());
        let blob = Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size_bytes: self.size_bytes,
            platform: None,
            annotations: Default::default(),
        };
        if store.has_blob(&blob) {
            return Ok(blob);
        }
        self.lock
            .file()
            .sync_data()
            .and_then(|()| fs::rename(&self.path, store.blob_path(&blob.digest)))
            .with_context(|| format!("cannot keep {}", self.path.display()))?;
        self.is_kept = true;
        Ok(blob)
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed is taken away by `prune`.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Writes a small file whole or not at all. The caller sees to it that nobody else writes it.
pub(crate) fn write_whole(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let new = path.with_added_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .with_context(cannot)?;
    file.write_all(bytes).and_then(|()| file.sync_data()).with_context(cannot)?;
    fs::rename(&new, path).with_context(cannot)?;
    let directory = path.parent().with_context(cannot)?;
    File::open(directory).and_then(|directory| directory.sync_all()).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: digest_of(bytes),
            size_bytes: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        }
    }

    #[track_caller]
    fn receive(store: &Store, wanted: &Descriptor) -> Box<Partial> {
        match store.claim(wanted, || {}).unwrap() {
            Claim::Receive(partial) => partial,
            Claim::Present => panic!("it is here"),
        }
    }

    #[test]
    fn a_blob_is_visible_when_it_is_whole_and_a_cut_one_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let wanted = descriptor(b"hello world");
        let mut partial = receive(&store, &wanted);
        partial.add(b"hello").unwrap();
        drop(partial);
        assert!(!store.has_blob(&wanted));
        let mut partial = receive(&store, &wanted);
        assert_eq!(partial.have_bytes(), 5);
        partial.add(b" world").unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read_blob(&wanted.digest, 100).unwrap().unwrap(), b"hello world");
        assert!(matches!(store.claim(&wanted, || {}).unwrap(), Claim::Present));
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    }

    #[test]
    fn wrong_bytes_are_never_visible_nor_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let wanted = descriptor(b"hello");
        let mut partial = receive(&store, &wanted);
        partial.add(b"hullo").unwrap();
        assert!(partial.add(b"!").unwrap_err().to_string().contains("larger"));
        assert!(partial.finish().unwrap_err().to_string().contains("instead of"));
        assert_eq!(receive(&store, &wanted).have_bytes(), 0);
        let mut short = receive(&store, &wanted);
        short.add(b"hell").unwrap();
        short.finish().unwrap_err();
        assert!(!store.has_blob(&wanted));
    }

    #[test]
    fn what_two_want_is_received_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let wanted = descriptor(b"hello");
        let mut partial = receive(&store, &wanted);
        let (waits, waited) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let (store, wanted) = (store.clone(), wanted.clone());
            move || matches!(store.claim(&wanted, || waits.send(()).unwrap()).unwrap(), Claim::Present)
        });
        waited.recv_timeout(Duration::from_secs(10)).unwrap();
        partial.add(b"hello").unwrap();
        partial.finish().unwrap();
        assert!(second.join().unwrap());
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut blob = store.new_blob().unwrap();
        blob.write_all(b"hello").unwrap();
        drop(blob);
        let huge = Descriptor { size_bytes: 1 << 60, ..descriptor(b"hello") };
        let error = format!("{:#}", store.claim(&huge, || {}).unwrap_err());
        assert!(error.contains(huge.digest.as_str()) && error.contains("the disk is full"), "{error}");
        for _ in 0..2 {
            store.keep("text/plain", b"hello").unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    }

    #[test]
    fn what_the_disk_has_no_room_for_is_taken_away_and_what_was_cut_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let wanted = descriptor(b"hello");
        for (kind, have_bytes) in
            [(ErrorKind::Other, 4), (ErrorKind::StorageFull, 0), (ErrorKind::QuotaExceeded, 0)]
        {
            let mut partial = receive(&store, &wanted);
            partial.restart().unwrap();
            partial.add(b"hell").unwrap();
            let error = format!("{:#}", partial.give_up(kind.into()).unwrap_err());
            assert!(error.contains(wanted.digest.as_str()), "{error}");
            drop(partial);
            assert_eq!(receive(&store, &wanted).have_bytes(), have_bytes, "{kind:?}");
        }
        // A large one of which some is here is not begun again, nor kept.
        let huge = Descriptor { size_bytes: 1 << 60, ..wanted.clone() };
        receive(&store, &wanted).add(b"hell").unwrap();
        store.claim(&huge, || {}).unwrap_err();
        assert_eq!(receive(&store, &wanted).have_bytes(), 0);
        // One that is here wholly needs no room, so it is not asked for.
        receive(&store, &wanted).add(b"hello").unwrap();
        assert!(receive(&store, &wanted).is_whole());
    }

    #[test]
    fn a_damaged_blob_counts_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let kept = store.keep("text/plain", b"hello").unwrap();
        fs::write(store.blob_path(&kept.digest), b"hullo").unwrap();
        assert_eq!(store.read_blob(&kept.digest, 100).unwrap(), None);
        assert_eq!(store.read_blob(&digest_of(b"never"), 100).unwrap(), None);
    }
}
