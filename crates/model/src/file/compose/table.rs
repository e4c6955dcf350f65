//! All keys of the Compose specification: those that mean here what they mean there, and those that cannot be honoured,
//! with the reason. Services share the keys of our own containers.

use super::value::{self, LINK, PORT, PUBLISHED, RESOURCE, TARGET_PORT, VOLUME};
use crate::file::leaf::Leaf;
use crate::file::leaf::container::{ANY, PROFILE, SECRET};
use crate::file::leaf::network::{ADDRESS, ADDRESS6, ANY_ADDRESS, MAC};
use crate::file::leaf::port::PORT_RANGE;
use crate::file::leaf::quantity::{CPUS, VOLUME_SIZE};
use crate::file::shape::container::{BIND, BUILD, ENV_FILE, FILE_USE, SHARED, VOLUME_KEYS, leaf};
use crate::file::shape::io::BLKIO;
use crate::file::shape::kept::{DEPLOY, LOG_OPTIONS, LOGGING, RESERVATIONS, RESOURCE_LIMITS};
use crate::file::shape::machine::{DEPENDENCY, PROTOCOL, REPLICAS};
use crate::file::shape::{EXTERNAL_NAME, FILE_SOURCE, FLAG, Form, INCLUDE, Key, LINE, Shape, plain};

/// A file of Compose as a shape.
pub(crate) const ROOT: Shape = &[Form::Keys(&[FILE])];

const FILE: &[Key] = &[
    plain("version", ANYTHING),
    plain("name", LINE),
    plain("services", &[Form::Map(Leaf::Form(value::SERVICE), &[Form::Keys(&[SERVICE, SHARED, UNSHARED])])]),
    plain("networks", &[Form::Map(Leaf::Form(RESOURCE), &[Form::Keys(&[NETWORK])])]),
    plain("volumes", &[Form::Map(Leaf::Form(RESOURCE), &[Form::Keys(&[VOLUME_TOP])])]),
    plain("secrets", FILES),
    plain("configs", FILES),
    plain("include", INCLUDE),
    refused("models", MODELS),
];

const ANYTHING: Shape = &[leaf(ANY), Form::Nothing];
const IGNORED: Shape = &[Form::Ignored];
const fn refused(name: &'static str, why: Shape) -> Key {
    plain(name, why)
}

const MODELS: Shape = &[Form::Refused("language models are not run here", "run one in a service")];
const EXTERNAL: Shape = &[Form::Leaf(Leaf::Flag), Form::Keys(&[&[plain("name", EXTERNAL_NAME)]])];
const EXTERNAL_FILE: Shape = &[Form::Leaf(Leaf::Only {
    word: "false",
    hint: "nothing outside of the project keeps any: write `file:`, `content:` or `environment:` instead",
})];
const NAMED: Shape = &[Form::Refused("its name is the one in this file, within the project", "leave it out")];
const UNLABELLED: Shape = &[Form::Inert("in a file only machines have labels")];
const DRIVER_OPTIONS: Shape = &[Form::Refused("drivers have no options here", "leave it out")];

const FILES: Shape = &[Form::Map(
    Leaf::Form(SECRET),
    &[Form::Keys(&[
        FILE_SOURCE,
        &[
            plain("external", EXTERNAL_FILE),
            refused("name", NAMED),
            plain("labels", UNLABELLED),
            refused("driver", DRIVER_OPTIONS),
            refused("driver_opts", DRIVER_OPTIONS),
            refused("template_driver", DRIVER_OPTIONS),
        ],
    ])],
)];

