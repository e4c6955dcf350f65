//! `plan` and `up`.

mod meant;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use stead_host::apply::Host;
use stead_host::home::Home;
use stead_host::linux::{LinuxHost, store_texts};
use stead_model::lock::Lock;
use stead_model::name::{MachineId, Name};
use stead_model::observed::{MachineState, Observed};
use stead_model::plan::{Plan, Power, UnwantedVolumes, Wanted, plan as make_plan};
use stead_model::project::{Bind, Project};
use stead_model::resolve::{Context, Images, Refusal, resolve};
use stead_net::forward::is_free;

use self::meant::Meant;
use super::build::BuildWhen;
use super::fit::{made_by, new_ones, person, unfit};
use super::here::project_to_take_down;
use super::steps;
use crate::args::{Consent, Format, Global, PlanArgs, UpArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::project::{self, Loaded};
use crate::session::{Session, agree, look, quiet};

/// Shows what would change, and why.
pub(crate) fn plan(global: &Global, args: &PlanArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let loaded = match args.down {
        true => None,
        false => Some(project::load_for(global, args.relock)?.with_something()?),
    };
    let plans = match planned(&mut host, global, args, loaded.as_ref()) {
        Ok(plans) => plans,
        // What another command is just changing is neither as it was nor as it will be.
        Err(failure) => {
            let Ok(_quiet) = quiet(host.home()) else { return Err(failure) };
            planned(&mut host, global, args, loaded.as_ref())?
        }
    };
    steps::print(&plans, loaded.as_ref(), output)
}

fn planned(
    host: &mut LinuxHost,
    global: &Global,
    args: &PlanArgs,
    loaded: Option<&Loaded>,
) -> Result<Vec<Plan>, Failure> {
    let seen = Host::observe(host)?;
    let Some(loaded) = loaded else {
        let name = project_to_take_down(global, &seen)?;
        let wanted = Wanted::nothing(&name, &seen, UnwantedVolumes::Keep);
        super::network::refuse_lent(&wanted, &seen)?;
        return Ok(vec![make_plan(&wanted, &seen)]);
    };
    let all = with_dependencies(&loaded.project, &[])?;
    let lacks = super::image::lacks(host.home(), loaded, &all, None)?;
    let how = Bring {
        whose: Whose::All,
        anew: Anew::default(),
        relock: args.relock,
        images: super::image::those_here(host.home(), &loaded.project)?,
        power: Power::On,
        consent: Consent { yes: false },
    };
    let decided = decide(host.home(), loaded, &how, &seen)?;
    let Decided { all, before, plan, .. } = or_refused(decided, lacks, loaded)?;
    tell_replaced(loaded, &all, args.relock);
    Ok(before.into_iter().chain([plan]).collect())
}

/// The project with every choice made. Machines of profiles that were not asked for stay as they are, and so do one-offs.
fn resolved(loaded: &Loaded, seen: &Observed, relock: bool, images: &Images) -> Result<Wanted, Failure> {
    choices(loaded, seen, relock, images)?.map_err(|refusals| refused(refusals, loaded))
}

/// The same, or why choices cannot be made.
fn choices(
    loaded: &Loaded,
    seen: &Observed,
    relock: bool,
    images: &Images,
) -> Result<Result<Wanted, Vec<Refusal>>, Failure> {
    let none = Lock::default();
    let lock = if relock { &none } else { &loaded.lock };
    let user = rustix::process::getuid().as_raw();
    let mut project = loaded.project.clone();
    let resting = loaded.resting();
    let mut one_offs = project.one_offs(seen);
    one_offs.retain(|name, _| !resting.contains(name));
    let stay: Vec<Name> = resting.iter().chain(one_offs.keys()).cloned().collect();
    project.machines.extend(one_offs);
    let person = person(&project)?;
    let files = &loaded.recorded;
    let ids = stay.iter().map(|name| MachineId::new(&project.name, name)).collect();
    let mut taken = BTreeSet::new();
    loop {
        let context =
            Context { files, lock, seen, user, person: &person, images, resting: &resting, taken: &taken };
        let wanted = resolve(&project, context).and_then(|wanted| wanted.beside(&ids, seen));
        // Whether somebody has a port that was chosen is seen by trying: then it is another.
        let new = wanted.iter().flat_map(|wanted| wanted.new_ports(seen));
        let others: Vec<Bind> = new.filter(|bind| !is_free(*bind)).collect();
        if others.is_empty() {
            return Ok(wanted);
        }
        taken.extend(others);
    }
}

/// Tells which pins of the lock are replaced though nobody asked for that.
fn tell_replaced(loaded: &Loaded, wanted: &Wanted, relock: bool) {
    if !relock {
        loaded.lock.replaced(&loaded.project, wanted).iter().for_each(|one| note(&one.to_string()));
    }
}

/// Refusals, as problems of the file: what it asks for cannot be had here.
pub(super) fn refused(refusals: Vec<Refusal>, loaded: &Loaded) -> Failure {
    loaded.refused(refusals)
}

/// What a project on record is to be by its own file, whatever name that says if somebody `called` it so, with the images that its machines were made from; and those of these
/// machines that are one-offs.
pub(super) fn wanted_of(
    session: &mut Session,
    (project, called): (&Name, Option<&Name>),
    machines: &BTreeSet<MachineId>,
) -> Result<(Loaded, Wanted), Failure> {
    let seen = session.observe()?;
    let files = seen.projects.get(project).ok_or_else(|| {
        Failure::request(&format!("there is no project `{project}`"), "`stead ls` lists the projects")
    })?;
    let mut loaded = project::load_recorded(files, called.filter(|called| *called == project))?;
    if loaded.project.name != *project {
        let what = format!(
            "the file in {} is that of project `{}` by now",
            files.directory.display(),
            loaded.project.name
        );
        let hint =
            format!("`stead up` there first; or say `--project-name {project}`, if `up` was told that");
        return Err(Failure::request(&what, &hint));
    }
    let mut one_offs = loaded.project.one_offs(&seen);
    one_offs.retain(|name, machine| {
        let id = MachineId::new(project, name);
        let made = seen.machines.get(&id).and_then(|state| state.one_off());
        // One that is on a network that the file has no more stays as it is.
        machines.contains(&id) && made.is_some_and(|made| made.nics.len() == machine.nics.len())
    });
    let names: BTreeSet<Name> = one_offs.keys().cloned().collect();
    loaded.project.machines.extend(one_offs);
    let chosen: BTreeSet<Name> = machines.iter().map(|id| id.name.clone()).collect();
    names.iter().for_each(|name| loaded.project.yield_ports(name, &chosen));
    let images = super::image::those_here(session.host.home(), &loaded.project)?;
    let wanted = resolved(&loaded, &seen, false, &images)?;
    Ok((loaded, wanted))
}

/// Makes the project what its file says.
pub(crate) fn up(global: &Global, args: &UpArgs, output: Output) -> Result<(), Failure> {
    let loaded = meant::load(global, args)?.with_something()?;
    let Meant { chosen, whose, anew } = Meant::of(&loaded, args)?;
    if args.cold {
        super::cold::refuse_without_microvm_of(&chosen, &loaded.project)?;
    }
    let when = match (args.build, args.no_build) {
        (true, _) => BuildWhen::Always,
        (false, true) => BuildWhen::Never,
        (false, false) => BuildWhen::Missing,
    };
    let home = crate::session::home()?;
    let images = super::image::those_here(&home, &loaded.project)?;
    let mut how = Bring { whose, anew, relock: args.relock, images, power: Power::On, consent: args.consent };
    let lacks = super::image::lacks(&home, &loaded, &chosen, args.pull)?;
    if !lacks.is_empty() || super::image::awaits(&home, &loaded, &chosen, args.pull)? {
        refuse_early(&home, &loaded, &how, &lacks)?;
    }
    super::build::ensure(&loaded, &chosen, when)?;
    how.images = super::image::needed(&loaded, &chosen, args.pull)?;
    // Before the home's, which whoever waits for a machine gives away.
    let project_lock = stead_host::lock::lock_project(&loaded.directory, &mut |holder| {
        note(&format!("waiting for {holder}, which has this project"));
    })?;
    let mut session = Session::open()?;
    if args.cold {
        session.host.start_cold();
    }
    let plan = bring_up(&mut session, &loaded, &how, output)?;
    drop(project_lock);
    let is_one_document = args.timings && output.format == Format::Json;
    if !is_one_document {
        steps::finished(std::slice::from_ref(&plan), Some(&loaded), output)?;
    }
    if args.wait.is_none() && !args.timings {
        return Ok(());
    }
    // Others need not wait for that.
    drop(session);
    let is_ours = |id: &MachineId| {
        let machine = loaded.project.machines.get(&id.name);
        machine.is_some_and(|machine| machine.runs.is_ours())
    };
    let ids: Vec<MachineId> = chosen.into_iter().filter(is_ours).collect();
    if let Some(stage) = args.wait {
        super::wait::wait(&home, &ids, stage, args.wait_timeout.map(Duration::from_secs))?;
    }
    match (is_one_document, args.timings) {
        (true, _) => {
            let timings = super::timings::of(&home, &ids)?;
            let steps = steps::lines(std::slice::from_ref(&plan), Some(&loaded));
            output.data(&Timed { steps, timings }, String::new).map_err(Failure::from)
        }
        (false, true) => super::timings::tell(&home, &ids, output),
        (false, false) => Ok(()),
    }
}

/// What `up --timings` has to say, for programs.
#[derive(Serialize)]
struct Timed<'a> {
    steps: Vec<steps::Line<'a>>,
    timings: Vec<super::timings::Timing>,
}

