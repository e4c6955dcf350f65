//! Our chains in the host's namespace, where the way out is a link of ours.

use ipnet::{Ipv4Net, Ipv6Net};
use stead_model::name::LinkName;

use super::{is, known_connection, l4};
use crate::kernel::nft::{Base, Chain, Expr, Field, Hook, Policy, Priority, Protocol, Value};

/// A home's uplink in the host's namespace: the near end of a veth pair and the subnets of its two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUplink {
    /// Tells homes apart: a few letters and digits.
    pub home: String,
    /// The host's end.
    pub link: LinkName,
    /// The transfer subnet.
    pub subnet: Ipv4Net,
    /// The transfer subnet; none where the host has no IPv6.
    pub subnet6: Option<Ipv6Net>,
}

/// The names of a home's chains.
pub fn host_chain_names(home: &str) -> Vec<String> {
    ["fwd", "in", "nat"].map(|kind| format!("{kind}-{home}")).to_vec()
}

/// The chains of a home in the host's table `stead`, for [`crate::kernel::nft::NftRequest::SetChains`]; they go with
/// [`crate::kernel::nft::NftSocket::remove_chains`]. What the engine sends goes on, answers come back, and nothing
/// else gets in. Another table's `drop` still wins over our `accept`: see `docs/decisions/0013`.
pub fn host_chains(uplink: &HostUplink) -> Vec<Chain> {
    let link = || Value::Name(uplink.link.clone());
    let forward = vec![
        vec![is(Field::Iifname, link()), Expr::Accept],
        vec![is(Field::Oifname, link()), known_connection(), Expr::Accept],
        vec![is(Field::Oifname, link()), Expr::Drop],
    ];
    // Machines reach what is beyond the computer, not its own services: as by pasta. What its neighbour
    // tables and path discovery need is ICMP.
    let from_engine = |end: Vec<Expr>| [vec![is(Field::Iifname, link())], end].concat();
    let input = vec![
        from_engine(vec![l4(Protocol::Icmp), Expr::Accept]),
        from_engine(vec![l4(Protocol::Icmpv6), Expr::Accept]),
        from_engine(vec![Expr::Drop]),
    ];
    let leaving = |source| vec![source, Expr::IsNot(Field::Oifname, link()), Expr::Masquerade];
    let v6 = uplink.subnet6.map(|subnet| leaving(is(Field::Ip6Saddr, Value::V6Net(subnet))));
    let nat = [leaving(is(Field::IpSaddr, Value::V4Net(uplink.subnet)))].into_iter().chain(v6).collect();
    let names = host_chain_names(&uplink.home);
    let bases = [
        Base { hook: Hook::Forward, priority: Priority::Filter, policy: Policy::Accept },
        Base { hook: Hook::Input, priority: Priority::Filter, policy: Policy::Accept },
        Base { hook: Hook::Postrouting, priority: Priority::Srcnat, policy: Policy::Accept },
    ];
    let parts = names.into_iter().zip(bases).zip([forward, input, nat]);
    parts.map(|((name, base), rules)| Chain { name, base: Some(base), rules }).collect()
}
