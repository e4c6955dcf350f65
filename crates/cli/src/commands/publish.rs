//! `publish`: an image of what a machine is. A process of ours packs what it wrote that may read all of its files.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_host::held::Held;
use stead_host::history::{History, Layer};
use stead_host::machine::Files;
use stead_image::unpack::XattrSpace;
use stead_image::{Publish, Store};
use stead_model::image::{Digest, Reference};
use stead_net::process::raise_file_limit;

use super::{diff, guest, image, machines, snapshot};
use crate::args::{Global, PublishArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::session::Session;
use crate::working::Working;

/// What stead is called with to do it.
const WORD: &str = "__publish";

/// What the process that packs is told.
#[derive(Serialize, Deserialize)]
struct Order {
    store: PathBuf,
    name: Reference,
    base: Digest,
    /// The nearest first.
    uppers: Vec<PathBuf>,
    mounts: Vec<String>,
    created_by: String,
    author: Option<String>,
    message: Option<String>,
}

/// What it tells.
#[derive(Serialize, Deserialize)]
struct Reply {
    digest: Digest,
    skipped: Vec<String>,
}

/// Makes an image of a machine.
pub(crate) fn publish(global: &Global, args: &PublishArgs, output: Output) -> Result<(), Failure> {
    if args.image.digest.is_some() {
        let what = format!("`{}` ends with a digest", args.image);
        return Err(Failure::request(&what, "a name ends with a tag"));
    }
    let mut session = Session::open()?;
    let seen = session.observe()?;
    let id = machines::chosen_one(global, &args.machine, &seen)?;
    let doing = || format!("machine `{id}`");
    snapshot::not_of_vms("images of machines", &id, &seen)?;
    if guest::is_guest(&id, &seen) {
        let what =
            format!("machine `{id}` is a microVM: what it wrote is on a disk that only its guest can read");
        return Err(Failure::request(&what, "`stead cp` carries its files out"));
    }
    let made = seen.machines.get(&id).and_then(|state| state.container()).context("it is no container")?;
    let base = made.image.clone().context("its image was never here")?;
    let files = Files::new(session.host.home(), &id);
    let history = History::load(&files).with_context(doing)?;
    if let Some(name) = &args.snapshot {
        snapshot::known(&history, &id, name)?;
    }
    let taken = args.snapshot.as_ref().and_then(|name| history.snapshots.get(name));
    let stack = history.present.below.iter().chain([&history.present.written]);
    let stack: Vec<u64> = taken.map_or_else(|| stack.copied().collect(), |taken| taken.layers.clone());
    let mut uppers: Vec<PathBuf> = Vec::new();
    for layer in stack.into_iter().rev().map(|number| Layer::new(&files, number)) {
        if layer.is_flat() {
            let what =
                format!("what `{id}` wrote is not known: its image was copied, as overlayfs cannot be used");
            return Err(Failure::request(&what, "have the home on another file system"));
        }
        // One in which nothing was written yet says nothing of the root either.
        if !layer.is_empty() {
            uppers.push(layer.upper());
        }
    }
    if uppers.is_empty() {
        let what = format!("machine `{id}` wrote nothing: it is what its image is");
        let hint = format!("`stead image tag {} {}`", made.wish.image, args.image);
        return Err(Failure::request(&what, &hint));
    }
    let store = Store::open(&session.host.home().images())?;
    let mounts = diff::mounts(&store, &id, made)?;
    let runs = args.snapshot.is_none() && seen.running.contains_key(&id);
    let written = Layer::new(&files, history.present.written).upper();
    if let Some(top) = uppers.first_mut().filter(|top| runs && **top == written) {
        // It is held for as long as that takes, and not until all is packed.
        let _working = Working::on(format!("copying what `{id}` wrote"));
        let held = Held::take(session.host.home(), &id).with_context(doing)?;
        *top = session.host.copy_held(&id, top, held).with_context(doing)?;
    }
    let tag = args.snapshot.as_ref().map_or_else(String::new, |name| format!(" --snapshot {name}"));
    let order = Order {
        store: store.root().to_owned(),
        name: args.image.clone(),
        base,
        uppers,
        mounts,
        created_by: format!("stead publish {}{tag} {}", id.name, args.image),
        author: args.author.clone(),
        message: args.message.clone(),
    };
    let packed = pack(&order).with_context(doing);
    let dropped = session.host.drop_prepared();
    let Reply { digest, skipped } = packed?;
    dropped?;
    skipped.iter().for_each(|skip| note(&format!("left out: {skip}")));
    let made = store.inspect(&digest)?.context("the image is gone again")?.image;
    image::unpack(&store, &made)?;
    let carried = image::Carried { id: digest, names: [args.image.clone()].into(), platform: made.platform };
    image::tell(&[carried], output)
}

/// Has a process do it that may read files of whichever owner.
fn pack(order: &Order) -> Result<Reply> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let text = serde_json::to_string(order).context("cannot write an order as JSON")?;
    let args: [OsString; 2] = [WORD.into(), text.into()];
    let _working = Working::on(format!("packing {}", order.name));
    let reply = stead_net::anchor::run_as_root(&program, &args)?;
    serde_json::from_str(&reply).context("this is no reply")
}

/// Makes the image, in a process of its own that ends with whoever waits for it.
pub(crate) fn publish_here(order: &str) -> Result<(), Failure> {
    let order: Order = serde_json::from_str(order).context("this is no order")?;
    let is_real = rustix::process::geteuid().is_root();
    super::internal::become_bound_root()?;
    // Of each snapshot's layer some directories are open at a time.
    raise_file_limit()?;
    let publish = Publish {
        name: &order.name,
        base: &order.base,
        uppers: order.uppers.iter().map(PathBuf::as_path).collect(),
        space: if is_real { XattrSpace::Trusted } else { XattrSpace::User },
        mounts: order.mounts.iter().map(String::as_str).collect(),
        created_by: &order.created_by,
        author: order.author.as_deref(),
        message: order.message.as_deref(),
    };
    let (made, skips) = Store::open(&order.store)?.publish(&publish)?;
    let skipped = skips.first.iter().map(|skip| format!("{}: {}", skip.name, skip.what)).collect();
    let reply = Reply { digest: made.digest, skipped };
    let text = serde_json::to_string(&reply).context("cannot write a reply as JSON")?;
    crate::output::raw(&text).map_err(Failure::from)
}
