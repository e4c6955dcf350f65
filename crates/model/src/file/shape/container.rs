//! The keys of containers that stead runs. Their names and meanings are Compose's where Compose has one.

use super::io::BLKIO;
use super::kept::{DEPLOY, LOGGING};
use super::{FLAG, Form, Key, LINE, Shape, key, required};
use crate::file::leaf::Leaf;
use crate::file::leaf::container::{
    ANY, CAPABILITY, CPUSET, DEVICE, DEVICE_ACCESS, DEVICE_PATH, GROUP, HOST, HOST_ADDRESS, HOSTNAME, IMAGE,
    PAIR, PAIR_NAME, PLATFORM, RESTART, SEARCH, SECRET, SECURITY, SIGNAL, SYSCTL, SYSCTL_PAIR, USER, WORDS,
    WORKDIR,
};
use crate::file::leaf::mount::{ANY_SOURCE, TARGET, TMPFS, VOLUME};
use crate::file::leaf::network::{ANY_ADDRESS, MODE};
use crate::file::leaf::quantity::{
    BYTES, BYTES_OR_ALL, COUNT_OR_ALL, CPU_SHARES, CPUS, FILE_MODE, OOM_SCORE, OWNER_ID, TIME, ULIMIT,
};
use crate::file::leaf::vm::ANY_IMAGE;

pub(crate) const fn leaf(form: &'static crate::file::leaf::TextForm) -> Form {
    Form::Leaf(Leaf::Form(form))
}

const TEXTS: Shape = &[leaf(ANY), Form::List(&[leaf(ANY)])];
pub(crate) const PAIRS: Shape =
    &[Form::List(&[leaf(PAIR)]), Form::Map(Leaf::Form(PAIR_NAME), &[leaf(ANY), Form::Nothing])];
const HOST_ADDRESSES: Shape = &[leaf(HOST_ADDRESS), Form::List(&[leaf(HOST_ADDRESS)])];
const CAPABILITIES: Shape = &[Form::List(&[leaf(CAPABILITY)])];
const FILES: Shape = &[Form::Set(&[leaf(SECRET), Form::Keys(&[FILE_USE])])];

