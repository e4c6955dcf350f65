//! The kinds of single value that the file holds: how each is read, and what is said when it cannot be.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::problem::{Problem, Span, nearest, quote};
use crate::address::{Mac, is_unicast};
use crate::name::{LinkName, Name};
use crate::project::{Pool, Protocol, Reach, Subnet};

/// Why a text is not what it should be.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn at(self, span: Span, path: &str, text: &str) -> Problem {
        let problem = Problem::new(span, path, text, self.message);
        match self.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// A kind of single value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaf {
    Name,
    /// One of these words, each with what it means.
    Choice(&'static [(&'static str, &'static str)]),
    Whole {
        min: u16,
        max: u16,
    },
    Subnet,
    Subnet6,
    Address,
    Address6,
    AnyAddress,
    Mac,
    Link,
    Reach,
    Pool,
    Duration,
    Flag,
    Text,
    /// `8080:80`, the short form of a published port.
    Port,
    /// `8080` or `8000-8010`.
    PortRange,
}

impl Leaf {
    /// Whether `text` is such a value.
    pub(crate) fn check(self, text: &str) -> Result<(), Wrong> {
        match self {
            Self::Name => name(text).map(drop),
            Self::Choice(words) => choice(text, words),
            Self::Whole { min, max } => whole(text, min, max).map(drop),
            Self::Subnet => subnet(text).map(drop),
            Self::Subnet6 => subnet6(text).map(drop),
            Self::Address => address(text).map(drop),
            Self::Address6 => address6(text).map(drop),
            Self::AnyAddress => any_address(text).map(drop),
            Self::Mac => mac(text).map(drop),
            Self::Link => link(text).map(drop),
            Self::Reach => reach(text).map(drop),
            Self::Pool => pool(text).map(drop),
            Self::Duration => duration_s(text).map(drop),
            Self::Flag => flag(text).map(drop),
            Self::Text => plain_text(text).map(drop),
            Self::Port => port(text).map(drop),
            Self::PortRange => port_range(text).map(drop),
        }
    }
}

pub(crate) fn name(text: &str) -> Result<Name, Wrong> {
    text.parse().map_err(|error| {
        let wrong = Wrong::new(format!("{} is not a name: {error}", quote(text)));
        match lawful_name(text) {
            Some(name) => wrong.hint(format!("write `{name}`")),
            None => wrong,
        }
    })
}

/// The name that is nearest to a text: lower case, `-` for what may not stand in a name.
pub(crate) fn lawful_name(text: &str) -> Option<Name> {
    let lawful = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().take(crate::name::NAME_MAX_CHARS).map(lawful).collect();
    name.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-').parse().ok()
}

fn choice(text: &str, words: &[(&str, &str)]) -> Result<(), Wrong> {
    if words.iter().any(|(word, _)| *word == text) {
        return Ok(());
    }
    let listed: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let wrong = Wrong::new(format!("{} is not {}", quote(text), listed.join(" or ")));
    // YAML 1.1 habits: `yes` for `on` where on and off are to choose from.
    let meant = match text.to_lowercase().as_str() {
        "true" | "yes" => Some("on"),
        "false" | "no" => Some("off"),
        _ => None,
    };
    let meant = meant.filter(|meant| words.iter().any(|(word, _)| word == meant));
    match meant.or_else(|| nearest(text, words.iter().map(|(word, _)| *word))) {
        Some(word) => Err(wrong.hint(format!("write `{word}`"))),
        None => Err(wrong),
    }
}

pub(crate) fn whole(text: &str, min: u16, max: u16) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(number) if digits && (min..=max).contains(&number) => Ok(number),
        _ => Err(Wrong::new(format!("{} is not a whole number from {min} to {max}", quote(text)))),
    }
}

/// `auto`, `off` or a network without bits after its prefix.
fn network<T>(text: &str, example: &str, trunc: impl Fn(&T) -> T) -> Result<Subnet<T>, Wrong>
where
    T: FromStr + Display + PartialEq,
{
    match text {
        "auto" => return Ok(Subnet::Auto),
        "off" => return Ok(Subnet::Off),
        _ => {}
    }
    let Ok(net) = text.parse::<T>() else {
        return Err(Wrong::new(format!("{} is not `auto`, `off` or a network", quote(text)))
            .hint(format!("a network is written like `{example}`")));
    };
    let right = trunc(&net);
    if net != right {
        let message = format!("{} is not a network: bits are set after the prefix", quote(text));
        return Err(Wrong::new(message).hint(format!("write `{right}`")));
    }
    Ok(Subnet::Given(net))
}

/// IPv4 networks that mean something else everywhere.
const UNUSABLE: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this network itself"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

