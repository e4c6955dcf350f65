//! What of this computer a container is to have, looked for before anything is made: files, devices, kernel parameters;
//! whether those that machines wait for are ever known to be well; and what other projects are to have.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use stead_host::home::Home;
use stead_host::linux::{Unlimitable, limit_refused};
use stead_image::Store;
use stead_model::container::{Container, Device, Mount, Propagation};
use stead_model::external::{missing_networks, missing_volumes};
use stead_model::name::{MachineId, Name, VolumeId};
use stead_model::observed::{Body, MachineState, Observed};
use stead_model::plan::{Plan, Planned};
use stead_model::project::{Condition, Project};
use stead_model::resolve::Refusal;
use stead_model::step::{Change, Step};

/// The volumes and networks of other projects that machines are to have, which `are_meant` or begun by the plan, and that are
/// not there.
pub(super) fn of_others(
    project: &Project,
    are_meant: impl Fn(&MachineId) -> bool,
    plan: &Plan,
    seen: &Observed,
) -> Vec<Refusal> {
    let machines = project.machines.iter();
    let machines = machines.filter(|(name, _)| are_meant(&MachineId::new(&project.name, name)));
    let mut missing = missing_volumes(machines.flat_map(|(_, machine)| machine.runs.mounts()), seen);
    missing.extend(missing_networks(project, are_meant, plan, seen));
    missing
}

/// What a container lacks here. Files with these texts are written before it is made.
pub(super) fn lacks(name: &Name, wish: &Container, texts: &BTreeMap<PathBuf, String>) -> Vec<Refusal> {
    let refusal = |key: &str, why: String, hint: &str| Refusal {
        key: format!("machines.{name}.{key}"),
        why,
        hint: hint.to_owned(),
    };
    let mut refusals = Vec::new();
    for (target, mount) in &wish.mounts {
        let Mount::Bind { source, create: false, .. } = mount else { continue };
        if is_missing(source) && !texts.contains_key(source) {
            let key = if target.starts_with("/run/secrets/") { "secrets" } else { "volumes" };
            let why = format!("there is no `{}`, which is to be at `{target}`", source.display());
            refusals.push(refusal(key, why, "make it, or name another"));
        }
    }
    for mount in wish.mounts.values() {
        let Mount::Bind { source, propagation, .. } = mount else { continue };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if let Some(place) = mount_of(source).and_then(|id| stays(&mounts, id, *propagation)) {
            let why = format!(
                "no mounts travel to `{}`: what is mounted at `{place}` is private",
                source.display()
            );
            let hint = format!("`mount --make-shared {place}` lets them, or leave the propagation out");
            refusals.push(refusal("volumes", why, &hint));
        }
    }
    for Device { source, .. } in wish.rights.devices.iter().filter(|device| is_missing(&device.source)) {
        let why = format!("there is no device `{}`", source.display());
        refusals.push(refusal("devices", why, "name one that is here, or leave it out"));
    }
    if let Err(error) = stead_container::check_seccomp(&wish.rights) {
        refusals.push(refusal(
            "security_opt",
            format!("{error:#}"),
            "mend it, or leave it out for the usual one",
        ));
    }
    for parameter in wish.rights.sysctls.keys() {
        if let Err(error) = stead_container::check_sysctl(parameter) {
            let hint = "set it on this computer itself, or leave it out";
            refusals.push(refusal("sysctls", format!("{error:#}"), hint));
        }
    }
    refusals
}

/// Why volumes cannot be limited that a plan limits.
pub(super) fn unlimitable(home: &Home, plan: &Plan) -> Result<Vec<Refusal>> {
    let limited = plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::VolumeAdd(id, to) | Step::VolumeChange(id, Change { to, .. }) => to.size_bytes.map(|_| id),
        _ => None,
    });
    let limited: Vec<_> = limited.collect();
    let refused = if limited.is_empty() { None } else { limit_refused(home)? };
    let Some(Unlimitable { why, hint }) = refused else { return Ok(Vec::new()) };
    let refusal = |id: &VolumeId| Refusal {
        key: format!("volumes.{}.size", id.name),
        why: why.clone(),
        hint: hint.clone(),
    };
    Ok(limited.into_iter().map(refusal).collect())
}

