//! `image pull`, `push`, `import`, `save` and `load`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use stead_image::choose::host_platform;
use stead_image::{Import, Load};
use stead_model::image::{Digest, Image, Platform, Reference};

use super::progress::{Progress, Tells, size};
use super::{Meant, Sources, Telling, meant, own_store, unpack_new, unpack_told, withdraw};
use crate::args::{ImportArgs, LoadArgs, PullArgs, PushArgs, SaveArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Headers are small, and the kernel is asked once for many.
const BUFFER_BYTES: usize = 1 << 16;

/// An image that came, or went.
#[derive(Serialize)]
pub(crate) struct Carried {
    pub(crate) id: Digest,
    pub(crate) names: BTreeSet<Reference>,
    pub(crate) platform: Platform,
}

impl Carried {
    /// Under this name.
    fn called(name: &Reference, image: &Image) -> Self {
        let names = BTreeSet::from([name.clone()]);
        Self { id: image.digest.clone(), names, platform: image.platform.clone() }
    }
}

pub(crate) fn tell(carried: &[Carried], output: Output) -> Result<(), Failure> {
    let line = |one: &Carried| {
        let names: Vec<String> = one.names.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "-".to_owned() } else { names.join(" ") };
        format!("{} {names}\n", one.id.short())
    };
    output.data(&carried, || carried.iter().map(line).collect()).map_err(Failure::from)
}

/// Gets images, ready to be run.
pub(super) fn pull(args: &PullArgs, output: Output) -> Result<(), Failure> {
    let (_, store) = own_store()?;
    let platform = args.platform.platform.clone().unwrap_or_else(host_platform);
    let tells = if args.quiet { Tells::Nothing } else { Tells::HowFar };
    let mut carried = Vec::new();
    for name in &args.images {
        let before = store.before()?;
        let telling = Telling::Alone(tells);
        let image = super::pull(&store, name, &platform, telling)?;
        unpack_told(&store, std::slice::from_ref(&image), &before, telling)?;
        carried.push(Carried::called(name, &image));
    }
    if args.quiet {
        let ids: Vec<&Digest> = carried.iter().map(|one| &one.id).collect();
        let text = || ids.iter().map(|id| format!("{}\n", id.short())).collect();
        return output.data(&ids, text).map_err(Failure::from);
    }
    tell(&carried, output)
}

/// Sends an image to a registry.
pub(super) fn push(args: &PushArgs, output: Output) -> Result<(), Failure> {
    let (_, store) = own_store()?;
    let Meant { name, image } = meant(&store, &args.image, args.platform.platform.as_ref())?;
    let target = args.target.clone().or(name);
    let Some(target) = target.filter(|target| target.registry.is_some() && target.digest.is_none()) else {
        let what = format!("`{}` does not say to which registry", args.image);
        let hint = format!("`stead image push {} registry.example/team/name:tag`", args.image);
        return Err(Failure::request(&what, &hint));
    };
    let sources = Sources::load()?;
    let progress = Progress::of(format!("pushing {target}"));
    store.push(&sources.client, &image.digest, &target, &|event| progress.hear(event))?;
    drop(progress);
    tell(&[Carried::called(&target, &image)], output)
}

/// What is read or written, with how much it was.
struct Told<'p, T> {
    through: T,
    moved_bytes: u64,
    progress: &'p Progress,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.through.read(buffer)?;
        self.moved_bytes += read as u64;
        self.progress.tell(&size(self.moved_bytes));
        Ok(read)
    }
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.through.write(bytes)?;
        self.moved_bytes += written as u64;
        self.progress.tell(&size(self.moved_bytes));
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.through.flush()
    }
}

/// An archive to read: a file, or standard input.
fn archive(path: Option<&Path>) -> Result<Box<dyn Read + Send>, Failure> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Box::new(file))
        }
        None if std::io::stdin().is_terminal() => {
            let hint = "name a file, or send one: `stead … < images.tar`";
            Err(Failure::request("standard input is a terminal, not an archive", hint))
        }
        None => Ok(Box::new(std::io::stdin())),
    }
}

