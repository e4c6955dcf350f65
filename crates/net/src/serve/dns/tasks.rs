//! The loops of DNS: datagrams and streams.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::reply::Reply;
use super::resolver::Resolver;
use super::{Decision, Question, Transport, decide, relay};
use crate::serve::socket::Link;
use crate::serve::store::lock;
use crate::serve::tasks::{BATCH, Wish, current, ended, tolerate};

/// A question is far shorter.
const QUESTION_MAX_BYTES: usize = 2048;
/// How long a stream may be idle, or take over a question or an answer.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// Streams at once on one address.
const STREAMS_MAX: usize = 64;
/// Of these, those of one client: who opens them and says nothing leaves room for the others.
const STREAMS_OF_ONE_MAX: usize = 8;
/// Questions of one client by datagram that wait for another resolver: a quarter of what it is asked at once.
const WAITING_OF_ONE_MAX: usize = 64;
/// After an error of `accept`, such as no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn udp(fd: OwnedFd, link: Link, mut wish: Wish, resolver: Arc<Resolver>) -> Result<()> {
    let socket = Arc::new(UdpSocket::from_std(fd.into())?);
    let shares = Shares::default();
    let mut buffer = [0; QUESTION_MAX_BYTES];
    loop {
        tokio::select! {
            () = ended(&mut wish) => return Ok(()),
            ready = socket.readable() => ready?,
        }
        let Some(net) = current(&wish) else { return Ok(()) };
        for _ in 0..BATCH {
            let (count, from) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tolerate(&socket, &link, &error)?;
                    continue;
                }
            };
            let packet = buffer.get(..count).unwrap_or(&[]);
            let answer = match decide(&net, from.ip(), packet, Transport::Udp) {
                Decision::Silence => continue,
                Decision::Answer(answer) => Some(answer),
                Decision::Forward(question) => match resolver.known(&question) {
                    Some((reply, age_s)) => relay(packet, Transport::Udp, &reply, age_s),
                    None => match shares.take(from.ip(), WAITING_OF_ONE_MAX) {
                        Some(share) => {
                            let socket = Arc::clone(&socket);
                            let asker = Asker { socket, from, packet: packet.into(), _share: share };
                            tokio::spawn(asker.wait(Arc::clone(&resolver), question));
                            continue;
                        }
                        None => relay(packet, Transport::Udp, &Reply::failed(), 0),
                    },
                },
            };
            // What does not fit into the socket's queue is lost, as datagrams are; the client asks again.
            if let Some(Err(error)) = answer.map(|answer| socket.try_send_to(&answer, from)) {
                tolerate(&socket, &link, &error)?;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// A client that waits for another resolver.
struct Asker {
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    packet: Box<[u8]>,
    _share: Share,
}

/// How much of what all clients share each has in use.
#[derive(Clone, Default)]
struct Shares(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One client's use of one thing, given back when dropped.
struct Share {
    shares: Shares,
    client: IpAddr,
}

impl Shares {
    /// One more for `client`, if it has fewer than `limit`.
    fn take(&self, client: IpAddr, limit: usize) -> Option<Share> {
        let mut used = lock(&self.0);
        let count = used.get(&client).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        used.insert(client, count + 1);
        Some(Share { shares: self.clone(), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = lock(&self.shares.0);
        match used.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(used.remove(&self.client)),
        }
    }
}

impl Asker {
    async fn wait(self, resolver: Arc<Resolver>, question: Question) {
        let reply = resolver.ask(&question).await.unwrap_or_else(|| Arc::new(Reply::failed()));
        let Some(answer) = relay(&self.packet, Transport::Udp, &reply, 0) else { return };
        if let Err(error) = self.socket.try_send_to(&answer, self.from) {
            tracing::debug!("no answer to {}: {error}", self.from);
        }
    }
}

pub(crate) async fn tcp(fd: OwnedFd, link: Link, mut wish: Wish, resolver: Arc<Resolver>) -> Result<()> {
    let listener = TcpListener::from_std(fd.into())?;
    let mut streams = JoinSet::new();
    let shares = Shares::default();
    loop {
        tokio::select! {
            () = ended(&mut wish) => return Ok(()),
            Some(_) = streams.join_next() => {}
            accepted = listener.accept(), if streams.len() < STREAMS_MAX => match accepted {
                Ok((stream, client)) => {
                    // One too many is closed; its client can ask again on those that it has.
                    let Some(share) = shares.take(client.ip(), STREAMS_OF_ONE_MAX) else { continue };
                    let served = serve(stream, client.ip(), wish.clone(), Arc::clone(&resolver));
                    streams.spawn(async move {
                        let _share = share;
                        served.await
                    });
                }
                Err(error) => {
                    tolerate(&listener, &link, &error)?;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Answers the questions of one stream, one after the other. An error ends it; the client sees that.
async fn serve(mut stream: TcpStream, client: IpAddr, wish: Wish, resolver: Arc<Resolver>) -> Result<()> {
    loop {
        let packet = timeout(STREAM_IDLE, read(&mut stream)).await??;
        let Some(net) = current(&wish) else { return Ok(()) };
        let answer = match decide(&net, client, &packet, Transport::Tcp) {
            Decision::Silence => return Ok(()),
            Decision::Answer(answer) => Some(answer),
            Decision::Forward(question) => {
                let (reply, age_s) = match resolver.known(&question) {
                    Some(known) => known,
                    None => (resolver.ask(&question).await.unwrap_or_else(|| Arc::new(Reply::failed())), 0),
                };
                relay(&packet, Transport::Tcp, &reply, age_s)
            }
        };
        let Some(answer) = answer else { return Ok(()) };
        let mut framed = u16::try_from(answer.len())?.to_be_bytes().to_vec();
        framed.extend(answer);
        timeout(STREAM_IDLE, stream.write_all(&framed)).await??;
    }
}

async fn read(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut packet = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_gives_it_back() {
        let (shares, a, b) = (Shares::default(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let taken = [shares.take(a, 2), shares.take(a, 2), shares.take(a, 2), shares.take(b, 2)];
        assert_eq!(taken.each_ref().map(Option::is_some), [true, true, false, true]);
        drop(taken);
        assert!(shares.take(a, 1).is_some());
        assert!(lock(&shares.0).is_empty());
    }
}
