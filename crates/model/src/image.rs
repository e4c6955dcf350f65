//! Images: what they are called, and what they say of how they want to be run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a content is known by: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// This text is not a [`Digest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestError(String);

impl Digest {
    /// The digest as text, with `sha256:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The digits that people are shown.
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or_default()
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { Ok(Self(text.to_owned())) } else { Err(DigestError(text.to_owned())) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a digest: `sha256:` and 64 of `0-9`, `a-f`", self.0)
    }
}

impl std::error::Error for DigestError {}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// What people call an image: `debian:12`, `127.0.0.1:5000/lab/web`, `web@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// The registry, `host[:port]`; absent in short names such as `debian:12`.
    pub registry: Option<String>,
    /// The path in the registry, `lab/web`.
    pub repository: String,
    /// The tag. `latest` where neither tag nor digest is written.
    pub tag: Option<String>,
    /// The digest of the manifest, which then decides.
    pub digest: Option<Digest>,
}

/// Why a text is not a [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

/// Registries take no longer paths, and file names of stores no longer parts.
const REPOSITORY_MAX_CHARS: usize = 255;
const TAG_MAX_CHARS: usize = 128;

impl Reference {
    /// The name without tag and digest.
    pub fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// The same as short as it is usually written: `debian:12` for `docker.io/library/debian:12`.
    #[must_use]
    pub fn familiar(&self) -> Self {
        let short = match self.registry.as_deref() {
            None | Some("docker.io" | "index.docker.io") => {
                self.repository.strip_prefix("library/").unwrap_or(&self.repository)
            }
            Some(_) => return self.clone(),
        };
        Self { registry: None, repository: short.to_owned(), ..self.clone() }
    }

    /// Which of these names is meant: the very same, otherwise one that is shorter or longer.
    pub fn among<'a>(&self, names: impl IntoIterator<Item = &'a Self> + Clone) -> Option<&'a Self> {
        let short = self.familiar();
        let same = names.clone().into_iter().find(|name| *name == self);
        same.or_else(|| names.into_iter().find(|name| name.familiar() == short))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |why| ReferenceError { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|_| wrong("after `@` comes `sha256:` and 64 of `0-9`, `a-f`"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(
                "a tag has 1 to 128 of letters, digits, `_`, `.` and `-`, not first `.` or `-`",
            ));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => (Some(first), path),
            Some(_) | None => (None, name),
        };
        if registry.is_some_and(|registry| !is_registry(registry)) {
            return Err(wrong("the registry is not `host` or `host:port`"));
        }
        let is_lawful = repository.len() <= REPOSITORY_MAX_CHARS && repository.split('/').all(is_path_part);
        if !is_lawful {
            return Err(wrong(
                "a name has parts of `a-z`, `0-9`, and single `.`, `_`, `-` within them, with `/` between",
            ));
        }
        let tag = tag.or(digest.is_none().then_some("latest")).map(str::to_owned);
        Ok(Self { registry: registry.map(str::to_owned), repository: repository.to_owned(), tag, digest })
    }
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && text.len() <= TAG_MAX_CHARS
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => {
            return host.parse::<std::net::Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port));
        }
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && (port.is_empty() || is_port(port))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// One part of a path: letters and digits, with `.`, `_`, `__` or dashes only between them.
fn is_path_part(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_plain = text.starts_with(is_plain) && text.ends_with(is_plain);
    let lawful = text.chars().all(|c| is_plain(c) || matches!(c, '.' | '_' | '-'));
    let mixed = ["..", "._", "_.", ".-", "-.", "_-", "-_", "___"];
    ends_plain && lawful && !mixed.iter().any(|pair| text.contains(pair))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no image: {}", self.text.escape_debug(), self.why)
    }
}

impl std::error::Error for ReferenceError {}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// A kind of computer that images are made for, written `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// The processor, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Its variant, `v7`.
    pub variant: Option<String>,
}

/// This text is not a [`Platform`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = || PlatformError(text.to_owned());
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let rest = text.strip_prefix("linux/").unwrap_or(text);
        let (architecture, variant) = match rest.split_once('/') {
            Some((architecture, variant)) => (architecture, Some(variant)),
            None => (rest, None),
        };
        if !is_word(architecture) || variant.is_some_and(|variant| !is_word(variant)) {
            return Err(wrong());
        }
        let architecture = match architecture {
            "linux" => return Err(wrong()),
            "x86" => "386",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self { architecture: architecture.to_owned(), variant: variant.map(str::to_owned) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no platform, such as `linux/amd64` or `linux/arm64/v8`", self.0.escape_debug())
    }
}