/// Makes an image of an archive of a root file system.
pub(super) fn import(args: &ImportArgs, output: Output) -> Result<(), Failure> {
    if args.name.digest.is_some() {
        let what = format!("`{}` ends with a digest", args.name);
        return Err(Failure::request(&what, "a name ends with a tag"));
    }
    let (_, store) = own_store()?;
    let progress = Progress::of(format!("importing {}", args.name));
    let from = Told { through: archive(Some(&args.archive))?, moved_bytes: 0, progress: &progress };
    let import = Import {
        name: args.name.clone(),
        platform: args.platform.platform.clone().unwrap_or_else(host_platform),
        command: args.command.clone(),
        created_by: format!("stead image import {}", args.archive.display()),
    };
    let before = store.before()?;
    let image = store.import(from, &import)?;
    drop(progress);
    unpack_new(&store, std::slice::from_ref(&image), &before)?;
    tell(&[Carried::called(&args.name, &image)], output)
}

/// Takes images out of an archive or an OCI layout.
pub(super) fn load(args: &LoadArgs, output: Output) -> Result<(), Failure> {
    let (_, store) = own_store()?;
    let path = args.path.as_deref().or(args.input.as_deref());
    let platform = args.platform.platform.clone().unwrap_or_else(host_platform);
    let load = Load { platform, name: args.name.clone() };
    let before = store.before()?;
    let loaded = match path.filter(|path| path.is_dir()) {
        Some(directory) => store.load_directory(directory, &load),
        None => {
            let what = path.map_or("standard input".into(), |path| path.display().to_string());
            let progress = Progress::of(format!("loading {what}"));
            let from = Told { through: archive(path)?, moved_bytes: 0, progress: &progress };
            store.load_archive(from, &load).with_context(|| format!("cannot load {what}"))
        }
    };
    // Of an archive that is given up some contents are here already.
    let images = loaded.inspect_err(|_| withdraw(&store, &BTreeSet::new(), &before))?;
    // One that has several names there comes several times.
    let mut carried: BTreeMap<Digest, Carried> = BTreeMap::new();
    for Image { digest, names, platform, .. } in &images {
        let one = Carried { id: digest.clone(), names: names.clone(), platform: platform.clone() };
        carried.entry(digest.clone()).or_insert(one).names.extend(names.iter().cloned());
    }
    unpack_new(&store, &images, &before)?;
    tell(&carried.into_values().collect::<Vec<_>>(), output)
}

/// Writes images into an archive, or a directory.
pub(super) fn save(args: &SaveArgs) -> Result<(), Failure> {
    let (_, store) = own_store()?;
    // Each with the names that it was asked for by: by its id it has none.
    let mut chosen: Vec<(_, BTreeSet<_>)> = Vec::new();
    for text in &args.images {
        let found = meant(&store, text, args.platform.platform.as_ref())?;
        match chosen.iter_mut().find(|(digest, _)| *digest == found.image.digest) {
            Some((_, names)) => names.extend(found.name),
            None => chosen.push((found.image.digest, found.name.into_iter().collect())),
        }
    }
    if let Some(directory) = &args.layout {
        return store.save_directory(&chosen, directory).map_err(Failure::from);
    }
    let progress = Progress::of("saving".to_owned());
    let write = |to: Box<dyn Write>| {
        let told = Told { through: to, moved_bytes: 0, progress: &progress };
        store.save_archive(&chosen, BufWriter::with_capacity(BUFFER_BYTES, told))
    };
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let cannot = || format!("cannot write {}", path.display());
            let file = File::create(path).with_context(cannot)?;
            // Half an archive is of no use; what is no file was not made by us.
            let undo = |_: &anyhow::Error| drop(path.is_file().then(|| std::fs::remove_file(path)));
            write(Box::new(file)).inspect_err(undo).with_context(cannot).map_err(Failure::from)
        }
        None if std::io::stdout().is_terminal() => {
            let what = "standard output is a terminal, where an archive would be of no use";
            Err(Failure::request(what, "name a file with `--output`"))
        }
        None => write(Box::new(std::io::stdout())).map_err(Failure::from),
    }
}
