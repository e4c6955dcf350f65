//! This computer, when it runs Linux: what exists is read from the kernel, and steps are carried out by
//! netlink, by the anchor and by the switchboard. No program but our own and pasta is ever run.

mod aside;
mod bridged;
mod claims;
mod clone;
mod deaths;
mod engine;
mod etc;
mod facts;
mod going;
pub mod guest;
mod hosts;
mod inhabitants;
mod inside;
mod leaving;
mod machine;
mod mark;
mod network;
mod nic;
mod observe;
mod provision;
mod rename;
mod resolver;
mod served;
mod sharing;
mod snapshot;
mod texts;
mod tree;
pub mod vm;
mod volume;
mod waits;
mod way_out;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use stead_model::name::{LinkName, MachineId, NetworkId};
use stead_model::observed::Observed;
use stead_model::step::Step;

use self::inside::Inside;
use self::leaving::Leaving;
use self::waits::Waits;
use crate::apply::Host;
use crate::home::Home;
use crate::journal::{Event, Journal};
use crate::lock;
use crate::machine::Files;
use crate::state::{Entry, Records, State};

pub use self::claims::ClaimLost;
pub use self::clone::Origin;
pub use self::engine::namespace_label;
pub use self::inhabitants::Namespaces;
pub use self::machine::{StartError, mark_stopped, stop_one};
pub use self::provision::{Order, provisioned, remember};
pub use self::rename::Renaming;
pub use self::snapshot::Return;
pub use self::texts::store_texts;
pub use self::tree::{delete as delete_tree, measure as measure_tree, taken_bytes};
pub use stead_container::Unlimitable;

pub use self::volume::{
    VolumeNote, limit_refused, limited as volume_limited, of_machine as volumes_of_machine,
    path as volume_path,
};

/// The engine comes and goes in less; what fails for longer fails for another reason.
const LOOK_AGAIN_FOR: Duration = Duration::from_millis(200);
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(20);

/// A computer with a home on it.
#[derive(Debug)]
pub struct LinuxHost {
    home: Home,
    /// What the long-lived processes are re-executions of.
    program: PathBuf,
    /// Opened when first needed: a command that only looks makes no files.
    state: Option<State>,
    inside: Option<Inside>,
    /// Links that the kernel is taking away.
    leaving: Option<Leaving>,
    /// The bridges of the networks, as far as we know them.
    bridges: BTreeMap<NetworkId, LinkName>,
    /// Whether what is done is for a machine that goes when it ends.
    is_fleeting: bool,
    /// Whether guests boot that could go on from where others were saved.
    starts_cold: bool,
    /// The files of a machine that is made next.
    prepared: Option<clone::Prepared>,
    waits: Waits,
}

impl LinuxHost {
    /// Nothing is made or changed yet.
    pub fn open(home: Home, program: PathBuf) -> Result<Self> {
        Ok(Self {
            home,
            program,
            state: None,
            inside: None,
            leaving: None,
            bridges: BTreeMap::new(),
            is_fleeting: false,
            starts_cold: false,
            prepared: None,
            waits: Waits::default(),
        })
    }

    /// Takes nothing for granted that was seen so far: others had the home meanwhile, and may have purged it.
    pub fn forget(&mut self) {
        self.state = None;
        self.inside = None;
        self.bridges.clear();
    }

    /// Lets others have the records.
    pub fn close_records(&mut self) {
        self.state = None;
    }

    /// From now on machines are made that go when they end, and with the power: their records do not wait for a disk.
    pub fn make_fleeting(&mut self) {
        self.is_fleeting = true;
    }

    /// From now on guests boot that could go on from where others were saved.
    pub fn start_cold(&mut self) {
        self.starts_cold = true;
    }

    /// From now on no stage of a machine, and no script, is waited for any longer than this.
    pub fn limit_waits(&mut self, limit: Duration) {
        self.waits.limit = Some(limit);
    }

    /// The home.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What is on record; nothing if nothing ever was.
    pub fn records(&mut self) -> Result<Records> {
        self.existing_state()?.map_or_else(|| Ok(Records::default()), State::load)
    }

