//! Finding and reading a project: its file, what the file may refer to, and the lock beside it.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};

use stead_host::home::{remove_unfinished, write_whole};
use stead_model::file::{
    self, Build, Decoded, FileText, Known, Problems, Pull, Source, Sources, Span, file_of,
};
use stead_model::lock::Lock;
use stead_model::name::{MachineId, Name};
use stead_model::project::{Project, ProjectFiles};
use stead_model::resolve::Refusal;

use self::search::leads_nowhere;
pub(crate) use self::search::{FILE_NAMES, Found, file_in, find, find_here, found, is_none_here, is_stdin};
use crate::args::Global;
use crate::failure::Failure;
use crate::output::note;

/// The file of variables beside a project's file.
const ENVIRONMENT: &str = ".env";

/// More than any person writes; less than what would be slow to refuse.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What is asked for beside what a project's files say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// The profiles; `*` is all.
    pub(crate) profiles: BTreeSet<String>,
    /// What the project is called, whatever its file says.
    pub(crate) called: Option<Name>,
    /// How many there are to be of machines, whatever the file says.
    pub(crate) scale: BTreeMap<Name, u16>,
}

impl Asked {
    fn of(global: &Global) -> Self {
        let profiles = global.profile.iter().cloned().collect();
        Self { profiles, called: global.project_name.clone(), scale: BTreeMap::new() }
    }

    /// All that there may be of a project, by this name, if one is said.
    fn all(called: Option<&Name>) -> Self {
        Self { profiles: ["*".to_owned()].into(), called: called.cloned(), scale: BTreeMap::new() }
    }
}

/// What stands where in a project's files.
struct Texts {
    /// The files in their order.
    files: Vec<PathBuf>,
    /// How many lines each has.
    lines: Vec<usize>,
    /// What stands in them, one behind the other.
    text: String,
    /// What is lawful there and yet likely a mistake.
    warnings: Vec<Problems>,
}

/// A project as its files have it.
pub(crate) struct Loaded {
    files: Texts,
    pub(crate) directory: PathBuf,
    /// How its files are recorded.
    pub(crate) recorded: ProjectFiles,
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
    /// A machine of the project that no file has, and the one of the file that it is made after.
    pub(crate) one_off: Option<(Name, Name)>,
}

impl Loaded {
    /// Tells the warnings.
    fn told(self) -> Self {
        self.files.warnings.iter().for_each(|warnings| note(warnings.to_string().trim_end()));
        self
    }

    /// Refusals, as problems of the files: what they ask for cannot be had here.
    pub(crate) fn refused(&self, refusals: Vec<Refusal>) -> Failure {
        let refusals = refusals.into_iter().map(|refusal| self.in_file(refusal)).collect();
        let problems = self.sources.problems("", &self.files.text, refusals);
        Failure::File(self.files.parted(problems).into_iter().flatten().collect())
    }

    /// A refusal of what no file has, told where the file has what that is made after.
    fn in_file(&self, refusal: Refusal) -> Refusal {
        let Some((name, of)) = &self.one_off else { return refusal };
        let rest = refusal.key.strip_prefix(&format!("machines.{name}"));
        match rest.filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])) {
            Some(rest) => Refusal { key: format!("machines.{of}{rest}"), ..refusal },
            None => refusal,
        }
    }

    /// The file that a place is in, and its line there.
    pub(crate) fn line(&self, span: Span) -> (&Path, usize) {
        let (index, line) = file_of(span.line, &self.files.lines);
        (self.files.files.get(index).map_or(Path::new(""), PathBuf::as_path), line)
    }

    /// The machines that other profiles would bring: what is there of them is left alone.
    pub(crate) fn resting(&self) -> BTreeSet<Name> {
        let by_profile = self.dormant.iter().filter(|(_, profiles)| !profiles.is_empty());
        by_profile.map(|(name, _)| name.clone()).collect()
    }

    /// Refuses a file without anything in it: a slip, where it would take all of a project away.
    pub(crate) fn with_something(self) -> Result<Self, Failure> {
        let Project { networks, external_networks, machines, volumes, external_volumes, .. } = &self.project;
        let count = networks.len() + external_networks.len() + volumes.len() + external_volumes.len();
        if count + machines.len() + self.dormant.len() == 0 {
            let called =
                |file: &PathBuf| if is_stdin(file) { shown(file) } else { file.display().to_string() };
            let named: Vec<String> = self.files.files.iter().map(called).collect();
            let verb = if named.len() == 1 { "names" } else { "name" };
            let what = format!("{} {verb} no machine, no network and no volume", named.join(", "));
            return Err(Failure::request(&what, "to take the project away say `stead down`"));
        }
        Ok(self)
    }
}

