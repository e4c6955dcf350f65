//! The one table that describes the file. The check of a file's structure, the JSON Schema and the
//! reference page all come from it, so they cannot disagree.

use super::leaf::Leaf;

/// What may stand at a place: at most one form of each kind (a value, a list, a mapping).
pub(crate) type Shape = &'static [Form];

/// One form.
#[derive(Debug)]
pub(crate) enum Form {
    /// A single value.
    Leaf(Leaf),
    /// A list of such things.
    List(Shape),
    /// A mapping with these keys.
    Keys(&'static [Key]),
    /// A mapping of names to such things.
    Named(Shape),
}

/// A key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    /// What holds if the key is left out; empty if nothing does or the doc line says it.
    pub(crate) default: &'static str,
    pub(crate) example: &'static str,
    pub(crate) doc: &'static str,
}

const fn key(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, required: false, default, example, doc }
}

const fn required(name: &'static str, shape: Shape, example: &'static str, doc: &'static str) -> Key {
    Key { name, shape, required: true, default: "", example, doc }
}

/// The whole file. Other keys of the outermost level that start with `x-` are left alone.
pub(crate) const FILE: &[Key] = &[
    key("name", NAME, "", "shop", "The project's name. Left out: the name of the directory, made lawful."),
    key(
        "defaults",
        &[Form::Keys(DEFAULTS)],
        "",
        "{ kind: vm }",
        "What holds where a machine or network says nothing.",
    ),
    key(
        "networks",
        &[Form::Named(&[Form::Keys(NETWORK)])],
        "",
        "{ lan: { subnet: 10.0.5.0/24 } }",
        "The networks, by name. One named `default` is there as soon as something is on it.",
    ),
    key(
        "machines",
        &[Form::Named(&[Form::Keys(MACHINE)])],
        "",
        "{ web: { kind: vm, driver: external } }",
        "The machines, by name. Every machine finds the others of its networks by these names.",
    ),
    key(
        "volumes",
        &[Form::List(NAME), Form::Named(&[Form::Keys(&[])])],
        "",
        "[data]",
        "The volumes: a list of names, or names with nothing under them.",
    ),
];

/// The file as a shape.
pub(crate) const ROOT: Shape = &[Form::Keys(FILE)];

const NAME: Shape = &[Form::Leaf(Leaf::Name)];
const NAMES: Shape = &[Form::List(NAME)];
const KIND: Shape = &[Form::Leaf(Leaf::Choice(&[
    ("container", "shares this computer's kernel; its nics are veth pairs"),
    ("microvm", "has a kernel of its own and little else; its nics are TAPs"),
    ("vm", "a whole computer; its nics are TAPs"),
]))];
const DRIVER: Shape = &[Form::Leaf(Leaf::Choice(&[(
    "external",
    "somebody else runs the machine: stead makes its network namespace (`container`) or its TAPs (`microvm`, `vm`) \
     and gives it its leases, names and ports",
)]))];
const GUARD: Shape = &[Form::Leaf(Leaf::Choice(&[
    ("on", "only the nic's own MAC and addresses pass"),
    ("off", "everything passes: for a router, or a machine that holds machines"),
]))];
const MTU: Shape = &[Form::Leaf(Leaf::Whole { min: 576, max: 9216 })];

const DEFAULTS: &[Key] = &[
    key("kind", KIND, "", "container", "The kind of machines that name none."),
    key("driver", DRIVER, "", "external", "What runs machines that do not say."),
    key("guard", GUARD, "on", "off", "Whether nics may speak with other addresses than their own."),
    key(
        "publish",
        &[Form::Leaf(Leaf::AnyAddress)],
        "127.0.0.1",
        "0.0.0.0",
        "The address of this computer that ports without an address are published on; `0.0.0.0` and `::` mean all.",
    ),
    key("mtu", MTU, "1500", "9000", "The largest packet on networks that do not say."),
];

