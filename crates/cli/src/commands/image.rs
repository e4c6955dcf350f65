//! Images: those that machines need, pulled and unpacked where they are missing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result};

use stead_host::home::Home;
use stead_image::catalogue::Catalogue;
use stead_image::registry::{AuthEnvironment, AuthFiles, Settings};
use stead_image::{Client, DebianSettings, Event, Fetch, Origins, Store, Wanted};
use stead_model::image::{Digest, Image, Platform, Reference};
use stead_model::name::MachineId;
use stead_model::project::Project;
use stead_model::resolve::Images;

use crate::args::PullWhen;
use crate::failure::Failure;
use crate::output::note;
use crate::session::{TELL_AFTER, home};

/// The platform of this computer.
pub(crate) fn own_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    Platform { architecture: architecture.to_owned(), variant: None }
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
    let mut images = Images::new();
    if !home.images().exists() {
        return Ok(images);
    }
    let store = Store::open(&home.images())?;
    for (_, reference, platform) in wishes(project) {
        let wanted = platform.clone().unwrap_or_else(own_platform);
        if let Some(image) = store.find(&reference, &wanted)? {
            images.insert((reference, platform), image.digest);
        }
    }
    Ok(images)
}

/// The images of a project: those of the chosen machines are here afterwards, the others may be.
pub(crate) fn needed(
    project: &Project,
    chosen: &BTreeSet<MachineId>,
    when: PullWhen,
) -> Result<Images, Failure> {
    let home = home()?;
    let mut images = those_here(&home, project)?;
    let mut seen = BTreeSet::new();
    for (id, reference, platform) in wishes(project) {
        if chosen.contains(&id) && seen.insert((reference.clone(), platform.clone())) {
            let image = ensure(&home, &reference, platform.as_ref(), when)?;
            images.insert((reference, platform), image.digest);
        }
    }
    Ok(images)
}

/// Makes sure that an image is here, and ready to be run.
pub(crate) fn ensure(
    home: &Home,
    reference: &Reference,
    platform: Option<&Platform>,
    when: PullWhen,
) -> Result<Image, Failure> {
    home.prepare()?;
    let store = Store::open(&home.images())?;
    let platform = platform.cloned().unwrap_or_else(own_platform);
    let here = store.find(reference, &platform)?;
    let image = match (here, when) {
        (Some(image), PullWhen::Missing | PullWhen::Never) => image,
        (None, PullWhen::Never) => {
            let what = format!("the image {reference} for {platform} is not here");
            return Err(Failure::request(&what, "`stead image pull` it, or leave out `--pull never`"));
        }
        (None, PullWhen::Missing) | (_, PullWhen::Always) => pull(&store, reference, &platform)?,
    };
    unpack(&store, &image)?;
    Ok(image)
}

/// Pulls an image, and tells what is being done if that takes a while.
pub(crate) fn pull(store: &Store, reference: &Reference, platform: &Platform) -> Result<Image> {
    let start = Instant::now();
    let told: Mutex<Option<Instant>> = Mutex::new(None);
    let tell = |text: &str| {
        if let Ok(mut told) = told.lock()
            && start.elapsed() > TELL_AFTER
            && told.is_none_or(|at| at.elapsed() > TELL_AFTER)
        {
            *told = Some(Instant::now());
            note(text);
        }
    };
    let wanted = Wanted { name: reference.clone(), platform: platform.clone(), fetch: Fetch::Always };
    let auth = AuthFiles::new(&AuthEnvironment::observe());
    let client = Client::new(Settings { auth, ..Settings::default() });
    let (catalogue, debian) = (Catalogue::default(), DebianSettings::default());
    let origins = Origins { client: &client, catalogue: &catalogue, debian: &debian };
    let pulled = store.obtain(&wanted, origins, &|event| match event {
        Event::Progress { blob, done_bytes, total_bytes } => {
            tell(&format!(
                "{reference}: {} of {} KiB of {}",
                done_bytes >> 10,
                total_bytes >> 10,
                blob.short()
            ));
        }
        Event::Retry { why, after } => note(&format!("{why}; trying again in {} ms", after.as_millis())),
        Event::Passed { from, why } => note(&format!("{reference} is not to be had as {from}: {why}")),
        Event::Building { line } => tell(&format!("{reference}: {line}")),
        Event::Waiting { blob } => tell(&format!("{reference}: another command receives {}", blob.short())),
        Event::Resolved { .. } | Event::Done { .. } | Event::Unpacking { .. } | Event::Unpacked { .. } => {}
    });
    Ok(pulled.with_context(|| format!("cannot pull {reference}"))?.image)
}

/// What stead is called with to unpack an image.
const UNPACK_WORD: &str = "__unpack";

/// Unpacks what of an image is not, by a process that may set owners.
fn unpack(store: &Store, image: &Image) -> Result<()> {
    if store.missing_layers(image).is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let args: [OsString; 3] = [UNPACK_WORD.into(), store.root().into(), image.digest.as_str().into()];
    stead_net::anchor::run_as_root(&program, &args)
        .with_context(|| format!("cannot unpack image {}", image.digest.short()))?;
    Ok(())
}

/// Unpacks an image, as root or as what a user namespace maps to root.
pub(crate) fn unpack_here(root: &Path, digest: &Digest) -> Result<()> {
    let is_real = rustix::process::geteuid().is_root();
    stead_net::anchor::become_root()?;
    let store = Store::open(root)?;
    let image = store.inspect(digest)?.context("the image is not here any more")?.image;
    super::unpacking::unpack(&store, &image, is_real)
}