impl Texts {
    /// What is told of each of the files, by its name.
    fn parted(&self, problems: Problems) -> Vec<Option<Problems>> {
        let names = self.files.iter().map(|file| shown(file));
        problems.parted(&names.zip(self.lines.iter().copied()).collect::<Vec<_>>())
    }
}

/// How a file is called by who is here, so that the name leads to it.
pub(crate) fn shown(path: &Path) -> String {
    if is_stdin(path) {
        return "standard input".to_owned();
    }
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
    load_with(&found(global)?, &Asked::of(global), relock).map(Loaded::told)
}

/// The same for machines that are named: whoever names one asks for its profiles.
pub(crate) fn load_named(global: &Global, machines: &[String], relock: bool) -> Result<Loaded, Failure> {
    load_scaled(global, machines, &BTreeMap::new(), relock)
}

/// The same with so many of these machines.
pub(crate) fn load_scaled(
    global: &Global,
    machines: &[String],
    scale: &BTreeMap<Name, u16>,
    relock: bool,
) -> Result<Loaded, Failure> {
    let found = found(global)?;
    let mut asked = Asked::of(global);
    // Those of profiles are scaled once those are known.
    let loaded = load_with(&found, &asked, relock)?;
    let names = loaded.project.machines.keys().chain(loaded.dormant.keys());
    let ids: Vec<MachineId> = names.map(|name| MachineId::new(&loaded.project.name, name)).collect();
    let named = machines.iter().flat_map(|pattern| crate::commands::among(pattern, ids.iter()));
    let by_name = named.filter_map(|id| loaded.dormant.get(&id.name)).flatten();
    let before = asked.profiles.len();
    asked.profiles.extend(by_name.cloned());
    asked.scale.clone_from(scale);
    let is_as_asked = asked.profiles.len() == before && scale.is_empty();
    let loaded = if is_as_asked { loaded } else { load_with(&found, &asked, relock)? };
    Ok(loaded.told())
}

/// Reads the project of files on record, by this name if one is said.
pub(crate) fn load_recorded(files: &ProjectFiles, called: Option<&Name>) -> Result<Loaded, Failure> {
    let gone = |what: String| Failure::request(&what, "restore it, or `stead down` the project by its name");
    if files.named.iter().any(|file| is_stdin(file)) {
        return Err(read_before());
    }
    if let Some(file) = files.named.iter().find(|file| !file.exists()) {
        return Err(gone(format!("there is no file {} any more", file.display())));
    }
    let found = match Found::named(files.named.iter().cloned()) {
        Some(found) => found,
        None => Found::beside(file_in(&files.directory).ok_or_else(|| {
            gone(format!("there is no stead.yaml in {} any more", files.directory.display()))
        })?),
    };
    // Whichever profiles a machine was made by.
    load_with(&found, &Asked::all(called), false).map(Loaded::told)
}

/// That a file was read by an earlier command, and is nowhere.
pub(crate) fn read_before() -> Failure {
    let what = "the project's file was standard input of `stead up -f -`, and is not kept";
    Failure::request(what, "`stead up -f -` with it again; or write it into a file, and `stead up -f` that")
}

/// How a project's files are recorded: only those that nobody would look for.
fn recorded(found: &Found, directory: &Path) -> Result<ProjectFiles, Failure> {
    let whole = |path: &Path| match path.file_name() {
        Some(name) if !is_stdin(path) => Ok(directory_of(path)?.join(name)),
        Some(_) | None => Ok(path.to_owned()),
    };
    let all = |found: &Found| found.all().map(whole).collect::<Result<Vec<_>, Failure>>();
    let usual = file_in(directory).map(|file| all(&Found::beside(file))).transpose()?;
    let named = Some(all(found)?).filter(|named| found.is_named && usual.as_ref() != Some(named));
    Ok(ProjectFiles { named: named.unwrap_or_default(), ..directory.into() })
}

/// Reads this project file.
pub(crate) fn load_file(path: &Path) -> Result<Loaded, Failure> {
    load_with(&Found::one(path.to_owned()), &Asked::default(), false).map(Loaded::told)
}

/// What project files say, of all their profiles, for who tells nobody of what is wrong with them.
pub(crate) fn peek(found: &Found, called: Option<&Name>) -> Option<Project> {
    let path = &found.file;
    let directory = directory_of(path).ok()?;
    let text = |path| read_text(path, SAVE_AS, OTHER_FILE).ok()?;
    let over: Vec<String> = found.over.iter().map(|path| text(path)).collect::<Option<_>>()?;
    let text = text(path)?;
    let Known { variables, unread, .. } = variables_of(&directory, called).ok()?;
    let file_name = path.file_name()?.to_string_lossy();
    let texts = crate::session::home().ok()?.texts();
    let Asked { profiles, .. } = &Asked::all(called);
    let source = Source::new(&file_name, &text, &variables, &directory);
    let source = Source { profiles, called, unread: &unread, texts: &texts, over: &over, ..source };
    let files = file::files(&source, read_other);
    file::parse(&Source { files: &files, ..source }).ok().map(|parsed| parsed.project)
}

