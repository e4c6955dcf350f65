//! Asking the computer's own resolvers: in turn, by UDP and where needed by TCP, each question once however many
//! wait for it.
//!
//! Every question goes out from a socket of its own, so from a random port, with a random id, and only what comes
//! from the one that was asked is heard: who would forge an answer has 32 bits to guess.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Question;
use super::cache::Cache;
use super::reply::{self, Heard, Reply};
use crate::serve::Upstream;
use crate::serve::store::lock;

/// How long one resolver is waited for, first and second time round.
const WAIT: [Duration; 2] = [Duration::from_millis(1000), Duration::from_millis(2000)];
/// libc's own limit (`MAXNS`).
const SERVERS_MAX: usize = 3;
/// Questions under way at once: each holds a socket.
const QUESTIONS_MAX: usize = 256;
/// Clients that wait for them.
const WAITING_MAX: usize = 4096;
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What we say that we take, and somewhat more for those who do not listen.
const DATAGRAM_MAX_BYTES: usize = 4096;

/// The computer's resolvers and what they said.
pub(crate) struct Resolver {
    upstream: Upstream,
    state: Mutex<State>,
    start: Instant,
    random: RandomState,
}

#[derive(Default)]
struct State {
    cache: Cache,
    under_way: HashMap<Question, Vec<oneshot::Sender<Arc<Reply>>>>,
    waiting: usize,
    servers: Vec<SocketAddr>,
    looked: Option<Instant>,
    seen: Option<SystemTime>,
    /// The one that answered last.
    best: usize,
    /// Our own addresses, which are not to be asked.
    own: HashSet<IpAddr>,
    number: u64,
}

impl Resolver {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self { upstream, state: Mutex::default(), start: Instant::now(), random: RandomState::new() }
    }

    /// Says which addresses are our own.
    pub(crate) fn set_own(&self, own: HashSet<IpAddr>) {
        let mut state = lock(&self.state);
        (state.own, state.looked, state.seen) = (own, None, None);
    }

    /// What is known already, and its age in seconds.
    pub(crate) fn known(&self, question: &Question) -> Option<(Arc<Reply>, u32)> {
        lock(&self.state).cache.find(question, self.start.elapsed().as_secs())
    }

    /// Asks, or waits with those who have asked the same. `None`: too many are waiting.
    pub(crate) async fn ask(self: &Arc<Self>, question: &Question) -> Option<Arc<Reply>> {
        let reply = {
            let mut state = lock(&self.state);
            if state.waiting >= WAITING_MAX {
                return None;
            }
            let (sender, reply) = oneshot::channel();
            if let Some(waiting) = state.under_way.get_mut(question) {
                waiting.push(sender);
            } else if state.under_way.len() < QUESTIONS_MAX {
                state.under_way.insert(question.clone(), vec![sender]);
                // Its own task: whoever asked first may go away, the others still want to know.
                tokio::spawn(Arc::clone(self).find_out(question.clone()));
            } else {
                return None;
            }
            state.waiting += 1;
            reply
        };
        reply.await.ok()
    }

    async fn find_out(self: Arc<Self>, question: Question) {
        let reply = Arc::new(self.ask_all(&question).await.unwrap_or_else(Reply::failed));
        let waiting = {
            let mut state = lock(&self.state);
            state.cache.keep(&question, &reply, self.start.elapsed().as_secs());
            let waiting = state.under_way.remove(&question).unwrap_or_default();
            state.waiting = state.waiting.saturating_sub(waiting.len());
            waiting
        };
        for sender in waiting {
            // One that is gone needs no answer.
            let _ = sender.send(Arc::clone(&reply));
        }
    }

    /// The first good answer, else the last bad one.
    async fn ask_all(&self, question: &Question) -> Option<Reply> {
        let (servers, best) = self.servers();
        let mut last = None;
        for wait in WAIT {
            for turn in 0..servers.len() {
                let index = (best + turn) % servers.len();
                let Some(server) = servers.get(index) else { continue };
                match timeout(wait, self.ask_one(*server, question)).await {
                    Ok(Ok(reply)) if reply.is_usable() => {
                        lock(&self.state).best = index;
                        return Some(reply);
                    }
                    Ok(Ok(reply)) => last = Some(reply),
                    Ok(Err(error)) => tracing::debug!("resolver {server}: {error:#}"),
                    Err(_) => tracing::debug!("resolver {server} did not answer in {wait:?}"),
                }
            }
            if last.is_some() {
                return last;
            }
        }
        last
    }

    async fn ask_one(&self, server: SocketAddr, question: &Question) -> Result<Reply> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let id = self.id();
        let socket = UdpSocket::bind(any).await.context("no socket")?;
        socket.connect(server).await.context("cannot reach it")?;
        socket.send(&reply::ask(question, id)).await.context("cannot ask")?;
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        loop {
            let count = socket.recv(&mut buffer).await.context("no answer")?;
            match reply::hear(buffer.get(..count).unwrap_or(&[]), id, question) {
                Heard::Stray => {}
                Heard::Cut => return self.ask_by_tcp(server, question).await,
                Heard::Reply(reply) => return Ok(reply),
            }
        }
    }

    async fn ask_by_tcp(&self, server: SocketAddr, question: &Question) -> Result<Reply> {
        let id = self.id();
        let asked = reply::ask(question, id);
        let mut stream = TcpStream::connect(server).await.context("cannot connect")?;
        let mut packet = u16::try_from(asked.len())?.to_be_bytes().to_vec();
        packet.extend(asked);
        stream.write_all(&packet).await?;
        let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut buffer).await?;
        match reply::hear(&buffer, id, question) {
            Heard::Reply(reply) => Ok(reply),
            Heard::Stray | Heard::Cut => bail!("its answer by TCP is not one to our question"),
        }
    }

    /// Sixteen bits that nobody outside can foretell: SipHash of a counter, keyed by the kernel's randomness.
    fn id(&self) -> u16 {
        let mut state = lock(&self.state);
        state.number += 1;
        let [a, b, ..] = self.random.hash_one(state.number).to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    fn servers(&self) -> (Vec<SocketAddr>, usize) {
        let mut state = lock(&self.state);
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            state.looked = Some(Instant::now());
            self.look(&mut state);
        }
        (state.servers.clone(), state.best)
    }

    fn look(&self, state: &mut State) {
        let servers = match &self.upstream {
            Upstream::Fixed(servers) => servers.clone(),
            Upstream::ResolvConf(path) => {
                let changed = modified(path);
                if changed.is_some() && changed == state.seen {
                    return;
                }
                state.seen = changed;
                std::fs::read_to_string(path).map(|text| resolv_conf(&text, &state.own)).unwrap_or_default()
            }
        };
        if servers != state.servers {
            (state.servers, state.best) = (servers, 0);
            state.cache.clear();
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// The resolvers in a `resolv.conf`. Link-local ones with a zone are passed over: we would need their link.
fn resolv_conf(text: &str, own: &HashSet<IpAddr>) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    let addresses = addresses.filter(|address| !own.contains(address));
    addresses.take(SERVERS_MAX).map(|address| (address, 53).into()).collect()
}

#[cfg(test)]
mod tests;
