//! What of the machine's life says its name.

use stead_host::machine::{Files, cgroup_of};
use stead_model::name::MachineId;

use super::Life;

impl Life {
    pub(in crate::machine) fn id(&self) -> &MachineId {
        &self.id
    }

    /// Whether it can get another name while it runs.
    pub(in crate::machine) fn can_be_renamed(&self) -> bool {
        self.boot.is_none()
    }

    /// Goes on under another name. What runs stays as it is; when it is started again that is by the new one.
    pub(in crate::machine) fn take_name(&mut self, to: &MachineId, old: &Files, new: &Files) {
        let place = &mut self.place;
        let own =
            [&mut place.upper, &mut place.work, &mut place.root, &mut place.own_volumes, &mut place.state];
        let paths = place.layers.iter_mut().chain(own).chain([&mut self.assignment]);
        paths.for_each(|path| old.follow(new, path));
        place.cgroup = cgroup_of(&place.cgroup, to);
        self.id = to.clone();
    }
}
