//! `build` and `image build`: images made by the instructions of a Dockerfile. BuildKit or buildah does it, whichever is
//! here; we take what comes out into the store. No instruction is read by us.

mod bases;
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{FlockOperation, flock, statfs};

use stead_host::home::Home;
use stead_image::choose::host_platform;
use stead_image::{Load, Store};
use stead_model::file::{Build, Dockerfile, Pull};
use stead_model::image::{Image, Platform, Reference};
use stead_model::name::MachineId;

use self::program::{
    Builder, Here, Job, Storage, buildah_build, buildah_call, buildah_push, buildah_take, buildctl,
    registries,
};
use super::image::{Carried, Sources, own_store, tell, unpack_new};
use super::up;
use crate::args::{Global, ImageBuildArgs, ProjectBuildArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::project::{self, Loaded};

/// What stead is called with to run a program in mounts of its own.
const WORD: &str = "__detached";

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
    let build = with_own_secrets(order, &scratch.path)?;
    let job = Job {
        build: &build,
        platform: order.platform,
        dockerfile: &dockerfile,
        scratch: &scratch.path,
        tells,
    };
    match &builder {
        Builder::Buildah(program) => by_buildah(&home, &store, program, &job)?,
        Builder::Buildctl(program) => run(Command::new(program).args(buildctl(&job)), "buildctl", words()?)?,
    }
    let before = store.before()?;
    let image = take(&store, &job, order)?;
    unpack_new(&store, std::slice::from_ref(&image), &before)?;
    Ok(image)
}

/// The same build with files of its own for those of its secrets that have none. Not among those that machines mount: as
/// no machine does, whoever changes the home meanwhile would delete them.
fn with_own_secrets(order: &Order<'_>, scratch: &Path) -> Result<Build> {
    let mut build = order.build.clone();
    for (number, path) in build.secrets.values_mut().enumerate() {
        let Some(text) = order.texts.get(path) else { continue };
        *path = scratch.join(format!("secret-{number}"));
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o400);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
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

fn by_buildah(home: &Home, store: &Store, program: &Path, job: &Job<'_>) -> Result<()> {
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = job.scratch.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let policy = if has_policy() { None } else { Some(write("policy.json", POLICY)?) };
    let storage = Storage { root: home.build(), run: home.run.join("build"), driver: driver(home)?, policy };
    let sources = Sources::load()?;
    let registries = write("registries.conf", &registries(&sources.mirrors(), sources.plain_http()))?;
    let run_it = |arguments: Vec<std::ffi::OsString>, stdout: Stdio| {
        // As root it would leave a mount of its own storage behind.
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(own);
        command.arg(WORD).arg(program).arg("--").args(arguments).current_dir(job.scratch);
        if std::env::var_os("CONTAINERS_REGISTRIES_CONF").is_none() {
            command.env("CONTAINERS_REGISTRIES_CONF", &registries);
        }
        run(&mut command, "buildah", stdout)
    };
    let read =
        fs::read(job.dockerfile).with_context(|| format!("cannot read {}", job.dockerfile.display()))?;
    let text = String::from_utf8_lossy(&read);
    let lay_out = || bases::lay_out(store, (&text, job.build), job.platform, job.scratch);
    let mut bases = lay_out()?;
    // A build finds them by their names, which are nobody's own: until it ends no other gives them to other images.
    let _alone = if bases.is_empty() { None } else { Some(alone(&storage.root)?) };
    // Who was waited for may have made some of them anew.
    for base in &bases {
        let layout = job.scratch.join(&base.layout);
        fs::remove_dir_all(&layout).with_context(|| format!("cannot remove {}", layout.display()))?;
    }
    if !bases.is_empty() {
        bases = lay_out()?;
    }
    for base in bases {
        let told = job.scratch.join("base-id");
        let file = File::create(&told).with_context(|| format!("cannot write {}", told.display()))?;
        run_it(buildah_take(&base, &storage), file.into())?;
        // By its id: another build may have taken the name that it has now.
        let id = fs::read_to_string(&told).context("buildah does not say what it took")?;
        run_it(buildah_call(&base, &storage, id.trim()), words()?)?;
    }
    run_it(buildah_build(job, &storage), words()?)?;
    let id = fs::read_to_string(job.id_file()).context("buildah does not say what it made")?;
    run_it(buildah_push(job, &storage, id.trim()), words()?)
}

/// Waits until nobody else builds from images of the store.
fn alone(storage: &Path) -> Result<File> {
    let doing = || format!("cannot lock {}", storage.display());
    fs::create_dir_all(storage).with_context(doing)?;
    let lock = File::open(storage).with_context(doing)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        note("waiting for another build that starts from images of the store");
        flock(&lock, FlockOperation::LockExclusive).with_context(doing)?;
    }
    Ok(lock)
}

/// Overlays cannot be laid on one, which is what a machine has that is itself a container.
fn driver(home: &Home) -> Result<Option<&'static str>> {
    const OVERLAYFS_MAGIC: i64 = 0x794c_7630;
    let found = statfs(&home.state).with_context(|| format!("cannot look at {}", home.state.display()))?;
    Ok((found.f_type == OVERLAYFS_MAGIC).then_some("vfs"))
}

/// Where a builder's words go to the person: standard output is for data.
fn words() -> Result<Stdio> {
    use std::os::fd::AsFd;
    let words = std::io::stderr().as_fd().try_clone_to_owned().context("cannot share standard error")?;
    Ok(words.into())
}

/// Runs a builder.
fn run(command: &mut Command, name: &str, stdout: Stdio) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(stdout).status();
    let status = status.with_context(|| format!("cannot start `{name}`"))?;
    if status.success() { Ok(()) } else { Err(anyhow!("`{name}` ended with {status}; it says why above")) }
}

/// Becomes a program in mounts of its own.
pub(super) fn detached(
    program: &Path,
    words: &[std::ffi::OsString],
) -> Result<std::convert::Infallible, Failure> {
    use std::os::unix::process::CommandExt;
    if rustix::process::geteuid().is_root() {
        stead_net::anchor::own_mounts()?;
    }
    let error = Command::new(program).args(words).exec();
    Err(anyhow!(error).context(format!("cannot start `{}`", program.display())).into())
}

/// A directory for one build, which goes with it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(home: &Home) -> Result<Self> {
        // Those of builds that were killed go now.
        for entry in fs::read_dir(&home.run).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let builder = name.strip_prefix("build-").and_then(|pid| pid.parse::<u32>().ok());
            let is_gone =
                |pid: u32| pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists();
            if builder.is_some_and(is_gone) {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        let path = home.run.join(format!("build-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays goes with the next build.
        let _left = fs::remove_dir_all(&self.path);
    }
}
