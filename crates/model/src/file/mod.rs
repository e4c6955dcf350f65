//! `stead.yaml`: text to a checked [`Project`], or every problem of it at once.
//!
//! ```text
//! text ──yaml──▶ tree ──interpolate──▶ tree ──structure──▶ tree that fits ──gather──▶ tree ──spec──▶ Spec ──check──▶ Project
//!                                               ▲ shape: one table; also the JSON Schema and the reference
//! ```
//! `gather` brings in what other files say: `extends`, `env_file`, `label_file`. We read no file ourselves: [`files`] asks for each.
//!
//! Each stage goes on as far as it can after a problem, so that one run tells them all; what a later
//! stage cannot read was reported by an earlier one, and is left out of its checks.

mod build;
mod check;
mod compose;
mod cut;
mod decode;
mod dotenv;
mod elsewhere;
mod environment;
mod extend;
mod include;
mod interpolate;
mod keys;
mod leaf;
mod locked;
mod merge;
mod over;
mod problem;
mod published;
mod render;
mod said;
mod scripts;
mod shape;
mod sources;
mod spec;
mod structure;
#[cfg(test)]
mod tests;
mod texts;
mod user_data;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

pub use build::{Build, Dockerfile};
pub use compose::ports_of_docker;
pub use decode::{Decoded, decode};
pub use dotenv::{Known, variables};
pub use interpolate::Variables;
pub(crate) use locked::problems as lock_problems;
pub use over::file_of;
pub(crate) use problem::quote;
pub use problem::{Problem, Problems, Span};
pub use published::{reference, schema};
pub use render::{Origins, render, render_json, render_json_with, render_with};
pub use said::replicas;
pub use sources::Sources;

/// What a volume of this size may take, for who asks for it outside of a file: bytes, or what is wrong with the text.
pub fn volume_bytes(text: &str) -> Result<u64, String> {
    leaf::quantity::volume_bytes(text).map_err(|wrong| format!("{}: {}", wrong.message, wrong.hint))
}

/// The ports that a text in the short form (`8080:80`) publishes, each with the port that it leads to, for who asks
/// for it outside of a file; or what is wrong with the text, and what to do. On 127.0.0.1 if it names no address.
pub fn published_ports(text: &str) -> Result<Vec<(Bind, u16)>, (String, String)> {
    let ports = leaf::port::port(text).map_err(|wrong| (wrong.message, wrong.hint))?;
    let address = ports.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let each = (ports.port.first..=ports.port.last).zip(ports.target.first..=ports.target.last);
    Ok(each.map(|(port, target)| (Bind { protocol: ports.protocol, address, port }, target)).collect())
}

use crate::name::Name;
use crate::project::{Bind, Project};
use cut::Cut;
use interpolate::{Scope, Unread, Unset};
use yaml::{Node, Value};

/// A project file, and what it may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file's name, as messages show it.
    pub file_name: &'a str,
    /// What stands in it.
    pub text: &'a str,
    /// What stands in the files that go over it, each over those before.
    pub over: &'a [String],
    /// The variables it may use; [`variables`] makes them of the environment and `.env`.
    pub env: &'a Variables,
    /// Those that it may use and that could not be read, which was reported: what uses them is not checked.
    pub unread: &'a BTreeSet<String>,
    /// The directory it is in, absolute: where its paths start, and the project's name where the file has none.
    pub dir: &'a Path,
    /// The other files that it names; [`files`] gathers them.
    pub files: &'a Files,
    /// The profiles that were asked for; `*` is all.
    pub profiles: &'a BTreeSet<String>,
    /// How many there are to be of these machines, whatever the file says.
    pub scale: &'a BTreeMap<Name, u16>,
    /// What the project is called, whatever the file says.
    pub called: Option<&'a Name>,
    /// The directory for the texts of secrets and configs that stand in the file itself.
    pub texts: &'a Path,
}