const SERVICE: &[Key] = &[
    plain(
        "networks",
        &[Form::List(&[leaf(RESOURCE)]), Form::Map(Leaf::Form(RESOURCE), &[Form::Keys(&[NIC])])],
    ),
    plain("ports", &[Form::List(&[leaf(PORT), Form::Keys(&[PORT_KEYS])])]),
    plain(
        "depends_on",
        &[Form::List(OTHER), Form::Map(Leaf::Form(value::SERVICE), &[Form::Keys(&[DEPENDENCY])])],
    ),
    plain("profiles", &[Form::List(&[leaf(PROFILE)])]),
    plain("build", &[Form::Leaf(Leaf::Text), Form::Keys(&[BUILD, UNBUILT])]),
    plain("scale", REPLICAS),
    plain("extends", &[leaf(value::SERVICE), Form::Keys(&[EXTENDS])]),
    plain("container_name", ALIAS_OF_SERVICE),
    plain("expose", &[Form::List(&[leaf(TARGET_PORT)])]),
    plain("links", &[Form::List(&[leaf(LINK)])]),
    plain("network_mode", &[leaf(value::NETWORK_MODE)]),
    plain(
        "pull_policy",
        &[Form::Leaf(Leaf::Choice(&[
            ("missing", "if it is not here"),
            ("if_not_present", "the same"),
            ("always", "each time the machine is created"),
            ("never", "not at all: it has to be here"),
            ("build", "not at all: it is built, each time that `stead up` runs"),
        ]))],
    ),
    plain(
        "env_file",
        &[Form::Leaf(Leaf::Text), Form::List(&[Form::Leaf(Leaf::Text), Form::Keys(&[ENV_FILE, RAW])])],
    ),
    plain(
        "volumes",
        &[Form::List(&[leaf(VOLUME), Form::Keys(&[VOLUME_SOURCE, VOLUME_REFUSED, VOLUME_KEYS])])],
    ),
    plain("secrets", USES),
    plain("configs", USES),
    plain("logging", &[Form::Keys(&[LOGGED, LOGGING])]),
    plain("develop", IGNORED),
    plain("mac_address", &[leaf(MAC)]),
    plain("cpu_quota", &[leaf(value::QUOTA)]),
    plain("cpu_period", &[leaf(value::PERIOD)]),
    plain(
        "userns_mode",
        &[Form::Leaf(Leaf::Only {
            word: "host",
            hint: "machines have no user namespace of their own: leave it out",
        })],
    ),
    plain("blkio_config", &[Form::Keys(&[BLKIO, BLKIO_REFUSED])]),
    plain("deploy", &[Form::Keys(&[DEPLOYED, DEPLOY])]),
    // `stead up` shows nobody's output.
    plain("attach", FLAG),
    plain("isolation", &[Form::Leaf(Leaf::Only { word: "default", hint: "leave it out" })]),
    plain("ipc", PRIVATE),
    plain("cgroup", PRIVATE),
    plain(
        "oom_kill_disable",
        &[Form::Leaf(Leaf::Only { word: "false", hint: "write `oom_score_adj: -1000`" })],
    ),
];

/// The name of a service.
const OTHER: Shape = &[leaf(value::SERVICE)];
/// One more name of a service.
const ALIAS_OF_SERVICE: Shape = &[leaf(value::ALIAS)];
const PRIVATE: Shape =
    &[Form::Leaf(Leaf::Only { word: "private", hint: "every machine has its own: leave it out" })];
const EXTENDS: &[Key] =
    &[Key { required: true, example: "base", ..plain("service", OTHER) }, plain("file", LINE)];
const RAW: &[Key] = &[plain(
    "format",
    &[Form::Leaf(Leaf::Choice(&[("raw", "values stand as they are, without quotes and variables")]))],
)];
const USES: Shape = &[Form::List(&[leaf(SECRET), Form::Keys(&[FILE_USE, OWNED])])];
const OWNED: &[Key] = &[plain("uid", OWNER), plain("gid", OWNER), plain("mode", OWNER)];
/// Of those that are texts they cannot be honoured; see [`super::owners`].
const OWNER: Shape = &[leaf(ANY)];

/// Before our own key of that name, whose volumes have our names.
const VOLUME_SOURCE: &[Key] =
    &[plain("source", &[leaf(value::SOURCE)]), plain("bind", &[Form::Keys(&[BIND, BIND_MORE])])];
/// As `z` and `Z` of the short form: our machines have no label of SELinux.
const BIND_MORE: &[Key] =
    &[plain("selinux", &[Form::Leaf(Leaf::Choice(&[("z", "files need no label"), ("Z", "the same")]))])];
const VOLUME_REFUSED: &[Key] = &[
    // Whichever is asked for, all see the same at once.
    plain(
        "consistency",
        &[Form::Leaf(Leaf::Choice(&[
            ("consistent", "all see the same at once"),
            ("cached", "the same"),
            ("delegated", "the same"),
            ("default", "the same"),
        ]))],
    ),
    plain("volume", &[Form::Keys(&[VOLUME_USE])]),
    refused("image", &[Form::Refused("images are not mounted", "leave it out")]),
];

const VOLUME_USE: &[Key] = &[
    plain("nocopy", FLAG),
    refused("subpath", &[Form::Refused("a volume is mounted as a whole", "leave it out")]),
    plain("labels", &[Form::Inert("in a file only machines have labels")]),
];
const BLKIO_REFUSED: &[Key] = &[refused(
    "weight_device",
    &[Form::Refused("a weight holds for all disks", "leave it out, or use `weight`")],
)];

