//! Images: those that machines need, got and unpacked where they are missing, and the commands about them.

mod carry;
mod change;
mod export;
mod list;
pub(crate) mod progress;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use stead_host::home::Home;
use stead_host::linux::vm::disks;
use stead_image::choose::host_platform;
use stead_image::disk::{DiskStore, Found};
use stead_image::{Before, Fetch, Store, Wanted, parallel};
use stead_model::file::Pull;
use stead_model::image::{Digest, Image, Platform, Reference};
use stead_model::name::{MachineId, Name};
use stead_model::project::Project;
use stead_model::resolve::{Images, Refusal};
use stead_model::vm::{DiskImage, Vm};

use crate::args::{ImageCommand, PullWhen};
use crate::failure::Failure;
use crate::output::Output;
use crate::project::Loaded;
use crate::session::home;
use crate::working::{TELL_AFTER, Working};

pub(super) use carry::{Carried, tell};
pub(crate) use change::{forget_here, in_use};
pub(crate) use export::export_here;
pub(crate) use progress::size;
use progress::{Progress, Tells};
pub(crate) use settings::Sources;

/// Carries out a command about images.
pub(crate) fn run(command: ImageCommand, output: Output) -> Result<(), Failure> {
    match command {
        ImageCommand::Ls { images, quiet } => list::ls(&images, quiet, output),
        ImageCommand::Inspect(args) => list::inspect(&args, output),
        ImageCommand::History(args) => list::history(&args, output),
        ImageCommand::Tag { image, name } => change::tag(&image, &name, output),
        ImageCommand::Rm { images, force } => change::remove(&images, force, output),
        ImageCommand::Prune { all, consent } => change::prune(all, consent.into(), output),
        ImageCommand::Pull(args) => carry::pull(&args, output),
        ImageCommand::Build(args) => super::build::build_one(&args, output),
        ImageCommand::Push(args) => carry::push(&args, output),
        ImageCommand::Import(args) => carry::import(&args, output),
        ImageCommand::Export(args) => export::export(&args),
        ImageCommand::Save(args) => carry::save(&args),
        ImageCommand::Load(args) => carry::load(&args, output),
    }
}

/// What has fewer digits is rather a name.
const ID_MIN_CHARS: usize = 4;

/// The store of this user's home, for a command that puts something there.
pub(super) fn own_store() -> Result<(Home, Store)> {
    let home = home()?;
    home.prepare()?;
    let store = Store::open(&home.images())?;
    Ok((home, store))
}

/// An image that a person means.
struct Meant {
    /// The name by which; none if by its id.
    name: Option<Reference>,
    image: Image,
}

/// The image that a person means: by its name, or by the first digits of its id. One of another platform is meant
/// where there is no other.
fn meant(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Meant, Failure> {
    let reference = text.parse::<Reference>();
    let wanted = platform.cloned().unwrap_or_else(host_platform);
    let found = match &reference {
        Ok(reference) => store.find(reference, &wanted)?,
        Err(_) => None,
    };
    if let (Ok(reference), Some(image)) = (&reference, found) {
        // By its digest an image is found that has another name, or none.
        let name = reference.among(&image.names).cloned();
        return Ok(Meant { name, image });
    }
    let mut others = Vec::new();
    if let (Ok(reference), None) = (&reference, platform) {
        others = store.list()?.into_iter().map(|details| details.image).collect();
        others.retain(|image: &Image| reference.among(&image.names).is_some());
    }
    if others.is_empty() {
        others = store.find_by_id(text)?;
        others.retain(|image| platform.is_none_or(|platform| image.platform == *platform));
    }
    match others.as_slice() {
        [image] => {
            let name = reference.ok().and_then(|reference| reference.among(&image.names).cloned());
            Ok(Meant { name, image: image.clone() })
        }
        [] => {
            let what = format!("there is no image `{text}` here");
            Err(Failure::request(&what, "`stead image ls` lists them, `stead image pull` gets one"))
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|image| image.digest.short()).collect();
            let what = format!("`{text}` could be {}", ids.join(" or "));
            Err(Failure::request(&what, "say more digits of its id"))
        }
    }
}

