//! The small first process of a container that asks for one: it passes signals on and buries the dead.

use std::convert::Infallible;

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use crate::channel::Channel;
use crate::place::{CODE_OURS, Failure};
use crate::sys::{self, Child, Fork, Namespaces, Parent};

/// Starts the program as a child, and ends as it does.
pub(crate) fn run(channel: Channel, start: impl FnOnce(Channel) -> Infallible) -> Infallible {
    // It would be called after whoever made the container.
    let _ = rustix::thread::set_name(c"stead-init");
    sys::block_signals();
    match sys::fork(Namespaces::NONE, None, Parent::Maker) {
        Ok(Fork::Child) => {
            // Its own group, and in front at the terminal, if there is one: what is typed is for it alone.
            if rustix::process::setpgid(None, None).is_ok() {
                front();
            }
            start(channel)
        }
        Ok(Fork::Parent(child)) => {
            // The program's start is to close the channel.
            drop(channel);
            close_all();
            sys::exit(tend(&child))
        }
        Err(errno) => {
            channel.fail(&Failure { code: CODE_OURS, text: format!("cannot start the program: {errno}") });
            sys::exit(i32::from(CODE_OURS))
        }
    }
}

fn front() {
    let group = rustix::process::getpgrp();
    // Not a terminal.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
}

/// Lets go of all descriptors but the three streams, which it had of whoever made it.
fn close_all() {
    if let Err(errno) = sys::close_all() {
        tracing::debug!("descriptors stay open in the container's first process: {errno}");
    }
}

/// Passes signals on until the child has ended: its exit code.
fn tend(child: &Child) -> i32 {
    let pid = i32::try_from(child.pid).unwrap_or_default();
    loop {
        match sys::next_signal() {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = bury(pid) {
                    return code;
                }
            }
            // It was stopped itself, or the terminal does not let it write: neither is the child's matter.
            Ok(libc::SIGTTIN | libc::SIGTTOU) => {}
            Ok(signal) => {
                // It may have ended meanwhile.
                let _ = sys::kill(pid, signal);
            }
            Err(Errno::INTR) => {}
            Err(_) => return i32::from(CODE_OURS),
        }
    }
}

/// Buries all who are dead: the exit code of the child, if it is one of them.
fn bury(child: i32) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == child {
            code = Some(exit_code(status));
        }
    }
    code
}

/// As shells say it: the program's own, or 128 and the signal that ended it.
fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}
