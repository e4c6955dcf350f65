//! Values of networks and nics: subnets, addresses, MACs, links, leases.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Numbers, TextForm, Wrong};
use crate::address::{Mac, MacError, is_unicast};
use crate::container::NetworkMode;
use crate::file::problem::{nearest, quote};
use crate::name::LinkName;
use crate::project::{Pool, Reach, Subnet};

/// Four numbers with dots.
pub(crate) const V4: &str =
    "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}";
/// Eight groups of hexadecimal digits, or `::` for some of them; the last two may be an IPv4 address.
pub(crate) const V6: &str = "(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){6}[0-9.]{7,15}\
                             |([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){0,6})?::\
                             (([0-9a-fA-F]{1,4}:){0,6}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){0,5}[0-9.]{7,15})?)";
/// An IPv4 address, with zeros before its numbers or without, that is not of [`UNUSABLE`].
const USABLE: &str = "((22[0-3]|2[01][0-9]|1(0[0-9]|1[0-9]|2[0-689]|[3-57-9][0-9]|6[0-8])|0?[1-9][0-9]?|00[1-9])\
                      [.](25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])\
                      |169[.](25[0-35]|2[0-4][0-9]|[01]?[0-9]?[0-9]))\
                      ([.](25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])){2}";
/// The beginning of an IPv6 address that is not of [`UNUSABLE6`], and groups after it.
const USABLE6: &str = "(0?[1-9a-fA-F][0-9a-fA-F]{2}|[1-9a-eA-E][0-9a-fA-F]{3}\
                       |[fF]([0-9a-dA-D][0-9a-fA-F]|[eE][0-7c-fC-F])[0-9a-fA-F])(:[0-9a-fA-F]{0,4}){2,8}";
/// A link of this computer.
const LINK_NAME: &str = "[!-.0-9;-~]{1,15}";

const fn form(check: fn(&str) -> Result<(), Wrong>, pattern: &'static [&'static str]) -> TextForm {
    TextForm { check, pattern, numbers: Numbers::No }
}

pub(crate) const SUBNET: &TextForm =
    &form(|text| subnet(text).map(drop), &["auto|off|", USABLE, "/(0?[89]|[12][0-9])"]);
pub(crate) const SUBNET6: &TextForm = &form(|text| subnet6(text).map(drop), &["auto|off|", USABLE6, "/64"]);
pub(crate) const ADDRESS: &TextForm = &form(|text| address(text).map(drop), &[V4]);
pub(crate) const ADDRESS6: &TextForm = &form(|text| address6(text).map(drop), &[V6]);
pub(crate) const ANY_ADDRESS: &TextForm =
    &form(|text| any_address(text).map(drop), &[V4, "|", V6, "|\\[", V6, "\\]"]);
pub(crate) const MAC: &TextForm =
    &form(|text| mac(text).map(drop), &["[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}"]);
pub(crate) const LINK: &TextForm = &form(|text| link(text).map(drop), &[LINK_NAME]);
pub(crate) const REACH: &TextForm =
    &form(|text| reach(text).map(drop), &["nat|isolated|bridged:", LINK_NAME]);
pub(crate) const POOL: &TextForm = &form(|text| pool(text).map(drop), &["auto|off|", V4, " *- *", V4]);
pub(crate) const LEASE: &TextForm = &form(
    |text| duration_s(text).map(drop),
    &["[0-9]+(d([0-9]+h)?([0-9]+m)?([0-9]+s)?|h([0-9]+m)?([0-9]+s)?|m([0-9]+s)?|s)"],
);

/// In whose network a container is; `none` is one of its own without nics.
pub(crate) const MODE: &TextForm =
    &form(|text| mode(text).map(drop), &["none|host|machine:[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"]);

pub(crate) fn mode(text: &str) -> Result<NetworkMode, Wrong> {
    if let Some(other) = text.strip_prefix("machine:") {
        return super::name(other).map(NetworkMode::Machine);
    }
    let wrong = || Wrong::found(format!("{} is no network mode", quote(text)));
    match text {
        "none" => Ok(NetworkMode::Own),
        "host" => Ok(NetworkMode::Host),
        "bridge" | "default" => {
            Err(wrong().hint("leave it out: a machine that names no `networks` is on `default`"))
        }
        _ => Err(match text.split_once(':') {
            Some(("service" | "container", other)) => wrong().hint(format!("write `machine:{other}`")),
            Some(_) | None => wrong().hint("there are `none`, `host` and `machine:NAME`"),
        }),
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
        return Err(Wrong::found(format!("{} is not `auto`, `off` or a network", quote(text)))
            .hint(format!("a network is written like `{example}`")));
    };
    let right = trunc(&net);
    if net != right {
        let message = format!("{} is not a network: bits are set after the prefix", quote(text));
        return Err(Wrong::found(message).hint(format!("write `{right}`")));
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
            return Err(Wrong::found(message).hint("`/24` has room for 253 machines"));
        }
        for (unusable, why) in UNUSABLE {
            let overlaps =
                unusable.parse::<Ipv4Net>().is_ok_and(|other| other.contains(&net) || net.contains(&other));
            if overlaps {
                return Err(Wrong::found(format!("{shown} cannot be used: `{unusable}` is for {why}"))
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
                return Err(Wrong::found(format!("{shown} cannot be used: `{unusable}` is for {why}"))
                    .hint("take one of `fd00::/8`, or `auto`"));
            }
        }
        if net.prefix_len() != 64 {
            return Err(
                Wrong::found(format!("{shown} is not a /64")).hint(format!("write `{}/64`", net.network()))
            );
        }
    }
    Ok(subnet)
}

pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Wrong> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) if is_unicast(address.into()) => Ok(address),
        _ => Err(Wrong::found(format!("{} is not an IPv4 address a machine can have", quote(text)))
            .hint("an address is written like `10.0.5.7`, without a prefix")),
    }
}

pub(crate) fn address6(text: &str) -> Result<Ipv6Addr, Wrong> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) if is_unicast(address.into()) => Ok(address),
        _ => Err(Wrong::found(format!("{} is not an IPv6 address a machine can have", quote(text)))
            .hint("an address is written like `fd00:5::7`, without a prefix")),
    }
}

pub(crate) fn any_address(text: &str) -> Result<IpAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) if bare == text || address.is_ipv6() => Ok(address),
        _ => Err(Wrong::found(format!("{} is not an address", quote(text)))
            .hint("an address is written like `127.0.0.1` or `::1`")),
    }
}

pub(crate) fn mac(text: &str) -> Result<Mac, Wrong> {
    let hex = text.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    let mac = if hex { text.parse() } else { Err(MacError::Form) };
    mac.map_err(|error| {
        let wrong = Wrong::found(format!("{} is not a MAC: {error}", quote(text)));
        match error {
            MacError::Form => wrong.hint("a MAC is written like `02:00:00:00:00:07`; or leave it out"),
            MacError::Group => {
                let first = text.get(..2).and_then(|first| u8::from_str_radix(first, 16).ok());
                let lawful =
                    first.map(|first| format!("{:02x}{}", first & !1 | 2, text.get(2..).unwrap_or("")));
                wrong.hint(match lawful {
                    Some(mac) => format!("write `{mac}`, or leave it out"),
                    None => "let its first byte be `02`, or leave it out".to_owned(),
                })
            }
            MacError::Zero => wrong.hint("leave it out: each nic has one of its own"),
        }
    })
}

pub(crate) fn link(text: &str) -> Result<LinkName, Wrong> {
    text.parse().map_err(|_| {
        Wrong::found(format!("{} cannot name a link", quote(text)))
            .hint("1 to 15 characters, no `/`, `:` or space; `ip link` lists the links of this computer")
    })
}

pub(crate) fn reach(text: &str) -> Result<Reach, Wrong> {
    match (text, text.strip_prefix("bridged:")) {
        ("nat", _) => Ok(Reach::Nat),
        ("isolated", _) => Ok(Reach::Isolated),
        (_, Some(name)) => link(name).map(Reach::Bridged),
        (_, None) => {
            let wrong = Wrong::found(format!("{} is not `nat`, `isolated` or `bridged:<link>`", quote(text)));
            Err(match nearest(text, ["nat", "isolated", "bridged"]) {
                Some("bridged") => wrong.hint("name the link, like `bridged:eth0`"),
                Some(word) => wrong.hint(format!("write `{word}`")),
                None => wrong.hint(
                    "`nat` is out by this computer, `isolated` nowhere, `bridged:eth0` on a real network",
                ),
            })
        }
    }
}

pub(crate) fn pool(text: &str) -> Result<Pool, Wrong> {
    let range = || {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.trim_end_matches(' '), last.trim_start_matches(' '));
        Some((first.parse::<Ipv4Addr>().ok()?, last.parse::<Ipv4Addr>().ok()?))
    };
    match (text, range()) {
        ("auto", _) => Ok(Pool::Auto),
        ("off", _) => Ok(Pool::Off),
        (_, Some((first, last))) if first <= last => Ok(Pool::Range(first, last)),
        (_, Some((first, last))) => {
            Err(Wrong::found(format!("{} runs backwards", quote(text)))
                .hint(format!("write `{last}-{first}`")))
        }
        (_, None) => {
            Err(Wrong::found(format!("{} is not `auto`, `off` or a range of addresses", quote(text)))
                .hint("a range is written like `10.0.5.100-10.0.5.200`"))
        }
    }
}

/// Shorter leases make machines ask all the time.
const LEASE_MIN_S: u32 = 60;

/// A year; DHCP's own "for ever" is near.
const LEASE_MAX_S: u32 = 366 * 86_400;

pub(crate) fn duration_s(text: &str) -> Result<u32, Wrong> {
    let form = || {
        let wrong = Wrong::found(format!("{} is not a time", quote(text)));
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
            let nearest = if total < LEASE_MIN_S { "1m` or more" } else { "366d` or less" };
            Wrong::found(format!("{} is not from `1m` to `366d`", quote(text)))
                .hint(format!("write `{nearest}"))
        });
    }
    Ok(total)
}
