//! Published ports: streams and datagrams carried from the host to a machine.
//!
//! ```text
//!  client ──▶ listener (host's namespace) ──splice──▶ socket (engine's namespace) ──▶ machine
//! ```
//!
//! The switchboard lives in the host's namespace; the machines are reachable only in the engine's. A socket
//! keeps the namespace it was made in, so somebody who is in there makes them and hands them to us.

mod calls;
mod engine;
mod listen;
mod owner;
mod pipes;
mod pump;
mod sys;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;

use crate::anchor::{Domain, Kind, SocketKind};
use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stead_model::project::{Bind, Protocol};
use stead_model::served::{Served, Target};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use calls::Calls;
use engine::{Engine, Reach, Route};
use pipes::Pipes;
use pump::Carried;

/// The descriptors that connections leave for all else the process does: listeners, pipes, services, files.
const RESERVED_DESCRIPTORS: u64 = 512;

/// The pipes in use at once; 16 pages each, so no more than an ordinary user's budget (16,384 pages).
const PIPES_MAX: usize = 1024;

/// The threads that carry bytes. More of them did not carry more; see docs/decisions/0071-carrying-bytes.md.
const CARRIERS: usize = 2;

/// The published ports of one switchboard. The sockets live on threads of their own, so that streams at full speed
/// do not keep those waiting who ask for names and addresses. Needs a tokio runtime to be called from.
pub struct Forwards {
    engine: Arc<Engine>,
    ports: BTreeMap<Bind, Port>,
    /// What takes machines' calls to this computer.
    calls: Calls,
    /// There as long as there are ports or calls.
    carriers: Option<Runtime>,
}

/// How a published port fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStatus {
    /// Connections (TCP) or clients (UDP) now.
    pub live: usize,
    /// Bytes carried from clients to the machine since the port was opened.
    pub to_machine: u64,
    /// Bytes carried from the machine to clients.
    pub to_client: u64,
    /// Connections that the machine did not take.
    pub refused: u64,
    /// Why the port is not open.
    pub error: Option<String>,
}

/// Whether nobody on this computer has a port.
pub fn is_free(bind: Bind) -> bool {
    listen::is_free(bind)
}

/// A published port.
enum Port {
    /// Its listener is open.
    Open { shared: Arc<Shared>, task: JoinHandle<()> },
    /// It could not be opened; the next [`Forwards::set`] tries again.
    Failed(String),
}

/// What the tasks of one port share.
#[derive(Debug)]
struct Shared {
    route: Mutex<Arc<Route>>,
    live: AtomicUsize,
    refused: AtomicU64,
    carried: Carried,
}

/// Counts a connection for as long as it lives.
struct Live<'a>(&'a AtomicUsize);

impl Forwards {
    /// No ports yet. `open` makes sockets in the engine's namespace and is called for each connection. Raises
    /// this process's limit on descriptors as far as it goes.
    pub fn new(open: impl Fn(SocketKind) -> anyhow::Result<OwnedFd> + Send + Sync + 'static) -> Self {
        let descriptors = raise_descriptors();
        let free = usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX);
        // Pipes have two, and at most a quarter of all; where there are none left, bytes are copied.
        let pipes = (free / 8).min(PIPES_MAX);
        // A connection has two.
        let room = (free / 2).saturating_sub(pipes);
        let engine = Engine {
            open: Box::new(open),
            pipes: Pipes::new(pipes),
            datagram: Mutex::new(Vec::new()),
            room: Arc::new(Semaphore::new(room.clamp(1, Semaphore::MAX_PERMITS))),
        };
        Self { engine: Arc::new(engine), ports: BTreeMap::new(), calls: Calls::new(room), carriers: None }
    }

    /// Makes the open ports those of `served`, and gives the ones that could not be opened. Ports that are no
    /// longer wanted close with their connections; where only the target changes, connections may finish.
    pub async fn set(&mut self, served: &Served) -> BTreeMap<Bind, anyhow::Error> {
        let gone: Vec<Bind> =
            self.ports.keys().filter(|bind| !served.ports.contains_key(bind)).copied().collect();
        // Close all before opening any: `0.0.0.0:80` may become `127.0.0.1:80`.
        for bind in gone {
            if let Some(Port::Open { task, .. }) = self.ports.remove(&bind) {
                task.abort();
                // Wait until the listener is closed; the result says only that we aborted it.
                let _aborted = task.await;
            }
        }
        let mut errors = BTreeMap::new();
        for (bind, target) in &served.ports {
            let reach = reach(served, target.address);
            if let Some(Port::Open { shared, .. }) = self.ports.get(bind) {
                shared.lead_to(target, reach);
                continue;
            }
            let port = match self.open(*bind, Route::new(target.clone(), reach)) {
                Ok(port) => port,
                Err(error) => {
                    let text = format!("{error:#}");
                    errors.insert(*bind, error);
                    Port::Failed(text)
                }
            };
            self.ports.insert(*bind, port);
        }
        self.set_calls(served).await;
        if self.ports.is_empty()
            && !self.calls.is_any()
            && let Some(carriers) = self.carriers.take()
        {
            carriers.shutdown_background();
        }
        errors
    }

    /// Takes the calls of machines to this computer if there are any that may.
    async fn set_calls(&mut self, served: &Served) {
        let mut hosts = served.networks.values().flat_map(|network| network.hosts.values());
        if !hosts.any(|host| host.calls) {
            return self.calls.close().await;
        }
        let engine = Arc::clone(&self.engine);
        match self.carriers() {
            Ok(carriers) => {
                let carriers = carriers.handle().clone();
                self.calls.open(&engine, &carriers);
            }
            Err(error) => self.calls.fail(&error),
        }
    }

    /// Why machines that may do not reach this computer.
    pub fn calls_error(&self) -> Option<&str> {
        self.calls.error()
    }

    /// The threads that carry bytes.
    fn carriers(&mut self) -> anyhow::Result<&Runtime> {
        let carriers = match self.carriers.take() {
            Some(carriers) => carriers,
            None => carriers().context("cannot start the threads that carry bytes")?,
        };
        Ok(self.carriers.insert(carriers))
    }

    /// How each wanted port fares.
    pub fn status(&self) -> BTreeMap<Bind, PortStatus> {
        self.ports.iter().map(|(bind, port)| (*bind, port.status())).collect()
    }

    fn open(&mut self, bind: Bind, route: Route) -> anyhow::Result<Port> {
        let shared = Arc::new(Shared {
            route: Mutex::new(Arc::new(route)),
            live: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            carried: Carried::default(),
        });
        let engine = Arc::clone(&self.engine);
        let carriers = self.carriers()?;
        // The listener belongs to the runtime whose context it is made in.
        let context = carriers.enter();
        let listener = listen::open(bind)?;
        let task = match bind.protocol {
            Protocol::Tcp => tokio::spawn(tcp::serve(listener, Arc::clone(&shared), engine)),
            Protocol::Udp => tokio::spawn(udp::serve(listener, Arc::clone(&shared), engine)),
        };
        drop(context);
        Ok(Port::Open { shared, task })
    }
}

