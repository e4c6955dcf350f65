//! The one table that describes the file. The check of a file's structure, the JSON Schema and the
//! reference page all come from it, so they cannot disagree.

pub(crate) mod container;
pub(crate) mod io;
pub(crate) mod kept;
pub(crate) mod machine;
mod network;
mod vm;

use super::leaf::Leaf;
use super::leaf::container::{ANY, PAIR_NAME, RESTART, SECRET, USER};
use super::leaf::mount::EXTERNAL;
use super::leaf::network::ANY_ADDRESS;
use super::leaf::quantity::{TIME, VOLUME_SIZE};

/// What may stand at a place: at most one form of each kind (a value, a list, a mapping).
pub(crate) type Shape = &'static [Form];

/// The keys of a mapping, in groups that others may have, too.
pub(crate) type Keys = &'static [&'static [Key]];

/// One form.
#[derive(Debug)]
pub(crate) enum Form {
    /// A single value.
    Leaf(Leaf),
    /// A list of such things.
    List(Shape),
    /// The same, with nothing in it twice.
    Set(Shape),
    /// A mapping with these keys.
    Keys(Keys),
    /// A mapping of names of this kind to such things.
    Map(Leaf, Shape),
    /// Nothing at all, where that means something.
    Nothing,
    /// Anything: it is for others, and is left to them.
    Ignored,
    /// Anything: it changes nothing here, for this reason, of which people are warned.
    Inert(&'static str),
    /// Anything, and it cannot be honoured: why, and what to do about it.
    Refused(&'static str, &'static str),
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

pub(crate) const fn key(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, required: false, default, example, doc }
}

pub(crate) const fn required(
    name: &'static str,
    shape: Shape,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, required: true, default: "", example, doc }
}

/// A key of a table that is not published.
pub(crate) const fn plain(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: false, default: "", example: "", doc: "" }
}

/// Whether a machine can have such a key at all, whatever its kind.
pub(crate) fn is_machines(key: &str) -> bool {
    let groups = [machine::MACHINE, container::SHARED, container::OURS, vm::VM];
    groups.iter().any(|group| group.iter().any(|known| known.name == key))
}

/// The whole file. Other keys of the outermost level that start with `x-` are left alone.
pub(crate) const FILE: &[Key] = &[
    key("name", NAME, "", "shop", "The project's name. Left out: the name of the directory, made lawful."),
    key(
        "include",
        INCLUDE,
        "",
        "[db/stead.yaml]",
        "Other files whose machines, networks, volumes, secrets and configs are this project's, too. Their paths start in \
         their own directories, and variables that are not set here come from the `.env` there.",
    ),
    key(
        "defaults",
        &[Form::Keys(&[DEFAULTS])],
        "",
        "{ kind: vm }",
        "What holds where a machine or network says nothing.",
    ),
    key(
        "networks",
        &[Form::Map(Leaf::Name, &[Form::Keys(&[network::NETWORK])])],
        "",
        "{ lan: { subnet: 10.0.5.0/24 } }",
        "The networks, by name. One named `default` is there as soon as something is on it.",
    ),
    key(
        "machines",
        &[Form::Map(
            Leaf::Name,
            &[Form::Keys(&[machine::MACHINE, container::SHARED, container::OURS, vm::VM])],
        )],
        "",
        "{ web: { image: nginx } }",
        "The machines, by name. Every machine finds the others of its networks by these names.",
    ),
    key(
        "volumes",
        &[Form::Set(NAME), Form::Map(Leaf::Name, &[Form::Keys(&[VOLUME])])],
        "",
        "[data]",
        "The volumes: a list of names, or names with how large they may become, and whose they are.",
    ),
    key(
        "secrets",
        SECRETS,
        "",
        "{ password: { file: ./password.txt } }",
        "What machines may be given to read: a file, a text that stands here, or a variable's.",
    ),
    key(
        "configs",
        SECRETS,
        "",
        "{ site: { file: ./site.conf } }",
        "The same. A machine finds a secret in `/run/secrets`, a config in `/`, unless it says otherwise.",
    ),
];

const VOLUME: &[Key] = &[
    key(
        "external",
        FLAG,
        "false",
        "true",
        "Whether it is not this project's: one that `stead volume create` made, or another project's. It has to be there before \
         `stead up`, is mounted like others, may be by machines of several projects at once, and stays whatever becomes of this one.",
    ),
    key(
        "name",
        EXTERNAL_NAME,
        "",
        "data.shop",
        "Of an external one: how it is called by `stead volume ls`; without a project it is of what commands make. Left out: as here.",
    ),
    key(
        "size",
        &[Form::Leaf(Leaf::Form(VOLUME_SIZE))],
        "",
        "10GiB",
        "What its files may take at most, in steps of 64 KiB; what goes beyond fails in the machine, by `EDQUOT` or as on a full \
     disk. It can be changed at any time: with less than what is there, nothing is lost and nothing more is written. Only root has \
     such limits, and only on ext4 mounted with `prjquota`; on ext4 a machine that is `privileged` or has `SYS_RESOURCE` is not held to \
     them. Left out: no limit.",
    ),
];

