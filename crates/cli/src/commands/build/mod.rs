//! `build` and `image build`: images made by the instructions of a Dockerfile. BuildKit or buildah does it, whichever is
//! here; we take what comes out into the store. No instruction is read by us.

mod bases;
mod cache;
mod claims;
mod program;
mod scratch;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::fs::statfs;

use stead_host::home::Home;
use stead_image::choose::host_platform;
use stead_image::{Load, Store};
use stead_model::file::{Build, Dockerfile, Pull};
use stead_model::image::{Image, Platform, Reference};
use stead_model::name::MachineId;

pub(super) use self::cache::prune;
use self::program::{
    Builder, Daemon, Here, Job, Storage, buildah_build, buildah_call, buildah_images, buildah_push,
    buildah_take, buildah_uncall, buildctl, is_called, registries,
};
use self::scratch::Scratch;
pub(super) use self::start::{Mounts, detached, words_before};
use self::start::{Start, words};
use super::image::{Carried, Sources, own_store, tell, unpack_new};
use super::up;
use crate::args::{Global, ImageBuildArgs, ProjectBuildArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::project::{self, Loaded};

/// What is to be built, and how it is called then.
struct Order<'a> {
    build: &'a Build,
    platform: Option<&'a Platform>,
    name: Option<&'a Reference>,
    /// What is in those secrets that have no file of their own, by where one would be.
    texts: &'a BTreeMap<PathBuf, String>,
}

/// `image build`.
pub(super) fn build_one(args: &ImageBuildArgs, output: Output) -> Result<(), Failure> {
    let build = wanted(args)?;
    let (name, more) =
        args.tag.split_first().map_or((None, [].as_slice()), |(name, more)| (Some(name), more));
    let build = Build { tags: more.to_vec(), ..build };
    let texts = BTreeMap::new();
    let order = Order { build: &build, platform: args.platform.platform.as_ref(), name, texts: &texts };
    let image = carry_out(&order, !args.quiet)?;
    let names: BTreeSet<Reference> = args.tag.iter().cloned().collect();
    tell(&[Carried { id: image.digest, names, platform: image.platform }], output)
}

/// What the arguments ask for.
fn wanted(args: &ImageBuildArgs) -> Result<Build, Failure> {
    let absolute = |path: &Path| std::path::absolute(path).context("cannot make a path absolute");
    let context = absolute(&args.context)?;
    // As Docker has it: a path as the shell completes it, from here.
    let dockerfile = args.dockerfile.as_deref().map(absolute).transpose()?;
    let mut secrets = BTreeMap::new();
    for text in &args.secret {
        let wrong = || {
            let what = format!("`--secret`: `{text}` names no secret and its file");
            Failure::request(&what, "write `id=password,src=./password.txt`")
        };
        let mut found = (None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("id", id)) => found.0 = Some(id.to_owned()),
                Some(("src" | "source", path)) => found.1 = Some(absolute(Path::new(path))?),
                Some(("type", "file")) => {}
                Some(_) | None => return Err(wrong()),
            }
        }
        let (Some(id), Some(path)) = found else { return Err(wrong()) };
        secrets.insert(id, path);
    }
    Ok(Build {
        dockerfile: Dockerfile::File(dockerfile.unwrap_or_else(|| context.join("Dockerfile"))),
        context,
        args: pairs(&args.build_arg, "--build-arg", |name| std::env::var(name).ok())?,
        target: args.target.clone(),
        labels: pairs(&args.label, "--label", |_| Some(String::new()))?,
        tags: Vec::new(),
        secrets,
        no_cache: args.no_cache,
        pull: args.pull,
    })
}

/// `NAME=value`; or `NAME`, with the value that `bare` knows.
fn pairs(
    texts: &[String],
    option: &str,
    bare: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), bare(text)),
        };
        if name.is_empty() {
            return Err(Failure::request(&format!("`{option}`: `{text}` has no name"), "write `NAME=value`"));
        }
        pairs.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(pairs)
}

