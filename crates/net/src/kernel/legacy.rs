//! What the older packet filter (`iptables-legacy`, before nftables) does to packets that pass through: it
//! has no netlink interface, and our own rules cannot overrule it.

use std::io;
use std::path::Path;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use super::sys::socket_option;

/// The table that Docker and most firewalls use.
const TABLE: &str = "filter";
/// The forward hook, among the five.
const FORWARD: usize = 2;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same for both families.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// `struct ipt_getinfo`: a name, the hooks, an offset a hook twice, the number of entries and their size.
const NAME_BYTES: usize = 32;
const INFO_BYTES: usize = 84;
const FIRST_RULE_AT: usize = 36;
const POLICY_AT: usize = 56;
const SIZE_AT: usize = 80;
/// Where the entries start in `struct ipt_get_entries`.
const ENTRIES_AT: usize = 40;
/// A target: its size and name, then the verdict of a standard one.
const VERDICT_AT: usize = 32;
const VERDICT_DROP: i32 = -1;

/// A family, as the older filter has it.
struct Kind {
    family: AddressFamily,
    level: i32,
    /// Which tables exist; asking for one that does not would make it.
    names: &'static str,
    /// Where `target_offset` is in an entry.
    target_at: usize,
}

const KINDS: [Kind; 2] = [
    Kind {
        family: AddressFamily::INET,
        level: 0,
        names: "/proc/thread-self/net/ip_tables_names",
        target_at: 88,
    },
    Kind {
        family: AddressFamily::INET6,
        level: 41,
        names: "/proc/thread-self/net/ip6_tables_names",
        target_at: 140,
    },
];

/// What becomes of forwarded packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegacyForward {
    /// What no rule decides on is thrown away.
    pub drops: bool,
    /// There are rules, which may do anything.
    pub has_rules: bool,
}

/// Looks at both families in the current network namespace. Only root is told.
pub fn observe() -> io::Result<LegacyForward> {
    let mut seen = LegacyForward::default();
    for kind in &KINDS {
        let tables = std::fs::read_to_string(Path::new(kind.names)).unwrap_or_default();
        if tables.lines().any(|name| name == TABLE) {
            let of_family = kind.observe()?;
            seen.drops |= of_family.drops;
            seen.has_rules |= of_family.has_rules;
        }
    }
    Ok(seen)
}

impl Kind {
    fn observe(&self) -> io::Result<LegacyForward> {
        // Any raw socket answers; 255 is IPPROTO_RAW.
        let protocol =
            Protocol::from_raw(rustix::net::RawProtocol::new(255).ok_or(io::ErrorKind::InvalidInput)?);
        let socket = socket_with(self.family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        let mut info = question(INFO_BYTES);
        socket_option(&socket, self.level, GET_INFO, &mut info)?;
        let size = number(&info, SIZE_AT)?;
        let first = number(&info, FIRST_RULE_AT + 4 * FORWARD)? as usize;
        let policy = number(&info, POLICY_AT + 4 * FORWARD)? as usize;
        let mut entries = question(ENTRIES_AT + size as usize);
        entries.get_mut(NAME_BYTES..NAME_BYTES + 4).ok_or_else(short)?.copy_from_slice(&size.to_ne_bytes());
        socket_option(&socket, self.level, GET_ENTRIES, &mut entries)?;
        let entry = ENTRIES_AT + policy;
        let target = entries.get(entry + self.target_at..entry + self.target_at + 2).ok_or_else(short)?;
        let target = target.try_into().map(u16::from_ne_bytes).map_err(io::Error::other)?;
        let verdict = number(&entries, entry + usize::from(target) + VERDICT_AT)?;
        Ok(LegacyForward { drops: verdict.cast_signed() == VERDICT_DROP, has_rules: first != policy })
    }
}

/// A buffer that begins with the table's name.
fn question(length: usize) -> Vec<u8> {
    let mut buffer = TABLE.as_bytes().to_vec();
    buffer.resize(length, 0);
    buffer
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..at + 4).ok_or_else(short)?;
    four.try_into().map(u32::from_ne_bytes).map_err(io::Error::other)
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer about iptables is too short")
}
