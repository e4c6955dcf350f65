//! What is mounted, in its short forms.

use super::quantity::{ID, MODE, SIZE, bytes, file_mode, owner_id};
use super::{Numbers, TextForm, Wrong, name};
use crate::container::{Access, Owner, Propagation};
use crate::file::problem::{nearest, quote};
use crate::name::{Name, as_ours};

/// A path of this computer, in what has parts with `:` between.
const PATH: &str = "((~|[.]{1,2})(/[^:\\u0000]*)?|/[^:\\u0000]*)";
/// The same where nothing follows.
pub(crate) const FILE: &str = "((~|[.]{1,2})(/[^\\u0000]*)?|/[^\\u0000]*)";
const NAME: &str = "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?";
/// Where something is mounted: not the root itself.
const PLACE: &str = "(/[^:\\u0000]*[^:/.\\u0000][^:\\u0000]*|/[^:\\u0000]*[.]{3}[^:\\u0000]*)";
const OPTION: &str = "(ro|rw|r?private|r?slave|r?shared|z|Z|cached|consistent|delegated|nocopy)";
/// `data:/var/lib/data`, `./site:/srv:ro`, `/cache`.
pub(crate) const VOLUME: &TextForm = &TextForm {
    check: |text| volume(text).map(drop),
    pattern: &["((", PATH, "|", NAME, "):)?", PLACE, "(:", "(", OPTION, "(,", OPTION, ")*)?)?"],
    numbers: Numbers::No,
};
const WORD: &str = "(r[ow]|(no)?exec|nosuid|nodev)=?";
/// `/run`, `/run:size=64m,mode=1777,uid=1000`.
pub(crate) const TMPFS: &TextForm = &TextForm {
    check: |text| tmpfs(text).map(drop),
    pattern: &[
        PLACE, "(:((", WORD, "|size=", SIZE, "|mode=", MODE, "|[ug]id=", ID, ")(,(", WORD, "|size=", SIZE,
        "|mode=", MODE, "|[ug]id=", ID, "))*)?)?",
    ],
    numbers: Numbers::No,
};
/// A place in a machine.
pub(crate) const TARGET: &TextForm = &TextForm {
    check: |text| target(text).map(drop),
    pattern: &["/[^\\u0000]*[^/.\\u0000][^\\u0000]*|/[^\\u0000]*[.]{3}[^\\u0000]*"],
    numbers: Numbers::No,
};
/// Which volume or network an external one is: `data`, `data.shop`; with capitals and `_` as other tools take them.
pub(crate) const EXTERNAL: &TextForm = &TextForm {
    check: |text| external(text).map(drop),
    pattern: &[EXTERNAL_NAME, "([.]", EXTERNAL_NAME, ")?"],
    numbers: Numbers::No,
};
const EXTERNAL_NAME: &str = "[A-Za-z0-9]([A-Za-z0-9_-]{0,38}[A-Za-z0-9])?";
/// A volume's name, or a place on this computer.
pub(crate) const ANY_SOURCE: &TextForm =
    &TextForm { check: |text| any_source(text).map(drop), pattern: &[FILE, "|", NAME], numbers: Numbers::No };

/// A volume as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) source: VolumeSource,
    pub(crate) target: String,
    pub(crate) access: Access,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) nocopy: bool,
}

/// Where the content of a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VolumeSource {
    /// With the machine: the volume has no name.
    Own,
    Named(Name),
    /// A path of this computer as written: relative, absolute or from `~`.
    Path(String),
}

/// A tmpfs as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) target: String,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Owner,
    pub(crate) access: Access,
    pub(crate) exec: bool,
}

/// The propagations, each also with the `r` that says "and all below", which holds here always.
pub(crate) const PROPAGATIONS: &[(&str, Propagation)] = &[
    ("private", Propagation::Private),
    ("rprivate", Propagation::Private),
    ("slave", Propagation::Slave),
    ("rslave", Propagation::Slave),
    ("shared", Propagation::Shared),
    ("rshared", Propagation::Shared),
];

/// Options that others need: our machines have no label of SELinux, so files need none for them, and all see the same at
/// once.
const HOLD_ANYWAY: [&str; 5] = ["z", "Z", "cached", "consistent", "delegated"];

/// Options of a tmpfs that each of ours has.
const TMPFS_ALL: [&str; 2] = ["nosuid", "nodev"];

