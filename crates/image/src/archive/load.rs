//! Loading. An archive is read once, from its beginning to its end, so that it can come through a pipe: each of its
//! files goes to the store under its digest, and what belongs to no image is swept away later.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use stead_model::image::{Digest, Image, Platform, Reference};

use crate::choose;
use crate::manifest::{
    CONFIG_MAX_BYTES, Config, DOCUMENT_MAX_BYTES, Descriptor, Document, LAYERS_MAX, Manifest, media,
};
use crate::store::{Adding, Arrival, Claim, Store};
use crate::unpack::Limits;
use crate::unpack::files::{Item, each_item};

/// How images are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// For which platform, where there are several to choose from.
    pub platform: Platform,
    /// What an image is called that has no name of its own.
    pub name: Option<Reference>,
}

/// Under these annotations of an index are the names of its images.
pub(super) const NAME_KEYS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// How deep indexes may be within indexes.
const DEPTH_MAX: usize = 3;
/// Links to links of an archive.
const LINKS_MAX: usize = 8;
/// Files of an archive: each image has some hundreds at most.
const FILES_MAX: u64 = 100_000;

/// Where the contents of images are.
enum Origin<'a> {
    /// In the store already, by their paths in the archive.
    Kept { files: BTreeMap<String, Descriptor>, links: BTreeMap<String, String> },
    /// In the files of a directory.
    Directory(&'a Path),
}

/// One image of a `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image that was found, and the indexes on the way to it.
struct Found {
    digest: Digest,
    indexes: Vec<Digest>,
}

impl Store {
    /// Loads the images of an archive, compressed or not: of an OCI layout, or of `docker save`. Each has the names that it came
    /// with.
    pub fn load_archive(&self, archive: impl Read + Send, load: &Load) -> Result<Vec<Image>> {
        let adding = self.adding()?;
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        let limits = Limits { entries: FILES_MAX, ..Limits::default() };
        each_item(archive, &limits, |item| {
            match item {
                Item::File { name, content } => {
                    let mut blob = self.new_blob()?;
                    std::io::copy(content, &mut blob).context("cannot keep it")?;
                    files.insert(plain(&name), blob.finish(self, "")?);
                }
                Item::Link { name, target, is_relative } => {
                    let name = plain(&name);
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    let target = if is_relative { join(directory, &target) } else { plain(&target) };
                    links.insert(name, target);
                }
            }
            Ok(())
        })
        .context("cannot read the archive")?;
        self.load_from(&adding, &Origin::Kept { files, links }, load)
    }

    /// Loads the images of a directory that is an OCI layout.
    pub fn load_directory(&self, directory: &Path, load: &Load) -> Result<Vec<Image>> {
        let adding = self.adding()?;
        self.load_from(&adding, &Origin::Directory(directory), load)
            .with_context(|| format!("cannot load {}", directory.display()))
    }

    fn load_from(&self, adding: &Adding, origin: &Origin<'_>, load: &Load) -> Result<Vec<Image>> {
        let arrivals = if let Some(index) = origin.named(self, "index.json")? {
            self.load_oci(origin, &index, load)?
        } else if let Some(list) = origin.named(self, "manifest.json")? {
            self.load_docker(origin, &list, load)?
        } else {
            bail!("it has neither an `index.json` nor a `manifest.json`: it is no archive of images");
        };
        if arrivals.is_empty() {
            bail!("it has no image for {}", load.platform);
        }
        // All or none: when the last one has been found to be whole. Names that they had before did not come with them.
        let came = |arrival: &Arrival| {
            let image = self.record(adding, arrival)?;
            Ok(Image { names: arrival.names.iter().cloned().collect(), ..image })
        };
        arrivals.iter().map(came).collect()
    }

