//! A published TCP port: accepts, connects to the machine, and lets [`super::pump`] carry the bytes.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, getsockname, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// Sends as fast as the peer reads, for a path that stays in this computer. The system's own way (`bbr`) may measure
/// the path and pace what it sends, and a path of memory cannot be measured: that halves what passes. `reno` is in
/// every kernel and open to every user; where it is not, the system's own way is kept.
pub(super) fn go_unpaced(socket: impl AsFd) {
    if let Err(error) = sockopt::set_tcp_congestion(socket, "reno") {
        tracing::debug!(%error, "a stream within this computer may be paced");
    }
}

/// Carries what comes to a published port until the task is aborted; the connections end with it.
pub(super) async fn serve(listener: AsyncFd<OwnedFd>, shared: Arc<Shared>, engine: Arc<Engine>) {
    let carried =
        |socket, client, permit| connection(socket, client, Arc::clone(&shared), Arc::clone(&engine), permit);
    accept_all(listener, Arc::clone(&engine.room), carried).await;
}

/// Accepts until the task is aborted; what is made of the connections ends with it.
pub(super) async fn accept_all<F: Future<Output = ()> + Send + 'static>(
    listener: AsyncFd<OwnedFd>,
    room: Arc<Semaphore>,
    carried: impl Fn(OwnedFd, SocketAddr, OwnedSemaphorePermit) -> F,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // At the limit we leave connections in the kernel's queue rather than spin on its refusal.
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit,
            Some(_) = connections.join_next() => continue,
        };
        let Ok(permit) = permit else { return };
        tokio::select! {
            readable = listener.readable() => {
                let Ok(mut readable) = readable else { return };
                match accept(&listener, permit, &room, &carried, &mut connections) {
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
fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: &AsyncFd<OwnedFd>,
    permit: OwnedSemaphorePermit,
    room: &Arc<Semaphore>,
    carried: &impl Fn(OwnedFd, SocketAddr, OwnedSemaphorePermit) -> F,
    connections: &mut JoinSet<()>,
) -> Result<(), Errno> {
    let mut permit = Some(permit);
    for _ in 0..ACCEPTED_AT_ONCE {
        let Some(held) = permit.take().or_else(|| Arc::clone(room).try_acquire_owned().ok()) else {
            return Ok(());
        };
        match acceptfrom_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((socket, Some(peer))) => {
                let Ok(peer) = SocketAddr::try_from(peer) else { continue };
                connections.spawn(carried(socket, peer, held));
            }
            // The client was gone before we came to it.
            Ok((_, None)) | Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the client of an accepted connection is on this computer: it came from the address it came to, or from
/// one that never leaves.
fn is_of_here(socket: &OwnedFd, client: IpAddr) -> bool {
    let own = || getsockname(socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
    client.is_loopback() || own().is_some_and(|own| own.ip() == client)
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
    if is_of_here(&socket, client.ip()) {
        go_unpaced(&socket);
    }
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_client_of_this_computer_is_sent_to_unpaced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, client) = listener.accept().unwrap();
        let socket = OwnedFd::from(socket);
        assert!(is_of_here(&socket, client.ip()));
        assert!(!is_of_here(&socket, "192.0.2.7".parse().unwrap()));
        go_unpaced(&socket);
        assert_eq!(sockopt::tcp_congestion(&socket).unwrap(), "reno");
    }
}
