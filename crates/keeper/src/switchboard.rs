//! The switchboard: serves DHCP, DNS and router advertisements on the networks and carries the published
//! ports. One process per home, started by the first command that needs it, by way of its watcher, and ended with the
//! last network.
//!
//! It stays in the host's namespaces. Its sockets among the networks are made by the anchor; those of the
//! published ports are its own. All it is to serve stands in one file, so killing it loses nothing: the watcher,
//! or the next command, starts another, which reads the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, fstat, ftruncate};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use stead_host::home::{Home, remove_if_there};
use stead_host::switchboard::{
    LOG_MAX_BYTES, PortReport, Report, Request, Stranger, VERSION, mark, pid_path, process_of, resting,
    socket_path,
};
use stead_model::served::{Keeper, Served};
use stead_net::forward::Forwards;
use stead_net::process::{ProcessId, let_go_of_program};
use stead_net::serve::{Services, Upstream};

use crate::sockets::Sockets;

/// A request is one short line; whoever takes longer is not one of us.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_MAX_BYTES: u64 = 4096;

/// How soon a keeper is looked at again whose end cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the log is looked at: a machine that provokes warnings has no say in how large it gets.
const LOG_LOOK_EVERY: Duration = Duration::from_secs(60);

/// The resolvers of this computer.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Serves the networks of a home until it is told to end.
pub fn run(home: &Home) -> Result<()> {
    // Nobody's terminal: what ends the command that started us does not end us.
    let _already_leader = rustix::process::setsid();
    // A short name tells people what the process is; nothing depends on it.
    let _unnamed = rustix::thread::set_name(c"stead-switchbrd");
    let lock_path = home.run.join("switchboard.lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        bail!("another switchboard serves this home");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(serve(home))
}

async fn serve(home: &Home) -> Result<()> {
    let mut board = Board::new(home)?;
    let path = socket_path(home);
    remove_if_there(&path)?;
    // First: whoever changes the file while it is read has it read again, and waits for the answer.
    let listener = stead_net::unix::listen(&path)?;
    board.reload().await;
    let listener = from_std(listener).with_context(|| format!("cannot listen at {}", path.display()))?;
    ProcessId::own()?.store(&pid_path(home))?;
    let mut log_look = tokio::time::interval(LOG_LOOK_EVERY);
    let_go_of_program();
    loop {
        let stream = tokio::select! {
            _ = log_look.tick() => {
                bound_log(rustix::stdio::stderr()).context("cannot bound the log")?;
                continue;
            }
            _ = board.ends.join_next(), if !board.ends.is_empty() => {
                board.close_resting().await;
                continue;
            }
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
        };
        match stream {
            Ok(stream) => {
                if answer(&mut board, stream).await? == Request::Quit {
                    break;
                }
                // What it takes to answer commands, and to read the file, is not needed to serve what that says.
                let_go_of_program();
            }
            // Out of descriptors, or the client is gone: the next one may fare better.
            Err(error) => {
                tracing::warn!("cannot take a request: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Says goodbye on every network, so that machines drop their routes.
    board.services.set(&Default::default()).await;
    remove_if_there(&pid_path(home))?;
    remove_if_there(&path)
}

/// Starts the log anew if it has grown too large.
fn bound_log(log: BorrowedFd<'_>) -> std::io::Result<()> {
    let stat = fstat(log)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file && u64::try_from(stat.st_size).is_ok_and(|size| size > LOG_MAX_BYTES) {
        ftruncate(log, 0)?;
        tracing::warn!("the log had more than {LOG_MAX_BYTES} bytes and starts anew");
    }
    Ok(())
}

fn from_std(listener: StdListener) -> std::io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// What is served.
struct Board {
    home: Home,
    services: Services,
    forwards: Forwards,
    report: Report,
    /// What the file says.
    served: Served,
    /// The keepers whose ends are waited for. Their ports close then, and stay closed: they are another keeper's to open.
    keepers: BTreeMap<Keeper, AbortHandle>,
    ends: JoinSet<()>,
}

impl Board {
    fn new(home: &Home) -> Result<Self> {
        let sockets = Arc::new(Sockets::new(home));
        let for_services = Arc::clone(&sockets);
        let services = Services::new(
            Box::new(move |socket| for_services.open(socket)),
            Upstream::ResolvConf(PathBuf::from(RESOLV_CONF)),
            home.strangers(),
        );
        let forwards = Forwards::new(move |socket| sockets.open(socket));
        Ok(Self {
            home: home.clone(),
            services,
            forwards,
            report: Report::default(),
            served: Served::default(),
            keepers: BTreeMap::new(),
            ends: JoinSet::new(),
        })
    }

    /// Serves what the file says now.
    async fn reload(&mut self) {
        let text = match std::fs::read(self.home.served()) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return tracing::error!("cannot read what to serve: {error}"),
        };
        let served: Served = if text.is_empty() {
            Served::default()
        } else {
            match serde_json::from_slice(&text) {
                Ok(served) => served,
                // What is served stays as it is; the command that asked sees that the mark is not its file's.
                Err(error) => return tracing::error!("what to serve cannot be read: {error}"),
            }
        };
        let failed = self.services.set(&served.networks).await;
        self.served = served;
        self.follow();
        self.open_ports().await;
        self.report.serves = mark(&text);
        self.report.failed_networks =
            failed.into_iter().map(|(id, error)| (id, format!("{error:#}"))).collect();
        if let Some(error) = self.forwards.calls_error() {
            let networks = self.served.networks.iter();
            let called = networks.filter(|(_, network)| network.hosts.values().any(|host| host.calls));
            self.report.failed_networks.extend(called.map(|(id, _)| (id.clone(), error.to_owned())));
        }
    }

    /// Waits for the ends of the keepers that the file names, and of no others.
    fn follow(&mut self) {
        let named: BTreeSet<Keeper> = self.served.keepers.values().copied().collect();
        self.keepers.retain(|keeper, wait| {
            named.contains(keeper) || {
                wait.abort();
                false
            }
        });
        for keeper in named {
            let ends = &mut self.ends;
            self.keepers.entry(keeper).or_insert_with(|| ends.spawn(end(keeper)));
        }
    }

    /// Opens the ports that do not rest, and closes all others.
    async fn open_ports(&mut self) {
        let mut open = self.served.clone();
        let resting = resting(&self.served);
        open.ports.retain(|bind, _| !resting.contains(bind));
        self.forwards.set(&open).await;
    }

    /// Closes those that rest by now.
    async fn close_resting(&mut self) {
        let resting = resting(&self.served);
        if self.forwards.status().keys().any(|bind| resting.contains(bind)) {
            self.open_ports().await;
        }
    }

    fn report(&self) -> Report {
        let ports = self.forwards.status().into_iter().map(|(bind, status)| {
            let report = PortReport {
                error: status.error,
                live: status.live as u64,
                bytes_in: status.to_machine,
                bytes_out: status.to_client,
            };
            (bind, report)
        });
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let strangers = self.services.leases().into_iter().map(|(id, leases)| {
            let leases = leases.into_iter().map(|lease| Stranger {
                mac: lease.mac.to_string(),
                address: lease.address,
                name: lease.host_name,
                expires_in_s: lease.expires_s.saturating_sub(now_s),
            });
            (id, leases.collect())
        });
        let version = VERSION.to_owned();
        Report { version, ports: ports.collect(), strangers: strangers.collect(), ..self.report.clone() }
    }
}

/// Waits for the end of a keeper.
async fn end(keeper: Keeper) {
    let process = process_of(keeper);
    while let Err(error) = process.gone().await {
        tracing::warn!("the ports of a machine may close late: {error:#}");
        tokio::time::sleep(LOOK_AGAIN).await;
        if !process.is_alive().unwrap_or(true) {
            return;
        }
    }
}

/// Answers one request. A client that misbehaves is dropped; it never stops the switchboard.
async fn answer(board: &mut Board, stream: UnixStream) -> Result<Request> {
    let mut stream = BufReader::new(stream.into_std().and_then(UnixStream::from_std)?);
    let mut line = String::new();
    let read = (&mut stream).take(REQUEST_MAX_BYTES);
    let mut read = BufReader::new(read);
    let request = match tokio::time::timeout(REQUEST_LIMIT, read.read_line(&mut line)).await {
        Ok(Ok(_)) => serde_json::from_str(&line).unwrap_or(Request::Status),
        Ok(Err(_)) | Err(_) => return Ok(Request::Status),
    };
    match request {
        Request::Reload => board.reload().await,
        // Whoever saw a machine end is told of no open port of it.
        Request::Status => board.close_resting().await,
        Request::Quit => {}
    }
    let mut text = serde_json::to_string(&board.report()).context("cannot write a report")?;
    text.push('\n');
    let written = tokio::time::timeout(REQUEST_LIMIT, stream.write_all(text.as_bytes())).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::debug!("a client went away before its answer");
    }
    Ok(request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_log_that_grew_too_large_starts_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = File::options().create(true).append(true).open(&path).unwrap();
        log.write_all(&vec![b'x'; usize::try_from(LOG_MAX_BYTES).unwrap()]).unwrap();
        bound_log(log.as_fd()).unwrap();
        assert_eq!(log.metadata().unwrap().len(), LOG_MAX_BYTES);
        log.write_all(b"y").unwrap();
        bound_log(log.as_fd()).unwrap();
        log.write_all(b"z").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"z");
    }
}
