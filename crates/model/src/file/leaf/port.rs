//! Published ports in their short form.

use std::net::IpAddr;

use super::network::{V4, V6, any_address};
use super::{Numbers, TextForm, Wrong, whole};
use crate::file::problem::{nearest, quote};
use crate::project::Protocol;

/// A port from 1 to 65535, or two with `-` between.
const RANGE: &str = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5]))))\
                     (-0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5])))))?";

/// `8080:80`, the short form of a published port.
pub(crate) const PORT: &TextForm = &TextForm {
    check: |text| port(text).map(drop),
    pattern: &["(((", V4, "|\\[", V6, "\\]):)?(0+|", RANGE, "):)?", RANGE, "(/(tcp|udp))?"],
    numbers: Numbers::Whole(1, 65535),
};

/// The same for a port of this computer; `0` where it chooses one.
pub(crate) const PUBLISHED_RANGE: &TextForm = &TextForm {
    check: |text| published_range(text).map(drop),
    pattern: &["(0+|", RANGE, ")"],
    numbers: Numbers::Whole(0, 65535),
};

/// `8080` or `8000-8010`.
pub(crate) const PORT_RANGE: &TextForm = &TextForm {
    check: |text| port_range(text).map(drop),
    pattern: &[RANGE],
    numbers: Numbers::Whole(1, 65535),
};

/// A published port, or a range of them, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: PortRange,
    pub(crate) target: PortRange,
    pub(crate) protocol: Protocol,
}

/// Ports from the first to the last, both included; 0 alone is one that this computer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// One that this computer chooses.
const OPEN: PortRange = PortRange { first: 0, last: 0 };

/// Each published port is a socket that we hold open.
const PORTS_MAX: u16 = 1024;

pub(crate) fn port_range(text: &str) -> Result<PortRange, Wrong> {
    let number = |text: &str| {
        whole(text, 1, u16::MAX).map_err(|wrong| {
            Wrong::found(format!("{} is not a port from 1 to 65535", quote(text))).hint(wrong.hint)
        })
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: number(first)?, last: number(last)? };
    if range.first > range.last {
        return Err(
            Wrong::found(format!("{} runs backwards", quote(text))).hint(format!("write `{last}-{first}`"))
        );
    }
    if range.last - range.first >= PORTS_MAX {
        return Err(Wrong::found(format!("{} has more than {PORTS_MAX} ports", quote(text)))
            .hint("publish fewer, or reach the machine by its own address"));
    }
    Ok(range)
}

/// The same for ports of this computer, where `0` is one that it chooses.
pub(crate) fn published_range(text: &str) -> Result<PortRange, Wrong> {
    let is_zero = |text: &str| !text.is_empty() && text.chars().all(|digit| digit == '0');
    match text.split_once('-') {
        None if is_zero(text) => Ok(OPEN),
        Some((first, _)) if is_zero(first) => Err(Wrong::found(format!(
            "{} is no range: `0` alone is one port that this computer chooses",
            quote(text)
        ))
        .hint("write `0:80` for each port that is to have one, or a range from 1 on")),
        None | Some(_) => port_range(text),
    }
}

pub(crate) fn port(text: &str) -> Result<Ports, Wrong> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => {
            let wrong = Wrong::found(format!("{} is not `tcp` or `udp`", quote(other)));
            return Err(match nearest(other, ["tcp", "udp"]) {
                Some(word) => wrong.hint(format!("write `/{word}`")),
                None => {
                    wrong.hint("no other can be published; machines of one network reach each other by any")
                }
            });
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
            return Err(Wrong::found(format!("{} is not `[address:]port:target`", quote(text)))
                .hint("an IPv6 address stands in brackets, like `[::1]:8080:80`"));
        }
        address => address.map(any_address).transpose()?,
    };
    same_length(Ports {
        address,
        port: if rest.is_some() { published_range(port)? } else { port_range(port)? },
        target: port_range(target)?,
        protocol,
    })
}

/// Ports and targets go together one by one.
pub(crate) fn same_length(ports: Ports) -> Result<Ports, Wrong> {
    let (port, target) = (ports.port, ports.target);
    if port.last - port.first == target.last - target.first {
        return Ok(ports);
    }
    let count = |range: PortRange| usize::from(range.last - range.first) + 1;
    if port == OPEN {
        let what = format!(
            "`0` is one port that this computer chooses, and cannot lead to {} targets",
            count(target)
        );
        return Err(Wrong::found(what).hint(format!(
            "write `0:{}`, `0:{}` and so on",
            target.first,
            target.first + 1
        )));
    }
    Err(Wrong::found(format!("{} ports cannot lead to {} targets", count(port), count(target)))
        .hint("both ranges have the same length"))
}

#[cfg(test)]
mod tests {
    use crate::file::published_ports;

    #[test]
    fn each_port_of_a_range_leads_to_one_of_the_machine() {
        let said = |text: &str| {
            let ports = published_ports(text).unwrap().into_iter();
            ports.map(|(bind, target)| format!("{bind}>{target}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said("80"), "127.0.0.1:80/tcp>80");
        assert_eq!(said("8080:80"), "127.0.0.1:8080/tcp>80");
        assert_eq!(said("[::]:5353:53/udp"), "[::]:5353/udp>53");
        assert_eq!(said("0.0.0.0:65534-65535:1-2"), "0.0.0.0:65534/tcp>1 0.0.0.0:65535/tcp>2");
        for wrong in ["", "80:", "80-81:80", "81-80", "::1:80:80", "80/sctp", "65536"] {
            let (why, hint) = published_ports(wrong).unwrap_err();
            assert!(!why.is_empty() && !hint.is_empty(), "{wrong}");
        }
    }
}
