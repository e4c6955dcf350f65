//! An image of four layers from a registry on loopback, pulled and unpacked into an empty store.
//!
//! The image has some hundred megabytes of programs and libraries of this computer and four thousand small files, as
//! a distribution's image has.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::kept::kept;
use super::lab::Lab;
use super::peers::Podman;
use super::place::{Server, wait_for};
use super::{Comparison, Side, Unit};
use crate::programs::output;

const OURS: Side = Side { name: "stead image pull", measure: ours };

/// What people use.
pub(super) const AGAINST_PODMAN: Comparison = Comparison {
    name: "pull-podman",
    first: OURS,
    second: Side { name: "podman pull", measure: podman },
    unit: Unit::Seconds,
    target: Some(1.5),
};

/// What scripts use.
pub(super) const AGAINST_UMOCI: Comparison = Comparison {
    name: "pull-umoci",
    first: OURS,
    second: Side { name: "skopeo and umoci", measure: umoci },
    unit: Unit::Seconds,
    target: Some(1.5),
};

/// The image in the registry.
const IMAGE: &str = "127.0.0.1:5000/bench:latest";

/// The layers: what of this computer is in them.
const LAYERS: [&str; 3] = ["/usr/bin", "/usr/lib/x86_64-linux-gnu/perl-base", "/usr/share/perl"];

/// A layer takes of a directory no more than this, so that the image is about as large on every computer.
const LAYER_MAX_BYTES: u64 = 80 << 20;

/// How many small files are in the last layer.
const SMALL_FILES: usize = 4000;

/// A registry with the image.
struct Registry {
    _server: Server,
    _place: tempfile::TempDir,
}

impl Registry {
    fn kept() -> Result<Rc<Self>> {
        kept(|| {
            let place = tempfile::tempdir().context("could not make a directory")?;
            let settings = place.path().join("settings.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
                 http: {{addr: '127.0.0.1:5000'}}\n",
                place.path().display()
            );
            fs::write(&settings, text).context("could not write the registry's settings")?;
            let server = Server::start(Command::new("docker-registry").arg("serve").arg(&settings))?;
            wait_for("the registry", || std::net::TcpStream::connect("127.0.0.1:5000").is_ok())?;
            let layout = format!("{}/oci", place.path().display());
            image(&layout, &place.path().join("tree"))?;
            let mut push = Command::new("skopeo");
            push.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
            output(push.arg(format!("oci:{layout}:bench")).arg(format!("docker://{IMAGE}")))?;
            Ok(Self { _server: server, _place: place })
        })
    }
}

/// Makes the image, in an OCI layout.
fn image(layout: &str, tree: &PathBuf) -> Result<()> {
    let umoci = |words: &[&str]| output(Command::new("umoci").args(words)).map(drop);
    let image = format!("{layout}:bench");
    umoci(&["init", "--layout", layout])?;
    umoci(&["new", "--image", &image])?;
    for (index, source) in LAYERS.iter().enumerate() {
        let layer = tree.join(index.to_string());
        some_of(source.as_ref(), &layer)?;
        umoci(&["insert", "--image", &image, &layer.to_string_lossy(), &format!("/opt/{index}")])?;
    }
    let small = tree.join("small");
    for index in 0..SMALL_FILES {
        let directory = small.join((index % 100).to_string());
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(index.to_string()), format!("{index}\n").repeat(index % 400))?;
    }
    umoci(&["insert", "--image", &image, &small.to_string_lossy(), "/srv"])?;
    fs::remove_dir_all(tree).context("could not delete what the image was made of")
}

/// Copies files of a directory, in the order of their names.
fn some_of(source: &std::path::Path, target: &std::path::Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let mut left = LAYER_MAX_BYTES;
    let mut directories = vec![source.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let metadata = path.symlink_metadata()?;
            let place = target.join(path.strip_prefix(source)?);
            if metadata.is_dir() {
                fs::create_dir_all(&place)?;
                directories.push(path);
            } else if metadata.is_file() && metadata.len() <= left {
                left -= metadata.len();
                fs::copy(&path, &place)?;
            }
        }
    }
    Ok(())
}

fn timed(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    output(command)?;
    Ok(start.elapsed().as_secs_f64())
}

fn ours() -> Result<f64> {
    let _registry = Registry::kept()?;
    let lab = Lab::new("name: bench\n")?;
    timed(&mut lab.stead(&["image", "pull", IMAGE]))
}

fn podman() -> Result<f64> {
    let _registry = Registry::kept()?;
    let podman = Podman::new()?;
    let policy = format!("--signature-policy={}/policy.json", podman.path().display());
    timed(&mut podman.command("podman", &["pull", "--quiet", &policy, IMAGE]))
}

fn umoci() -> Result<f64> {
    let _registry = Registry::kept()?;
    let place = tempfile::tempdir().context("could not make a directory")?;
    let layout = format!("{}/oci:bench", place.path().display());
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    let copied = timed(copy.arg(format!("docker://{IMAGE}")).arg(format!("oci:{layout}")))?;
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--image", &layout]).arg(place.path().join("bundle"));
    Ok(copied + timed(&mut unpack)?)
}
