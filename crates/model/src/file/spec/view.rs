//! A tree seen with paths: what stands under a key, read as what it should be, with its place.

use crate::file::join;
use crate::file::leaf::{self, Wrong};
use crate::file::problem::{Finding, Problem, Span};
use crate::file::yaml::{Entry, Node, Value};
use crate::name::{Alias, Name};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// Where something stands, and as what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) span: Span,
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Place {
    pub(crate) fn problem(&self, message: impl Into<String>) -> Finding {
        Problem::found(self.span, &self.path, &self.text, message)
    }
}

/// A value that may be left out.
#[derive(Clone, Debug, Default)]
pub(crate) enum Given<T> {
    #[default]
    Absent,
    /// There, but unreadable, which was reported: nothing may be concluded from it.
    Wrong,
    Is(At<T>),
}

impl<T: Clone> Given<T> {
    pub(crate) fn is(&self) -> Option<&At<T>> {
        match self {
            Self::Is(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    pub(crate) fn value(&self) -> Option<T> {
        self.is().map(|at| at.value.clone())
    }

    pub(crate) fn or(self, other: &Self) -> Self {
        if let Self::Absent = self { other.clone() } else { self }
    }
}

/// A node and its path; `place` is where messages about it as a whole point.
pub(crate) struct View<'a> {
    pub(crate) node: Option<&'a Node>,
    path: String,
    pub(crate) place: Place,
}

impl<'a> View<'a> {
    pub(crate) fn new(node: &'a Node, path: String) -> Self {
        let text = if let Value::Scalar(text) = &node.value { text.clone() } else { String::new() };
        Self { node: Some(node), place: Place { span: node.span, path: path.clone(), text }, path }
    }

    /// What says nothing.
    pub(crate) fn absent() -> Self {
        Self { node: None, path: String::new(), place: Place::default() }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (At<&'a str>, Self)> + use<'a> {
        let entries = match self.node.map(|node| &node.value) {
            Some(Value::Mapping(entries)) => entries.as_slice(),
            _ => &[],
        };
        let path = self.path.clone();
        entries.iter().map(move |entry| {
            let path = join(&path, &entry.key);
            let place = Place { span: entry.key_span, path: path.clone(), text: entry.key.clone() };
            (At { value: entry.key.as_str(), place }, View::new(&entry.node, path))
        })
    }

    fn find(&self, key: &str) -> Option<&'a Entry> {
        let Some(Value::Mapping(entries)) = self.node.map(|node| &node.value) else { return None };
        entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Self {
        let path = join(&self.path, key);
        match self.find(key) {
            Some(entry) => View::new(&entry.node, path),
            None => View { node: None, path, place: Place::default() },
        }
    }

    /// Where the key stands, if it does and something is under it.
    pub(crate) fn key_place(&self, key: &str) -> Option<Place> {
        let entry = self.find(key)?;
        Some(Place { span: entry.key_span, path: join(&self.path, key), text: key.to_owned() })
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let items = match self.node.map(|node| &node.value) {
            Some(Value::Sequence(items)) => items.as_slice(),
            _ => &[],
        };
        let path = self.path.clone();
        items.iter().enumerate().map(move |(index, node)| View::new(node, format!("{path}[{index}]")))
    }

    pub(crate) fn read<T>(&self, parse: impl Fn(&str) -> Result<T, Wrong>) -> Given<T> {
        match self.node.map(|node| &node.value) {
            None => Given::Absent,
            Some(Value::Scalar(text)) => match parse(text) {
                Ok(value) => Given::Is(At { value, place: self.place.clone() }),
                Err(_) => Given::Wrong,
            },
            Some(_) => Given::Wrong,
        }
    }

    pub(crate) fn names(&self) -> Vec<At<Name>> {
        let read = |view: Self| match view.read(leaf::name) {
            Given::Is(at) => Some(at),
            Given::Absent | Given::Wrong => None,
        };
        self.items().filter_map(read).collect()
    }

    pub(crate) fn aliases(&self) -> Vec<At<Alias>> {
        let read = |view: Self| match view.read(leaf::alias) {
            Given::Is(at) => Some(at),
            Given::Absent | Given::Wrong => None,
        };
        self.items().filter_map(read).collect()
    }

    /// The entries whose keys are names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (At<Name>, Self)> + use<'a> {
        self.entries().filter_map(|(key, view)| {
            Some((At { value: leaf::name(key.value).ok()?, place: key.place }, view))
        })
    }
}

/// Finds the value that a word stands for.
pub(crate) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&str) -> Result<T, Wrong> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| Wrong::found("not one of the words").hint("take one of them"))
    }
}

impl View<'_> {
    /// A single value, or those of a list.
    pub(crate) fn each<T: Clone>(&self, parse: impl Fn(&str) -> Result<T, Wrong>) -> Vec<At<T>> {
        let alone = self.read(&parse).is().cloned();
        alone.into_iter().chain(self.items().filter_map(|item| item.read(&parse).is().cloned())).collect()
    }

    /// Names with values: a mapping, or a list of `NAME=value`.
    pub(crate) fn pairs(&self) -> Vec<(At<String>, Option<String>)> {
        let mapped = self.entries().filter_map(|(key, view)| {
            let name = At { value: leaf::container::pair_name(key.value).ok()?, place: key.place };
            Some((name, view.read(leaf::container::any).value()))
        });
        let listed = self.items().filter_map(|item| {
            let At { value: (name, value), place } = item.read(leaf::container::pair).is()?.clone();
            Some((At { value: name, place }, value))
        });
        mapped.chain(listed).collect()
    }

    /// Whether `key` says yes.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).read(leaf::flag).value().unwrap_or(false)
    }
}
