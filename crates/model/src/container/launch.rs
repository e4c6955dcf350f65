//! What is launched: a container's wishes with those of its image merged in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Container, Health, HealthCommand, HealthTest, Limits, LogLimits, Mode, Mount, NetworkMode, Pace, Restart,
    Rights, STOP_GRACE_MS, Signal, SignalError,
};
use crate::image::{ImageConfig, ImageHealth};
use crate::name::Name;

/// A health test with every choice made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Between tests.
    pub interval_ms: u64,
    /// For one test.
    pub timeout_ms: u64,
    /// After the start, when failures do not count.
    pub start_period_ms: u64,
    /// Between tests within the start period.
    pub start_interval_ms: u64,
    /// How many failures in a row mean that it is not well.
    pub retries: u32,
}

/// What is launched: every choice made, but what only the root file system can tell (the numbers of users).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// The environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Where the program starts.
    pub cwd: String,
    /// As whom: `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// More groups, names or numbers.
    pub groups: BTreeSet<String>,
    /// In whose network the container is.
    #[serde(default, skip_serializing_if = "NetworkMode::is_own")]
    pub network: NetworkMode,
    /// What the container calls itself.
    pub hostname: String,
    /// What runs as its first process.
    pub mode: Mode,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// Whether a small process of ours is its first one.
    pub init: bool,
    /// What is mounted, by its place. The image's volumes that nothing is mounted on are in `own_volumes`.
    pub mounts: BTreeMap<String, Mount>,
    /// Directories that go with the machine: the image's volumes, and more.
    pub own_volumes: BTreeSet<String>,
    /// How much of the computer it may use.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// What it is told to end.
    pub stop_signal: Signal,
    /// How long it may then take.
    pub stop_grace_ms: u64,
    /// Whether it is started again when it ended.
    pub restart: Restart,
    /// How fast that is.
    #[serde(default)]
    pub pace: Pace,
    /// How much is kept of what it writes.
    #[serde(default)]
    pub log: LogLimits,
    /// How to see that it is well, if at all.
    pub health: Option<HealthCheck>,
}

/// Why nothing can be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// Neither the image nor anybody else says what to run.
    NothingToRun,
    /// The image's stop signal is none.
    StopSignal(SignalError),
    /// The image wants a volume where none can be.
    Volume(String),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToRun => f.write_str("the image has no command, and none was given"),
            Self::StopSignal(_) => f.write_str("the image's stop signal is none"),
            Self::Volume(path) => {
                write!(
                    f,
                    "the image has its root as a volume (`{}`), and nothing can be mounted over that",
                    path.escape_debug()
                )
            }
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NothingToRun | Self::Volume(_) => None,
            Self::StopSignal(error) => Some(error),
        }
    }
}

/// A volume's place, as an image writes it, without what means nothing there.
fn place(path: &str) -> Result<String, LaunchError> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    if parts.is_empty() {
        Err(LaunchError::Volume(path.to_owned()))
    } else {
        Ok(format!("/{}", parts.join("/")))
    }
}

/// The search path of programs where an image names none, as Docker has it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a system's init is looked for by convention; the first program of a system container.
const SYSTEM_INIT: &str = "/sbin/init";

impl Container {
    /// What is launched of this container, with the wishes of its image.
    pub fn launch(&self, name: &Name, image: &ImageConfig) -> Result<Launch, LaunchError> {
        let hostname = self.hostname.clone().unwrap_or_else(|| name.to_string());
        let own_volumes = image.volumes.keys().filter(|path| path.starts_with('/'));
        let mut own_volumes = own_volumes.map(|path| place(path)).collect::<Result<BTreeSet<_>, _>>()?;
        own_volumes.extend(self.own_volumes.iter().cloned());
        own_volumes.retain(|path| !self.mounts.contains_key(path));
        let image_stop = match image.stop_signal.as_str() {
            "" => None,
            text => Some(text.parse().map_err(LaunchError::StopSignal)?),
        };
        let usual_stop = match self.mode {
            Mode::Application => Signal::TERM,
            Mode::System => Signal::HALT,
        };
        Ok(Launch {
            args: self.args(image)?,
            env: self.env(&hostname, image),
            cwd: first_of([self.workdir.as_deref(), Some(&image.working_dir), Some("/")]),
            user: first_of([self.user.as_deref(), Some(&image.user)]),
            groups: self.groups.clone(),
            network: self.network.clone(),
            hostname,
            mode: self.mode,
            tty: self.has_terminal(),
            stdin: self.stdin,
            init: self.init && self.mode == Mode::Application,
            mounts: self.mounts.clone(),
            own_volumes,
            limits: self.limits.clone(),
            rights: self.rights.clone(),
            stop_signal: self.stop.signal.or(image_stop).unwrap_or(usual_stop),
            stop_grace_ms: self.stop.grace_ms.unwrap_or(STOP_GRACE_MS),
            restart: self.restart,
            pace: self.pace,
            log: self.log,
            health: health_check(&self.health, &image.healthcheck.clone().unwrap_or_default()),
        })
    }