/// Which volume or network an external one is.
pub(crate) const EXTERNAL_NAME: Shape = &[Form::Leaf(Leaf::Form(EXTERNAL))];

/// What a project takes from other files.
pub(crate) const INCLUDE: Shape = &[Form::List(&[Form::Leaf(Leaf::Text), Form::Keys(&[INCLUDED])])];

const LINES: Shape = &[Form::Leaf(Leaf::Text), Form::List(LINE)];

const INCLUDED: &[Key] = &[
    required(
        "path",
        LINES,
        "db/stead.yaml",
        "The file; relative to this one. Of several each goes over those before it.",
    ),
    key("project_directory", LINE, "", "./db", "Where its paths start. Left out: the file's own directory."),
    key("env_file", LINES, "", "db.env", "What has its variables, instead of the `.env` there."),
];

/// The file as a shape.
pub(crate) const ROOT: Shape = &[Form::Keys(&[FILE])];

pub(crate) const NAME: Shape = &[Form::Leaf(Leaf::Name)];
pub(crate) const FLAG: Shape = &[Form::Leaf(Leaf::Flag)];
pub(crate) const LINE: Shape = &[Form::Leaf(Leaf::Text)];
const KIND: Shape = &[Form::Leaf(Leaf::Choice(&[
    ("container", "shares this computer's kernel; its nics are veth pairs"),
    ("microvm", "has a kernel of its own and little else; its nics are TAPs"),
    ("vm", "a whole computer; its nics are TAPs"),
]))];
const DRIVER: Shape = &[Form::Leaf(Leaf::Choice(&[
    ("native", "stead itself, with the kernel's namespaces; only for kind `container`"),
    ("qemu", "QEMU; only for kinds `microvm` and `vm`"),
    (
        "external",
        "somebody else runs the machine: stead makes its network namespace (`container`) or its TAPs (`microvm`, `vm`) \
         and gives it its leases, names and ports",
    ),
]))];
const GUARD: Shape = &[Form::Leaf(Leaf::Choice(&[
    ("on", "only the nic's own MAC and addresses pass"),
    ("off", "everything passes: for a router, or a machine that holds machines"),
]))];
const MTU: Shape = &[Form::Leaf(Leaf::Whole { min: 576, max: 9216 })];
const SECRETS: Shape = &[Form::Map(Leaf::Form(SECRET), &[Form::Keys(&[FILE_SOURCE])])];

pub(crate) const FILE_SOURCE: &[Key] = &[
    key("file", LINE, "", "./password.txt", "The file on this computer; relative to the project file."),
    key("content", &[Form::Leaf(Leaf::Form(ANY))], "", "\"mode = test\"", "Instead of that its text."),
    key(
        "environment",
        &[Form::Leaf(Leaf::Form(PAIR_NAME))],
        "",
        "PASSWORD",
        "Instead of that the variable with its text, of stead's own environment or `.env`.",
    ),
];

const DEFAULTS: &[Key] = &[
    key("kind", KIND, "", "container", "The kind of machines that name none."),
    key("driver", DRIVER, "", "external", "What runs machines that do not say."),
    key("guard", GUARD, "on", "off", "Whether nics may speak with other addresses than their own."),
    key(
        "publish",
        &[Form::Leaf(Leaf::Form(ANY_ADDRESS))],
        "127.0.0.1",
        "0.0.0.0",
        "The address of this computer that ports without an address are published on; `0.0.0.0` and `::` mean all.",
    ),
    key("mtu", MTU, "1500", "9000", "The largest packet on networks that do not say."),
    key(
        "user",
        &[Form::Leaf(Leaf::Form(USER))],
        "",
        "1000:1000",
        "As whom programs of containers that do not say run.",
    ),
    key(
        "restart",
        &[Form::Leaf(Leaf::Form(RESTART))],
        "no",
        "unless-stopped",
        "Whether containers that do not say are started again when they ended.",
    ),
    key(
        "stop_grace_period",
        &[Form::Leaf(Leaf::Form(TIME))],
        "10s",
        "1m",
        "How long containers that do not say may take to end before they are killed.",
    ),
];