/// IPv6 networks that mean something else everywhere.
const UNUSABLE6: &[(&str, &str)] =
    &[("::/8", "loopback and mapped addresses"), ("fe80::/10", "link-local"), ("ff00::/8", "multicast")];

/// The widest prefix: no more than a whole private `10.0.0.0/8`.
pub(crate) const PREFIX_MIN: u8 = 8;

/// The narrowest prefix: room for the gateway, five machines and the broadcast address.
pub(crate) const PREFIX_MAX: u8 = 29;

pub(crate) fn subnet(text: &str) -> Result<Subnet<Ipv4Net>, Wrong> {
    let subnet = network(text, "10.0.5.0/24", Ipv4Net::trunc)?;
    if let Subnet::Given(net) = subnet {
        let shown = quote(text);
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&net.prefix_len()) {
            let message = format!("{shown} does not have a prefix from /{PREFIX_MIN} to /{PREFIX_MAX}");
            return Err(Wrong::new(message).hint("`/24` has room for 253 machines"));
        }
        for (unusable, why) in UNUSABLE {
            let overlaps =
                unusable.parse::<Ipv4Net>().is_ok_and(|other| other.contains(&net) || net.contains(&other));
            if overlaps {
                return Err(Wrong::new(format!("{shown} cannot be used: `{unusable}` is for {why}"))
                    .hint("take one of `10.0.0.0/8`, `172.16.0.0/12` or `192.168.0.0/16`, or `auto`"));
            }
        }
    }
    Ok(subnet)
}

pub(crate) fn subnet6(text: &str) -> Result<Subnet<Ipv6Net>, Wrong> {
    let subnet = network(text, "fd00:5::/64", Ipv6Net::trunc)?;
    if let Subnet::Given(net) = subnet {
        let shown = quote(text);
        for (unusable, why) in UNUSABLE6 {
            if unusable.parse::<Ipv6Net>().is_ok_and(|other| other.contains(&net.network())) {
                return Err(Wrong::new(format!("{shown} cannot be used: `{unusable}` is for {why}"))
                    .hint("take one of `fd00::/8`, or `auto`"));
            }
        }
        if net.prefix_len() != 64 {
            return Err(
                Wrong::new(format!("{shown} is not a /64")).hint(format!("write `{}/64`", net.network()))
            );
        }
    }
    Ok(subnet)
}

pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Wrong> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) if is_unicast(address.into()) => Ok(address),
        _ => Err(Wrong::new(format!("{} is not an IPv4 address a machine can have", quote(text)))
            .hint("an address is written like `10.0.5.7`, without a prefix")),
    }
}

pub(crate) fn address6(text: &str) -> Result<Ipv6Addr, Wrong> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) if is_unicast(address.into()) => Ok(address),
        _ => Err(Wrong::new(format!("{} is not an IPv6 address a machine can have", quote(text)))
            .hint("an address is written like `fd00:5::7`, without a prefix")),
    }
}

pub(crate) fn any_address(text: &str) -> Result<IpAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) if bare == text || address.is_ipv6() => Ok(address),
        _ => Err(Wrong::new(format!("{} is not an address", quote(text)))
            .hint("an address is written like `127.0.0.1` or `::1`")),
    }
}

pub(crate) fn mac(text: &str) -> Result<Mac, Wrong> {
    let hex = text.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    let mac = if hex { text.parse() } else { Err(crate::address::MacError::Form) };
    mac.map_err(|error| Wrong::new(format!("{} is not a MAC: {error}", quote(text))))
}

pub(crate) fn link(text: &str) -> Result<LinkName, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new(format!("{} cannot name a link", quote(text)))
            .hint("1 to 15 characters, no `/`, `:` or space; `ip link` lists the links of this computer")
    })
}

pub(crate) fn reach(text: &str) -> Result<Reach, Wrong> {
    match (text, text.strip_prefix("bridged:")) {
        ("nat", _) => Ok(Reach::Nat),
        ("isolated", _) => Ok(Reach::Isolated),
        (_, Some(name)) => link(name).map(Reach::Bridged),
        (_, None) => {
            let wrong = Wrong::new(format!("{} is not `nat`, `isolated` or `bridged:<link>`", quote(text)));
            Err(match nearest(text, ["nat", "isolated", "bridged"]) {
                Some("bridged") => wrong.hint("name the link, like `bridged:eth0`"),
                Some(word) => wrong.hint(format!("write `{word}`")),
                None => wrong,
            })
        }
    }
}