/// What the machines of a project are made from.
fn wishes(project: &Project) -> impl Iterator<Item = (MachineId, Reference, Option<Platform>)> + '_ {
    project.machines.iter().filter_map(|(name, machine)| {
        let wish = machine.runs.container()?;
        Some((MachineId::new(&project.name, name), wish.image.clone(), wish.platform.clone()))
    })
}

/// The images of a project that are here.
pub(crate) fn those_here(home: &Home, project: &Project) -> Result<Images> {
    let disks = images_of(disks_here(home, project, DiskStore::find)?);
    let mut images = Images { disks, ..Images::default() };
    if !home.images().exists() {
        return Ok(images);
    }
    let store = Store::open(&home.images())?;
    for (_, reference, platform) in wishes(project) {
        let wanted = platform.clone().unwrap_or_else(host_platform);
        if let Some(image) = store.find(&reference, &wanted)? {
            images.named.insert((reference, platform), image.digest);
        }
    }
    Ok(images)
}

/// What the files are that the disks of a project's machines are made from.
fn disks_here(
    home: &Home,
    project: &Project,
    look: impl Fn(&DiskStore, &Path) -> Result<Found>,
) -> Result<BTreeMap<PathBuf, Found>> {
    let store = disks(home);
    let paths: BTreeSet<&PathBuf> =
        project.machines.values().filter_map(|machine| Some(&machine.runs.vm()?.image)).collect();
    paths.into_iter().map(|path| Ok((path.clone(), look(&store, path)?))).collect()
}

/// Those among them that are images.
fn images_of(found: BTreeMap<PathBuf, Found>) -> BTreeMap<PathBuf, DiskImage> {
    let image = |(path, found)| match found {
        Found::Disk(image) => Some((path, image)),
        Found::Nothing | Found::NoDisk(_) => None,
    };
    found.into_iter().filter_map(image).collect()
}

/// Looks at the files that the chosen machines' disks are made from: all have to be there, and be images.
fn need_disks(
    home: &Home,
    loaded: &Loaded,
    chosen: &BTreeSet<MachineId>,
) -> Result<BTreeMap<PathBuf, DiskImage>, Failure> {
    home.prepare()?;
    let _working = Working::on("looking at the images of disks");
    let found = disks_here(home, &loaded.project, DiskStore::learn)?;
    let lacks = disk_lacks(&loaded.project, chosen, &found);
    if lacks.is_empty() { Ok(images_of(found)) } else { Err(super::up::refused(lacks, loaded)) }
}

/// Which of the chosen machines' disks cannot be made from what there is.
fn disk_lacks(
    project: &Project,
    chosen: &BTreeSet<MachineId>,
    found: &BTreeMap<PathBuf, Found>,
) -> Vec<Refusal> {
    const HINT: &str = "`image` is the path of a disk image, raw or qcow2";
    let vms = chosen.iter().filter_map(|id| Some((&id.name, project.machines.get(&id.name)?.runs.vm()?)));
    let lack = |(machine, vm): (&Name, &Vm)| {
        let path = vm.image.display();
        let (why, hint) = match found.get(&vm.image) {
            Some(Found::Disk(_)) => return None,
            Some(Found::NoDisk(why)) => {
                let (why, hint) = why.split_once("; hint: ").unwrap_or((why, HINT));
                (format!("machine `{machine}` cannot be made from {path}: {why}"), hint)
            }
            Some(Found::Nothing) | None => {
                (format!("there is no file {path}, which machine `{machine}` is made from"), HINT)
            }
        };
        Some(Refusal { key: format!("machines.{machine}.image"), why, hint: hint.to_owned() })
    };
    vms.filter_map(lack).collect()
}

