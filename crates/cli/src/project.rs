//! Finding and reading a project: its file, what the file may refer to, and the lock beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use stead_host::home::{remove_unfinished, write_whole};
use stead_model::file::{
    self, Build, COMPOSE_NAMES, COMPOSE_OVERRIDES, Decoded, FileText, Known, Problems, Pull, Source, Sources,
    Span,
};
use stead_model::lock::Lock;
use stead_model::name::Name;
use stead_model::project::Project;
use stead_model::resolve::Refusal;

use crate::args::Global;
use crate::failure::Failure;
use crate::output::note;

/// The names that a project file has, in the order in which they are looked for: ours, then Compose's.
pub(crate) const FILE_NAMES: [&str; 2] = ["stead.yaml", "stead.yml"];

/// The first of these in a directory.
pub(crate) fn file_in(directory: &Path) -> Option<PathBuf> {
    let names = FILE_NAMES.into_iter().chain(COMPOSE_NAMES);
    // A link that leads nowhere is told, not passed over.
    names.map(|name| directory.join(name)).find(|path| path.is_file() || leads_nowhere(path).is_some())
}

/// Where a link leads to that leads to nothing.
fn leads_nowhere(path: &Path) -> Option<PathBuf> {
    let to = fs::read_link(path).ok()?;
    matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound).then_some(to)
}

/// A project's file, and the one beside it that goes over it.
pub(crate) struct Found {
    file: PathBuf,
    over: Option<PathBuf>,
    /// Whether somebody named it.
    pub(crate) is_named: bool,
}

impl Found {
    /// A file that was named: nothing goes over it.
    pub(crate) fn named(file: PathBuf) -> Self {
        Self { file, over: None, is_named: true }
    }

    /// A file that was found in a directory.
    fn beside(file: PathBuf) -> Self {
        let is_composes = file.file_name().is_some_and(|name| COMPOSE_NAMES.iter().any(|one| name == *one));
        let paths = COMPOSE_OVERRIDES.map(|name| file.with_file_name(name)).into_iter();
        let over = paths.filter(|_| is_composes).find(|path| path.is_file() || leads_nowhere(path).is_some());
        Self { file, over, is_named: false }
    }
}

/// The file of variables beside a project's file.
const ENVIRONMENT: &str = ".env";

/// More than any person writes; less than what would be slow to refuse.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What stands where in a project's files.
struct Texts {
    file: PathBuf,
    /// The one that goes over it.
    over: Option<PathBuf>,
    /// How many lines the file itself has.
    own_lines: usize,
    /// What stands in it, and behind it what stands in the other.
    text: String,
    /// What is lawful there and yet likely a mistake.
    warnings: Vec<Problems>,
}

/// A project as its files have it.
pub(crate) struct Loaded {
    files: Texts,
    pub(crate) directory: PathBuf,
    pub(crate) project: Project,
    pub(crate) sources: Sources,
    pub(crate) lock: Lock,
    /// Whether the lock could not be read, and is to be written anew.
    pub(crate) lock_is_lost: bool,
    /// When images of machines are pulled, where the file says it.
    pub(crate) pull: BTreeMap<Name, Pull>,
    /// How images of machines are built, where the file says it.
    pub(crate) builds: BTreeMap<Name, Build>,
    /// The files that have to be there before anything is mounted, and what is to be in them.
    pub(crate) texts: BTreeMap<PathBuf, String>,
    /// The machines that are not there this time, with the profiles that would bring them.
    pub(crate) dormant: BTreeMap<Name, BTreeSet<String>>,
}

impl Loaded {
    /// Tells the warnings.
    fn told(self) -> Self {
        self.files.warnings.iter().for_each(|warnings| note(warnings.to_string().trim_end()));
        self
    }

    /// Refusals, as problems of the files: what they ask for cannot be had here.
    pub(crate) fn refused(&self, refusals: Vec<Refusal>) -> Failure {
        let Texts { file, over, own_lines, text, .. } = &self.files;
        let problems = self.sources.problems(&shown(file), text, refusals);
        let (own, over) = parted(problems, *own_lines, over.as_deref());
        Failure::File(own.into_iter().chain(over).collect())
    }