/// `build`: the images of a project.
pub(super) fn build(global: &Global, args: &ProjectBuildArgs, output: Output) -> Result<(), Failure> {
    let loaded = project::load_named(global, &args.machines, false)?;
    let chosen = up::named(&loaded.project, &args.machines)?;
    let more = pairs(&args.build_arg, "--build-arg", |name| std::env::var(name).ok())?;
    let mut built = Vec::new();
    for (name, platform, build) in orders(&loaded, &chosen) {
        let mut build = build.clone();
        build.args.extend(more.clone());
        build.no_cache |= args.no_cache;
        build.pull |= args.pull;
        let order = Order { build: &build, platform, name: Some(name), texts: &loaded.texts };
        let image = carry_out(&order, !args.quiet)?;
        let names = BTreeSet::from([name.clone()]);
        built.push(Carried { id: image.digest, names, platform: image.platform });
    }
    if built.is_empty() && output.format == crate::args::Format::Text {
        note("no machine that was asked for has a `build`");
    }
    tell(&built, output)
}

/// When images of a project are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuildWhen {
    /// What is not here, and what the file says is always built.
    Missing,
    /// Whether they are here or not.
    Always,
    /// Not at all.
    Never,
}

/// Sees to it that the images of a project that are built are here.
pub(super) fn ensure(loaded: &Loaded, chosen: &BTreeSet<MachineId>, when: BuildWhen) -> Result<(), Failure> {
    for (name, platform, build) in orders(loaded, chosen) {
        let (_, store) = own_store()?;
        let platform_here = platform.cloned().unwrap_or_else(host_platform);
        let is_here = store.find(name, &platform_here)?.is_some();
        let is_always = loaded.pull.iter().any(|(machine, pull)| {
            *pull == Pull::Build && chosen.contains(&MachineId::new(&loaded.project.name, machine)) && {
                let machine = loaded.project.machines.get(machine);
                machine.and_then(|machine| machine.runs.container()).is_some_and(|c| c.image == *name)
            }
        });
        match when {
            BuildWhen::Always => {}
            BuildWhen::Missing if is_always || !is_here => {}
            BuildWhen::Missing => continue,
            BuildWhen::Never if is_here => continue,
            BuildWhen::Never => {
                let what = format!("the image {name} is not here");
                return Err(Failure::request(&what, "`stead build`, or leave out `--no-build`"));
            }
        }
        carry_out(&Order { build, platform, name: Some(name), texts: &loaded.texts }, true)?;
    }
    Ok(())
}

/// The images of these machines that are built, each once.
fn orders<'a>(
    loaded: &'a Loaded,
    chosen: &BTreeSet<MachineId>,
) -> Vec<(&'a Reference, Option<&'a Platform>, &'a Build)> {
    let mut known = BTreeSet::new();
    let orders = loaded.builds.iter().filter_map(|(machine, build)| {
        let id = MachineId::new(&loaded.project.name, machine);
        let container =
            loaded.project.machines.get(machine).filter(|_| chosen.contains(&id))?.runs.container()?;
        known.insert(&container.image).then_some((&container.image, container.platform.as_ref(), build))
    });
    orders.collect()
}

/// Builds an image, and takes it into the store, ready to be run.
fn carry_out(order: &Order<'_>, tells: bool) -> Result<Image, Failure> {
    let builder = Here::observe().builder()?;
    if let Some(wrong) = missing(order) {
        return Err(wrong);
    }
    let (home, store) = own_store()?;
    let scratch = Scratch::new(&home)?;
    let dockerfile = match &order.build.dockerfile {
        Dockerfile::File(path) => path.clone(),
        Dockerfile::Inline(text) => {
            let path = scratch.path.join("Dockerfile");
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            path
        }
    };
    let read = fs::read(&dockerfile).with_context(|| format!("cannot read {}", dockerfile.display()))?;
    let text = String::from_utf8_lossy(&read);
    let build = with_own_secrets(order, &scratch)?;
    let job = Job {
        build: &build,
        platform: order.platform,
        dockerfile: &dockerfile,
        scratch: &scratch.path,
        tells,
    };
    match &builder {
        Builder::Buildah(program) => by_buildah(&home, &store, program, &text, &job)?,
        Builder::Buildctl(program, daemon) => by_buildkit(&store, (program, daemon), &text, &job)?,
    }
    let before = store.before()?;
    let image = take(&store, &job, order)?;
    unpack_new(&store, std::slice::from_ref(&image), &before)?;
    Ok(image)
}

