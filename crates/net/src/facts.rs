//! What this computer can do for us, as read from its files. Nothing is changed, nothing printed.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

/// All facts, each read by itself: one that cannot be read does not hide the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `net.ipv4.conf.all.forwarding` of the host: the veth uplink needs it.
    pub forwarding4: Switch,
    /// `net.ipv6.conf.all.forwarding` of the host.
    pub forwarding6: Switch,
    /// `net.ipv4.ping_group_range` of the host: which groups' pings pasta can carry, both ends included.
    pub ping_groups: Option<(u64, u64)>,
    /// `/dev/net/tun`: TAPs, and pasta's own link.
    pub tun: Device,
    /// `/dev/kvm`.
    pub kvm: Device,
    /// `pasta`, the uplink without root.
    pub pasta: Program,
    /// Whether a switch of the host forbids user namespaces to ordinary users.
    pub user_namespaces: UserNamespaces,
    /// Our subordinate user ids in `/etc/subuid`.
    pub sub_uids: Vec<IdRange>,
    /// Our subordinate group ids in `/etc/subgid`.
    pub sub_gids: Vec<IdRange>,
    /// Which of the programs are not there that map them.
    pub missing_id_helpers: Vec<&'static str>,
    /// The first id that is nobody's subordinate one, nor a usual one.
    pub free_sub_id: u32,
    /// Who we are by `/etc/passwd`.
    pub user: Option<String>,
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// The controllers that systemd hands on to our user, if it is systemd that runs here; none where the user's own
    /// does not run.
    pub handed_on: Option<Vec<String>>,
    /// The module by which KVM uses this computer's processor, if that can.
    pub kvm_module: Option<&'static str>,
    /// The link by which this computer reaches out over IPv6.
    pub out6: Option<String>,
}

/// A kernel parameter of two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Not 0.
    On,
    /// 0.
    Off,
    /// The kernel does not have it, or it cannot be read.
    Absent,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// It opens for reading and writing.
    Usable,
    /// There is no such node, or no driver behind it.
    Absent,
    /// Its mode does not let us.
    Denied,
    /// It does not open for another reason.
    Broken(String),
}

/// A program on the PATH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// It is there; what it says of its version, where it could be run.
    Found(PathBuf, Option<String>),
    /// It is not on the PATH.
    Absent,
}

/// The host's word about user namespaces. Only making one proves that they work: starting the anchor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespaces {
    /// No switch that we know forbids them.
    NotForbidden,
    /// `user.max_user_namespaces` is 0.
    NoneAllowed,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's kernel).
    RootOnly,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu): made, but without capabilities unless a
    /// profile allows it.
    AppArmor,
    /// The kernel has no user namespaces.
    Absent,
}

/// `count` ids from `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// How control groups are mounted at `/sys/fs/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 alone, with the controllers that our own group may use.
    V2(Vec<String>),
    /// Version 1 controllers, and an empty version 2 tree.
    Hybrid,
    /// Version 1 alone.
    V1,
    /// Not mounted.
    Absent,
}

/// Reads all facts.
pub fn observe() -> Facts {
    Facts {
        forwarding4: switch("/proc/sys/net/ipv4/conf/all/forwarding"),
        forwarding6: switch("/proc/sys/net/ipv6/conf/all/forwarding"),
        ping_groups: read("/proc/sys/net/ipv4/ping_group_range").and_then(|text| parse_groups(&text)),
        tun: device(Path::new("/dev/net/tun")),
        kvm: device(Path::new("/dev/kvm")),
        pasta: program("pasta", crate::uplink::program()),
        user_namespaces: user_namespaces(),
        sub_uids: own_ranges("/etc/subuid"),
        sub_gids: own_ranges("/etc/subgid"),
        missing_id_helpers: ID_HELPERS.into_iter().filter(|name| find(name).is_none()).collect(),
        free_sub_id: free_sub_id(&["/etc/subuid", "/etc/subgid"].map(|path| read(path).unwrap_or_default())),
        user: own_name(),
        cgroups: cgroups(),
        handed_on: handed_on(),
        kvm_module: kvm_module(&read("/proc/cpuinfo").unwrap_or_default()),
        out6: link_out6(&read("/proc/net/ipv6_route").unwrap_or_default()),
    }
}

