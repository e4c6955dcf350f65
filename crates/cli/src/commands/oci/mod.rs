//! `stead oci`: an OCI runtime, for programs that drive such.

mod log;
mod words;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use stead_container::oci::{self, CreateRequest, ExecRequest, Refused};
use stead_host::log::timestamp;

use crate::args::oci::{
    ExecBundleArgs, MakeBundleArgs, OciCli, OciCommand, OciGlobal, RunBundleArgs, TableOrJson, parse_oci,
};
use crate::failure::{Failure, Said};
use crate::output::{raw, table};

/// The name by which the program is this runtime alone.
const NAME: &str = "stead-oci";

/// The runtime's words, if this command line is one of its own: by the program's name or by its first word.
pub(crate) fn own_words() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == NAME) {
        return Some([OsString::from(NAME)].into_iter().chain(words).collect());
    }
    let first = words.next()?;
    (first == "oci").then(|| [OsString::from("stead oci")].into_iter().chain(words).collect())
}

/// Carries out a command line of the runtime.
pub(crate) fn run(words: Vec<OsString>) -> Result<ExitCode, Failure> {
    let OciCli { global, command } = parse_oci(words);
    log::start(&global)?;
    carry_out(&global, command).map_err(|failure| {
        let line = one_line(&failure.text());
        if global.log.is_some() {
            tracing::error!("{line}");
        }
        let code = failure.code();
        Failure::Program(code, Box::new(Failure::Request(vec![Said::what(&line)])))
    })
}

