//! A published TCP port: accepts, connects to the machine, and lets [`super::pump`] carry the bytes.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::Shared;
use super::engine::Engine;
use super::pump::{carry, reset, stream};

/// When a connection is silent for so long, the peer's kernel is asked whether it is still there. It may stay
/// silent for ever, as long as it answers.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// How often it is asked again.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// How often in all, before it counts as dead.
const KEEPALIVE_TRIES: u32 = 4;

/// How many connections are accepted before the open ones have their turn.
const ACCEPTED_AT_ONCE: usize = 32;

/// The pause when the kernel has no memory or descriptors left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Sets what holds for both sockets of a connection. A listener hands it on to what it accepts.
pub(super) fn prepare(socket: impl AsFd) -> rustix::io::Result<()> {
    // The other end has put the bytes together as it wants them: waiting for more would only add delay.
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_TRIES)
}

/// Accepts until the task is aborted; the connections end with it.
pub(super) async fn serve(listener: AsyncFd<OwnedFd>, shared: Arc<Shared>, engine: Arc<Engine>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // At the limit we leave connections in the kernel's queue rather than spin on its refusal.
        let permit = tokio::select! {
            permit = Arc::clone(&engine.room).acquire_owned() => permit,
            Some(_) = connections.join_next() => continue,
        };
        let Ok(permit) = permit else { return };
        tokio::select! {
            readable = listener.readable() => {
                let Ok(mut readable) = readable else { return };
                match accept(&listener, permit, &shared, &engine, &mut connections) {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(Errno::AGAIN) => readable.clear_ready(),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection now");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Accepts what is there, up to a number; the error `AGAIN` says that nothing is left.
fn accept(
    listener: &AsyncFd<OwnedFd>,
    permit: OwnedSemaphorePermit,
    shared: &Arc<Shared>,
    engine: &Arc<Engine>,
    connections: &mut JoinSet<()>,
) -> Result<(), Errno> {
    let mut permit = Some(permit);
    for _ in 0..ACCEPTED_AT_ONCE {
        let Some(held) = permit.take().or_else(|| Arc::clone(&engine.room).try_acquire_owned().ok()) else {
            return Ok(());
        };
        match acceptfrom_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((socket, Some(peer))) => {
                let Ok(peer) = SocketAddr::try_from(peer) else { continue };
                connections.spawn(connection(socket, peer, Arc::clone(shared), Arc::clone(engine), held));
            }
            // The client was gone before we came to it.
            Ok((_, None)) | Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One connection from its first byte to its last.
async fn connection(
    socket: OwnedFd,
    client: SocketAddr,
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    _permit: OwnedSemaphorePermit,
) {
    let _live = shared.enter();
    let route = shared.route();
    // In a box: the way to a connection is wide, and a connection that stands should not carry it along.
    let machine = Box::pin(engine.connect(client, &route)).await;
    match machine {
        Ok(machine) => {
            if let Ok(client) = stream(socket) {
                carry(client, machine, &engine.pipes, &shared.carried).await;
            }
        }
        Err(error) => {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(machine = %route.target.machine, "cannot connect: {error:#}");
            reset(&socket);
        }
    }
}
