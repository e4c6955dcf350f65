//! What registries and archives say of images: indexes, manifests and configurations, read from bytes that
//! nobody vouches for. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use stead_model::image::{Digest, ImageConfig, Platform};

/// The media types that we know.
pub mod media {
    /// Several images under one name.
    pub const INDEXES: [&str; 2] = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    /// One image.
    pub const MANIFESTS: [&str; 2] = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ];
    /// How an image is to be run.
    pub const CONFIGS: [&str; 2] =
        ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    /// A layer, not compressed.
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer, compressed by gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer, compressed by zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Layers: the compression is seen from the bytes themselves.
    pub const LAYERS: [&str; 9] = [
        LAYER_TAR,
        LAYER_GZIP,
        LAYER_ZSTD,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
}

/// The largest index or manifest: registries take no larger ones either.
pub const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// The largest configuration.
pub const CONFIG_MAX_BYTES: u64 = 8 << 20;
/// The most layers of an image. Overlayfs stacks 500.
pub const LAYERS_MAX: usize = 500;
/// The most entries of an index.
pub const ENTRIES_MAX: usize = 1000;
/// The largest layer as it is stored.
pub const LAYER_MAX_BYTES: u64 = 256 << 30;

/// A content that another one names: by digest and size, both of which are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// What it is made for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What an entry of an index is made for, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// `linux`.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// `amd64`.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// `v7`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub variant: String,
}

/// What is behind a name or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, to choose from.
    Index(Vec<Descriptor>),
}

/// The contents that make an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its own media type.
    pub media_type: String,
    /// How it is to be run.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// The configuration of an image: what we read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// When it was made, in the maker's words.
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    /// `linux`.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// `amd64`.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// `v7`.
    #[serde(default, deserialize_with = "or_default")]
    pub variant: String,
    /// How it wants to be run.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ImageConfig,
    /// Its unpacked layers.
    pub rootfs: RootFs,
    /// How it came to be.
    #[serde(default, deserialize_with = "or_default")]
    pub history: Vec<Change>,
}

/// The unpacked layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// The digests of their archives, the lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// One change that led to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    /// By which command.
    #[serde(default, deserialize_with = "or_default")]
    pub created_by: String,
    /// A remark.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "or_default")]
    pub empty_layer: bool,
}

/// Why bytes are not the document of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// Not JSON, or without what must be there.
    Unreadable(String),
    /// A kind of document that we do not know.
    Unknown(String),
    /// Something else than a container image, which registries hold as well.
    Artifact(String),
    /// It can be read in two ways.
    Ambiguous,
    /// More of something than any image needs.
    TooMuch(&'static str),
    /// For another system than Linux.
    Foreign(String),
    /// The configuration and the manifest do not have the same number of layers.
    Layers {
        /// Of the manifest.
        manifest: usize,
        /// Of the configuration.
        config: usize,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde_json::Value>,
}

impl Document {
    /// Reads an index or a manifest. `content_type` is what it was announced as: it counts only where the document
    /// does not say itself what it is.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, DocumentError> {
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|error| DocumentError::Unreadable(error.to_string()))?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(DocumentError::Unknown("a manifest of Docker's first format".into()));
        }
        // One reader would take the one half, another the other: CVE-2021-41190.
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(DocumentError::Ambiguous);
        }
        let said = raw.media_type.as_deref().or(content_type.map(essence)).unwrap_or_default();
        match (raw.manifests, raw.config, raw.layers) {
            (Some(entries), _, _) => {
                if media::MANIFESTS.contains(&said) {
                    return Err(DocumentError::Ambiguous);
                }
                if entries.len() > ENTRIES_MAX {
                    return Err(DocumentError::TooMuch("entries"));
                }
                Ok(Self::Index(entries))
            }
            (None, Some(config), Some(layers)) => manifest(said, config, layers).map(Self::Manifest),
            (None, _, _) => Err(DocumentError::Unknown(match said {
                "" => "neither an index nor a manifest".to_owned(),
                said => format!("`{}`", said.escape_debug()),
            })),
        }
    }
}