pub(crate) fn volume(text: &str) -> Result<Volume, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, options) = match parts.as_slice() {
        [to] => (None, *to, ""),
        [from, to] => (Some(*from), *to, ""),
        [from, to, options] => (Some(*from), *to, *options),
        _ => {
            return Err(Wrong::found(format!("{} is not `[source:]target[:options]`", quote(text))).hint(
                "a path with `:` in it is written under `source`: `{ type: bind, source: …, target: … }`",
            ));
        }
    };
    let mut volume = Volume {
        source: from.map_or(Ok(VolumeSource::Own), any_source)?,
        target: target(to)?,
        access: Access::Write,
        propagation: None,
        nocopy: false,
    };
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match PROPAGATIONS.iter().find(|(word, _)| *word == option) {
            Some((_, propagation)) => volume.propagation = Some(*propagation),
            None if HOLD_ANYWAY.contains(&option) => {}
            None if option == "nocopy" => volume.nocopy = true,
            None => volume.access = access(option)?,
        }
    }
    if volume.nocopy && matches!(volume.source, VolumeSource::Path(_)) {
        return Err(
            Wrong::found("what is at a path of this computer stays as it is").hint("leave `nocopy` out")
        );
    }
    if volume.propagation.is_some() && !matches!(volume.source, VolumeSource::Path(_)) {
        return Err(Wrong::found("only paths of this computer have a propagation").hint("leave it out"));
    }
    Ok(volume)
}

fn access(option: &str) -> Result<Access, Wrong> {
    match option {
        "rw" => Ok(Access::Write),
        "ro" => Ok(Access::Read),
        "U" => Err(Wrong::found("the option `U` cannot be honoured: files keep their owners")
            .hint("leave it out, and `chown` them yourself")),
        _ => {
            let wrong = Wrong::found(format!("there is no option {} of volumes", quote(option)));
            let words = PROPAGATIONS.iter().map(|(word, _)| *word).chain(["ro", "rw", "nocopy"]);
            Err(match nearest(option, words) {
                Some(word) => wrong.hint(format!("did you mean `{word}`?")),
                None => wrong.hint("there are `ro`, `rw`, `nocopy`, and `private`, `slave`, `shared`"),
            })
        }
    }
}

pub(crate) fn any_source(text: &str) -> Result<VolumeSource, Wrong> {
    if text.starts_with(['.', '/', '~']) {
        return source(text).map(VolumeSource::Path);
    }
    if text.contains('/') {
        return Err(Wrong::found(format!("{} is neither a volume's name nor a path", quote(text)))
            .hint(format!("a path starts with `/`, `./`, `../` or `~`: `./{text}`")));
    }
    name(text).map(VolumeSource::Named)
}

/// What another project has, as that project and its name: by the name alone it is of what commands make.
pub(crate) fn external(text: &str) -> Result<(Name, Name), Wrong> {
    let ours = as_ours(text);
    match ours.split_once('.') {
        None => name(&ours).map(|name| (Name::of_loose_project(), name)),
        Some((of, project)) => Ok((name(project)?, name(of)?)),
    }
}

/// A path of this computer: absolute, relative to the file with a `.` in front, or in the home directory.
pub(crate) fn source(text: &str) -> Result<String, Wrong> {
    let first = text.split('/').next().unwrap_or_default();
    if text.contains('\0') || !matches!(first, "" | "." | ".." | "~") || text.is_empty() {
        let wrong = Wrong::found(format!("{} is not a path", quote(text)));
        return Err(if first.starts_with('~') {
            wrong.hint("`~` alone stands for the home directory, your own")
        } else {
            wrong.hint(format!("a path starts with `/`, `./`, `../` or `~/`: `./{text}`"))
        });
    }
    Ok(text.to_owned())
}

/// A place in a machine without what means nothing there: `//`, `.`, a `/` at the end.
pub(crate) fn target(text: &str) -> Result<String, Wrong> {
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if !text.starts_with('/') || text.contains('\0') {
        return Err(Wrong::found(format!("{} is not a place in the machine", quote(text)))
            .hint("a place is an absolute path, like `/srv/data`"));
    }
    if parts.contains(&"..") {
        return Err(Wrong::found(format!("{} has `..` in it", quote(text))).hint("write the path itself"));
    }
    if parts.is_empty() {
        return Err(
            Wrong::found("nothing can be mounted over the root of a machine").hint("name a directory in it")
        );
    }
    Ok(format!("/{}", parts.join("/")))
}

