//! What is said: requests of the host, each on a stream of its own, and the words of both on that stream. All of it
//! is JSON, which an older or newer end can read as far as it knows the words.
//!
//! ```text
//! host                                          guest
//! Hello ──────────────────────────────────────▶ drops what belongs to an earlier session
//!       ◀────────────────────────────────────── Hello
//! Watch ──────────────────────────────────────▶ Stage, Stage, …, Exited, … as they come, those known so far first
//! SetUp ──────────────────────────────────────▶ Done | Failed
//! Mount (in a whole computer) ────────────────▶ Done | Failed
//! Start (container `main`) ───────────────────▶ Started | Failed
//! Attach (container `main`) ──────────────────▶ Attached, output and error as they come, Exited
//! Exec ───────────────────────────────────────▶ Started, output …, Exited | Failed
//! ShutDown ───────────────────────────────────▶ Done, then the guest goes
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use stead_model::address::Mac;
use stead_model::container::{Access, Launch, Mount, Signal};
use stead_model::name::{LinkName, Name};

/// The version of the protocol. Ends of different versions do not talk.
pub const VERSION: u32 = 2;

/// What each end says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol.
    pub version: u32,
    /// The version of the program.
    pub program: String,
}

/// What is asked of a guest. Each request is a stream, on which the answers come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Tell what happens, from the boot on: [`Word::Stage`] and [`Word::Exited`].
    Watch,
    /// Make the guest ready for containers. Answered by [`Word::Done`].
    SetUp(SetUp),
    /// Mount these in a whole computer's own system, unless they are there. Answered by [`Word::Done`].
    Mount(Mounts),
    /// Start a container. Answered by [`Word::Started`].
    Start(Box<Start>),
    /// Carry a container's output from where the host had got to, and its end. Answered by [`Word::Attached`] first
    /// and by [`Word::Exited`] last.
    Attach {
        /// The container.
        container: Name,
        /// Whether what the host sends is its standard input.
        stdin: bool,
    },
    /// Start another process in a container. Answered by [`Word::Started`] first and by [`Word::Exited`] last; by
    /// [`Word::Done`] last if it is left to itself.
    Exec(Exec),
    /// Send a signal to a container's first process. Answered by [`Word::Done`].
    Signal {
        /// The container.
        container: Name,
        /// The signal.
        signal: Signal,
    },
    /// Hold a container's processes. Answered by [`Word::Done`].
    Pause(Name),
    /// Let them go on. Answered by [`Word::Done`].
    Unpause(Name),
    /// What a container uses. Answered by [`Word::Usage`].
    Usage(Name),
    /// The processes in a container. Answered by [`Word::Processes`], and [`Word::Done`] after the last.
    Processes(Name),
    /// What a container changed of its image. Answered by [`Word::Changes`], and [`Word::Done`] after the last.
    Changes(Name),
    /// Who listens in a container. Answered by [`Word::Ports`].
    Ports(Name),
    /// Take files out of a container, as a parcel (`stead_container::pack`) that comes as output. Answered by
    /// [`Word::Done`] after that.
    Read {
        /// The container.
        container: Name,
        /// The path, within its root.
        path: String,
    },
    /// Put files into a container, of a parcel (`stead_container::unpack`) that is sent as input. Answered by
    /// [`Word::Done`] after the end of that.
    Write {
        /// The container.
        container: Name,
        /// The path, within its root.
        path: String,
        /// Whether owners and rights stay; else all is root's.
        keep_owners: bool,
    },
    /// Set the clock. Answered by [`Word::Done`].
    SetClock {
        /// Since 1970.
        time_ns: u64,
    },
    /// Write to disk what is not yet there. Answered by [`Word::Done`].
    Sync,
    /// Write to disk what is not yet there, and hold file systems on disks still until [`Request::GoOn`], or for some
    /// seconds. Answered by [`Word::Done`].
    StandStill,
    /// Let file systems go on that are held still. Answered by [`Word::Done`].
    GoOn,
    /// End containers that still run, write everything to disk and go. Answered by [`Word::Done`] when all is
    /// written and nothing but the end is left.
    ShutDown {
        /// How.
        how: Ending,
        /// How long containers may take after their stop signal; each its own time where absent.
        grace_ms: Option<u64>,
    },
}

