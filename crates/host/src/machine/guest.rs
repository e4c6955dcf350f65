//! What a keeper is told of a guest.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use stead_model::address::Mac;
use stead_model::image::Digest;
use stead_model::name::LinkName;
use stead_model::vm::{CloudInit, DiskImage, Firmware};

/// A guest of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// What it boots.
    pub boots: Boots,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// How large its own disk may become.
    pub disk_bytes: u64,
    /// Its nics.
    pub nics: Vec<GuestNic>,
    /// Whether it boots in any case, and no template of it is made.
    #[serde(default)]
    pub is_cold: bool,
}

/// What a guest boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boots {
    /// A kernel of ours and our agent, which runs one container.
    Image {
        /// The image that its root is made of.
        image: Digest,
        /// Its kernel, by its name.
        kernel: String,
    },
    /// Whatever its disk has.
    Disk {
        /// What its disk is a layer over.
        image: Box<DiskImage>,
        /// What starts its boot loader.
        firmware: Firmware,
        /// What it is told at its start.
        seed: Option<Seed>,
    },
}

/// What a guest is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Which machine this is to cloud-init.
    pub instance_id: String,
    /// What the user wants.
    pub told: CloudInit,
}

/// A nic of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNic {
    /// The TAP, in the engine's namespace.
    pub tap: LinkName,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The routers that lead out by it.
    pub gateways: Vec<IpAddr>,
    /// The largest packet.
    pub mtu: u16,
    /// Whether it asks on its network for its addresses; else they are to be set.
    #[serde(default)]
    pub asks: bool,
    /// Whom it may ask for names.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// The domain of its network's names.
    #[serde(default)]
    pub domain: Option<String>,
}