/// What Compose calls its files, in the order in which it looks for them.
pub const COMPOSE_NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// What Compose calls the files that go over those, in the order in which it looks for them.
pub const COMPOSE_OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// For those who have none.
static NO_FILES: Files = Files::new();
static NO_PROFILES: BTreeSet<String> = BTreeSet::new();
static NO_SCALE: BTreeMap<Name, u16> = BTreeMap::new();

impl<'a> Source<'a> {
    /// A file that names no others, with no profiles asked for.
    pub fn new(file_name: &'a str, text: &'a str, env: &'a Variables, dir: &'a Path) -> Self {
        let (files, profiles, scale) = (&NO_FILES, &NO_PROFILES, &NO_SCALE);
        let (unread, called) = (&interpolate::ALL_READ, None);
        Self { file_name, text, over: &[], env, unread, dir, files, profiles, scale, called, texts: dir }
    }
}

/// What stands in files, by their absolute paths.
pub type Files = BTreeMap<PathBuf, FileText>;

/// What stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileText {
    /// This text.
    Text(String),
    /// There is no such file.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// A project, and where each key of it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The project.
    pub project: Project,
    /// The places.
    pub sources: Sources,
    /// When images of machines are pulled, where the file says it.
    pub pull: BTreeMap<Name, Pull>,
    /// How images of machines are built, where the file says it.
    pub builds: BTreeMap<Name, Build>,
    /// The files that have to be there before anything is mounted, and what is to be in them.
    pub texts: BTreeMap<PathBuf, String>,
    /// The machines that are not there this time, with the profiles that would bring them; none of those if they have no
    /// replicas.
    pub dormant: BTreeMap<Name, BTreeSet<String>>,
    /// What is lawful and yet likely a mistake.
    pub warnings: Option<Problems>,
}

/// When the image of a machine is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// If it is not here.
    #[default]
    Missing,
    /// Each time the machine is created.
    Always,
    /// Not at all: it has to be here.
    Never,
    /// Instead it is built, each time.
    Build,
}

/// Whose words a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Our own.
    Stead,
    /// Those of the Compose specification.
    Compose,
}

/// Reads and checks a project file, reporting every problem rather than only the first.
pub fn parse(source: &Source<'_>) -> Result<Parsed, Problems> {
    let named = Reading::new(source).variables();
    let source = &Source { env: named.as_ref().unwrap_or(source.env), ..*source };
    let mut reading = Reading::new(source);
    let parsed = reading.project();
    let text = &source.whole();
    match parsed {
        Some(mut parsed) if reading.problems.is_empty() => {
            let warnings = Some(reading.warnings).filter(|warnings| !warnings.is_empty());
            parsed.warnings = warnings.map(|warnings| Problems::new(source.file_name, text, warnings));
            Ok(parsed)
        }
        _ => {
            // What is wrong with a value may come of a variable that stands for nothing.
            let places: BTreeSet<Span> = reading.problems.iter().map(|problem| problem.span).collect();
            let causes = reading.warnings.into_iter().filter(|warning| places.contains(&warning.span));
            reading.problems.extend(causes);
            Err(Problems::new(source.file_name, text, reading.problems))
        }
    }
}

/// The files that a project file names, each read by `read`, which is given its absolute path. `source.files` does not
/// count.
pub fn files(source: &Source<'_>, mut read: impl FnMut(&Path) -> FileText) -> Files {
    let mut files = Files::new();
    loop {
        let missing = missing(&Source { files: &files, ..*source });
        if missing.is_empty() {
            return files;
        }
        for path in missing {
            let text = read(&path);
            files.insert(path, text);
        }
    }
}

fn missing(source: &Source<'_>) -> BTreeSet<PathBuf> {
    let named = Reading::new(source).variables();
    let source = &Source { env: named.as_ref().unwrap_or(source.env), ..*source };
    let mut reading = Reading::new(source);
    // Whatever else is wrong is told once all files are there.
    let _ = reading.project();
    reading.missing
}

/// What to do about a file that is not there.
const WRITE_IT: &str = "write it, or name another; a path is relative to the file that names it";

