//! Who has a port: from the kernel's tables of sockets to the process that holds one, as far as we may see.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stead_model::project::{Bind, Protocol};

/// A process that has a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.name, self.pid)
    }
}

/// The process that has the port, or one that stands in its way (`0.0.0.0` stands in the way of all).
pub(super) fn of(port: Bind) -> Option<Owner> {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    // Of this thread: `/proc/net` is the one of the process's first thread.
    ["", "6"].iter().find_map(|family| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{protocol}{family}")).ok()?;
        holders(&table, port).into_iter().find_map(holder)
    })
}

/// The inodes of the sockets in a kernel table that keep `port` from being bound.
fn holders(table: &str, port: Bind) -> Vec<u64> {
    table.lines().skip(1).filter_map(|line| holding(line, port)).collect()
}

fn holding(line: &str, port: Bind) -> Option<u64> {
    /// `TCP_LISTEN`: connections of a listener have the same address and do no harm.
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace();
    let (address, number) = words.nth(1)?.split_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    let address = parse_address(address)?;
    let same = address == port.address || address.is_unspecified() || port.address.is_unspecified();
    let there = u16::from_str_radix(number, 16) == Ok(port.port)
        && same
        && (port.protocol == Protocol::Udp || state == LISTEN);
    there.then_some(inode)
}

/// An address as the tables write it: words of 32 bits, each a number in this computer's byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len() / 8)
        .map(|at| text.get(at * 8..at * 8 + 8))
        .map(|word| u32::from_str_radix(word?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [word] => Some(IpAddr::V4(Ipv4Addr::from(*word))),
        [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The process that holds the socket with this inode.
fn holder(inode: u64) -> Option<Owner> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        // Other users' processes do not show theirs.
        let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        descriptors.find(|entry| {
            fs::read_link(entry.path()).is_ok_and(|link| link.to_str() == Some(wanted.as_str()))
        })?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Owner { pid, name: name.trim_end().to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";

    #[track_caller]
    fn check(port: &str, inodes: &[u64]) {
        assert_eq!(holders(TCP, port.parse().unwrap()), inodes);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_found_by_address_and_port() {
        check("127.0.0.1:8080/tcp", &[4711]);
        check("0.0.0.0:8080/tcp", &[4711]);
        check("127.0.0.2:8080/tcp", &[]);
        check("127.0.0.2:22/tcp", &[4713]);
        check("127.0.0.1:80/tcp", &[]);
        // As a table of UDP every line counts: it has no listeners.
        check("127.0.0.1:8080/udp", &[4711, 4712]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn both_kinds_of_address_are_read() {
        assert_eq!(parse_address("0100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_address("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(parse_address("0000000000000000FFFF00000100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_address("xyz"), None);
    }
}
