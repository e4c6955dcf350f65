//! A published UDP port. UDP has no connections, so we make some up: an *association* is a client's address
//! and a socket that speaks with the machine for it alone, until both have been silent for a while.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::engine::{Engine, Route};
use super::pump::Stream;
use super::sys;

/// How long an association is kept that only the client has used; as the kernel's connection tracking.
const IDLE_ONE_WAY: Duration = Duration::from_secs(60);
/// How long one is kept that both have used.
const IDLE_BOTH_WAYS: Duration = Duration::from_secs(180);

/// How many clients a port has at once. Each is a descriptor; beyond this the one that was silent the longest goes.
const ASSOCIATIONS_MAX: usize = 1024;

/// More than the largest datagram (65507 bytes over IPv4, 65527 over IPv6).
const DATAGRAM_BYTES: usize = 65536;

/// How many datagrams are carried before others have their turn.
const TURN_DATAGRAMS: usize = 64;

/// The pause after an error of the listener that is not about one datagram.
const PAUSE: Duration = Duration::from_millis(50);

/// Who speaks: a client, and the address of ours that it speaks to (where we have several).
type Key = (SocketAddr, Option<IpAddr>);

/// One client's way to the machine.
struct Association {
    socket: Stream,
    /// When it was last used, in milliseconds after the port was opened.
    used_ms: AtomicU64,
    /// Whether the machine has answered.
    answered: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

/// The associations of a port.
struct Table {
    entries: HashMap<Key, (Arc<Association>, AbortHandle)>,
    /// One task for each: what the machine says, to the client. It ends when the association has been idle.
    tasks: JoinSet<Key>,
    /// Where they all lead.
    route: Arc<Route>,
}

/// The listener, and what the tasks of its associations need.
struct Port {
    socket: AsyncFd<OwnedFd>,
    opened: Instant,
    shared: Arc<Shared>,
    engine: Arc<Engine>,
}

/// Carries datagrams until the task is aborted; the associations end with it.
pub(super) async fn serve(socket: AsyncFd<OwnedFd>, shared: Arc<Shared>, engine: Arc<Engine>) {
    let mut table = Table { entries: HashMap::new(), tasks: JoinSet::new(), route: shared.route() };
    let port = Arc::new(Port { socket, opened: Instant::now(), shared, engine });
    loop {
        tokio::select! {
            readable = port.socket.readable() => {
                let Ok(mut readable) = readable else { return };
                match port.take_turn(&mut table) {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive a datagram now");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Some(ended) = table.tasks.join_next() => {
                // An aborted one has been taken from the table already.
                if let Ok(key) = ended {
                    table.entries.remove(&key);
                }
            }
        }
    }
}

impl Port {
    /// Carries what clients sent, up to a number; the error `WouldBlock` says that nothing is left.
    fn take_turn(self: &Arc<Self>, table: &mut Table) -> io::Result<()> {
        let mut buffer = self.engine.datagram.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(DATAGRAM_BYTES, 0);
        for _ in 0..TURN_DATAGRAMS {
            let received = match sys::receive(&self.socket, &mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(association) = self.association(table, (received.from, received.to)) else { continue };
            association.used_ms.store(self.now_ms(), Ordering::Relaxed);
            let data = buffer.get(..received.length).unwrap_or_default();
            // The first try may bring the news that an earlier datagram found nobody; then this one is unsent.
            let sent = send(association.socket.get_ref(), data, SendFlags::NOSIGNAL)
                .or_else(|_| send(association.socket.get_ref(), data, SendFlags::NOSIGNAL));
            match sent {
                Ok(sent) => {
                    self.shared.carried.to_machine.fetch_add(sent as u64, Ordering::Relaxed);
                }
                // Datagrams may be lost; the client sends again if it cares.
                Err(error) => tracing::trace!(%error, client = %received.from, "a datagram is lost"),
            }
        }
        Ok(())
    }

    /// The association of a client, made if it has none.
    fn association(self: &Arc<Self>, table: &mut Table, key: Key) -> Option<Arc<Association>> {
        let route = self.shared.route();
        if !Arc::ptr_eq(&route, &table.route) {
            // The port leads elsewhere now: clients start anew there.
            table.tasks.abort_all();
            table.entries.clear();
            table.route = route;
        }
        if let Some((association, _)) = table.entries.get(&key) {
            return Some(Arc::clone(association));
        }
        let permit = match self.room(table) {
            Some(permit) => permit,
            None => {
                tracing::debug!(client = %key.0, "no descriptors left for another client");
                return None;
            }
        };
        let socket = match self.engine.associate(key.0, &table.route) {
            Ok(socket) => socket,
            Err(error) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(client = %key.0, "cannot speak with the machine: {error:#}");
                return None;
            }
        };
        let association = Arc::new(Association {
            socket,
            used_ms: AtomicU64::new(self.now_ms()),
            answered: AtomicBool::new(false),
            _permit: permit,
        });
        let task = table.tasks.spawn(Arc::clone(self).answers(Arc::clone(&association), key));
        table.entries.insert(key, (Arc::clone(&association), task));
        Some(association)
    }

    /// Room for one more client; the one that was silent the longest makes it if need be.
    fn room(&self, table: &mut Table) -> Option<OwnedSemaphorePermit> {
        if table.entries.len() >= ASSOCIATIONS_MAX {
            let oldest = table.entries.iter().min_by_key(|(_, (a, _))| a.used_ms.load(Ordering::Relaxed));
            if let Some(key) = oldest.map(|(key, _)| *key)
                && let Some((_, task)) = table.entries.remove(&key)
            {
                task.abort();
            }
        }
        Arc::clone(&self.engine.room).try_acquire_owned().ok()
    }

    /// Carries what the machine answers, until the association has been idle.
    async fn answers(self: Arc<Self>, association: Arc<Association>, key: Key) -> Key {
        let _live = self.shared.enter();
        loop {
            let limit =
                if association.answered.load(Ordering::Relaxed) { IDLE_BOTH_WAYS } else { IDLE_ONE_WAY };
            let used = Duration::from_millis(association.used_ms.load(Ordering::Relaxed));
            let end = self.opened + used + limit;
            if end <= Instant::now() {
                return key;
            }
            tokio::select! {
                readable = association.socket.readable() => {
                    let Ok(mut readable) = readable else { return key };
                    if self.answer(&association, key) {
                        readable.clear_ready();
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
                () = sleep_until(end) => {}
            }
        }
    }

    /// Carries what is there, up to a number. Whether that was all.
    fn answer(&self, association: &Association, key: Key) -> bool {
        let mut buffer = self.engine.datagram.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(DATAGRAM_BYTES, 0);
        for _ in 0..TURN_DATAGRAMS {
            let length = match recv(association.socket.get_ref(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return true,
                // The machine said that nobody listens there, or cannot be reached. It may yet be.
                Err(error) => {
                    tracing::trace!(%error, client = %key.0, "a datagram found nobody");
                    continue;
                }
            };
            association.answered.store(true, Ordering::Relaxed);
            association.used_ms.store(self.now_ms(), Ordering::Relaxed);
            match sys::send(&self.socket, buffer.get(..length).unwrap_or_default(), key.0, key.1) {
                Ok(()) => {
                    self.shared.carried.to_client.fetch_add(length as u64, Ordering::Relaxed);
                }
                Err(error) => tracing::trace!(%error, client = %key.0, "an answer is lost"),
            }
        }
        false
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