    fn load_oci(&self, origin: &Origin<'_>, index: &[u8], load: &Load) -> Result<Vec<Arrival>> {
        let Document::Index(entries) = Document::parse(index, None).context("its index")? else {
            bail!("its `index.json` is no index");
        };
        // Those without names are one image for several platforms, those with the same name as well.
        let mut named: BTreeMap<Option<Reference>, Vec<Descriptor>> = BTreeMap::new();
        for entry in entries {
            named.entry(name_of(&entry)).or_default().push(entry);
        }
        let mut images = Vec::new();
        for (name, entries) in named {
            let Some(Found { digest, indexes }) = self.descend(origin, &entries, &load.platform, &[])? else {
                continue;
            };
            let names = name.or_else(|| load.name.clone()).into_iter().collect();
            images.push(Arrival { digest, names, indexes, source: None });
        }
        Ok(images)
    }

    /// The image of these that suits the platform, with all of its contents in the store.
    fn descend(
        &self,
        origin: &Origin<'_>,
        entries: &[Descriptor],
        platform: &Platform,
        above: &[Digest],
    ) -> Result<Option<Found>> {
        if above.len() > DEPTH_MAX {
            bail!("its indexes are within indexes more than {DEPTH_MAX} deep");
        }
        for entry in choose::candidates(entries, platform) {
            // Archives may hold the images of some of the platforms only.
            if entry.size_bytes > DOCUMENT_MAX_BYTES || !origin.bring(self, entry)? {
                continue;
            }
            let bytes = self.read_blob(&entry.digest, DOCUMENT_MAX_BYTES)?.unwrap_or_default();
            let parsed = Document::parse(&bytes, Some(&entry.media_type));
            match parsed.with_context(|| format!("manifest {}", entry.digest.short()))? {
                Document::Manifest(manifest) => {
                    if self.bring_image(origin, &manifest, platform)? {
                        return Ok(Some(Found { digest: entry.digest.clone(), indexes: above.to_vec() }));
                    }
                }
                Document::Index(inner) => {
                    let above = [above, std::slice::from_ref(&entry.digest)].concat();
                    if let Some(found) = self.descend(origin, &inner, platform, &above)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Brings the contents of an image into the store. False if it is for another platform.
    fn bring_image(&self, origin: &Origin<'_>, manifest: &Manifest, platform: &Platform) -> Result<bool> {
        let lacks = |blob: &Descriptor| format!("it lacks {}", blob.digest.short());
        if !origin.bring(self, &manifest.config)? {
            bail!(lacks(&manifest.config));
        }
        let config = self.read_blob(&manifest.config.digest, CONFIG_MAX_BYTES)?.unwrap_or_default();
        let config = Config::parse(&config, manifest.layers.len()).context("its configuration")?;
        if !choose::suits(&config.platform(), platform) {
            return Ok(false);
        }
        for layer in &manifest.layers {
            if !origin.bring(self, layer)? {
                bail!(lacks(layer));
            }
        }
        Ok(true)
    }

    fn load_docker(&self, origin: &Origin<'_>, list: &[u8], load: &Load) -> Result<Vec<Arrival>> {
        let list: Vec<DockerImage> = serde_json::from_slice(list).context("its `manifest.json`")?;
        let mut images = Vec::new();
        for image in list {
            if image.layers.len() > LAYERS_MAX {
                bail!("it names more layers than an image may have");
            }
            let [config_type, _] = media::CONFIGS;
            let config = Descriptor { media_type: config_type.to_owned(), ..origin.file(&image.config)? };
            let text = self.read_blob(&config.digest, CONFIG_MAX_BYTES)?.unwrap_or_default();
            let parsed = Config::parse(&text, image.layers.len()).context("its configuration")?;
            if !choose::suits(&parsed.platform(), &load.platform) {
                continue;
            }
            let layers = image.layers.iter().map(|path| {
                let layer = origin.file(path)?;
                let media_type = self.layer_type(&layer.digest)?.to_owned();
                Ok(Descriptor { media_type, ..layer })
            });
            let layers = layers.collect::<Result<Vec<_>>>()?;
            let [media_type, _] = media::MANIFESTS;
            let manifest =
                json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
            let digest = self.keep(media_type, manifest.to_string().as_bytes())?.digest;
            let own = image.repo_tags.unwrap_or_default();
            let mut names: Vec<Reference> = own.iter().filter_map(|name| name.parse().ok()).collect();
            if names.is_empty() {
                names.extend(load.name.clone());
            }
            images.push(Arrival { digest, names, indexes: Vec::new(), source: None });
        }
        Ok(images)
    }

    /// The media type of a layer that nobody says: by its first bytes.
    fn layer_type(&self, digest: &Digest) -> Result<&'static str> {
        let path = self.blob_path(digest);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut start = Vec::new();
        file.take(4).read_to_end(&mut start).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(match start.as_slice() {
            [0x1f, 0x8b, ..] => media::LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => media::LAYER_ZSTD,
            _ => media::LAYER_TAR,
        })
    }
}

impl Origin<'_> {
    /// A small file by its path.
    fn named(&self, store: &Store, path: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Kept { files, .. } => match files.get(path) {
                Some(file) => store.read_blob(&file.digest, DOCUMENT_MAX_BYTES),
                None => Ok(None),
            },
            Self::Directory(directory) => {
                let path = directory.join(path);
                match File::open(&path) {
                    Ok(file) => {
                        let mut bytes = Vec::new();
                        let read = file.take(DOCUMENT_MAX_BYTES).read_to_end(&mut bytes);
                        read.with_context(|| format!("cannot read {}", path.display()))?;
                        Ok(Some(bytes))
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
                }
            }
        }
    }

    /// A file of an archive by its path, through links.
    fn file(&self, path: &str) -> Result<Descriptor> {
        let Self::Kept { files, links } = self else { bail!("it has no images of Docker's form") };
        let mut path = plain(path);
        for _ in 0..LINKS_MAX {
            if let Some(file) = files.get(&path) {
                return Ok(file.clone());
            }
            let Some(target) = links.get(&path) else { break };
            path.clone_from(target);
        }
        bail!("it lacks `{}`", path.escape_debug())
    }

    /// Sees to it that a blob is in the store. False if there is none.
    fn bring(&self, store: &Store, blob: &Descriptor) -> Result<bool> {
        if store.has_blob(blob) {
            return Ok(true);
        }
        // The blobs of an archive are all in the store.
        let Self::Directory(directory) = self else { return Ok(false) };
        let path = directory.join("blobs/sha256").join(blob.digest.hex());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            bail!("{} is no file", path.display());
        }
        let Claim::Receive(mut partial) = store.claim(blob, || {})? else { return Ok(true) };
        partial.restart()?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            partial.add(bytes)?;
        }
        partial.finish()?;
        Ok(true)
    }
}