/// The same build with its secrets by links in its own directory, for builders take a path with a comma or a quotation
/// mark for something else; those that have no file have one then. Not among those that machines mount: as no machine
/// does, whoever changes the home meanwhile would delete them.
fn with_own_secrets(order: &Order<'_>, scratch: &Scratch) -> Result<Build> {
    let mut build = order.build.clone();
    for (number, path) in build.secrets.values_mut().enumerate() {
        let name = PathBuf::from(format!("secret-{number}"));
        if let Some(text) = order.texts.get(path) {
            *path = scratch.texts.join(&name);
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o400);
            let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        let link = scratch.path.join(&name);
        symlink(&*path, &link).with_context(|| format!("cannot make {}", link.display()))?;
        *path = name;
    }
    Ok(build)
}

/// What a builder would say in many more words.
fn missing(order: &Order<'_>) -> Option<Failure> {
    let build = order.build;
    let told = |what: String, hint: &str| Some(Failure::request(&what, hint));
    if !build.context.is_dir() {
        let what = format!("there is no directory {} to build from", build.context.display());
        return told(what, "name another as the `context`");
    }
    if let Dockerfile::File(path) = &build.dockerfile
        && !path.is_file()
    {
        let what = format!("there is no file {} with instructions", path.display());
        return told(what, "write it, or name another as the `dockerfile`");
    }
    let mut files = build.secrets.values().filter(|path| !order.texts.contains_key(*path));
    let path = files.find(|path| !path.is_file())?;
    told(format!("there is no file {} for a secret", path.display()), "write it")
}

