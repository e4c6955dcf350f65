//! What the user set about images: where short names are to be had, mirrors of registries and of Debian, and whom to speak
//! with without TLS.
//!
//! ```json
//! { "catalogue": { "debian:12": ["registry.lab:5000/debian:12", "debian-packages:bookworm"] },
//!   "mirrors": { "docker.io": ["mirror.lab"] },
//!   "plain-http": ["registry.lab:5000"],
//!   "debian": { "mirror": "http://mirror.lab/debian", "security": "http://mirror.lab/debian-security", "keyring": "/etc/lab.gpg" } }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use stead_image::catalogue::Catalogue;
use stead_image::registry::{AuthEnvironment, AuthFiles, Settings};
use stead_image::{Client, DebianSettings, Origins};

use super::super::build::{Mounts, words_before};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Own {
    catalogue: Catalogue,
    mirrors: BTreeMap<String, Vec<String>>,
    plain_http: BTreeSet<String>,
    debian: Debian,
}

/// From where Debian's packages come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Debian {
    mirror: Option<String>,
    security: Option<String>,
    keyring: Option<PathBuf>,
}

/// From where images come.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) client: Client,
    mirrors: BTreeMap<String, Vec<String>>,
    plain_http: BTreeSet<String>,
    catalogue: Catalogue,
    debian: DebianSettings,
}

impl Sources {
    /// As the user's file says, else the computer's; as we know where there is none.
    pub(crate) fn load() -> Result<Self> {
        let path = |key| std::env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = path("XDG_CONFIG_HOME").or(path("HOME").map(|home| home.join(".config")));
        let files = [config.map(|config| config.join("stead/images.json")), Some(COMPUTERS.into())];
        let mut own = Own::default();
        for file in files.iter().flatten() {
            if let Some(found) = read(file)? {
                own = found;
                break;
            }
        }
        let auth = AuthFiles::new(&AuthEnvironment::observe());
        let Own { catalogue, mirrors, plain_http, debian } = own;
        let (mirrors_too, plain_too) = (mirrors.clone(), plain_http.clone());
        let client = Client::new(Settings { mirrors, plain_http, auth, ..Settings::default() });
        // Killed in the midst of it, it leaves no mounts.
        let debian = DebianSettings { starter: words_before(Mounts::Own)?, ..debian.into() };
        Ok(Self { client, mirrors: mirrors_too, plain_http: plain_too, catalogue, debian })
    }

    /// The registries that are asked in place of others.
    pub(crate) fn mirrors(&self) -> Vec<(String, Vec<String>)> {
        self.mirrors.clone().into_iter().collect()
    }

    /// The registries without TLS.
    pub(crate) fn plain_http(&self) -> &BTreeSet<String> {
        &self.plain_http
    }

    /// The same, as the store asks for it.
    pub(crate) fn origins(&self) -> Origins<'_> {
        Origins { client: &self.client, catalogue: &self.catalogue, debian: &self.debian }
    }
}

impl From<Debian> for DebianSettings {
    fn from(said: Debian) -> Self {
        let Debian { mirror, security, keyring } = said;
        Self { mirror, security, keyring, ..Self::default() }
    }
}

/// The file of all users who have none of their own.
const COMPUTERS: &str = "/etc/stead/images.json";

/// Reads such a file, if it is there.
fn read(path: &Path) -> Result<Option<Own>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let is_wrong = || format!("{} is wrong", path.display());
    let own: Own = serde_json::from_slice(&text).with_context(is_wrong)?;
    DebianSettings::from(own.debian.clone()).check().with_context(is_wrong)?;
    let wrong: Vec<String> = own.catalogue.mistakes().iter().map(ToString::to_string).collect();
    ensure!(wrong.is_empty(), "{}: {}", path.display(), wrong.join("; "));
    Ok(Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.json");
        std::fs::write(&path, text).unwrap();
        let said = match read(&path) {
            Ok(own) => format!("{:?}", own.unwrap()),
            Err(error) => format!("{error:#}").replace(&*path.to_string_lossy(), "FILE"),
        };
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told_with_its_place() {
        check("{}", "Own");
        check(r#"{"mirrors": {"docker.io": ["mirror.lab"]}, "plain-http": ["a:1"]}"#, "mirror.lab");
        check(r#"{"mirror": {}}"#, "FILE is wrong: unknown field `mirror`");
        check(r#"{"catalogue": {"a/b:1": ["debian-packages:no such"]}}"#, "FILE: ");
        check(r#"{"debian": {"mirror": "http://mirror.lab/any"}}"#, "http://mirror.lab/any");
        check(
            r#"{"debian": {"mirror": "[trusted=yes] http://a/debian"}}"#,
            "FILE is wrong: `[trusted=yes] http://a/debian` is no mirror",
        );
        check(r#"{"debian": {"trusted": true}}"#, "FILE is wrong: unknown field `trusted`");
        assert!(read(Path::new("/nowhere/images.json")).unwrap().is_none());
    }
}
