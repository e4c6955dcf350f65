//! From what a bundle says to what is to be done: all that cannot be honoured is found here, before anything is made.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::cgroup::Wish;
use super::config::{Config, Device, Hook, Hooks, IdMap, Linux, TimeOffset};
use super::mounts::{Asked, Propagation, What, parse, target};
use super::namespaces::{self, Namespaces};
use super::process::{People, Program, own_capabilities, program};
use crate::capability::Capabilities;
use crate::seccomp::{self, Filter};
use crate::sysctl;

/// What cannot be honoured: every reason there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// With one reason.
    pub(crate) fn one(why: impl Into<String>) -> Self {
        Self(vec![why.into()])
    }
}

/// A container that can be made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) bundle: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) is_root_read_only: bool,
    pub(crate) root_propagation: Option<Propagation>,
    pub(crate) namespaces: Namespaces,
    pub(crate) uid_map: Vec<IdMap>,
    pub(crate) gid_map: Vec<IdMap>,
    pub(crate) time_offsets: BTreeMap<String, TimeOffset>,
    pub(crate) mounts: Vec<Asked>,
    pub(crate) devices: Vec<Device>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    /// By their files.
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) masked: Vec<String>,
    pub(crate) read_only: Vec<String>,
    pub(crate) hooks: Hooks,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cgroup: Wish,
    /// Absent where the file has none: such a container cannot be started.
    pub(crate) program: Option<Program>,
}

/// Checks a bundle's file. What is only worth a warning is logged.
pub(crate) fn check(config: &Config, bundle: &Path) -> Result<Plan, Refused> {
    let mut bad = Vec::new();
    version(&config.oci_version, &mut bad);
    elsewhere(config, &mut bad);
    let linux = &config.linux;
    let root = root(config, bundle, &mut bad);
    let namespaces = namespaces::parse(&linux.namespaces, &mut bad);
    maps(linux, &namespaces, &mut bad);
    names(config, &namespaces, &mut bad);
    let mut mounts = Vec::new();
    for mount in &config.mounts {
        match parse(mount, bundle) {
            Ok(asked) => {
                source(&asked, &mut bad);
                mounts.push(asked);
            }
            Err(why) => bad.push(why),
        }
    }
    devices(&linux.devices, &mut bad);
    covered(linux, &mut bad);
    hooks(&config.hooks, &mut bad);
    let filter = filter(linux, &mut bad);
    let available = if namespaces.has("user") { Capabilities::ALL } else { own_capabilities() };
    let program = config.process.as_ref().map(|process| program(process, filter, available, &mut bad));
    people(linux, &namespaces, program.as_ref(), &mut bad);
    let cgroup = Wish::new(&linux.cgroups_path, &linux.resources).unwrap_or_else(|why| {
        bad.extend(why);
        Wish::default()
    });
    let sysctls = sysctls(linux, &namespaces, &mut bad);
    let root_propagation = propagation(&linux.rootfs_propagation, &mut bad);
    if !bad.is_empty() {
        return Err(Refused(bad));
    }
    Ok(Plan {
        bundle: bundle.to_owned(),
        root,
        is_root_read_only: config.root.as_ref().is_some_and(|root| root.readonly),
        root_propagation,
        namespaces,
        uid_map: linux.uid_mappings.clone(),
        gid_map: linux.gid_mappings.clone(),
        time_offsets: linux.time_offsets.clone(),
        mounts,
        devices: linux.devices.clone(),
        hostname: config.hostname.clone().filter(|name| !name.is_empty()),
        domainname: config.domainname.clone().filter(|name| !name.is_empty()),
        sysctls,
        masked: linux.masked_paths.clone(),
        read_only: linux.readonly_paths.clone(),
        hooks: config.hooks.clone(),
        annotations: config.annotations.clone(),
        cgroup,
        program,
    })
}

/// The specification's versions that we know, by their first number.
fn version(text: &str, bad: &mut Vec<String>) {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(_), Some(_)] => {}
        [Some(_), Some(_), Some(_)] => {
            bad.push(format!("version {text} of the specification is not supported"));
        }
        _ => bad.push(format!("ociVersion `{}` is no version", text.escape_debug())),
    }
}

