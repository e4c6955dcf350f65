//! `extends`: a machine takes from another, of this file or another one, what it does not say itself. What comes from
//! another file stands where this one says `extends`, for there it can be helped; its paths start in its own directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::cut::{self, Cut};
use super::environment::under;
use super::leaf::dev::is_key_file;
use super::leaf::mount::{self, VolumeSource};
use super::merge::{self, merge};
use super::problem::{Problem, Span, nearest, quote};
use super::spec::{Ground, absolute};
use super::yaml::{Entry, NODES_MAX, Node, Value};
use super::{Dialect, Reading, join};

/// Machines that extend each other one after the other. Bounds our recursion.
const DEPTH_MAX: usize = 32;

/// Puts in place of each machine under `tree`'s key `machines` what it is with all that it extends.
///
/// `cuts` is where they take nothing of that.
pub(crate) fn resolve(tree: &mut Node, cuts: &[Cut], machines: &str, reading: &mut Reading<'_>) {
    let home: Machines = under(tree, machines).to_vec().into();
    if !home.iter().any(|entry| get(&entry.node, "extends").is_some()) {
        return;
    }
    reading.extended.extend(home.iter().filter_map(|entry| match &get(&entry.node, "extends")?.value {
        Value::Scalar(name) => Some(name.clone()),
        Value::Mapping(keys) => keys.iter().find_map(|key| match &key.node.value {
            Value::Scalar(name) if ["service", "machine"].contains(&key.key.as_str()) => Some(name.clone()),
            Value::Null | Value::Unknown | Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => None,
        }),
        Value::Null | Value::Unknown | Value::Sequence(_) => None,
    }));
    let (key, dir) = (machines.to_owned(), reading.source.dir.to_owned());
    let usual = merge::usual(tree, reading.dialect);
    let (files, taken) = (BTreeMap::new(), BTreeMap::new());
    let mut walk = Walk { machines: key, files, taken, trail: Vec::new(), usual, reading };
    let mut nodes = 0;
    for entry in under(tree, machines) {
        let path = join(machines, &entry.key);
        let file = File { path: None, name: String::new(), dir: dir.clone(), cuts: cuts.into() };
        walk.trail = vec![(None, entry.key.clone())];
        entry.node = walk.whole(&entry.node, &path, &file, &home);
        nodes += size(&entry.node);
        if nodes > NODES_MAX {
            let message = format!("the machines have more than {NODES_MAX} values with all that they extend");
            let problem = Problem::found(entry.key_span, &path, &entry.key, message);
            walk.reading.problems.push(problem.hint("let them extend less"));
            return;
        }
    }
}

/// A file that machines are taken from: this one, or another by its path.
#[derive(Clone)]
struct File {
    path: Option<PathBuf>,
    /// What it was called by whoever named it first.
    name: String,
    dir: PathBuf,
    /// Where its machines take nothing of what they extend.
    cuts: Rc<[Cut]>,
}

/// The way through machines that extend each other.
struct Walk<'r, 'a> {
    /// The key that machines are under.
    machines: String,
    /// The machines of the other files that were read, as they are written; nothing for those that cannot be.
    files: BTreeMap<PathBuf, Option<(File, Machines)>>,
    /// Those machines of them that are wanted, looked at.
    taken: BTreeMap<(PathBuf, String), Node>,
    trail: Trail,
    /// What is meant by ports that do not say all.
    usual: merge::Usual,
    reading: &'r mut Reading<'a>,
}

/// The machines of a file. Each may extend another, and none is to be copied for that.
type Machines = Rc<[Entry]>;

/// The machines that extend each other down to here, each with its file.
type Trail = Vec<(Option<PathBuf>, String)>;