/// Before our own key of that name.
const LOGGED: &[Key] = &[plain("options", &[Form::Keys(&[LOG_OPTIONS, LOG_REFUSED])])];
const LOG_REFUSED: &[Key] = &[
    plain("compress", &[Form::Inert("logs are not compressed")]),
    refused("mode", LOG_BLOCKS),
    refused("max-buffer-size", LOG_BLOCKS),
    plain("labels", LOG_BARE),
    plain("labels-regex", LOG_BARE),
    plain("env", LOG_BARE),
    plain("env-regex", LOG_BARE),
    plain("tag", LOG_BARE),
];
const LOG_BLOCKS: Shape =
    &[Form::Refused("a line is in the log before the next one is read", "leave it out")];
const LOG_BARE: Shape = &[Form::Inert("a log has what the machine wrote, and nothing beside")];

const SWARM: Shape = &[Form::Refused("it is for clusters", "leave it out")];
/// Before our own keys of these names.
const DEPLOYED: &[Key] = &[
    plain("mode", &[Form::Leaf(Leaf::Only { word: "replicated", hint: "write `replicas`" })]),
    plain("resources", &[Form::Keys(&[RESOURCES])]),
    // What only a cluster reads, so that Compose does not, either.
    plain("labels", IGNORED),
    plain("endpoint_mode", IGNORED),
    plain("placement", IGNORED),
    plain("rollback_config", IGNORED),
    plain("update_config", IGNORED),
];
const RESOURCES: &[Key] = &[
    plain("limits", &[Form::Keys(&[RESOURCE_LIMITS])]),
    plain("reservations", &[Form::Keys(&[RESERVATIONS, RESERVED])]),
];
const RESERVED: &[Key] = &[
    plain("cpus", &[leaf(CPUS)]),
    refused(
        "devices",
        &[Form::Refused("devices are not chosen by what they can do", "name them under `devices`")],
    ),
    refused("generic_resources", SWARM),
];

const NIC: &[Key] = &[
    plain("aliases", &[Form::List(ALIAS_OF_SERVICE)]),
    plain("ipv4_address", &[leaf(ADDRESS)]),
    plain("ipv6_address", &[leaf(ADDRESS6)]),
    plain("mac_address", &[leaf(MAC)]),
    plain("priority", PRIORITY),
    plain("gw_priority", PRIORITY),
    refused(
        "interface_name",
        &[Form::Refused("nics are `eth0`, `eth1` and so on, in this order", "leave it out")],
    ),
    refused("link_local_ips", &[Form::Refused("a nic has one address of each family", "leave it out")]),
    refused("driver_opts", DRIVER_OPTIONS),
];
const PRIORITY: Shape = &[leaf(value::PRIORITY)];

const PORT_KEYS: &[Key] = &[
    Key { required: true, example: "80", ..plain("target", &[leaf(PORT_RANGE)]) },
    plain("published", &[leaf(PUBLISHED)]),
    plain("host_ip", &[leaf(ANY_ADDRESS)]),
    plain("protocol", PROTOCOL),
    // Without a cluster both are the same.
    plain("mode", &[Form::Leaf(Leaf::Choice(&[("host", "on this computer"), ("ingress", "the same")]))]),
    plain("name", ANYTHING),
    plain("app_protocol", ANYTHING),
];

const NETWORK: &[Key] = &[
    plain(
        "driver",
        &[Form::Leaf(Leaf::Only { word: "bridge", hint: "leave it out: every network is a bridge" })],
    ),
    plain("internal", FLAG),
    plain("enable_ipv4", FLAG),
    plain("enable_ipv6", FLAG),
    plain("ipam", &[Form::Keys(&[IPAM])]),
    plain("external", EXTERNAL),
    // Whoever may run stead may put machines on any network.
    plain("attachable", FLAG),
    plain("driver_opts", &[Form::Keys(&[NETWORK_OPTIONS])]),
    // Of one that is the project's own it says nothing here.
    plain("name", LINE),
    plain("labels", UNLABELLED),
];
/// The options of Docker's own driver that have a meaning here.
const NETWORK_OPTIONS: &[Key] = &[plain(MTU_OPTION, &[Form::Leaf(Leaf::Whole { min: 576, max: 9216 })])];
/// What Docker calls the largest packet of a network.
pub(super) const MTU_OPTION: &str = "com.docker.network.driver.mtu";
const IPAM: &[Key] = &[
    plain("driver", &[Form::Leaf(Leaf::Only { word: "default", hint: "leave it out" })]),
    plain("config", &[Form::List(&[Form::Keys(&[SUBNET])])]),
    refused("options", DRIVER_OPTIONS),
];
const SUBNET: &[Key] = &[
    Key { required: true, example: "10.0.5.0/24", ..plain("subnet", &[leaf(value::SUBNET)]) },
    plain("gateway", &[leaf(ANY_ADDRESS)]),
    refused("ip_range", &[Form::Refused("addresses come from the whole subnet", "leave it out")]),
    refused("aux_addresses", &[Form::Refused("no addresses are kept back", "give machines fixed ones")]),
];