    /// The file that a place is in, and its line there.
    pub(crate) fn line(&self, span: Span) -> (&Path, usize) {
        let Texts { file, over, own_lines, .. } = &self.files;
        match (span.line.checked_sub(*own_lines), over) {
            (Some(line), Some(over)) if line > 0 => (over, line),
            _ => (file, span.line),
        }
    }

    /// The machines that other profiles would bring: what is there of them is left alone.
    pub(crate) fn resting(&self) -> BTreeSet<Name> {
        let by_profile = self.dormant.iter().filter(|(_, profiles)| !profiles.is_empty());
        by_profile.map(|(name, _)| name.clone()).collect()
    }

    /// Refuses a file without anything in it: a slip, where it would take all of a project away.
    pub(crate) fn with_something(self) -> Result<Self, Failure> {
        let Project { networks, machines, volumes, .. } = &self.project;
        if networks.is_empty() && machines.is_empty() && volumes.is_empty() && self.dormant.is_empty() {
            let what = format!("{} names no machine, no network and no volume", self.files.file.display());
            return Err(Failure::request(&what, "to take the project away say `stead down`"));
        }
        Ok(self)
    }
}

/// The project file: the one named, or the nearest one upwards from here.
pub(crate) fn find(global: &Global) -> Result<PathBuf, Failure> {
    Ok(found(global)?.file)
}

/// The same, with what goes over it.
pub(crate) fn found(global: &Global) -> Result<Found, Failure> {
    if let Some(file) = &global.file {
        let file = std::path::absolute(file).context("cannot make the file's path absolute")?;
        return Ok(Found::named(file));
    }
    find_here()
}

/// Whether no file is named, and there is none here or above.
pub(crate) fn is_none_here(global: &Global) -> bool {
    // Where somebody deleted the directory that we are in there is none either.
    global.file.is_none() && (matches!(search(), Ok(None)) || std::env::current_dir().is_err())
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
    Ok(named.map(Found::named).or_else(|| file.map(Found::beside)))
}

/// The variable that names files for Compose, and the one that says what is between them.
const COMPOSE_FILE: [&str; 2] = ["COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR"];

/// The file that Compose's variable names, in the environment or the `.env` of a project, unless the project's file is
/// one of ours.
fn named_by_variable(here: &Path, file: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    if file.and_then(Path::file_name).is_some_and(|name| FILE_NAMES.iter().any(|one| name == *one)) {
        return Ok(None);
    }
    let directory = file.and_then(Path::parent).unwrap_or(here);
    let [name, separator] = COMPOSE_FILE;
    let is_of_environment = std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let variables = match variables(directory) {
        Ok(known) => known.variables,
        // A `.env` without a project may be anything: to Python it is a directory.
        Err(_) if file.is_none() && !is_of_environment => return Ok(None),
        Err(wrong) => return Err(wrong),
    };
    let Some(value) = variables.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let separator = variables.get(separator).filter(|text| !text.is_empty()).map_or(":", String::as_str);
    if value.contains(separator) {
        let what = format!("`{name}` names several files: {}", value.escape_debug());
        let hint = "name one file, in which stands `include: [{ path: [first.yaml, second.yaml] }]`: those go over each \
                    other; or name one with `-f`";
        return Err(Failure::request(&what, hint));
    }
    Ok(Some(if is_of_environment { here } else { directory }.join(value)))
}

/// How a file is called by who is here, so that the name leads to it.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    shown_from(&here, path).display().to_string()
}

fn shown_from(here: &Path, path: &Path) -> PathBuf {
    if let Ok(below) = path.strip_prefix(here) {
        return below.to_owned();
    }
    let up = path.parent().and_then(|directory| here.strip_prefix(directory).ok());
    match up {
        Some(up) => up.iter().map(|_| "..").collect::<PathBuf>().join(path.file_name().unwrap_or_default()),
        None => path.to_owned(),
    }
}