/// What the chosen machines are made from or run by that is not here and does not come by itself.
pub(crate) fn lacks(
    home: &Home,
    loaded: &Loaded,
    chosen: &BTreeSet<MachineId>,
    when: Option<PullWhen>,
) -> Result<Vec<Refusal>, Failure> {
    let mut lacks = super::guest::lacks(&loaded.project, chosen);
    lacks.extend(disk_lacks(&loaded.project, chosen, &disks_here(home, &loaded.project, DiskStore::find)?));
    let here = those_here(home, &loaded.project)?.named;
    let asked = asked(loaded, chosen, when);
    let ours = || wishes(&loaded.project).filter(|(id, ..)| chosen.contains(id));
    let built = ours().filter(|(id, ..)| loaded.builds.contains_key(&id.name));
    // Others may be made from it as well.
    let whole = |reference, platform: Option<Platform>| (reference, platform.unwrap_or_else(host_platform));
    let built: BTreeSet<_> = built.map(|(_, reference, platform)| whole(reference, platform)).collect();
    for (id, reference, platform) in ours() {
        let image = (reference, platform);
        if asked.get(&image) == Some(&PullWhen::Never)
            && !here.contains_key(&image)
            && let image = whole(image.0, image.1)
            && !built.contains(&image)
        {
            let key = format!("machines.{}.image", id.name);
            let (why, hint) = absent(&image.0, &image.1);
            lacks.push(Refusal { key, why, hint: hint.to_owned() });
        }
    }
    Ok(lacks)
}

/// Whether anything that the chosen machines are made from or run by has yet to come, from wherever.
pub(crate) fn awaits(
    home: &Home,
    loaded: &Loaded,
    chosen: &BTreeSet<MachineId>,
    when: Option<PullWhen>,
) -> Result<bool> {
    let here = those_here(home, &loaded.project)?.named;
    let is_pulled = asked(loaded, chosen, when).into_iter().any(|(image, when)| match when {
        PullWhen::Always => true,
        PullWhen::Missing => !here.contains_key(&image),
        PullWhen::Never => false,
    });
    let is_built = chosen.iter().any(|id| loaded.builds.contains_key(&id.name));
    Ok(is_pulled || is_built || super::guest::awaits_kernel(home, &loaded.project, chosen)?)
}

/// What is said of an image that is not pulled.
fn absent(reference: &Reference, platform: &Platform) -> (String, &'static str) {
    let what = format!("the image {reference} for {platform} is not here");
    (what, "`stead image pull` it, or let it be pulled")
}

/// When each image of the chosen machines is pulled. Of machines with one image the most eager one counts.
fn asked(
    loaded: &Loaded,
    chosen: &BTreeSet<MachineId>,
    when: Option<PullWhen>,
) -> BTreeMap<(Reference, Option<Platform>), PullWhen> {
    let mut asked = BTreeMap::new();
    for (id, reference, platform) in wishes(&loaded.project).filter(|(id, ..)| chosen.contains(id)) {
        let when = match loaded.builds.get(&id.name) {
            // What is built here is nowhere else.
            Some(_) => PullWhen::Never,
            None => when.unwrap_or_else(|| by_file(loaded.pull.get(&id.name))),
        };
        let asked = asked.entry((reference, platform)).or_insert(when);
        *asked = when.max(*asked);
    }
    asked
}