/// What an entry of an index is called; names that are none do not count.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let said = NAME_KEYS.iter().filter_map(|key| entry.annotations.get(*key));
    // A word alone is a tag: of what, nobody says.
    let mut names = said.filter(|name| name.contains([':', '/'])).filter_map(|name| name.parse().ok());
    names.find(|name: &Reference| name.digest.is_none())
}

/// A path of an archive in one form.
fn plain(path: &str) -> String {
    join("", path)
}

/// A path seen from a directory of the archive, never above its root.
fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> =
        if path.starts_with('/') { Vec::new() } else { directory.split('/').collect() };
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !matches!(*part, "" | "."));
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_archives_have_one_form() {
        for (directory, path, expected) in [
            ("", "./a/b", "a/b"),
            ("", "/a//b/", "a/b"),
            ("a", "../b/layer.tar", "b/layer.tar"),
            ("a/b", "../../../etc", "etc"),
            ("a", "/b", "b"),
        ] {
            assert_eq!(join(directory, path), expected);
        }
    }

    #[test]
    fn only_whole_names_are_names() {
        let entry = |key: &str, name: &str| Descriptor {
            media_type: String::new(),
            digest: crate::digest_of(b""),
            size_bytes: 0,
            platform: None,
            annotations: [(key.to_owned(), name.to_owned())].into(),
        };
        for (name, expected) in [
            ("docker.io/library/web:1", Some("docker.io/library/web:1")),
            ("web:1", Some("web:1")),
            ("latest", None),
            ("../x:1", None),
        ] {
            for key in NAME_KEYS {
                assert_eq!(name_of(&entry(key, name)).map(|name| name.to_string()).as_deref(), expected);
            }
        }
        assert_eq!(name_of(&entry("other", "web:1")), None);
    }
}
