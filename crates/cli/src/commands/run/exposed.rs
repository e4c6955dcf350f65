//! `--publish-all`: the ports that an image says its programs listen on, each published on one that this computer chooses.

use std::net::{IpAddr, Ipv4Addr};

use stead_host::home::Home;
use stead_image::Store;
use stead_model::image::Digest;
use stead_model::project::{Bind, Machine, Port, Protocol};

use crate::failure::Failure;
use crate::output::note;

/// Each is a socket that is held open; a range of them is one word of an image.
const PORTS_MAX: usize = 1024;

/// A port of a machine.
pub(super) type Exposed = (u16, Protocol);

/// The ports that an image exposes.
pub(super) fn of_image(home: &Home, digest: &Digest) -> Result<Vec<Exposed>, Failure> {
    let details = Store::open(&home.images())?.inspect(digest)?;
    let words = details.iter().flat_map(|details| details.config.config.exposed_ports.keys());
    let mut ports = Vec::new();
    for word in words {
        match read(word) {
            Some((range, protocol)) => ports.extend(range.map(|port| (port, protocol))),
            None => note(&format!("`{}`, which the image exposes, is not published", word.escape_debug())),
        }
        if ports.len() > PORTS_MAX {
            let what = format!("the image exposes more than {PORTS_MAX} ports");
            return Err(Failure::request(
                &what,
                "leave out `--publish-all`, and say `--publish 0:80` for each that you need",
            ));
        }
    }
    if ports.is_empty() {
        note("the image exposes no port");
    }
    Ok(ports)
}

/// Publishes those that are not published already.
pub(super) fn publish(machine: &mut Machine, exposed: &[Exposed]) {
    for (target, protocol) in exposed.iter().copied() {
        let is_there = |port: &Port| (port.target, port.bind.protocol) == (target, protocol);
        if !machine.ports.iter().any(is_there) {
            let bind = Bind { protocol, address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 0 };
            machine.ports.push(Port { bind, target });
        }
    }
}

/// `80`, `80/tcp` or `8000-8010/udp`.
fn read(word: &str) -> Option<(std::ops::RangeInclusive<u16>, Protocol)> {
    let (range, protocol) = match word.split_once('/') {
        None => (word, Protocol::Tcp),
        Some((range, "tcp")) => (range, Protocol::Tcp),
        Some((range, "udp")) => (range, Protocol::Udp),
        Some(_) => return None,
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    Some((number(first)?..=number(last)?, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_exposes_is_read() {
        let read = |word| read(word).map(|(range, protocol)| format!("{range:?}/{protocol}"));
        assert_eq!(read("80").as_deref(), Some("80..=80/tcp"));
        assert_eq!(read("8000-8010/udp").as_deref(), Some("8000..=8010/udp"));
        for word in ["", "0", "80/sctp", "70000", "web", "80-"] {
            assert_eq!(read(word), None, "{word}");
        }
    }
}
