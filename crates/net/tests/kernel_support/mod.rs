//! Network namespaces for the tests of `stead_net::kernel`, and the programs that judge them.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../support/sys.rs"]
pub(crate) mod sys;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stead_model::address::Mac;
use stead_model::name::LinkName;
use stead_net::kernel::NewLink;

/// Gives the calling test thread a network namespace of its own, in which no link but `lo` is.
pub(crate) use sys::unshare_network as own_namespace;

/// Another network namespace, held by a thread that waits in it for something to do.
pub(crate) struct Netns {
    file: File,
    jobs: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// A new one, with `lo` up.
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, file) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            own_namespace();
            ip("link set lo up");
            ready.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            for job in queue {
                job();
            }
        });
        Self { file: file.recv().unwrap(), jobs: Some(jobs), thread: Some(thread) }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Calls `job` inside.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = move || drop(done.send(job()));
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        result.recv().expect("a job in another namespace failed")
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// Runs a program inside.
    pub(crate) fn program(&self, line: &str) -> Output {
        let line = line.to_owned();
        self.run(move || program(&line))
    }

    /// Whether an address answers within a second or so.
    pub(crate) fn pings(&self, address: &str) -> bool {
        self.program(&format!("ping -n -c 1 -W 1 {address}")).status.success()
    }

    /// Whether an address answers before long (ports and addresses take a moment to work).
    pub(crate) fn reaches(&self, address: &str) -> bool {
        eventually(|| self.pings(address))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs a program of words without quoting.
pub(crate) fn program(line: &str) -> Output {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// What a program prints; it must succeed.
#[track_caller]
pub(crate) fn prints(line: &str) -> String {
    let output = program(line);
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn ip(arguments: &str) -> String {
    prints(&format!("ip {arguments}"))
}

/// Polls for up to ten seconds.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

pub(crate) fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

pub(crate) fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

pub(crate) fn new_link(link: &str, group: u32) -> NewLink {
    NewLink {
        name: name(link),
        alias: format!("stead:test/{link}"),
        mac: Some(Mac::derived(&[link])),
        mtu: Some(1450),
        group,
    }
}