    /// This home's mark in names on the host. One that has no records yet takes the mark that it will get.
    pub fn home_id(&mut self) -> Result<String> {
        let new = new_home_id(&self.home.state);
        self.existing_state()?.map_or(Ok(new), State::home_id)
    }

    /// Takes away all that is on this computer outside of the home's directories, also when the records cannot
    /// be read: by the kernel's word, and by every mark that the home may have had.
    pub fn raze(&mut self) -> Result<()> {
        let mut ids = vec![new_home_id(&self.home.state)];
        ids.extend(self.home_id());
        ids.extend(observe::uplink_marks(&self.home)?);
        ids.sort();
        ids.dedup();
        let machines = machine::raze(&self.home);
        all([machines, engine::raze(self, &ids)].into_iter())
    }

    /// Deletes all data of the home: what machines wrote, images, volumes. One that cannot be deleted keeps no other
    /// from going.
    pub fn delete_data(&self) -> Result<()> {
        let home = &self.home;
        let trees = [
            home.machines(),
            home.images(),
            home.volumes(),
            home.build(),
            home.building(),
            home.kernels(),
            home.disks(),
            home.templates(),
        ];
        let trees = trees.into_iter().chain([home.clones(), home.aside(), going::place(home)]);
        all(trees.map(|tree| tree::delete(&self.program, &tree)))
    }

    /// Whether anything of this home lives, its directories aside.
    pub fn lives(&mut self) -> Result<bool> {
        let id = self.home_id()?;
        observe::has_leftovers(&self.home, &id)
    }

    /// The network namespaces that this home has now.
    pub fn namespaces(&self) -> Result<Namespaces> {
        inhabitants::namespaces(&engine::anchors(&self.home)?)
    }

    /// Does to its end what commands that were killed had begun: ends machines, deletes volumes and machines. For
    /// the one that changes the home now.
    pub fn tidy(&mut self) -> Result<()> {
        machine::finish_stops(&self.home)?;
        self.finish_renaming()?;
        let records = self.records();
        if let Ok(records) = &records
            && let Err(error) = aside::tidy(&self.home, records)
        {
            tracing::warn!("what was set aside is where it was: {error:#}");
        }
        going::tidy(&self.home, &self.program)?;
        clone::tidy(&self.home, &self.program)?;
        // Whoever needs records that cannot be read says so.
        let Ok(Records { machines: records, .. }) = records else { return Ok(()) };
        let unfinished = machine::unfinished(&self.home, &records);
        unfinished.iter().try_for_each(|id| machine::remove(&self.home, id))?;
        let ours = records.iter().filter(|(_, state)| state.is_ours());
        let gone = ours.filter(|(id, _)| !Files::new(&self.home, id).are_whole());
        let entries: Vec<Entry> = gone.map(|(id, _)| Entry::NoMachine(id.clone())).collect();
        if !entries.is_empty() {
            self.store(&entries)?;
        }
        deaths::note(&self.home, &records)?;
        snapshot::tidy(&self.home, &self.program)?;
        texts::tidy(&self.home, &records)?;
        vm::tidy(self)?;
        if unfinished.is_empty() { Ok(()) } else { going::tidy(&self.home, &self.program) }
    }

    /// Deletes the volumes without a name that were set aside for these machines, which are not to have them.
    pub fn forget_aside(&self, is_one: impl Fn(&MachineId) -> bool) -> Result<()> {
        if aside::forget(&self.home, is_one)? { going::tidy(&self.home, &self.program) } else { Ok(()) }
    }

    /// Deletes the texts of secrets and configs that no machine mounts any more.
    pub fn tidy_texts(&mut self) -> Result<()> {
        if !self.home.texts().exists() {
            return Ok(());
        }
        let Records { machines, .. } = self.records()?;
        texts::tidy(&self.home, &machines)
    }

    /// Closes the ports of those of these machines that do not run: they were opened for a start that was not to be.
    pub fn close_idle_ports(&mut self, ids: &[&MachineId]) -> Result<()> {
        served::follow_started(self, ids)
    }

    /// Writes down the ends of machines whose keepers were killed, unless somebody changes the home just now: that one
    /// does it. For those who wait for what happens.
    pub fn note_deaths(&mut self) -> Result<()> {
        let Some(_lock) = lock::lock_if_free(&self.home)? else { return Ok(()) };
        let Records { machines, .. } = self.records()?;
        deaths::note(&self.home, &machines)
    }

