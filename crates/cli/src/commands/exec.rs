//! `exec`: another program in a machine. It has our own standard streams, or a terminal in the machine whose other
//! end is here. A stream of ours that is a terminal it never has: whatever it leaves behind could read what is typed
//! when it is long over. It has a pipe instead, and the bytes are carried.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::{SigId, flag};

use stead_container::{ExecRequest, Executed, Stdio, WindowSize};
use stead_host::journal::{Action, Event, Journal};
use stead_host::linux::LinuxHost;
use stead_host::machine::{Answer, Assignment, Client, Exec, Files, Phase, Request};
use stead_model::container::Signal;
use stead_model::name::MachineId;

use super::attach::{Raw, execute};
use super::environment::gathered;
use crate::args::{ExecArgs, Global, Told};
use crate::failure::Failure;
use crate::session::look;

/// Runs a program in a machine. This process has one thread until it has started.
pub(crate) fn exec(global: &Global, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let early = |error: anyhow::Error| Failure::from(error).before_program();
    let mut host = look().map_err(early)?;
    let seen = host.observe().map_err(early)?;
    let id = super::machines::chosen_first(global, &args.machine, &seen).map_err(Failure::before_program)?;
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        let what = "standard input is no terminal";
        return Err(Failure::request(what, "leave out `--tty`").before_program());
    }
    let is_guest = super::guest::is_guest(&id, &seen);
    if is_guest {
        return in_guest(&host, &id, args);
    }
    seal();
    // Before it starts: none of those that it is to be told is missed, or ends us and leaves it.
    let signals = listen(args.tty).map_err(early)?;
    let impatience = Impatience::new(if args.tty { &[] } else { &ENDING }).map_err(early)?;
    let (executed, carried) = start(&host, &id, args, impatience)?;
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = if args.tty {
        at_terminal(&executed, args.reads(), signals)
    } else {
        beside(&executed, carried, Telling { signals, told: args.told })
    };
    Ok(ExitCode::from(code.map_err(|error| Failure::from(error).before_program())?))
}

/// Becomes a program that what is executed in a container cannot write to. What was read by then is lost.
pub(super) fn seal() {
    if rustix::process::geteuid().is_root()
        && let Err(error) = stead_container::seal()
    {
        tracing::warn!("our program is not sealed: {error:#}");
    }
}

/// Runs it in a machine's guest, by its keeper.
fn in_guest(host: &LinuxHost, id: &MachineId, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let early = |error: anyhow::Error| Failure::from(error).before_program();
    let client = Client::connect(&Files::new(host.home(), id)).map_err(early)?;
    let client = client.ok_or_else(|| {
        let what = format!("machine `{id}` does not run");
        Failure::request(&what, &format!("`stead start {id}`")).before_program()
    })?;
    let environment = gathered(&args.env_file, &args.env).map_err(Failure::before_program)?;
    let order = Exec {
        args: args.command.clone(),
        env: environment,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        privileged: args.privileged,
        login: args.login,
        tty: args.tty.then(|| (size().rows, size().columns)),
        stdin: args.reads() && !args.detach,
        detached: args.detach,
    };
    note(host, id, args);
    let exit = execute(client, order, args.told).map_err(early)?;
    match exit.why {
        None => Ok(ExitCode::from(exit.code)),
        Some(why) => Err(Failure::Program(exit.code, Box::new(Failure::from(anyhow!(why))))),
    }
}