/// What is for other systems, or for what we do not have.
fn elsewhere(config: &Config, bad: &mut Vec<String>) {
    let linux = &config.linux;
    let process = config.process.as_ref();
    let listens = |key: &str| {
        let said = linux.seccomp.as_ref().and_then(|seccomp| seccomp.get(key)?.as_str());
        said.is_some_and(|text| !text.is_empty())
    };
    for (is_said, key) in [
        (config.vm.is_some(), "vm"),
        (config.windows.is_some(), "windows"),
        (config.solaris.is_some(), "solaris"),
        (config.zos.is_some(), "zos"),
        (config.freebsd.is_some(), "freebsd"),
        (linux.intel_rdt.is_some(), "linux.intelRdt"),
        (linux.personality.is_some(), "linux.personality"),
        (linux.net_devices.is_some(), "linux.netDevices"),
        (linux.memory_policy.is_some(), "linux.memoryPolicy"),
        (listens("listenerPath"), "linux.seccomp.listenerPath"),
        (listens("listenerMetadata"), "linux.seccomp.listenerMetadata"),
        (process.is_some_and(|process| process.scheduler.is_some()), "process.scheduler"),
        (process.is_some_and(|process| process.io_priority.is_some()), "process.ioPriority"),
        (process.is_some_and(|process| process.exec_cpu_affinity.is_some()), "process.execCPUAffinity"),
    ] {
        if is_said {
            bad.push(format!("`{key}` is not supported"));
        }
    }
    if config.annotations.contains_key("") {
        bad.push("`annotations` has an empty key".to_owned());
    }
    if !linux.mount_label.is_empty() {
        bad.push("`linux.mountLabel` is not supported: labels of SELinux are not set on mounts".to_owned());
    }
}

/// What is hidden or fixed is covered by another mount, which the root cannot be.
fn covered(linux: &Linux, bad: &mut Vec<String>) {
    for (paths, key) in [(&linux.masked_paths, "maskedPaths"), (&linux.readonly_paths, "readonlyPaths")] {
        for path in paths.iter().filter(|path| target(path) == "/") {
            bad.push(format!("`linux.{key}`: `{}` is the root itself", path.escape_debug()));
        }
    }
}

/// Looks whether what is to be mounted is there.
fn source(asked: &Asked, bad: &mut Vec<String>) {
    if let What::Bind { source, .. } = &asked.what
        && let Err(error) = fs::metadata(source)
    {
        let place = asked.target.escape_debug();
        bad.push(format!("mount at `{place}`: cannot see `{}`: {error}", source.display()));
    }
}

/// Whether the program can be who it is to be; of a user namespace that is joined, that shows once we are in it.
fn people(linux: &Linux, namespaces: &Namespaces, program: Option<&Program>, bad: &mut Vec<String>) {
    let Some(program) = program.filter(|_| !namespaces.joins("user")) else { return };
    let people = if namespaces.makes("user") {
        Ok(People::new(&linux.uid_mappings, &linux.gid_mappings))
    } else {
        People::of("self")
    };
    match people {
        Ok(people) => people.refuse(program, bad),
        Err(error) => bad.push(format!("cannot see who there is in our user namespace: {error}")),
    }
}

fn root(config: &Config, bundle: &Path, bad: &mut Vec<String>) -> PathBuf {
    let Some(root) = config.root.as_ref().filter(|root| !root.path.is_empty()) else {
        bad.push("`root.path` is missing".to_owned());
        return PathBuf::new();
    };
    let path = bundle.join(&root.path);
    match fs::canonicalize(&path) {
        Ok(path) if path == Path::new("/") => {
            bad.push("this computer's own root cannot be a container's".to_owned());
        }
        Ok(path) if path.is_dir() => return path,
        Ok(_) => bad.push(format!("the root `{}` is no directory", path.display())),
        Err(error) => bad.push(format!("there is no root at `{}`: {error}", path.display())),
    }
    path
}