impl Walk<'_, '_> {
    /// A machine with all that it extends.
    fn whole(&mut self, node: &Node, path: &str, file: &File, machines: &Machines) -> Node {
        let mut own = node.clone();
        let Value::Mapping(keys) = &mut own.value else { return own };
        let Some(at) = keys.iter().position(|entry| entry.key == "extends") else { return own };
        let extends = keys.remove(at);
        let path = join(path, "extends");
        let Some((name, other)) = wanted(&extends.node, self.reading.dialect) else { return own };
        let told = |message: String| Problem::found(extends.node.span, &path, &name, message);
        let base = match other {
            None => from(&name, file, machines),
            Some(other) => match self.load(&other, &file.dir, (extends.node.span, &path)) {
                Some((file, machines)) => from(&name, &file, &machines),
                None => return own,
            },
        };
        let (base, base_file, siblings) = match base {
            Ok(found) => found,
            Err(hint) => {
                let problem = told(format!("there is no machine {} to extend", quote(&name)));
                self.reading.problems.push(problem.hint(hint));
                return own;
            }
        };
        let step = (base_file.path.clone(), name.clone());
        if self.trail.contains(&step) || self.trail.len() > DEPTH_MAX {
            let shown: Vec<&str> =
                self.trail.iter().map(|(_, name)| name.as_str()).chain([name.as_str()]).collect();
            let problem = told(format!("machines extend each other: {}", quote(&shown.join(" → "))));
            self.reading.problems.push(problem.hint("leave one of them out"));
            return own;
        }
        let base = match &step.0 {
            Some(file_path) => self.take((file_path, &name), base, &base_file, (extends.node.span, &path)),
            None => base,
        };
        self.trail.push(step);
        let mut base = self.whole(&base, &path, &base_file, &siblings);
        self.trail.pop();
        if base_file.path != file.path {
            move_paths(&mut base, &base_file.dir);
        }
        if let Some((_, own_name)) = self.trail.last() {
            cut::below(&mut base, &file.cuts, &[&self.machines, own_name]);
        }
        merge(base, own, self.usual)
    }

    /// The machines of another file.
    fn load(&mut self, name: &str, dir: &Path, at: (Span, &str)) -> Option<(File, Machines)> {
        let ground = Ground { dir, ..self.reading.ground() };
        let file_path = match absolute(ground, name) {
            Ok(path) => path,
            Err(wrong) => {
                self.reading.problems.push(wrong.at(at.0, at.1, name));
                return None;
            }
        };
        if !self.files.contains_key(&file_path) {
            let read = self.read(&file_path, name, at);
            self.files.insert(file_path.clone(), read);
        }
        self.files.get(&file_path)?.clone()
    }

    fn read(&mut self, file_path: &Path, name: &str, at: (Span, &str)) -> Option<(File, Machines)> {
        let text = self.reading.text_of(file_path, name, at)?;
        let mut problems = Vec::new();
        let tree = self.reading.bare(&text, &mut problems);
        self.reading.elsewhere(name, at, problems, Vec::new());
        let (mut tree, cuts) = tree?;
        let dir = file_path.parent().unwrap_or(Path::new("/")).to_owned();
        let (path, name) = (Some(file_path.to_owned()), name.to_owned());
        let file = File { path, name, dir, cuts: cuts.into() };
        Some((file, under(&mut tree, &self.machines).to_vec().into()))
    }

    /// A machine of another file, in which nothing else counts: what is wrong with the others is no matter of this project.
    fn take(&mut self, key: (&Path, &str), written: Node, file: &File, at: (Span, &str)) -> Node {
        let key = (key.0.to_owned(), key.1.to_owned());
        if let Some(known) = self.taken.get(&key) {
            return known.clone();
        }
        let span = written.span;
        let mapping = |name: &str, node| {
            let entry = Entry { key: name.to_owned(), key_span: span, node };
            Node { span, value: Value::Mapping(vec![entry]) }
        };
        let mut tree = mapping(&self.machines, mapping(&key.1, written));
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let variables = &self.reading.source.env;
        self.reading.settle(&mut tree, variables, (&mut problems, &mut warnings));
        self.reading.elsewhere(&file.name, at, problems, warnings);
        put(&mut tree, at.0);
        let node = under(&mut tree, &self.machines).first().map(|entry| entry.node.clone());
        let node = node.unwrap_or(Node { span: at.0, value: Value::Null });
        self.taken.insert(key, node.clone());
        node
    }
}

