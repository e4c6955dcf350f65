//! Carries the bytes of one connection, both ways, without them entering this process: `splice` moves pages
//! from one socket to a pipe and on to the other socket.
//!
//! Each way: wait for bytes → take a pipe → (fill it, empty it) until the source has no more → give it back.
//! The pipe is filled only when it is empty, so `EAGAIN` has one meaning at either end, and a peer that does
//! not read stops the other one through the sockets' own windows.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::pipes::{PASSED_BYTES, Pipe, Pipes};
use super::sys::register;

/// A connected socket that does not block.
pub(super) type Stream = AsyncFd<OwnedFd>;

/// What one way may carry before the other connections have their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// What is carried at once when there is no pipe.
const COPY_BYTES: usize = 16 * 1024;

/// The bytes carried, by direction.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// From the clients to the machine.
    pub to_machine: AtomicU64,
    /// From the machine to the clients.
    pub to_client: AtomicU64,
}

/// Registers a socket with the runtime.
pub(super) fn stream(socket: OwnedFd) -> io::Result<Stream> {
    register(socket)
}

/// Carries bytes until both ways are closed. If either side resets the connection, so do we to the other.
pub(super) async fn carry(client: Stream, machine: Stream, pipes: &Pipes, carried: &Carried) {
    let both = async {
        tokio::try_join!(
            one_way(&client, &machine, pipes, &carried.to_machine),
            one_way(&machine, &client, pipes, &carried.to_client),
        )
        .map(|_| ())
    };
    // A reset must be seen even while the way that would read it waits for the other side to take more.
    let end = tokio::select! {
        biased;
        end = both => end,
        () = failed(&client) => Err(io::ErrorKind::ConnectionReset.into()),
        () = failed(&machine) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if let Err(error) = end {
        tracing::trace!(%error, "a connection is reset");
        reset(client.get_ref());
        reset(machine.get_ref());
    }
}

/// Makes closing this socket tell the peer that the connection failed, not that it ended.
pub(super) fn reset(socket: &OwnedFd) {
    if let Err(error) = set_socket_linger(socket, Some(Duration::ZERO)) {
        tracing::trace!(%error, "a connection ends instead of being reset");
    }
}

/// Waits until the kernel reports an error on the socket.
async fn failed(stream: &Stream) {
    // An error of the runtime itself ends the connection as well.
    let _ready = stream.ready(Interest::ERROR).await;
}

/// Carries bytes until `from` ends, and then passes the end on.
async fn one_way(from: &Stream, to: &Stream, pipes: &Pipes, count: &AtomicU64) -> io::Result<()> {
    loop {
        let mut readable = from.readable().await?;
        let turn = match pipes.take() {
            Ok(pipe) => by_pipe(from, to, pipe, count).await.map(|(turn, pipe)| {
                pipes.put(pipe);
                turn
            })?,
            // No room for a pipe: slower, but it goes on.
            Err(_) => by_copy(from, to, count).await?,
        };
        match turn {
            Turn::Dry => readable.clear_ready(),
            Turn::Over => tokio::task::yield_now().await,
            Turn::End => {
                return match shutdown(to.get_ref(), Shutdown::Write) {
                    // The other side is gone already: there is nobody to tell.
                    Err(Errno::NOTCONN) | Ok(()) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
        }
    }
}

/// How a turn came to its end.
enum Turn {
    /// The source has no more bytes now.
    Dry,
    /// It has, and others are waiting.
    Over,
    /// The source will send no more.
    End,
}

/// Splices for one turn. Gives the pipe back empty; a pipe with bytes in it goes down with its connection.
async fn by_pipe(from: &Stream, to: &Stream, pipe: Pipe, count: &AtomicU64) -> io::Result<(Turn, Pipe)> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let mut moved = 0;
    while moved < TURN_BYTES {
        let mut held = match splice(from.get_ref(), None, &pipe.write, None, PASSED_BYTES, flags) {
            Ok(0) => return Ok((Turn::End, pipe)),
            Ok(held) => held,
            Err(Errno::AGAIN) => return Ok((Turn::Dry, pipe)),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        moved += held;
        // `MORE` is not used: it would hold back the end of what is there until something follows. Within
        // one call the kernel sets it for itself.
        while held > 0 {
            let mut writable = to.writable().await?;
            match splice(&pipe.read, None, to.get_ref(), None, held, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(gone) => {
                    held = held.saturating_sub(gone);
                    count.fetch_add(gone as u64, Ordering::Relaxed);
                }
                Err(Errno::AGAIN) => writable.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((Turn::Over, pipe))
}

/// Copies for one turn. Bytes are looked at, sent, and only then taken from the source, so that nothing is
/// held here while the other side does not read.
async fn by_copy(from: &Stream, to: &Stream, count: &AtomicU64) -> io::Result<Turn> {
    let mut moved = 0;
    while moved < TURN_BYTES {
        let mut writable = to.writable().await?;
        // Nothing is awaited while the buffer lives, so it is on the stack of one poll only.
        let gone = match copy_once(from, to) {
            Ok(Copied::Bytes(gone)) => gone,
            Ok(Copied::End) => return Ok(Turn::End),
            Ok(Copied::Dry) => return Ok(Turn::Dry),
            Ok(Copied::Full) => {
                writable.clear_ready();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        moved += gone;
        count.fetch_add(gone as u64, Ordering::Relaxed);
    }
    Ok(Turn::Over)
}

/// What one copy came to.
enum Copied {
    /// So many bytes went.
    Bytes(usize),
    /// The source has none now.
    Dry,
    /// The other side takes none now.
    Full,
    /// The source will send no more.
    End,
}

/// Carries what one buffer holds.
fn copy_once(from: &Stream, to: &Stream) -> rustix::io::Result<Copied> {
    let mut buffer = [0; COPY_BYTES];
    let peeked = match recv(from.get_ref(), &mut buffer[..], RecvFlags::PEEK) {
        Ok((0, _)) => return Ok(Copied::End),
        Ok((peeked, _)) => peeked,
        Err(Errno::AGAIN) => return Ok(Copied::Dry),
        Err(error) => return Err(error),
    };
    let sent = match send(to.get_ref(), buffer.get(..peeked).unwrap_or_default(), SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => return Ok(Copied::Full),
        Err(error) => return Err(error),
    };
    let mut taken = 0;
    while taken < sent {
        let rest = buffer.get_mut(taken..sent).unwrap_or_default();
        match recv(from.get_ref(), rest, RecvFlags::empty()) {
            Ok((0, _)) => return Err(Errno::IO),
            Ok((count, _)) => taken += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Copied::Bytes(sent))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn pair() -> (UnixStream, Stream) {
        let (outer, inner) = UnixStream::pair().unwrap();
        inner.set_nonblocking(true).unwrap();
        (outer, stream(inner.into()).unwrap())
    }

    #[tokio::test]
    async fn without_pipes_bytes_are_copied_and_arrive_whole() {
        let ((mut source, from), (mut sink, to)) = (pair(), pair());
        let data: Vec<u8> = (0..3_000_017_u32).map(|number| (number % 251) as u8).collect();
        let expected = data.clone();
        let writer = thread::spawn(move || source.write_all(&data).unwrap());
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            sink.read_to_end(&mut received).unwrap();
            received
        });
        let count = AtomicU64::new(0);
        one_way(&from, &to, &Pipes::new(0), &count).await.unwrap();
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected, "the bytes differ");
        assert_eq!(count.into_inner(), expected.len() as u64);
    }
}
