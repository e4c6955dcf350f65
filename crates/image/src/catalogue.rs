//! The catalogue: where short names such as `debian:12` are to be had, in order of preference. Pure but for reading the
//! user's file.
//!
//! A name in it is `repository:tag`, or `repository:*` for all of its tags; `*` alone is every other name. In a source, a
//! `*` tag stands for the one that was asked for, and a `*` path for the name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use stead_model::image::Reference;

/// Where an image is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a registry.
    Registry(Reference),
    /// Built from Debian's packages.
    DebianPackages(Packages),
}

/// Packages of a release of Debian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packages {
    /// The release, by its code name.
    pub suite: Suite,
    /// Beyond a base system.
    pub more: Vec<Package>,
}

/// A release of Debian, by its code name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite(String);

/// A package of Debian, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package(String);

/// What the user adds to the catalogue: names, and their sources in order of preference.
///
/// ```json
/// { "debian:12": ["registry.lab:5000/debian:12", "debian-packages:bookworm"],
///   "lab/dev:12": ["debian-packages:bookworm+systemd-sysv,dbus,openssh-server"],
///   "lab/*": [] }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Catalogue {
    names: BTreeMap<String, Vec<String>>,
}

/// Why a text is no source of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    name: String,
    source: String,
    why: String,
}

/// Ours. The first line that fits a name counts.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("debian:11", &["docker.io/library/debian:11", "debian-packages:bullseye"]),
    ("debian:bullseye", &["docker.io/library/debian:bullseye", "debian-packages:bullseye"]),
    ("debian:12", &["docker.io/library/debian:12", "debian-packages:bookworm"]),
    ("debian:bookworm", &["docker.io/library/debian:bookworm", "debian-packages:bookworm"]),
    ("debian:13", &["docker.io/library/debian:13", "debian-packages:trixie"]),
    ("debian:trixie", &["docker.io/library/debian:trixie", "debian-packages:trixie"]),
    // What they are smaller by is left out of what is built here anyway.
    ("debian:11-slim", &["docker.io/library/debian:11-slim", "debian-packages:bullseye"]),
    ("debian:bullseye-slim", &["docker.io/library/debian:bullseye-slim", "debian-packages:bullseye"]),
    ("debian:12-slim", &["docker.io/library/debian:12-slim", "debian-packages:bookworm"]),
    ("debian:bookworm-slim", &["docker.io/library/debian:bookworm-slim", "debian-packages:bookworm"]),
    ("debian:13-slim", &["docker.io/library/debian:13-slim", "debian-packages:trixie"]),
    ("debian:trixie-slim", &["docker.io/library/debian:trixie-slim", "debian-packages:trixie"]),
    ("debian:stable-slim", &["docker.io/library/debian:stable-slim", "debian-packages:stable"]),
    ("debian:oldstable", &["docker.io/library/debian:oldstable", "debian-packages:oldstable"]),
    ("debian:latest", &["docker.io/library/debian:latest", "debian-packages:stable"]),
    ("debian:stable", &["docker.io/library/debian:stable", "debian-packages:stable"]),
    ("debian:testing", &["docker.io/library/debian:testing", "debian-packages:testing"]),
    ("debian:sid", &["docker.io/library/debian:sid", "debian-packages:sid"]),
    ("debian:unstable", &["docker.io/library/debian:unstable", "debian-packages:unstable"]),
    // For system containers. No registry has them.
    ("debian:12-systemd", &["debian-packages:bookworm+systemd-sysv,libpam-systemd,dbus,iproute2,procps"]),
    ("debian:13-systemd", &["debian-packages:trixie+systemd-sysv,libpam-systemd,dbus,iproute2,procps"]),
    ("fedora:*", &["registry.fedoraproject.org/fedora:*", "docker.io/library/fedora:*"]),
    ("rockylinux:*", &["quay.io/rockylinux/rockylinux:*", "docker.io/library/rockylinux:*"]),
    ("centos:*", &["quay.io/centos/centos:*"]),
    ("opensuse/*", &["registry.opensuse.org/opensuse/*"]),
    ("*", &["docker.io/*"]),
];

const PACKAGES: &str = "debian-packages:";

