//! Claims on address ranges, so that two homes never choose the same one. A home's state is its own; what
//! all homes on a computer share is the host's network namespace, and in it the names of abstract unix
//! sockets, which exist as long as somebody holds them. The anchor holds ours.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

/// What our names begin with.
const PREFIX: &str = "stead/subnet/";

/// Where the kernel lists the names.
const LIST: &str = "/proc/net/unix";

/// Claims a range; an error if another home has it.
pub(super) fn claim(net: IpNet) -> Result<OwnedFd> {
    let name = format!("{PREFIX}{net}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).context("cannot name a claim")?;
    let flags = SocketFlags::CLOEXEC;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).context("cannot make a claim")?;
    match bind(&socket, &address) {
        Ok(()) => Ok(socket),
        Err(rustix::io::Errno::ADDRINUSE) => {
            bail!(
                "another home of stead on this computer has {net}; hint: run the command again, it will choose another"
            )
        }
        Err(errno) => Err(errno).with_context(|| format!("cannot claim {net}")),
    }
}

/// All ranges that are claimed on this computer, by any home.
pub(super) fn observe() -> Result<Vec<IpNet>> {
    let text = std::fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    Ok(parse(&text))
}

/// Reads the ranges out of the kernel's list, whose last column is the name.
fn parse(list: &str) -> Vec<IpNet> {
    let names = list.lines().filter_map(|line| line.split_whitespace().last()?.strip_prefix('@'));
    names.filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_while_it_is_held_and_excludes_others() {
        let net: IpNet = format!("fd{:02x}:1:2:3::/64", std::process::id() % 256).parse().unwrap();
        let held = claim(net).unwrap();
        assert!(observe().unwrap().contains(&net));
        let error = claim(net).unwrap_err().to_string();
        assert!(error.starts_with("another home of stead on this computer has"), "{error}");
        drop(held);
        assert!(!observe().unwrap().contains(&net));
    }

    #[test]
    fn other_sockets_are_no_claims() {
        let list = "Num RefCount Protocol Flags Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 1 @stead/subnet/10.64.3.0/24\n\
            0000: 00000002 00000000 00010000 0001 01 2 @stead/subnet/junk\n\
            0000: 00000002 00000000 00010000 0001 01 3 /run/x.sock\n\
            0000: 00000002 00000000 00010000 0001 01 4\n";
        assert_eq!(parse(list), ["10.64.3.0/24".parse().unwrap()]);
    }
}
