//! Whether a limit can be set in cgroups of ours before there are any: by what is seen of the one below which they are
//! made, and of those that others have there.
//!
//! In version 2 a controller's files are where the cgroup above hands it on, by `cgroup.subtree_control`; not in the
//! uppermost of a computer. That can be asked of any cgroup that is ours to write, as [`enable`] does, but not of one with
//! processes of its own, unless it is the uppermost: most controllers are refused then, and those that are not make it one
//! for threads, below which no process can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::limits::{Controller, Version};
use super::write;
use crate::scope;

/// What to do about a scope of a systemd that has a controller itself, which was seen before.
const LATE: &str = ": the user's systemd was given it after it started, and hands it on after `systemctl --user daemon-reexec`";

/// Why a limit cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// The kernel has no such file.
    File,
    /// The cgroup above has processes of its own, and so hands on nothing.
    Room,
}

/// What is seen of the cgroup below which ours are, as far as it matters for one controller and its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    is_uppermost: bool,
    has_processes: bool,
    /// Whether it hands the controller on.
    is_enabled: bool,
    has_file: bool,
    /// Whether one of those below has a file; `None` if there is none.
    below: Option<bool>,
}

impl Seen {
    fn observe(base: &Path, controller: Controller, version: Version, files: &[&str]) -> Self {
        let read = |file: &str| fs::read_to_string(base.join(file)).unwrap_or_default();
        let has_file = |directory: &Path| files.iter().any(|file| directory.join(file).exists());
        let mut below = fs::read_dir(base).into_iter().flatten().flatten();
        let below = below.try_fold(None, |below, entry| match entry.file_type() {
            // One is enough.
            Ok(kind) if kind.is_dir() && has_file(&entry.path()) => Err(Some(true)),
            Ok(kind) if kind.is_dir() => Ok(Some(false)),
            _ => Ok(below),
        });
        let below = below.unwrap_or_else(|found| found);
        let has_file = has_file(base);
        match version {
            // All of them have all files, but for some that the uppermost lacks.
            Version::Legacy => {
                Self { is_uppermost: !has_file, has_processes: false, is_enabled: true, has_file, below }
            }
            Version::Unified => Self {
                is_uppermost: !base.join("cgroup.type").exists(),
                has_processes: !read("cgroup.procs").is_empty(),
                is_enabled: read("cgroup.subtree_control")
                    .split_whitespace()
                    .any(|name| name == controller.unified()),
                has_file,
                below,
            },
        }
    }

    /// What keeps a limit from being set below; `None` also where only setting it will tell.
    fn lack(self) -> Option<Lack> {
        let Self { is_uppermost, has_processes, is_enabled, has_file, below } = self;
        if !is_enabled && !is_uppermost && has_processes {
            return Some(Lack::Room);
        }
        // Those below the uppermost tell what there is, but only of a controller that they were given.
        let is_missing = if is_uppermost { is_enabled && below == Some(false) } else { true };
        (!has_file && is_missing).then_some(Lack::File)
    }
}

/// What keeps one of these files from being written in cgroups of ours below this one.
pub(super) fn lack(base: &Path, controller: Controller, version: Version, files: &[&str]) -> Option<Lack> {
    Seen::observe(base, controller, version, files).lack()
}

/// Whether a cgroup is not to hand on anything: it has processes of its own, and is not the uppermost.
pub(crate) fn has_room_for_none(path: &Path) -> bool {
    let has_processes = || !fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().is_empty();
    path.join("cgroup.type").exists() && has_processes()
}