/// The setuid programs that map subordinate ids.
const ID_HELPERS: [&str; 2] = ["newuidmap", "newgidmap"];

/// Below this no subordinate ids are given, by the defaults of every distribution.
const SUB_IDS_FROM: u32 = 100_000;

/// Our first range of subordinate user and of group ids: what an id map is made of.
pub fn sub_ids() -> Option<(IdRange, IdRange)> {
    let first = |path| own_ranges(path).first().copied();
    first("/etc/subuid").zip(first("/etc/subgid"))
}

fn own_ranges(path: &str) -> Vec<IdRange> {
    parse_ranges(&read(path).unwrap_or_default(), own_name().as_deref(), geteuid().as_raw())
}

fn own_name() -> Option<String> {
    read("/etc/passwd").and_then(|text| user_name(&text, geteuid().as_raw()))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn switch(path: &str) -> Switch {
    match read(path).as_deref().map(str::trim) {
        Some("0") => Switch::Off,
        Some(_) => Switch::On,
        None => Switch::Absent,
    }
}

fn device(path: &Path) -> Device {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Device::Usable,
        Err(error) => match (error.kind(), error.raw_os_error()) {
            (ErrorKind::NotFound, _) => Device::Absent,
            (ErrorKind::PermissionDenied, _) => Device::Denied,
            // ENXIO, ENODEV: a node without a driver.
            (_, Some(6 | 19)) => Device::Absent,
            _ => Device::Broken(error.to_string()),
        },
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn program(name: &str, found: Option<PathBuf>) -> Program {
    let Some(found) = found else { return Program::Absent };
    let output = Command::new(&found).arg("--version").output().ok();
    let version = output.and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(|line| line.trim_start_matches(name).trim().to_owned())
    });
    Program::Found(found, version.filter(|version| !version.is_empty()))
}

fn user_namespaces() -> UserNamespaces {
    if !Path::new("/proc/self/ns/user").exists() {
        UserNamespaces::Absent
    } else if switch("/proc/sys/user/max_user_namespaces") == Switch::Off {
        UserNamespaces::NoneAllowed
    } else if switch("/proc/sys/kernel/unprivileged_userns_clone") == Switch::Off {
        UserNamespaces::RootOnly
    } else if switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Switch::On {
        UserNamespaces::AppArmor
    } else {
        UserNamespaces::NotForbidden
    }
}

fn cgroups() -> Cgroups {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    match parse_mounts(&mounts) {
        Cgroups::V2(_) => {
            let own = read("/proc/self/cgroup").unwrap_or_default();
            let group = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
            let file = Path::new("/sys/fs/cgroup").join(group).join("cgroup.controllers");
            let controllers = fs::read_to_string(file).unwrap_or_default();
            Cgroups::V2(controllers.split_whitespace().map(str::to_owned).collect())
        }
        other @ (Cgroups::Hybrid | Cgroups::V1 | Cgroups::Absent) => other,
    }
}

/// What systemd hands on to the services and scopes of our user: those of its own tree are the user's to write.
fn handed_on() -> Option<Vec<String>> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let uid = geteuid().as_raw();
    let file = format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
    Some(read(&file).unwrap_or_default().split_whitespace().map(str::to_owned).collect())
}

fn kvm_module(cpuinfo: &str) -> Option<&'static str> {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags")).flat_map(str::split_whitespace);
    flags.find_map(|flag| match flag {
        "vmx" => Some("kvm_intel"),
        "svm" => Some("kvm_amd"),
        _ => None,
    })
}

/// The link of a default route. Lines are of ten fields: destination and its prefix come first, the link last. The kernel
/// has such routes of its own, by `lo`, which lead nowhere.
fn link_out6(routes: &str) -> Option<String> {
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let link = *fields.last()?;
        (fields.get(1) == Some(&"00") && link != "lo").then(|| link.to_owned())
    })
}

