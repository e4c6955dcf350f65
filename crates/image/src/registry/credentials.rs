//! Credentials: where Docker and Podman keep them, in their files or with their helper programs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::auth::{Credentials, Secret};
use super::helper;

/// Where credentials are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthFiles {
    /// The files to look into, in this order.
    pub read: Vec<PathBuf>,
    /// The files to keep new ones in: the first that exists, else the last.
    pub write: Vec<PathBuf>,
    /// Where helper programs are; as this process's `PATH` says where absent.
    pub helpers: Option<OsString>,
}

/// What of the environment says where credentials are kept.
#[derive(Clone, Debug, Default)]
pub struct AuthEnvironment {
    /// `REGISTRY_AUTH_FILE`: Podman's, instead of all others.
    pub registry_auth_file: Option<PathBuf>,
    /// `DOCKER_CONFIG`: Docker's directory.
    pub docker_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The effective user id.
    pub uid: u32,
}

impl AuthEnvironment {
    /// Reads this process's.
    pub fn observe() -> Self {
        let path = |key| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            docker_config: path("DOCKER_CONFIG"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            config_home: path("XDG_CONFIG_HOME"),
            home: path("HOME"),
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

impl AuthFiles {
    /// Where Podman and Docker look, in Podman's order; pure.
    pub fn new(environment: &AuthEnvironment) -> Self {
        if let Some(file) = &environment.registry_auth_file {
            return Self { read: vec![file.clone()], write: vec![file.clone()], helpers: None };
        }
        let home = environment.home.as_ref();
        let runtime = match &environment.runtime_dir {
            Some(runtime) => runtime.join("containers/auth.json"),
            None => PathBuf::from(format!("/run/containers/{}/auth.json", environment.uid)),
        };
        let config = environment.config_home.clone().or(home.map(|home| home.join(".config")));
        let config = config.map(|config| config.join("containers/auth.json"));
        let docker = environment.docker_config.clone().or(home.map(|home| home.join(".docker")));
        let docker = docker.map(|docker| docker.join("config.json"));
        let read = [Some(runtime), config.clone(), docker.clone()].into_iter().flatten().collect();
        // Podman's first file is in memory: a login is to last longer.
        Self { read, write: [docker, config].into_iter().flatten().collect(), helpers: None }
    }
}

/// A file of credentials: what we read of it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    pub(crate) helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    pub(crate) store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// The registry that has several names.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// What Docker's helpers call it.
const HUB_KEY: &str = "https://index.docker.io/v1/";

impl AuthFile {
    /// Reads a file; an empty one if it is not there.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(bytes) if bytes.is_empty() => Ok(Self::default()),
            // The cause could show a part of a secret.
            Ok(bytes) => serde_json::from_slice(&bytes)
                .ok()
                .with_context(|| format!("{} is no file of credentials", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The helper that keeps the credentials of a registry.
    pub(crate) fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.helpers.iter().find(|(key, _)| plain_key(key) == registry).map(|(_, name)| name);
        own.or(self.store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What the file itself holds: the entry for the longest part of the path counts.
    fn own(&self, registry: &str, repository: &str) -> Option<Credentials> {
        let mut wanted = format!("{registry}/{repository}");
        loop {
            let entries = self.auths.iter().filter(|(key, _)| plain_key(key) == wanted);
            if let Some(found) = entries.filter_map(|(_, entry)| entry.credentials()).next() {
                return Some(found);
            }
            wanted.truncate(wanted.rfind('/')?);
        }
    }
}

impl Entry {
    fn credentials(&self) -> Option<Credentials> {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = said(&self.identitytoken) {
            return Some(Credentials::Identity(Secret(token)));
        }
        let (username, password) = match said(&self.auth) {
            Some(auth) => {
                let auth = auth.trim_end_matches('=');
                let text =
                    STANDARD_NO_PAD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
                let (username, password) = text.split_once(':')?;
                // Docker ends some passwords with a zero.
                (username.to_owned(), password.trim_end_matches('\0').to_owned())
            }
            None => (said(&self.username)?, said(&self.password)?),
        };
        Some(Credentials::Password { username, password: Secret(password) })
    }
}

/// The text that Docker keeps for a name and a password.
pub(crate) fn auth_text(username: &str, password: &Secret) -> String {
    STANDARD.encode(format!("{username}:{}", password.0))
}

/// A key of a file as `registry[/path]`: Docker writes some as web addresses.
pub(crate) fn plain_key(key: &str) -> String {
    let is_address = key.contains("://");
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let (registry, path) = key.split_once('/').unwrap_or((key, ""));
    let registry = if HUB.contains(&registry) { "docker.io" } else { registry };
    if path.is_empty() || (is_address && matches!(path, "v1" | "v2")) {
        registry.to_owned()
    } else {
        format!("{registry}/{path}")
    }
}

/// What helpers call a registry.
pub(crate) fn helper_keys(registry: &str) -> Vec<&str> {
    if registry == "docker.io" { vec![HUB_KEY, registry] } else { vec![registry] }
}

/// The credentials for an image of a registry, if there are any.
pub(crate) fn find(files: &AuthFiles, registry: &str, repository: &str) -> Result<Option<Credentials>> {
    for path in &files.read {
        let file = AuthFile::load(path)?;
        if let Some(own) = file.own(registry, repository) {
            return Ok(Some(own));
        }
        let Some(name) = file.helper(registry) else { continue };
        for key in helper_keys(registry) {
            match helper::find(files, name, key) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                // What everybody may have is to be had without it.
                Err(error) => tracing::warn!("{} names a helper: {error:#}", path.display()),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"auths":{
        "https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="},
        "r.example":{"auth":"bWU6YTpi"},
        "r.example/team":{"username":"team","password":"x"},
        "https://old.example/v2/":{"auth":"b2xkOng"},
        "token.example":{"auth":"PHRva2VuPjo=","identitytoken":"t"},
        "empty.example":{},
        "bad.example":{"auth":"%%%"}},
        "credHelpers":{"h.example":"one"},"credsStore":"two","HttpHeaders":{"x":"y"}}"#;

    #[track_caller]
    fn check(registry: &str, repository: &str, expected: &str) {
        let file: AuthFile = serde_json::from_str(FILE).unwrap();
        let shown = match file.own(registry, repository) {
            Some(Credentials::Password { username, password }) => format!("{username} {}", password.0),
            Some(Credentials::Identity(token)) => format!("token {}", token.0),
            None => "none".to_owned(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn entries_are_found_under_all_names_of_a_registry() {
        check("docker.io", "library/debian", "hub secret");
        check("r.example", "web", "me a:b");
        check("r.example", "team/web", "team x");
        check("r.example", "teams/web", "me a:b");
        check("old.example", "x", "old x");
        check("token.example", "x", "token t");
        check("empty.example", "x", "none");
        check("bad.example", "x", "none");
        check("example", "x", "none");
        check("r.example.org", "x", "none");
        check("r.example:443", "x", "none");
    }

    #[test]
    fn a_helper_of_its_own_goes_before_the_one_for_all() {
        let file: AuthFile = serde_json::from_str(FILE).unwrap();
        assert_eq!((file.helper("h.example"), file.helper("r.example")), (Some("one"), Some("two")));
        assert_eq!(AuthFile::default().helper("h.example"), None);
    }

    #[test]
    fn the_environment_says_where_files_are() {
        let shown = |environment: &AuthEnvironment| {
            let files = AuthFiles::new(environment);
            let list = |paths: &[PathBuf]| {
                paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
            };
            format!("{} | {}", list(&files.read), list(&files.write))
        };
        let mut environment = AuthEnvironment { home: Some("/h".into()), uid: 7, ..Default::default() };
        assert_eq!(
            shown(&environment),
            "/run/containers/7/auth.json /h/.config/containers/auth.json /h/.docker/config.json | /h/.docker/config.json /h/.config/containers/auth.json"
        );
        environment.runtime_dir = Some("/r".into());
        environment.config_home = Some("/c".into());
        environment.docker_config = Some("/d".into());
        assert_eq!(
            shown(&environment),
            "/r/containers/auth.json /c/containers/auth.json /d/config.json | /d/config.json /c/containers/auth.json"
        );
        environment.registry_auth_file = Some("/a.json".into());
        assert_eq!(shown(&environment), "/a.json | /a.json");
    }

    #[test]
    fn nothing_of_a_file_is_shown() {
        let file: AuthFile = serde_json::from_str(FILE).unwrap();
        assert!(!format!("{file:?}").contains("bWU6"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, r#"{"auths":{"a":{"auth":1234567}}}"#).unwrap();
        assert!(!format!("{:#}", AuthFile::load(&path).unwrap_err()).contains("1234567"));
    }
}