fn maps(linux: &Linux, namespaces: &Namespaces, bad: &mut Vec<String>) {
    let is_new = namespaces.makes("user");
    let has_maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if has_maps && !is_new && !namespaces.joins("user") {
        bad.push("there are id mappings but no user namespace".to_owned());
    }
    for (maps, key) in [(&linux.uid_mappings, "uidMappings"), (&linux.gid_mappings, "gidMappings")] {
        if is_new && !maps.iter().any(|map| map.container_id == 0 && map.size > 0) {
            bad.push(format!("a new user namespace needs `linux.{key}` that have a root in them"));
        }
    }
    for clock in linux.time_offsets.keys() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            bad.push(format!("clock `{}` has no offset", clock.escape_debug()));
        }
    }
    if !linux.time_offsets.is_empty() && !namespaces.makes("time") {
        bad.push("there are `linux.timeOffsets` but no new time namespace".to_owned());
    }
}

/// The kernel's names of computers are no longer than this (`__NEW_UTS_LEN`).
const NAME_MAX_BYTES: usize = 64;

/// What would be this computer's, were it not in a namespace.
fn names(config: &Config, namespaces: &Namespaces, bad: &mut Vec<String>) {
    let said = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    for (name, key) in [(&config.hostname, "hostname"), (&config.domainname, "domainname")] {
        if name.as_ref().is_some_and(|name| name.len() > NAME_MAX_BYTES) {
            bad.push(format!("`{key}` is longer than {NAME_MAX_BYTES} bytes"));
        }
        if said(name) && !namespaces.has("uts") {
            bad.push(format!("`{key}` would be this computer's: there is no namespace `uts`"));
        }
    }
    if namespaces.has("user") && !namespaces.has("mount") {
        bad.push("root of a user namespace mounts nothing in this computer's namespace `mount`".to_owned());
    }
}

fn propagation(word: &str, bad: &mut Vec<String>) -> Option<Propagation> {
    if word.is_empty() {
        return None;
    }
    let found = Propagation::named(word);
    if found.is_none() {
        bad.push(format!("`linux.rootfsPropagation` cannot be `{}`", word.escape_debug()));
    }
    found
}

fn sysctls(linux: &Linux, namespaces: &Namespaces, bad: &mut Vec<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, value) in &linux.sysctl {
        let needed = match name.split(['.', '/']).next() {
            Some("net") => "network",
            Some("kernel") if name.ends_with("domainname") => "uts",
            _ => "ipc",
        };
        match sysctl::path(name, namespaces.has("network")) {
            Ok(_) if !namespaces.has(needed) => {
                bad.push(format!(
                    "kernel parameter `{name}` is this computer's: there is no namespace `{needed}`"
                ));
            }
            Ok(path) => found.push((path, value.clone())),
            Err(error) => bad.push(error.to_string()),
        }
    }
    found
}

fn devices(devices: &[Device], bad: &mut Vec<String>) {
    for device in devices {
        let path = device.path.escape_debug();
        if !matches!(device.kind.as_str(), "c" | "b" | "u" | "p") {
            bad.push(format!("device `{path}`: `{}` is no kind of device", device.kind.escape_debug()));
        }
        if !device.path.starts_with('/') || device.path.ends_with('/') {
            bad.push(format!("device `{path}`: its path is not absolute"));
        }
        if device.kind != "p"
            && [device.major, device.minor]
                .iter()
                .any(|number| !number.is_some_and(|number| u32::try_from(number).is_ok()))
        {
            bad.push(format!("device `{path}`: its numbers are none"));
        }
    }
}

fn hooks(hooks: &Hooks, bad: &mut Vec<String>) {
    let Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } = hooks;
    let all: [&[Hook]; 6] =
        [prestart, create_runtime, create_container, start_container, poststart, poststop];
    for hook in all.into_iter().flatten() {
        let path = hook.path.escape_debug();
        if !hook.path.starts_with('/') {
            bad.push(format!("hook `{path}`: its path is not absolute"));
        }
        if hook.timeout.is_some_and(|seconds| seconds <= 0) {
            bad.push(format!("hook `{path}`: its timeout is not more than 0"));
        }
    }
}

fn filter(linux: &Linux, bad: &mut Vec<String>) -> Option<Filter> {
    let value = linux.seccomp.as_ref()?;
    match seccomp::parse_oci(value) {
        Ok(filter) => Some(filter),
        Err(error) => {
            bad.push(format!("`linux.seccomp`: {error:#}"));
            None
        }
    }
}

/// Opens what a namespace's path leads to.
pub(crate) fn open(path: &str) -> std::io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}