/// The machines of a project that these patterns name; all if there are no patterns.
pub(super) fn named(project: &Project, patterns: &[String]) -> Result<BTreeSet<MachineId>, Failure> {
    let ids: Vec<MachineId> =
        project.machines.keys().map(|name| MachineId::new(&project.name, name)).collect();
    if patterns.is_empty() {
        return Ok(ids.into_iter().collect());
    }
    let mut named = BTreeSet::new();
    for pattern in patterns {
        let meant = super::ps::among(pattern, ids.iter());
        if meant.is_empty() {
            let what = format!("the project has no machine `{pattern}`");
            return Err(Failure::request(&what, "`stead plan` shows what it has"));
        }
        named.extend(meant.into_iter().cloned());
    }
    Ok(named)
}

/// The same, and those that they depend on.
pub(super) fn with_dependencies(
    project: &Project,
    patterns: &[String],
) -> Result<BTreeSet<MachineId>, Failure> {
    let mut chosen = named(project, patterns)?;
    loop {
        let needed = chosen.iter().filter_map(|id| project.machines.get(&id.name));
        let needed = needed.flat_map(|machine| machine.depends_on.keys());
        let all: BTreeSet<MachineId> =
            needed.map(|name| MachineId::new(&project.name, name)).chain(chosen.iter().cloned()).collect();
        if all.len() == chosen.len() {
            return Ok(chosen);
        }
        chosen = all;
    }
}

