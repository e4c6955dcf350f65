//! `exec`: another program in a machine. It has our own standard streams, or a terminal in the machine whose other
//! end is here.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};

use stead_container::{ExecRequest, Executed, Stdio, WindowSize};
use stead_host::apply::Host;
use stead_host::journal::{Action, Event, Journal};
use stead_host::linux::LinuxHost;
use stead_host::machine::{Answer, Assignment, Client, Exec, Files, Phase, Request};
use stead_model::container::Signal;
use stead_model::name::MachineId;

use super::attach::{Raw, execute};
use crate::args::{ExecArgs, Global};
use crate::failure::Failure;
use crate::session::look;

/// Runs a program in a machine. This process has one thread until it has started.
pub(crate) fn exec(global: &Global, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let early = |error: anyhow::Error| Failure::from(error).before_program();
    let mut host = look().map_err(early)?;
    let seen = host.observe().map_err(early)?;
    let id = super::machines::chosen_one(global, &args.machine, &seen).map_err(Failure::before_program)?;
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        let what = "standard input is no terminal";
        return Err(Failure::request(what, "leave out `--tty`").before_program());
    }
    if super::guest::is_guest(&id, &seen) {
        return in_guest(&Files::new(host.home(), &id), &id, args);
    }
    // What is executed in there must not be able to write to our program.
    if rustix::process::geteuid().is_root()
        && let Err(error) = stead_container::seal()
    {
        tracing::warn!("our program is not sealed: {error:#}");
    }
    let executed = start(&host, &id, args)?;
    let code = if args.tty { at_terminal(&executed, args.interactive) } else { beside(&executed) };
    Ok(ExitCode::from(code.map_err(|error| Failure::from(error).before_program())?))
}

/// Runs it in a machine's guest, by its keeper.
fn in_guest(files: &Files, id: &MachineId, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let early = |error: anyhow::Error| Failure::from(error).before_program();
    let client = Client::connect(files).map_err(early)?;
    let client = client.ok_or_else(|| {
        let what = format!("machine `{id}` does not run");
        Failure::request(&what, &format!("`stead start {id}`")).before_program()
    })?;
    let order = Exec {
        args: args.command.clone(),
        env: args.env.iter().filter_map(|text| variable(text)).collect(),
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        privileged: args.privileged,
        tty: args.tty,
        stdin: args.interactive,
    };
    let exit = execute(client, order).map_err(early)?;
    match exit.why {
        None => Ok(ExitCode::from(exit.code)),
        Some(why) => Err(Failure::Program(exit.code, Box::new(Failure::from(anyhow!(why))))),
    }
}

fn start(host: &LinuxHost, id: &MachineId, args: &ExecArgs) -> Result<Executed, Failure> {
    let early = |error: anyhow::Error| Failure::from(error).before_program();
    let files = Files::new(host.home(), id);
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
    let null = File::open("/dev/null").context("cannot open /dev/null").map_err(early)?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = Stdio::Streams {
        stdin: if args.interactive { stdin.as_fd() } else { null.as_fd() },
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
    };
    let env: Vec<String> = args.env.iter().filter_map(|text| variable(text)).collect();
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
        stdio: if args.tty { Stdio::Terminal(size()) } else { streams },
    };
    let executed = stead_container::exec(&request).map_err(|failure| {
        let code = failure.code;
        Failure::Program(code, Box::new(Failure::from(anyhow::Error::from(failure))))
    })?;
    let program = args.command.first().map_or("", String::as_str);
    Journal::new(host.home()).note(&Event::of_machine(id, Action::Exec).with("program", program));
    Ok(executed)
}

/// `NAME=value`; or `NAME`, as it is here.
fn variable(text: &str) -> Option<String> {
    match text.contains('=') {
        true => Some(text.to_owned()),
        false => std::env::var(text).ok().map(|value| format!("{text}={value}")),
    }
}

fn size() -> WindowSize {
    let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or_else(WindowSize::default, |size| WindowSize { columns: size.ws_col, rows: size.ws_row })
}

/// Waits for a program that has our own streams. What tells us to end is told to it.
fn beside(executed: &Executed) -> Result<u8> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
        .context("cannot listen for signals")?;
    let pidfd = executed.pidfd.try_clone().context("cannot share a descriptor")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Ok(signal) = signal.to_string().parse::<Signal>() {
                // It may just have ended.
                let _ended = stead_container::kill(pidfd.as_fd(), signal);
            }
        }
    });
    outlast(executed)
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
fn at_terminal(executed: &Executed, interactive: bool) -> Result<u8> {
    let terminal = executed.terminal.as_ref().context("it has no terminal")?;
    let terminal = Arc::new(File::from(terminal.try_clone().context("cannot share its terminal")?));
    let raw = if interactive { Raw::new()? } else { None };
    if interactive {
        let terminal = Arc::clone(&terminal);
        std::thread::spawn(move || carry(std::io::stdin(), &*terminal));
    }
    let resized = Arc::clone(&terminal);
    let mut signals = signal_hook::iterator::Signals::new([SIGWINCH]).context("cannot listen for signals")?;
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