impl std::error::Error for PlatformError {}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, PlatformError> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

/// What an image says of how it wants to be run: the `config` of the OCI image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The program, and its first arguments.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// More arguments, or the program where there is no entrypoint.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// The environment, `NAME=value` each.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Where the program starts.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// As whom: `user[:group]`, names or numbers.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// What tells it to end, `SIGTERM`.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    /// The paths that hold data.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// The ports that it listens on, `80/tcp`.
    #[serde(deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// How to see that it is well.
    pub healthcheck: Option<ImageHealth>,
}

/// How an image says to see that its program is well. Times are in nanoseconds, 0 for our default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHealth {
    /// `NONE`, `CMD` with a program and arguments, or `CMD-SHELL` with a line for the shell.
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Between tests.
    pub interval: u64,
    /// For one test.
    pub timeout: u64,
    /// After the start, when failures do not count.
    pub start_period: u64,
    /// Between tests within the start period.
    pub start_interval: u64,
    /// How many failures in a row mean that it is not well.
    pub retries: u32,
}

/// Writers of Go leave `null` where nothing is.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An image that is in the store, as far as machines need to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its manifest, for one platform.
    pub digest: Digest,
    /// For which platform it is.
    pub platform: Platform,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Its layers, the lowest first, by the digests of their unpacked archives (`diff_ids`).
    pub layers: Vec<Digest>,
    /// What it is called here.
    pub names: BTreeSet<Reference>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let read = match text.parse::<Reference>() {
            Ok(reference) => {
                assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
                format!(
                    "{:?} {} {:?}",
                    reference.registry.as_deref(),
                    reference.repository,
                    reference.tag.as_deref()
                )
            }
            Err(error) => error.why.to_owned(),
        };
        assert!(read.contains(expected), "{text}: {read}");
    }

    #[test]
    fn references_are_read_as_other_tools_read_them() {
        check("debian", r#"None debian Some("latest")"#);
        check("debian:12", r#"None debian Some("12")"#);
        check("lab/web:v1", r#"None lab/web Some("v1")"#);
        check("localhost/web", r#"Some("localhost") web Some("latest")"#);
        check("127.0.0.1:5000/lab/web", r#"Some("127.0.0.1:5000") lab/web Some("latest")"#);
        check("[::1]:5000/web:x", r#"Some("[::1]:5000") web Some("x")"#);
        check(
            "registry.example/a/b-c__d.e:V_1.2-3",
            r#"Some("registry.example") a/b-c__d.e Some("V_1.2-3")"#,
        );
        check(&format!("web@sha256:{}", "a".repeat(64)), "None web None");
        check(&format!("web:1@sha256:{}", "a".repeat(64)), r#"None web Some("1")"#);
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        check("", "a name has parts");
        check("Web", "a name has parts");
        check("a//b", "a name has parts");
        check("../../etc", "the registry");
        check("web:", "a tag has");
        check("web:.x", "a tag has");
        check("web:ü", "a tag has");
        check("web@sha256:12", "after `@`");
        check("web@md5:aa", "after `@`");
        check("host.example:0/web", "the registry");
        check("-a.example/web", "the registry");
        check(&"a".repeat(256), "a name has parts");
    }

    #[test]
    fn the_first_registry_and_its_library_go_without_saying() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<Reference>().unwrap().familiar().to_string(), expected);
        };
        check("debian", "debian:latest");
        check("docker.io/library/debian:12", "debian:12");
        check("index.docker.io/lab/base", "lab/base:latest");
        check("library/debian:12", "debian:12");
        check("localhost/library/debian:12", "localhost/library/debian:12");
        check("127.0.0.1:5000/lab/base:1", "127.0.0.1:5000/lab/base:1");
    }

    #[test]
    fn platforms_are_read_in_any_usual_form() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected);
        }
        for text in ["", "linux", "linux/", "windows/amd64/x/y", "AMD64"] {
            text.parse::<Platform>().unwrap_err();
        }
    }

    #[test]
    fn nulls_of_an_image_configuration_mean_nothing() {
        let text = r#"{"Cmd":["sh"],"Entrypoint":null,"Env":null,"Volumes":{"/data":{}},"Labels":null,"OnBuild":null}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert!(config.entrypoint.is_empty() && config.volumes.contains_key("/data"));
    }
}
