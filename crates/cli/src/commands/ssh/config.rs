//! The settings of `ssh` for all machines of a home, and the one line by which a person's own settings include them.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use stead_host::home::{Environment, Home, write_whole};

use super::keys::SETTINGS;
use crate::failure::Failure;

/// The kernel follows no more than these.
const LINKS_MAX: usize = 40;

/// By what `ssh` reaches machines.
pub(super) struct Reach {
    /// This program.
    pub(super) program: PathBuf,
    /// What of the environment says where the home is. `ssh` may be run from another one: by a desktop, by cron.
    pub(super) variables: Vec<(&'static str, PathBuf)>,
    /// The key by which machines know the person.
    pub(super) identity: PathBuf,
    /// The keys by which the person knows machines.
    pub(super) known_hosts: PathBuf,
}

impl Reach {
    /// Names and values. Pure.
    pub(super) fn settings(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("ProxyCommand", self.proxy()?),
            ("IdentityFile", quoted(&self.identity)?),
            ("IdentitiesOnly", "yes".to_owned()),
            ("UserKnownHostsFile", quoted(&self.known_hosts)?),
            ("GlobalKnownHostsFile", "/dev/null".to_owned()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("UpdateHostKeys", "no".to_owned()),
        ])
    }

    /// The same as a block of a file. Pure.
    pub(super) fn block(&self) -> Result<String> {
        let lines: String =
            self.settings()?.into_iter().map(|(name, value)| format!("    {name} {value}\n")).collect();
        Ok(format!("# Machines of stead: `ssh <user>@<machine>.<project>.stead`.\nHost *.stead\n{lines}"))
    }

    /// A line for the person's shell, in which `ssh` replaces `%h` and `%r`.
    fn proxy(&self) -> Result<String> {
        let word =
            |path: &Path| -> Result<String> { Ok(text(path)?.replace('\'', r"'\''").replace('%', "%%")) };
        let program = format!("'{}' __ssh-proxy '%h' '%r'", word(&self.program)?);
        let mut words = vec!["env".to_owned()];
        for (name, value) in &self.variables {
            words.push(format!("'{name}={}'", word(value)?));
        }
        words.push(program);
        Ok(words.join(" "))
    }
}

/// What of the environment leads to this home and no other, whatever else is in it: empty is as good as absent. Pure.
pub(super) fn variables(environment: &Environment, home: &Home) -> Vec<(&'static str, PathBuf)> {
    let around = home.state.parent().map(Path::to_owned).unwrap_or_default();
    let runtime = environment.runtime_dir.clone().unwrap_or_default();
    match environment {
        Environment { stead_home: Some(_), .. } => vec![("STEAD_HOME", around)],
        Environment { uid: 0, .. } => vec![("STEAD_HOME", PathBuf::new())],
        _ => vec![("STEAD_HOME", PathBuf::new()), ("XDG_DATA_HOME", around), ("XDG_RUNTIME_DIR", runtime)],
    }
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\\', '$', '\n']));
    text.with_context(|| format!("`ssh` cannot be told of the path {}", path.display()))
}

/// A path as a value: `ssh` replaces words that begin with a percent sign in it.
fn quoted(path: &Path) -> Result<String> {
    Ok(format!("\"{}\"", text(path)?.replace('%', "%%")))
}

/// Writes the settings, and has the person's own include them.
pub(super) fn install(settings: &Path, block: &str) -> Result<(), Failure> {
    let own = own_settings()?;
    let before = load(&own)?;
    if let Some(other) = before.lines().filter_map(included).find(|path| Path::new(path) != settings) {
        let what = format!("{} includes the machines of another home, {other}", own.display());
        return Err(Failure::request(&what, "`stead ssh-config --remove` there, or take the line out"));
    }
    write_whole(settings, block.as_bytes())?;
    if before.lines().any(|line| included(line).is_some()) {
        return Ok(());
    }
    // First, as what comes after a `Host` would be of that alone.
    Ok(store(&own, &format!("{}\n{before}", line(settings)?))?)
}

/// Takes the line out of the person's settings, if it is there, and the settings that it includes.
pub(crate) fn forget(home: &Home) -> Result<()> {
    let settings = home.ssh().join(SETTINGS);
    // They are written before the line and go after it: without them there is no line of ours.
    if !settings.exists() {
        return Ok(());
    }
    let own = own_settings()?;
    let before = load(&own)?;
    let is_ours = |line: &&str| included(line).is_some_and(|path| Path::new(&path) == settings);
    if before.lines().any(|line| is_ours(&line)) {
        let after: String = before.split_inclusive('\n').filter(|line| !is_ours(&line.trim_end())).collect();
        store(&own, &after)?;
    }
    match fs::remove_file(&settings) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", settings.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn line(settings: &Path) -> Result<String> {
    Ok(format!("Include {}", quoted(settings)?))
}

/// What a line of ours includes, of whichever home.
fn included(line: &str) -> Option<String> {
    let path = line.trim().strip_prefix("Include \"")?.strip_suffix('"')?.replace("%%", "%");
    (Path::new(&path).file_name()? == SETTINGS).then_some(path)
}

/// The person's settings of `ssh`, which goes by the home of the account and not by `HOME`.
fn own_settings() -> Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home =
        home_of(&accounts, uid).map(PathBuf::from).or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    Ok(home.context("nobody knows where you are at home; hint: set HOME")?.join(".ssh/config"))
}

