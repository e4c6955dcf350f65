//! MicroVMs: one that goes on from where another was saved when it had booted, beside one that boots. Both are of the same
//! program, kernel, image and accelerator, so the ratio says what saving them is worth.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::kept::kept;
use super::lab::Lab;
use super::peers::{IMAGE, Tree};
use super::{Comparison, Side, Unit};
use crate::programs::{output, root};

/// From the command to the first that the machine's program writes.
pub(super) const WARM_AGAINST_COLD: Comparison = Comparison {
    name: "warm-cold",
    first: Side { name: "stead run --kind microvm", measure: || first_output(&[]) },
    second: Side { name: "the same with --cold", measure: || first_output(&["--cold"]) },
    unit: Unit::Seconds,
    target: Some(4.0),
};

/// Our home with the kernel, the image, its root and a guest that was saved.
struct Guests(Lab);

impl Guests {
    fn kept() -> Result<Rc<Self>> {
        let tree = Tree::kept()?;
        kept(|| {
            let guests = Self(Lab::new("name: bench\n")?);
            let kernel = root().join("target/kernel");
            output(guests.0.stead(&["kernel", "pull"]).arg(kernel_in(&kernel)?))?;
            output(guests.0.stead(&["image", "import"]).arg(tree.archive()).arg(IMAGE))?;
            // Makes what both have from then on.
            output(&mut guests.0.stead(&["run", "--rm", "--kind", "microvm", IMAGE, "true"]))?;
            Ok(guests)
        })
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Err(error) = output(&mut self.0.stead(&["purge", "--yes"])) {
            eprintln!("warning: {error:#}");
        }
    }
}

fn kernel_in(directory: &Path) -> Result<&Path> {
    ensure!(directory.join("boot").is_dir(), "there is no kernel; `cargo xtask setup` gets one");
    Ok(directory)
}

fn first_output(more: &[&str]) -> Result<f64> {
    let guests = Guests::kept()?;
    let words = [&["run", "--rm", "--kind", "microvm"], more, &[IMAGE, "echo", "x"]].concat();
    let mut command = guests.0.stead(&words);
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().context("could not run stead")?;
    let mut first = [0; 1];
    let read = child.stdout.take().context("it has no output")?.read_exact(&mut first);
    let took = start.elapsed();
    let status = child.wait().context("could not wait for stead")?;
    read.with_context(|| format!("it wrote nothing, and ended with {status}"))?;
    Ok(took.as_secs_f64())
}