impl Drop for Forwards {
    fn drop(&mut self) {
        self.calls.abort();
        for port in self.ports.values() {
            if let Port::Open { task, .. } = port {
                task.abort();
            }
        }
        // To wait for threads is forbidden to those who are called from a runtime.
        if let Some(carriers) = self.carriers.take() {
            carriers.shutdown_background();
        }
    }
}

impl Port {
    fn status(&self) -> PortStatus {
        match self {
            Self::Open { shared, .. } => PortStatus {
                live: shared.live.load(Ordering::Relaxed),
                to_machine: shared.carried.to_machine.load(Ordering::Relaxed),
                to_client: shared.carried.to_client.load(Ordering::Relaxed),
                refused: shared.refused.load(Ordering::Relaxed),
                error: None,
            },
            Self::Failed(error) => PortStatus { error: Some(error.clone()), ..PortStatus::default() },
        }
    }
}

impl Shared {
    /// Where the port leads now.
    fn route(&self) -> Arc<Route> {
        Arc::clone(&self.route.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets new connections go to `target`.
    fn lead_to(&self, target: &Target, reach: Reach) {
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        if route.target != *target || route.reach != reach {
            *route = Arc::new(Route::new(target.clone(), reach));
        }
    }

    /// Counts a connection until the value is dropped.
    fn enter(&self) -> Live<'_> {
        self.live.fetch_add(1, Ordering::Relaxed);
        Live(&self.live)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A TCP socket of the address's family.
fn stream(address: IpAddr) -> SocketKind {
    SocketKind { domain: domain(address), kind: Kind::Stream, protocol: 0 }
}

/// A UDP socket of the address's family.
fn datagram(address: IpAddr) -> SocketKind {
    SocketKind { domain: domain(address), kind: Kind::Datagram, protocol: 0 }
}

fn domain(address: IpAddr) -> Domain {
    match address {
        IpAddr::V4(_) => Domain::Inet,
        IpAddr::V6(_) => Domain::Inet6,
    }
}

/// What is known of the way to a machine's address.
fn reach(served: &Served, address: IpAddr) -> Reach {
    let nets = |network: &stead_model::served::ServedNetwork| {
        [network.gateway.map(IpNet::V4), network.gateway6.map(IpNet::V6)].into_iter().flatten()
    };
    Reach {
        routed: served
            .networks
            .values()
            .any(|network| network.routes && nets(network).any(|net| net.contains(&address))),
        subnets: served.networks.values().flat_map(nets).collect(),
    }
}

/// The threads that carry bytes.
fn carriers() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(CARRIERS).thread_name("stead-ports").enable_all().build()
}

/// Raises the limit on descriptors to the hard limit, and gives what it is then.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::debug!(%error, "the limit on open files stays");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}