    fn existing_state(&mut self) -> Result<Option<&State>> {
        if self.state.is_none() {
            self.state = State::find(&self.home.database())?;
        }
        Ok(self.state.as_ref())
    }

    fn state(&mut self) -> Result<&mut State> {
        let state = match self.state.take() {
            Some(state) => state,
            None => {
                self.home.prepare()?;
                State::open(&self.home.database(), &new_home_id(&self.home.state))?
            }
        };
        if self.is_fleeting {
            state.hurry()?;
        }
        Ok(self.state.insert(state))
    }

    fn store(&mut self, entries: &[Entry]) -> Result<()> {
        self.state()?.store(entries)
    }

    /// The engine's inside, which has to exist.
    fn inside(&mut self) -> Result<&mut Inside> {
        if self.inside.is_none() {
            self.inside = Inside::connect(&self.home.run)?;
        }
        self.inside.as_mut().ok_or_else(|| anyhow!("the engine is gone"))
    }
}

/// The networks of a home that stand, by the kernel's word alone: no record is read, and nobody waited for.
pub fn standing_networks(home: &Home) -> Result<Vec<NetworkId>> {
    Inside::connect(&home.run)?.map_or(Ok(Vec::new()), |inside| inside.networks())
}

/// The mark of a home: where it is, and on which computer. It is known before anything is written, so a plan
/// shows the very names that will be used.
pub(crate) fn new_home_id(state: &Path) -> String {
    let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let digest = stead_model::address::digest(&["home", machine_id.trim(), &state.to_string_lossy()]);
    digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}

impl Host for LinuxHost {
    fn observe(&mut self) -> Result<Observed> {
        let start = Instant::now();
        loop {
            match observe::observe(self) {
                // Another command may have taken away what we were looking at.
                Err(_) if start.elapsed() < LOOK_AGAIN_FOR => std::thread::sleep(LOOK_AGAIN_EVERY),
                result => return result,
            }
        }
    }

    fn wait(&mut self, steps: &[&Step]) -> Result<Vec<(usize, Result<()>)>> {
        self.waits.next((&self.home, &self.program), steps)
    }

    fn run(&mut self, steps: &[&Step]) -> Vec<Result<()>> {
        machine::expect_starts(steps);
        let mut results: Vec<Option<Result<()>>> = steps.iter().map(|_| None).collect();
        for batch in batches(steps) {
            let members: Vec<&Step> = batch.iter().filter_map(|place| steps.get(*place).copied()).collect();
            let ended = self.run_batch(&members);
            for (place, result) in batch.into_iter().zip(ended) {
                if let Some(slot) = results.get_mut(place) {
                    *slot = Some(result);
                }
            }
        }
        let journal = Journal::new(&self.home);
        let done = steps.iter().zip(&results).filter(|(_, result)| matches!(result, Some(Ok(()))));
        done.filter_map(|(step, _)| Event::of_step(step)).for_each(|event| journal.note(&event));
        let missing = || Err(anyhow!("the step was not run"));
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }
}

/// The steps that are carried out together: those of one kind, by their places. The kernel takes many
/// changes in one call, and the switchboard reads its file once for all of them.
fn batches(steps: &[&Step]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut kinds = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let kind = std::mem::discriminant(*step);
        match kinds.iter().position(|other| *other == kind).and_then(|at| batches.get_mut(at)) {
            Some(batch) => batch.push(place),
            None => {
                kinds.push(kind);
                batches.push(vec![place]);
            }
        }
    }
    // None of them waits for another. On a disk that is full those that make room have to be the first.
    let makes_room =
        |place: &usize| matches!(steps.get(*place), Some(Step::MachineRemove(..) | Step::VolumeRemove(_)));
    batches.sort_by_key(|batch| !batch.first().is_some_and(makes_room));
    batches
}

