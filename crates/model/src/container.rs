//! A container: what it is to be as the project file or the command line says ([`Container`]), and what is
//! launched once the wishes of its image are merged in ([`Launch`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::{ImageConfig, Platform, Reference};
use crate::name::Name;

/// What a container is to be. Everything absent is the image's to say, or has the default that is written here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The image.
    pub image: Reference,
    /// For which platform; this computer's where absent.
    pub platform: Option<Platform>,
    /// What runs as its first process.
    pub mode: Mode,
    /// Instead of the image's entrypoint; the image's command then does not count. An empty one: none at all.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    pub command: Option<Vec<String>>,
    /// More environment, which goes before the image's.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts.
    pub workdir: Option<String>,
    /// As whom: `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// More groups, names or numbers.
    pub groups: BTreeSet<String>,
    /// What it calls itself; the machine's name where absent.
    pub hostname: Option<String>,
    /// Labels, for people and programs to find it by.
    pub labels: BTreeMap<String, String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open for `attach`.
    pub stdin: bool,
    /// Whether a small process of ours is its first one, which passes signals on and buries the dead.
    pub init: bool,
    /// What is mounted, by its place in the container: an absolute path without `.` and `..`.
    pub mounts: BTreeMap<String, Mount>,
    /// Directories that go with the machine, by their places, besides those that the image names.
    pub own_volumes: BTreeSet<String>,
    /// Names that it finds without asking the network.
    pub hosts: BTreeMap<String, IpAddr>,
    /// Whom it asks for names instead of its network.
    pub dns: Vec<IpAddr>,
    /// Where it looks for short names, instead of in its network's domain.
    pub dns_search: Vec<String>,
    /// How much of the computer it may use.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// How it ends.
    pub stop: Stop,
    /// Whether it is started again when it ended.
    pub restart: Restart,
    /// How to see that it is well.
    pub health: Health,
}

/// What runs as the first process of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A program.
    #[default]
    Application,
    /// The system's own init, which starts services; machines can be run within.
    System,
}

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// A volume of the project.
    Volume {
        /// Its name.
        name: Name,
        /// Whether it can be written.
        access: Access,
    },
    /// A file or directory of this computer, by an absolute path.
    Bind {
        /// Where it is.
        source: PathBuf,
        /// Whether it can be written.
        access: Access,
        /// Whether mounts travel.
        propagation: Propagation,
        /// Whether a directory is made where the source is missing.
        create: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// The most that it holds; half of the memory where absent.
        size_bytes: Option<u64>,
        /// The mode of its root.
        mode: Option<u32>,
        /// Whether it can be written.
        access: Access,
    },
}

/// Whether something can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and written.
    #[default]
    Write,
    /// Only read, and this computer sees to that.
    Read,
}

/// Whether mounts made on one side appear on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// They do not.
    #[default]
    Private,
    /// This computer's appear in the container.
    Slave,
    /// Both ways.
    Shared,
}

/// How much of the computer a container may use; absent: as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors, in thousandths of one.
    pub cpus_milli: Option<u32>,
    /// Its part where there is not enough processor for all, 1024 being the usual one.
    pub cpu_shares: Option<u64>,
    /// The processors it may use, `0-2,4`.
    pub cpuset: Option<String>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory together with swap.
    pub memory_swap_bytes: Option<u64>,
    /// Memory that it should get by with where there is not enough.
    pub memory_reservation_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Its part of input and output, 10 to 1000.
    pub io_weight: Option<u16>,
    /// `/dev/shm`; 64 MiB where absent.
    pub shm_bytes: Option<u64>,
    /// Limits per process, by their names without `RLIMIT_`, in lower case.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// How gladly the kernel ends it when memory runs out, -1000 to 1000.
    pub oom_score: Option<i16>,
}

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What holds.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Capabilities that it has beyond the usual ones, `NET_ADMIN`; `ALL` means all.
    pub capabilities_add: BTreeSet<String>,
    /// Capabilities that are taken from it; `ALL` means all but those that are added.
    pub capabilities_drop: BTreeSet<String>,
    /// Whether it may do all that the user who runs it may: every device, capability and system call.
    pub privileged: bool,
    /// Whether programs in it may gain rights by set-user-id files.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// Devices of this computer.
    pub devices: Vec<Device>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Those of the usual profile, which go with its capabilities.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of a profile in Docker's form, by its absolute path.
    Profile(PathBuf),
}

