//! `kernel`: what microVMs boot.

use serde::Serialize;

use stead_host::linux::guest::kernels;
use stead_host::template::{About, Template, Templates};
use stead_image::Pulled;

use super::image::size;
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
    templates: Vec<TemplateRow>,
}

/// A guest that was saved when it had booted, for others to go on from.
#[derive(Serialize)]
struct TemplateRow {
    cpus: u32,
    memory_mib: u64,
    nics: usize,
    accelerator: String,
    bytes: u64,
    used_unix_s: u64,
}

impl From<&Template> for TemplateRow {
    fn from(template: &Template) -> Self {
        let Template { about, bytes, used_unix_s, .. } = template.clone();
        let About { cpus, memory_mib, nics, accelerator, .. } = about;
        Self { cpus, memory_mib, nics, accelerator, bytes, used_unix_s }
    }
}

/// How many there are, and how large all are.
fn kept(templates: &[TemplateRow]) -> String {
    match templates.len() {
        0 => "-".to_owned(),
        count => format!("{count}, {}", size(templates.iter().map(|template| template.bytes).sum())),
    }
}

/// Carries out one of them.
pub(crate) fn run(command: KernelCommand, output: Output) -> Result<(), Failure> {
    let home = home()?;
    let store = kernels(&home);
    let templates = Templates::of(&home);
    match command {
        KernelCommand::Ls => {
            let all = templates.list()?;
            let of = |name: &str| {
                all.iter().filter(|one| one.about.kernel == name).map(TemplateRow::from).collect()
            };
            let rows = store.list()?.into_iter().map(|kernel| KernelRow {
                templates: of(&kernel.name),
                name: kernel.name,
                package: kernel.package,
                modules: kernel.modules.len(),
            });
            let rows: Vec<KernelRow> = rows.collect();
            let cells = |row: &KernelRow| {
                vec![row.name.clone(), row.package.clone(), row.modules.to_string(), kept(&row.templates)]
            };
            let text = || {
                table(
                    &["KERNEL", "PACKAGE", "MODULES", "TEMPLATES"],
                    &rows.iter().map(cells).collect::<Vec<_>>(),
                )
            };
            output.data(&rows, text).map_err(Failure::from)
        }
        KernelCommand::Pull { package } => {
            home.prepare()?;
            let _working = Working::on("getting the kernel");
            let (Pulled::New(kernel) | Pulled::Known(kernel)) = store.pull(package.as_deref())?;
            raw(&format!("{}\n", kernel.name)).map_err(Failure::from)
        }
        KernelCommand::Prune => {
            templates.prune(None)?;
            Ok(())
        }
        KernelCommand::Rm { kernels } => {
            for name in kernels {
                let is_removed = store.remove(&name)?;
                // Of what is being saved at this moment the kernel is missed after that.
                templates.prune(Some(&name))?;
                if !is_removed {
                    let what = format!("there is no kernel `{name}`");
                    return Err(Failure::request(&what, "`stead kernel ls` lists them"));
                }
            }
            Ok(())
        }
    }
}
