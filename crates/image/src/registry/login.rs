//! Logging in and out: credentials are tried, and then kept by a helper where there is one, else in a file that only
//! its owner reads.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::auth::{Credentials, Secret};
use super::credentials::{AuthFile, AuthFiles, auth_text, helper_keys, plain_key};
use super::endpoint::account_endpoint;
use super::http::Call;
use super::session::Session;
use super::{Client, helper};
use crate::store::write_whole;

/// Where credentials are kept now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// By this helper.
    Helper(String),
    /// Readable, in this file.
    File(PathBuf),
}

impl Client {
    /// Tries credentials, and keeps them if the registry takes them.
    pub fn login(&self, registry: &str, username: &str, password: &Secret) -> Result<Kept> {
        let registry = plain_key(registry);
        if registry.contains('/') || username.is_empty() || username.contains(':') {
            bail!("a login is for a registry, `host[:port]`, with a name that has no `:`");
        }
        let credentials = Credentials::Password { username: username.to_owned(), password: password.clone() };
        let session = Session::new(self, account_endpoint(&registry, &self.settings), "", &|_| {});
        let session = session.with(credentials);
        let mut answer = session
            .persist(|| session.ask_once(&Call::new(Method::GET, session.uri("")?)))
            .with_context(|| format!("{registry} does not take this name and password"))?;
        if answer.status() != 200 {
            return Err(session.denied(&mut answer));
        }
        keep(&self.settings.auth, &registry, username, password)
    }

    /// Forgets the credentials of a registry. False if there were none.
    pub fn logout(&self, registry: &str) -> Result<bool> {
        let registry = plain_key(registry);
        let files = &self.settings.auth;
        let mut found = false;
        let mut paths: Vec<&PathBuf> = files.read.iter().chain(&files.write).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let file = AuthFile::load(path)?;
            if let Some(name) = file.helper(&registry) {
                for key in helper_keys(&registry) {
                    match helper::erase(files, name, key) {
                        Ok(erased) => found |= erased,
                        Err(error) => tracing::warn!("{} names a helper: {error:#}", path.display()),
                    }
                }
            }
            found |= edit(path, |content| {
                let mut had = false;
                for part in ["auths", "credHelpers"] {
                    if let Some(Value::Object(entries)) = content.get_mut(part) {
                        let before = entries.len();
                        entries.retain(|key, _| plain_key(key) != registry);
                        had |= entries.len() < before;
                    }
                }
                had
            })?;
        }
        Ok(found)
    }
}

fn keep(files: &AuthFiles, registry: &str, username: &str, password: &Secret) -> Result<Kept> {
    let existing = files.write.iter().find(|path| path.exists());
    let path =
        existing.or(files.write.last()).context("there is no place for credentials: HOME is not set")?;
    let file = AuthFile::load(path)?;
    let key = helper_keys(registry).into_iter().next().unwrap_or(registry);
    if let Some(name) = file.helper(registry) {
        helper::store(files, name, key, username, password)?;
        return Ok(Kept::Helper(name.to_owned()));
    }
    if let Some(name) = helper::usual(files) {
        helper::store(files, name, key, username, password)?;
        edit(path, |content| insert(content, "credHelpers", registry, json!(name)))?;
        return Ok(Kept::Helper(name.to_owned()));
    }
    let entry = json!({"auth": auth_text(username, password)});
    edit(path, |content| insert(content, "auths", key, entry))?;
    Ok(Kept::File(path.clone()))
}

fn insert(content: &mut Map<String, Value>, part: &str, key: &str, value: Value) -> bool {
    let entries = content.entry(part).or_insert_with(|| json!({}));
    let Some(entries) = entries.as_object_mut() else { return false };
    entries.insert(key.to_owned(), value);
    true
}

/// Changes a file of credentials, and leaves all in it that is not ours. True if there was something to change.
fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool> {
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut content = match fs::read(&path) {
        Ok(bytes) if bytes.is_empty() => Map::new(),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .ok()
            .with_context(|| format!("{} is no file of credentials", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if !change(&mut content) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let text = serde_json::to_vec_pretty(&content).context("cannot render credentials")?;
    write_whole(&path, &text)?;
    Ok(true)
}