/// Takes what a builder made.
fn take(store: &Store, job: &Job<'_>, order: &Order<'_>) -> Result<Image> {
    let archive = job.archive();
    let file = File::open(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
    let platform = order.platform.cloned().unwrap_or_else(host_platform);
    let load = Load { platform, name: order.name.cloned() };
    let images = store.load_archive(file, &load).context("cannot take what was built")?;
    let image = images.into_iter().next().context("nothing was built")?;
    for name in &order.build.tags {
        store.tag(&image.digest, name)?;
    }
    Ok(image)
}

/// What buildah takes for good where the computer says nothing about it.
const POLICY: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";

/// Where the computer, or the user, says it.
fn has_policy() -> bool {
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/policy.json"));
    own.into_iter().chain([PathBuf::from("/etc/containers/policy.json")]).any(|path| path.exists())
}

fn by_buildah(home: &Home, store: &Store, program: &Path, text: &str, job: &Job<'_>) -> Result<()> {
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = job.scratch.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let policy = if has_policy() { None } else { Some(write("policy.json", POLICY)?) };
    let storage = Storage { root: home.build(), run: cache::run(home), driver: driver(home)?, policy };
    let sources = Sources::load()?;
    let registries = write("registries.conf", &registries(&sources.mirrors(), sources.plain_http()))?;
    let mut environment = Vec::new();
    if std::env::var_os(REGISTRIES_VARIABLE).is_none() {
        environment.push((REGISTRIES_VARIABLE, registries.as_os_str()));
    }
    let _held = cache::hold(home)?;
    keep_caches(home, job.scratch)?;
    // As root it would leave a mount of its own storage behind.
    let start = Start { program, directory: job.scratch, environment, mounts: Mounts::Own };
    let platform = job.platform.cloned().unwrap_or_else(host_platform);
    // They are held until it ends.
    let lose = |name: &str| take_name(name, &start, &storage);
    let claims = bases::claims(store, (text, job.build), &platform, &home.build().join(CLAIMS), lose)?;
    let meant = claims.iter().filter_map(|claim| Some((claim.name.clone(), claim.meaning.clone()?)));
    for base in bases::lay_out(store, meant, job.scratch)? {
        let told = job.scratch.join("base-id");
        let file = File::create(&told).with_context(|| format!("cannot write {}", told.display()))?;
        start.run(buildah_take(&base, &storage), file.into())?;
        // By its id: another build may have taken the name that it has now.
        let id = fs::read_to_string(&told).context("buildah does not say what it took")?;
        start.run(buildah_call(&base, &storage, id.trim()), words()?)?;
    }
    start.run(buildah_build(job, &storage), words()?)?;
    let id = fs::read_to_string(job.id_file()).context("buildah does not say what it made")?;
    start.run(buildah_push(&storage, id.trim()), words()?)
}

/// Takes a name from buildah's storage, which goes before what registries say.
fn take_name(name: &str, start: &Start<'_>, storage: &Storage) -> Result<()> {
    let told = start.directory.join("images");
    let file = File::create(&told).with_context(|| format!("cannot write {}", told.display()))?;
    start.run(buildah_images(storage), file.into())?;
    let images = fs::read_to_string(&told).with_context(|| format!("cannot read {}", told.display()))?;
    if is_called(&images, name)? {
        for arguments in buildah_uncall(name, storage) {
            start.run(arguments, Stdio::null())?;
        }
    }
    Ok(())
}

/// Where buildah reads which registries there are.
const REGISTRIES_VARIABLE: &str = "CONTAINERS_REGISTRIES_CONF";

/// Where builds say what names mean to them, in buildah's storage: they have that meaning there as long as it is.
const CLAIMS: &str = "names";

fn by_buildkit(store: &Store, (program, daemon): (&Path, &Daemon), text: &str, job: &Job<'_>) -> Result<()> {
    let platform = job.platform.cloned().unwrap_or_else(host_platform);
    let contexts = bases::contexts(store, (text, job.build), &platform)?;
    let bases = bases::lay_out(store, contexts, job.scratch)?;
    let dockerfile = reachable(job.dockerfile)?;
    let job = Job { dockerfile: &dockerfile, ..*job };
    let start = Start { program, directory: job.scratch, environment: Vec::new(), mounts: Mounts::Shared };
    start.run(buildctl(&job, daemon, &platform, &bases), words()?)
}

/// The file itself where this is a link that leads out of its directory, which is all that BuildKit is shown.
fn reachable(dockerfile: &Path) -> Result<PathBuf> {
    let doing = || format!("cannot find {}", dockerfile.display());
    let file = fs::canonicalize(dockerfile).with_context(doing)?;
    let directory = fs::canonicalize(dockerfile.parent().unwrap_or(Path::new("/"))).with_context(doing)?;
    Ok(if file.starts_with(directory) { dockerfile.to_owned() } else { file })
}

/// What `RUN --mount=type=cache` keeps is to last: buildah has it among its temporary files, which do not.
fn keep_caches(home: &Home, scratch: &Path) -> Result<()> {
    let kept = home.build().join("mounted-caches");
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let uid = rustix::process::geteuid().as_raw();
    // As earlier versions call it, and later ones.
    for name in ["buildah-cache".to_owned(), format!("buildah-cache-{uid}")] {
        let link = scratch.join(name);
        symlink(&kept, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(())
}

/// Overlays cannot be laid on one, which is what a machine has that is itself a container.
fn driver(home: &Home) -> Result<Option<&'static str>> {
    const OVERLAYFS_MAGIC: i64 = 0x794c_7630;
    let found = statfs(&home.state).with_context(|| format!("cannot look at {}", home.state.display()))?;
    Ok((found.f_type == OVERLAYFS_MAGIC).then_some("vfs"))
}