/// How a guest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It is switched off, where its machine can be.
    PowerOff,
    /// It is started anew; a VMM that is told not to do that ends.
    Reboot,
}

/// What a guest has to know before it can have containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// Since 1970.
    pub time_ns: u64,
    /// What the guest calls itself.
    pub hostname: String,
    /// Its nics.
    pub nics: Vec<Nic>,
    /// File systems, mounted in this order in [`crate::MOUNTS`], each in a directory with its name.
    pub filesystems: Vec<FileSystem>,
    /// Kernel parameters, of the guest as a whole.
    pub sysctls: BTreeMap<String, String>,
    /// What nobody else knows and no other guest was told, for its random numbers.
    pub entropy: Vec<u8>,
    /// Whether the guest goes on from where another one was saved, so that what it knows of its devices may be wrong.
    pub is_restored: bool,
}

/// What is mounted in a whole computer, in whose system the agent is a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// By their places. Sources of binds are paths of the guest, below [`crate::MOUNTS`].
    pub mounts: BTreeMap<String, Mount>,
    /// Where the volumes among them are: paths of the guest, below [`crate::MOUNTS`].
    pub volumes: BTreeMap<Name, PathBuf>,
    /// The file system with all of them, mounted in a directory there.
    pub from: FileSystem,
}

/// A nic, found by the MAC that its device has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its MAC.
    pub mac: Mac,
    /// That of its device, if it is another one.
    pub device: Option<Mac>,
    /// What it is to be called.
    pub name: LinkName,
    /// Its addresses, with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Routers beyond which everything else is.
    pub gateways: Vec<IpAddr>,
    /// The largest packet; as the device has it where absent.
    pub mtu: Option<u32>,
}

/// A file system of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// Its name, by which containers refer to it.
    pub name: Name,
    /// What it is.
    pub source: Source,
    /// Whether it can be written.
    pub access: Access,
}

/// What a file system is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// On a disk, ext4 or erofs.
    Disk(Disk),
    /// A directory of the host, by virtio-fs with this tag.
    VirtioFs(String),
    /// A directory of the host, by 9p with this tag.
    NineP(String),
    /// In memory.
    Memory {
        /// The most that it holds; half of the memory where absent.
        size_bytes: Option<u64>,
    },
}

/// How a disk is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// By the serial that the VMM gives it; in whatever order disks appear, it is the right one.
    Serial(String),
    /// By its name, `/dev/vda`.
    Path(PathBuf),
}

/// A container to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its name, which no other one has in this guest.
    pub container: Name,
    /// What is launched, as on the host. Sources of its bind mounts are paths of the guest, below [`crate::MOUNTS`].
    pub launch: Launch,
    /// The file systems with the layers of its image, the lowest first.
    pub layers: Vec<Name>,
    /// The file system that takes what it changes, and its own volumes; in memory where absent.
    pub writable: Option<Name>,
    /// Where the volumes that it mounts are: paths of the guest, below [`crate::MOUNTS`].
    pub volumes: BTreeMap<Name, PathBuf>,
    /// Its `/etc/hosts`; as the image has it where absent.
    pub hosts: Option<String>,
    /// Its `/etc/resolv.conf`; as the image has it where absent.
    pub resolv_conf: Option<String>,
    /// How large its terminal is at first, if it has one.
    pub size: Size,
}

