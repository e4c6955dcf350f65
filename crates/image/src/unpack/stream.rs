//! The stream of a layer: told by its first bytes how it is compressed, unpacked in a thread of its own, its digest
//! taken in another, so that whoever reads it has the processor to itself.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest as _, Sha256};
use stead_model::image::Digest;

use super::BadLayer;

/// Large enough that passing it on costs nothing beside filling it, small enough to stay in the processor's cache.
const CHUNK_BYTES: usize = 256 << 10;
/// What the decompression may be ahead by.
const CHUNKS: usize = 16;

/// How many bytes it takes to tell.
const MAGIC_BYTES: usize = 6;

/// Hands the uncompressed stream to `read`, and gives its digest if that read it to the end.
pub(super) fn decompressed<T>(
    reader: impl Read + Send,
    read: impl FnOnce(&mut Chunks) -> Result<T>,
) -> Result<(T, Digest)> {
    let reader = decompressor(reader)?;
    let (home, pool) = mpsc::channel();
    for _ in 0..CHUNKS {
        home.send(Vec::with_capacity(CHUNK_BYTES))?;
    }
    let (chunks_in, chunks_out) = mpsc::sync_channel(CHUNKS);
    let (hash_in, hash_out) = mpsc::sync_channel(CHUNKS);
    thread::scope(|scope| {
        scope.spawn(move || produce(reader, &Outlets { pool, home, reader: chunks_in, hasher: hash_in }));
        let hasher = scope.spawn(move || hash(&hash_out));
        let mut chunks = Chunks { from: chunks_out, now: None, at: 0, is_done: false };
        let made = read(&mut chunks);
        // The other threads end when nobody listens.
        drop(chunks);
        let digest = hasher.join().map_err(|_| anyhow!("the thread that takes the digest has died"))?;
        Ok((made?, digest.parse()?))
    })
}

/// A decoder for what the first bytes show. Media types are not asked: they are wrong often enough.
fn decompressor<'a>(mut reader: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::new();
    (&mut reader).take(MAGIC_BYTES as u64).read_to_end(&mut head).context("could not read the layer")?;
    let magic = head.clone();
    let reader = Cursor::new(head).chain(reader);
    let refused =
        |name| Err(BadLayer::new(format!("it is compressed by {name}, which layers may not be")).into());
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered(reader)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let decoder = zstd::Decoder::with_buffer(buffered(reader)).context("could not start zstd")?;
            Ok(Box::new(decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => refused("xz"),
        [b'B', b'Z', b'h', ..] => refused("bzip2"),
        _ => Ok(Box::new(reader)),
    }
}

fn buffered<R: Read>(reader: R) -> BufReader<R> {
    BufReader::with_capacity(CHUNK_BYTES, reader)
}

/// Where chunks come from and go to.
struct Outlets {
    pool: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
    reader: SyncSender<io::Result<Arc<Chunk>>>,
    hasher: SyncSender<Arc<Chunk>>,
}

/// Some of the stream. Its memory goes back to the pool when nobody needs it any more.
struct Chunk {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody fills chunks any more when that fails.
        self.home.send(std::mem::take(&mut self.bytes)).ok();
    }
}

fn produce(mut reader: impl Read, outlets: &Outlets) {
    while let Ok(mut bytes) = outlets.pool.recv() {
        bytes.clear();
        let outcome = (&mut reader).take(CHUNK_BYTES as u64).read_to_end(&mut bytes);
        let is_end = matches!(outcome, Ok(0)) || outcome.is_err();
        if !bytes.is_empty() {
            let chunk = Arc::new(Chunk { bytes, home: outlets.home.clone() });
            if outlets.hasher.send(Arc::clone(&chunk)).is_err() || outlets.reader.send(Ok(chunk)).is_err() {
                return;
            }
        }
        if let Err(error) = outcome {
            outlets.reader.send(Err(error)).ok();
        }
        if is_end {
            return;
        }
    }
}

fn hash(chunks: &Receiver<Arc<Chunk>>) -> String {
    let mut hash = Sha256::new();
    for chunk in chunks {
        hash.update(&chunk.bytes);
    }
    hash.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The uncompressed stream, to be read without copying.
pub(super) struct Chunks {
    from: Receiver<io::Result<Arc<Chunk>>>,
    now: Option<Arc<Chunk>>,
    at: usize,
    is_done: bool,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.is_done && self.now.as_ref().is_none_or(|chunk| self.at >= chunk.bytes.len()) {
            self.at = 0;
            self.now = None;
            match self.from.recv() {
                Ok(chunk) => self.now = Some(chunk?),
                Err(_) => self.is_done = true,
            }
        }
        let chunk = self.now.as_ref().map_or(&[][..], |chunk| &chunk.bytes);
        Ok(chunk.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> Result<(Vec<u8>, Digest)> {
        decompressed(bytes, |chunks| {
            let mut all = Vec::new();
            chunks.read_to_end(&mut all)?;
            Ok(all)
        })
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_lawful_compression_gives_the_same_bytes_and_digest() {
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        let (half, other) = bytes.split_at(1_234_567);
        let (_, digest) = read(&bytes).unwrap();
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&bytes)].concat();
        for packed in [
            gzip(&bytes),
            [gzip(half), gzip(other)].concat(),
            zstd(&bytes),
            [zstd(half), zstd(other)].concat(),
            skipped,
        ] {
            let (unpacked, same) = read(&packed).unwrap();
            assert!(unpacked == bytes && same == digest);
        }
    }

    #[test]
    fn the_digest_is_that_of_the_uncompressed_stream() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(read(b"").unwrap().1.as_str(), empty);
        assert_eq!(read(b"abc").unwrap().1.as_str(), abc);
        assert_eq!(read(&gzip(b"abc")).unwrap().1.as_str(), abc);
    }

    #[test]
    fn damaged_streams_are_errors() {
        let bytes = vec![7; 100_000];
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() - 5);
            bytes
        };
        read(&cut(gzip(&bytes))).unwrap_err();
        read(&cut(zstd::encode_all(&bytes[..], 1).unwrap())).unwrap_err();
        read(&[gzip(&bytes), b"garbage".to_vec()].concat()).unwrap_err();
        let mut wrong = gzip(&bytes);
        let last = wrong.len() - 6;
        wrong[last] ^= 1;
        read(&wrong).unwrap_err();
        assert!(read(b"BZh91AY").unwrap_err().to_string().contains("bzip2"));
        assert!(read(b"\xfd7zXZ\0").unwrap_err().to_string().contains("xz"));
    }

    #[test]
    fn a_reader_that_gives_up_ends_the_threads() {
        let error = decompressed(io::repeat(7), |chunks| {
            chunks.fill_buf()?;
            Err::<(), _>(anyhow!("enough"))
        });
        assert_eq!(error.unwrap_err().to_string(), "enough");
    }
}
