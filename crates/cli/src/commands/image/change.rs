//! `image tag`, `rm` and `prune`. Unpacked layers have files of many owners, so a process of its own takes them away, as
//! root or as what a user namespace maps to root.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_host::linux::LinuxHost;
use stead_image::{Before, Pruned, Removal, Store, Which};
use stead_model::image::{Digest, Reference};
use stead_model::name::MachineId;

use super::progress::size;
use super::{Meant, meant, own_store};
use crate::args::Consent;
use crate::commands::build;
use crate::commands::unmet::Unmet;
use crate::failure::Failure;
use crate::output::{Output, note, raw};
use crate::session::{Session, confirm};
use crate::working::Working;

/// What the process is asked to take away.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// A name of an image, with the last one the image; a nameless image where there is no name.
    Name { name: Option<Reference>, image: Digest },
    /// All images that no machine uses, or those of them without a name.
    Prune { all: bool },
    /// Contents that no image has.
    Sweep,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Done(Gone),
    InUse,
    Absent,
}

/// What is gone.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Gone {
    names: BTreeSet<Reference>,
    images: BTreeSet<Digest>,
    freed_bytes: Option<u64>,
}

/// What stead is called with to take images away.
const FORGET_WORD: &str = "__forget";

/// Gives an image one more name.
pub(super) fn tag(image: &str, name: &Reference, output: Output) -> Result<(), Failure> {
    if name.digest.is_some() {
        return Err(Failure::request(&format!("`{name}` ends with a digest"), "a name ends with a tag"));
    }
    let (_, store) = own_store()?;
    let Meant { image, .. } = meant(&store, image, None)?;
    store.tag(&image.digest, name)?;
    let names = [name.to_string()];
    output.data(&names, || format!("{name}\n")).map_err(Failure::from)
}

/// Takes names of images away, and with the last ones the images.
pub(super) fn remove(images: &[String], force: bool, output: Output) -> Result<(), Failure> {
    // Nobody makes a machine of an image meanwhile.
    let mut session = Session::open()?;
    let (_, store) = own_store()?;
    let used = in_use(&mut session.host)?;
    let (mut gone, mut unmet) = (Gone::default(), Unmet::default());
    let mut ended = Ok(());
    for text in images {
        let removed = remove_one(&store, text, force, &used, &mut gone);
        ended = unmet.sort(removed).map(drop);
        if ended.is_err() {
            break;
        }
    }
    // What went before is told whatever came after it.
    let is_any = !gone.names.is_empty() || !gone.images.is_empty() || ended.is_err();
    let unmet = unmet.unless(is_any)?;
    unmet.after(tell(&gone, output).and(ended))
}

/// The same for one, said by its name or its id.
fn remove_one(
    store: &Store,
    text: &str,
    force: bool,
    used: &BTreeMap<Digest, BTreeSet<MachineId>>,
    gone: &mut Gone,
) -> Result<(), Failure> {
    let Meant { name, image } = meant(store, text, None)?;
    if name.is_none() && image.names.len() > 1 && !force {
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        let what = format!("image {} is called {}", image.digest.short(), names.join(" and "));
        return Err(Failure::request(&what, "say the name that is to go, or `--force` for all"));
    }
    let machines = used.get(&image.digest);
    let is_whole = name.is_none() || image.names.len() == 1;
    if let (Some(machines), true) = (machines, is_whole) {
        return Err(used_by(text, machines));
    }
    let mut names: Vec<Option<Reference>> = image.names.iter().cloned().map(Some).collect();
    if name.is_some() || names.is_empty() {
        names = vec![name];
    }
    for name in names {
        let used: Vec<Digest> = machines.map(|_| image.digest.clone()).into_iter().collect();
        match forget(store, &Request::Name { name, image: image.digest.clone() }, &used)? {
            Reply::Done(more) => gone.add(more),
            Reply::InUse => return Err(used_by(text, &BTreeSet::new())),
            // Another command was faster.
            Reply::Absent => {}
        }
    }
    Ok(())
}

fn used_by(image: &str, machines: &BTreeSet<MachineId>) -> Failure {
    let names: Vec<String> = machines.iter().map(|id| format!("`{id}`")).collect();
    let what = format!("image `{image}` is used by {}", names.join(" and "));
    Failure::request(&what, "`stead rm` what is made of it first")
}

