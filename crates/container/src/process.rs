//! The last steps of a process before it is a program of the container: who it is, what it may do, what it reads and
//! writes. For the first one and for those that join it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, fchown, fstat, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::set_parent_process_death_signal;
use rustix::process::{Resource, Rlimit, fchdir, ioctl_tiocsctty, setrlimit, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use stead_model::container::Ulimit;

use crate::capability::{Allowed, Capabilities};
use crate::channel::Channel;
use crate::mounts::confined::{self, Make};
use crate::place::{CODE_NOT_EXECUTABLE, CODE_NOT_FOUND, Failure, Stdio, WindowSize};
use crate::sys::{self, Instruction};
use crate::user::{User, resolve};

/// The three streams of a process, out of the way of numbers 0 to 2.
pub(crate) struct Streams([OwnedFd; 3]);

/// Copies of these streams.
pub(crate) fn streams(stdio: &Stdio<'_>) -> Result<Option<Streams>> {
    match stdio {
        Stdio::Terminal(_) => Ok(None),
        Stdio::Streams { stdin, stdout, stderr } => {
            let copy = |fd| fcntl_dupfd_cloexec(fd, 10).context("cannot keep a stream");
            Ok(Some(Streams([copy(stdin)?, copy(stdout)?, copy(stderr)?])))
        }
    }
}

/// A terminal in the container: its own end, and the one for whoever shows it to people.
pub(crate) struct Terminal {
    pub(crate) theirs: OwnedFd,
    pub(crate) own: OwnedFd,
}

/// Makes a terminal. Our root is the container's.
pub(crate) fn terminal(size: WindowSize) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = open("/dev/pts/ptmx", flags, Mode::empty()).context("cannot make a terminal")?;
    unlockpt(&own).context("cannot make a terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&own, flags).context("cannot open the terminal")?;
    let size = Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).context("cannot set the terminal's size")?;
    Ok(Terminal { theirs, own })
}

/// Puts the streams at numbers 0 to 2, for this user to open again, and starts a session.
pub(crate) fn connect(streams: &Streams, user: &User) -> Result<()> {
    for stream in &streams.0 {
        // What a program finds as /dev/stdout is a pipe of ours: it must be able to open it as who it is.
        let is_pipe =
            rustix::fs::FileType::from_raw_mode(fstat(stream)?.st_mode) == rustix::fs::FileType::Fifo;
        if is_pipe && user.uid != 0 {
            match own(stream, user) {
                // One that we were given, and that is of somebody whom our user namespace does not have.
                Ok(()) | Err(Errno::PERM) => {}
                Err(errno) => return Err(not_given(errno, "a stream", user)),
            }
        }
    }
    let [stdin, stdout, stderr] = &streams.0;
    join_streams(stdin, stdout, stderr)
}

fn own(fd: &OwnedFd, user: &User) -> rustix::io::Result<()> {
    fchown(fd, Some(rustix::fs::Uid::from_raw(user.uid)), None)
}

fn join_streams(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> Result<()> {
    rustix::stdio::dup2_stdin(stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .context("cannot connect the streams")
}

/// Puts the terminal at numbers 0 to 2. This process leads a session, and now has it as its terminal.
pub(crate) fn connect_terminal(terminal: &OwnedFd, user: &User) -> Result<()> {
    own(terminal, user).map_err(|errno| not_given(errno, "the terminal", user))?;
    ioctl_tiocsctty(terminal).context("cannot take the terminal")?;
    join_streams(terminal, terminal, terminal)
}

/// Starts a session, if this process does not lead one already.
pub(crate) fn session() -> Result<()> {
    match setsid() {
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).context("cannot start a session"),
    }
}

/// Who this is in the container that is our root.
pub(crate) fn user(wanted: &str, groups: &BTreeSet<String>) -> Result<User> {
    resolve(wanted, groups, &account_file("/etc/passwd")?, &account_file("/etc/group")?)
}

/// As long as files of accounts get.
const ACCOUNTS_MAX_BYTES: u64 = 10 << 20;

/// A file of accounts; nothing if there is none. It comes from an image, so it may be anything at all.
fn account_file(path: &str) -> Result<String> {
    let doing = || format!("cannot read the image's `{path}`");
    let file = match open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno).with_context(doing),
    };
    if !file.metadata().with_context(doing)?.is_file() {
        bail!("{}: it is no file", doing());
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, ACCOUNTS_MAX_BYTES), &mut bytes)
        .with_context(doing)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a process may use of the computer, by the limits' names in lower case.
pub(crate) fn limit(ulimits: &BTreeMap<String, Ulimit>) -> Result<()> {
    for (name, Ulimit { soft, hard }) in ulimits {
        let resource = resource(name).with_context(|| format!("`{name}` is no limit of a process"))?;
        let value = |value: u64| (value != u64::MAX).then_some(value);
        setrlimit(resource, Rlimit { current: value(*soft), maximum: value(*hard) })
            .with_context(|| format!("cannot set limit `{name}` to {soft}:{hard}"))?;
    }
    Ok(())
}

pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// What a process is to be.
pub(crate) struct Wanted<'a> {
    pub(crate) args: Cow<'a, [String]>,
    /// Whether it is a login shell, which is told so by a dash before its name.
    pub(crate) is_login: bool,
    pub(crate) env: Vec<String>,
    pub(crate) user: User,
    pub(crate) allowed: Allowed,
    pub(crate) no_new_privileges: bool,
    pub(crate) filter: Option<Vec<Instruction>>,
    /// Whether it is killed when whoever made it dies: a container without its keeper could not be found again.
    pub(crate) dies_with_maker: bool,
}

/// Becomes the program; the reason if that failed, to be told over the channel: nothing else is open then.
pub(crate) fn become_program(wanted: &Wanted<'_>, channel: &Channel) -> Failure {
    match prepare(wanted, channel).and_then(|()| Execution::new(&wanted.args, &wanted.env)) {
        Ok(execution) if wanted.is_login => execution.of_login().run(),
        Ok(execution) => execution.run(),
        Err(error) => error.into(),
    }
}

/// A program's home is its user's, unless somebody said otherwise.
pub(crate) fn environment(env: &[String], user: &User) -> Vec<String> {
    let mut env = env.to_vec();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    env
}

/// What somebody gets who logs in.
pub(crate) struct Login {
    /// The shell.
    pub(crate) args: Vec<String>,
    /// Its environment.
    pub(crate) env: Vec<String>,
}

/// Where there is no other.
const SHELL: &str = "/bin/sh";

/// Goes home, as `su -` does: what the container's program has in its environment is not the user's. Our root is the
/// container's.
pub(crate) fn log_in(user: &User, more: &[String]) -> Result<Login> {
    directory(&user.home, false).or_else(|_| directory("/", false))?;
    let is_there = |shell: &&str| !shell.is_empty() && rustix::fs::stat(*shell).is_ok();
    let shell = Some(user.shell.as_str()).filter(is_there).unwrap_or(SHELL);
    let path = stead_model::container::DEFAULT_PATH;
    let own = [
        ("PATH", path),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", shell),
    ];
    let env = own.map(|(name, value)| format!("{name}={value}")).into_iter().chain(more.to_vec()).collect();
    Ok(Login { args: vec![shell.to_owned()], env })
}

/// Changes to the directory in which the program starts; it is made if `make`.
pub(crate) fn directory(path: &str, make: bool) -> Result<()> {
    start_in(&place_of(path, make)?, path)
}

/// The directory in which the program starts; it is made if `make`. Our root is the container's. No link of /proc is
/// followed to it: by those of our descriptors a directory of this computer could be had (CVE-2024-21626).
pub(crate) fn place_of(path: &str, make: bool) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let find = || {
        let root = open("/", flags, Mode::empty())?;
        match confined::open(root.as_fd(), path, flags) {
            Err(Errno::NOENT) if make => confined::place(root.as_fd(), path, Make::Directory),
            found => found,
        }
    };
    find().with_context(|| not_there(path))
}

/// Changes to it, which is for whom we are by now to allow.
pub(crate) fn start_in(place: &OwnedFd, path: &str) -> Result<()> {
    fchdir(place).with_context(|| not_there(path))
}

fn not_there(path: &str) -> String {
    format!("cannot start in `{}`", path.escape_debug())
}

/// Gives up what the program is not to have, in the order in which the kernel still lets us.
fn prepare(wanted: &Wanted<'_>, channel: &Channel) -> Result<()> {
    sys::reset_signals();
    sys::close_others(3, channel.as_fd()).context("cannot close what is not the program's")?;
    if wanted.no_new_privileges {
        set_no_new_privs(true).context("cannot forbid new privileges")?;
    } else {
        // Without that, only who still has rights may load a filter.
        filter(wanted)?;
    }
    rights(wanted.allowed, &wanted.user)?;
    if wanted.dies_with_maker {
        // After the change of user, by which the kernel forgets it.
        die_with_maker()?;
    }
    if wanted.no_new_privileges {
        filter(wanted)?;
    }
    Ok(())
}

/// Has the kernel kill this process when the one that made it dies.
pub(crate) fn die_with_maker() -> Result<()> {
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot be tied to the keeper")
}

fn filter(wanted: &Wanted<'_>) -> Result<()> {
    match &wanted.filter {
        Some(filter) => sys::load_seccomp(filter, 0).context("cannot filter system calls"),
        None => Ok(()),
    }
}

/// Why somebody is not there for a container to be.
const NO_ID: &str = "this user's containers have fewer ids; hint: `stead doctor` says how they get more, under \
    `subordinate ids`, and after `stead down` they have them";