fn start(
    host: &LinuxHost,
    id: &MachineId,
    args: &ExecArgs,
    impatience: Impatience,
) -> Result<(Executed, Carried), Failure> {
    let early = |error: anyhow::Error| Failure::from(error).before_program();
    // It may get another name while what it is to be told is read.
    let files = Files::new(host.home(), id).hold_all();
    let stopped = || {
        let what = format!("machine `{id}` does not run");
        Failure::request(&what, &format!("`stead start {id}`")).before_program()
    };
    let status = Client::connect(&files)
        .map_err(early)?
        .map(|mut client| client.ask(&Request::Status, Some(Duration::ZERO)));
    let status = match status.transpose().map_err(early)? {
        Some(Answer::Status(status)) => status,
        Some(other) => return Err(early(anyhow!("the keeper answered {other:?}"))),
        None => return Err(stopped()),
    };
    if status.phase == Phase::Paused {
        let what = format!("machine `{id}` is paused");
        return Err(Failure::request(&what, &format!("`stead unpause {id}`")).before_program());
    }
    let init = status.init.ok_or_else(stopped)?;
    let request = || -> Result<(OwnedFd, Assignment)> {
        let pid = i32::try_from(init.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("its first process has no number")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("it ended just now")?;
        anyhow::ensure!(init.is_alive()?, "it ended just now");
        let text = std::fs::read(files.assignment()).context("cannot read what it runs")?;
        Ok((pidfd, serde_json::from_slice(&text).context("cannot read what it runs")?))
    };
    let (pidfd, assignment) = request().map_err(early)?;
    let given = if args.detach { nowhere() } else { streams(args.reads()) };
    let (given, carried) = given.map_err(early)?;
    let [stdin, stdout, stderr] = &given;
    let streams = Stdio::Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    let env = gathered(&args.env_file, &args.env).map_err(Failure::before_program)?;
    let request = ExecRequest {
        pid: init.pid,
        pidfd: pidfd.as_fd(),
        launch: &assignment.launch,
        state: &files.present(),
        args: &args.command,
        env: &env,
        cwd: args.workdir.as_deref(),
        user: args.user.as_deref(),
        privileged: args.privileged,
        login: args.login,
        stdio: if args.tty { Stdio::Terminal(size()) } else { streams },
    };
    let executed = stead_container::exec(&request);
    drop(impatience);
    let executed = executed.map_err(|failure| {
        let code = failure.code;
        Failure::Program(code, Box::new(Failure::from(anyhow::Error::from(failure))))
    })?;
    note(host, id, args);
    Ok((executed, carried))
}

/// Writes down what is executed.
fn note(host: &LinuxHost, id: &MachineId, args: &ExecArgs) {
    let program = args.command.first().map_or("", String::as_str);
    Journal::new(host.home()).note(&Event::of_machine(id, Action::Exec).with("program", program));
}

/// Our ends of the pipes that stand for streams that are terminals.
#[derive(Default)]
struct Carried {
    input: Option<OwnedFd>,
    /// With where it goes.
    outputs: Vec<(OwnedFd, OwnedFd)>,
}

/// What a program is given that is left to itself.
fn nowhere() -> Result<([OwnedFd; 3], Carried)> {
    let mut options = File::options();
    let null = options.read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    let share = || null.try_clone().map(OwnedFd::from).context("cannot share /dev/null");
    Ok(([share()?, share()?, share()?], Carried::default()))
}

/// What a program without a terminal of its own is given for standard input, output and error.
fn streams(interactive: bool) -> Result<([OwnedFd; 3], Carried)> {
    let doing = || "cannot prepare its streams";
    let mut carried = Carried::default();
    let stdin = match std::io::stdin() {
        _ if !interactive => File::open("/dev/null").context("cannot open /dev/null")?.into(),
        stdin if stdin.is_terminal() => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).with_context(doing)?;
            carried.input = Some(write);
            read
        }
        stdin => stdin.as_fd().try_clone_to_owned().with_context(doing)?,
    };
    let mut output = |own: BorrowedFd<'_>| -> Result<OwnedFd> {
        let own = own.try_clone_to_owned().with_context(doing)?;
        if !own.is_terminal() {
            return Ok(own);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).with_context(doing)?;
        carried.outputs.push((read, own));
        Ok(write)
    };
    let outputs = (output(std::io::stdout().as_fd())?, output(std::io::stderr().as_fd())?);
    Ok(([stdin, outputs.0, outputs.1], carried))
}

fn size() -> WindowSize {
    let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or_else(WindowSize::default, |size| WindowSize { columns: size.ws_col, rows: size.ws_row })
}

/// Signals that we get, and what the program is told of them.
struct Telling {
    signals: Signals,
    told: Told,
}

/// What asks a program to end.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Listens for those that a program is told, or for those that tell of its terminal's size.
fn listen(tty: bool) -> Result<Signals> {
    let wanted: &[i32] = if tty { &[SIGWINCH] } else { &ENDING };
    Signals::new(wanted).context("cannot listen for signals")
}

/// While a program is being started, which what is in its machine may hold up, the first signal is kept for it, and a
/// second one ends us.
struct Impatience {
    is_second: Arc<AtomicBool>,
    firsts: Vec<SigId>,
}

impl Impatience {
    fn new(wanted: &[i32]) -> Result<Self> {
        let is_second = Arc::new(AtomicBool::new(false));
        let first = |signal: &i32| {
            // They act in this order.
            flag::register_conditional_default(*signal, Arc::clone(&is_second))?;
            flag::register(*signal, Arc::clone(&is_second))
        };
        let firsts = wanted.iter().map(first).collect::<std::io::Result<_>>();
        Ok(Self { firsts: firsts.context("cannot listen for signals")?, is_second })
    }
}

impl Drop for Impatience {
    fn drop(&mut self) {
        for first in &self.firsts {
            signal_hook::low_level::unregister(*first);
        }
        self.is_second.store(false, Ordering::SeqCst);
    }
}

