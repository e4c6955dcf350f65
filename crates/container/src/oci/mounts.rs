//! A bundle's mounts: what its options mean. Nothing is added to what they say.

use std::path::{Path, PathBuf};

use super::config::Mount;

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
const READ_ONLY: u64 = 1;
const NO_SUID: u64 = 2;
const NO_DEVICES: u64 = 4;
const NO_EXECUTION: u64 = 8;
const ACCESS_TIMES: u64 = 0x70;
const NO_ACCESS_TIMES: u64 = 0x10;
const STRICT_ACCESS_TIMES: u64 = 0x20;
const NO_DIRECTORY_TIMES: u64 = 0x80;
const NO_LINKS: u64 = 0x20_0000;

/// `MS_*` of `mount(2)` that say how mounts spread.
pub(crate) const UNBINDABLE: u64 = 1 << 17;
pub(crate) const PRIVATE: u64 = 1 << 18;
pub(crate) const SLAVE: u64 = 1 << 19;
pub(crate) const SHARED: u64 = 1 << 20;

/// A mount that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its absolute place in the container.
    pub(crate) target: String,
    pub(crate) what: What,
    /// Of the mount itself.
    pub(crate) own: Attributes,
    /// Of all mounts below it, too.
    pub(crate) all: Attributes,
    /// How it spreads, in the order given.
    pub(crate) propagation: Vec<Propagation>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A file or directory of this computer; with what is mounted below it if `recursive`.
    Bind { source: PathBuf, recursive: bool },
    /// A file system of the kernel's.
    Kernel { kind: String, source: String, options: Vec<(String, Option<String>)>, copy_up: bool },
    /// The container's cgroups, as this computer has them.
    Cgroup,
    /// What is mounted there already, changed.
    Remount,
}

/// Attributes to set and to take away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

impl Attributes {
    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    fn times(&mut self, bits: u64) {
        self.clear |= ACCESS_TIMES;
        self.set = self.set & !ACCESS_TIMES | bits;
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// How a mount, or all below it, spreads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) flag: u64,
    pub(crate) recursive: bool,
}

impl Propagation {
    /// By its word: `slave`, `rslave` and so on.
    pub(crate) fn named(word: &str) -> Option<Self> {
        let plain = |word: &str| match word {
            "shared" => Some(SHARED),
            "slave" => Some(SLAVE),
            "private" => Some(PRIVATE),
            "unbindable" => Some(UNBINDABLE),
            _ => None,
        };
        match (plain(word), word.strip_prefix('r').and_then(plain)) {
            (Some(flag), _) => Some(Self { flag, recursive: false }),
            (None, Some(flag)) => Some(Self { flag, recursive: true }),
            (None, None) => None,
        }
    }
}

/// All options that we know, for those who ask (`features`).
pub(crate) const KNOWN: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// An attribute's word, without the `r` that has it hold for all below. Whether it is one.
fn attribute(word: &str, attributes: &mut Attributes) -> bool {
    match word {
        "ro" => attributes.set(READ_ONLY),
        "rw" => attributes.clear(READ_ONLY),
        "nosuid" => attributes.set(NO_SUID),
        "suid" => attributes.clear(NO_SUID),
        "nodev" => attributes.set(NO_DEVICES),
        "dev" => attributes.clear(NO_DEVICES),
        "noexec" => attributes.set(NO_EXECUTION),
        "exec" => attributes.clear(NO_EXECUTION),
        "noatime" => attributes.times(NO_ACCESS_TIMES),
        "strictatime" => attributes.times(STRICT_ACCESS_TIMES),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => attributes.times(0),
        "nodiratime" => attributes.set(NO_DIRECTORY_TIMES),
        "diratime" => attributes.clear(NO_DIRECTORY_TIMES),
        "nosymfollow" => attributes.set(NO_LINKS),
        "symfollow" => attributes.clear(NO_LINKS),
        _ => return false,
    }
    true
}

/// What a mount's words mean; the reason if they cannot be honoured.
pub(crate) fn parse(mount: &Mount, bundle: &Path) -> Result<Asked, String> {
    let refused = |why: &str| Err(format!("mount at `{}`: {why}", mount.destination.escape_debug()));
    let target = target(&mount.destination);
    if target == "/" {
        return refused("the root itself is not to be mounted over");
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return refused("mounts with id mappings of their own are not supported");
    }
    let (mut own, mut all) = (Attributes::default(), Attributes::default());
    let (mut propagation, mut options) = (Vec::new(), Vec::new());
    let kind = mount.kind.as_deref().unwrap_or_default();
    let (mut bind, mut recursive, mut remount, mut copy_up) = (kind == "bind", false, false, false);
    for option in &mount.options {
        if let Some(spread) = Propagation::named(option) {
            propagation.push(spread);
            continue;
        }
        match option.as_str() {
            "bind" => bind = true,
            "rbind" => (bind, recursive) = (true, true),
            "remount" => remount = true,
            "tmpcopyup" => copy_up = true,
            "defaults" | "silent" | "loud" | "" => {}
            // One in memory counts them always.
            "iversion" | "noiversion" if kind == "tmpfs" => {}
            "idmap" | "ridmap" => return refused("mounts with id mappings are not supported"),
            word if attribute(word, &mut own) => {}
            word if word.strip_prefix('r').is_some_and(|plain| attribute(plain, &mut all)) => {}
            word => options.push(match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }),
        }
    }
    let source = mount.source.clone().unwrap_or_default();
    let what = match (remount, bind, kind) {
        (true, ..) => What::Remount,
        (false, true, _) if source.is_empty() => return refused("a bind mount needs a source"),
        (false, true, _) => What::Bind { source: bundle.join(source), recursive },
        (false, false, "" | "none") => return refused("it has no type"),
        (false, false, "cgroup" | "cgroup2") => What::Cgroup,
        (false, false, _) => {
            let source = if source.is_empty() { kind.to_owned() } else { source };
            What::Kernel { kind: kind.to_owned(), source, options: std::mem::take(&mut options), copy_up }
        }
    };
    if copy_up && !matches!(&what, What::Kernel { kind, .. } if kind == "tmpfs") {
        return refused("only a tmpfs can be filled with what is at its place");
    }
    if let Some((word, _)) = options.first() {
        let word = word.escape_debug();
        if !matches!(what, What::Bind { .. }) {
            return refused(&format!("option `{word}` means nothing here"));
        }
        // As the kernel has it, which takes such words for a bind mount and passes them over.
        tracing::warn!(
            "mount at `{}`: option `{word}` means nothing for a bind mount",
            mount.destination.escape_debug()
        );
    }
    Ok(Asked { target, what, own, all, propagation })
}