/// Another process for a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The container.
    pub container: Name,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// More environment, `NAME=value` each, which goes before the container's.
    pub env: Vec<String>,
    /// Where it starts; where the container did if absent.
    pub cwd: Option<String>,
    /// As whom: `user[:group]`; as the container if absent.
    pub user: Option<String>,
    /// Whether it has all capabilities and makes any system call.
    pub privileged: bool,
    /// Whether it is the user's login shell instead, at home, with nothing but this environment and the user's own.
    #[serde(default)]
    pub login: bool,
    /// How large its terminal is, if it is to have one.
    pub tty: Option<Size>,
    /// Whether what the host sends is its standard input; else it reads nothing.
    pub stdin: bool,
    /// Whether it is left to itself: it reads and writes nothing, and [`Word::Done`] follows once it has started.
    #[serde(default)]
    pub detached: bool,
}

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// How many lines there are.
    pub rows: u16,
    /// How many characters go in a line.
    pub columns: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// What is said on a stream, beside bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Of the guest: it is done.
    Done,
    /// Of the guest: it could not be done; nothing more comes.
    Failed {
        /// Why not.
        why: String,
        /// What a shell would exit with: 127 no such program, 126 it cannot be run, 125 everything else.
        code: u8,
    },
    /// Of the guest: a process runs.
    Started {
        /// Its number, as the guest's kernel counts.
        pid: u32,
    },
    /// Of the guest: output follows.
    Attached {
        /// Whether there is a terminal.
        tty: bool,
    },
    /// Of the guest: a process has ended.
    Exited(Exited),
    /// Of the guest: it has got so far.
    Stage(Stage),
    /// Of the guest: what a container uses.
    Usage(Usage),
    /// Of the guest: processes; more may come in another word.
    Processes(Vec<Process>),
    /// Of the guest: changed files; more may come in another word.
    Changes(Vec<Changed>),
    /// Of the guest: who listens.
    Ports(Vec<Listener>),
    /// Of the host: nothing more is to be read by the process, or comes of a file.
    InputEnd,
    /// Of the host: the terminal is so large from now on.
    Resize(Size),
    /// Of the host, to a process that an [`Exec`] started.
    Signal(Signal),
}

/// How a container or a process in it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The container.
    pub container: Name,
    /// Its exit code; 128 and the signal where one ended it.
    pub code: u8,
    /// Whether it had no memory left.
    pub out_of_memory: bool,
}

/// How far a guest has got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// `kernel` (it runs our program), `modules`, `agent` (it has its stream), `hello`, `disks`, `network`, `started`.
    pub name: String,
    /// When, since the guest's kernel started.
    pub at_us: u64,
}

/// What a container uses. Absent is what cannot be known there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time since its start.
    pub cpu_ns: Option<u64>,
    /// Memory, without what the kernel can take back at once.
    pub memory_bytes: Option<u64>,
    /// The most memory it may use.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The most processes and threads.
    pub pids_limit: Option<u64>,
    /// Read from disks.
    pub read_bytes: Option<u64>,
    /// Written to disks.
    pub written_bytes: Option<u64>,
    /// How often the kernel ended a process in it for want of memory.
    pub oom_kills: Option<u64>,
    /// Received on all nics but the one that leads nowhere.
    pub received_bytes: u64,
    /// Sent on them.
    pub sent_bytes: u64,
    /// All memory of the guest.
    pub guest_memory_bytes: u64,
    /// What of it is in use by anybody.
    pub guest_used_bytes: u64,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, as the guest's kernel counts.
    pub pid: u32,
    /// Its number in the container.
    pub inner_pid: u32,
    /// The number of the process that started it.
    pub parent: u32,
    /// Its user: a name if the container has one for it.
    pub user: String,
    /// How long ago it was started.
    pub age_ms: u64,
    /// Processor time.
    pub cpu_ms: u64,
    /// Memory that it holds.
    pub memory_bytes: u64,
    /// Its command line, or its name in brackets.
    pub command: String,
}

/// A file that is not as in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its path, in the container.
    pub path: String,
    /// What became of it.
    pub change: Change,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// It is another one, or has other rights.
    Changed,
    /// It has gone.
    Deleted,
}

/// Somebody who listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// How.
    pub protocol: Protocol,
    /// On which address.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
}

/// A protocol of published ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
