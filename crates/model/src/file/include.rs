//! `include`: what other files have, as if it stood in this one. Their paths start in their own directories, their
//! variables are those of this file and what the `.env` beside them has more, and all of it stands where this file says
//! `include`, for there it can be helped.

use std::path::{Path, PathBuf};

use super::cut::{self, Cut};
use super::dotenv::{self, Bare};
use super::extend::{get_mut, move_path, move_paths, size};
use super::interpolate::{Scope, Variables};
use super::merge::{self, names};
use super::problem::{Problem, Span, quote};
use super::spec::{Ground, absolute};
use super::yaml::{Entry, NODES_MAX, Node, Value};
use super::{FileText, Reading, join};

/// Files that include each other one after the other. Bounds our recursion.
const DEPTH_MAX: usize = 16;

/// Puts into the tree what it includes.
pub(crate) fn resolve(tree: &mut Node, reading: &mut Reading<'_>) -> Vec<Cut> {
    let (dir, variables) = (reading.source.dir.to_owned(), reading.source.env.clone());
    let mut walk = Walk { trail: Vec::new(), nodes: size(tree), cuts: Vec::new(), reading };
    walk.gather(tree, (&dir, &variables), None);
    walk.cuts
}

/// The way through files that include each other.
struct Walk<'r, 'a> {
    trail: Vec<PathBuf>,
    /// How many values there are so far.
    nodes: usize,
    /// Where what is included takes nothing of what it extends.
    cuts: Vec<Cut>,
    reading: &'r mut Reading<'a>,
}

/// What is included: files that go over each other, where their paths start, and what has their variables.
struct Wanted {
    paths: Vec<String>,
    directory: Option<String>,
    env_files: Vec<String>,
}

impl Wanted {
    fn read(item: &Node) -> Option<Self> {
        let Value::Mapping(keys) = &item.value else {
            let paths = texts(item);
            return (!paths.is_empty()).then_some(Self { paths, directory: None, env_files: Vec::new() });
        };
        let of = |key: &str| {
            let found = keys.iter().find(|entry| entry.key == key);
            found.map(|entry| texts(&entry.node)).unwrap_or_default()
        };
        let wanted =
            Self { paths: of("path"), directory: of("project_directory").pop(), env_files: of("env_file") };
        (!wanted.paths.is_empty()).then_some(wanted)
    }
}

/// A single text, or those of a list.
fn texts(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Scalar(text) => vec![text.clone()],
        Value::Sequence(items) => items.iter().flat_map(texts).collect(),
        Value::Null | Value::Unknown | Value::Mapping(_) => Vec::new(),
    }
}

impl Walk<'_, '_> {
    /// Puts into a tree what it includes itself. `told` is where this file's own `include` stands, if it is not that one.
    fn gather(&mut self, tree: &mut Node, around: (&Path, &Variables), told: Option<(Span, &str)>) {
        let Value::Mapping(entries) = &mut tree.value else { return };
        let Some(at) = entries.iter().position(|entry| entry.key == "include") else { return };
        let Value::Sequence(items) = entries.remove(at).node.value else { return };
        for (index, item) in items.iter().enumerate() {
            let path = format!("include[{index}]");
            let told = told.unwrap_or((item.span, &path));
            if let Some(wanted) = Wanted::read(item)
                && let Some(included) = self.included(&wanted, around, told)
            {
                self.add(tree, included, &wanted, told);
            }
        }
    }

    fn problem(&mut self, (span, path): (Span, &str), about: &str, message: String, hint: &str) {
        self.reading.problems.push(Problem::found(span, path, about, message).hint(hint));
    }

