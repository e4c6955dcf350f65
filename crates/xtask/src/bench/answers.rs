//! DNS answers per second of a server in a neighbour's namespace. The questions are ours, the same for each server.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::place::{Neighbour, OURS, THEIRS, wait_for};
use super::{Comparison, Side, Unit};

/// Shows how far two equal sides differ, hence how much a ratio means on this computer.
pub(super) const DNSMASQ_AGAINST_ITSELF: Comparison = Comparison {
    name: "dns-noise",
    first: Side { name: "dnsmasq", measure: dnsmasq_dns },
    second: Side { name: "dnsmasq again", measure: dnsmasq_dns },
    unit: Unit::PerSecond,
    target: None,
};

/// Long enough for thousands of answers.
const ASKING: Duration = Duration::from_secs(1);
/// Questions under way at once: a server is to be kept busy, its socket's buffer not to overflow.
const WINDOW: u16 = 64;
/// An answer that takes longer is lost.
const LOST: Duration = Duration::from_millis(500);

/// dnsmasq with one name of its own, as our networks have them.
pub(super) fn dnsmasq_dns() -> Result<f64> {
    let neighbour = Neighbour::new("dns")?;
    let listen = format!("--listen-address={THEIRS}");
    let _server = neighbour.serve(
        "dnsmasq",
        &[
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            &listen,
        ]
        .into_iter()
        .chain(["--user=root", "--pid-file=", "--host-record=web.shop,10.9.0.2", "--dns-forward-max=1000"])
        .collect::<Vec<_>>(),
    )?;
    dns_answers_per_second("web.shop")
}

/// Asks the neighbour's port 53 for the A record of `name`, as fast as it answers.
pub(super) fn dns_answers_per_second(name: &str) -> Result<f64> {
    let socket = UdpSocket::bind((OURS, 0)).context("could not open a socket")?;
    socket.connect((THEIRS, 53))?;
    socket.set_read_timeout(Some(LOST))?;
    wait_for("the DNS server", || ask(&socket, name, 0).is_ok() && answer(&socket).is_ok())?;
    let start = Instant::now();
    let (mut answers, mut id) = (0u32, 0u16);
    for _ in 0..WINDOW {
        id = id.wrapping_add(1);
        ask(&socket, name, id)?;
    }
    while start.elapsed() < ASKING {
        answer(&socket).context("an answer was lost")?;
        answers += 1;
        id = id.wrapping_add(1);
        ask(&socket, name, id)?;
    }
    Ok(f64::from(answers) / start.elapsed().as_secs_f64())
}

fn ask(socket: &UdpSocket, name: &str, id: u16) -> Result<()> {
    socket.send(&question(name, id)?).map(drop).context("could not ask")
}

/// One question for an A record (RFC 1035, section 4.1).
fn question(name: &str, id: u16) -> Result<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).context("a label is too long")?);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    Ok(message)
}

/// Receives an answer that holds a record and no error.
fn answer(socket: &UdpSocket) -> Result<()> {
    let mut message = [0; 512];
    socket.recv(&mut message).context("no answer")?;
    let [_, _, _, flags, _, _, high, low, ..] = message;
    if flags & 0xf != 0 || u16::from_be_bytes([high, low]) == 0 {
        bail!("not the answer: code {}", flags & 0xf);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_what_rfc_1035_says() {
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x04shop\x00\x00\x01\x00\x01";
        assert_eq!(question("web.shop", 0x1234).unwrap(), expected);
    }
}
