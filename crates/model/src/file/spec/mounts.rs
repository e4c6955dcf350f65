//! What is mounted in a container, as written: volumes, paths, file systems in memory, secrets and configs.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::view::{At, Place, View, word};
use super::{Around, Ground};
use crate::container::{Access, Mount, Owner, Propagation};
use crate::file::leaf::container as value;
use crate::file::leaf::mount::{self, PROPAGATIONS, Tmpfs, Volume, VolumeSource};
use crate::file::leaf::{Wrong, flag, quantity};
use crate::file::problem::{Problem, nearest};

/// What a place of a machine has.
#[derive(Clone, Debug)]
pub(crate) enum Mounted {
    /// A directory that goes with the machine.
    Own,
    /// Something that is elsewhere.
    Is(Mount),
}

type Found = At<(String, Mounted)>;

/// The mounts of a machine, in the order of the file.
pub(crate) fn read(view: &View<'_>, around: &Around<'_>, problems: &mut Vec<Problem>) -> Vec<Found> {
    let ground = around.ground;
    let mut found = Vec::new();
    for item in view.get("volumes").items() {
        let read = match item.read(mount::volume).value() {
            Some(volume) => Some(short(volume, ground)),
            None => long(&item, ground),
        };
        keep(read, &item.place, &mut found, problems);
    }
    for At { value: tmpfs, place } in view.get("tmpfs").each(mount::tmpfs) {
        let Tmpfs { target, size_bytes, mode, owner, access, exec } = tmpfs;
        let mount = Mount::Tmpfs { size_bytes, mode, owner, access, exec };
        found.push(At { value: (target, Mounted::Is(mount)), place });
    }
    for (what, key) in [("secret", "secrets"), ("config", "configs")] {
        let files = files(&around.root.get(key));
        for item in view.get(key).items() {
            let read = used(&item, what, &files, ground);
            keep(read, &item.place, &mut found, problems);
        }
    }
    found
}

type Read = Option<Result<(String, Mounted), Wrong>>;

fn keep(read: Read, place: &Place, found: &mut Vec<Found>, problems: &mut Vec<Problem>) {
    match read {
        Some(Ok(value)) => found.push(At { value, place: place.clone() }),
        Some(Err(wrong)) => problems.push(wrong.at(place.span, &place.path, &place.text)),
        None => {}
    }
}

fn short(volume: Volume, ground: Ground<'_>) -> Result<(String, Mounted), Wrong> {
    let Volume { source, target, access, propagation, nocopy } = volume;
    let mounted = match source {
        VolumeSource::Own if access == Access::Read => {
            return Err(
                Wrong::found("nothing could ever write what goes with the machine").hint("leave out `ro`")
            );
        }
        VolumeSource::Own if nocopy => {
            let wrong = Wrong::found("a volume without a name begins with what the image has at its place");
            return Err(wrong.hint("leave `nocopy` out, or name the volume"));
        }
        VolumeSource::Own => Mounted::Own,
        VolumeSource::Named(name) => Mounted::Is(Mount::Volume { name, external: None, access, nocopy }),
        VolumeSource::Path(path) => {
            let propagation = propagation.unwrap_or_default();
            Mounted::Is(bind(ground, &path, access, Some(propagation), true)?)
        }
    };
    Ok((target, mounted))
}