impl LinuxHost {
    /// Runs steps of one kind.
    fn run_batch(&mut self, steps: &[&Step]) -> Vec<Result<()>> {
        let Some(first) = steps.first() else { return Vec::new() };
        // All else may depend on what is gone.
        let goes_along =
            matches!(first, Step::LeaseRemove(..) | Step::PortLeaseRemove(..) | Step::MachineRemove(..));
        if let Err(error) = if goes_along { Ok(()) } else { self.see_off() } {
            return together(steps, Err(error));
        }
        match first {
            Step::NetworkAdd(..) | Step::NetworkChange(..) => network::set(self, steps),
            Step::NetworkRemove(..) => together(steps, network::remove(self, steps)),
            Step::NicAdd(..) | Step::NicChange(..) => nic::set(self, steps),
            Step::NicRemove(..) => together(steps, nic::remove(self, steps)),
            Step::PortAdd(..) => served::open_ports(self, steps),
            Step::PortRemove(..) => together(steps, served::close_ports(self, steps)),
            Step::ProjectAdd(..)
            | Step::ProjectRemove(_)
            | Step::LeaseAdd(..)
            | Step::LeaseRemove(..)
            | Step::PortLeaseAdd(..)
            | Step::PortLeaseRemove(..) => together(steps, self.record(steps)),
            Step::MachineAdd(..) | Step::MachineChange(..) => {
                together(steps, engine::add_machines(self, steps))
            }
            Step::MachineStart(..) => machine::start(self, steps),
            Step::MachineStop(..) => machine::stop(&self.home, steps),
            Step::MachineRemove(..) => together(steps, engine::remove_machines(self, steps)),
            Step::EngineStart
            | Step::EngineStop
            | Step::SwitchboardStart
            | Step::UplinkAdd(_)
            | Step::UplinkRemove(_)
            | Step::VolumeAdd(..)
            | Step::VolumeChange(..)
            | Step::VolumeRemove(_) => steps.iter().map(|step| self.run_alone(step)).collect(),
            Step::MachineAwait(..) | Step::MachineProvision(..) => {
                steps.iter().map(|_| Err(anyhow!("it is waited for"))).collect()
            }
        }
    }

    fn run_alone(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::EngineStart => engine::start(self),
            Step::EngineStop => engine::stop(self),
            Step::SwitchboardStart => served::start(self),
            Step::UplinkAdd(uplink) => engine::add_uplink(self, uplink),
            Step::UplinkRemove(uplink) => engine::remove_uplink(self, uplink),
            Step::VolumeAdd(id, to) => volume::add(&self.home, id, *to),
            Step::VolumeChange(id, change) => volume::limit(&self.home, id, change.to),
            Step::VolumeRemove(id) => volume::remove(&self.home, &self.program, id),
            _ => Err(anyhow!("`{step}` is not run alone")),
        }
    }

    /// Steps that only change the records: one transaction.
    fn record(&mut self, steps: &[&Step]) -> Result<()> {
        let entries = steps.iter().filter_map(|step| match step {
            Step::ProjectAdd(name, files) => Some(Entry::Project(name.clone(), files.clone())),
            Step::ProjectRemove(name) => Some(Entry::NoProject(name.clone())),
            Step::LeaseAdd(id, lease) => Some(Entry::Lease(id.clone(), lease.clone())),
            Step::LeaseRemove(id, _) => Some(Entry::NoLease(id.clone())),
            Step::PortLeaseAdd(bind, lease) => Some(Entry::PortLease(*bind, lease.clone())),
            Step::PortLeaseRemove(bind, _) => Some(Entry::NoPortLease(*bind)),
            _ => None,
        });
        let entries: Vec<Entry> = entries.collect();
        hosts::catch_up(self, steps)?;
        self.store(&entries)
    }
}

/// Whether all of this was done. It is done to its end, whatever fails, and every failure is told.
fn all(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let failed = results.filter_map(Result::err).reduce(|first, more| first.context(format!("{more:#}")));
    failed.map_or(Ok(()), Err)
}

/// The one result of steps that succeed or fail together.
fn together(steps: &[&Step], result: Result<()>) -> Vec<Result<()>> {
    match result {
        Ok(()) => steps.iter().map(|_| Ok(())).collect(),
        Err(error) => {
            // The cause is told once; the others say that they were in the same boat.
            let mut first = Some(error);
            let others = || Err(anyhow!("it was to be done together with the step that failed"));
            steps.iter().map(|_| first.take().map_or_else(others, Err)).collect()
        }
    }
}