/// Has the controllers reach a cgroup of version 2, so many levels down: those that do not, each with the reason.
pub(super) fn enable(
    directory: &Path,
    levels: usize,
    controllers: &BTreeSet<Controller>,
) -> BTreeMap<Controller, anyhow::Error> {
    let mut refused = BTreeMap::new();
    let above: Vec<&Path> = directory.ancestors().skip(1).take(levels).collect();
    for path in above.into_iter().rev() {
        let listed = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let is_closed = has_room_for_none(path);
        for controller in controllers {
            let name = controller.unified();
            if is_closed {
                let refused_by = format!("`{}` has processes of its own", path.display());
                refused.insert(*controller, anyhow::anyhow!(refused_by));
            } else if !listed.split_whitespace().any(|listed| listed == name) {
                // What keeps it from here, if that is known, is the reason.
                let advice = if scope::is_scope(path) { LATE } else { "" };
                let lacking = || anyhow::anyhow!("`{}` has no controller `{name}`{advice}", path.display());
                refused.entry(*controller).or_insert_with(lacking);
            } else if let Err(error) = write(&path.join("cgroup.subtree_control"), &format!("+{name}")) {
                tracing::debug!("{error:#}");
                refused.insert(*controller, error);
            }
        }
    }
    refused
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const UPPERMOST: Seen = Seen {
        is_uppermost: true,
        has_processes: true,
        is_enabled: true,
        has_file: false,
        below: Some(true),
    };
    const DELEGATED: Seen =
        Seen { is_uppermost: false, has_processes: false, is_enabled: false, has_file: true, below: None };

    #[test]
    fn a_controller_that_is_not_handed_on_yet_is_no_lack_of_the_kernels() {
        for (seen, expected) in [
            (UPPERMOST, None),
            (Seen { below: None, ..UPPERMOST }, None),
            (Seen { below: Some(false), ..UPPERMOST }, Some(Lack::File)),
            (Seen { below: Some(false), is_enabled: false, ..UPPERMOST }, None),
            (DELEGATED, None),
            (Seen { below: Some(false), ..DELEGATED }, None),
            (Seen { has_file: false, ..DELEGATED }, Some(Lack::File)),
            (Seen { has_processes: true, ..DELEGATED }, Some(Lack::Room)),
            (Seen { has_processes: true, is_enabled: true, ..DELEGATED }, None),
        ] {
            assert_eq!(seen.lack(), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_is_decided_by_is_seen_in_the_files() {
        let computer = tempfile::tempdir().unwrap();
        let top = computer.path();
        let put = |path: &str, text: &str| {
            fs::create_dir_all(top.join(path).parent().unwrap()).unwrap();
            fs::write(top.join(path), text).unwrap();
        };
        let of =
            |path: &str, file: &str, version| lack(&top.join(path), Controller::Cpuset, version, &[file]);
        // The uppermost hands on what systemd needs, and not yet this.
        put("cgroup.subtree_control", "memory pids\n");
        put("cgroup.procs", "1\n2\n");
        put("user.slice/cgroup.type", "domain\n");
        put("user.slice/memory.max", "max\n");
        assert_eq!(of("", "cpuset.cpus", Version::Unified), None);
        put("cgroup.subtree_control", "cpuset memory pids\n");
        assert_eq!(of("", "cpuset.cpus", Version::Unified), Some(Lack::File));
        put("user.slice/cpuset.cpus", "\n");
        put("cgroup.stat", "");
        assert_eq!(of("", "cpuset.cpus", Version::Unified), None);
        assert_eq!(of("", "cpuset.nosuch", Version::Unified), Some(Lack::File));
        // One that was delegated, with whoever asks in it.
        assert_eq!(of("user.slice", "cpuset.cpus", Version::Unified), None);
        put("user.slice/cgroup.procs", "3\n");
        assert_eq!(of("user.slice", "cpuset.cpus", Version::Unified), Some(Lack::Room));
        put("user.slice/cgroup.subtree_control", "cpuset\n");
        assert_eq!(of("user.slice", "cpuset.cpus", Version::Unified), None);
        // Version 1 has them all, or none.
        assert_eq!(of("", "cpuset.cpus", Version::Legacy), None);
        assert_eq!(of("", "memory.swap", Version::Legacy), Some(Lack::File));
        assert_eq!(of("user.slice", "cpuset.cpus", Version::Legacy), None);
    }

    #[test]
    fn a_controller_that_cannot_be_handed_on_is_told_of() {
        let computer = tempfile::tempdir().unwrap();
        let [top, ours] = ["", "stead"].map(|path| computer.path().join(path));
        fs::create_dir_all(ours.join("home/web")).unwrap();
        fs::write(top.join("cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(top.join("cgroup.subtree_control"), "").unwrap();
        fs::write(ours.join("cgroup.controllers"), "memory\n").unwrap();
        let wanted = [Controller::Cpu, Controller::Memory, Controller::Io].into();
        let refused = enable(&ours.join("home/web"), 3, &wanted);
        let said: Vec<String> = refused.values().map(|why| format!("{why:#}")).collect();
        let lacks = |path: &Path, name| format!("`{}` has no controller `{name}`", path.display());
        assert!(refused.keys().eq([&Controller::Cpu, &Controller::Memory, &Controller::Io]), "{refused:?}");
        assert_eq!([&said[0], &said[2]], [&lacks(&ours, "cpu"), &lacks(computer.path(), "io")]);
        assert!(said[1].starts_with("cannot write `+memory`"), "{said:?}");
        // One with processes would take `cpu`, and become one for threads.
        fs::write(top.join("cgroup.type"), "domain\n").unwrap();
        fs::write(top.join("cgroup.procs"), "1\n").unwrap();
        fs::write(top.join("cgroup.subtree_control"), "").unwrap();
        let refused = enable(&ours.join("home/web"), 3, &wanted);
        assert_eq!(refused.len(), 3, "{refused:?}");
        assert_eq!(fs::read_to_string(top.join("cgroup.subtree_control")).unwrap(), "");
    }
}