pub(crate) fn tmpfs(text: &str) -> Result<Tmpfs, Wrong> {
    let (to, options) = text.split_once(':').unwrap_or((text, ""));
    let (mode, owner) = (None, Owner::default());
    let mut tmpfs =
        Tmpfs { target: target(to)?, size_bytes: None, mode, owner, access: Access::Write, exec: false };
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", size) => tmpfs.size_bytes = Some(bytes(size)?).filter(|size| *size > 0),
            ("mode", mode) => tmpfs.mode = Some(file_mode(mode)?),
            ("uid", id) => tmpfs.owner.uid = Some(owner_id(id)?),
            ("gid", id) => tmpfs.owner.gid = Some(owner_id(id)?),
            ("ro", "") => tmpfs.access = Access::Read,
            ("rw", "") => tmpfs.access = Access::Write,
            ("exec", "") => tmpfs.exec = true,
            ("noexec", "") => tmpfs.exec = false,
            (word, "") if TMPFS_ALL.contains(&word) => {}
            _ => {
                return Err(Wrong::found(format!(
                    "the option {} of a tmpfs cannot be honoured",
                    quote(option)
                ))
                .hint("there are `size=…`, `mode=…`, `uid=…`, `gid=…`, `ro`, `rw` and `exec`"));
            }
        }
    }
    Ok(tmpfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match volume(text) {
            Ok(Volume { source, target, access, propagation, nocopy }) => {
                format!(
                    "{source:?} {target} {access:?} {propagation:?}{}",
                    if nocopy { " nocopy" } else { "" }
                )
            }
            Err(wrong) => format!("! {}", wrong.message),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn volumes_are_read_as_compose_does() {
        check("data:/var/lib//data/", r#"Named(Name("data")) /var/lib/data Write None"#);
        check("./site:/srv:ro", r#"Path("./site") /srv Read None"#);
        check("~/x:/srv:ro,rslave", r#"Path("~/x") /srv Read Some(Slave)"#);
        check("data:/a:nocopy,ro", r#"Named(Name("data")) /a Read None nocopy"#);
        check("/cache", "Own /cache Write None");
        check("./site:/srv:Z,ro", r#"Path("./site") /srv Read None"#);
        check("data:/a:cached", r#"Named(Name("data")) /a Write None"#);
        check("/:/host:ro", r#"Path("/") /host Read None"#);
    }

    #[test]
    fn a_tmpfs_has_an_owner_by_ids() {
        let shown = |text: &str| match tmpfs(text) {
            Ok(tmpfs) => format!("{:?} {:?} {:?}", tmpfs.mode, tmpfs.owner.uid, tmpfs.owner.gid),
            Err(wrong) => format!("! {}", wrong.message),
        };
        assert_eq!(shown("/run:uid=1000,gid=0,mode=0700"), "Some(448) Some(1000) Some(0)");
        assert_eq!(shown("/run:gid=4294967294"), "None None Some(4294967294)");
        for (id, shown_id) in [("4294967295", "4294967295"), ("web", "web"), ("-1", "-1"), ("", "")] {
            let told = format!("! `{shown_id}` is not the id of a user or group");
            assert_eq!(shown(&format!("/run:uid={id}")), told);
        }
    }

    #[test]
    fn what_is_no_volume_is_told() {
        check("site/a:/srv", "! `site/a` is neither a volume's name nor a path");
        check("data:srv", "! `srv` is not a place in the machine");
        check("data:/", "! nothing can be mounted over the root of a machine");
        check("data:/a/../b", "! `/a/../b` has `..` in it");
        check("./site:/a:nocopy", "! what is at a path of this computer stays as it is");
        check("data:/a:U", "! the option `U` cannot be honoured: files keep their owners");
        check("data:/a:r", "! there is no option `r` of volumes");
        check("data:/a:slave", "! only paths of this computer have a propagation");
        check("~joe/x:/a", "! `~joe/x` is not a path");
        check("a:/b:ro:x", "! `a:/b:ro:x` is not `[source:]target[:options]`");
        check("", "! `` is not a place in the machine");
    }
}