const VOLUME_TOP: &[Key] = &[
    plain("driver", &[Form::Leaf(Leaf::Only { word: "local", hint: "leave it out: every volume is local" })]),
    plain("external", EXTERNAL),
    plain("driver_opts", &[Form::Keys(&[VOLUME_OPTIONS])]),
    plain("labels", VOLUME_UNLABELLED),
    plain("name", EXTERNAL_NAME),
];

const VOLUME_UNLABELLED: Shape =
    &[Form::Inert("a volume that is made by a file has no labels; `stead volume create -l` gives it some")];

/// Those of Docker's driver `local`. `size` alone limits what its files take; the others mount a path.
const VOLUME_OPTIONS: &[Key] = &[
    plain("size", &[leaf(VOLUME_SIZE)]),
    plain("type", &[Form::Leaf(Leaf::Only { word: "none", hint: MOUNTED_VOLUME })]),
    plain("o", &[Form::Leaf(Leaf::Only { word: "bind", hint: MOUNTED_VOLUME })]),
    plain("device", LINE),
];
const MOUNTED_VOLUME: &str = "a volume can be a path of this computer, by `type: none`, `o: bind` and `device`; what is in memory is a \
                              `tmpfs` of the service";

const HOST: Shape = &[Form::Refused("every machine has its own", "leave it out")];
const HOOK: Shape = &[Form::Refused("nothing is run beside the program", "let the image's entrypoint do it")];
const TIME: Shape = &[Form::Refused("processor time has one limit here", "write `cpus`")];

const BUILDER: Shape = &[Form::Refused("builders do not all do that", "leave it out")];

const CACHE: Shape =
    &[Form::Inert("the builder has a cache of its own, and neither takes nor leaves another")];

/// Keys of builds that cannot be honoured.
const UNBUILT: &[Key] = &[
    refused("additional_contexts", BUILDER),
    plain("cache_from", CACHE),
    plain("cache_to", CACHE),
    refused("entitlements", BUILDER),
    refused("extra_hosts", BUILDER),
    refused("isolation", BUILDER),
    refused("network", BUILDER),
    refused("privileged", BUILDER),
    refused("provenance", BUILDER),
    refused("sbom", BUILDER),
    refused("shm_size", BUILDER),
    refused("ssh", BUILDER),
    refused("ulimits", BUILDER),
    refused(
        "platforms",
        &[Form::Refused("an image is built for one platform", "write `platform` beside `build`")],
    ),
];

/// Keys of services that cannot be honoured.
const UNSHARED: &[Key] = &[
    refused(
        "external_links",
        &[Form::Refused("machines of other projects are not linked", "put both into one project")],
    ),
    refused("volumes_from", &[Form::Refused("volumes are named", "name them under `volumes` of both")]),
    refused("domainname", &[Form::Refused("a host has one name", "write the whole of it as `hostname`")]),
    refused("dns_opt", &[Form::Refused("the resolver has no options", "leave it out")]),
    refused("cpu_count", TIME),
    refused("cpu_percent", TIME),
    refused("cpu_rt_period", TIME),
    refused("cpu_rt_runtime", TIME),
    refused("mem_swappiness", &[Form::Refused("the kernel decides what it swaps", "write `memswap_limit`")]),
    refused("cgroup_parent", HOST),
    refused("pid", HOST),
    refused("uts", HOST),
    refused("device_cgroup_rules", &[Form::Refused("devices are named", "name them under `devices`")]),
    refused(
        "gpus",
        &[Form::Refused("devices are not chosen by what they can do", "name them under `devices`")],
    ),
    refused("credential_spec", &[Form::Refused("it is for Windows", "leave it out")]),
    plain("runtime", &[Form::Leaf(Leaf::Only { word: "runc", hint: "stead is the runtime: leave it out" })]),
    refused("storage_opt", &[Form::Refused("the size of a root is not limited", "leave it out")]),
    plain(
        "annotations",
        &[Form::Inert("no other runtime is there to read them; people and programs read `labels`")],
    ),
    refused("post_start", HOOK),
    refused("pre_stop", HOOK),
    refused("provider", &[Form::Refused("services are containers", "leave it out")]),
    refused("models", MODELS),
    refused("use_api_socket", &[Form::Refused("machines do not reach into stead", "leave it out")]),
];
