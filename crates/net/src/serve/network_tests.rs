//! A network for the tests of the protocols.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stead_model::name::NetworkId;
use stead_model::project::Boot;
use stead_model::served::{ServedDhcp, ServedHost, ServedNetwork};

use super::network::Net;

pub(crate) const WEB: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
pub(crate) const DB: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];

pub(crate) fn wanted() -> BTreeMap<NetworkId, ServedNetwork> {
    let host = |name: &str, alias: &str, last: u8, number: u8| ServedHost {
        name: name.parse().unwrap(),
        project: None,
        aliases: vec![alias.parse().unwrap()],
        address: Some([10, 0, number, last].into()),
        address6: Some(format!("fd00:{number}::{last:x}").parse().unwrap()),
        calls: false,
    };
    let network = |number: u8, hosts: BTreeMap<_, _>, joins: Vec<NetworkId>| ServedNetwork {
        link: "br0".parse().unwrap(),
        mac: "02:aa:00:00:00:01".parse().unwrap(),
        mtu: 1400,
        gateway: Some(format!("10.0.{number}.1/24").parse().unwrap()),
        gateway6: Some(format!("fd00:{number}::1/64").parse().unwrap()),
        routes: true,
        resolves: true,
        dhcp: Some(ServedDhcp {
            pool: Some(([10, 0, number, 200].into(), [10, 0, number, 203].into())),
            lease_s: 3600,
            slaac: true,
            boot: Some(Boot { file: "http://10.0.5.1/boot.efi".into(), server: None }),
        }),
        domain: "shop.stead".into(),
        hosts,
        joins,
    };
    let mac = |bytes| stead_model::address::Mac::new(bytes).unwrap();
    let lan = [(mac(WEB), host("web", "front", 10, 5)), (mac(DB), host("db", "store", 11, 5))];
    // `web` is on both networks; its address here goes first.
    let back = [
        (mac([2, 0, 0, 0, 1, 1]), host("web", "x", 10, 6)),
        (mac([2, 0, 0, 0, 1, 2]), host("job", "store", 12, 6)),
    ];
    BTreeMap::from([
        ("lan.shop".parse().unwrap(), network(5, lan.into(), vec!["back.shop".parse().unwrap()])),
        ("back.shop".parse().unwrap(), network(6, back.into(), Vec::new())),
    ])
}

pub(crate) fn net() -> Net {
    Net::new(&"lan.shop".parse().unwrap(), &wanted()).unwrap()
}

pub(crate) fn net_with(change: impl FnOnce(&mut ServedNetwork)) -> Net {
    let mut all = wanted();
    let id = "lan.shop".parse().unwrap();
    change(all.get_mut(&id).unwrap());
    Net::new(&id, &all).unwrap()
}

/// Damages packets: bytes changed, cut off, added, at random.
pub(crate) fn damaged(packets: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let tail = prop::collection::vec(any::<u8>(), 0..24);
    (prop::sample::select(packets), changes, any::<prop::sample::Index>(), any::<bool>(), tail).prop_map(
        |(mut packet, changes, end, cut, tail)| {
            for (at, byte) in changes {
                if !packet.is_empty() {
                    let at = at.index(packet.len());
                    packet[at] = byte;
                }
            }
            if cut {
                packet.truncate(end.index(packet.len() + 1));
            }
            packet.extend(tail);
            packet
        },
    )
}
