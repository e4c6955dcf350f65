//! A process on this computer itself, in no container: for who it is to be, and with a terminal if it is to have one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::AsFd;

use crate::capability::{Allowed, Capabilities};
use crate::channel::{self, Channel, Said};
use crate::exec::Executed;
use crate::place::{CODE_OURS, Failure, Stdio};
use crate::process::{
    self, Streams, Wanted, become_program, connect, connect_terminal, environment, log_in, streams, terminal,
};
use crate::sys::{self, Fork, Namespaces, Parent};

/// A process for this computer.
#[derive(Debug)]
pub struct HereRequest<'a> {
    /// The program and its arguments.
    pub args: &'a [String],
    /// Its environment, `NAME=value` each.
    pub env: &'a [String],
    /// Where it starts; where its user is at home if absent.
    pub cwd: Option<&'a str>,
    /// As whom: `user[:group]`; empty means root.
    pub user: &'a str,
    /// Whether it has all capabilities, whoever it is.
    pub privileged: bool,
    /// Whether it is the user's login shell instead, at home, with nothing but this environment and the user's own.
    pub login: bool,
    /// What it reads and writes.
    pub stdio: Stdio<'a>,
}

/// Starts a process. Must be called in a process with one thread, as root.
pub fn exec_here(request: &HereRequest<'_>) -> Result<Executed, Failure> {
    let streams = streams(&request.stdio)?;
    let (own, theirs) = channel::pair().context("cannot make a channel")?;
    let child = match sys::fork(Namespaces::NONE, None, Parent::Maker).context("cannot make a process")? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(own);
            let failure = match arrive(request, streams.as_ref(), &theirs) {
                Ok(wanted) => become_program(&wanted, &theirs),
                Err(error) => error.into(),
            };
            theirs.fail(&failure);
            sys::exit(i32::from(CODE_OURS))
        }
    };
    drop(theirs);
    let mut found = None;
    loop {
        match own.hear()? {
            Said::Ready { terminal, .. } => found = terminal,
            Said::Failed(failure) => {
                let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
                return Err(failure);
            }
            Said::Closed => break,
        }
    }
    if matches!(request.stdio, Stdio::Terminal(_)) && found.is_none() {
        return Err(anyhow!("it ended before it had a terminal").into());
    }
    Ok(Executed { pid: child.pid, pidfd: child.pidfd, terminal: found })
}

fn arrive<'a>(request: &HereRequest<'a>, streams: Option<&Streams>, channel: &Channel) -> Result<Wanted<'a>> {
    process::session()?;
    let user = process::user(request.user, &BTreeSet::new())?;
    match (&request.stdio, streams) {
        (Stdio::Terminal(size), _) => {
            let terminal = terminal(*size)?;
            channel.ready(Some(&terminal.own), 0)?;
            connect_terminal(&terminal.theirs, &user)?;
        }
        (Stdio::Streams { .. }, Some(streams)) => connect(streams, &user)?,
        (Stdio::Streams { .. }, None) => {}
    }
    match request.cwd {
        Some(path) => process::directory(path, false)?,
        None => process::directory(&user.home, false).or_else(|_| process::directory("/", false))?,
    }
    let asked = if request.privileged { Capabilities::ALL } else { Capabilities(0) };
    let allowed = Allowed { most: Capabilities::ALL, asked };
    let (args, env) = if request.login {
        let login = log_in(&user, request.env)?;
        (login.args.into(), login.env)
    } else {
        (request.args.into(), environment(request.env, &user))
    };
    Ok(Wanted {
        args,
        is_login: request.login,
        env,
        user,
        allowed,
        no_new_privileges: false,
        filter: None,
        dies_with_maker: false,
    })
}
