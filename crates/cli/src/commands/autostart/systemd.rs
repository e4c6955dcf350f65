//! `autostart enable` and `disable`: the unit written and taken away, and systemd told of it, by `systemctl`: it knows of all
//! that enabling means.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use stead_host::autostart::{quiet_mark, unit_name};
use stead_host::home::{Environment, Home, remove_if_there, write_whole};
use stead_net::process::ProcessId;

use super::unit::{Unit, is_ours};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::session::home;

/// systemd is done within a second: the unit only begins or ends, and what it has to read again takes some hundred milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The unit of this home, and where it is.
pub(super) struct Place {
    pub(super) home: Home,
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) unit: Unit,
    /// Where the user's systemd listens, of those that have one of their own.
    runtime: Option<PathBuf>,
}

/// What is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// What we wrote.
    Written,
    /// What somebody changed or wrote.
    Changed,
}

/// What has become of it.
#[derive(Serialize)]
struct Told<'a> {
    unit: &'a Path,
    enabled: bool,
}

impl Place {
    /// Where this home's is.
    pub(super) fn new() -> Result<Self> {
        let environment = Environment::observe();
        let home = home()?;
        let is_systems = environment.uid == 0;
        let name = unit_name(&environment, &home);
        let directory = if is_systems { "/etc/systemd/system".into() } else { users_units(&environment)? };
        let program = std::env::current_exe().and_then(fs::canonicalize);
        let program = program.context("cannot find this program's own file")?;
        let variables = match (&environment.stead_home, environment.data_home.filter(|_| !is_systems)) {
            (Some(_), _) => {
                let around = home.state.parent().context("STEAD_HOME is no directory")?;
                vec![("STEAD_HOME", around.to_owned())]
            }
            (None, data) => data.map(|data| ("XDG_DATA_HOME", data)).into_iter().collect(),
        };
        let unit = Unit { is_systems, program, variables, state: home.state.clone() };
        let runtime = (!is_systems).then(|| users_runtime(environment.uid)).flatten();
        Ok(Self { path: directory.join(&name), home, name, unit, runtime })
    }