impl Told {
    /// What becomes of a signal; nothing of one that the program does not know or is not told.
    pub(super) fn of(self, signal: i32) -> Option<Signal> {
        match self {
            Self::ButHangup if signal == SIGHUP => None,
            Self::Each | Self::ButHangup => signal.to_string().parse().ok(),
            Self::End => SIGTERM.to_string().parse().ok(),
        }
    }
}

/// Waits for a program that has our own streams, or pipes that stand for them. What tells us to end is told to it.
fn beside(executed: &Executed, carried: Carried, telling: Telling) -> Result<u8> {
    if let Some(input) = carried.input {
        std::thread::spawn(move || carry(std::io::stdin(), File::from(input)));
    }
    let mut outputs = Vec::new();
    for (from, to) in carried.outputs {
        let program = executed.pidfd.try_clone().context("cannot share a descriptor")?;
        let (from, to) = (File::from(from), File::from(to));
        outputs.push(std::thread::spawn(move || carry_until_end(from, to, &program)));
    }
    let pidfd = executed.pidfd.try_clone().context("cannot share a descriptor")?;
    std::thread::spawn(move || {
        let Telling { mut signals, told } = telling;
        for signal in signals.forever().filter_map(|signal| told.of(signal)) {
            // It may just have ended.
            let _ended = stead_container::kill(pidfd.as_fd(), signal);
        }
    });
    let code = outlast(executed)?;
    // Nobody reads the terminal any more, if they panicked: which is told already.
    outputs.into_iter().for_each(|output| drop(output.join()));
    Ok(code)
}

/// Carries what a program writes until nobody writes any more; or until the program has ended, and all that it wrote
/// has come. Others that it started may live on, and are not waited for.
fn carry_until_end(mut from: File, mut to: File, program: &OwnedFd) {
    loop {
        let mut both = [PollFd::new(&from, PollFlags::IN), PollFd::new(program, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let [output, end] = &both;
        if !end.revents().is_empty() {
            break;
        }
        if !output.revents().is_empty() && carry_once(&mut from, &mut to).is_none_or(|length| length == 0) {
            return;
        }
    }
    let mut left = fcntl_getpipe_size(&from).unwrap_or(PIPE_BYTES);
    if ioctl_fionbio(&from, true).is_err() {
        return;
    }
    while left > 0 {
        match carry_once(&mut from, &mut to) {
            None | Some(0) => return,
            Some(length) => left = left.saturating_sub(length),
        }
    }
}

/// What a pipe holds, where the kernel does not say.
const PIPE_BYTES: usize = 64 * 1024;

/// Carries what is there: how much it was; `None` if that is over.
fn carry_once(from: &mut File, to: &mut File) -> Option<usize> {
    let mut buffer = [0; 16 * 1024];
    let length = loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read.ok()?,
        }
    };
    to.write_all(buffer.get(..length).unwrap_or_default()).ok()?;
    Some(length)
}

fn outlast(executed: &Executed) -> Result<u8> {
    let status = loop {
        match waitid(WaitId::PidFd(executed.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            status => break status.context("cannot wait for the program")?,
        }
    };
    let status = status.context("the program ended without a word")?;
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => signal.saturating_add(128),
        (None, None) => 255,
    };
    Ok(u8::try_from(code).unwrap_or(255))
}

/// Carries what is typed and written until the program has ended, and all that it wrote has come.
fn at_terminal(executed: &Executed, interactive: bool, mut signals: Signals) -> Result<u8> {
    let terminal = executed.terminal.as_ref().context("it has no terminal")?;
    let terminal = Arc::new(File::from(terminal.try_clone().context("cannot share its terminal")?));
    let raw = if interactive { Raw::new()? } else { None };
    if interactive {
        let terminal = Arc::clone(&terminal);
        std::thread::spawn(move || carry(std::io::stdin(), &*terminal));
    }
    let resized = Arc::clone(&terminal);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if let Ok(size) = tcgetwinsize(std::io::stdout()) {
                let _gone = tcsetwinsize(&*resized, size);
            }
        }
    });
    // Its other end is closed when the program and all that it started have ended; others than the program may
    // live on, and are not waited for.
    let output = Arc::clone(&terminal);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        carry(&*output, std::io::stdout());
        let _waiting = done.send(());
    });
    let code = outlast(executed)?;
    let _late = is_done.recv_timeout(LAST_WORDS_LIMIT);
    drop(raw);
    Ok(code)
}

/// What a program wrote before it ended is there at once.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(200);

fn carry(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A terminal whose last user has gone says EIO.
            Err(_) => return,
        }
    }
}
