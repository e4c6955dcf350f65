//! Where the keys of a project stand in its file, for whoever has something to say of one after the file was read.

use std::collections::BTreeMap;

use super::join;
use super::problem::{Problem, Problems, Span};
use super::yaml::{Node, Value};
use crate::project::Project;
use crate::resolve::Refusal;

/// Where keys stand in a file, by their path: `networks.lan.mtu`, `machines.web.ports[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, Place>);

/// Where a key's value stands, or the key itself where that is more than a single value; and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    span: Span,
    text: String,
}

impl Sources {
    /// The places of a tree's keys, of which a project was made.
    pub(crate) fn new(tree: &Node, project: &Project) -> Self {
        let mut sources = Self::default();
        sources.add(tree, "");
        sources.replicas(project);
        sources
    }

    /// The place of a key, or of the nearest one around it that stands in the file.
    pub fn find(&self, path: &str) -> Option<Span> {
        self.nearest(path).map(|(_, place)| place.span)
    }

    fn nearest(&self, path: &str) -> Option<(&str, &Place)> {
        let mut path = path;
        loop {
            if let Some((found, place)) = self.0.get_key_value(path) {
                return Some((found, place));
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// Refusals, told as problems of the file, which says `text`.
    pub fn problems(&self, file_name: &str, text: &str, refusals: Vec<Refusal>) -> Problems {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let told = |Refusal { key, why, hint }: Refusal| match self.nearest(&key) {
            Some((found, Place { span, text })) if found == key => {
                Problem::found(*span, &key, text, why).hint(hint)
            }
            // The place alone does not say what is meant.
            Some((_, place)) => Problem::found(place.span, &key, "", format!("{key}: {why}")).hint(hint),
            None => {
                let start = Span { line: 1, column: 1, chars: 0 };
                Problem::found(start, &key, "", format!("{key}: {why}")).hint(hint)
            }
        };
        Problems::new(file_name, text, refusals.into_iter().map(told).collect())
    }

    fn add(&mut self, node: &Node, path: &str) {
        match &node.value {
            Value::Null | Value::Unknown | Value::Scalar(_) => {}
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.add(item, &path);
                    let text =
                        if let Value::Scalar(text) = &item.value { text.clone() } else { String::new() };
                    self.0.insert(path, Place { span: item.span, text });
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.add(&entry.node, &path);
                    let (span, text) = match &entry.node.value {
                        Value::Scalar(text) => (entry.node.span, text),
                        Value::Null | Value::Unknown | Value::Sequence(_) | Value::Mapping(_) => {
                            (entry.key_span, &entry.key)
                        }
                    };
                    self.0.insert(path, Place { span, text: text.clone() });
                }
            }
        }
    }

    /// Each of several machines stands where their common name does.
    fn replicas(&mut self, project: &Project) {
        for name in project.machines.keys() {
            let path = format!("machines.{name}");
            let base = path.rsplit_once('-').and_then(|(base, _)| self.0.get(base));
            if let (false, Some(place)) = (self.0.contains_key(&path), base) {
                let place = place.clone();
                self.0.insert(path, place);
            }
        }
    }
}
