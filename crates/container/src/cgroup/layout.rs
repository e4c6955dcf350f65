//! How cgroups are mounted on this computer, and where we are in them.

use std::path::{Path, PathBuf};

/// The hierarchies of this computer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Version 2.
    pub(crate) unified: Option<Hierarchy>,
    /// Version 1, each with its controllers as it is mounted with them.
    pub(crate) legacy: Vec<(Vec<String>, Hierarchy)>,
}

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Version 2.
    Unified,
    /// Version 1.
    Legacy,
}

/// Whether a file system of this kind is at this place.
pub(crate) fn is_seen(place: &Path, kind: Kind) -> bool {
    let magic = match kind {
        Kind::Unified => 0x6367_7270,
        Kind::Legacy => 0x0027_e0eb,
    };
    rustix::fs::statfs(place).is_ok_and(|stat| stat.f_type == magic)
}

/// One hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// Where this process is in it, below the mount.
    pub(crate) own: PathBuf,
}

impl Layout {
    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`. What was mounted over is still listed there, so each place is
    /// looked at: whether a file system of this kind is to be seen at it.
    pub(crate) fn parse(mountinfo: &str, own: &str, is_seen: impl Fn(&Path, Kind) -> bool) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut before = before.split(' ').skip(3);
            let (Some(root), Some(mount)) = (before.next(), before.next()) else { continue };
            let mut after = after.split(' ');
            let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
            let below = |path: &str| {
                // In a namespace of cgroups that is not ours, the mount's root lies elsewhere.
                let below = Path::new(path).strip_prefix(root.trim_start_matches("/..")).ok();
                below.unwrap_or(Path::new("")).to_owned()
            };
            let hierarchy =
                |path: &str| Hierarchy { mount: PathBuf::from(unescape(mount)), own: below(path) };
            let place = PathBuf::from(unescape(mount));
            match kind {
                "cgroup2" if !is_seen(&place, Kind::Unified) => {}
                "cgroup" if !is_seen(&place, Kind::Legacy) => {}
                "cgroup2" if layout.unified.is_none() => {
                    layout.unified = Some(hierarchy(own_path(own, "").unwrap_or("/")));
                }
                "cgroup" => {
                    let mut names = options.split(',');
                    let first = names.find_map(|name| Some((name, own_path(own, name)?)));
                    let Some((first, path)) = first else { continue };
                    let controllers = own_controllers(own, first);
                    if !layout.legacy.iter().any(|(known, _)| *known == controllers) {
                        layout.legacy.push((controllers, hierarchy(path)));
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// The hierarchy of version 1 that has this controller.
    pub(crate) fn legacy(&self, controller: &str) -> Option<&Hierarchy> {
        let has = |(names, _): &&(Vec<String>, Hierarchy)| names.iter().any(|name| name == controller);
        self.legacy.iter().find(has).map(|(_, hierarchy)| hierarchy)
    }
}

/// The controllers of the hierarchy that has this one.
fn own_controllers(own: &str, controller: &str) -> Vec<String> {
    let lists = own.lines().filter_map(|line| line.split(':').nth(1));
    let list = lists.map(|list| list.split(',').collect::<Vec<_>>()).find(|list| list.contains(&controller));
    list.unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// Where we are in the hierarchy that has this controller; version 2's is listed without any.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is_it = fields.next()?.split(',').any(|name| name == controller);
        is_it.then_some(fields.next()?)
    })
}

/// In `mountinfo` spaces and the like are written as octal numbers.
pub(crate) fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mountinfo: &str, own: &str, expected: &str) {
        let layout = Layout::parse(mountinfo, own, |place, _| !place.ends_with("hidden"));
        let show = |h: &Hierarchy| format!("{} {}", h.mount.display(), h.own.display());
        let mut said: Vec<String> = layout.unified.iter().map(|h| format!("2 {}", show(h))).collect();
        said.extend(layout.legacy.iter().map(|(names, h)| format!("{} {}", names.join(","), show(h))));
        assert_eq!(said.join("\n"), expected);
    }

    #[test]
    fn version_2_alone_is_understood() {
        check(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/user.slice/user-1000.slice/session-1.scope\n",
            "2 /sys/fs/cgroup user.slice/user-1000.slice/session-1.scope",
        );
    }

    #[test]
    fn version_1_with_version_2_beside_it_is_understood() {
        check(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n",
            "2 /sys/fs/cgroup/unified \ncpu,cpuacct /sys/fs/cgroup/cpu,cpuacct \n\
             memory /sys/fs/cgroup/memory a/b\nname=systemd /sys/fs/cgroup/systemd ",
        );
    }

    #[test]
    fn a_mount_of_a_part_is_understood() {
        check(
            "3 2 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 c rw\n",
            "0::/docker/x/y\n",
            "2 /sys/fs/cgroup y",
        );
        check("3 2 0:26 / /proc rw - proc proc rw\n", "0::/\n", "");
        check("3 2 0:26 / /hidden rw - cgroup2 c rw\n4 2 0:26 / /x rw - cgroup2 c rw\n", "0::/\n", "2 /x ");
    }
}