/// Those that are Compose's word by word.
pub(crate) const SHARED: &[Key] = &[
    key(
        "image",
        &[leaf(ANY_IMAGE)],
        "",
        "debian:12",
        "The image that it is made of; needed for every machine that stead runs. For a `vm` the path of a disk image, raw \
         or qcow2, that starts with `/`, `./`, `../` or `~/`.",
    ),
    key("platform", &[leaf(PLATFORM)], "", "linux/arm64", "For which platform. Left out: this computer's."),
    key(
        "entrypoint",
        &[leaf(WORDS), Form::List(&[leaf(ANY)])],
        "",
        "[/entry.sh, --quick]",
        "Instead of the image's entrypoint: a list, or a line that is split as a shell does. The image's command then \
         does not count.",
    ),
    key(
        "command",
        &[leaf(WORDS), Form::List(&[leaf(ANY)])],
        "",
        "sleep 1h",
        "Instead of the image's command, in the same forms. Variables and pipes are a shell's: `[sh, -c, …]`.",
    ),
    key(
        "environment",
        PAIRS,
        "",
        "{ MODE: test, TOKEN: }",
        "More environment: a mapping, or a list of `NAME=value`. A name alone has the value that stead's own \
         environment or `.env` gives it.",
    ),
    key(
        "working_dir",
        &[leaf(WORKDIR)],
        "",
        "/srv",
        "Where the program starts. Left out: as the image says.",
    ),
    key(
        "user",
        &[leaf(USER)],
        "",
        "1000:1000",
        "As whom: `user[:group]`, names or numbers. Left out: as the image says.",
    ),
    key("group_add", &[Form::List(&[leaf(GROUP)])], "", "[audio]", "More groups, names or numbers."),
    key("hostname", &[leaf(HOSTNAME)], "", "web1", "What it calls itself. Left out: the machine's name."),
    key("labels", PAIRS, "", "{ team: shop }", "Labels, for people and programs to find it by."),
    key(
        "label_file",
        &[Form::Leaf(Leaf::Text), Form::List(&[Form::Leaf(Leaf::Text)])],
        "",
        "[web.labels]",
        "Files with more labels, in the form of `.env`; later ones win, `labels` wins over all.",
    ),
    key("tty", FLAG, "false", "true", "Whether it has a terminal."),
    key("stdin_open", FLAG, "false", "true", "Whether its standard input stays open for `attach`."),
    key(
        "init",
        FLAG,
        "false",
        "true",
        "Whether a small process of stead's is its first one, which passes signals on and buries the dead.",
    ),
    key(
        "tmpfs",
        &[leaf(TMPFS), Form::Set(&[leaf(TMPFS)])],
        "",
        "\"/run:size=64m,mode=1777\"",
        "File systems in memory. Options: `size`, `mode`, `uid`, `gid`, `ro`, `rw`.",
    ),
    key(
        "extra_hosts",
        &[Form::List(&[leaf(HOST)]), Form::Map(Leaf::Form(HOSTNAME), HOST_ADDRESSES)],
        "",
        "[\"printer:10.1.0.9\"]",
        "Names that it finds without asking the network: `name:address`, or a mapping. A name may have several addresses, a \
         line each or as a list. `host-gateway` is this computer, to which it may then open TCP connections.",
    ),
    key(
        "dns",
        &[leaf(ANY_ADDRESS), Form::List(&[leaf(ANY_ADDRESS)])],
        "",
        "[10.1.0.53]",
        "Whom it asks for names instead of its network.",
    ),
    key(
        "dns_search",
        &[leaf(SEARCH), Form::List(&[leaf(SEARCH)])],
        "",
        "[corp.example]",
        "Where it looks for short names, instead of in its network's domain.",
    ),
    key("cpus", &[leaf(CPUS)], "", "0.5", "How many processors it may use."),
    key(
        "cpu_shares",
        &[leaf(CPU_SHARES)],
        "",
        "512",
        "Its part where there is not enough processor for all; 1024 is the usual one.",
    ),
    key("cpuset", &[leaf(CPUSET)], "", "\"0-2,4\"", "The processors it may use."),
    key("mem_limit", &[leaf(BYTES_OR_ALL)], "", "512m", "How much memory it may use."),
    key(
        "memswap_limit",
        &[leaf(BYTES_OR_ALL)],
        "",
        "1g",
        "How much memory and swap together; twice the memory where nothing is said.",
    ),
    key(
        "mem_reservation",
        &[leaf(BYTES_OR_ALL)],
        "",
        "256m",
        "Memory that it should get by with where there is not enough.",
    ),
    key("pids_limit", &[leaf(COUNT_OR_ALL)], "", "100", "How many processes and threads it may have."),
    key("shm_size", &[leaf(BYTES)], "64m", "256m", "The size of its `/dev/shm`."),
    key(
        "ulimits",
        &[Form::Keys(&[ULIMITS])],
        "",
        "{ nofile: { soft: 1024, hard: 4096 } }",
        "Limits per process; `-1` means none.",
    ),
    key(
        "oom_score_adj",
        &[leaf(OOM_SCORE)],
        "",
        "500",
        "How gladly the kernel ends it when memory runs out, -1000 to 1000.",
    ),
    key(
        "cap_add",
        CAPABILITIES,
        "",
        "[NET_ADMIN]",
        "Capabilities that it has beyond the usual ones; `ALL`: all.",
    ),
    key(
        "cap_drop",
        CAPABILITIES,
        "",
        "[ALL]",
        "Capabilities that are taken from it; `ALL`: all but those added.",
    ),
    key("privileged", FLAG, "false", "true", "Whether it may do all that the user who runs stead may."),
    key(
        "security_opt",
        &[Form::List(&[leaf(SECURITY)])],
        "",
        "[no-new-privileges]",
        "`no-new-privileges`, `seccomp=unconfined` or `seccomp=<path of a profile>`; `apparmor=unconfined` and `label=disable` \
         say what holds anyway.",
    ),
    key("read_only", FLAG, "false", "true", "Whether its root cannot be written."),
    key(
        "devices",
        &[Form::List(&[leaf(DEVICE), Form::Keys(&[DEVICE_KEYS])])],
        "",
        "[\"/dev/fuse\"]",
        "Devices of this computer: `source[:target][:access]`, access being of `r`, `w`, `m`.",
    ),
    key(
        "sysctls",
        &[Form::List(&[leaf(SYSCTL_PAIR)]), Form::Map(Leaf::Form(SYSCTL), &[leaf(ANY)])],
        "",
        "{ net.ipv4.ip_forward: 1 }",
        "Kernel parameters of its own namespaces.",
    ),
    key(
        "stop_signal",
        &[leaf(SIGNAL)],
        "",
        "SIGINT",
        "What tells it to end. Left out: as the image says, or SIGTERM.",
    ),
    key("stop_grace_period", &[leaf(TIME)], "10s", "1m30s", "How long it may then take before it is killed."),
    key(
        "restart",
        &[leaf(RESTART)],
        "no",
        "on-failure:3",
        "Whether it is started again when it ended without being told to: `no`, `on-failure[:<times>]`, `always`, or \
         `unless-stopped`. Where `stead autostart` is enabled the last two run again when the computer has started, \
         `unless-stopped` only if nobody had stopped it.",
    ),
    key(
        "logging",
        &[Form::Keys(&[LOGGING])],
        "",
        "{ options: { max-size: 1m, max-file: 5 } }",
        "How much is kept of what it writes.",
    ),
    key(
        "healthcheck",
        &[Form::Keys(&[HEALTH])],
        "",
        "{ test: curl -f localhost, interval: 10s }",
        "How to see that it is well. What is left out is as the image says.",
    ),
];

