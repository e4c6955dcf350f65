//! `init`: a project file to begin with.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::Context;

use stead_model::file::{Source, Variables, parse};

use crate::args::{InitArgs, Template};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::project::{FILE_NAMES, file_in};

impl Template {
    /// The file.
    fn text(self) -> &'static str {
        match self {
            Self::Dev => include_str!("init/dev.yaml"),
            Self::Web => include_str!("init/web.yaml"),
            Self::Agents => include_str!("init/agents.yaml"),
        }
    }

    /// The directories beside it that its machines mount.
    fn directories(self) -> &'static [&'static str] {
        match self {
            Self::Web => &["www"],
            Self::Dev | Self::Agents => &[],
        }
    }
}

/// Writes a project file where there is none.
pub(crate) fn init(args: &InitArgs, output: Output) -> Result<(), Failure> {
    let directory = std::env::current_dir().context("cannot tell which directory this is")?;
    if let Some(there) = file_in(&directory) {
        return Err(there_is(&there));
    }
    let path = directory.join(FILE_NAMES.first().copied().unwrap_or_default());
    let text = named(args.template.text(), &directory);
    for name in args.template.directories() {
        let path = directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let failed = |error| anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
    let mut file = match File::create_new(&path) {
        Ok(file) => file,
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(there_is(&path)),
        Err(error) => return Err(failed(error).into()),
    };
    if let Err(error) = file.write_all(text.as_bytes()) {
        // Half of one would be in the way of the next.
        let _gone = fs::remove_file(&path);
        return Err(failed(error).into());
    }
    output.data(&path, || format!("{}\n", path.display()))?;
    note("read it, change it, then say `stead up`");
    Ok(())
}

fn there_is(path: &Path) -> Failure {
    let what = format!("there is a project here already: {}", path.display());
    Failure::request(&what, "say it in another directory")
}

/// The same, with a name where the directory's cannot name a project.
fn named(text: &str, directory: &Path) -> String {
    let environment = Variables::default();
    let source = Source::new("stead.yaml", text, &environment, directory);
    if parse(&source).is_ok() { text.to_owned() } else { format!("name: project\n\n{text}") }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_template_is_a_project_wherever_it_is_written() {
        for template in Template::value_variants() {
            for directory in ["/srv/shop", "/srv/My Projects", "/"] {
                let text = named(template.text(), Path::new(directory));
                assert_eq!(text.starts_with("name: "), directory == "/", "{template:?} in {directory}");
                let environment = Variables::default();
                let source = Source::new("stead.yaml", &text, &environment, Path::new(directory));
                let problems = parse(&source).err().map(|problems| problems.to_string());
                assert_eq!(problems, None, "{template:?} in {directory}");
            }
        }
    }
}
