//! How commands talk with the keeper of a machine: where its files are, what it is given, what may be asked of
//! it on its socket, and what it answers.

mod ending;
mod guest;
mod named;
mod network;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use stead_model::container::{Launch, Signal};
use stead_model::name::{MachineId, Name};
use stead_model::project::Condition;
use stead_net::process::ProcessId;

use crate::history::Own;
use crate::home::Home;

pub use self::ending::{Exit, Stop};
pub use self::guest::{Boots, Guest, GuestNic, Seed};
pub use self::named::{HeldFiles, cgroup_of};
pub use self::network::NetworkMark;

/// A keeper answers at once, but for what it is told to wait for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a keeper is given to run, in a file of the machine's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// What is launched.
    pub launch: Launch,
    /// The directories of the image's layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// Where the project's volumes are.
    pub volumes: BTreeMap<Name, PathBuf>,
    /// Its control group, below the one in which all containers of stead are.
    pub cgroup: String,
    /// The machine's `/etc/hosts`.
    pub hosts: String,
    /// Its `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The guest that it is run in; in this computer's own kernel where absent.
    #[serde(default)]
    pub guest: Option<Guest>,
}

impl Assignment {
    /// Reads it.
    pub fn load(files: &Files) -> Result<Self> {
        let text = std::fs::read(files.assignment()).context("cannot read what to run")?;
        serde_json::from_slice(&text).context("cannot read what to run")
    }
}

/// What a starting keeper tells whoever started it, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The machine runs.
    Started,
    /// It does not; with the exit code that a shell would give: 127 where there is no such program, 126 where
    /// it cannot be run, 125 for everything else.
    Failed {
        /// Why not.
        why: String,
        /// The exit code.
        code: u8,
    },
}

/// What may be asked of a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How it goes.
    Status,
    /// Send a signal to the machine's first process.
    Signal(Signal),
    /// End the machine for good, killing it after so many milliseconds or its own time of grace. Answered when
    /// it has ended.
    Stop(Stop),
    /// End it, and start it anew. Answered when it runs again.
    Restart {
        /// The time of grace.
        grace_ms: Option<u64>,
        /// Whether it boots, though it could go on from where another one was saved.
        #[serde(default)]
        is_cold: bool,
    },
    /// Hold it.
    Pause,
    /// Let it go on.
    Unpause,
    /// Hold it for as long as this connection lasts, if it runs; then it goes on. What was held before stays so.
    Hold,
    /// Carry its console, if it has a guest: what was said there last, and then both ways. The answer is [`Attached`], frames
    /// follow.
    Console,
    /// Answer when it is so far, or cannot be any more.
    Await(Condition),
    /// What can be seen in the machine, if it has a guest. Answered by [`Answer::Seen`].
    Look(Look),
    /// Take files out of it, if it has a guest: their parcel comes as output. The answer is [`Attached`], frames follow.
    Read {
        /// The path in the machine.
        path: String,
    },
    /// Put files into it, if it has a guest: their parcel is input. The answer is [`Attached`], frames follow.
    Write {
        /// The path in the machine.
        path: String,
        /// Whether owners and rights stay.
        keep_owners: bool,
    },
    /// Call the machine so from now on, and have its files where those of a machine of that name are. What it is called
    /// already is done: so it is tried whether this can be asked.
    Rename {
        /// Its name.
        to: MachineId,
    },
    /// Start another program in the machine, if it has a guest. The answer is [`Attached`], frames follow.
    Exec(Box<Exec>),
    /// Carry its output from now on, its exit, and what is typed. The answer is [`Attached`], frames follow.
    Attach {
        /// Whether what the client sends is its standard input.
        stdin: bool,
        /// Whether the machine waits for the client to read, however long that takes: it was started for that.
        /// For others it waits for a while.
        #[serde(default)]
        is_waited_for: bool,
    },
}

/// What can be seen in a machine with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// What it uses.
    Usage,
    /// Its processes.
    Processes,
    /// What it changed of its image.
    Changes,
    /// Nothing: whatever was written there is on its disk when this is answered, by an empty list.
    Written,
    /// The same, and its file systems stand still until it was held and goes on, or for some seconds.
    StandsStill,
}