/// Where links lead to, be it there or not: a file that takes the place of a link would be none of those that the person
/// keeps elsewhere.
fn behind_links(path: &Path) -> Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(to) = fs::read_link(&place) else {
            let is_lost = place != path && !place.parent().is_some_and(Path::is_dir);
            anyhow::ensure!(
                !is_lost,
                "{} is a link to {}, whose directory is not there; hint: make that, or remove the link",
                path.display(),
                place.display()
            );
            return Ok(place);
        };
        place = place.parent().map(|directory| directory.join(&to)).unwrap_or(to);
    }
    bail!("{} is a link that leads nowhere; hint: remove it", path.display())
}

fn home_of(accounts: &str, uid: u32) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2)).flatten().filter(|home| !home.is_empty())
    })
}

fn load(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the person's settings whole or not at all, for whom they were for.
fn store(path: &Path, text: &str) -> Result<()> {
    let path = &behind_links(path)?;
    let doing = || format!("cannot write {}", path.display());
    let Some(directory) = path.parent() else { bail!("{}", doing()) };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(doing)?;
    let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    let temporary = directory.join(format!(".stead-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // It may not have been made.
        let _absent = fs::remove_file(&temporary);
    }
    written.with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn reach(home: &str, state: &str) -> Reach {
        Reach {
            program: "/usr/bin/stead".into(),
            variables: vec![("STEAD_HOME", home.into())],
            identity: Path::new(state).join("identity"),
            known_hosts: Path::new(state).join("known_hosts"),
        }
    }

    #[test]
    fn all_machines_of_a_home_are_one_block() {
        expect![[r#"
            # Machines of stead: `ssh <user>@<machine>.<project>.stead`.
            Host *.stead
                ProxyCommand env 'STEAD_HOME=' '/usr/bin/stead' __ssh-proxy '%h' '%r'
                IdentityFile "/home/joe/.local/share/stead/ssh/identity"
                IdentitiesOnly yes
                UserKnownHostsFile "/home/joe/.local/share/stead/ssh/known_hosts"
                GlobalKnownHostsFile /dev/null
                StrictHostKeyChecking yes
                UpdateHostKeys no
        "#]]
        .assert_eq(&reach("", "/home/joe/.local/share/stead/ssh").block().unwrap());
        let odd = reach("/it's 50%", "/it's 50%/state/ssh");
        assert_eq!(
            odd.proxy().unwrap(),
            r"env 'STEAD_HOME=/it'\''s 50%%' '/usr/bin/stead' __ssh-proxy '%h' '%r'"
        );
        assert_eq!(quoted(&odd.identity).unwrap(), "\"/it's 50%%/state/ssh/identity\"");
        assert!(reach("", "/a\"b").block().is_err());
    }

    #[test]
    fn the_home_is_the_one_of_who_wrote_the_settings() {
        let told = |environment: Environment| {
            let home = Home::new(&environment).unwrap();
            let variables = variables(&environment, &home);
            // Whatever the one has who says `ssh`.
            let value = |name| {
                let told = variables.iter().find(|(other, _)| *other == name);
                let value = told.map_or_else(|| PathBuf::from("/other"), |(_, value)| value.clone());
                Some(value).filter(|value| !value.as_os_str().is_empty())
            };
            let there = Environment {
                stead_home: value("STEAD_HOME"),
                data_home: value("XDG_DATA_HOME"),
                runtime_dir: value("XDG_RUNTIME_DIR"),
                home: Some("/other".into()),
                uid: environment.uid,
            };
            assert_eq!(Home::new(&there).unwrap(), home, "{variables:?}");
        };
        let joe = Environment { home: Some("/home/joe".into()), uid: 1000, ..Environment::default() };
        told(Environment { stead_home: Some("/moved".into()), ..joe.clone() });
        told(Environment {
            data_home: Some("/data".into()),
            runtime_dir: Some("/run/user/1000".into()),
            ..joe.clone()
        });
        told(joe.clone());
        told(Environment { uid: 0, ..joe });
    }

    #[test]
    fn a_link_leads_to_the_settings_be_they_there_or_not() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        fs::create_dir(at("kept")).unwrap();
        link("kept/config", "config");
        store(&at("config"), "one\n").unwrap();
        assert_eq!(fs::read_to_string(at("kept/config")).unwrap(), "one\n");
        assert!(at("config").is_symlink());
        link("nosuch/config", "lost");
        let error = store(&at("lost"), "one\n").unwrap_err().to_string();
        assert!(error.contains("whose directory is not there; hint: ") && at("lost").is_symlink(), "{error}");
        link("loop", "loop");
        let error = store(&at("loop"), "one\n").unwrap_err().to_string();
        assert!(error.contains("leads nowhere; hint: "), "{error}");
    }

    #[test]
    fn only_a_line_of_ours_is_taken_for_one() {
        let settings = Path::new("/state/ssh").join(SETTINGS);
        let ours = line(&settings).unwrap();
        assert_eq!(included(&ours).as_deref(), settings.to_str());
        assert_eq!(included("Include ~/.ssh/work.conf"), None);
        assert_eq!(included("Include \"/etc/other.conf\""), None);
    }

    #[test]
    fn a_home_is_that_of_the_account() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000::/home/joe:\nodd:x:7:7::";
        assert_eq!(home_of(accounts, 1000), Some("/home/joe"));
        assert_eq!(home_of(accounts, 7), None);
        assert_eq!(home_of(accounts, 8), None);
    }
}