/// Reads the project here.
pub(crate) fn load(global: &Global) -> Result<Loaded, Failure> {
    load_for(global, false)
}

/// Reads the project here, to choose anew what its lock pins, if so: then it need not be one that can be read.
pub(crate) fn load_for(global: &Global, relock: bool) -> Result<Loaded, Failure> {
    load_with(&found(global)?, &global.profile.iter().cloned().collect(), relock).map(Loaded::told)
}

/// The same for machines that are named: whoever names one asks for its profiles.
pub(crate) fn load_named(global: &Global, machines: &[String], relock: bool) -> Result<Loaded, Failure> {
    let found = found(global)?;
    let mut profiles: BTreeSet<String> = global.profile.iter().cloned().collect();
    let loaded = load_with(&found, &profiles, relock)?;
    let project = &loaded.project.name;
    let is_named = |name: &Name| {
        machines.iter().any(|text| *text == *name.as_str() || *text == format!("{name}.{project}"))
    };
    let asked = loaded.dormant.iter().filter(|(name, _)| is_named(name)).flat_map(|(_, profiles)| profiles);
    let before = profiles.len();
    profiles.extend(asked.cloned());
    let loaded = if profiles.len() > before { load_with(&found, &profiles, relock)? } else { loaded };
    Ok(loaded.told())
}

/// Reads the project in this directory.
pub(crate) fn load_in(directory: &Path) -> Result<Loaded, Failure> {
    let file = file_in(directory).ok_or_else(|| {
        let what = format!("there is no stead.yaml in {} any more", directory.display());
        Failure::request(&what, "restore it, or `stead down` the project by its name")
    })?;
    // Whichever profiles a machine was made by.
    load_with(&Found::beside(file), &["*".to_owned()].into(), false).map(Loaded::told)
}

/// Reads this project file.
pub(crate) fn load_file(path: &Path) -> Result<Loaded, Failure> {
    load_with(&Found::named(path.to_owned()), &BTreeSet::new(), false).map(Loaded::told)
}

/// What a project file says, of all its profiles, for who tells nobody of what is wrong with it.
pub(crate) fn peek(found: &Found) -> Option<Project> {
    let path = &found.file;
    let directory = directory_of(path).ok()?;
    let text = read_text(path, SAVE_AS, OTHER_FILE).ok()??;
    let over = found.over.as_ref().map(|over| read_text(over, SAVE_AS, OTHER_FILE).ok()?);
    let over = if let Some(text) = over { Some(text?) } else { None };
    let Known { variables, unread, .. } = variables(&directory).ok()?;
    let file_name = path.file_name()?.to_string_lossy();
    let texts = crate::session::home().ok()?.texts();
    let profiles = ["*".to_owned()].into();
    let source = Source::new(&file_name, &text, &variables, &directory);
    let over = over.as_deref();
    let source = Source { profiles: &profiles, unread: &unread, texts: &texts, over, ..source };
    let files = file::files(&source, read_other);
    file::parse(&Source { files: &files, ..source }).ok().map(|parsed| parsed.project)
}

