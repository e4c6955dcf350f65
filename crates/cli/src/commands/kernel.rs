//! `kernel`: what microVMs boot.

use serde::Serialize;

use stead_host::linux::guest::kernels;
use stead_image::Pulled;

use crate::args::KernelCommand;
use crate::failure::Failure;
use crate::output::{Output, raw, table};
use crate::session::home;
use crate::working::Working;

#[derive(Serialize)]
struct KernelRow {
    name: String,
    package: String,
    modules: usize,
}

/// Carries out one of them.
pub(crate) fn run(command: KernelCommand, output: Output) -> Result<(), Failure> {
    let home = home()?;
    let store = kernels(&home);
    match command {
        KernelCommand::Ls => {
            let rows = store.list()?.into_iter().map(|kernel| KernelRow {
                name: kernel.name,
                package: kernel.package,
                modules: kernel.modules.len(),
            });
            let rows: Vec<KernelRow> = rows.collect();
            let cells =
                |row: &KernelRow| vec![row.name.clone(), row.package.clone(), row.modules.to_string()];
            let text =
                || table(&["KERNEL", "PACKAGE", "MODULES"], &rows.iter().map(cells).collect::<Vec<_>>());
            output.data(&rows, text).map_err(Failure::from)
        }
        KernelCommand::Pull { package } => {
            home.prepare()?;
            let _working = Working::on("getting the kernel");
            let (Pulled::New(kernel) | Pulled::Known(kernel)) = store.pull(package.as_deref())?;
            raw(&format!("{}\n", kernel.name)).map_err(Failure::from)
        }
        KernelCommand::Rm { kernels } => {
            for name in kernels {
                if !store.remove(&name)? {
                    let what = format!("there is no kernel `{name}`");
                    return Err(Failure::request(&what, "`stead kernel ls` lists them"));
                }
            }
            Ok(())
        }
    }
}