/// A relative one is meant from the root.
pub(crate) fn target(destination: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in destination.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let mount: Mount = serde_json::from_str(json).unwrap();
        let said = match parse(&mount, Path::new("/bundle")) {
            Ok(Asked { target, what, own, all, propagation }) => {
                let spread: Vec<String> = propagation
                    .iter()
                    .map(|p| format!("{:#x}{}", p.flag, if p.recursive { "r" } else { "" }))
                    .collect();
                format!(
                    "{target} {what:?} +{:x}-{:x} all +{:x}-{:x} {}",
                    own.set,
                    own.clear,
                    all.set,
                    all.clear,
                    spread.join(" ")
                )
            }
            Err(why) => why,
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn bind_mounts_are_as_given() {
        check(
            r#"{"destination":"data/../x","source":"src","type":"none","options":["rbind","ro","rslave","nosuid","suid"]}"#,
            r#"/x Bind { source: "/bundle/src", recursive: true } +1-2 all +0-0 0x80000r"#,
        );
        check(
            r#"{"destination":"/x","source":"/s","options":["bind","rro","noatime","private","unbindable"]}"#,
            r#"/x Bind { source: "/s", recursive: false } +10-70 all +1-0 0x40000 0x20000"#,
        );
        check(r#"{"destination":"/x","type":"bind"}"#, "mount at `/x`: a bind mount needs a source");
        check(
            r#"{"destination":"/x","type":"none","options":["remount","size=5"]}"#,
            "mount at `/x`: option `size` means nothing here",
        );
        check(
            r#"{"destination":"/x","source":"/s","type":"bind","options":["idmap"]}"#,
            "mount at `/x`: mounts with id mappings are not supported",
        );
    }

    #[test]
    fn file_systems_of_the_kernel_have_options_of_their_own() {
        check(
            r#"{"destination":"/tmp","type":"tmpfs","options":["nodev","size=65536k","huge"]}"#,
            r#"/tmp Kernel { kind: "tmpfs", source: "tmpfs", options: [("size", Some("65536k")), ("huge", None)], copy_up: false } +4-0 all +0-0 "#,
        );
        check(
            r#"{"destination":"/x","type":"tmpfs","options":["iversion"]}"#,
            r#"/x Kernel { kind: "tmpfs", source: "tmpfs", options: [], copy_up: false } +0-0 all +0-0 "#,
        );
        check(r#"{"destination":"/x"}"#, "mount at `/x`: it has no type");
        check(
            r#"{"destination":"/","type":"tmpfs"}"#,
            "mount at `/`: the root itself is not to be mounted over",
        );
        check(
            r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#,
            "mount at `/x`: only a tmpfs can be filled with what is at its place",
        );
    }
}