fn load_with(found: &Found, profiles: &BTreeSet<String>, relock: bool) -> Result<Loaded, Failure> {
    let path = found.file.as_path();
    let directory = directory_of(path)?;
    let Some(Decoded { text, problems: no_text }) = read(path, OTHER_FILE)? else {
        let what = format!("there is no file {}", path.display());
        return Err(Failure::request(&what, "name another with `-f`"));
    };
    let over = found.over.as_deref().map(|over| read(over, OTHER_FILE)).transpose()?.flatten();
    let (over, over_no_text) = over.map_or((None, None), |over| (Some(over.text), over.problems));
    let Known { variables, unread, problems: wrong_lines } = variables(&directory)?;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let texts = crate::session::home()?.texts();
    let source = Source::new(&file_name, &text, &variables, &directory);
    let source = Source { profiles, unread: &unread, texts: &texts, over: over.as_deref(), ..source };
    let (text, own_lines) = (source.whole(), source.own_lines());
    let here =
        |problems| parted(Problems { file: shown(path), ..problems }, own_lines, found.over.as_deref());
    let files = file::files(&source, read_other);
    let parsed = file::parse(&Source { files: &files, ..source });
    let lock = load_lock(&directory);
    let wrong_lock = match &lock {
        // What it says does not count, only that there is none any more.
        Err(Failure::File(problems)) if !relock => problems.as_slice(),
        Ok(_) | Err(_) => &[],
    };
    let (wrong_file, wrong_over) = parsed.as_ref().err().cloned().map(here).unwrap_or_default();
    let wrong_files = [wrong_lines, both(no_text, wrong_file), both(over_no_text, wrong_over)];
    // One hides none of the others.
    let wrong: Vec<Problems> = wrong_files.into_iter().flatten().chain(wrong_lock.iter().cloned()).collect();
    let parsed = match parsed {
        Ok(parsed) if wrong.is_empty() => parsed,
        Ok(_) | Err(_) => return Err(Failure::File(wrong)),
    };
    let (lock, lock_is_lost) = match lock {
        // Nothing can be written over a directory.
        Err(unreadable @ (Failure::Request(_) | Failure::File(_)))
            if relock && !lock_path(&directory).is_dir() =>
        {
            note(&format!(
                "what stead.lock says is passed over; it cannot be read:\n{}",
                unreadable.text().trim_end()
            ));
            (Lock::default(), true)
        }
        read => (read?, false),
    };
    let file::Parsed { project, sources, pull, builds, texts, warnings, dormant } = parsed;
    let (warnings, more) = warnings.map(here).unwrap_or_default();
    let warnings = warnings.into_iter().chain(more).collect();
    let (file, over) = (path.to_owned(), found.over.clone());
    let files = Texts { file, over, own_lines, text, warnings };
    Ok(Loaded { files, directory, project, sources, lock, lock_is_lost, pull, builds, texts, dormant })
}

/// What is told of a file, and of the one that goes over it, each by its name.
fn parted(problems: Problems, own_lines: usize, over: Option<&Path>) -> (Option<Problems>, Option<Problems>) {
    match over {
        Some(over) => problems.parted(own_lines, &shown(over)),
        None => (Some(problems), None),
    }
}

/// What is wrong with a file's bytes, and with what they say.
fn both(bytes: Option<Problems>, text: Option<Problems>) -> Option<Problems> {
    match (bytes, text) {
        (Some(bytes), Some(text)) => Some(bytes.beside(text)),
        (bytes, text) => bytes.or(text),
    }
}

/// The directory that a project file is in, without links, so that a project is one whichever way it is
/// reached.
pub(crate) fn directory_of(path: &Path) -> Result<PathBuf, Failure> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::canonicalize(directory).map_err(|error| {
        Failure::request(
            &format!("there is no directory {} ({error})", directory.display()),
            "check the path",
        )
    })
}

/// What to do about a file that is no text.
const SAVE_AS: &str = "save the file as UTF-8";

/// What to do about a project file that is no file.
const OTHER_FILE: &str = "name another with `-f`";

/// A file's text; nothing if there is no such file. `instead` is what to do about what is no file.
fn read(path: &Path, instead: &str) -> Result<Option<Decoded>, Failure> {
    Ok(read_bytes(path, instead)?.map(|bytes| file::decode(&shown(path), &bytes, SAVE_AS)))
}

/// The same, of a file that is text or cannot be read.
fn read_text(path: &Path, hint: &str, instead: &str) -> Result<Option<String>, Failure> {
    match read_bytes(path, instead)?.map(|bytes| file::decode(&shown(path), &bytes, hint)) {
        Some(Decoded { problems: Some(problems), .. }) => Err(Failure::File(vec![problems])),
        decoded => Ok(decoded.map(|decoded| decoded.text)),
    }
}

