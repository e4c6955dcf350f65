//! What the targets share: one network to answer from, and what to begin with.

pub mod frames;
pub mod seeds;

use std::sync::LazyLock;

use stead_net::serve::network::Net;

/// A network with two machines, a pool and a boot file.
pub static NET: LazyLock<Net> = LazyLock::new(|| {
    let wanted = serde_json::from_str(include_str!("network.json")).expect("the network is written by us");
    Net::new(&"lan.shop".parse().expect("a lawful name"), &wanted).expect("it is there")
});
