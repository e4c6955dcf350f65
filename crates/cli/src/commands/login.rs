//! `login` and `logout`.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;

use stead_image::registry::{Kept, Secret};

use super::image::Sources;
use crate::args::{LoginArgs, LogoutArgs};
use crate::failure::Failure;
use crate::output::Output;

/// No password is longer; tokens of registries have some kilobytes.
const PASSWORD_MAX_BYTES: u64 = 64 * 1024;

/// Where somebody is known from now on.
#[derive(Serialize)]
struct Known<'a> {
    registry: &'a str,
    username: &'a str,
    helper: Option<String>,
    file: Option<std::path::PathBuf>,
}

/// Tries a name and a password, and keeps them.
pub(crate) fn login(args: &LoginArgs, output: Output) -> Result<(), Failure> {
    let is_terminal = std::io::stdin().is_terminal();
    if !args.password_stdin && !is_terminal {
        let what = "standard input is no terminal, so nobody can be asked for the password";
        return Err(Failure::request(what, "say `--username` and `--password-stdin`"));
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("name: ", Echo::On)?,
    };
    let password = if args.password_stdin { all_of_stdin()? } else { ask("password: ", Echo::Off)? };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::request("a login needs a name and a password", "say both"));
    }
    let kept = Sources::load()?.client.login(&args.registry, &username, &Secret(password))?;
    let (helper, file) = match kept {
        Kept::Helper(helper) => (Some(helper), None),
        Kept::File(file) => (None, Some(file)),
    };
    let known = Known { registry: &args.registry, username: &username, helper, file };
    let text = || {
        let place = match (&known.helper, &known.file) {
            (Some(helper), _) => format!("docker-credential-{helper}"),
            (None, file) => file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
        };
        format!("{username} at {}, kept in {place}\n", args.registry)
    };
    output.data(&known, text).map_err(Failure::from)
}

/// Forgets a name and a password.
pub(crate) fn logout(args: &LogoutArgs, output: Output) -> Result<(), Failure> {
    if !Sources::load()?.client.logout(&args.registry)? {
        let what = format!("nobody is logged in at {}", args.registry);
        return Err(Failure::request(&what, "`stead login` says where it keeps what"));
    }
    output.data(&[&args.registry], || format!("{}\n", args.registry)).map_err(Failure::from)
}

/// Whether what is typed is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

/// Asks the person at the terminal.
fn ask(question: &str, echo: Echo) -> Result<String> {
    let mut stderr = std::io::stderr().lock();
    // Before anything is asked, for whoever answers at once.
    let hidden = if echo == Echo::Off { Some(Hidden::new()?) } else { None };
    write!(stderr, "{question}").and_then(|()| stderr.flush()).context("cannot ask")?;
    if echo == Echo::On {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("cannot read the answer")?;
        return Ok(line.trim().to_owned());
    }
    let typed = typed_line(std::io::stdin().lock());
    drop(hidden);
    writeln!(stderr).context("cannot ask")?;
    typed
}

/// A terminal that shows nothing of what is typed, until this is dropped. Keys that end programs are read like
/// others: who ended us there would leave the terminal so.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn new() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).context("cannot look at the terminal")?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &hidden).context("cannot set the terminal")?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _gone = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

/// A line as keys give it.
fn typed_line(keys: impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    for key in keys.take(PASSWORD_MAX_BYTES).bytes() {
        match key.context("cannot read the answer")? {
            b'\n' | b'\r' => break,
            // Ctrl-C, and Ctrl-D on an empty line.
            0x03 => bail!("given up"),
            0x04 if line.is_empty() => bail!("given up"),
            // Ctrl-U.
            0x15 => line.clear(),
            0x08 | 0x7f => drop(line.pop()),
            key if key.is_ascii_control() => {}
            key => line.push(key),
        }
    }
    String::from_utf8(line).ok().context("the password is not UTF-8 text")
}

/// What standard input holds, without the end of its line.
fn all_of_stdin() -> Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(PASSWORD_MAX_BYTES).read_to_string(&mut text);
    read.context("cannot read the password")?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_line_is_typed_as_people_type() {
        for (keys, line) in [
            ("secret\n", Some("secret")),
            ("sx\x7fecret\rmore", Some("secret")),
            ("wrong\x15right\n", Some("right")),
            ("a\x1bb\x04c\n", Some("abc")),
            ("\x7f\n", Some("")),
            ("abc\x03", None),
            ("\x04", None),
        ] {
            assert_eq!(typed_line(keys.as_bytes()).ok().as_deref(), line, "{keys:?}");
        }
    }
}
