//! DHCPv4 exchanges (DISCOVER, OFFER, REQUEST, ACK), by many invented clients at once.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::dns::Load;

/// How long an answer may take; the exchange then starts again with another client.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Runs exchanges for `time`, with `window` clients at once out of `clients`, by a socket that is bound to port 68
/// of the link and may broadcast (the link needs a route for 255.255.255.255, such as a default one). The MACs are
/// `02:dd:` and the client's number. `answered` counts whole exchanges.
pub(crate) fn run(socket: &UdpSocket, clients: u32, window: u32, time: Duration) -> io::Result<Load> {
    let to = (Ipv4Addr::BROADCAST, 67);
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let (mut answered, mut lost, mut next) = (0, 0, 0);
    let start = Instant::now();
    // By transaction number, which is the client's: whether the lease was asked for.
    let mut under_way: HashMap<u32, bool> = HashMap::new();
    let mut begin = |under_way: &mut HashMap<u32, bool>| -> io::Result<()> {
        let client = next % clients.max(1);
        next += 1;
        under_way.insert(client, false);
        socket.send_to(&packet(client, 1, &[]), to).map(drop)
    };
    for _ in 0..window {
        begin(&mut under_way)?;
    }
    let mut buffer = [0; 1500];
    while start.elapsed() < time {
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                lost += u64::try_from(under_way.len()).unwrap_or(0);
                under_way.clear();
                for _ in 0..window {
                    begin(&mut under_way)?;
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(answer) = Answer::parse(buffer.get(..count).unwrap_or(&[])) else { continue };
        match (answer.kind, under_way.get(&answer.client)) {
            (2, Some(false)) => {
                under_way.insert(answer.client, true);
                let [a, b, c, d] = answer.address;
                let [e, f, g, h] = answer.server;
                let options = [50, 4, a, b, c, d, 54, 4, e, f, g, h];
                socket.send_to(&packet(answer.client, 3, &options), to)?;
            }
            (5 | 6, Some(true)) => {
                under_way.remove(&answer.client);
                // A refusal is lawful, when two clients were offered one address, but no lease.
                if answer.kind == 5 {
                    answered += 1;
                }
                begin(&mut under_way)?;
            }
            _ => {}
        }
    }
    Ok(Load { answered, lost, took: start.elapsed() })
}

fn packet(client: u32, kind: u8, options: &[u8]) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0];
    packet.extend(client.to_be_bytes());
    packet.extend([0, 0, 0x80, 0]);
    packet.resize(28, 0);
    packet.extend([2, 0xdd]);
    packet.extend(client.to_be_bytes());
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99, 53, 1, kind]);
    packet.extend(options);
    packet.extend([55, 4, 1, 3, 6, 15, 255]);
    packet.resize(packet.len().max(300), 0);
    packet
}

struct Answer {
    client: u32,
    kind: u8,
    address: [u8; 4],
    server: [u8; 4],
}

impl Answer {
    fn parse(packet: &[u8]) -> Option<Self> {
        let client = u32::from_be_bytes(*packet.get(4..)?.first_chunk()?);
        let address = *packet.get(16..)?.first_chunk()?;
        let (mut kind, mut server, mut options) = (0, [0; 4], packet.get(240..)?);
        while let [code, length, rest @ ..] = options {
            let (value, rest) = rest.split_at_checked(usize::from(*length))?;
            match code {
                53 => kind = *value.first()?,
                54 => server = *value.first_chunk()?,
                255 => break,
                _ => {}
            }
            options = rest;
        }
        Some(Self { client, kind, address, server })
    }
}