/// How a project is brought up.
#[derive(Clone)]
pub(super) struct Bring {
    /// Which machines become what the file says.
    pub(super) whose: Whose,
    /// What is made anew though nothing of it changed.
    pub(super) anew: Anew,
    /// Whether addresses are chosen anew where the lock has them.
    pub(super) relock: bool,
    /// The images of its machines.
    pub(super) images: Images,
    /// Whether the chosen ones are to run.
    pub(super) power: Power,
    /// Whether what is lost may be lost.
    pub(super) consent: Consent,
}

/// What is made anew though nothing of it changed.
#[derive(Clone, Default)]
pub(super) struct Anew {
    /// These machines.
    pub(super) machines: BTreeSet<MachineId>,
    /// Whether volumes without a name are, where machines are.
    pub(super) own_volumes: bool,
}

impl Anew {
    fn of(&self, wanted: Wanted) -> Wanted {
        let wanted = wanted.with_anew(&self.machines);
        if self.own_volumes { wanted.with_own_volumes_anew() } else { wanted }
    }
}

/// Which machines of a project become what its file says; the others stay as they are.
#[derive(Clone)]
pub(super) enum Whose {
    /// All of them.
    All,
    /// These.
    Only(BTreeSet<MachineId>),
    /// These, however far those are that they depend on.
    Alone(BTreeSet<MachineId>),
    /// Those that we do not run. Of the others only their nics are as the file says.
    Nics,
}