fn manifest(said: &str, config: Descriptor, layers: Vec<Descriptor>) -> Result<Manifest, DocumentError> {
    if media::INDEXES.contains(&said) {
        return Err(DocumentError::Ambiguous);
    }
    if !media::CONFIGS.contains(&config.media_type.as_str()) {
        return Err(DocumentError::Artifact(config.media_type));
    }
    if layers.len() > LAYERS_MAX {
        return Err(DocumentError::TooMuch("layers"));
    }
    if config.size_bytes > CONFIG_MAX_BYTES || layers.iter().any(|layer| layer.size_bytes > LAYER_MAX_BYTES) {
        return Err(DocumentError::TooMuch("bytes"));
    }
    if let Some(layer) = layers.iter().find(|layer| !media::LAYERS.contains(&layer.media_type.as_str())) {
        return Err(DocumentError::Unknown(format!("a layer of type `{}`", layer.media_type.escape_debug())));
    }
    let media_type =
        if media::MANIFESTS.contains(&said) { said } else { media::MANIFESTS.first().unwrap_or(&said) };
    Ok(Manifest { media_type: media_type.to_owned(), config, layers })
}

/// A content type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

impl Config {
    /// Reads the configuration that belongs to a manifest with so many layers.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self, DocumentError> {
        let config: Self =
            serde_json::from_slice(bytes).map_err(|error| DocumentError::Unreadable(error.to_string()))?;
        if config.rootfs.diff_ids.len() != layers {
            return Err(DocumentError::Layers { manifest: layers, config: config.rootfs.diff_ids.len() });
        }
        if !matches!(config.os.as_str(), "linux" | "") {
            return Err(DocumentError::Foreign(config.os));
        }
        Ok(config)
    }

    /// What it is made for. Images that do not say are for this computer.
    pub fn platform(&self) -> Platform {
        let variant = (!self.variant.is_empty()).then(|| self.variant.clone());
        match self.architecture.as_str() {
            "" => crate::choose::host_platform(),
            architecture => Platform { architecture: architecture.to_owned(), variant },
        }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::Unknown(what) => write!(f, "it is {what}, which we cannot use"),
            Self::Artifact(kind) => {
                write!(f, "it is no container image but something of type `{}`", kind.escape_debug())
            }
            Self::Ambiguous => f.write_str("it is an index and a manifest at once"),
            Self::TooMuch(what) => write!(f, "it names more {what} than an image may have"),
            Self::Foreign(os) => write!(f, "it is for `{}`, not for Linux", os.escape_debug()),
            Self::Layers { manifest, config } => {
                write!(f, "its manifest has {manifest} layers, its configuration {config}")
            }
        }
    }
}

impl std::error::Error for DocumentError {}