/// The images of a project: those of the chosen machines are here afterwards, the others may be. When they are pulled is
/// said by the command, else for each machine by the file.
pub(crate) fn needed(
    loaded: &Loaded,
    chosen: &BTreeSet<MachineId>,
    when: Option<PullWhen>,
) -> Result<Images, Failure> {
    let home = home()?;
    let is_disk = |id: &MachineId| {
        loaded.project.machines.get(&id.name).is_some_and(|machine| machine.runs.vm().is_some())
    };
    let disks = if chosen.iter().any(is_disk) { need_disks(&home, loaded, chosen)? } else { BTreeMap::new() };
    super::guest::ensure(&home, &loaded.project, chosen)?;
    let mut images = those_here(&home, &loaded.project)?;
    images.disks.extend(disks);
    let asked: Vec<_> = asked(loaded, chosen, when).into_iter().collect();
    let progress = Progress::of(format!("getting {} images", asked.len()));
    let telling = if asked.len() > 1 { Telling::Among(&progress) } else { Telling::Alone(Tells::HowFar) };
    let got = Mutex::new(BTreeMap::new());
    parallel::each(asked, PULLED_TOGETHER, |(image, when)| {
        let (reference, platform) = &image;
        let ensured = ensure_told(&home, reference, platform.as_ref(), when, telling);
        if let (Err(_), Telling::Among(progress)) = (&ensured, telling) {
            // Why is told in the end.
            progress.say(&format!("{reference} is not to be had; what is being got is waited for"));
        }
        let digest = ensured?.digest;
        got.lock().unwrap_or_else(PoisonError::into_inner).insert(image, digest);
        Ok::<_, Failure>(())
    })?;
    images.named.extend(got.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(images)
}

/// How many images are got at the same time: of each one several layers are.
const PULLED_TOGETHER: usize = 3;

/// Where it is told how far an image is.
#[derive(Clone, Copy)]
enum Telling<'a> {
    /// In words about it alone.
    Alone(Tells),
    /// In those about several, with which it is got.
    Among(&'a Progress),
}

fn by_file(pull: Option<&Pull>) -> PullWhen {
    match pull {
        Some(Pull::Always) => PullWhen::Always,
        Some(Pull::Never | Pull::Build) => PullWhen::Never,
        Some(Pull::Missing) | None => PullWhen::Missing,
    }
}

/// Whether an image is here, unpacked or not.
pub(crate) fn is_here(home: &Home, reference: &Reference, platform: Option<&Platform>) -> Result<bool> {
    let platform = platform.cloned().unwrap_or_else(host_platform);
    let root = home.images();
    Ok(root.exists() && Store::open(&root)?.find(reference, &platform)?.is_some())
}

/// The image that the first digits of an id mean, where no image is called so: by its digest, which no name changes.
pub(crate) fn by_id(
    home: &Home,
    text: &str,
    platform: Option<&Platform>,
) -> Result<Option<Reference>, Failure> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = hex.len() >= ID_MIN_CHARS && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let root = home.images();
    if !is_id || !root.exists() {
        return Ok(None);
    }
    let store = Store::open(&root)?;
    if store.find_by_id(hex)?.is_empty() {
        return Ok(None);
    }
    let Meant { name: None, image } = meant(&store, text, platform)? else { return Ok(None) };
    let named = image.names.first();
    let repository = named.map_or_else(|| image.digest.short().to_owned(), |name| name.repository.clone());
    let registry = named.and_then(|name| name.registry.clone());
    Ok(Some(Reference { registry, repository, tag: None, digest: Some(image.digest) }))
}

/// Makes sure that an image is here, and ready to be run.
pub(crate) fn ensure(
    home: &Home,
    reference: &Reference,
    platform: Option<&Platform>,
    when: PullWhen,
) -> Result<Image, Failure> {
    ensure_told(home, reference, platform, when, Telling::Alone(Tells::HowFar))
}

fn ensure_told(
    home: &Home,
    reference: &Reference,
    platform: Option<&Platform>,
    when: PullWhen,
    telling: Telling<'_>,
) -> Result<Image, Failure> {
    home.prepare()?;
    let store = Store::open(&home.images())?;
    let platform = platform.cloned().unwrap_or_else(host_platform);
    let here = store.find(reference, &platform)?;
    let before = store.before()?;
    let image = match (here, when) {
        (Some(image), PullWhen::Missing | PullWhen::Never) => {
            unpack_one(&store, &image, telling)?;
            return Ok(image);
        }
        (None, PullWhen::Never) => {
            let (what, hint) = absent(reference, &platform);
            return Err(Failure::request(&what, hint));
        }
        (None, PullWhen::Missing) | (_, PullWhen::Always) => pull(&store, reference, &platform, telling)?,
    };
    unpack_told(&store, std::slice::from_ref(&image), &before, telling)?;
    Ok(image)
}