impl Whose {
    /// Whether a machine of this project is to become what its file says.
    fn is_about(&self, project: &Name, id: &MachineId) -> bool {
        match self {
            Self::All => id.project == *project,
            Self::Only(chosen) | Self::Alone(chosen) => chosen.contains(id),
            Self::Nics => false,
        }
    }
}

/// What is to be done about a project.
pub(super) struct Decided {
    /// All that its file asks for.
    all: Wanted,
    /// What is to be now.
    wanted: Wanted,
    /// What comes first: networks that commands made and that went with the engine.
    before: Option<Plan>,
    pub(super) plan: Plan,
}

/// Decides on it, or tells all of why it cannot be had here. Nothing is changed.
pub(super) fn decide(
    home: &Home,
    loaded: &Loaded,
    how: &Bring,
    seen: &Observed,
) -> Result<Result<Decided, Vec<Refusal>>, Failure> {
    let before = super::network::again(home, &loaded.project, seen)?;
    let seen = &before.iter().fold(seen.clone(), |seen, before| before.promised(&seen));
    let is_meant = |id: &MachineId| how.whose.is_about(&loaded.project.name, id);
    let missing = |plan: &Plan| super::lacking::of_others(&loaded.project, is_meant, plan, seen);
    let all = match choices(loaded, seen, how.relock, &how.images)? {
        Ok(all) => all,
        Err(mut refusals) => {
            refusals.extend(missing(&Plan::default()));
            // Without choices there is no plan: what is new would be made.
            refusals.extend(unfit(home, &loaded.texts, new_ones(&loaded.project, &how.whose, seen))?);
            return Ok(Err(refusals));
        }
    };
    let wanted = match &how.whose {
        Whose::Only(chosen) => all.clone().with_power(chosen, how.power).only(chosen, seen),
        Whose::Alone(chosen) => {
            all.clone().with_power(chosen, how.power).waiting_among(chosen).only(chosen, seen)
        }
        Whose::Nics => Ok(all.clone().with_ours_as_they_are(seen)),
        Whose::All => Ok(all.clone()),
    };
    let wanted = match wanted {
        Ok(wanted) => how.anew.of(wanted),
        Err(refusals) => return Ok(Err(refusals)),
    };
    let mut refusals = match &how.whose {
        Whose::Only(chosen) | Whose::Alone(chosen) => {
            wanted.taken_ports(&loaded.project, |id| chosen.contains(id))
        }
        Whose::All => {
            wanted.taken_ports(&loaded.project, |id| loaded.project.machines.contains_key(&id.name))
        }
        Whose::Nics => Vec::new(),
    };
    let plan = make_plan(&wanted, seen);
    refusals.extend(missing(&plan));
    refusals.extend(wanted.in_others_way(seen));
    refusals.extend(unfit(home, &loaded.texts, made_by(&plan))?);
    refusals.extend(super::lacking::never_well(home, &loaded.project, &plan)?);
    refusals.extend(super::lacking::unlimitable(home, &plan)?);
    Ok(if refusals.is_empty() { Ok(Decided { all, wanted, before, plan }) } else { Err(refusals) })
}

/// Refuses what cannot be had here, and changes nothing.
pub(super) fn check(session: &mut Session, loaded: &Loaded, how: &Bring) -> Result<(), Failure> {
    let seen = session.observe()?;
    or_refused(decide(session.host.home(), loaded, how, &seen)?, Vec::new(), loaded).map(drop)
}

/// What was decided; or whatever is against it, and what it lacks, told together.
pub(super) fn or_refused(
    decided: Result<Decided, Vec<Refusal>>,
    lacks: Vec<Refusal>,
    loaded: &Loaded,
) -> Result<Decided, Failure> {
    match decided {
        Ok(decided) if lacks.is_empty() => Ok(decided),
        Ok(_) => Err(refused(lacks, loaded)),
        Err(refusals) => Err(refused(refusals.into_iter().chain(lacks).collect(), loaded)),
    }
}

