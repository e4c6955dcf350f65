//! Images of one layer, made of an archive of a root file system.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stead_model::image::{Digest, Image, Platform, Reference};

use crate::manifest::{LAYER_MAX_BYTES, media};
use crate::store::{Adding, Arrival, NewBlob, Store, finish_digest};

/// What an image of one layer is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// What it is to be called.
    pub name: Reference,
    /// For which platform it is.
    pub platform: Platform,
    /// What runs where nobody says so.
    pub command: Vec<String>,
    /// How it came to be, for its history.
    pub created_by: String,
}

/// A layer that is about to be kept.
pub(crate) struct Layer {
    pub(crate) blob: NewBlob,
    pub(crate) media_type: &'static str,
    pub(crate) diff_id: Digest,
}

/// The path that programs have where an image says none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// An archive that is larger than this unpacked is no root file system.
const ARCHIVE_MAX_BYTES: u64 = LAYER_MAX_BYTES;

impl Store {
    /// Makes an image of the archive of a root file system, compressed by gzip or zstd or not at all.
    pub fn import(&self, archive: impl Read, import: &Import) -> Result<Image> {
        let adding = self.adding()?;
        let layer = keep_archive(self, archive).context("cannot import the archive")?;
        record_layer(self, &adding, layer, import)
    }
}

/// Reads, and writes what was read to a blob.
struct Copying<R> {
    from: R,
    blob: NewBlob,
}

impl<R: Read> Read for Copying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.blob.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}

/// Keeps an archive as it is, and sees what it is uncompressed.
fn keep_archive(store: &Store, archive: impl Read) -> Result<Layer> {
    let mut input = BufReader::with_capacity(128 << 10, Copying { from: archive, blob: store.new_blob()? });
    // A pipe may give less than the four bytes at first.
    let start: Vec<u8> = input.fill_buf().context("cannot read it")?.iter().take(4).copied().collect();
    let (media_type, digest) = match start.as_slice() {
        [0x1f, 0x8b, ..] => {
            (media::LAYER_GZIP, digest_archive(&mut flate2::bufread::MultiGzDecoder::new(&mut input))?)
        }
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::with_buffer(&mut input).context("cannot unpack it")?;
            (media::LAYER_ZSTD, digest_archive(&mut decoder)?)
        }
        _ => (media::LAYER_TAR, digest_archive(&mut input)?),
    };
    std::io::copy(&mut input, &mut std::io::sink()).context("cannot read it")?;
    Ok(Layer { blob: input.into_inner().blob, media_type, diff_id: digest })
}

/// The digest of what is to be a tar archive.
fn digest_archive(archive: &mut impl Read) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut first = Vec::new();
    archive.take(512).read_to_end(&mut first).context("cannot unpack it")?;
    let is_tar =
        first.len() == 512 && (first.get(257..262) == Some(b"ustar") || first.iter().all(|byte| *byte == 0));
    if !is_tar {
        bail!("it is no tar archive");
    }
    hash.update(&first);
    let mut archive = archive.take(ARCHIVE_MAX_BYTES);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = archive.read(&mut buffer).context("cannot unpack it")?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
    }
    if archive.limit() == 0 {
        bail!("it has more than {ARCHIVE_MAX_BYTES} bytes unpacked");
    }
    Ok(finish_digest(hash))
}

/// Records an image of this one layer.
pub(crate) fn record_layer(store: &Store, adding: &Adding, layer: Layer, import: &Import) -> Result<Image> {
    let blob = layer.blob.finish(store, layer.media_type)?;
    let created = rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let Platform { architecture, variant } = &import.platform;
    let mut config = json!({
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [PATH]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": created, "created_by": import.created_by}],
    });
    let mut put = |pointer: &str, key: &str, value: Value| {
        if let Some(Value::Object(object)) = config.pointer_mut(pointer) {
            object.insert(key.to_owned(), value);
        }
    };
    if let Some(variant) = variant {
        put("", "variant", json!(variant));
    }
    if !import.command.is_empty() {
        put("/config", "Cmd", json!(import.command));
    }
    let [media_type, _] = media::MANIFESTS;
    let [config_type, _] = media::CONFIGS;
    let config = store.keep(config_type, config.to_string().as_bytes())?;
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [blob]});
    let manifest = store.keep(media_type, manifest.to_string().as_bytes())?;
    let arrival = Arrival {
        digest: manifest.digest,
        names: vec![import.name.clone()],
        indexes: Vec::new(),
        source: None,
    };
    store.record(adding, &arrival)
}

/// A time as documents have it: `2026-01-02T03:04:05Z`.
pub(crate) fn rfc3339(unix_s: u64) -> String {
    let (mut days, second) = (unix_s / 86_400, unix_s % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix_s), expected);
        }
    }
}
