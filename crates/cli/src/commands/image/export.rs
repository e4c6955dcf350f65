//! `image export`: all files of an image in one archive, as its machines see them.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};

use stead_image::Store;
use stead_image::unpack::UnpackOptions;
use stead_model::image::Digest;

use super::{meant, own_store, unpack};
use crate::args::ExportArgs;
use crate::failure::Failure;
use crate::working::Working;

/// Headers are small, and the kernel is asked once for many.
const BUFFER_BYTES: usize = 1 << 16;

/// What stead is called with to do it as what may read and set all owners.
const WORD: &str = "__export";

/// Writes the archive.
pub(super) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let (_, store) = own_store()?;
    let image = meant(&store, &args.image, args.platform.platform.as_ref())?.image;
    unpack(&store, &image)?;
    let _working = Working::on(format!("writing the files of {}", args.image));
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let words = [WORD.into(), store.root().into(), image.digest.as_str().into()];
    let to = |stdout| stead_net::anchor::run_as_root_at(&program, &words, stdout);
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let cannot = || format!("cannot write {}", path.display());
            let file = File::create(path).with_context(cannot)?;
            // Half an archive is of no use; what is no file was not made by us.
            let undo = |_: &anyhow::Error| drop(path.is_file().then(|| std::fs::remove_file(path)));
            to(file.into()).inspect_err(undo).with_context(cannot).map_err(Failure::from)
        }
        None if std::io::stdout().is_terminal() => {
            let what = "standard output is a terminal, where an archive would be of no use";
            Err(Failure::request(what, "name a file with `--output`"))
        }
        None => {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            to(stdout.context("cannot share standard output")?).map_err(Failure::from)
        }
    }
}

/// Writes the archive to standard output, as root or as what a user namespace maps to root.
pub(crate) fn export_here(root: &Path, digest: &Digest) -> Result<()> {
    let is_real = rustix::process::geteuid().is_root();
    stead_net::anchor::become_root()?;
    let store = Store::open(root)?;
    let image = store.inspect(digest)?.context("the image is not here any more")?.image;
    let options = if is_real { UnpackOptions::default() } else { UnpackOptions::rootless() };
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock());
    store.export(&image, &options, &mut out)?;
    out.flush().context("cannot write the archive")
}