const NETWORK: &[Key] = &[
    key(
        "subnet",
        &[Form::Leaf(Leaf::Subnet)],
        "auto",
        "10.0.5.0/24",
        "The IPv4 subnet, /8 to /29. `auto`: one that nothing on this computer uses. `off`: no IPv4.",
    ),
    key(
        "subnet6",
        &[Form::Leaf(Leaf::Subnet6)],
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
        &[
            Form::Leaf(Leaf::Reach),
            Form::Keys(&[required(
                "bridged",
                &[Form::Leaf(Leaf::Link)],
                "eth0",
                "The link of this computer with the real network.",
            )]),
        ],
        "nat",
        "isolated",
        "What lies beyond: `nat` whatever this computer reaches, `isolated` nothing, `bridged:<link>` the real network \
         behind that link. With addressing `none` the default is `isolated`.",
    ),
    key("mtu", MTU, "1500", "9000", "The largest packet, 576 to 9216; with IPv6 at least 1280."),
    key(
        "joins",
        NAMES,
        "",
        "[back]",
        "Networks of this project that packets may pass to and from. Always both ways.",
    ),
    key(
        "dhcp",
        &[Form::Keys(DHCP)],
        "",
        "{ lease: 12h }",
        "How addresses are given. Only with addressing `managed`.",
    ),
    key(
        "boot",
        &[Form::Keys(BOOT)],
        "",
        "{ file: pxelinux.0 }",
        "What machines that boot from the network are told. Only with addressing `managed`.",
    ),
];

const DHCP: &[Key] = &[
    key(
        "pool",
        &[Form::Leaf(Leaf::Pool)],
        "auto",
        "10.0.5.100-10.0.5.200",
        "The addresses for machines that stead does not know. `auto`: the last quarter of the subnet. `off`: they get no answer.",
    ),
    key("lease", &[Form::Leaf(Leaf::Duration)], "1h", "1h30m", "How long a lease holds, `1m` to `366d`."),
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
        &[Form::Leaf(Leaf::AnyAddress)],
        "",
        "10.0.5.9",
        "Where from. Left out: the network's gateway.",
    ),
];

const MACHINE: &[Key] = &[
    key("kind", KIND, "", "vm", "What kind of machine it is. Must be here or in `defaults`."),
    key("driver", DRIVER, "", "external", "What runs it. Must be here or in `defaults`."),
    key(
        "networks",
        &[Form::List(NAME), Form::Named(&[Form::Keys(NIC)])],
        "[default]",
        "{ lan: { address: 10.0.5.7 } }",
        "The networks it is on, a nic each, in this order; the first nic has the default route. `[]`: none.",
    ),
    key(
        "ports",
        &[Form::List(&[Form::Leaf(Leaf::Port), Form::Keys(PORT)])],
        "",
        "[\"8080:80\"]",
        "The ports of it that this computer publishes: `[address:]port:target[/protocol]`. `\"80\"` alone means `80:80` \
         (Compose would take any port). Without an address: on 127.0.0.1 only, or on `defaults.publish`.",
    ),
    key("depends_on", NAMES, "", "[db]", "The machines that come before it."),
];

const NIC: &[Key] = &[
    key(
        "address",
        &[Form::Leaf(Leaf::Address)],
        "",
        "10.0.5.7",
        "Its IPv4 address. Left out: stead chooses.",
    ),
    key(
        "address6",
        &[Form::Leaf(Leaf::Address6)],
        "",
        "fd00:5::7",
        "Its IPv6 address. Left out: stead chooses.",
    ),
    key("mac", &[Form::Leaf(Leaf::Mac)], "", "02:00:00:00:00:07", "Its MAC. Left out: stead chooses."),
    key("aliases", NAMES, "", "[www]", "More names for the machine on this network."),
    key("guard", GUARD, "on", "off", "Whether it may speak with other addresses than its own."),
];

const PORT: &[Key] = &[
    key(
        "port",
        &[Form::Leaf(Leaf::PortRange)],
        "",
        "8080",
        "The port of this computer, or a range. Left out: the target.",
    ),
    required(
        "target",
        &[Form::Leaf(Leaf::PortRange)],
        "80",
        "The machine's port, or a range of the same length.",
    ),
    key(
        "protocol",
        &[Form::Leaf(Leaf::Choice(&[("tcp", "streams"), ("udp", "datagrams")]))],
        "tcp",
        "udp",
        "What it carries.",
    ),
    key(
        "address",
        &[Form::Leaf(Leaf::AnyAddress)],
        "",
        "0.0.0.0",
        "The address of this computer. Left out: `defaults.publish`.",
    ),
];