fn long(view: &View<'_>, ground: Ground<'_>) -> Read {
    let target = view.get("target").read(mount::target).value()?;
    let kind = view.get("type").read(|text| Ok(text.to_owned())).value();
    // Of what else is mounted nothing is known; that was told.
    if kind.as_deref().is_some_and(|kind| !matches!(kind, "volume" | "bind" | "tmpfs")) {
        return None;
    }
    let access = if view.flag("read_only") { Access::Read } else { Access::Write };
    let propagation = view.get("bind").get("propagation").read(word(PROPAGATIONS)).value();
    let source = view.get("source");
    let nocopy = view.get("volume").flag("nocopy");
    let more = |key: &str| view.key_place(key).is_some();
    let misplaced = |key: &str, kind: &str| {
        Wrong::found(format!("`{key}` says nothing of type `{kind}`"))
            .hint("leave it out, or write another `type`")
    };
    let result = match kind.as_deref() {
        Some(other @ ("bind" | "tmpfs")) if more("volume") => Err(misplaced("volume", other)),
        Some("tmpfs") if more("source") => Err(misplaced("source", "tmpfs")),
        Some("tmpfs") if more("bind") => Err(misplaced("bind", "tmpfs")),
        Some("tmpfs") => {
            let options = view.get("tmpfs");
            let size_bytes = options.get("size").read(quantity::bytes).value().filter(|size| *size > 0);
            let (mode, owner) = (options.get("mode").read(quantity::file_mode).value(), owner(&options));
            let exec = options.flag("exec");
            Ok((target, Mounted::Is(Mount::Tmpfs { size_bytes, mode, owner, access, exec })))
        }
        Some("bind") if more("tmpfs") => Err(misplaced("tmpfs", "bind")),
        Some("bind") => match source.read(mount::source).value() {
            None => Err(Wrong::found("a bind needs the path of its `source`")
                .hint("it starts with `/`, `./`, `../` or `~/`")),
            Some(path) => {
                let create = view.get("bind").get("create_host_path").read(flag).value().unwrap_or(true);
                bind(ground, &path, access, propagation, create).map(|mount| (target, Mounted::Is(mount)))
            }
        },
        _ if more("bind") => Err(misplaced("bind", "volume")),
        _ if more("tmpfs") => Err(misplaced("tmpfs", "volume")),
        _ => match source.read(mount::any_source).value() {
            Some(VolumeSource::Path(_)) => Err(Wrong::found("a volume's source is its name, not a path")
                .hint("write `type: bind` for a path")),
            Some(source @ (VolumeSource::Named(_) | VolumeSource::Own)) => {
                short(Volume { source, target, access, propagation: None, nocopy }, ground)
            }
            None => {
                short(Volume { source: VolumeSource::Own, target, access, propagation: None, nocopy }, ground)
            }
        },
    };
    Some(result)
}

/// Whose something is, by its keys `uid` and `gid`.
fn owner(view: &View<'_>) -> Owner {
    let id = |key: &str| view.get(key).read(quantity::owner_id).value();
    Owner { uid: id("uid"), gid: id("gid") }
}

fn bind(
    ground: Ground<'_>,
    path: &str,
    access: Access,
    propagation: Option<Propagation>,
    create: bool,
) -> Result<Mount, Wrong> {
    let propagation = propagation.unwrap_or_default();
    Ok(Mount::Bind { source: absolute(ground, path)?, access, propagation, create })
}

/// The secrets or configs of the file, by name, with the paths that they are at.
pub(super) fn files(view: &View<'_>) -> BTreeMap<String, Option<String>> {
    let read =
        |(key, view): (At<&str>, View<'_>)| (key.value.to_owned(), view.get("file").read(value::any).value());
    view.entries().map(read).collect()
}

/// A secret or config of a machine: a file of this computer that can only be read.
fn used(item: &View<'_>, what: &str, files: &BTreeMap<String, Option<String>>, ground: Ground<'_>) -> Read {
    let name = item.read(value::secret).value().or_else(|| item.get("source").read(value::secret).value())?;
    let Some(path) = files.get(&name) else {
        let wrong = Wrong::found(format!("there is no {what} `{name}`"));
        return Some(Err(match nearest(&name, files.keys().map(String::as_str)) {
            Some(name) => wrong.hint(format!("did you mean `{name}`?")),
            None => wrong.hint(format!("name its file under the file's own `{what}s`")),
        }));
    };
    let path = path.as_ref()?;
    let target = match item.get("target").read(value::any).value() {
        Some(target) if target.starts_with('/') => target,
        target => {
            let directory = if what == "secret" { "/run/secrets" } else { "" };
            format!("{directory}/{}", target.unwrap_or(name))
        }
    };
    let target = match mount::target(&target) {
        Ok(target) => target,
        Err(wrong) => return Some(Err(wrong)),
    };
    // Here a path needs no `./` in front: it cannot be taken for anything else.
    let bind = bind(ground, path, Access::Read, None, false);
    Some(bind.map(|mount| (target, Mounted::Is(mount))))
}

/// A path as written, made absolute: from the file's directory, or from the home directory.
pub(crate) fn absolute(ground: Ground<'_>, path: &str) -> Result<PathBuf, Wrong> {
    let whole = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = ground.home.ok_or_else(|| {
                Wrong::found("`~` stands for nothing: the variable `HOME` is not set")
                    .hint("write the whole path")
            })?;
            Path::new(home).join(rest.trim_start_matches('/'))
        }
        Some(_) | None => ground.dir.join(path),
    };
    let mut clean = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    Ok(clean)
}
