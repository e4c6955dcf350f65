//! What routing netlink is asked, as a person reads it.

use std::fmt;

use super::{Hop, MAIN_TABLE, Route, RouteRequest, Rule, RuleFamily};

impl fmt::Display for RouteRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBridge(link) => write!(f, "+ bridge {}", link.name),
            Self::AddVeth(veth) => {
                write!(f, "+ veth {} to {}", veth.link.name, veth.peer.name)?;
                veth.port.as_ref().map_or(Ok(()), |port| write!(f, " on {}", port.bridge))
            }
            Self::ChangeLink(link, change) => write!(f, "~ link {link} {change}"),
            Self::RenameLink(link, name) => write!(f, "~ link {link} name {name}"),
            Self::DeleteLink(link) => write!(f, "- link {link}"),
            Self::DeleteIndex(index) => write!(f, "- link {index}"),
            Self::DeleteGroup(group) => write!(f, "- links of group {group}"),
            Self::AddAddress(link, address) => write!(f, "+ address {address} on {link}"),
            Self::DeleteAddress(link, address) => write!(f, "- address {address} on {link}"),
            Self::AddRoute(route) => write!(f, "+ route {route}"),
            Self::ReplaceRoute(route) => write!(f, "~ route {route}"),
            Self::DeleteRoute(route) => write!(f, "- route {route}"),
            Self::AddRule(rule) => write!(f, "+ rule {rule}"),
            Self::DeleteRule(rule) => write!(f, "- rule {rule}"),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Hop::Via(router, link) => write!(f, "{} via {router} on {link}", self.to)?,
            Hop::Link(link) => write!(f, "{} on {link}", self.to)?,
            Hop::Local => write!(f, "{} local", self.to)?,
            Hop::NoLink => write!(f, "{} unreachable", self.to)?,
        }
        if self.table == MAIN_TABLE { Ok(()) } else { write!(f, " table {}", self.table) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            RuleFamily::V4 => "ipv4",
            RuleFamily::V6 => "ipv6",
        };
        write!(f, "{family} mark {} to table {} priority {}", self.mark, self.table, self.priority)
    }
}