/// Those that Compose does not have, or where it has more under them.
pub(crate) const OURS: &[Key] = &[
    key(
        "network_mode",
        &[leaf(MODE)],
        "",
        "machine:vpn",
        "Instead of `networks`, of a container: `none`, no network; `host`, this computer's own, where every port that it listens on is \
         one of this computer's; `machine:NAME`, that of another machine of the project, which is started first and with which it \
         has its addresses, names and `localhost` in common. Ports are published on the other then, and it is made anew with it.",
    ),
    key(
        "build",
        &[Form::Leaf(Leaf::Text), Form::Keys(&[BUILD])],
        "",
        "./web",
        "How its image is built where it is not here: the directory with a `Dockerfile`, or more about it. BuildKit or \
         buildah does it, whichever is installed. Without an `image` it is called `<project>-<machine>`.",
    ),
    key(
        "pull_policy",
        &[Form::Leaf(Leaf::Choice(&[
            ("missing", "if it is not here"),
            ("always", "each time the machine is created"),
            ("never", "not at all: it has to be here"),
            ("build", "not at all: it is built, each time that `stead up` runs"),
        ]))],
        "missing",
        "always",
        "When the image is pulled.",
    ),
    key(
        "mode",
        &[Form::Leaf(Leaf::Choice(&[
            ("application", "a program"),
            ("system", "the image's own init, which starts services; machines can be run within"),
        ]))],
        "application",
        "system",
        "What runs as its first process.",
    ),
    key(
        "env_file",
        &[Form::Leaf(Leaf::Text), Form::List(&[Form::Leaf(Leaf::Text), Form::Keys(&[ENV_FILE])])],
        "",
        "[web.env]",
        "Files with more environment, in the form of `.env`; later ones win, `environment` wins over all.",
    ),
    key(
        "volumes",
        &[Form::Set(&[leaf(VOLUME), Form::Keys(&[VOLUME_KEYS])])],
        "",
        "[\"data:/var/lib/data\", \"./site:/srv:ro\"]",
        "What is mounted: `[source:]target[:options]`. A source is a volume of `volumes`, or a path of this computer that \
         starts with `/`, `./`, `../` or `~/` (relative to the file; made as a directory where it is missing); without one \
         the content goes with the machine, or in a container stays when it is made anew. Options: `ro`, `rw`, and for paths `private`, `slave`, `shared`. In a `vm` its \
         agent mounts them; it has no volumes without a source, for its disk goes with it anyway.",
    ),
    key("secrets", FILES, "", "[password]", "Which of `secrets` it can read, in `/run/secrets`."),
    key(
        "configs",
        FILES,
        "",
        "[{ source: site, target: /etc/site.conf }]",
        "Which of `configs` it can read.",
    ),
    key(
        "blkio_config",
        &[Form::Keys(&[BLKIO])],
        "",
        "{ weight: 500 }",
        "Its part of input and output, and how fast it may use disks.",
    ),
    key(
        "deploy",
        &[Form::Keys(&[DEPLOY])],
        "",
        "{ replicas: 3 }",
        "Compose's other place for replicas and limits.",
    ),
];