/// Writers of Go leave `null` where nothing is.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn descriptor(kind: &str, size: u64) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{HEX}","size":{size}}}"#)
    }

    fn read(text: &str, content_type: Option<&str>) -> String {
        match Document::parse(text.as_bytes(), content_type) {
            Ok(Document::Index(entries)) => format!("index of {}", entries.len()),
            Ok(Document::Manifest(manifest)) => format!("manifest of {}", manifest.layers.len()),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let read = read(text, None);
        assert!(read.contains(expected), "{text}: {read}");
    }

    #[test]
    fn documents_are_known_by_what_they_say_or_by_their_shape() {
        let config = descriptor(media::CONFIGS[1], 10);
        for (kind, name) in [(media::MANIFESTS[0], "manifest"), (media::MANIFESTS[1], "manifest")] {
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{}]}}"#,
                descriptor(media::LAYERS[7], 5)
            );
            check(&text, &format!("{name} of 1"));
        }
        check(&format!(r#"{{"config":{config},"layers":[]}}"#), "manifest of 0");
        check(&format!(r#"{{"manifests":[{config}]}}"#), "index of 1");
        check(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            "index of 0",
        );
    }

    #[test]
    fn a_document_that_can_be_read_in_two_ways_is_refused() {
        let config = descriptor(media::CONFIGS[0], 10);
        check(&format!(r#"{{"manifests":[],"config":{config},"layers":[]}}"#), "at once");
        check(r#"{"manifests":[],"layers":[]}"#, "at once");
        check(&format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media::MANIFESTS[0]), "at once");
        check(
            &format!(r#"{{"mediaType":"{}","config":{config},"layers":[]}}"#, media::INDEXES[0]),
            "at once",
        );
        let announced = format!("{}; charset=utf-8", media::MANIFESTS[0]);
        assert!(read(r#"{"manifests":[]}"#, Some(&announced)).contains("at once"));
    }

    #[test]
    fn what_is_no_container_image_is_named() {
        check("[]", "neither");
        check("\"\"", "cannot be read");
        check("{", "cannot be read");
        check("{}", "neither");
        check(r#"{"schemaVersion":1,"fsLayers":[]}"#, "first format");
        check(r#"{"mediaType":"text/x\u001b","x":1}"#, r"text/x\u{1b}");
        let helm = descriptor("application/vnd.cncf.helm.config.v1+json", 1);
        check(&format!(r#"{{"config":{helm},"layers":[]}}"#), "helm");
        let config = descriptor(media::CONFIGS[0], 10);
        let odd = descriptor("application/vnd.oci.image.layer.v1.tar+encrypted", 10);
        check(&format!(r#"{{"config":{config},"layers":[{odd}]}}"#), "encrypted");
        check(r#"{"manifests":[{"digest":"sha256:12","size":1}]}"#, "cannot be read");
        check(r#"{"manifests":[{"size":-1}]}"#, "cannot be read");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes: Vec<u8>, text in r#"(\{|\}|\[|\]|:|,|"manifests"|"config"|"layers"|"digest"|"size"|1|null){0,30}"#) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                drop(Document::parse(bytes, None));
                drop(Config::parse(bytes, 0));
            }
        }
    }

    #[test]
    fn more_than_an_image_needs_is_refused() {
        let config = descriptor(media::CONFIGS[0], 10);
        let layers = vec![descriptor(media::LAYER_TAR, 1); LAYERS_MAX + 1].join(",");
        check(&format!(r#"{{"config":{config},"layers":[{layers}]}}"#), "more layers");
        let entries = vec![descriptor(media::MANIFESTS[0], 1); ENTRIES_MAX + 1].join(",");
        check(&format!(r#"{{"manifests":[{entries}]}}"#), "more entries");
        let huge = descriptor(media::CONFIGS[0], CONFIG_MAX_BYTES + 1);
        check(&format!(r#"{{"config":{huge},"layers":[]}}"#), "more bytes");
        let huge = descriptor(media::LAYER_TAR, u64::MAX);
        check(&format!(r#"{{"config":{config},"layers":[{huge}]}}"#), "more bytes");
    }

    #[test]
    fn a_configuration_must_belong_to_its_manifest() {
        let text = format!(
            r#"{{"os":"linux","architecture":"arm","variant":"v7","config":null,"history":null,"rootfs":{{"type":"layers","diff_ids":["{HEX}"]}}}}"#
        );
        let config = Config::parse(text.as_bytes(), 1).unwrap();
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert_eq!(
            Config::parse(text.as_bytes(), 2).unwrap_err(),
            DocumentError::Layers { manifest: 2, config: 1 }
        );
        let windows = text.replace("linux", "windows");
        assert_eq!(
            Config::parse(windows.as_bytes(), 1).unwrap_err(),
            DocumentError::Foreign("windows".into())
        );
        assert!(matches!(Config::parse(b"{}", 0).unwrap_err(), DocumentError::Unreadable(_)));
    }
}
