//! External volumes: machines of one project mount them, and another project has them, mostly that of what commands make.
//! No plan makes, changes or deletes one but those of the project that has it.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::Mount;
use crate::name::{LOOSE_PROJECT, MachineId, Name, VolumeId};
use crate::observed::Observed;
use crate::resolve::Refusal;

impl Observed {
    /// The machines that have a volume mounted, or would when they ran, of whatever project.
    pub fn users_of(&self, volume: &VolumeId) -> BTreeSet<MachineId> {
        let uses =
            |id: &MachineId, mount: &Mount| mount.volume(&id.project).is_some_and(|used| used == *volume);
        let users = self.machines.iter().filter(|(id, state)| state.mounts().any(|mount| uses(id, mount)));
        users.map(|(id, _)| id.clone()).collect()
    }
}

/// Why machines that have these mounts cannot be had: external volumes that are not there.
pub fn missing_volumes<'a>(mounts: impl Iterator<Item = &'a Mount>, seen: &Observed) -> Vec<Refusal> {
    let external = mounts.filter_map(|mount| match mount {
        Mount::Volume { name, external: Some(id), .. } => Some((name, id)),
        Mount::Volume { external: None, .. } | Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
    });
    let missing: BTreeMap<&Name, &VolumeId> =
        external.filter(|(_, id)| !seen.volumes.contains_key(id)).collect();
    let refusal = |(name, id): (&Name, &VolumeId)| {
        let (which, hint) = if id.project.as_str() == LOOSE_PROJECT {
            (id.name.to_string(), format!("`stead volume create {}` makes it", id.name))
        } else {
            (
                id.to_string(),
                format!("project `{}` makes it, if its file names it: `stead up` there first", id.project),
            )
        };
        Refusal { key: format!("volumes.{name}"), why: format!("there is no volume `{which}`"), hint }
    };
    missing.into_iter().map(refusal).collect()
}