/// Where the next subordinate ids may begin.
fn free_sub_id(texts: &[String]) -> u32 {
    let end = |line: &str| {
        let mut fields = line.trim().split(':').skip(1).map(|field| field.parse::<u32>().ok());
        fields.next()??.checked_add(fields.next()??)
    };
    texts.iter().flat_map(|text| text.lines().filter_map(end)).fold(SUB_IDS_FROM, u32::max)
}

/// Which layout `/proc/self/mounts` shows; the controllers are elsewhere.
fn parse_mounts(mounts: &str) -> Cgroups {
    let mut trees = (false, false);
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(path), Some(kind)) = (fields.next(), fields.next()) else { continue };
        match kind {
            // Mounted over the rest, it is all that counts.
            "cgroup2" if path == "/sys/fs/cgroup" => return Cgroups::V2(Vec::new()),
            "cgroup2" if path.starts_with("/sys/fs/cgroup/") => trees.1 = true,
            "cgroup" if path.starts_with("/sys/fs/cgroup/") => trees.0 = true,
            _ => {}
        }
    }
    match trees {
        (true, true) => Cgroups::Hybrid,
        (true, false) => Cgroups::V1,
        (false, _) => Cgroups::Absent,
    }
}

fn parse_groups(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    // The kernel's default, `1 0`, is nobody.
    (range.0 <= range.1).then_some(range)
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The lines of `/etc/subuid` that are ours: by name or by number.
fn parse_ranges(text: &str, user: Option<&str>, uid: u32) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let ours = Some(owner) == user || owner.parse() == Ok(uid);
        let range = IdRange { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        ours.then_some(range)
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_told_apart() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        let both = format!("{v1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(parse_mounts(v1), Cgroups::V1);
        assert_eq!(parse_mounts(&both), Cgroups::Hybrid);
        assert_eq!(
            parse_mounts(&format!("{both}none /sys/fs/cgroup cgroup2 rw 0 0\n")),
            Cgroups::V2(Vec::new())
        );
        assert_eq!(parse_mounts("proc /proc proc rw 0 0\n\nx\n"), Cgroups::Absent);
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let text = "ann:100000:65536\n1000:200000:10\nbob:5:5\nann:bad\n";
        let found = parse_ranges(text, Some("ann"), 1000);
        assert_eq!(found, [IdRange { first: 100_000, count: 65536 }, IdRange { first: 200_000, count: 10 }]);
        assert_eq!(parse_ranges(text, None, 1001), []);
        assert_eq!(
            user_name("root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh", 1000).as_deref(),
            Some("ann")
        );
    }

    #[test]
    fn what_mends_something_here_is_known_of_this_computer() {
        assert_eq!(kvm_module("model name : vmx\nflags : fpu vmx sse\n"), Some("kvm_intel"));
        assert_eq!(kvm_module("flags\t\t: fpu svm\n"), Some("kvm_amd"));
        assert_eq!(kvm_module("model name : svm\nflags : fpu\n"), None);
        let lo = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        assert_eq!(link_out6(lo), None);
        assert_eq!(link_out6(&format!("{lo}{}", lo.replace("lo\n", "eth0\n"))).as_deref(), Some("eth0"));
        assert_eq!(link_out6(&lo.replace(" 00 ", " 40 ").replace("lo\n", "eth0\n")), None);
        assert_eq!(free_sub_id(&[String::new()]), 100_000);
        let texts = ["ann:100000:65536\nbad:1\n".to_owned(), "bob:165536:65536\n".to_owned()];
        assert_eq!(free_sub_id(&texts), 231_072);
    }

    #[test]
    fn the_kernels_default_lets_nobody_ping() {
        assert_eq!(parse_groups("1\t0\n"), None);
        assert_eq!(parse_groups("0\t2147483647\n"), Some((0, 2_147_483_647)));
    }

    #[test]
    fn a_device_is_usable_absent_or_denied() {
        assert_eq!(device(Path::new("/dev/null")), Device::Usable);
        assert_eq!(device(Path::new("/dev/no-such")), Device::Absent);
        assert_eq!(program("no-such-program", find("no-such-program")), Program::Absent);
        assert!(matches!(program("sh", find("sh")), Program::Found(..)));
    }
}