pub(crate) fn pool(text: &str) -> Result<Pool, Wrong> {
    let range = || {
        let (first, last) = text.split_once('-')?;
        Some((first.trim().parse::<Ipv4Addr>().ok()?, last.trim().parse::<Ipv4Addr>().ok()?))
    };
    match (text, range()) {
        ("auto", _) => Ok(Pool::Auto),
        ("off", _) => Ok(Pool::Off),
        (_, Some((first, last))) if first <= last => Ok(Pool::Range(first, last)),
        (_, Some((first, last))) => {
            Err(Wrong::new(format!("{} runs backwards", quote(text))).hint(format!("write `{last}-{first}`")))
        }
        (_, None) => Err(Wrong::new(format!("{} is not `auto`, `off` or a range of addresses", quote(text)))
            .hint("a range is written like `10.0.5.100-10.0.5.200`")),
    }
}

/// Shorter leases make machines ask all the time.
const LEASE_MIN_S: u32 = 60;

/// A year; DHCP's own "for ever" is near.
const LEASE_MAX_S: u32 = 366 * 86_400;

pub(crate) fn duration_s(text: &str) -> Result<u32, Wrong> {
    let form = || {
        let wrong = Wrong::new(format!("{} is not a time", quote(text)));
        match text.parse::<u32>() {
            Ok(number) => {
                wrong.hint(format!("with its unit: `{number}s`, `{number}m`, `{number}h` or `{number}d`"))
            }
            Err(_) => wrong.hint("a time is written like `90s`, `1h30m` or `2d`"),
        }
    };
    let mut total: u32 = 0;
    let mut rest = text;
    let mut units = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1_u32)].into_iter();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.chars().next().ok_or_else(form)?;
        // Larger units come first and none comes twice.
        let (_, seconds) = units.find(|(letter, _)| *letter == unit).ok_or_else(form)?;
        let number: u32 = number.parse().map_err(|_| form())?;
        total = number.checked_mul(seconds).and_then(|more| total.checked_add(more)).ok_or_else(form)?;
        rest = tail.get(unit.len_utf8()..).unwrap_or_default();
    }
    if !(LEASE_MIN_S..=LEASE_MAX_S).contains(&total) {
        return Err(if text.is_empty() {
            form()
        } else {
            Wrong::new(format!("{} is not from `1m` to `366d`", quote(text)))
        });
    }
    Ok(total)
}

pub(crate) fn flag(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Wrong::new(format!("{} is not `true` or `false`", quote(text)))),
    }
}

/// What fits a DHCP option with its length byte.
const TEXT_MAX_BYTES: usize = 255;

pub(crate) fn plain_text(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > TEXT_MAX_BYTES || text.chars().any(char::is_control) {
        let message = format!("{} is not a line of 1 to {TEXT_MAX_BYTES} bytes", quote(text));
        return Err(Wrong::new(message));
    }
    Ok(text.to_owned())
}

/// A published port, or a range of them, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: PortRange,
    pub(crate) target: PortRange,
    pub(crate) protocol: Protocol,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Each published port is a socket that we hold open.
const PORTS_MAX: u16 = 1024;

pub(crate) fn port_range(text: &str) -> Result<PortRange, Wrong> {
    let number = |text: &str| {
        whole(text, 1, u16::MAX)
            .map_err(|_| Wrong::new(format!("{} is not a port from 1 to 65535", quote(text))))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: number(first)?, last: number(last)? };
    if range.first > range.last {
        return Err(
            Wrong::new(format!("{} runs backwards", quote(text))).hint(format!("write `{last}-{first}`"))
        );
    }
    if range.last - range.first >= PORTS_MAX {
        return Err(Wrong::new(format!("{} has more than {PORTS_MAX} ports", quote(text))));
    }
    Ok(range)
}

pub(crate) fn port(text: &str) -> Result<Ports, Wrong> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => {
            return Err(Wrong::new(format!("{} is not `tcp` or `udp`", quote(other))));
        }
    };
    let (rest, target) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((rest, target)) => (Some(rest), target),
    };
    let (address, port) = match rest {
        None => (None, target),
        Some(rest) => match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, port)) => (Some(address), port),
        },
    };
    let address = match address {
        Some(text) if text.contains(':') && !text.starts_with('[') => {
            return Err(Wrong::new(format!("{} is not `[address:]port:target`", quote(text)))
                .hint("an IPv6 address stands in brackets, like `[::1]:8080:80`"));
        }
        address => address.map(any_address).transpose()?,
    };
    same_length(Ports { address, port: port_range(port)?, target: port_range(target)?, protocol })
}

/// Ports and targets go together one by one.
pub(crate) fn same_length(ports: Ports) -> Result<Ports, Wrong> {
    let (port, target) = (ports.port, ports.target);
    if port.last - port.first == target.last - target.first {
        return Ok(ports);
    }
    let count = |range: PortRange| usize::from(range.last - range.first) + 1;
    Err(Wrong::new(format!("{} ports cannot lead to {} targets", count(port), count(target)))
        .hint("both ranges have the same length"))
}
