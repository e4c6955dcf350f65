//! `diff`: what a machine changed of its image. It is found by a process of ours that may see all of its files.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use stead_agent::message::{self, Changed};
use stead_host::history::Layer;
use stead_host::machine::Files;
use stead_image::Store;
use stead_image::unpack::{Change, XattrSpace, changes};
use stead_model::image::Image;
use stead_model::name::MachineId;
use stead_model::observed::MadeContainer;

use crate::args::{DiffArgs, Format, Global};
use crate::failure::Failure;
use crate::output::{Output, printable};
use crate::session::look;

/// What stead is called with to find it.
const WORD: &str = "__diff";

/// What every container of ours has from us, whatever its image has there.
const OURS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// What the process that looks is told.
#[derive(Serialize, Deserialize)]
struct Order {
    /// What it wrote, and what snapshots have frozen of that: the nearest first.
    uppers: Vec<PathBuf>,
    /// The nearest first.
    layers: Vec<PathBuf>,
    /// Where something is mounted: such places are made by us.
    mounts: Vec<String>,
    is_json: bool,
}

#[derive(Serialize)]
struct ChangeRow {
    change: &'static str,
    path: String,
}

/// `diff`.
pub(crate) fn diff(global: &Global, args: &DiffArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::chosen_one(global, &args.machine, &seen)?;
    let is_guest = super::guest::is_guest(&id, &seen);
    let made = seen.machines.get(&id).and_then(|state| state.container());
    let made = made.ok_or_else(|| {
        let what = format!("what `{id}` changed is not known: it is not made of an image with layers");
        Failure::request(&what, &format!("`stead exec {id} find / -xdev -newermt today` may help"))
    })?;
    let files = Files::new(host.home(), &id);
    let own = files.own()?;
    if !is_guest && own.written.is_flat() {
        let what =
            format!("what `{id}` changed is not known: its image was copied, as overlayfs cannot be used");
        return Err(Failure::request(&what, "have the home on another file system"));
    }
    let store = Store::open(&host.home().images())?;
    let image = image_of(&store, made)?;
    let mut layers = store.layer_paths(&image);
    layers.reverse();
    let mounts = mounts(&store, &id, made)?;
    if is_guest {
        return in_guest(&files, &id, &mounts, output);
    }
    let uppers = [own.written.upper()].into_iter().chain(own.below.iter().rev().map(Layer::upper)).collect();
    let order = Order { uppers, layers, mounts, is_json: output.format == Format::Json };
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let text = serde_json::to_string(&order).context("cannot write an order as JSON")?;
    let args: [OsString; 2] = [WORD.into(), text.into()];
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().context("no standard output")?;
    stead_net::anchor::run_as_root_at(&program, &args, stdout).map_err(Failure::from)
}

/// The image that a machine was made from.
fn image_of(store: &Store, made: &MadeContainer) -> Result<Image> {
    let digest = made.image.as_ref().context("its image was never here")?;
    let image = store.inspect(digest)?.map(|details| details.image);
    image.with_context(|| format!("the image {} is not here any more; hint: pull it again", made.wish.image))
}

/// Where something is mounted in a machine, which is then none of its own files.
pub(super) fn mounts(store: &Store, id: &MachineId, made: &MadeContainer) -> Result<Vec<String>> {
    let image = image_of(store, made)?;
    let launch = made.wish.launch(&id.name, &image.config)?;
    let mounts = launch.mounts.keys().chain(&launch.own_volumes).cloned();
    Ok(mounts.chain(OURS.map(str::to_owned)).collect())
}

/// What a guest says that it is.
fn in_guest(files: &Files, id: &MachineId, mounts: &[String], output: Output) -> Result<(), Failure> {
    if files.keeper()?.is_none() {
        let what = format!("machine `{id}` does not run, and its files are on a disk of its own");
        return Err(Failure::request(&what, &format!("`stead start {id}`")));
    }
    let found = super::guest::looks::changes(files).with_context(|| format!("machine `{id}`"))?;
    let rows = found.into_iter().map(|Changed { path, change }| ChangeRow {
        change: match change {
            message::Change::Added => "added",
            message::Change::Changed => "changed",
            message::Change::Deleted => "deleted",
        },
        path,
    });
    let mut rows: Vec<ChangeRow> = rows.filter(|row| !mounts.contains(&row.path)).collect();
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    print(&rows, output)
}

/// Finds and prints it, in a process of its own.
pub(crate) fn diff_here(order: &str) -> Result<(), Failure> {
    let order: Order = serde_json::from_str(order).context("this is no order")?;
    let is_real = rustix::process::geteuid().is_root();
    stead_net::anchor::become_root()?;
    let space = if is_real { XattrSpace::Trusted } else { XattrSpace::User };
    let found =
        changes(order.uppers.iter().map(PathBuf::as_path), order.layers.iter().map(PathBuf::as_path), space)?;
    let rows = found.into_iter().map(|(path, change)| ChangeRow {
        change: match change {
            Change::Added => "added",
            Change::Changed => "changed",
            Change::Deleted => "deleted",
        },
        path: format!("/{}", String::from_utf8_lossy(&path)),
    });
    let rows: Vec<ChangeRow> = rows.filter(|row| !order.mounts.contains(&row.path)).collect();
    print(&rows, Output::new(if order.is_json { Format::Json } else { Format::Text }))
}

fn print(rows: &[ChangeRow], output: Output) -> Result<(), Failure> {
    let line = |row: &ChangeRow| {
        let letter = match row.change {
            "added" => 'A',
            "changed" => 'C',
            _ => 'D',
        };
        format!("{letter} {}\n", printable(&row.path).replace('\n', "\\n"))
    };
    output.data(&rows, || rows.iter().map(line).collect()).map_err(Failure::from)
}