/// Becomes the user, with no more than these capabilities.
fn rights(allowed: Allowed, user: &User) -> Result<()> {
    let own = Capabilities(capabilities(None).context("cannot see our capabilities")?.permitted.bits());
    let most = allowed.most.and(own);
    for one in allowed.most.missing() {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one.0)) {
            // The kernel has not so many.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).context("cannot drop a capability"),
        }
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
    // With its own: a program that changes its group and back would else have lost what is shut to that group.
    let groups: BTreeSet<u32> = user.groups.iter().copied().chain([user.gid]).collect();
    let is_more = groups.iter().any(|id| *id != user.gid);
    let groups: Vec<_> = groups.into_iter().map(rustix::fs::Gid::from_raw).collect();
    match set_thread_groups(&groups) {
        // With a single id there is nobody who could have more groups. Whether this one is there, is asked next.
        Err(Errno::PERM | Errno::INVAL) if !is_more => {}
        // By which of them, the kernel does not say.
        done => done.map_err(|errno| refused(errno, "all those groups"))?,
    }
    set_thread_res_gid(gid, gid, gid).map_err(|errno| refused(errno, &format!("group {}", user.gid)))?;
    set_keep_capabilities(true).context("cannot keep capabilities")?;
    set_thread_res_uid(uid, uid, uid).map_err(|errno| refused(errno, &format!("user {}", user.uid)))?;
    set_keep_capabilities(false).context("cannot keep capabilities")?;
    let kept = if user.uid == 0 { most } else { allowed.asked.and(own) };
    let set = CapabilitySet::from_bits_retain;
    let inheritable = if user.uid == 0 { set(0) } else { set(kept.0) };
    let sets = CapabilitySets { effective: set(kept.0), permitted: set(kept.0), inheritable };
    set_capabilities(None, sets).context("cannot set capabilities")?;
    if user.uid != 0 {
        let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| kept.0 & bit != 0);
        for bit in bits {
            configure_capability_in_ambient_set(set(bit), true).context("cannot keep a capability")?;
        }
    }
    Ok(())
}

/// Why one cannot become somebody.
fn refused(errno: Errno, whom: &str) -> anyhow::Error {
    match errno {
        // There is no such id in our user namespace; or only one, with which the kernel allows no groups.
        Errno::INVAL | Errno::PERM => anyhow::anyhow!("cannot be {whom}: {NO_ID}"),
        errno => anyhow::Error::new(errno).context(format!("cannot be {whom}")),
    }
}

/// Why somebody is given nothing, who may be nobody here.
fn not_given(errno: Errno, what: &str, user: &User) -> anyhow::Error {
    match errno {
        Errno::INVAL => refused(errno, &format!("user {}", user.uid)),
        errno => anyhow::Error::new(errno).context(format!("cannot give {what} to the user")),
    }
}

/// A program with its arguments, as the kernel takes them.
pub(crate) struct Execution {
    name: String,
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Execution {
    pub(crate) fn new(args: &[String], env: &[String]) -> Result<Self> {
        let text = |text: &String| CString::new(text.as_bytes()).context("a text holds a zero byte");
        let texts = |list: &[String]| list.iter().map(text).collect::<Result<Vec<_>>>();
        let name = args.first().context("there is nothing to run")?.clone();
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH="));
        let candidates = if name.contains('/') {
            vec![name.clone()]
        } else {
            let path = path.unwrap_or(stead_model::container::DEFAULT_PATH);
            path.split(':').map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir })).collect()
        };
        let candidates = texts(&candidates)?;
        Ok(Self { name, candidates, args: texts(args)?, env: texts(env)? })
    }

    /// The same, told that it is a login shell.
    fn of_login(mut self) -> Self {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        if let (Some(first), Ok(name)) = (self.args.first_mut(), CString::new(format!("-{name}"))) {
            *first = name;
        }
        self
    }

    /// Whether there is a file to run, as far as can be told by looking.
    pub(crate) fn look(&self) -> Result<(), Failure> {
        let found = self.candidates.iter().any(|path| rustix::fs::stat(path.as_c_str()).is_ok());
        if found { Ok(()) } else { Err(self.missing()) }
    }

    fn missing(&self) -> Failure {
        Failure { code: CODE_NOT_FOUND, text: format!("exec: no such file: `{}`", self.name.escape_debug()) }
    }

    /// Runs the first that can be; as the C library does, one that cannot be executed is remembered while
    /// others are tried.
    pub(crate) fn run(&self) -> Failure {
        let mut worst = Errno::NOENT;
        for path in &self.candidates {
            let errno = sys::execute(path, &self.args, &self.env);
            match errno {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => worst = errno,
                errno => {
                    worst = errno;
                    break;
                }
            }
        }
        let name = self.name.escape_debug();
        match worst {
            Errno::NOENT => self.missing(),
            errno => Failure {
                code: CODE_NOT_EXECUTABLE,
                text: format!("exec: cannot run `{name}`: {}", std::io::Error::from(errno)),
            },
        }
    }
}