/// A device of this computer in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is on this computer.
    pub source: PathBuf,
    /// Where it is in the container.
    pub target: String,
    /// What may be done with it: of `r`, `w` and `m`.
    pub access: String,
}

/// How a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What it is told; the image's own signal, or SIGTERM, where absent.
    pub signal: Option<Signal>,
    /// How long it may take before it is killed; 10 s where absent.
    pub grace_ms: Option<u64>,
}

/// How long a container may take to end before it is killed, where nothing is said.
pub const STOP_GRACE_MS: u64 = 10_000;

/// A signal, by its number on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(u8);

/// This text is not a [`Signal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalError(String);

/// The numbers of x86, arm and all others that Linux came to later.
const SIGNALS: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `SIGRTMIN` and `SIGRTMAX` as the C library counts them: it keeps two for itself.
const REAL_TIME: std::ops::RangeInclusive<u8> = 34..=64;

impl Signal {
    /// The one that asks to end.
    pub const TERM: Self = Self(15);
    /// The one that ends.
    pub const KILL: Self = Self(9);
    /// The one that tells systemd to end the system: `SIGRTMIN+3`.
    pub const HALT: Self = Self(37);

    /// Its number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let real_time = || {
            if let Some(rest) = name.strip_prefix("RTMIN") {
                let more: u8 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
                return REAL_TIME.start().checked_add(more);
            }
            let rest = name.strip_prefix("RTMAX")?;
            let less: u8 = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
            REAL_TIME.end().checked_sub(less)
        };
        let number = named.or_else(|| name.parse().ok()).or_else(real_time);
        let is_lawful = |number: &u8| (1..=31).contains(number) || REAL_TIME.contains(number);
        number.filter(is_lawful).map(Self).ok_or_else(|| SignalError(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0.saturating_sub(*REAL_TIME.start())),
        }
    }
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no signal, such as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`", self.0.escape_debug())
    }
}

impl std::error::Error for SignalError {}

impl TryFrom<String> for Signal {
    type Error = SignalError;

    fn try_from(text: String) -> Result<Self, SignalError> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

/// Whether a container is started again when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is not.
    #[default]
    No,
    /// When it failed; at most so many times, where that is said.
    OnFailure(Option<u32>),
    /// Whenever it ended without being told to; and when the computer starts, even if it was stopped before.
    Always,
    /// The same, but what was stopped stays so.
    UnlessStopped,
}

/// This text is not a [`Restart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartError(String);

impl FromStr for Restart {
    type Err = RestartError;

    fn from_str(text: &str) -> Result<Self, RestartError> {
        match text {
            "no" | "false" => Ok(Self::No),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            "on-failure" => Ok(Self::OnFailure(None)),
            _ => {
                let times = text.strip_prefix("on-failure:").and_then(|times| times.parse().ok());
                times.map(|times| Self::OnFailure(Some(times))).ok_or_else(|| RestartError(text.to_owned()))
            }
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(times)) => write!(f, "on-failure:{times}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl fmt::Display for RestartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not `no`, `on-failure`, `on-failure:<times>`, `always` or `unless-stopped`",
            self.0
        )
    }
}

impl std::error::Error for RestartError {}

/// How to see that a container is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As its image says.
    #[default]
    Image,
    /// Not at all.
    Off,
    /// So; what is absent is as the image says, or has its default.
    Test(HealthTest),
}

/// How to see that a container is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthTest {
    /// The program that is run in it; it is well if that ends with 0.
    pub command: Option<HealthCommand>,
    /// Between tests; 30 s.
    pub interval_ms: Option<u64>,
    /// For one test; 30 s.
    pub timeout_ms: Option<u64>,
    /// After the start, when failures do not count; 0.
    pub start_period_ms: Option<u64>,
    /// Between tests within the start period; 5 s.
    pub start_interval_ms: Option<u64>,
    /// How many failures in a row mean that it is not well; 3.
    pub retries: Option<u32>,
}