    /// What files have, with all that they include.
    fn included(
        &mut self,
        wanted: &Wanted,
        (dir, variables): (&Path, &Variables),
        told: (Span, &str),
    ) -> Option<Node> {
        let first = self.place(wanted.paths.first()?, dir, told)?;
        let own_dir = match &wanted.directory {
            Some(directory) => self.place(directory, dir, told)?,
            None => first.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        if self.trail.contains(&first) || self.trail.len() >= DEPTH_MAX {
            let way = self.trail.iter().chain([&first]).filter_map(|path| path.file_name());
            let way: Vec<String> = way.map(|name| name.to_string_lossy().into_owned()).collect();
            let message = format!("files include each other: {}", quote(&way.join(" → ")));
            self.problem(told, &wanted.paths.join(" "), message, "leave one of them out");
            return None;
        }
        let variables = self.variables(wanted, (dir, &own_dir), variables, told)?;
        let mut whole: Option<Node> = None;
        for name in &wanted.paths {
            let path = self.place(name, dir, told)?;
            let (tree, cuts) = self.reading.tree_of(&path, name, &variables, told)?;
            whole = Some(match whole {
                None => tree,
                Some(mut base) => {
                    cut::below(&mut base, &cuts, &[]);
                    merge::files(base, tree, self.reading.dialect)
                }
            });
            self.cuts.extend(cuts);
        }
        let mut whole = whole?;
        self.trail.push(first);
        self.gather(&mut whole, (&own_dir, &variables), Some(told));
        self.trail.pop();
        move_all(&mut whole, &own_dir);
        self.nodes += size(&whole);
        if self.nodes > NODES_MAX {
            let message = format!("the project has more than {NODES_MAX} values with all that it includes");
            self.problem(told, &wanted.paths.join(" "), message, "include less");
            return None;
        }
        Some(whole)
    }

    fn place(&mut self, name: &str, dir: &Path, told: (Span, &str)) -> Option<PathBuf> {
        match absolute(Ground { dir, ..self.reading.ground() }, name) {
            Ok(path) => Some(path),
            Err(wrong) => {
                self.reading.problems.push(wrong.at(told.0, told.1, name));
                None
            }
        }
    }

    /// The variables of a file that is included: those around it, and what its own files of them have more.
    fn variables(
        &mut self,
        wanted: &Wanted,
        (dir, own_dir): (&Path, &Path),
        around: &Variables,
        told: (Span, &str),
    ) -> Option<Variables> {
        let mut variables = around.clone();
        let mut files = vec![(".env".to_owned(), own_dir.join(".env"))];
        if !wanted.env_files.is_empty() {
            files.clear();
            for name in &wanted.env_files {
                files.push((name.clone(), self.place(name, dir, told)?));
            }
        }
        // The later ones win.
        for (name, path) in files.iter().rev() {
            let text = match self.reading.file_at(path) {
                FileText::Text(text) => text,
                FileText::Missing if wanted.env_files.is_empty() => continue,
                FileText::Missing => {
                    self.problem(told, name, format!("there is no file {}", quote(name)), super::WRITE_IT);
                    continue;
                }
                FileText::Unreadable(why) => {
                    self.problem(
                        told,
                        name,
                        format!("{} cannot be read: {why}", quote(name)),
                        super::READABLE,
                    );
                    continue;
                }
            };
            let (mut problems, mut warnings) = (Vec::new(), Vec::new());
            let unread = self.reading.unread.clone();
            let mut scope = Scope { unread: &unread, ..Scope::strict(&variables) };
            let read = dotenv::read(&text, &mut scope, Bare::Refused, (&mut problems, &mut warnings));
            self.reading.elsewhere(name, told, problems, warnings);
            self.reading.unread.extend(read.unread);
            // The last line of a name wins within its file.
            let found: Variables = read.found.into_iter().collect();
            for (key, value) in found {
                variables.entry(key).or_insert(value);
            }
        }
        Some(variables)
    }

    /// Puts what is included beside what is there. A name that both have has to mean the same.
    fn add(&mut self, tree: &mut Node, included: Node, wanted: &Wanted, told: (Span, &str)) {
        let (Value::Mapping(own), Value::Mapping(theirs)) = (&mut tree.value, included.value) else { return };
        let file = wanted.paths.join(" ");
        for group in theirs {
            match group.key.as_str() {
                // It is part of the project here.
                "name" | "version" => continue,
                "defaults" => {
                    let message = format!("{} has `defaults`, which hold in one file only", quote(&file));
                    self.problem(told, &file, message, "write what they say under its machines");
                    continue;
                }
                _ => {}
            }
            let Some(mine) = own.iter_mut().find(|entry| entry.key == group.key) else {
                own.push(group);
                continue;
            };
            let different = join_group(mine, group);
            for name in different {
                let message = format!("{} is in {} as well, and not the same", quote(&name), quote(&file));
                self.problem(told, &file, message, "give one of them another name, or `extends` it");
            }
        }
    }
}

/// Puts the entries of a group beside those that are there; the names that are in both and are not the same.
fn join_group(mine: &mut Entry, theirs: Entry) -> Vec<String> {
    // Volumes may be a list of their names.
    let (own, more) = (names(mine.node.clone()), names(theirs.node));
    let key = mine.key.clone();
    let (span, value) = (own.span, own.value);
    let (mut entries, more) = match (value, more.value) {
        (Value::Mapping(entries), Value::Mapping(more)) => (entries, more),
        (Value::Null, more) => {
            mine.node.value = more;
            return Vec::new();
        }
        // Nothing to add, or what is no group, which was told.
        _ => return Vec::new(),
    };
    let mut different = Vec::new();
    for entry in more {
        match entries.iter().find(|known| known.key == entry.key) {
            None => entries.push(entry),
            Some(known) if same(&known.node, &entry.node) => {}
            Some(_) => different.push(join(&key, &entry.key)),
        }
    }
    mine.node = Node { span, value: Value::Mapping(entries) };
    different
}

/// Whether two trees say the same, wherever they stand.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Mapping(one), Value::Mapping(other)) => {
            let has = |entry: &Entry| {
                other.iter().any(|known| known.key == entry.key && same(&known.node, &entry.node))
            };
            one.len() == other.len() && one.iter().all(has)
        }
        (Value::Sequence(one), Value::Sequence(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (one, other) => one == other,
    }
}

/// Paths that start in `dir` are made whole, so that they mean the same here.
fn move_all(tree: &mut Node, dir: &Path) {
    let Value::Mapping(groups) = &mut tree.value else { return };
    for group in groups {
        let Value::Mapping(entries) = &mut group.node.value else { continue };
        for entry in entries {
            match group.key.as_str() {
                "machines" | "services" => move_paths(&mut entry.node, dir),
                "secrets" | "configs" => {
                    let file = get_mut(&mut entry.node, "file").map(|node| &mut node.value);
                    if let Some(Value::Scalar(text)) = file {
                        *text = move_path(dir, text).unwrap_or_else(|| text.clone());
                    }
                }
                // Only what is bound has a path there.
                "volumes" => {
                    let options = get_mut(&mut entry.node, "driver_opts");
                    let device = options.and_then(|options| get_mut(options, "device"));
                    if let Some(Value::Scalar(text)) = device.map(|node| &mut node.value) {
                        *text = move_path(dir, text).unwrap_or_else(|| text.clone());
                    }
                }
                _ => {}
            }
        }
    }
}