/// What to do about one that cannot be read.
const READABLE: &str = "let it be a text file that you may read";

/// A tree, and where it takes nothing of what is below it.
type Tree = (Node, Vec<Cut>);

/// Where problems and warnings go.
type Found<'p> = (&'p mut Vec<Problem>, &'p mut Vec<Problem>);

/// One reading of a file.
struct Reading<'a> {
    source: &'a Source<'a>,
    dialect: Dialect,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The variables that could not be read, which was reported.
    unread: Unread,
    /// The files that were asked for and not handed in.
    missing: BTreeSet<PathBuf>,
    /// The texts that become files.
    texts: BTreeMap<PathBuf, String>,
    /// The services that are not there this time, and of which nothing is told that is wrong.
    resting: compose::Resting,
    /// The machines of this file that others of it extend.
    extended: BTreeSet<String>,
}

impl<'a> Reading<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        let (problems, warnings) = (Vec::new(), Vec::new());
        let (missing, texts) = (BTreeSet::new(), BTreeMap::new());
        let unread = source.unread.clone();
        let (resting, extended) = (compose::Resting::default(), BTreeSet::new());
        Self {
            source,
            dialect: Dialect::Stead,
            problems,
            warnings,
            unread,
            missing,
            texts,
            resting,
            extended,
        }
    }

    /// The variables, if there is one more for the words that the file is written in.
    fn variables(&self) -> Option<Variables> {
        (self.spoken() == Dialect::Compose).then(|| compose::with_project_name(self.source)).flatten()
    }

    fn project(&mut self) -> Option<Parsed> {
        self.dialect = self.spoken();
        let machines = match self.dialect {
            Dialect::Stead => "machines",
            Dialect::Compose => "services",
        };
        let mut tree = self.whole_tree(machines)?;
        if self.dialect == Dialect::Compose {
            self.resting = compose::Resting::new(&mut tree, &self.profiles(), &self.extended);
            compose::owners(&mut tree, self);
            compose::warn_of_shells(&mut tree, self);
        }
        environment::gather(&mut tree, machines, self);
        build::gather(&mut tree, machines, self);
        texts::gather(&mut tree, self);
        user_data::gather(&mut tree, machines, self);
        scripts::gather(&mut tree, machines, self);
        keys::gather(&mut tree, machines, self);
        if self.dialect == Dialect::Compose {
            tree = compose::translate(tree, self);
        }
        let mut spec = spec::read(&tree, self.ground(), &mut self.problems);
        let asked = check::Asked { source: self.source, profiles: &self.profiles() };
        let (project, dormant) = check::check(&mut spec, &asked, &mut self.problems)?;
        let there: BTreeSet<Name> = spec.machines.iter().map(|machine| machine.name.value.clone()).collect();
        for told in [&mut self.problems, &mut self.warnings] {
            told.retain(|problem| !self.resting.has(&problem.path, &there));
        }
        let sources = Sources::new(&tree, &project);
        let (pull, builds) = (spec.pulls(), spec.builds());
        let texts = std::mem::take(&mut self.texts);
        Some(Parsed { project, sources, pull, builds, texts, dormant, warnings: None })
    }

    /// The trees of the project's files over each other, if none is so wrong that it has none.
    fn whole_tree(&mut self, machines: &str) -> Option<Node> {
        let mut above = 0;
        let mut trees = Vec::new();
        let source = self.source;
        for (text, lines) in source.texts().zip(source.lines()) {
            trees.push(self.own_tree(text, above, machines));
            above += lines;
        }
        let trees = trees.into_iter().collect::<Option<Vec<_>>>()?;
        let whole = trees.into_iter().reduce(|(mut base, _), (own, cuts)| {
            cut::below(&mut base, &cuts, &[]);
            (merge::files(base, own, self.dialect), cuts)
        });
        whole.map(|(tree, _)| tree)
    }

    /// The tree of a file of the project, with what it brings in from others, and where it takes nothing of those that it
    /// goes over. `above` lines are before it.
    fn own_tree(&mut self, text: &str, above: usize, machines: &str) -> Option<Tree> {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        problems.extend(over::in_other_words(text, self.dialect));
        let is_of_these = problems.is_empty();
        let tree =
            is_of_these.then(|| self.tree(text, self.source.env, (&mut problems, &mut warnings))).flatten();
        over::lower(&mut problems, above);
        over::lower(&mut warnings, above);
        self.problems.append(&mut problems);
        self.warnings.append(&mut warnings);
        let (mut tree, cuts) = tree?;
        over::lower_tree(&mut tree, above);
        let included = include::resolve(&mut tree, self);
        let all: Vec<_> = cuts.iter().cloned().chain(included).collect();
        extend::resolve(&mut tree, &all, machines, self);
        Some((tree, cuts))
    }

    /// Whose words the files are written in: what the first has that has such, and where none does, the first one's name.
    fn spoken(&self) -> Dialect {
        let named = COMPOSE_NAMES.contains(&self.source.file_name);
        let usual = if named { Dialect::Compose } else { Dialect::Stead };
        self.source.texts().find_map(over::told_by).unwrap_or(usual)
    }

    /// The tree of a text of this dialect, with its variables filled in; what does not fit the table is told.
    fn tree(&self, text: &str, variables: &Variables, found: Found<'_>) -> Option<Tree> {
        let (problems, warnings) = found;
        let (mut tree, cuts) = self.bare(text, problems)?;
        self.settle(&mut tree, variables, (problems, warnings));
        Some((tree, cuts))
    }

    /// The tree of a text of this dialect as it is written.
    fn bare(&self, text: &str, problems: &mut Vec<Problem>) -> Option<Tree> {
        let (mut tree, cuts) = match yaml::parse_over(text, problems) {
            Ok(tree) => tree,
            Err(fatal) => {
                problems.push(*fatal);
                return None;
            }
        };
        match self.dialect {
            // What is not ours may hold anything.
            Dialect::Stead => without_extensions(&mut tree),
            Dialect::Compose => compose::strip(&mut tree),
        }
        Some((tree, cuts))
    }

    /// Fills in a tree's variables, and tells what does not fit the table.
    fn settle(&self, tree: &mut Node, variables: &Variables, (problems, warnings): Found<'_>) {
        interpolate::tree(tree, "", &mut self.scope(variables), (problems, warnings));
        let shape = match self.dialect {
            Dialect::Stead => shape::ROOT,
            Dialect::Compose => {
                compose::strip_empty(tree);
                compose::loosen(tree, compose::ROOT, "", warnings);
                compose::ROOT
            }
        };
        structure::check(tree, shape, "", problems);
        structure::once(tree, shape, "", problems);
    }

    /// The profiles that were asked for, for Compose's files also by its variable.
    fn profiles(&self) -> BTreeSet<String> {
        let mut profiles = self.source.profiles.clone();
        if let (Dialect::Compose, Some(more)) = (self.dialect, self.source.env.get("COMPOSE_PROFILES")) {
            profiles
                .extend(more.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
        }
        profiles
    }

    fn scope<'v>(&'v self, variables: &'v Variables) -> Scope<'v> {
        let unset = match self.dialect {
            Dialect::Stead => Unset::Problem,
            Dialect::Compose => Unset::Empty(Vec::new()),
        };
        Scope { unset, unread: &self.unread, ..Scope::strict(variables) }
    }

    fn ground(&self) -> spec::Ground<'a> {
        spec::Ground { dir: self.source.dir, home: self.source.env.get("HOME").map(String::as_str) }
    }
}

/// Takes out the keys that Compose leaves to others, and so do we.
fn without_extensions(node: &mut Node) {
    if let Value::Mapping(entries) = &mut node.value {
        entries.retain(|entry| !entry.key.starts_with("x-"));
    }
}

/// Whether a text is a public key as `ssh-keygen` writes it, in its line.
pub(crate) fn is_public_key(text: &str) -> bool {
    leaf::vm::ssh_key(text).is_ok()
}

/// The path of a key under another.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