/// Another program for a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// More environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Where it starts.
    pub cwd: Option<String>,
    /// As whom: `user[:group]`.
    pub user: Option<String>,
    /// Whether it may do everything.
    pub privileged: bool,
    /// Whether it is the user's login shell instead.
    #[serde(default)]
    pub login: bool,
    /// The rows and columns of its terminal, if it has one.
    pub tty: Option<(u16, u16)>,
    /// Whether what the client sends is its standard input.
    pub stdin: bool,
    /// Whether it is left to itself as soon as it has started.
    #[serde(default)]
    pub detached: bool,
}

/// What a keeper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// How it goes.
    Status(Status),
    /// Frames follow.
    Attached(Attached),
    /// What was asked for, a list in the words of the guest's agent.
    Seen(serde_json::Value),
    /// It could not be done.
    Failed(String),
}

/// How a machine fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its first process, or the VMM of its guest, as this computer numbers it; absent while it waits to be started
    /// again.
    pub init: Option<ProcessId>,
    /// What it does.
    pub phase: Phase,
    /// When it was started last, in milliseconds since 1970.
    pub started_ms: u64,
    /// How often it was started again.
    pub restarts: u32,
    /// How well it is; nothing if nobody looks.
    pub health: Option<HealthState>,
    /// How its last health tests went, the oldest first.
    #[serde(default)]
    pub tests: Vec<Tested>,
    /// How far its present run has got.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

/// How far a machine has got: one with a guest by `prepared`, `vmm`, `kernel`, `modules`, `agent`, `hello`, `disks`,
/// `network` and `started`, a container by `created` and `started`; and `healthy` where somebody looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// When, since the run was begun.
    pub at_ms: u64,
}

/// What a machine that has a keeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its guest comes up.
    Booting,
    /// It runs.
    Running,
    /// It is held.
    Paused,
    /// It has ended, and is to be started again after a while.
    Restarting,
    /// It was told to end.
    Stopping,
}

/// How well a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Not yet known.
    Starting,
    /// Well.
    Healthy,
    /// Not well.
    Unhealthy,
}

/// How a health test went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// When it was begun, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// The exit code; none if it could not be run, or took too long.
    pub code: Option<u8>,
    /// The end of what it wrote, or why there is no code.
    pub output: String,
}

/// The answer to a request to attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Whether there is a terminal.
    pub tty: bool,
    /// The log's file that was being written when the first frame was sent.
    pub log_file: u64,
    /// How much of that file came before.
    pub log_length: u64,
}

/// The files of a machine that we run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What stays: its data, its log, how it ended.
    pub state: PathBuf,
    /// What goes with it or with the computer: its keeper's socket and pid.
    pub run: PathBuf,
}

impl Files {
    /// Where they are.
    pub fn new(home: &Home, id: &MachineId) -> Self {
        Self { state: home.machines().join(id.to_string()), run: home.keepers().join(id.to_string()) }
    }

    /// A hold on this very machine: as long as it lasts, no later one of the same name is taken for it.
    pub fn hold(&self) -> std::io::Result<File> {
        File::open(&self.state)
    }

    /// Whether these are still the files of the machine that is held.
    pub fn are_of(&self, held: &File) -> bool {
        crate::lock::is_at(held, &self.state)
    }

    /// Whether there is such a machine. Its removal begins with this directory, its making ends with it but for the
    /// record.
    pub fn are_whole(&self) -> bool {
        self.state.join("upper").exists() || self.history().exists()
    }

    /// What its keeper is given.
    pub fn assignment(&self) -> PathBuf {
        self.state.join("assignment.json")
    }

    /// How it ended.
    pub fn exit(&self) -> PathBuf {
        self.state.join("exit.json")
    }

