//! How commands talk with the switchboard: one request and one answer, each a line of JSON, on a socket in
//! the run directory. What it is to serve is not said here: that stands in a file, which it reads again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use stead_model::name::NetworkId;
use stead_model::project::Bind;
use stead_model::served::{Keeper, Served};
use stead_net::process::{self, ProcessId};

use crate::home::{Home, write_run_file};

/// A reload opens sockets and nothing slower.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Starting is a re-execution and one reload.
const START_LIMIT: Duration = Duration::from_secs(10);

/// It says goodbye on each network.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// A killed process is gone when the kernel gets round to it.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What stead is called with to be the switchboard.
pub const WORD: &str = "__switchboard";

/// What it is called with to be the watcher, which starts the switchboard and starts it again when it was killed.
const WATCHER_WORD: &str = "__watcher";

/// What a command asks of the switchboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Read the file again and serve what it says.
    Reload,
    /// Say how it goes.
    Status,
    /// Say goodbye on every network, and end.
    Quit,
}

/// How the switchboard fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the program that it runs; an upgraded stead starts its own.
    #[serde(default)]
    pub version: String,
    /// The mark of the file that is being served.
    pub serves: String,
    /// The networks that cannot be served as wanted, and why.
    pub failed_networks: BTreeMap<NetworkId, String>,
    /// The ports.
    pub ports: BTreeMap<Bind, PortReport>,
    /// Machines that are not ours, and the addresses they were given.
    pub strangers: BTreeMap<NetworkId, Vec<Stranger>>,
}

/// How a published port fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Why it is not open.
    pub error: Option<String>,
    /// Connections or UDP clients just now.
    pub live: u64,
    /// Bytes carried to the machine.
    pub bytes_in: u64,
    /// Bytes carried back.
    pub bytes_out: u64,
}

/// A machine that we do not know and gave an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    /// Its MAC.
    pub mac: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// What it calls itself.
    pub name: Option<String>,
    /// For how many more seconds.
    pub expires_in_s: u64,
}

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A log that has grown beyond this starts anew: it is for finding what went wrong just now.
pub const LOG_MAX_BYTES: u64 = 1024 * 1024;

/// The socket's path.
pub fn socket_path(home: &Home) -> PathBuf {
    home.run.join("switchboard.sock")
}

/// Where its process is recorded.
pub fn pid_path(home: &Home) -> PathBuf {
    home.run.join("switchboard.pid")
}

/// Where the process of its watcher is recorded.
pub fn watcher_path(home: &Home) -> PathBuf {
    home.run.join("watcher.pid")
}

/// The switchboard on record, if it lives.
pub fn living(home: &Home) -> Result<Option<ProcessId>> {
    recorded(&pid_path(home))
}

/// Whether somebody starts the switchboard again when it is killed.
pub fn is_watched(home: &Home) -> Result<bool> {
    Ok(recorded(&watcher_path(home))?.is_some())
}

fn recorded(path: &Path) -> Result<Option<ProcessId>> {
    let Some(process) = ProcessId::load(path)? else { return Ok(None) };
    Ok(process.is_alive()?.then_some(process))
}

/// The mark of a served file's text.
pub fn mark(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    stead_model::address::digest(&[&text]).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what is to be served; nothing if the file is absent or damaged, which the next plan then mends.
pub fn load_served(home: &Home) -> Served {
    find_served(home).unwrap_or_default()
}

/// The same; nothing if the file is absent or damaged.
pub fn find_served(home: &Home) -> Option<Served> {
    let text = std::fs::read(home.served()).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Writes what is to be served.
pub fn store_served(home: &Home, served: &Served) -> Result<()> {
    let text = serde_json::to_vec_pretty(served).context("cannot write what is served as JSON")?;
    write_run_file(&home.served(), &text)
}

/// The process that looks after a machine, to [`ProcessId`] and back.
pub fn process_of(keeper: Keeper) -> ProcessId {
    ProcessId { pid: keeper.pid, start_time: keeper.start_time }
}

/// The ports that rest: who looked after their machine has ended, and it with that. It stays so whatever is started
/// later, until they are published anew.
pub fn resting(served: &Served) -> BTreeSet<Bind> {
    let keepers: BTreeSet<Keeper> = served.keepers.values().copied().collect();
    // Where it cannot be known a port stays open, as it was.
    let is_dead = |keeper: &Keeper| !process_of(*keeper).is_alive().unwrap_or(true);
    let dead: BTreeSet<Keeper> = keepers.into_iter().filter(is_dead).collect();
    let rests = |(bind, keeper): (&Bind, &Keeper)| dead.contains(keeper).then_some(*bind);
    served.keepers.iter().filter_map(rests).collect()
}

/// Its processes: it and its watcher, or more while a command that was killed has another one coming up.
pub fn processes(home: &Home) -> Result<Vec<ProcessId>> {
    called(home, &[WATCHER_WORD, WORD])
}

/// The processes of this home that are called with one of these words.
fn called(home: &Home, any: &[&str]) -> Result<Vec<ProcessId>> {
    let (state, run) = (home.state.as_os_str().as_bytes(), home.run.as_os_str().as_bytes());
    let is_called = |word: &&str, words: &[&[u8]]| words.get(1..) == Some(&[word.as_bytes(), state, run]);
    let mut found = process::find(|words| any.iter().any(|word| is_called(word, words)))?;
    found.retain(|process| process::sees(*process, &home.run));
    Ok(found)
}

/// Asks the switchboard; nothing if none listens.
pub fn ask(home: &Home, request: Request) -> Result<Option<Report>> {
    let path = socket_path(home);
    let doing = || format!("the switchboard does not answer at {}", path.display());
    // One that ended before it came to us says nothing, or half of it; and so does one that we have kept waiting.
    for _ in 0..2 {
        let Ok(mut stream) = stead_net::unix::connect(&path) else { return Ok(None) };
        stream.set_read_timeout(Some(ANSWER_LIMIT)).with_context(doing)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).with_context(doing)?;
        let answer = talk(&mut stream, request).with_context(doing)?;
        if answer.ends_with('\n') {
            return serde_json::from_str(&answer).map(Some).with_context(doing);
        }
    }
    Ok(None)
}

fn talk(stream: &mut UnixStream, request: Request) -> Result<String> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    let mut answer = String::new();
    let talked = stream.write_all(&line).and_then(|()| BufReader::new(stream).read_line(&mut answer));
    match talked {
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => Ok(String::new()),
        talked => Ok(talked.map(|_| answer)?),
    }
}

