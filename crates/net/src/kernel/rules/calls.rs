//! Machines that reach this computer: what they send to our address on their network is taken by one socket of ours,
//! which learns from the kernel whom it was for.

use std::net::IpAddr;

use stead_model::name::LinkName;

use super::{
    Chain, Elements, Expr, Family, Field, Hook, Policy, Priority, Rule, Value, base, gateway_chain, is,
    present,
};

/// The port in the engine's namespace at which calls are taken. No connection of ours there begins at it: it is none of those
/// that kernels choose from.
pub const CALLS_PORT: u16 = 20530;

/// The chains by which machines reach this computer, for [`crate::kernel::nft::NftRequest::SetChains`]: made when the
/// first such machine comes, so that kernels without this part serve where there is none. The second one is that of
/// [`super::engine_table`], which older engines have without the last of its rules.
pub fn call_chains() -> Vec<Chain> {
    let rule = |saddr, callers, daddr, gateways| {
        vec![
            Expr::In(vec![Field::Iifname, saddr], callers),
            Expr::In(vec![Field::Iifname, daddr], gateways),
            Expr::IsNot(Field::TcpDport, Value::Port(53)),
            Expr::Redirect(CALLS_PORT),
        ]
    };
    let rules = vec![
        rule(Field::IpSaddr, "callers4", Field::IpDaddr, "gateways4"),
        rule(Field::Ip6Saddr, "callers6", Field::Ip6Daddr, "gateways6"),
    ];
    vec![base("calls", Hook::Prerouting, Priority::Dstnat, Policy::Accept, rules), gateway_chain()]
}

/// What of the calls gets in.
pub(super) fn accepted() -> [Rule; 2] {
    [(Field::IpSaddr, "callers4"), (Field::Ip6Saddr, "callers6")].map(|(saddr, callers)| {
        vec![
            Expr::In(vec![Field::Iifname, saddr], callers),
            is(Field::TcpDport, Value::Port(CALLS_PORT)),
            Expr::Accept,
        ]
    })
}

/// The elements for a machine that calls, from these addresses on the networks of these bridges.
pub(super) fn elements(callers: &[(LinkName, IpAddr)]) -> Vec<Elements> {
    let of = |set, wanted: fn(&IpAddr) -> bool| {
        let value = |address: &IpAddr| match address {
            IpAddr::V4(address) => Value::V4(*address),
            IpAddr::V6(address) => Value::V6(*address),
        };
        let callers = callers.iter().filter(|(_, address)| wanted(address));
        let elements = callers.map(|(bridge, address)| vec![Value::Name(bridge.clone()), value(address)]);
        super::elements(Family::Inet, set, elements.collect())
    };
    present([of("callers4", IpAddr::is_ipv4), of("callers6", IpAddr::is_ipv6)])
}
