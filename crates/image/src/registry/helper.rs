//! Credential helpers: programs called `docker-credential-…` that keep secrets for others. They are asked over their
//! standard input, so that nothing secret is in a list of processes.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::auth::{Credentials, Secret};
use super::credentials::AuthFiles;

/// Some ask their user for a password.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);
/// A name and a secret are some kilobytes.
const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// Instead of a name, where the secret is a token.
const TOKEN_NAME: &str = "<token>";
/// Helpers that are taken where they work and no file names one, as Docker does on Linux.
const USUAL: [&str; 2] = ["secretservice", "pass"];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks for the credentials of a registry.
pub(crate) fn find(files: &AuthFiles, name: &str, key: &str) -> Result<Option<Credentials>> {
    let answer = match ask(files, name, "get", key.as_bytes())? {
        Ok(answer) => answer,
        Err(why) if why.to_lowercase().contains("not found") => return Ok(None),
        Err(why) => bail!("{} fails: {}", program_name(name), why.escape_debug()),
    };
    // The cause could show a part of the secret.
    let kept: Kept = serde_json::from_slice(&answer)
        .ok()
        .with_context(|| format!("{} answers something else", program_name(name)))?;
    let secret = Secret(kept.secret);
    Ok(Some(match kept.username.as_str() {
        TOKEN_NAME => Credentials::Identity(secret),
        _ => Credentials::Password { username: kept.username, password: secret },
    }))
}

/// Has a helper keep credentials.
pub(crate) fn store(files: &AuthFiles, name: &str, key: &str, username: &str, secret: &Secret) -> Result<()> {
    let kept = Kept { server_url: key.to_owned(), username: username.to_owned(), secret: secret.0.clone() };
    let text = serde_json::to_vec(&kept).context("cannot render credentials")?;
    match ask(files, name, "store", &text)? {
        Ok(_) => Ok(()),
        Err(why) => bail!("{} does not keep them: {}", program_name(name), why.escape_debug()),
    }
}

/// Has a helper forget the credentials of a registry. False if it has none.
pub(crate) fn erase(files: &AuthFiles, name: &str, key: &str) -> Result<bool> {
    if find(files, name, key)?.is_none() {
        return Ok(false);
    }
    match ask(files, name, "erase", key.as_bytes())? {
        Ok(_) => Ok(true),
        Err(why) => bail!("{} does not forget them: {}", program_name(name), why.escape_debug()),
    }
}

/// A helper that works here, though no file names it.
pub(crate) fn usual(files: &AuthFiles) -> Option<&'static str> {
    USUAL.into_iter().find(|name| {
        program(files, name).is_ok_and(|program| program.is_some())
            && ask(files, name, "list", b"").is_ok_and(|answer| answer.is_ok())
    })
}

fn program_name(name: &str) -> String {
    format!("docker-credential-{}", name.escape_debug())
}

fn program(files: &AuthFiles, name: &str) -> Result<Option<PathBuf>> {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        bail!("`{}` is no name of a helper", name.escape_debug());
    }
    let path = files.helpers.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let mut places = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    Ok(places.find_map(|directory| {
        let program = directory.join(format!("docker-credential-{name}"));
        program.is_file().then_some(program)
    }))
}

/// Runs a helper: its answer, or why it gave none.
fn ask(files: &AuthFiles, name: &str, action: &str, input: &[u8]) -> Result<Result<Vec<u8>, String>> {
    let program = program(files, name)?.with_context(|| format!("there is no {}", program_name(name)))?;
    let cannot = || format!("cannot run {}", program.display());
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why it fails.
        stdin.write_all(input).ok();
    }
    let stdout = child.stdout.take().with_context(cannot)?;
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        stdout.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).map(|_| answer)
    });
    let is_good = wait(&mut child).with_context(cannot)?;
    let answer = reader.join().ok().and_then(Result::ok).with_context(cannot)?;
    if is_good {
        return Ok(Ok(answer));
    }
    let why = String::from_utf8_lossy(&answer);
    Ok(Err(why.trim().chars().take(200).collect()))
}

fn wait(child: &mut Child) -> Result<bool> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > ANSWER_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("it took longer than {} seconds", ANSWER_LIMIT.as_secs());
        }
        std::thread::sleep(POLL);
    }
}