/// Has the switchboard read its file again; ends one that hangs, or says what we do not understand. Its watcher starts
/// another, which reads the file as well.
pub fn reload_or_end(home: &Home) -> Result<Option<Report>> {
    ask(home, Request::Reload).or_else(|error| {
        tracing::warn!("the switchboard is ended: {error:#}");
        called(home, &[WORD])?.into_iter().try_for_each(kill)?;
        Ok(None)
    })
}

/// Starts the switchboard, by way of its watcher, or has the one that lives read its file again, and waits until it serves
/// it. One that lives and has lost its watcher goes on, with another.
pub fn start(home: &Home, program: &Path) -> Result<Report> {
    let mut goes_on = false;
    match ask(home, Request::Reload) {
        Ok(Some(report)) if report.version == VERSION => {
            if is_watched(home)? {
                return Ok(report);
            }
            goes_on = living(home)?.is_some();
            if goes_on { end_watchers(home)? } else { stop(home)? }
        }
        Ok(Some(_)) => stop(home)?,
        // One that does not listen yet: whoever started it was killed.
        Ok(None) => end(home, Asked::No)?,
        // It hangs, or says what we do not understand.
        Err(error) => {
            tracing::warn!("the switchboard is started again: {error:#}");
            end(home, Asked::No)?;
        }
    }
    let log = home.run.join("switchboard.log");
    if !goes_on {
        crate::home::remove_if_there(&log)?;
    }
    // By appending alone can a log be cut while it is written to.
    let options = std::fs::File::options().create(true).append(true).open(&log);
    let file = options.with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new(program)
        .arg(WATCHER_WORD)
        .arg(&home.state)
        .arg(&home.run)
        // It outlives the command, and does not keep its directory's disk busy.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .context("cannot start the switchboard")?;
    let start = Instant::now();
    loop {
        if is_watched(home)?
            && let Some(report) = ask(home, Request::Status)?
        {
            return Ok(report);
        }
        let ended = child.try_wait().context("cannot look after the switchboard")?;
        if ended.is_some() || start.elapsed() > START_LIMIT {
            // It may still live and be stuck; whether it can be ended does not change the error.
            let _ = end(home, Asked::No);
            let _ = child.wait();
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            let last = words.lines().last().unwrap_or("it left no word").to_owned();
            bail!("the switchboard did not come up within {} s: {last}", START_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a switchboard was told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Yes,
    No,
}

/// Ends the switchboard, by request or else by force.
pub fn stop(home: &Home) -> Result<()> {
    let answers = matches!(ask(home, Request::Quit), Ok(Some(_)));
    end(home, if answers { Asked::Yes } else { Asked::No })
}

fn end(home: &Home, asked: Asked) -> Result<()> {
    // Whoever would start another goes first.
    end_watchers(home)?;
    for process in called(home, &[WORD])? {
        if asked == Asked::No || !process.wait_gone(GOODBYE_LIMIT)? {
            kill(process)?;
        }
    }
    [pid_path(home), socket_path(home)].iter().try_for_each(|path| crate::home::remove_if_there(path))
}

fn end_watchers(home: &Home) -> Result<()> {
    let mut watchers = called(home, &[WATCHER_WORD])?;
    // One that was about to start another leaves a child, which for a moment is called as it was.
    while !watchers.is_empty() {
        watchers.into_iter().try_for_each(kill)?;
        watchers = called(home, &[WATCHER_WORD])?;
    }
    crate::home::remove_if_there(&watcher_path(home))
}

fn kill(process: ProcessId) -> Result<()> {
    process.kill(rustix::process::Signal::KILL)?;
    if !process.wait_gone(KILL_LIMIT)? {
        bail!("the switchboard (process {}) cannot be ended", process.pid);
    }
    Ok(())
}
