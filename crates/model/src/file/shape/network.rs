//! The keys of networks.

use super::{EXTERNAL_NAME, FLAG, Form, Key, MTU, NAME, key, required};
use crate::file::leaf::Leaf;
use crate::file::leaf::network::{ANY_ADDRESS, LEASE, LINK, POOL, REACH, SUBNET, SUBNET6};

pub(crate) const NETWORK: &[Key] = &[
    key(
        "external",
        FLAG,
        "false",
        "true",
        "Whether it is not this project's: one that `stead network create` made, or another project's. It has to be there before \
         `stead up`; machines of several projects may be on it at once and find each other by their names, and it stays whatever \
         becomes of this project. What it is like, its project says.",
    ),
    key(
        "name",
        EXTERNAL_NAME,
        "",
        "lan.shop",
        "Of an external one: how it is called by `stead network ls`; without a project it is of what commands make. Left out: as here.",
    ),
    key(
        "subnet",
        &[Form::Leaf(Leaf::Form(SUBNET))],
        "auto",
        "10.0.5.0/24",
        "The IPv4 subnet, /8 to /29. `auto`: one that nothing on this computer uses. `off`: no IPv4.",
    ),
    key(
        "subnet6",
        &[Form::Leaf(Leaf::Form(SUBNET6))],
        "auto",
        "fd00:5::/64",
        "The IPv6 subnet, always a /64. `auto`: one of our own. `off`: no IPv6.",
    ),
    key(
        "addressing",
        &[Form::Leaf(Leaf::Choice(&[
            ("managed", "stead gives the addresses: DHCPv4, DHCPv6, router advertisements and DNS"),
            (
                "static",
                "the machines' own set-up does, with the addresses that stead planned; stead serves DNS",
            ),
            ("none", "a machine of the lab does, or the real network; stead is not on this wire"),
        ]))],
        "managed",
        "static",
        "Who gives the machines their addresses. A bridged network that does not say has `none`.",
    ),
    key(
        "reach",
        &[Form::Leaf(Leaf::Form(REACH)), Form::Keys(&[BRIDGED])],
        "nat",
        "isolated",
        "What lies beyond: `nat` whatever this computer reaches, `isolated` nothing, `bridged:<link>` the real network \
         behind that link. With addressing `none` the default is `isolated`.",
    ),
    key("mtu", MTU, "1500", "9000", "The largest packet, 576 to 9216; with IPv6 at least 1280."),
    key(
        "joins",
        &[Form::Set(NAME)],
        "",
        "[back]",
        "Networks of this project that packets may pass to and from. Always both ways.",
    ),
    key(
        "dhcp",
        &[Form::Keys(&[DHCP])],
        "",
        "{ lease: 12h }",
        "How addresses are given. Only with addressing `managed`.",
    ),
    key(
        "boot",
        &[Form::Keys(&[BOOT])],
        "",
        "{ file: pxelinux.0 }",
        "What machines that boot from the network are told. Only with addressing `managed`.",
    ),
];

const DHCP: &[Key] = &[
    key(
        "pool",
        &[Form::Leaf(Leaf::Form(POOL))],
        "auto",
        "10.0.5.100-10.0.5.200",
        "The addresses for machines that stead does not know. `auto`: the last quarter of the subnet. `off`: they get no answer.",
    ),
    key("lease", &[Form::Leaf(Leaf::Form(LEASE))], "1h", "1h30m", "How long a lease holds, `1m` to `366d`."),
    key(
        "slaac",
        &[Form::Leaf(Leaf::Flag)],
        "false",
        "true",
        "Whether machines may also make themselves an IPv6 address from their MAC.",
    ),
];

const BOOT: &[Key] = &[
    required("file", &[Form::Leaf(Leaf::Text)], "pxelinux.0", "The file to load: a path for TFTP, or a URL."),
    key(
        "server",
        &[Form::Leaf(Leaf::Form(ANY_ADDRESS))],
        "",
        "10.0.5.9",
        "Where from. Left out: the network's gateway.",
    ),
];

const BRIDGED: &[Key] = &[required(
    "bridged",
    &[Form::Leaf(Leaf::Form(LINK))],
    "eth0",
    "The link of this computer with the real network. One that is no bridge is the network's alone while that is up: the computer does not see it, and has it back as up or down as it was, and with the kernel's own settings (`sysctl`).",
)];