    fn args(&self, image: &ImageConfig) -> Result<Vec<String>, LaunchError> {
        let entrypoint = self.entrypoint.as_ref().unwrap_or(&image.entrypoint);
        let command = match (&self.command, &self.entrypoint) {
            (Some(command), _) => command.as_slice(),
            (None, Some(_)) => &[],
            (None, None) => &image.cmd,
        };
        let args: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
        match (args.is_empty(), self.mode) {
            (false, _) if self.mode == Mode::Application || self.is_told() => Ok(args),
            (_, Mode::System) => Ok(vec![SYSTEM_INIT.to_owned()]),
            (_, Mode::Application) => Err(LaunchError::NothingToRun),
        }
    }

    /// A system has a console, on which its init says what it does and people log in.
    fn has_terminal(&self) -> bool {
        self.tty || self.mode == Mode::System
    }

    /// Whether what to run was said by somebody else than the image.
    fn is_told(&self) -> bool {
        self.entrypoint.is_some() || self.command.is_some()
    }

    fn env(&self, hostname: &str, image: &ImageConfig) -> Vec<String> {
        let split =
            |text: &String| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut env =
            vec![("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOSTNAME".to_owned(), hostname.to_owned())];
        if self.has_terminal() {
            env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        if self.mode == Mode::System {
            // What systemd looks for to know that it is in a container.
            env.push(("container".to_owned(), "stead".to_owned()));
        }
        let given = self.environment.iter().map(|(key, value)| (key.clone(), value.clone()));
        for (key, value) in image.env.iter().filter_map(split).chain(given) {
            match env.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => env.push((key, value)),
            }
        }
        env.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// How to see that a machine is well: as was said, else as its image says.
pub(crate) fn health_check(health: &Health, theirs: &ImageHealth) -> Option<HealthCheck> {
    let own = match health {
        Health::Off => return None,
        Health::Image => HealthTest::default(),
        Health::Test(test) => test.clone(),
    };
    let shell = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    let args = match (&own.command, theirs.test.split_first()) {
        (Some(HealthCommand::Program(args)), _) => args.clone(),
        (Some(HealthCommand::Shell(line)), _) => shell(line),
        (None, Some((word, args))) if word == "CMD" => args.to_vec(),
        (None, Some((word, args))) if word == "CMD-SHELL" => shell(&args.join(" ")),
        (None, Some(_) | None) => return None,
    };
    let ms = |own: Option<u64>, theirs_ns: u64, usual: u64| {
        own.or(Some(theirs_ns / 1_000_000).filter(|ms| *ms > 0)).unwrap_or(usual)
    };
    Some(HealthCheck {
        args,
        interval_ms: ms(own.interval_ms, theirs.interval, 30_000),
        timeout_ms: ms(own.timeout_ms, theirs.timeout, 30_000),
        start_period_ms: ms(own.start_period_ms, theirs.start_period, 0),
        start_interval_ms: ms(own.start_interval_ms, theirs.start_interval, 5_000),
        retries: own.retries.or(Some(theirs.retries).filter(|n| *n > 0)).unwrap_or(3),
    })
    .filter(|check| !check.args.is_empty())
}

fn first_of<const N: usize>(texts: [Option<&str>; N]) -> String {
    texts.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::Access;
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[track_caller]
    fn check_args(entrypoint: Option<&str>, command: Option<&str>, image: (&str, &str), expected: &str) {
        let mut container = Container::new("web".parse().unwrap());
        container.entrypoint = entrypoint.map(words);
        container.command = command.map(words);
        let image = ImageConfig { entrypoint: words(image.0), cmd: words(image.1), ..ImageConfig::default() };
        let launch = container.launch(&"web".parse().unwrap(), &image);
        assert_eq!(launch.map_or_else(|error| error.to_string(), |launch| launch.args.join(" ")), expected);
    }

    #[test]
    fn command_and_entrypoint_replace_the_images_as_in_docker() {
        check_args(None, None, ("", "sh"), "sh");
        check_args(None, None, ("/entry", "a b"), "/entry a b");
        check_args(None, Some("c"), ("/entry", "a b"), "/entry c");
        check_args(Some("/mine"), None, ("/entry", "a b"), "/mine");
        check_args(Some("/mine"), Some("c"), ("/entry", "a b"), "/mine c");
        check_args(Some(""), Some("c"), ("/entry", "a"), "c");
        check_args(None, None, ("", ""), "the image has no command, and none was given");
        check_args(Some(""), None, ("/entry", "a"), "the image has no command, and none was given");
    }

    #[test]
    fn the_environment_is_ours_then_the_images_then_the_given_one() {
        let mut container = Container::new("web".parse().unwrap());
        container.environment = [("A".into(), "2".into()), ("C".into(), String::new())].into();
        let image = ImageConfig {
            env: vec!["A=1".into(), "B=x=y".into(), "PATH=/bin".into()],
            cmd: words("sh"),
            ..ImageConfig::default()
        };
        let launch = container.launch(&"web".parse().unwrap(), &image).unwrap();
        assert_eq!(launch.env, ["PATH=/bin", "HOSTNAME=web", "A=2", "B=x=y", "C="]);
        assert_eq!((launch.cwd.as_str(), launch.user.as_str()), ("/", ""));
    }

    #[test]
    fn a_system_container_runs_init_and_is_halted() {
        let mut container = Container::new("debian:12".parse().unwrap());
        container.mode = Mode::System;
        let image = ImageConfig { cmd: words("bash"), ..ImageConfig::default() };
        let launch = container.launch(&"dev".parse().unwrap(), &image).unwrap();
        assert_eq!((launch.args.join(" "), launch.stop_signal), ("/sbin/init".to_owned(), Signal::HALT));
        assert!(launch.tty && launch.env.contains(&"TERM=xterm".to_owned()));
        container.command = Some(words("/usr/sbin/init --x"));
        assert_eq!(
            container.launch(&"dev".parse().unwrap(), &image).unwrap().args,
            ["/usr/sbin/init", "--x"]
        );
    }

    #[test]
    fn volumes_of_the_image_are_the_machines_own_unless_something_is_mounted_there() {
        let mut container = Container::new("web".parse().unwrap());
        let name = "data".parse().unwrap();
        container.mounts =
            [("/data".into(), Mount::Volume { name, external: None, access: Access::Write, nocopy: false })]
                .into();
        let volumes = ["/data/", "/cache"].map(|path| (path.to_owned(), serde_json::json!({}))).into();
        let image = ImageConfig { cmd: words("sh"), volumes, ..ImageConfig::default() };
        let launch = container.launch(&"web".parse().unwrap(), &image).unwrap();
        assert_eq!(launch.own_volumes, ["/cache".to_owned()].into());
        container.own_volumes = ["/own".to_owned(), "/data".to_owned()].into();
        let launch = container.launch(&"web".parse().unwrap(), &image).unwrap();
        assert_eq!(launch.own_volumes, ["/cache".to_owned(), "/own".to_owned()].into());
    }

    #[test]
    fn health_is_the_given_one_over_the_images() {
        let mut container = Container::new("web".parse().unwrap());
        let theirs = crate::image::ImageHealth {
            test: words("CMD-SHELL wget -q x"),
            interval: 2_000_000_000,
            retries: 5,
            ..crate::image::ImageHealth::default()
        };
        let image = ImageConfig { cmd: words("sh"), healthcheck: Some(theirs), ..ImageConfig::default() };
        let name: Name = "web".parse().unwrap();
        let check = container.launch(&name, &image).unwrap().health.unwrap();
        assert_eq!(check.args, ["/bin/sh", "-c", "wget -q x"]);
        assert_eq!((check.interval_ms, check.timeout_ms, check.retries), (2000, 30_000, 5));
        let own = HealthTest { retries: Some(1), ..HealthTest::default() };
        container.health = Health::Test(own);
        assert_eq!(container.launch(&name, &image).unwrap().health.unwrap().retries, 1);
        container.health = Health::Off;
        assert_eq!(container.launch(&name, &image).unwrap().health, None);
    }

    #[test]
    fn volumes_of_an_image_are_places_below_its_root() {
        let volumes = |path: &str| {
            let image = ImageConfig {
                cmd: words("sh"),
                volumes: [(path.to_owned(), Default::default())].into(),
                ..ImageConfig::default()
            };
            let launch = Container::new("web".parse().unwrap()).launch(&"web".parse().unwrap(), &image);
            launch.map(|launch| launch.own_volumes.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(volumes("/data/").unwrap(), ["/data"]);
        assert_eq!(volumes("/a/../../b/./c").unwrap(), ["/b/c"]);
        for root in ["/", "/..", "/a/.."] {
            assert_eq!(volumes(root), Err(LaunchError::Volume(root.to_owned())));
        }
    }
}