/// What is run to see that a container is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCommand {
    /// A program with its arguments.
    Program(Vec<String>),
    /// A line for its shell.
    Shell(String),
}

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
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToRun => f.write_str("the image has no command, and none was given"),
            Self::StopSignal(_) => f.write_str("the image's stop signal is none"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NothingToRun => None,
            Self::StopSignal(error) => Some(error),
        }
    }
}

/// The search path of programs where an image names none, as Docker has it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a system's init is looked for by convention; the first program of a system container.
const SYSTEM_INIT: &str = "/sbin/init";

impl Container {
    /// A container of this image that is all as the image says.
    pub fn new(image: Reference) -> Self {
        Self {
            image,
            platform: None,
            mode: Mode::default(),
            entrypoint: None,
            command: None,
            environment: BTreeMap::new(),
            workdir: None,
            user: None,
            groups: BTreeSet::new(),
            hostname: None,
            labels: BTreeMap::new(),
            tty: false,
            stdin: false,
            init: false,
            mounts: BTreeMap::new(),
            own_volumes: BTreeSet::new(),
            hosts: BTreeMap::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            limits: Limits::default(),
            rights: Rights::default(),
            stop: Stop::default(),
            restart: Restart::default(),
            health: Health::default(),
        }
    }

    /// What is launched of this container, with the wishes of its image.
    pub fn launch(&self, name: &Name, image: &ImageConfig) -> Result<Launch, LaunchError> {
        let hostname = self.hostname.clone().unwrap_or_else(|| name.to_string());
        let is_covered = |path: &str| self.mounts.contains_key(path.trim_end_matches('/'));
        let own_volumes = image.volumes.keys().chain(&self.own_volumes);
        let own_volumes = own_volumes.filter(|path| path.starts_with('/') && !is_covered(path));
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
            hostname,
            mode: self.mode,
            tty: self.tty,
            stdin: self.stdin,
            init: self.init && self.mode == Mode::Application,
            mounts: self.mounts.clone(),
            own_volumes: own_volumes.map(|path| path.trim_end_matches('/').to_owned()).collect(),
            limits: self.limits.clone(),
            rights: self.rights.clone(),
            stop_signal: self.stop.signal.or(image_stop).unwrap_or(usual_stop),
            stop_grace_ms: self.stop.grace_ms.unwrap_or(STOP_GRACE_MS),
            restart: self.restart,
            health: self.health_check(image),
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

    /// Whether what to run was said by somebody else than the image.
    fn is_told(&self) -> bool {
        self.entrypoint.is_some() || self.command.is_some()
    }

    fn env(&self, hostname: &str, image: &ImageConfig) -> Vec<String> {
        let split =
            |text: &String| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut env =
            vec![("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOSTNAME".to_owned(), hostname.to_owned())];
        if self.tty {
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

    fn health_check(&self, image: &ImageConfig) -> Option<HealthCheck> {
        let own = match &self.health {
            Health::Off => return None,
            Health::Image => HealthTest::default(),
            Health::Test(test) => test.clone(),
        };
        let theirs = image.healthcheck.clone().unwrap_or_default();
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
}

fn first_of<const N: usize>(texts: [Option<&str>; N]) -> String {
    texts.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
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
        container.mounts = [("/data".into(), Mount::Volume { name, access: Access::Write })].into();
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
    fn signals_are_read_in_any_usual_form() {
        for (text, expected) in [
            ("SIGTERM", "SIGTERM"),
            ("term", "SIGTERM"),
            ("15", "SIGTERM"),
            ("SIGRTMIN+3", "SIGRTMIN+3"),
            ("RTMAX", "SIGRTMIN+30"),
            ("37", "SIGRTMIN+3"),
            ("RTMIN", "SIGRTMIN+0"),
        ] {
            let signal = text.parse::<Signal>().unwrap();
            assert_eq!(signal.to_string(), expected);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
        for text in ["", "0", "32", "65", "SIGFOO", "RTMIN+31", "-9"] {
            text.parse::<Signal>().unwrap_err();
        }
    }

    #[test]
    fn restart_policies_are_read_as_in_docker() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for text in ["", "yes", "on-failure:", "on-failure:x"] {
            text.parse::<Restart>().unwrap_err();
        }
    }
}
