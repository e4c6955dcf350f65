//! DNS questions, as fast as they are answered.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Answers to our questions.
    pub(crate) answered: u64,
    /// Questions that nothing came back for in time.
    pub(crate) lost: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Load {
    /// Answers in a second.
    pub(crate) fn per_second(&self) -> f64 {
        let answered = u32::try_from(self.answered).unwrap_or(u32::MAX);
        f64::from(answered) / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// How long an answer may take; what is later counts as lost.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Asks `server` for the IPv4 addresses of `names` in turn for `time`, with `window` questions under way at once.
pub(crate) fn run(server: SocketAddr, names: &[&str], window: u16, time: Duration) -> io::Result<Load> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let questions: Vec<Vec<u8>> = names.iter().map(|name| question(name)).collect();
    let (mut answered, mut lost) = (0, 0);
    let start = Instant::now();
    let mut ids = (0..window).cycle();
    let mut ask = |turn: u64| -> io::Result<()> {
        let index = usize::try_from(turn).unwrap_or(0) % questions.len().max(1);
        let Some(mut packet) = questions.get(index).cloned() else { return Ok(()) };
        let id = ids.next().unwrap_or(0).to_be_bytes();
        packet.splice(0..2, id);
        socket.send(&packet).map(drop)
    };
    for turn in 0..window {
        ask(u64::from(turn))?;
    }
    let mut buffer = [0; 1500];
    while start.elapsed() < time {
        match socket.recv(&mut buffer) {
            // An answer with at least one record.
            Ok(count) if count > 12 && buffer.get(6..8).is_some_and(|records| records != [0, 0]) => {
                answered += 1;
            }
            Ok(_) => return Err(io::Error::other("the server has no such name")),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                // All that were under way are lost: start again with a full window.
                lost += u64::from(window);
                for turn in 1..window {
                    ask(u64::from(turn))?;
                }
            }
            Err(error) => return Err(error),
        }
        ask(answered)?;
    }
    Ok(Load { answered, lost, took: start.elapsed() })
}

fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}