pub(crate) const ENV_FILE: &[Key] = &[
    required("path", LINE, "web.env", "The file; relative to the project file."),
    key("required", FLAG, "true", "false", "Whether it has to be there."),
];

pub(crate) const VOLUME_KEYS: &[Key] = &[
    key(
        "type",
        &[Form::Leaf(Leaf::Choice(&[
            ("volume", "a volume of `volumes`, or one that goes with the machine"),
            ("bind", "a file or directory of this computer"),
            ("tmpfs", "a file system in memory"),
        ]))],
        "volume",
        "bind",
        "What is mounted.",
    ),
    key("source", &[leaf(ANY_SOURCE)], "", "./site", "The volume's name, or the path."),
    required("target", &[leaf(TARGET)], "/srv", "Where in the machine."),
    key("read_only", FLAG, "false", "true", "Whether it cannot be written."),
    key("bind", &[Form::Keys(&[BIND])], "", "{ propagation: slave }", "More about a path of this computer."),
    key("tmpfs", &[Form::Keys(&[TMPFS_KEYS])], "", "{ size: 64m }", "More about a file system in memory."),
    key("volume", &[Form::Keys(&[NAMED])], "", "{ nocopy: true }", "More about a volume."),
];

const NAMED: &[Key] = &[key(
    "nocopy",
    FLAG,
    "false",
    "true",
    "Whether an empty volume stays empty, rather than getting what the image has at its place.",
)];

pub(crate) const BIND: &[Key] = &[
    key(
        "propagation",
        &[Form::Leaf(Leaf::Choice(&[
            ("private", "mounts made later do not travel"),
            ("rprivate", "the same"),
            ("slave", "this computer's appear in the machine"),
            ("rslave", "the same"),
            ("shared", "they travel both ways; an ordinary user's machines only receive them"),
            ("rshared", "the same"),
        ]))],
        "private",
        "slave",
        "Whether mounts travel.",
    ),
    key(
        "create_host_path",
        FLAG,
        "true",
        "false",
        "Whether a directory is made where the source is missing, unless that ends in `.sock`: a socket is made by who listens \
         at it.",
    ),
];

const TMPFS_KEYS: &[Key] = &[
    key("size", &[leaf(BYTES)], "", "64m", "The most that it holds. Left out: half of the memory."),
    key("mode", &[leaf(FILE_MODE)], "1777", "0700", "The mode of its root, octal."),
    key("uid", &[leaf(OWNER_ID)], "0", "1000", "Whose its root is: the id of a user in the machine."),
    key("gid", &[leaf(OWNER_ID)], "0", "1000", "The same of a group."),
    key("exec", FLAG, "false", "true", "Whether programs on it can be run."),
];

pub(crate) const FILE_USE: &[Key] = &[
    required("source", &[leaf(SECRET)], "password", "Its name."),
    key(
        "target",
        &[leaf(ANY)],
        "",
        "/etc/password",
        "Where: a path, or for secrets a name in `/run/secrets`.",
    ),
];