impl Catalogue {
    /// Reads the user's file; nothing if there is none. All of its mistakes are told.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let catalogue: Self = serde_json::from_slice(&text).with_context(|| {
            format!("{} is no catalogue: `{{\"name:tag\": [\"source\", …], …}}`", path.display())
        })?;
        let wrong: Vec<String> = catalogue.mistakes().iter().map(ToString::to_string).collect();
        anyhow::ensure!(wrong.is_empty(), "{}: {}", path.display(), wrong.join("; "));
        Ok(catalogue)
    }

    /// All that is wrong with it.
    pub fn mistakes(&self) -> Vec<SourceError> {
        let mut wrong = Vec::new();
        for (name, sources) in &self.names {
            // A name that could be asked for shows whether the sources make sense.
            let asked = match name.as_str() {
                "*" => "name:tag".to_owned(),
                name => name.replace('*', "tag"),
            };
            match asked.parse::<Reference>() {
                Ok(asked) if asked.registry.is_none() && asked.digest.is_none() => {
                    wrong.extend(sources.iter().filter_map(|source| parse(name, source, &asked).err()));
                }
                Ok(_) => wrong.push(SourceError {
                    name: name.clone(),
                    source: String::new(),
                    why: "a name of the catalogue has no registry and no digest".into(),
                }),
                Err(error) => wrong.push(SourceError {
                    name: name.clone(),
                    source: String::new(),
                    why: error.to_string(),
                }),
            }
        }
        wrong
    }

    /// Where an image is to be had, in order of preference: as the user says, else as we know. A name with a registry
    /// is to be had there and nowhere else.
    pub fn sources(&self, name: &Reference) -> Result<Vec<Source>, SourceError> {
        if name.registry.is_some() {
            return Ok(vec![Source::Registry(name.clone())]);
        }
        let own = self.names.iter().filter(|(pattern, _)| fits(pattern, name));
        // Of several that fit the one that says most: `lab/web:1` before `lab/web:*` before `lab/*` before `*`.
        let own = own.max_by_key(|(pattern, _)| (!pattern.contains('*'), pattern.len()));
        let (pattern, sources): (&str, Vec<&str>) = match own {
            Some((pattern, sources)) => (pattern, sources.iter().map(String::as_str).collect()),
            None => match BUILT_IN.iter().find(|(pattern, _)| fits(pattern, name)) {
                Some((pattern, sources)) => (pattern, sources.to_vec()),
                None => return Ok(Vec::new()),
            },
        };
        let parsed = sources.into_iter().map(|source| parse(pattern, source, name));
        let mut sources = parsed.collect::<Result<Vec<_>, _>>()?;
        if name.digest.is_some() {
            // What is built here has a digest of its own.
            sources.retain(|source| matches!(source, Source::Registry(_)));
        }
        Ok(sources)
    }
}

/// Whether a name of the catalogue means this one.
fn fits(pattern: &str, name: &Reference) -> bool {
    if pattern == "*" {
        return true;
    }
    if let Some(directory) = pattern.strip_suffix("/*") {
        return name.repository.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    }
    let (repository, tag) = pattern.rsplit_once(':').unwrap_or((pattern, "latest"));
    repository == name.repository && (tag == "*" || name.tag.as_deref() == Some(tag))
}

/// A source, with what was asked for in the place of `*`.
fn parse(pattern: &str, source: &str, asked: &Reference) -> Result<Source, SourceError> {
    let wrong = |why: String| SourceError { name: pattern.to_owned(), source: source.to_owned(), why };
    if let Some(packages) = source.strip_prefix(PACKAGES) {
        return packages.parse().map(Source::DebianPackages).map_err(wrong);
    }
    let tag = asked.tag.as_deref().map(|tag| format!(":{tag}")).unwrap_or_default();
    let text = if let Some(place) = source.strip_suffix("/*") {
        // `lab/*` keeps the part after `lab/`, `*` the whole name.
        let directory = pattern.strip_suffix('*').unwrap_or_default();
        let rest = asked.repository.strip_prefix(directory).unwrap_or(&asked.repository);
        format!("{place}/{rest}{tag}")
    } else if let Some(place) = source.strip_suffix(":*") {
        format!("{place}{tag}")
    } else {
        source.to_owned()
    };
    let mut reference: Reference = text.parse().map_err(|error| wrong(format!("{error}")))?;
    if reference.registry.is_none() {
        return Err(wrong(format!("a source is `registry/path:tag` or `{PACKAGES}release[+package,…]`")));
    }
    if asked.digest.is_some() {
        reference.digest.clone_from(&asked.digest);
        reference.tag = reference.tag.filter(|_| asked.tag.is_some());
    }
    Ok(Source::Registry(reference))
}

impl FromStr for Packages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (suite, more) = match text.split_once('+') {
            Some((suite, more)) => (suite, more.split(',').map(str::parse).collect::<Result<_, _>>()?),
            None => (text, Vec::new()),
        };
        Ok(Self { suite: suite.parse()?, more })
    }
}

