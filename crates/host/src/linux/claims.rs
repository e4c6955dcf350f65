//! Claims on address ranges, so that two homes never choose the same one. A home's state is its own; what
//! all homes on a computer share is the host's network namespace, and in it the names of abstract unix
//! sockets, which exist as long as somebody holds them. The anchor holds ours.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use stead_net::process::ProcessId;

/// What our names begin with.
const PREFIX: &str = "stead/subnet/";

/// Where the kernel lists the names.
const LIST: &str = "/proc/net/unix";

/// Another home has claimed a range since we looked. Who plans again chooses another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimLost(pub IpNet);

impl fmt::Display for ClaimLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = "run the command again, it will choose another";
        write!(f, "another home of stead on this computer has {}; hint: {hint}", self.0)
    }
}

impl std::error::Error for ClaimLost {}

/// Claims a range; an error if another home has it.
pub(super) fn claim(net: IpNet) -> Result<OwnedFd> {
    let name = format!("{PREFIX}{net}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).context("cannot name a claim")?;
    let flags = SocketFlags::CLOEXEC;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).context("cannot make a claim")?;
    match bind(&socket, &address) {
        Ok(()) => Ok(socket),
        Err(rustix::io::Errno::ADDRINUSE) => Err(ClaimLost(net).into()),
        Err(errno) => Err(errno).with_context(|| format!("cannot claim {net}")),
    }
}

/// A range that is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) net: IpNet,
    /// Of the socket that holds it.
    pub(super) inode: u64,
}

/// All ranges that are claimed on this computer, by any home.
pub(super) fn observe() -> Result<Vec<Claim>> {
    let text = std::fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    Ok(parse(&text))
}

/// Reads the ranges out of the kernel's list, whose last columns are the inode and the name.
fn parse(list: &str) -> Vec<Claim> {
    let claim = |line: &str| {
        let mut columns = line.split_whitespace().rev();
        let net = columns.next()?.strip_prefix('@')?.strip_prefix(PREFIX)?.parse().ok()?;
        Some(Claim { net, inode: columns.next()?.parse().ok()? })
    };
    list.lines().filter_map(claim).collect()
}

/// The inodes of the sockets that these processes have open.
pub(super) fn sockets_of(processes: &[ProcessId]) -> BTreeSet<u64> {
    let directories = processes.iter().filter_map(|p| std::fs::read_dir(format!("/proc/{}/fd", p.pid)).ok());
    let targets = directories.flatten().flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |target: PathBuf| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    targets.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_while_it_is_held_and_excludes_others() {
        let net: IpNet = format!("fd{:02x}:1:2:3::/64", std::process::id() % 256).parse().unwrap();
        let held = claim(net).unwrap();
        let claims = observe().unwrap();
        let seen = claims.iter().find(|claim| claim.net == net).unwrap();
        assert!(sockets_of(&[ProcessId::own().unwrap()]).contains(&seen.inode));
        let error = claim(net).unwrap_err().to_string();
        assert!(error.starts_with("another home of stead on this computer has"), "{error}");
        drop(held);
        assert!(observe().unwrap().iter().all(|claim| claim.net != net));
    }

    #[test]
    fn other_sockets_are_no_claims() {
        let list = "Num RefCount Protocol Flags Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 1 @stead/subnet/10.64.3.0/24\n\
            0000: 00000002 00000000 00010000 0001 01 2 @stead/subnet/junk\n\
            0000: 00000002 00000000 00010000 0001 01 3 /run/x.sock\n\
            0000: 00000002 00000000 00010000 0001 01 4\n";
        assert_eq!(parse(list), [Claim { net: "10.64.3.0/24".parse().unwrap(), inode: 1 }]);
    }
}
