//! Networks as written.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::view::{At, Given, Place, View, word};
use crate::file::leaf::{self, network as wire};
use crate::file::problem::Problem;
use crate::name::{Name, NetworkId};
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
    /// Which one of another project it is, if it is.
    pub(crate) external: Option<NetworkId>,
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
pub(crate) fn read(
    name: At<Name>,
    view: &View<'_>,
    defaults: &View<'_>,
    problems: &mut Vec<Problem>,
) -> NetworkSpec {
    let (dhcp, boot) = (view.get("dhcp"), view.get("boot"));
    let mtu = |view: &View<'_>| view.get("mtu").read(|text| leaf::whole(text, 576, 9216));
    let reach = view.get("reach");
    let reach = match reach.get("bridged").read(wire::link) {
        Given::Is(At { value, place }) => Given::Is(At { value: Reach::Bridged(value), place }),
        Given::Wrong => Given::Wrong,
        Given::Absent => reach.read(wire::reach),
    };
    NetworkSpec {
        external: external(&name.value, view, problems),
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

/// What is said of a network by the project that has it.
const OWN_KEYS: [&str; 8] = ["subnet", "subnet6", "addressing", "reach", "mtu", "joins", "dhcp", "boot"];

/// Which network of another project is meant, if one is. What that is like is not for this file to say.
fn external(name: &Name, view: &View<'_>, problems: &mut Vec<Problem>) -> Option<NetworkId> {
    if !view.flag("external") {
        problems.extend(view.key_place("name").map(|place| {
            place
                .problem("the name of a network of the project is the one in this file, within the project")
                .hint("leave it out, or write `external: true` beside it: then it is one that `stead network create` made")
        }));
        return None;
    }
    problems.extend(OWN_KEYS.into_iter().filter_map(|key| view.key_place(key)).map(|place| {
        let message = format!("`{}` of an external network is not this project's to say", place.text);
        place.problem(message).hint(
            "leave it out, and say it where the network is made: `stead network create`, or the file of its project",
        )
    }));
    let (project, name) = super::external(name, view);
    Some(NetworkId::new(&project, &name))
}
