//! The runtime alone, for this crate's tests and measurements: a test program has threads, so it cannot make
//! containers itself. The product's is the keeper.
//!
//! `stead-container run <file>`, `stead-container exec <file> <pid> <user or -> <command>…`, and `usage`, `processes`,
//! `pause`, `unpause`, `remove` with `<state directory> <pid>`. The file says what is launched, and where, as JSON.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::Deserialize;
use stead_container::{
    ExecRequest, Failure, Place, Stdio, WindowSize, create, exec, limits_refused, overlay_refused, pause,
    processes, remove, seal, unpause, usage,
};
use stead_model::container::Launch;

/// What is launched, and where.
#[derive(Debug, Deserialize)]
struct Request {
    launch: Launch,
    layers: Vec<PathBuf>,
    /// `upper`, `work`, `root`, `own`, `state` and `volumes` are in it.
    directory: PathBuf,
    netns: PathBuf,
    cgroup: String,
    #[serde(default)]
    is_passing: bool,
    hosts: Option<String>,
    resolv_conf: Option<String>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(error.downcast_ref::<Failure>().map_or(125, |failure| failure.code))
        }
    }
}

fn run(args: &[&str]) -> Result<u8> {
    if matches!(args, ["run", ..]) {
        seal()?;
    }
    let state = |state: &str| PathBuf::from(state);
    match args {
        ["run", file] => return run_container(&load(file)?),
        ["exec", file, pid, user, command @ ..] => return exec_in(&load(file)?, pid, user, command),
        ["usage", dir, pid] => println!("{:?}", usage(&state(dir), pid.parse()?)?),
        ["processes", dir, pid] => println!("{:?}", processes(&state(dir), pid.parse()?)?),
        ["overlay", dir] => println!("{:?}", overlay_refused(&state(dir))?),
        ["pause", dir] => pause(&state(dir))?,
        ["unpause", dir] => unpause(&state(dir))?,
        ["remove", dir] => remove(&state(dir))?,
        ["refused", file] => {
            let refused = limits_refused(&load(file)?.launch.limits)?;
            let refused: Vec<String> = refused.into_iter().map(|refused| refused.why).collect();
            println!("{}", refused.join("\n"));
        }
        _ => bail!(
            "say `run <file>`, `exec <file> <pid> <user> <command>`, or another verb with a state directory"
        ),
    }
    Ok(0)
}

fn load(file: &str) -> Result<Request> {
    Ok(serde_json::from_slice(&fs::read(file).with_context(|| format!("cannot read `{file}`"))?)?)
}

fn place(request: &Request) -> Result<Place> {
    let dir = |name: &str| -> Result<PathBuf> {
        let path = request.directory.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let volumes = dir("volumes")?;
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(&volumes)? {
        let entry = entry?;
        found.insert(entry.file_name().to_string_lossy().parse()?, entry.path());
    }
    Ok(Place {
        layers: request.layers.clone(),
        upper: dir("upper")?,
        is_passing: request.is_passing,
        work: dir("work")?,
        root: dir("root")?,
        volumes: found,
        own_volumes: dir("own")?,
        hosts: request.hosts.clone(),
        resolv_conf: request.resolv_conf.clone(),
        netns: File::open(&request.netns)?.into(),
        cgroup: request.cgroup.clone(),
        state: dir("state")?,
    })
}

fn run_container(request: &Request) -> Result<u8> {
    let place = place(request)?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = if request.launch.tty {
        Stdio::Terminal(WindowSize { columns: 100, rows: 30 })
    } else {
        Stdio::Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
    };
    let created = match create(&request.launch, &place, stdio) {
        Ok(created) => created,
        Err(failure) => {
            remove(&place.state)?;
            return Err(failure.into());
        }
    };
    fs::write(place.state.join("pid"), created.pid.to_string())?;
    let pidfd = created.pidfd.try_clone()?;
    let started = created.start();
    let code = match &started {
        Ok(started) => {
            if let Some(terminal) = &started.terminal {
                show(terminal)?;
            }
            wait(&pidfd)?
        }
        Err(_) => wait(&pidfd)?,
    };
    if let Ok(told) = usage(&place.state, 0)
        && told.oom_kills.is_some_and(|kills| kills > 0)
    {
        eprintln!("out of memory");
    }
    remove(&place.state)?;
    started?;
    Ok(code)
}

/// What comes from a terminal goes to standard output, until nobody is at its other end.
fn show(terminal: &OwnedFd) -> Result<()> {
    let mut file = File::from(terminal.try_clone()?);
    match std::io::copy(&mut file, &mut std::io::stdout()) {
        Err(error) if error.raw_os_error() == Some(5) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

fn wait(pidfd: &OwnedFd) -> Result<u8> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?.context("it is gone")?;
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Ok(u8::try_from(code.unwrap_or(255)).unwrap_or(255))
}

fn exec_in(request: &Request, pid: &str, user: &str, command: &[&str]) -> Result<u8> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let number: i32 = pid.parse()?;
    let pidfd = pidfd_open(Pid::from_raw(number).context("no pid")?, PidfdFlags::empty())?;
    let args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let stdio = if request.launch.tty {
        Stdio::Terminal(WindowSize::default())
    } else {
        Stdio::Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
    };
    let executed = exec(&ExecRequest {
        pid: number.unsigned_abs(),
        pidfd: pidfd.as_fd(),
        launch: &request.launch,
        state: Path::new(&request.directory.join("state")),
        args: &args,
        env: &["EXEC=yes".to_owned()],
        cwd: None,
        user: Some(user).filter(|user| *user != "-"),
        privileged: false,
        login: false,
        stdio,
    })?;
    if let Some(terminal) = &executed.terminal {
        show(terminal)?;
    }
    wait(&executed.pidfd)
}
