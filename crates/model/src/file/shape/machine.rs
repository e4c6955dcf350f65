//! The keys that machines of every kind have.

use super::container::PAIRS;
use super::{DRIVER, Form, GUARD, KIND, Key, NAME, key, required};
use crate::file::leaf::container::{ANY, PROFILE, USER};
use crate::file::leaf::dev::{KEY_OR_FILE, LOGIN, LOGIN_GROUP, PASSWORD_HASH, SHELL, UID};
use crate::file::leaf::network::{ADDRESS, ADDRESS6, ANY_ADDRESS, MAC};
use crate::file::leaf::port::{PORT, PORT_RANGE, PUBLISHED_RANGE};
use crate::file::leaf::{ALIAS, Leaf};

pub(crate) const MACHINE: &[Key] = &[
    key(
        "kind",
        KIND,
        "",
        "vm",
        "What kind of machine it is. Left out: the one of `defaults`, or `container` if it has an `image`.",
    ),
    key(
        "driver",
        DRIVER,
        "",
        "external",
        "What runs it. Left out: the one of `defaults`, or if it has an `image` `native` for a container and `qemu` for the \
         others.",
    ),
    key(
        "networks",
        &[Form::Set(NAME), Form::Map(Leaf::Name, &[Form::Keys(&[NIC])])],
        "[default]",
        "{ lan: { address: 10.0.5.7 } }",
        "The networks it is on, a nic each, in this order when the machine is made; the first nic has the default route. While a container runs nics that stay keep their names, and the default route. `[]`: none.",
    ),
    key(
        "ports",
        &[Form::Set(&[Form::Leaf(Leaf::Form(PORT)), Form::Keys(&[PORT_KEYS])])],
        "",
        "[\"8080:80\"]",
        "The ports of it that this computer publishes: `[address:]port:target[/protocol]`. `\"80\"` alone means `80:80`; \
         `\"0:80\"` a port that this computer chooses when the machine is made, and keeps for it until it is removed. Without an address: on 127.0.0.1 only, or on `defaults.publish`.",
    ),
    key(
        "depends_on",
        &[Form::Set(NAME), Form::Map(Leaf::Name, &[Form::Keys(&[DEPENDENCY])])],
        "",
        "{ db: { condition: service_healthy } }",
        "The machines that it starts after, and that end after it: a list of names, or names with how far those have to be.",
    ),
    key(
        "profiles",
        &[Form::List(&[Form::Leaf(Leaf::Form(PROFILE))])],
        "",
        "[debug]",
        "The machine is there only when one of these profiles is asked for, or `stead up`, `build` or `pull` names it. Left \
         out: always.",
    ),
    key(
        "dev",
        &[Form::Leaf(Leaf::Flag), Form::Keys(&[DEV])],
        "false",
        "{ groups: [docker], shell: /bin/zsh }",
        "Somebody to work as in it: a user with your name and id, a home, your public keys, and sudo without a password; for \
         whom `stead shell` and `stead ssh` log in. It is made once the machine runs, before its `provision`, and again when \
         something of it changed; sudo and OpenSSH's server are installed where they are missing, by apt, dnf, apk, zypper or \
         pacman. `true`: with all that is left out.",
    ),
    key(
        "provision",
        &[Form::List(&[Form::Leaf(Leaf::Form(ANY)), Form::Keys(&[PROVISION])])],
        "",
        "[apt-get update && apt-get install -y git]",
        "Scripts that are run in it once it runs and its systemd, if it has one, is up, one after the other, each once. Until \
         they have succeeded it does not count as started: what depends on it waits. One that failed is run again by the next \
         `stead up`, and one that is another by now as well. A machine that is made anew has them all before it. A `$` of \
         the shell is `$$` here, as everywhere in this file.",
    ),
    key(
        "replicas",
        REPLICAS,
        "1",
        "3",
        "How many of it there are. Two or more are the machines `<name>-1`, `<name>-2` and so on, found together as \
         `<name>` on all their networks; they have no addresses or MACs of their own, and of ports only those that this computer chooses (`\"0:80\"`), each its own. 0: none.",
    ),
    key(
        "extends",
        &[Form::Leaf(Leaf::Name), Form::Keys(&[EXTENDS])],
        "",
        "{ machine: base, file: common.yaml }",
        "A machine, of this file or another, that says what this one does not. Mappings are joined key by key, lists one after \
         the other; what has a place or a name there (mounts, devices, secrets, ports) is replaced by what is at the same, and so \
         are `command`, `entrypoint` and the health test, also by nothing. Paths are relative to the file they stand in.",
    ),
];

const EXTENDS: &[Key] = &[
    required("machine", NAME, "base", "The machine."),
    key("file", super::LINE, "", "common.yaml", "The file that has it. Left out: this file."),
];

pub(crate) const REPLICAS: super::Shape = &[Form::Leaf(Leaf::Whole { min: 0, max: 100 })];