fn read_bytes(path: &Path, instead: &str) -> Result<Option<Vec<u8>>, Failure> {
    let doing = || format!("cannot read {}", path.display());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(to) = leads_nowhere(path) else { return Ok(None) };
            let what = format!("{} is a link to {}, and there is nothing", shown(path), to.display());
            return Err(Failure::request(&what, "let it lead to a file again, or take it away"));
        }
        Err(error) => return Err(Failure::from(anyhow::Error::new(error).context(doing()))),
    };
    let is_not = if metadata.is_dir() {
        "is a directory, not a file".to_owned()
    } else if !metadata.is_file() {
        "is not a file".to_owned()
    } else if metadata.len() > FILE_MAX_BYTES {
        format!("has more than {} MiB", FILE_MAX_BYTES >> 20)
    } else {
        return Ok(Some(fs::read(path).with_context(doing)?));
    };
    Err(Failure::request(&format!("{} {is_not}", shown(path)), instead))
}
/// What stands in a file that the project file names.
pub(crate) fn read_other(path: &Path) -> FileText {
    match read_text(path, SAVE_AS, "") {
        Ok(Some(text)) => FileText::Text(text),
        Ok(None) => FileText::Missing,
        Err(failure) => {
            let text = failure.text();
            let why = text.lines().next().unwrap_or_default();
            FileText::Unreadable(why.strip_prefix("error: ").unwrap_or(why).to_owned())
        }
    }
}

/// What `${…}` may name: the environment, and `.env` beside the file.
fn variables(directory: &Path) -> Result<Known, Failure> {
    let path = directory.join(ENVIRONMENT);
    let instead = "move it away, or let it be a file with `NAME=value` in each line";
    let read = read(&path, instead)?.unwrap_or(Decoded { text: String::new(), problems: None });
    let texts = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let environment = texts.collect();
    let mut known = file::variables(ENVIRONMENT, &read.text, &environment);
    if read.problems.is_some() {
        // What has no text in it counts as a line that could not be read.
        let is_damaged = |name: &String, value: &mut String| {
            !environment.contains_key(name) && [name, &*value].iter().any(|text| text.contains('\u{fffd}'))
        };
        known.unread.extend(known.variables.extract_if(.., is_damaged).map(|(name, _)| name));
    }
    let here = |problems: Problems| Problems { file: shown(&path), ..problems };
    known.problems = both(read.problems, known.problems.map(here));
    Ok(known)
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.join("stead.lock")
}

fn load_lock(directory: &Path) -> Result<Lock, Failure> {
    let path = lock_path(directory);
    let hint = "restore it as it was, or choose anew by `stead up --relock`";
    let instead = "move it away: `stead up` writes the file";
    let Some(text) = read_text(&path, hint, instead)? else { return Ok(Lock::default()) };
    Lock::parse(&shown(&path), &text).map_err(|problems| Failure::File(vec![problems]))
}

/// Takes away what a command that was killed left beside a project's file.
pub(crate) fn tidy(directory: &Path) -> Result<()> {
    remove_unfinished(&lock_path(directory))
}

/// Writes the lock, if it changed.
pub(crate) fn store_lock(loaded: &Loaded, lock: &Lock) -> Result<()> {
    if *lock == loaded.lock && !loaded.lock_is_lost {
        return tidy(&loaded.directory);
    }
    write_whole(&lock_path(&loaded.directory), lock.render().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(here: &str, path: &str, expected: &str) {
        assert_eq!(shown_from(Path::new(here), Path::new(path)), Path::new(expected));
    }

    #[test]
    fn a_file_is_called_so_that_its_name_leads_to_it() {
        check("/a/b", "/a/b/stead.yaml", "stead.yaml");
        check("/a/b", "/a/b/../c/stead.yaml", "../c/stead.yaml");
        check("/a/b", "/a/b/c/stead.yaml", "c/stead.yaml");
        check("/a/b/c", "/a/stead.yaml", "../../stead.yaml");
        check("/a/b", "/c/stead.yaml", "/c/stead.yaml");
        check("/", "/stead.yaml", "stead.yaml");
    }
}
