//! Which of a container's nics is `eth0`, which `eth1`. They are counted as the file has them; a nic that is there and
//! is not made again keeps its name, as a new one would cut what goes over it. The others have what is free.

use std::collections::{BTreeMap, BTreeSet};

use super::{Wanted, is_cut_off, networks_that_go, nic_stays};
use crate::name::{LinkName, MachineId, NicId};
use crate::observed::{NicEnd, NicState, Observed};
use crate::resolve::eth;

/// The names that nics have in a machine.
type Names = BTreeMap<MachineId, BTreeSet<LinkName>>;

impl Wanted {
    /// The same with every nic that stays in its place, and the others of its machine in the first that are free.
    /// A plan is made so by itself; this is for whoever compares what is wanted with what became of it.
    #[must_use]
    pub fn with_kept_places(mut self, seen: &Observed) -> Self {
        let (kept, mut taken) = kept(&self, seen);
        // Those that have one come anew, too: planning again finds the same.
        let mut others: Vec<(&NicId, &mut NicState)> =
            self.nics.iter_mut().filter(|(id, _)| !kept.contains_key(*id)).collect();
        others.sort_by(|(_, a), (_, b)| a.end.order().cmp(&b.end.order()));
        for (id, nic) in others {
            let (NicEnd::Veth(name) | NicEnd::Set(name)) = &mut nic.end else { continue };
            // Where nothing is kept, places are the file's.
            if let Some(taken) = taken.get_mut(&id.machine()) {
                let free = (0..=taken.len()).map(eth).find(|name| !taken.contains(name));
                *name = free.unwrap_or_else(|| unreachable!("one name more than are taken is free"));
                taken.insert(name.clone());
            }
        }
        for (id, end) in kept {
            if let Some(nic) = self.nics.get_mut(&id) {
                nic.end = end;
            }
        }
        self
    }
}

/// The ends of nics that are not made again, and their names by their machines.
fn kept(wanted: &Wanted, seen: &Observed) -> (BTreeMap<NicId, NicEnd>, Names) {
    let (mut kept, mut taken) = (BTreeMap::new(), Names::new());
    if is_cut_off(seen) {
        return (kept, taken);
    }
    let goes = networks_that_go(wanted, seen);
    for (id, to) in &wanted.nics {
        let Some(from) = seen.nics.get(id) else { continue };
        let name = match (&from.end, &to.end) {
            (NicEnd::Veth(name), NicEnd::Veth(_)) | (NicEnd::Set(name), NicEnd::Set(_)) => name,
            (NicEnd::Veth(_) | NicEnd::Set(_) | NicEnd::Tap(_), _) => continue,
        };
        let moved = NicState { end: from.end.clone(), ..to.clone() };
        if nic_stays(wanted, seen, &goes, (id, from, &moved))
            && taken.entry(id.machine()).or_default().insert(name.clone())
        {
            kept.insert(id.clone(), moved.end);
        }
    }
    (kept, taken)
}