pub(crate) const DEPENDENCY: &[Key] = &[
    key(
        "condition",
        &[Form::Leaf(Leaf::Choice(&[
            ("service_started", "it was started"),
            ("service_healthy", "its health check says that it is well"),
            ("service_completed_successfully", "it ended, and with 0"),
        ]))],
        "service_started",
        "service_healthy",
        "How far it has to be.",
    ),
    key(
        "required",
        super::FLAG,
        "true",
        "false",
        "Whether it has to be there; its profile may leave it out.",
    ),
    key(
        "restart",
        super::FLAG,
        "false",
        "true",
        "Whether this machine, if it runs, is started again when `stead up` of both makes the other anew or starts it again. \
         `stead restart` starts those again that it names.",
    ),
];

const DEV: &[Key] = &[
    key(
        "user",
        &[Form::Leaf(Leaf::Form(LOGIN))],
        "",
        "joe",
        "The name. Left out: that of whoever calls stead, also by sudo; `dev` for root. A user of the image with the name is \
         taken over.",
    ),
    key(
        "uid",
        &[Form::Leaf(Leaf::Form(UID))],
        "",
        "1000",
        "The user id. Left out: that of whoever calls, also by sudo, so that files of bind mounts are theirs; 1000 for root, and \
         in containers of an ordinary user, whose ids are others. A user of the image with the id stays, and is the same one \
         by another name.",
    ),
    key(
        "shell",
        &[Form::Leaf(Leaf::Form(SHELL))],
        "",
        "/bin/zsh",
        "The login shell, installed by its name where it is missing. Left out: bash, or `/bin/sh`.",
    ),
    key(
        "groups",
        &[Form::List(&[Form::Leaf(Leaf::Form(LOGIN_GROUP))])],
        "",
        "[docker]",
        "More groups to be in; those that are missing are made.",
    ),
    key("sudo", super::FLAG, "true", "false", "Whether they become root by sudo, without a password."),
    key(
        "keys",
        &[Form::Leaf(Leaf::Form(KEY_OR_FILE)), Form::List(&[Form::Leaf(Leaf::Form(KEY_OR_FILE))])],
        "",
        "[~/.ssh/id_ed25519.pub]",
        "Public keys that let them in, or files with some. Left out: those in `~/.ssh/*.pub` of whoever calls. `stead ssh` needs \
         none of them.",
    ),
    key(
        "password_hash",
        &[Form::Leaf(Leaf::Form(PASSWORD_HASH))],
        "",
        "$$6$$salt$$hash",
        "The hash of a password, as `openssl passwd -6` makes it, each `$` written `$$`. Left out: no password lets them in.",
    ),
];

const PROVISION: &[Key] = &[
    key(
        "run",
        &[Form::Leaf(Leaf::Form(ANY))],
        "",
        "echo ready >/etc/motd",
        "The script. Its first line may name what reads it, like `#!/bin/bash -e`; else it is `/bin/sh`.",
    ),
    key(
        "path",
        super::LINE,
        "",
        "./setup.sh",
        "Instead of that a file of this computer with it; relative to this one. What stands in it is taken as it is.",
    ),
    key("user", &[Form::Leaf(Leaf::Form(USER))], "root", "web", "As whom it is run, in the machine."),
    key(
        "environment",
        PAIRS,
        "",
        "{ VERSION: 1.2 }",
        "More environment than the machine's own: a mapping, or a list of `NAME=value`. A name alone has the value that \
         stead's own environment or `.env` gives it.",
    ),
];

const NIC: &[Key] = &[
    key(
        "address",
        &[Form::Leaf(Leaf::Form(ADDRESS))],
        "",
        "10.0.5.7",
        "Its IPv4 address. Left out: stead chooses.",
    ),
    key(
        "address6",
        &[Form::Leaf(Leaf::Form(ADDRESS6))],
        "",
        "fd00:5::7",
        "Its IPv6 address. Left out: stead chooses.",
    ),
    key("mac", &[Form::Leaf(Leaf::Form(MAC))], "", "02:00:00:00:00:07", "Its MAC. Left out: stead chooses."),
    key(
        "aliases",
        &[Form::List(&[Form::Leaf(Leaf::Form(ALIAS))])],
        "",
        "[www, www.shop.example]",
        "More names for the machine on this network, also such as have parts with `.` between. Machines that share one are found by it together.",
    ),
    key("guard", GUARD, "on", "off", "Whether it may speak with other addresses than its own."),
];

const PORT_KEYS: &[Key] = &[
    key(
        "port",
        &[Form::Leaf(Leaf::Form(PUBLISHED_RANGE))],
        "",
        "8080",
        "The port of this computer, or a range. 0: one that this computer chooses. Left out: the target.",
    ),
    required(
        "target",
        &[Form::Leaf(Leaf::Form(PORT_RANGE))],
        "80",
        "The machine's port, or a range of the same length.",
    ),
    key("protocol", PROTOCOL, "tcp", "udp", "What it carries."),
    key(
        "address",
        &[Form::Leaf(Leaf::Form(ANY_ADDRESS))],
        "",
        "0.0.0.0",
        "The address of this computer. Left out: `defaults.publish`.",
    ),
];

pub(crate) const PROTOCOL: super::Shape =
    &[Form::Leaf(Leaf::Choice(&[("tcp", "streams"), ("udp", "datagrams")]))];