    /// By which a vm is another machine than any before it, whatever that was called.
    pub fn instance(&self) -> PathBuf {
        self.state.join("instance")
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// There, if the machine goes when it ends: what it wrote is nobody's afterwards.
    pub fn fleeting(&self) -> PathBuf {
        self.state.join("fleeting")
    }

    /// What the kernel of its guest said.
    pub fn console(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// Which layers it and its snapshots consist of.
    pub fn history(&self) -> PathBuf {
        self.state.join("history.json")
    }

    /// Those layers, but for the first.
    pub fn layers(&self) -> PathBuf {
        self.state.join("layers")
    }

    /// Where its own files are.
    pub fn own(&self) -> Result<Own> {
        Own::load(self)
    }

    /// Where its root is mounted, for its keeper alone.
    pub fn root(&self) -> PathBuf {
        self.state.join("root")
    }

    /// What belongs to its present run, and to one whose keeper was killed.
    pub fn present(&self) -> PathBuf {
        self.state.join("present")
    }

    /// The volumes that its image asks for.
    pub fn own_volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// The key by which it is known to who logs in; its public half is beside it.
    pub fn host_key(&self) -> PathBuf {
        self.state.join("ssh-host-key")
    }

    /// The keeper's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("keeper.sock")
    }

    /// The keeper's process.
    pub fn pid(&self) -> PathBuf {
        self.run.join("keeper.pid")
    }

    /// Is there from the moment in which somebody has the machine ended for good until it is started again: also if whoever
    /// asked for that does not live to see it, or the power goes meanwhile.
    pub fn stopping(&self) -> PathBuf {
        self.state.join("stopping")
    }

    /// In which network it runs, if that is another machine's.
    pub fn network(&self) -> PathBuf {
        self.run.join("network")
    }

    /// What a keeper holds locked while it lives.
    pub fn lock(&self) -> PathBuf {
        self.run.join("keeper.lock")
    }

    /// The keeper's own words.
    pub fn keeper_log(&self) -> PathBuf {
        self.run.join("keeper.log")
    }

    /// The words of its guest's VMM.
    pub fn vmm_log(&self) -> PathBuf {
        self.run.join("vmm.log")
    }

    /// The words of what serves files to its guest.
    pub fn share_log(&self) -> PathBuf {
        self.run.join("share.log")
    }

    /// The keeper, if it lives.
    pub fn keeper(&self) -> Result<Option<ProcessId>> {
        match ProcessId::load(&self.pid())? {
            Some(process) if process.is_alive()? => Ok(Some(process)),
            Some(_) | None => Ok(None),
        }
    }
}

/// A connection to a keeper.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; nothing if no keeper listens.
    pub fn connect(files: &Files) -> Result<Option<Self>> {
        match stead_net::unix::connect(&files.socket()) {
            Ok(stream) => {
                stream.set_write_timeout(Some(ANSWER_LIMIT))?;
                Ok(Some(Self { stream: BufReader::new(stream) }))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot reach the keeper in {}", files.run.display()))
            }
        }
    }

    /// Asks, and waits for the answer; `limit` is how long beyond the time that an answer takes anyway.
    pub fn ask(&mut self, request: &Request, limit: Option<Duration>) -> Result<Answer> {
        let doing = || "the keeper does not answer".to_owned();
        let limit = limit.map(|limit| limit + ANSWER_LIMIT);
        self.stream.get_ref().set_read_timeout(limit).with_context(doing)?;
        let mut line = serde_json::to_vec(request).with_context(doing)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).with_context(doing)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).with_context(doing)?;
        if answer.is_empty() {
            bail!("the keeper ended before it answered");
        }
        serde_json::from_str(&answer).with_context(doing)
    }

    /// The connection, for frames.
    pub fn into_stream(self) -> Result<BufReader<UnixStream>> {
        self.stream.get_ref().set_read_timeout(None).context("cannot wait for the keeper")?;
        self.stream.get_ref().set_write_timeout(None).context("cannot wait for the keeper")?;
        Ok(self.stream)
    }
}

/// How a machine fares; nothing if it has no keeper.
pub fn status(home: &Home, id: &MachineId) -> Result<Option<Status>> {
    let Some(mut client) = Client::connect(&Files::new(home, id))? else { return Ok(None) };
    match client.ask(&Request::Status, Some(Duration::ZERO))? {
        Answer::Status(status) => Ok(Some(status)),
        other => bail!("the keeper answered {other:?}"),
    }
}