/// Whether nothing is there. What cannot be looked at may be.
fn is_missing(path: &Path) -> bool {
    let found = std::fs::metadata(path);
    found.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// By which number the kernel knows what is mounted at a path, or will be when it is made.
fn mount_of(path: &Path) -> Option<u64> {
    let find = |path| statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok();
    path.ancestors().find_map(find).map(|found| found.stx_mnt_id)
}

/// Where this mount is, if none made later would travel as is asked: those of another one appear where that is shared, or
/// receives them itself; they go back only where it is shared.
fn stays(mountinfo: &str, id: u64, asked: Propagation) -> Option<&str> {
    let ways: &[&str] = match asked {
        Propagation::Private => return None,
        Propagation::Slave => &["shared:", "master:"],
        Propagation::Shared => &["shared:"],
    };
    let mut words = mountinfo.lines().map(|line| line.split(' '));
    let mut words = words.find(|words| words.clone().next() == Some(&*id.to_string()))?;
    let place = words.nth(4)?;
    let mut tags = words.skip(1).take_while(|word| *word != "-");
    let travels = tags.any(|tag| ways.iter().any(|way| tag.starts_with(way)));
    (!travels).then_some(place)
}

/// Containers that others wait for until they are well, and that nobody looks after: neither the file nor the image says
/// how.
pub(super) fn never_well(home: &Home, project: &Project, plan: &Plan) -> Result<Vec<Refusal>> {
    let mut refusals = Vec::new();
    for Planned { step, .. } in &plan.steps {
        let Step::MachineAdd(id, MachineState { body, .. }, _) = step else { continue };
        let (Body::Container(made) | Body::Microvm(made)) = body else { continue };
        let is_begun = |name: &Name| {
            plan.steps.iter().any(|Planned { step, .. }| match step {
                Step::MachineAdd(id, ..) | Step::MachineStart(id, _) => id.name == *name,
                _ => false,
            })
        };
        let waiting = project.machines.iter().filter(|(name, machine)| {
            machine.depends_on.get(&id.name) == Some(&Condition::Healthy) && is_begun(name)
        });
        let waiting: Vec<&Name> = waiting.map(|(name, _)| name).collect();
        let Some(digest) = made.image.as_ref().filter(|_| !waiting.is_empty()) else { continue };
        let Some(details) = Store::open(&home.images())?.inspect(digest)? else { continue };
        // Why it cannot be launched is told by whoever launches it.
        let Ok(launch) = made.wish.launch(&id.name, &details.image.config) else { continue };
        if launch.health.is_none() {
            refusals.extend(waiting.into_iter().map(|name| unwatched(name, id)));
        }
    }
    Ok(refusals)
}

fn unwatched(name: &Name, other: &MachineId) -> Refusal {
    let why = format!(
        "machine `{}` is never known to be healthy: neither it nor its image has a health check",
        other.name
    );
    Refusal {
        key: format!("machines.{name}.depends_on.{}", other.name),
        why,
        hint: "give it a `healthcheck`, or write `condition: service_started`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_travel_where_the_one_of_their_source_is_shared() {
        let mounts = "24 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            25 24 0:22 / /own rw - tmpfs own rw\n\
            26 24 0:23 / /got rw,relatime master:7 propagate_from:2 - tmpfs got rw\n\
            27 24 0:24 / /both rw shared:9 master:7 - tmpfs both rw\n";
        for (id, asked, expected) in [
            (24, Propagation::Shared, None),
            (25, Propagation::Private, None),
            (25, Propagation::Slave, Some("/own")),
            (25, Propagation::Shared, Some("/own")),
            (26, Propagation::Slave, None),
            (26, Propagation::Shared, Some("/got")),
            (27, Propagation::Shared, None),
            (2, Propagation::Shared, None),
        ] {
            assert_eq!(stays(mounts, id, asked), expected, "{id} {asked:?}");
        }
    }
}