/// Takes away the images that no machine is made of, and what builds keep.
pub(super) fn prune(all: bool, consent: Consent, output: Output) -> Result<(), Failure> {
    if !consent.yes {
        let which = if all { "" } else { " without a name" };
        let what = format!("this removes all images{which} that no machine is made of");
        confirm(&format!("{what}, and what builds keep for later ones"))?;
    }
    let mut session = Session::open()?;
    let (home, store) = own_store()?;
    let used: Vec<Digest> = in_use(&mut session.host)?.into_keys().collect();
    let mut gone = Gone::default();
    if let Reply::Done(more) = forget(&store, &Request::Prune { all }, &used)? {
        gone.add(more);
    }
    // It may take long, and is not what others wait for.
    drop(session);
    let working = Working::on("removing what builds keep");
    let pruned = build::prune(&home);
    drop(working);
    match &pruned {
        Ok(Some(0)) | Err(_) => {}
        Ok(Some(bytes)) => gone.add(Gone { freed_bytes: Some(*bytes), ..Gone::default() }),
        Ok(None) => note("what builds keep for later ones stays: an image is being built"),
    }
    // The images are gone, whatever became of that.
    tell(&gone, output)?;
    Ok(pruned.map(drop)?)
}

/// The images that machines are made of, with those machines.
pub(crate) fn in_use(host: &mut LinuxHost) -> Result<BTreeMap<Digest, BTreeSet<MachineId>>> {
    let mut used: BTreeMap<Digest, BTreeSet<MachineId>> = BTreeMap::new();
    for (id, machine) in host.records()?.machines {
        if let Some(digest) = machine.container().and_then(|made| made.image.clone()) {
            used.entry(digest).or_default().insert(id);
        }
    }
    Ok(used)
}

fn tell(gone: &Gone, output: Output) -> Result<(), Failure> {
    let text = || {
        let names = gone.names.iter().map(|name| format!("- name {name}\n"));
        let images = gone.images.iter().map(|image| format!("- image {}\n", image.short()));
        let freed = gone.freed_bytes.map(|bytes| format!("{} freed\n", size(bytes)));
        names.chain(images).chain(freed).collect()
    };
    output.data(gone, text).map_err(Failure::from)
}

impl Gone {
    fn add(&mut self, more: Self) {
        self.names.extend(more.names);
        self.images.extend(more.images);
        if let Some(bytes) = more.freed_bytes {
            self.freed_bytes = Some(self.freed_bytes.unwrap_or_default() + bytes);
        }
    }
}

impl From<Pruned> for Gone {
    fn from(pruned: Pruned) -> Self {
        let Pruned { names, images, freed_bytes } = pruned;
        Self { names, images, freed_bytes }
    }
}

/// Has a process do it that may remove files of whichever owner.
fn forget(store: &Store, request: &Request, used: &[Digest]) -> Result<Reply> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let request = serde_json::to_string(request).context("cannot render the request")?;
    let mut args: Vec<OsString> = vec![FORGET_WORD.into(), store.root().into(), request.into()];
    args.extend(used.iter().map(|digest| digest.as_str().into()));
    let _working = Working::on("removing images");
    let reply = stead_net::anchor::run_as_root(&program, &args).context("cannot remove images")?;
    serde_json::from_str(&reply).context("the process that removes images is not one of ours")
}

/// Takes away images that came just now and are of no use, with their names and what there is of them.
pub(super) fn withdraw(store: &Store, images: &BTreeSet<Digest>, before: &Before) -> Result<()> {
    store.withdraw(images, before)?;
    forget(store, &Request::Sweep, &[]).map(drop)
}

/// Takes images away, as root or as what a user namespace maps to root.
pub(crate) fn forget_here(root: &Path, what: &str, used: Vec<Digest>) -> Result<()> {
    stead_net::anchor::become_root()?;
    let store = Store::open(root)?;
    let used: BTreeSet<Digest> = used.into_iter().collect();
    let reply = match serde_json::from_str(what).context("no such request")? {
        Request::Prune { all } => {
            let which = if all { Which::All } else { Which::Nameless };
            Reply::Done(store.prune(which, &used)?.into())
        }
        Request::Sweep => Reply::Done(Gone { freed_bytes: store.sweep()?, ..Gone::default() }),
        Request::Name { name, image } => forget_name(&store, name, &image, &used)?,
    };
    raw(&serde_json::to_string(&reply).context("cannot render the reply")?)
}

fn forget_name(
    store: &Store,
    name: Option<Reference>,
    image: &Digest,
    used: &BTreeSet<Digest>,
) -> Result<Reply> {
    let Some(details) = store.inspect(image)? else { return Ok(Reply::Absent) };
    let by_digest = || Reference {
        registry: None,
        repository: "image".to_owned(),
        tag: None,
        digest: Some(image.clone()),
    };
    Ok(match store.remove(&name.unwrap_or_else(by_digest), &details.image, used)? {
        Removal::Done(pruned) => Reply::Done(pruned.into()),
        Removal::InUse(_) => Reply::InUse,
        // It was given names after we looked.
        Removal::Named(_) | Removal::Absent => Reply::Absent,
    })
}