/// Gets an image from where it is to be had, and tells what is being done if that takes a while.
fn pull(store: &Store, reference: &Reference, platform: &Platform, telling: Telling<'_>) -> Result<Image> {
    let wanted = Wanted { name: reference.clone(), platform: platform.clone(), fetch: Fetch::Always };
    let sources = Sources::load()?;
    let own;
    let progress = match telling {
        Telling::Among(progress) => progress,
        Telling::Alone(tells) => {
            own = Progress::told(format!("pulling {reference}"), tells);
            &own
        }
    };
    let pulled = store.obtain(&wanted, sources.origins(), &|event| progress.hear(event));
    Ok(pulled.with_context(|| format!("cannot pull {reference}"))?.image)
}

/// What stead is called with to unpack an image.
const UNPACK_WORD: &str = "__unpack";

/// Unpacks what of an image is not, by a process that may set owners.
pub(super) fn unpack(store: &Store, image: &Image) -> Result<()> {
    unpack_one(store, image, Telling::Alone(Tells::HowFar))
}

fn unpack_one(store: &Store, image: &Image, telling: Telling<'_>) -> Result<()> {
    let missing = store.missing_layers(image).len();
    if missing == 0 {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let args: [OsString; 3] = [UNPACK_WORD.into(), store.root().into(), image.digest.as_str().into()];
    let name = image.names.first().map_or_else(|| image.digest.short().to_owned(), ToString::to_string);
    let (own, what);
    let (progress, what) = match telling {
        Telling::Among(progress) => {
            what = format!("unpacking {name}, ");
            (progress, what.as_str())
        }
        Telling::Alone(tells) => {
            own = Progress::told(format!("unpacking {name}"), tells);
            (&own, "")
        }
    };
    let unpacked = std::thread::scope(|scope| {
        // Dropped when all is unpacked, which wakes the thread.
        let (_done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            while is_done.recv_timeout(TELL_AFTER) == Err(RecvTimeoutError::Timeout) {
                let left = store.missing_layers(image).len();
                progress.tell(&format!("{what}{} of {missing} layers", missing.saturating_sub(left)));
            }
        });
        stead_net::anchor::run_as_root(&program, &args)
    });
    unpacked.with_context(|| format!("cannot unpack image {}", image.digest.short()))?;
    Ok(())
}

/// The same of images that came since then. Of those that cannot be unpacked it is as if they had not come.
pub(super) fn unpack_new(store: &Store, images: &[Image], before: &Before) -> Result<()> {
    unpack_told(store, images, before, Telling::Alone(Tells::HowFar))
}

fn unpack_told(store: &Store, images: &[Image], before: &Before, telling: Telling<'_>) -> Result<()> {
    // One that is broken does not keep those behind it from being unpacked.
    let results: Vec<Result<()>> = images.iter().map(|image| unpack_one(store, image, telling)).collect();
    let unpacked: Result<()> = results.into_iter().collect();
    if unpacked.is_err() {
        // One that is whole is of use, and somebody may have made a machine of it already.
        let broken = images.iter().filter(|image| !store.missing_layers(image).is_empty());
        withdraw(store, &broken.map(|image| image.digest.clone()).collect(), before);
    }
    unpacked
}

/// Takes away what came since then and is of no use: these images, and contents that no image has.
fn withdraw(store: &Store, images: &BTreeSet<Digest>, before: &Before) {
    if let Err(error) = change::withdraw(store, images, before) {
        // What failed first is what matters.
        tracing::warn!("what came is not taken away again: {error:#}");
    }
}

/// Unpacks an image, as root or as what a user namespace maps to root.
pub(crate) fn unpack_here(root: &Path, digest: &Digest) -> Result<()> {
    let is_real = rustix::process::geteuid().is_root();
    stead_net::anchor::become_root()?;
    let store = Store::open(root)?;
    let image = store.inspect(digest)?.context("the image is not here any more")?.image;
    super::unpacking::unpack(&store, &image, is_real)
}