pub(crate) const BUILD: &[Key] = &[
    key("context", LINE, ".", "./web", "The directory that it is built from; relative to the file."),
    key("dockerfile", LINE, "Dockerfile", "web.Dockerfile", "The instructions; relative to the context."),
    key(
        "dockerfile_inline",
        &[leaf(ANY)],
        "",
        "FROM debian:12",
        "The instructions themselves, instead of a file with them.",
    ),
    key(
        "args",
        PAIRS,
        "",
        "{ VERSION: 1.2 }",
        "Values for its `ARG`s: a mapping, or a list of `NAME=value`. A name alone has the value that stead's own \
         environment or `.env` gives it.",
    ),
    key("target", &[leaf(ANY)], "", "production", "The stage to build. Left out: the last one."),
    key("labels", PAIRS, "", "{ team: shop }", "Labels of the image."),
    key("tags", &[Form::List(&[leaf(IMAGE)])], "", "[\"shop/web:dev\"]", "More names for the image."),
    key(
        "secrets",
        &[Form::List(&[leaf(SECRET), Form::Keys(&[BUILD_SECRET])])],
        "",
        "[password]",
        "Which of the file's `secrets` its instructions may read, by `RUN --mount=type=secret,id=…`.",
    ),
    key("no_cache", FLAG, "false", "true", "Whether all is done anew, whatever is known of earlier builds."),
    key("pull", FLAG, "false", "true", "Whether the images that it starts from are pulled anew."),
];

const BUILD_SECRET: &[Key] = &[required("source", &[leaf(SECRET)], "password", "Its name.")];

const LIMIT: Shape = &[leaf(ULIMIT), Form::Keys(&[SOFT_HARD])];
const SOFT_HARD: &[Key] = &[
    required("soft", &[leaf(ULIMIT)], "1024", "What holds."),
    required("hard", &[leaf(ULIMIT)], "4096", "How far the process may raise it."),
];

const fn ulimit(name: &'static str, doc: &'static str) -> Key {
    key(name, LIMIT, "", "1024", doc)
}

const ULIMITS: &[Key] = &[
    ulimit("as", "Address space, in bytes."),
    ulimit("core", "The size of core dumps, in bytes."),
    ulimit("cpu", "Processor time, in seconds."),
    ulimit("data", "Data segment, in bytes."),
    ulimit("fsize", "The size of files, in bytes."),
    ulimit("locks", "File locks."),
    ulimit("memlock", "Locked memory, in bytes."),
    ulimit("msgqueue", "POSIX message queues, in bytes."),
    ulimit("nice", "How far its priority may be raised: 20 less the nice value."),
    ulimit("nofile", "Open files."),
    ulimit("nproc", "Processes of its user."),
    ulimit("rss", "Resident memory; without effect on Linux."),
    ulimit("rtprio", "Real-time priority."),
    ulimit("rttime", "Real-time processor time, in microseconds."),
    ulimit("sigpending", "Queued signals."),
    ulimit("stack", "Stack, in bytes."),
];

const DEVICE_KEYS: &[Key] = &[
    required("source", &[leaf(DEVICE_PATH)], "/dev/fuse", "The device."),
    key("target", &[leaf(TARGET)], "", "/dev/fuse", "Where in the machine. Left out: the same place."),
    key("permissions", &[leaf(DEVICE_ACCESS)], "rwm", "r", "What may be done with it."),
];

const HEALTH: &[Key] = &[
    key(
        "test",
        TEXTS,
        "",
        "[CMD, curl, -f, localhost]",
        "What is run in the machine; it is well if that ends with 0. A line for its shell; or a list that starts with `CMD` \
         (a program follows), `CMD-SHELL` (a line for its shell) or `NONE` (no test).",
    ),
    key("interval", &[leaf(TIME)], "30s", "10s", "Between tests."),
    key("timeout", &[leaf(TIME)], "30s", "3s", "For one test."),
    key("start_period", &[leaf(TIME)], "0s", "1m", "After the start, when failures do not count."),
    key("start_interval", &[leaf(TIME)], "5s", "1s", "Between tests within the start period."),
    key(
        "retries",
        &[Form::Leaf(Leaf::Whole { min: 0, max: 1000 })],
        "3",
        "5",
        "How many failures in a row mean that it is not well.",
    ),
    key("disable", FLAG, "false", "true", "Whether the image's test is not run, either."),
];