/// A machine of a file, the file, and its other machines; or what to do where there is none.
type Base = Result<(Node, File, Machines), String>;

fn from(name: &str, file: &File, machines: &Machines) -> Base {
    match machines.iter().find(|entry| entry.key == name) {
        Some(entry) => Ok((entry.node.clone(), file.clone(), machines.clone())),
        None => Err(match nearest(name, machines.iter().map(|entry| entry.key.as_str())) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "name one of that file's machines, or leave `extends` out".to_owned(),
        }),
    }
}

/// What is extended: a machine's name, and a file's unless it is of this one.
fn wanted(node: &Node, dialect: Dialect) -> Option<(String, Option<String>)> {
    let key = match dialect {
        Dialect::Stead => "machine",
        Dialect::Compose => "service",
    };
    let text = |key: &str| match get(node, key).map(|node| &node.value) {
        Some(Value::Scalar(text)) => Some(text.clone()),
        _ => None,
    };
    match &node.value {
        Value::Scalar(name) => Some((name.clone(), None)),
        Value::Mapping(_) => Some((text(key)?, text("file"))),
        Value::Null | Value::Unknown | Value::Sequence(_) => None,
    }
}

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Mapping(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

/// A path that starts in `dir`, made whole; nothing for one that starts elsewhere, or is none.
pub(crate) fn move_path(dir: &Path, text: &str) -> Option<String> {
    let path = absolute(Ground { dir, home: None }, text).ok().filter(|_| !text.starts_with('~'))?;
    Some(path.to_string_lossy().into_owned())
}

pub(crate) fn get_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    let Value::Mapping(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
}

/// Paths that start in `dir` are made whole, so that they mean the same elsewhere.
pub(crate) fn move_paths(machine: &mut Node, dir: &Path) {
    let moved = |text: &str| move_path(dir, text);
    let Value::Mapping(keys) = &mut machine.value else { return };
    for entry in keys {
        match entry.key.as_str() {
            "env_file" | "label_file" => each(&mut entry.node, |node| {
                if let Some(text) = text_of(node, "path") {
                    *text = moved(text).unwrap_or_else(|| text.clone());
                }
            }),
            "volumes" => each(&mut entry.node, |node| move_volume(node, &moved)),
            "extends" => {
                let other = get_mut(&mut entry.node, "file");
                if let Some(Value::Scalar(text)) = other.map(|node| &mut node.value) {
                    *text = moved(text).unwrap_or_else(|| text.clone());
                }
            }
            "build" => {
                if let Some(text) = text_of(&mut entry.node, "context") {
                    *text = moved(text).unwrap_or_else(|| text.clone());
                }
            }
            "image" => {
                if let Value::Scalar(text) = &mut entry.node.value
                    && text.starts_with('.')
                {
                    *text = moved(text).unwrap_or_else(|| text.clone());
                }
            }
            "cloud_init" => {
                let file =
                    text_of(&mut entry.node, "user_data").filter(|text| super::user_data::is_file(text));
                if let Some(text) = file {
                    *text = moved(text).unwrap_or_else(|| text.clone());
                }
            }
            "provision" => each(&mut entry.node, |node| {
                if let Some(Value::Scalar(text)) = get_mut(node, "path").map(|node| &mut node.value) {
                    *text = moved(text).unwrap_or_else(|| text.clone());
                }
            }),
            "dev" => {
                if let Some(keys) = get_mut(&mut entry.node, "keys") {
                    each(keys, |node| {
                        if let Value::Scalar(text) = &mut node.value
                            && is_key_file(text)
                        {
                            *text = moved(text).unwrap_or_else(|| text.clone());
                        }
                    });
                }
            }
            "security_opt" => each(&mut entry.node, |node| {
                if let Value::Scalar(text) = &mut node.value
                    && let Some(path) =
                        text.strip_prefix("seccomp=").or_else(|| text.strip_prefix("seccomp:"))
                    && path.starts_with('.')
                    && let Some(path) = moved(path)
                {
                    *text = format!("seccomp={path}");
                }
            }),
            _ => {}
        }
    }
}

fn move_volume(node: &mut Node, moved: &impl Fn(&str) -> Option<String>) {
    let relative = |text: &str| text.starts_with('.');
    match &mut node.value {
        Value::Mapping(_) => {
            if let Some(text) = text_of(node, "source").filter(|text| relative(text)) {
                *text = moved(text).unwrap_or_else(|| text.clone());
            }
        }
        // In its long form, for a directory may have a colon in its name.
        Value::Scalar(text) => {
            let Ok(volume) = mount::volume(text) else { return };
            let VolumeSource::Path(path) = &volume.source else { return };
            let Some(path) = Some(path).filter(|path| relative(path)).and_then(|path| moved(path)) else {
                return;
            };
            let options =
                text.rsplit(':').next().filter(|_| text.matches(':').count() == 2).unwrap_or_default();
            let propagation =
                options.split(',').find(|word| mount::PROPAGATIONS.iter().any(|(known, _)| known == word));
            let span = node.span;
            let leaf = |key: &str, value: &str| {
                let node = Node { span, value: Value::Scalar(value.to_owned()) };
                Entry { key: key.to_owned(), key_span: span, node }
            };
            let mut entries =
                vec![leaf("type", "bind"), leaf("source", &path), leaf("target", &volume.target)];
            if options.split(',').any(|word| word == "ro") {
                entries.push(leaf("read_only", "true"));
            }
            if let Some(word) = propagation {
                let value = Value::Mapping(vec![leaf("propagation", word)]);
                entries.push(Entry { key: "bind".to_owned(), key_span: span, node: Node { span, value } });
            }
            node.value = Value::Mapping(entries);
        }
        Value::Null | Value::Unknown | Value::Sequence(_) => {}
    }
}

/// A single value, or those of a list.
fn each(node: &mut Node, mut change: impl FnMut(&mut Node)) {
    match &mut node.value {
        Value::Sequence(items) => items.iter_mut().for_each(change),
        Value::Null | Value::Unknown | Value::Scalar(_) | Value::Mapping(_) => change(node),
    }
}

/// The text under `key` of a mapping, or the single value that stands in its place.
fn text_of<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut String> {
    let scalar =
        |node: &'n mut Node| if let Value::Scalar(text) = &mut node.value { Some(text) } else { None };
    match &mut node.value {
        Value::Scalar(text) => Some(text),
        Value::Mapping(entries) => {
            entries.iter_mut().find(|entry| entry.key == key).and_then(|entry| scalar(&mut entry.node))
        }
        Value::Null | Value::Unknown | Value::Sequence(_) => None,
    }
}

/// Gives all of a tree one place.
pub(crate) fn put(node: &mut Node, span: Span) {
    node.span = span;
    match &mut node.value {
        Value::Sequence(items) => items.iter_mut().for_each(|item| put(item, span)),
        Value::Mapping(entries) => {
            for entry in entries {
                entry.key_span = span;
                put(&mut entry.node, span);
            }
        }
        Value::Null | Value::Unknown | Value::Scalar(_) => {}
    }
}

/// How many values a tree has.
pub(crate) fn size(node: &Node) -> usize {
    match &node.value {
        Value::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Mapping(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
        Value::Null | Value::Unknown | Value::Scalar(_) => 1,
    }
}
