//! Everything we say to the kernel about networks, by netlink alone: no program is run. The sockets are
//! given to us, made in the network namespace that they speak for, so that nobody here changes namespaces.

pub mod legacy;
mod link;
pub mod nft;
mod route;
pub mod rules;
mod seen;
mod socket;
mod sys;
pub mod tap;
mod tlv;
mod uapi;

pub use link::{ALIAS_MAX_BYTES, LinkChange, NewLink, Peer, Port, PortFlags, Veth, has_ipv6};
pub use route::{Hop, MAIN_TABLE, Route, RouteRequest, RouteSocket, Rule, RuleFamily};
pub use seen::{Address, Link, LinkKind};
pub use socket::Refused;

/// The aliases of our links start with this.
pub const ALIAS_PREFIX: &str = "stead:";

/// The `protocol` of our routes, which says whose they are: a number that nobody else has claimed.
pub const ROUTE_PROTOCOL: u8 = 115;