/// What stands in the files of a project, in their order.
fn read_all(found: &Found) -> Result<Vec<Decoded>, Failure> {
    let read = |path: &Path| {
        read(path, OTHER_FILE)?.ok_or_else(|| {
            Failure::request(&format!("there is no file {}", path.display()), "name another with `-f`")
        })
    };
    found.all().map(read).collect()
}

fn load_with(found: &Found, asked: &Asked, relock: bool) -> Result<Loaded, Failure> {
    let Asked { profiles, called, scale } = asked;
    let called = called.as_ref();
    let path = found.file.as_path();
    let directory = directory_of(path)?;
    let read = read_all(found)?;
    let (mut over, no_text): (Vec<String>, Vec<Option<Problems>>) =
        read.into_iter().map(|read| (read.text, read.problems)).unzip();
    let text = over.remove(0);
    let Known { variables, unread, problems: wrong_lines } = variables_of(&directory, called)?;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let texts = crate::session::home()?.texts();
    let source = Source::new(&file_name, &text, &variables, &directory);
    let source = Source { profiles, called, scale, unread: &unread, texts: &texts, over: &over, ..source };
    let all = found.all().map(Path::to_owned).collect();
    let mut said = Texts { files: all, lines: source.lines(), text: source.whole(), warnings: Vec::new() };
    let files = file::files(&source, read_other);
    let parsed = file::parse(&Source { files: &files, ..source });
    let lock = load_lock(&directory);
    let wrong_lock = match &lock {
        // What it says does not count, only that there is none any more.
        Err(Failure::File(problems)) if !relock => problems.as_slice(),
        Ok(_) | Err(_) => &[],
    };
    let wrong_files = match &parsed {
        Ok(_) => no_text,
        Err(problems) => {
            let parts = said.parted(problems.clone());
            no_text.into_iter().zip(parts).map(|(bytes, text)| both(bytes, text)).collect()
        }
    };
    // One hides none of the others.
    let wrong = [wrong_lines].into_iter().chain(wrong_files).flatten();
    let wrong: Vec<Problems> = wrong.chain(wrong_lock.iter().cloned()).collect();
    let parsed = match parsed {
        Ok(parsed) if wrong.is_empty() => parsed,
        Ok(_) | Err(_) => return Err(Failure::File(wrong)),
    };
    let (lock, lock_is_lost) = or_none(lock, &directory, relock)?;
    let file::Parsed { project, sources, pull, builds, texts, warnings, dormant } = parsed;
    said.warnings = warnings.map(|warnings| said.parted(warnings)).into_iter().flatten().flatten().collect();
    let recorded = recorded(found, &directory)?;
    let loaded = Loaded {
        files: said,
        directory,
        recorded,
        project,
        sources,
        lock,
        lock_is_lost,
        pull,
        builds,
        texts,
        dormant,
        one_off: None,
    };
    Ok(loaded)
}

/// A lock; or none where it cannot be read and is to be written anew, and whether that is so.
fn or_none(lock: Result<Lock, Failure>, directory: &Path, relock: bool) -> Result<(Lock, bool), Failure> {
    match lock {
        // Nothing can be written over a directory.
        Err(unreadable @ (Failure::Request(_) | Failure::File(_)))
            if relock && !lock_path(directory).is_dir() =>
        {
            note(&format!(
                "what stead.lock says is passed over; it cannot be read:\n{}",
                unreadable.text().trim_end()
            ));
            Ok((Lock::default(), true))
        }
        read => Ok((read?, false)),
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
    let directory = if is_stdin(path) { Path::new(".") } else { path.parent().unwrap_or(Path::new("/")) };
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

/// What stands on standard input, which can be read but once.
fn standard_input() -> Result<Vec<u8>, Failure> {
    static READ: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(bytes) = READ.get() {
        return Ok(bytes.clone());
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes);
    if read.context("cannot read standard input")? as u64 > FILE_MAX_BYTES {
        let what = format!("standard input has more than {} MiB", FILE_MAX_BYTES >> 20);
        return Err(Failure::request(&what, OTHER_FILE));
    }
    Ok(READ.get_or_init(|| bytes).clone())
}

fn read_bytes(path: &Path, instead: &str) -> Result<Option<Vec<u8>>, Failure> {
    if is_stdin(path) {
        return standard_input().map(Some);
    }
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

/// The same where the project has such a name, which its file may refer to as Compose's do.
fn variables_of(directory: &Path, called: Option<&Name>) -> Result<Known, Failure> {
    let mut known = variables(directory)?;
    known.variables.extend(called.map(|name| ("COMPOSE_PROJECT_NAME".to_owned(), name.to_string())));
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