/// Whoever drives a runtime looks for the reason in the last line.
fn one_line(text: &str) -> String {
    let lines = text.trim().lines().map(|line| {
        let line = line.trim();
        let plain = line.strip_prefix("error: ").or_else(|| line.strip_prefix("cause: "));
        plain.unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join(": ")
}

fn carry_out(global: &OciGlobal, command: OciCommand) -> Result<ExitCode, Failure> {
    if global.systemd_cgroup {
        return Err(Failure::request(
            "`--systemd-cgroup` is not supported: cgroups are made in their file system",
            "tell the program that drives the runtime to use `cgroupfs`",
        ));
    }
    let root = match &global.root {
        Some(root) => root.clone(),
        None => oci::default_root()?,
    };
    let done = |()| ExitCode::SUCCESS;
    match command {
        OciCommand::Create(args) => make(&root, &args, |request| oci::create(request).map(drop)).map(done),
        OciCommand::Start(args) => oci::start(&root, &args.id).map_err(told).map(done),
        OciCommand::Run(args) => run_bundle(&root, &args).map_err(Failure::before_program),
        OciCommand::State(args) => {
            let state = oci::state(&root, &args.id).map_err(told)?;
            json(&state).map(done)
        }
        OciCommand::Kill(args) => oci::kill(&root, &args.id, args.signal, args.all).map_err(told).map(done),
        OciCommand::Delete(args) => {
            let mut deleted = args.id.iter().map(|id| oci::delete(&root, id, args.force));
            deleted.try_for_each(|deleted| deleted).map_err(told).map(done)
        }
        OciCommand::Exec(args) => exec(&root, &args).map_err(Failure::before_program),
        OciCommand::List(args) => {
            let states = oci::list(&root).map_err(told)?;
            match (args.quiet, args.format) {
                (true, _) => {
                    Ok(raw(&states.iter().map(|state| format!("{}\n", state.id)).collect::<String>())?)
                }
                (false, TableOrJson::Json) => json(&states),
                (false, TableOrJson::Table) => Ok(raw(&words::listed(&states))?),
            }
            .map(done)
        }
        OciCommand::Ps(args) => {
            let pids = oci::processes(&root, &args.id).map_err(told)?;
            match args.format {
                TableOrJson::Json => json(&pids),
                TableOrJson::Table => {
                    let rows: Vec<Vec<String>> = pids.iter().map(|pid| vec![pid.to_string()]).collect();
                    Ok(raw(&table(&["PID"], &rows))?)
                }
            }
            .map(done)
        }
        OciCommand::Pause(args) => oci::freeze(&root, &args.id, true).map_err(told).map(done),
        OciCommand::Resume(args) => oci::freeze(&root, &args.id, false).map_err(told).map(done),
        OciCommand::Spec(args) => words::write_spec(&args.bundle).map(done),
        OciCommand::Features => json(&oci::features()).map(done),
    }
}

fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    Ok(raw(&format!("{text}\n"))?)
}

/// Who can act on it: the bundle and the request are the caller's.
fn told(error: anyhow::Error) -> Failure {
    if let Some(failure) = error.downcast_ref::<stead_container::Failure>() {
        let code = failure.code;
        return match code {
            126 | 127 => Failure::Program(code, Box::new(Failure::Computer(error))),
            _ => Failure::Computer(error),
        };
    }
    match error.downcast_ref::<Refused>() {
        Some(refused) => Failure::Request(refused.0.iter().map(|why| Said::what(why)).collect()),
        None => Failure::Computer(error),
    }
}

fn make<T>(
    root: &Path,
    args: &MakeBundleArgs,
    made: impl FnOnce(&CreateRequest<'_>) -> anyhow::Result<T>,
) -> Result<T, Failure> {
    if args.no_pivot {
        return Err(Failure::request(
            "`--no-pivot` is not supported: the root is changed by pivot_root alone",
            "have the bundle's root on a file system of a disk or of memory, not on the first one of the computer",
        ));
    }
    // What makes a container must not be within its reach, and has one thread.
    stead_container::seal().map_err(Failure::Computer)?;
    made(&CreateRequest {
        root,
        id: &args.id,
        bundle: &args.bundle,
        pid_file: args.pid_file.as_deref(),
        console_socket: args.console_socket.as_deref(),
        preserve_fds: args.preserve_fds,
        now: &timestamp(SystemTime::now()),
    })
    .map_err(told)
}

fn run_bundle(root: &Path, args: &RunBundleArgs) -> Result<ExitCode, Failure> {
    let first = make(root, &args.make, oci::create)?;
    let id = &args.make.id;
    if let Err(error) = oci::start(root, id) {
        // It may have been deleted already.
        oci::delete(root, id, true).map_err(told)?;
        return Err(told(error));
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    pass_signals(root, id)?;
    let code = wait(first.pidfd.as_fd())?;
    if !args.keep {
        oci::delete(root, id, true).map_err(told)?;
    }
    Ok(ExitCode::from(code))
}

/// From now on what asks us to end asks the container.
fn pass_signals(root: &Path, id: &str) -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])
            .context("cannot listen for signals")?;
    let (root, id): (PathBuf, String) = (root.to_owned(), id.to_owned());
    std::thread::spawn(move || {
        for number in signals.forever() {
            let Ok(signal) = number.to_string().parse() else { continue };
            // It may have ended meanwhile.
            let _ = oci::kill(&root, &id, signal, false);
        }
    });
    Ok(())
}

/// Waits for a child of ours: its exit code, as shells say it.
fn wait(process: BorrowedFd<'_>) -> Result<u8, Failure> {
    let status = loop {
        match waitid(WaitId::PidFd(process), WaitIdOptions::EXITED) {
            Ok(status) => break status.context("it is gone")?,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(anyhow::Error::from(errno).context("cannot wait for the program").into());
            }
        }
    };
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn exec(root: &Path, args: &ExecBundleArgs) -> Result<ExitCode, Failure> {
    stead_container::seal().map_err(Failure::Computer)?;
    let executed = oci::exec(&ExecRequest {
        root,
        id: &args.id,
        process: args.process.as_deref(),
        args: &args.command,
        env: &args.env,
        cwd: args.cwd.as_deref(),
        user: args.user.as_deref(),
        tty: args.tty,
        pid_file: args.pid_file.as_deref(),
        console_socket: args.console_socket.as_deref(),
        preserve_fds: args.preserve_fds,
    })
    .map_err(told)?;
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(wait(executed.pidfd.as_fd())?))
}
