//! Networks as written.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::view::{At, Given, Place, View, word};
use crate::file::leaf::{self, network as wire};
use crate::name::Name;
use crate::project::{Pool, Reach, Subnet};

/// Who gives addresses, without the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Managed,
    Static,
    None,
}

#[derive(Debug)]
pub(crate) struct NetworkSpec {
    pub(crate) name: At<Name>,
    pub(crate) subnet: Given<Subnet<Ipv4Net>>,
    pub(crate) subnet6: Given<Subnet<Ipv6Net>>,
    pub(crate) addressing: Given<Mode>,
    pub(crate) reach: Given<Reach>,
    pub(crate) mtu: Given<u16>,
    pub(crate) joins: Vec<At<Name>>,
    pub(crate) dhcp: Option<Place>,
    pub(crate) pool: Given<Pool>,
    pub(crate) lease_s: Given<u32>,
    pub(crate) slaac: Given<bool>,
    pub(crate) boot: Option<Place>,
    pub(crate) boot_file: Given<String>,
    pub(crate) boot_server: Given<IpAddr>,
}

const MODES: &[(&str, Mode)] = &[("managed", Mode::Managed), ("static", Mode::Static), ("none", Mode::None)];

/// Reads a network, with its defaults where it says nothing.
pub(crate) fn read(name: At<Name>, view: &View<'_>, defaults: &View<'_>) -> NetworkSpec {
    let (dhcp, boot) = (view.get("dhcp"), view.get("boot"));
    let mtu = |view: &View<'_>| view.get("mtu").read(|text| leaf::whole(text, 576, 9216));
    let reach = view.get("reach");
    let reach = match reach.get("bridged").read(wire::link) {
        Given::Is(At { value, place }) => Given::Is(At { value: Reach::Bridged(value), place }),
        Given::Wrong => Given::Wrong,
        Given::Absent => reach.read(wire::reach),
    };
    NetworkSpec {
        name,
        subnet: view.get("subnet").read(wire::subnet),
        subnet6: view.get("subnet6").read(wire::subnet6),
        addressing: view.get("addressing").read(word(MODES)),
        reach,
        mtu: mtu(view).or(&mtu(defaults)),
        joins: view.get("joins").names(),
        dhcp: view.key_place("dhcp"),
        pool: dhcp.get("pool").read(wire::pool),
        lease_s: dhcp.get("lease").read(wire::duration_s),
        slaac: dhcp.get("slaac").read(leaf::flag),
        boot: view.key_place("boot"),
        boot_file: boot.get("file").read(leaf::plain_text),
        boot_server: boot.get("server").read(wire::any_address),
    }
}