    /// What is there now.
    pub(super) fn found(&self) -> Result<Found> {
        match fs::read_to_string(&self.path) {
            Ok(text) if is_ours(&text) => Ok(Found::Written),
            Ok(_) => Ok(Found::Changed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Absent),
            // No text is none of ours.
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Found::Changed),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    /// Whether it is what would be written now.
    pub(super) fn is_current(&self) -> bool {
        let there = fs::read_to_string(&self.path).ok();
        there.is_some() && there == self.unit.text().ok()
    }

    /// Whether systemd starts it.
    pub(super) fn is_enabled(&self) -> bool {
        let wants = self.path.with_file_name(format!("{}.wants", self.unit.target()));
        wants.join(&self.name).symlink_metadata().is_ok()
    }

    /// Refuses where there is no systemd that could be told.
    fn check(&self) -> Result<(), Failure> {
        let own = "let your own init run `stead autostart start` when the computer starts, and `stead autostart stop` before it \
                   goes off";
        if !has_systemd() {
            return Err(anyhow!("systemd does not run this computer; hint: {own}").into());
        }
        if !self.unit.is_systems && self.runtime.is_none() {
            let how = "log in by ssh, on a console or a desktop (`su` and `sudo` do not begin it), or have root call `loginctl enable-linger` \
                       for this user";
            return Err(anyhow!("no systemd of this user's runs; hint: {how}").into());
        }
        Ok(())
    }

    /// Refuses what somebody else wrote.
    fn check_ours(&self) -> Result<Found, Failure> {
        let found = self.found()?;
        if found == Found::Changed {
            let what = format!("{} was changed since stead wrote it, or is not stead's", self.path.display());
            let hint = format!(
                "it stays as it is; move it away first, or use it by `systemctl{}`",
                if self.unit.is_systems { "" } else { " --user" }
            );
            return Err(Failure::request(&what, &hint));
        }
        Ok(found)
    }

    /// Has systemd do something.
    fn systemctl(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("systemctl");
        if let Some(runtime) = &self.runtime {
            command.arg("--user").env("XDG_RUNTIME_DIR", runtime);
        }
        command.args(words);
        run(command).with_context(|| format!("`systemctl {}` failed", words.join(" ")))
    }

    /// The same, without any machine being started or ended by the unit.
    fn quietly(&self, word: &str) -> Result<()> {
        self.home.prepare()?;
        let mark = quiet_mark(&self.home);
        ProcessId::own()?.store(&mark)?;
        let done = self.systemctl(&[word, &self.name]);
        done.and(remove_if_there(&mark))
    }
}

/// `enable`.
pub(super) fn enable(output: Output) -> Result<(), Failure> {
    let place = Place::new()?;
    place.check()?;
    place.check_ours()?;
    let text = place.unit.text()?;
    if fs::read_to_string(&place.path).ok().as_ref() != Some(&text) {
        write(&place.path, &text)?;
    }
    place.systemctl(&["daemon-reload"])?;
    place.systemctl(&["enable", "--quiet", &place.name])?;
    // Only what is active is told when the computer goes off.
    place.quietly("start")?;
    if !place.unit.is_systems && stead_container::lingers() == Some(false) {
        note(
            "machines start when you log in first, and end when you have logged out last; `loginctl enable-linger` has \
             them run without that",
        );
    }
    told(&place, true, output)
}

/// `disable`.
pub(super) fn disable(output: Output) -> Result<(), Failure> {
    let place = Place::new()?;
    if place.check_ours()? == Found::Written {
        take_away(&place)?;
    }
    told(&place, false, output)
}

fn told(place: &Place, enabled: bool, output: Output) -> Result<(), Failure> {
    let text = || match enabled {
        true => format!("{}: enabled\n", place.path.display()),
        false => "machines are not started with this computer\n".to_owned(),
    };
    output.data(&Told { unit: &place.path, enabled }, text).map_err(Failure::from)
}

/// Takes the unit of this home away, if there is one of ours: with the home it goes, too.
pub(in crate::commands) fn forget() -> Result<()> {
    // Whoever is nowhere at home has no unit either.
    let Ok(place) = Place::new() else { return Ok(()) };
    if place.found()? == Found::Written { take_away(&place) } else { Ok(()) }
}

fn take_away(place: &Place) -> Result<()> {
    // Without a systemd that runs it is a file with a link to it.
    let is_told = has_systemd() && (place.unit.is_systems || place.runtime.is_some());
    if is_told {
        place.quietly("stop")?;
        place.systemctl(&["disable", "--quiet", &place.name])?;
    } else {
        let wants = place.path.with_file_name(format!("{}.wants", place.unit.target()));
        remove_if_there(&wants.join(&place.name))?;
    }
    remove_if_there(&place.path)?;
    if is_told { place.systemctl(&["daemon-reload"]) } else { Ok(()) }
}

/// Whether systemd is this computer's init (sd_booted(3)).
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn users_units(environment: &Environment) -> Result<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| environment.home.as_ref().map(|home| home.join(".config")));
    Ok(config.context("nobody knows where you are at home; hint: set HOME")?.join("systemd/user"))
}

/// Where the user's systemd listens. Whoever comes by `su` has another one's directory, or none.
fn users_runtime(uid: u32) -> Option<PathBuf> {
    let said = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = said.into_iter().chain([Path::new("/run/user").join(uid.to_string())]);
    places.into_iter().find(|place| place.join("systemd/private").exists())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("cannot write {}", path.display());
    fs::create_dir_all(path.parent().with_context(doing)?).with_context(doing)?;
    write_whole(path, text.as_bytes())?;
    // As units are: systemd says so where one is not to be read by all.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).with_context(doing)
}

/// Runs a program that says little, and waits for it.
fn run(mut command: Command) -> Result<()> {
    let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = streams.spawn().context("it cannot be run")?;
    let process = ProcessId::observe(child.id())?;
    if !process.map_or(Ok(true), |process| process.wait_gone(LIMIT))? {
        // It may have ended just now.
        let _gone = child.kill();
        let _gone = child.wait();
        bail!("it takes longer than {} s", LIMIT.as_secs());
    }
    let status = child.wait().context("it cannot be waited for")?;
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut words).context("it cannot be heard")?;
    }
    let words = words.trim();
    if words.is_empty() { bail!("it ended with {status}") } else { bail!("{words}") }
}
