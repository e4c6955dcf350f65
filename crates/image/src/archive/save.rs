//! Saving: an OCI layout, as a directory or as an archive. The archive has what `docker load` looks for as well.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stead_model::image::{Digest, Reference};

use super::load::NAME_KEYS;
use crate::manifest::{Descriptor, Manifest, media};
use crate::store::{Adding, Store, write_whole};
use crate::unpack::files::{END, directory_header, file_header, padding};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image, and those of its names that are written with it.
pub type Chosen = (Digest, BTreeSet<Reference>);

/// What is to be written.
struct Saved {
    index: Value,
    docker: Value,
    blobs: Vec<Descriptor>,
}

impl Store {
    /// Writes images as one archive, which we load again, and others: an OCI archive and one of Docker's at once.
    pub fn save_archive(&self, images: &[Chosen], mut writer: impl Write) -> Result<()> {
        let adding = self.adding()?;
        let Saved { index, docker, blobs } = self.saved(&adding, images)?;
        let mut put = |name: &str, bytes: &[u8]| -> std::io::Result<()> {
            let size_bytes = bytes.len() as u64;
            writer.write_all(&file_header(name, size_bytes))?;
            writer.write_all(bytes)?;
            writer.write_all(&padding(size_bytes))
        };
        let small = [
            ("oci-layout", LAYOUT.to_owned()),
            ("index.json", index.to_string()),
            ("manifest.json", docker.to_string()),
        ];
        for (name, text) in small {
            put(name, text.as_bytes()).context("cannot write the archive")?;
        }
        // Who unpacks it need not make directories that it does not have, or makes them so that nobody may look into them.
        for name in ["blobs/", "blobs/sha256/"] {
            writer.write_all(&directory_header(name)).context("cannot write the archive")?;
        }
        for blob in blobs {
            let path = self.blob_path(&blob.digest);
            let mut file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = format!("blobs/sha256/{}", blob.digest.hex());
            let written = writer
                .write_all(&file_header(&name, blob.size_bytes))
                .and_then(|()| std::io::copy(&mut file, &mut writer))
                .context("cannot write the archive")?;
            if written != blob.size_bytes {
                bail!("{} is damaged", path.display());
            }
            writer.write_all(&padding(blob.size_bytes)).context("cannot write the archive")?;
        }
        writer.write_all(&END).and_then(|()| writer.flush()).context("cannot write the archive")
    }

    /// Writes images as an OCI layout into a directory that is empty, or not there yet.
    pub fn save_directory(&self, images: &[Chosen], directory: &Path) -> Result<()> {
        self.lay_out(images, directory, |blob, place| fs::copy(blob, place).map(drop))
    }

    /// The same with links to what is in the store: it holds for as long as the images are here.
    pub fn link_directory(&self, images: &[Chosen], directory: &Path) -> Result<()> {
        self.lay_out(images, directory, |blob, place| std::os::unix::fs::symlink(blob, place))
    }

    fn lay_out(
        &self,
        images: &[Chosen],
        directory: &Path,
        put: impl Fn(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let adding = self.adding()?;
        let Saved { index, blobs, .. } = self.saved(&adding, images)?;
        let cannot = || format!("cannot write to {}", directory.display());
        let places = directory.join("blobs/sha256");
        fs::create_dir_all(&places).with_context(cannot)?;
        if directory.join("index.json").exists() {
            bail!("{} has images already", directory.display());
        }
        for blob in blobs {
            put(&self.blob_path(&blob.digest), &places.join(blob.digest.hex())).with_context(cannot)?;
        }
        fs::write(directory.join("oci-layout"), LAYOUT).with_context(cannot)?;
        // The index comes last: with it the layout is whole.
        write_whole(&directory.join("index.json"), index.to_string().as_bytes())
    }

    fn saved(&self, _adding: &Adding, images: &[Chosen]) -> Result<Saved> {
        let (mut entries, mut docker, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
        for (digest, names) in images {
            let Some(details) = self.inspect(digest)? else { bail!("there is no image {}", digest.short()) };
            let Manifest { media_type, config, layers } = &details.manifest;
            let path = self.blob_path(digest);
            let size_bytes =
                fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
            let platform = &details.image.platform;
            let mut said = json!({"os": "linux", "architecture": platform.architecture});
            if let (Some(variant), Some(said)) = (&platform.variant, said.as_object_mut()) {
                said.insert("variant".to_owned(), json!(variant));
            }
            let manifest = descriptor(media_type, digest, size_bytes);
            entries.extend(entry(&manifest, &said, names.iter()));
            let tags: Vec<String> = names.iter().map(Reference::to_string).collect();
            let place = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
            docker.push(json!({
                "Config": place(config),
                "RepoTags": tags.iter().filter(|tag| !tag.contains('@')).collect::<Vec<_>>(),
                "Layers": layers.iter().map(place).collect::<Vec<_>>(),
            }));
            blobs.push(manifest);
            blobs.push(config.clone());
            blobs.extend(layers.iter().cloned());
        }
        let mut seen = BTreeSet::new();
        blobs.retain(|blob| seen.insert(blob.digest.clone()));
        if let Some(blob) = blobs.iter().find(|blob| !self.has_blob(blob)) {
            bail!("{} is not here any more; hint: pull the image again", blob.digest.short());
        }
        let [media_type, _] = media::INDEXES;
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        Ok(Saved { index, docker: json!(docker), blobs })
    }
}

/// An entry for each name, or one without.
fn entry<'a>(
    manifest: &Descriptor,
    platform: &Value,
    names: impl Iterator<Item = &'a Reference>,
) -> Vec<Value> {
    let plain = json!({
        "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size_bytes,
        "platform": platform,
    });
    let with_name = |name: &Reference| {
        let mut entry = plain.clone();
        if let Some(object) = entry.as_object_mut() {
            let annotations = NAME_KEYS.iter().map(|key| ((*key).to_owned(), json!(name)));
            object.insert("annotations".to_owned(), Value::Object(annotations.collect()));
        }
        entry
    };
    let named: Vec<Value> = names.filter(|name| name.digest.is_none()).map(with_name).collect();
    if named.is_empty() { vec![plain] } else { named }
}

fn descriptor(media_type: &str, digest: &Digest, size_bytes: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        size_bytes,
        platform: None,
        annotations: Default::default(),
    }
}