impl FromStr for Package {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lawful = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if text.len() > 1 && starts_well && text.bytes().all(lawful) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{}` is no package: a name is of `a-z`, `0-9`, `+`, `-` and `.`", text.escape_debug()))
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lawful = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_word = !text.is_empty() && !text.starts_with('-') && text.bytes().all(lawful);
        if is_word { Ok(Self(text.to_owned())) } else { Err("a release is of `a-z`, `0-9` and `-`".into()) }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Packages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.suite.fmt(f)?;
        let marks = std::iter::once('+').chain(std::iter::repeat(','));
        marks.zip(&self.more).try_for_each(|(mark, package)| write!(f, "{mark}{package}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::DebianPackages(packages) => write!(f, "{PACKAGES}{packages}"),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.as_str() {
            "" => write!(f, "name `{}`: {}", self.name.escape_debug(), self.why),
            source => {
                write!(
                    f,
                    "source `{}` of `{}`: {}",
                    source.escape_debug(),
                    self.name.escape_debug(),
                    self.why
                )
            }
        }
    }
}

impl std::error::Error for SourceError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(text: &str) -> Catalogue {
        serde_json::from_str(text).unwrap()
    }

    #[track_caller]
    fn check(user: &str, name: &str, expected: &str) {
        let sources = catalogue(user).sources(&name.parse().unwrap()).unwrap();
        let shown: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(" "), expected, "{name}");
    }

    #[test]
    fn names_that_everybody_knows_have_sources() {
        check("{}", "debian:12", "docker.io/library/debian:12 debian-packages:bookworm");
        check("{}", "debian", "docker.io/library/debian:latest debian-packages:stable");
        check("{}", "debian:12-slim", "docker.io/library/debian:12-slim debian-packages:bookworm");
        check("{}", "debian:12.8", "docker.io/debian:12.8");
        let system = "debian-packages:bookworm+systemd-sysv,libpam-systemd,dbus,iproute2,procps";
        check("{}", "debian:12-systemd", system);
        check("{}", "ubuntu:24.04", "docker.io/ubuntu:24.04");
        check("{}", "alpine:3.22", "docker.io/alpine:3.22");
        check("{}", "fedora:42", "registry.fedoraproject.org/fedora:42 docker.io/library/fedora:42");
        check("{}", "opensuse/leap:15.6", "registry.opensuse.org/opensuse/leap:15.6");
        check("{}", "someone/web:1", "docker.io/someone/web:1");
    }

    #[test]
    fn a_registry_that_is_written_is_the_only_source() {
        check(r#"{"*":["a.example/*"]}"#, "b.example/debian:12", "b.example/debian:12");
    }

    #[test]
    fn a_digest_goes_along_and_rules_out_what_is_built_here() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check("{}", &format!("debian@{digest}"), &format!("docker.io/debian@{digest}"));
        check("{}", &format!("debian:12@{digest}"), &format!("docker.io/library/debian:12@{digest}"));
    }

    #[test]
    fn the_user_goes_first_and_what_says_most_counts() {
        let user = r#"{
            "debian:12": ["debian-packages:bookworm"],
            "lab/web:*": ["r.example/web:*"], "lab/web:1": ["r.example/one:x"],
            "lab/*": ["r.example/all/*"], "*": ["m.example/*", "docker.io/*"], "gone:*": []}"#;
        check(user, "debian:12", "debian-packages:bookworm");
        check(user, "debian:13", "m.example/debian:13 docker.io/debian:13");
        check(user, "lab/web:1", "r.example/one:x");
        check(user, "lab/web:2", "r.example/web:2");
        check(user, "lab/db/main:3", "r.example/all/db/main:3");
        check(user, "labs/db", "m.example/labs/db:latest docker.io/labs/db:latest");
        check(user, "gone:1", "");
    }

    #[test]
    fn every_mistake_of_a_file_is_told() {
        let user = r#"{"Debian:1":["a.example/x"],"a.example/x:1":["b.example/x"],"ok:1":["short:1","debian-packages:","debian-packages:$(x)","debian-packages:sid+","debian-packages:sid+dbus,--x","a.example/UP"],"fine:*":["a.example/fine:*"]}"#;
        let wrong: Vec<String> = catalogue(user).mistakes().iter().map(ToString::to_string).collect();
        assert_eq!(wrong.len(), 8, "{wrong:#?}");
        assert!(catalogue(r#"{"*":["a.example/*"],"x/*":["a.example/y/*"]}"#).mistakes().is_empty());
    }

    #[test]
    fn our_own_catalogue_has_no_mistakes() {
        let names = BUILT_IN.iter().map(|(name, sources)| {
            ((*name).to_owned(), sources.iter().map(|source| (*source).to_owned()).collect())
        });
        assert_eq!(Catalogue { names: names.collect() }.mistakes(), []);
    }
}