/// Tells what is against a project, and what it lacks, before anything is got for it: all that can be told without the
/// images that are not here.
fn refuse_early(home: &Home, loaded: &Loaded, how: &Bring, lacks: &[Refusal]) -> Result<(), Failure> {
    let try_it = || {
        let seen = look()?.observe()?;
        let mut how = how.clone();
        // What comes may be what those that stand are made from: nothing follows from its not being here.
        for made in seen.machines.values().filter_map(MachineState::container) {
            let name = (made.wish.image.clone(), made.wish.platform.clone());
            how.images.named.extend(
                made.image
                    .clone()
                    .filter(|_| !how.images.named.contains_key(&name))
                    .map(|image| (name, image)),
            );
        }
        or_refused(decide(home, loaded, &how, &seen)?, lacks.to_vec(), loaded).map(drop)
    };
    match try_it() {
        Ok(()) => Ok(()),
        // What another command is just changing may be in the way no more when it is done.
        Err(failure) => {
            let Ok(Some(_quiet)) = quiet(home) else { return Err(failure) };
            try_it()
        }
    }
}

/// Homes that start together choose alike; after each attempt one more of them has what it wants.
const CLAIM_ATTEMPTS: u32 = 5;

/// Whether a plan failed for nothing but ranges that another home took since it was made.
fn is_lost_claim(failure: &Failure) -> bool {
    let Failure::Steps(failures) = failure else { return false };
    failures.iter().all(|(_, error)| error.is::<stead_host::linux::ClaimLost>())
}

/// Makes a project what it is to be, in a session that has begun. What was done for that.
pub(super) fn bring_up(
    session: &mut Session,
    loaded: &Loaded,
    how: &Bring,
    output: Output,
) -> Result<Plan, Failure> {
    let mut attempts = 1..=CLAIM_ATTEMPTS;
    let (wanted, plan) = loop {
        let seen = session.observe()?;
        let decided = decide(session.host.home(), loaded, how, &seen)?;
        let Decided { all, wanted, before, plan } = or_refused(decided, Vec::new(), loaded)?;
        if let Some(before) = before.filter(|_| attempts.next().is_some()) {
            session.apply(&before, how.consent, output)?;
            continue;
        }
        tell_replaced(loaded, &all, how.relock);
        let locked = Lock::new(&all).keeping(&loaded.lock, &loaded.resting());
        store_texts(session.host.home(), &loaded.texts)?;
        // First, so that a command that was cut short is taken up with the same choices.
        project::store_lock(loaded, &locked)?;
        attempts.next();
        agree(&plan, how.consent)?;
        if how.anew.own_volumes {
            // What an `up` that was cut off left for those that are yet to be made.
            // Not what rests waits for.
            let resting = loaded.resting();
            session.host.forget_aside(|id| {
                how.whose.is_about(&loaded.project.name, id) && !resting.contains(&id.name)
            })?;
        }
        match session.apply(&plan, Consent { yes: true }, output) {
            Ok(()) => break (wanted, plan),
            Err(failure) if is_lost_claim(&failure) && !attempts.is_empty() => {
                note("another home of stead took an address range first: choosing another");
            }
            Err(failure) => return Err(failure),
        }
    };
    let reaches_out = wanted.networks.values().any(|n| n.reach == stead_model::project::Reach::Nat);
    if output.tells && reaches_out && wanted.uplink.is_none() {
        note("this computer has no way out just now: run this again when it has, for `reach: nat`");
    }
    if matches!(how.whose, Whose::All) {
        // What waits still waits for machines that the file has no more.
        let (project, resting) = (&loaded.project, loaded.resting());
        let is_known = |name: &Name| resting.contains(name) || project.machines.contains_key(name);
        let is_left = |id: &MachineId| id.project == project.name && !is_known(&id.name);
        if let Err(error) = session.host.forget_aside(is_left) {
            tracing::warn!("what was set aside is where it was: {error:#}");
        }
    }
    Ok(plan)
}
