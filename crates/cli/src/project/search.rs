//! Which files a project has: those that are named, or the nearest upwards from here.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use stead_model::file::{COMPOSE_NAMES, COMPOSE_OVERRIDES};

use super::variables;
use crate::args::Global;
use crate::failure::Failure;

/// The names that a project file has, in the order in which they are looked for: ours, then Compose's.
pub(crate) const FILE_NAMES: [&str; 2] = ["stead.yaml", "stead.yml"];

/// Whether a name stands for standard input, whose paths start here.
pub(crate) fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// The first of these in a directory.
pub(crate) fn file_in(directory: &Path) -> Option<PathBuf> {
    let names = FILE_NAMES.into_iter().chain(COMPOSE_NAMES);
    // A link that leads nowhere is told, not passed over.
    names.map(|name| directory.join(name)).find(|path| path.is_file() || leads_nowhere(path).is_some())
}

/// Where a link leads to that leads to nothing.
pub(super) fn leads_nowhere(path: &Path) -> Option<PathBuf> {
    let to = fs::read_link(path).ok()?;
    matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound).then_some(to)
}

/// A project's file, and those that go over it, each over those before.
pub(crate) struct Found {
    pub(super) file: PathBuf,
    pub(super) over: Vec<PathBuf>,
    /// Whether somebody named them.
    pub(crate) is_named: bool,
}

impl Found {
    /// Files that were named: nothing else goes over them. None if none was.
    pub(crate) fn named(files: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        let mut files = files.into_iter();
        Some(Self { file: files.next()?, over: files.collect(), is_named: true })
    }

    /// A file alone.
    pub(crate) fn one(file: PathBuf) -> Self {
        Self { file, over: Vec::new(), is_named: true }
    }

    /// A file that was found in a directory.
    pub(super) fn beside(file: PathBuf) -> Self {
        let is_composes = file.file_name().is_some_and(|name| COMPOSE_NAMES.iter().any(|one| name == *one));
        let paths = COMPOSE_OVERRIDES.map(|name| file.with_file_name(name)).into_iter();
        let over = paths.filter(|_| is_composes).find(|path| path.is_file() || leads_nowhere(path).is_some());
        Self { file, over: over.into_iter().collect(), is_named: false }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.file].into_iter().chain(&self.over).map(PathBuf::as_path)
    }
}

/// The project file: the first one named, or the nearest one upwards from here.
pub(crate) fn find(global: &Global) -> Result<PathBuf, Failure> {
    Ok(found(global)?.file)
}

/// The same, with what goes over it.
pub(crate) fn found(global: &Global) -> Result<Found, Failure> {
    let whole = |file: &PathBuf| if is_stdin(file) { Ok(file.clone()) } else { std::path::absolute(file) };
    let files = global.file.iter().map(whole).collect::<std::io::Result<Vec<_>>>();
    match Found::named(files.context("cannot make the file's path absolute")?) {
        Some(found) => Ok(found),
        None => find_here(),
    }
}

/// Whether no file is named, and there is none here or above.
pub(crate) fn is_none_here(global: &Global) -> bool {
    // Where somebody deleted the directory that we are in there is none either.
    global.file.is_empty() && (matches!(search(), Ok(None)) || std::env::current_dir().is_err())
}

/// The nearest project file upwards from here.
pub(crate) fn find_here() -> Result<Found, Failure> {
    search()?.ok_or_else(|| {
        let here = std::env::current_dir().unwrap_or_default();
        let what = format!("there is no stead.yaml in {} or above", here.display());
        Failure::request(
            &what,
            "write one (`stead schema` and docs/stead.yaml.md say how), or name one with `-f`",
        )
    })
}

fn search() -> Result<Option<Found>, Failure> {
    let here = std::env::current_dir().context("cannot find the current directory")?;
    let file = here.ancestors().find_map(file_in);
    let named = named_by_variable(&here, file.as_deref())?;
    Ok(Found::named(named).or_else(|| file.map(Found::beside)))
}

/// The variable that names files for Compose, and the one that says what is between them.
const COMPOSE_FILE: [&str; 2] = ["COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR"];

/// The files that Compose's variable names, in the environment or the `.env` of a project, unless the project's file is
/// one of ours.
fn named_by_variable(here: &Path, file: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    if file.and_then(Path::file_name).is_some_and(|name| FILE_NAMES.iter().any(|one| name == *one)) {
        return Ok(Vec::new());
    }
    let directory = file.and_then(Path::parent).unwrap_or(here);
    let [name, separator] = COMPOSE_FILE;
    let is_of_environment = std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let variables = match variables(directory) {
        Ok(known) => known.variables,
        // A `.env` without a project may be anything: to Python it is a directory.
        Err(_) if file.is_none() && !is_of_environment => return Ok(Vec::new()),
        Err(wrong) => return Err(wrong),
    };
    let Some(value) = variables.get(name) else { return Ok(Vec::new()) };
    let separator = variables.get(separator).filter(|text| !text.is_empty()).map_or(":", String::as_str);
    let from = if is_of_environment { here } else { directory };
    // As Compose has it, nothing between two of them names nothing.
    Ok(value.split(separator).filter(|name| !name.is_empty()).map(|name| from.join(name)).collect())
}
