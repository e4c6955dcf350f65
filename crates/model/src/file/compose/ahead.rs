//! What is to be known of a file of Compose before it is read: what its project is called, which services nobody asks for,
//! and commands that are likely meant for a shell.

use std::collections::BTreeSet;

use super::value;
use crate::file::interpolate::{Scope, Unset, Variables, fill};
use crate::file::leaf::lawful_name;
use crate::file::problem::{Problem, quote};
use crate::file::yaml::{Entry, Node, Value, parse_over};
use crate::file::{Reading, Source, environment, join};
use crate::name::Name;

/// By which a file's texts call its project.
pub(in crate::file) const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// The variables, where one of them is to be the project's name and is not set.
pub(in crate::file) fn with_project_name(source: &Source<'_>) -> Option<Variables> {
    let set = source.env.get(PROJECT_NAME).filter(|name| !name.is_empty());
    let name = match source.called {
        Some(name) => name.clone(),
        None => {
            let written = || source.texts().filter_map(|text| written_name(text, source.env)).last();
            let directory = || Some(source.dir.file_name()?.to_string_lossy().into_owned());
            lawful_name(&set.cloned().or_else(written).or_else(directory)?)?
        }
    };
    if set.is_some_and(|set| set == name.as_str()) {
        return None;
    }
    let mut variables = source.env.clone();
    variables.insert(PROJECT_NAME.to_owned(), name.to_string());
    Some(variables)
}

/// The name that a file gives its project.
fn written_name(text: &str, variables: &Variables) -> Option<String> {
    let (tree, _) = parse_over(text, &mut Vec::new()).ok()?;
    let Value::Mapping(entries) = tree.value else { return None };
    let name = entries.into_iter().find(|entry| entry.key == "name")?;
    let Value::Scalar(name) = name.node.value else { return None };
    let mut scope = Scope { unset: Unset::Empty(Vec::new()), ..Scope::strict(variables) };
    fill(&name, &mut scope).ok().filter(|name| !name.is_empty())
}

/// The services of a file, and which of them no active profile brings. What of those cannot be had is told once somebody
/// asks for them.
#[derive(Debug, Default)]
pub(in crate::file) struct Resting {
    services: BTreeSet<String>,
    resting: BTreeSet<String>,
}

impl Resting {
    /// Those of a tree. One that others extend counts as theirs.
    pub(in crate::file) fn new(
        tree: &mut Node,
        active: &BTreeSet<String>,
        extended: &BTreeSet<String>,
    ) -> Self {
        let rests = |service: &&Entry| {
            let Value::Mapping(keys) = &service.node.value else { return false };
            let Some(profiles) = keys.iter().find(|key| key.key == "profiles") else { return false };
            let Value::Sequence(profiles) = &profiles.node.value else { return false };
            let is_active = |node: &Node| matches!(&node.value, Value::Scalar(name) if active.contains(name));
            !profiles.is_empty()
                && !active.contains("*")
                && !profiles.iter().any(is_active)
                && !extended.contains(&service.key)
                && value::service(&service.key).is_ok()
        };
        let all = environment::under(tree, "services");
        let resting = all.iter().filter(rests).map(|service| service.key.clone()).collect();
        Self { services: all.iter().map(|service| service.key.clone()).collect(), resting }
    }

    /// Whether a place is in one that rests, and is none of these machines, which are there.
    pub(in crate::file) fn has(&self, path: &str, there: &BTreeSet<Name>) -> bool {
        let named = |key: &&String, name: &str| value::service(key).is_ok_and(|own| own.as_str() == name);
        let is_resting = |key: &&String| {
            self.resting.contains(*key) && !there.iter().any(|name| named(key, name.as_str()))
        };
        match (path.strip_prefix("services."), path.strip_prefix("machines.")) {
            // What is named with dots begins as another may: what may be of one that is there is told.
            (Some(rest), _) => {
                let is_in = |key: &&String| {
                    rest.strip_prefix(key.as_str())
                        .is_some_and(|more| more.is_empty() || more.starts_with('.'))
                };
                let mut all = self.services.iter().filter(is_in).peekable();
                all.peek().is_some() && all.all(|key| is_resting(&key))
            }
            (None, Some(rest)) => {
                let name = rest.split('.').next().unwrap_or_default();
                self.services.iter().find(|key| named(key, name)).is_some_and(|key| is_resting(&key))
            }
            (None, None) => false,
        }
    }
}

/// A line of a shell: what is quoted in it is not looked at.
fn unquoted(line: &str) -> String {
    let mut open = None;
    let mut chars = line.chars();
    let mut seen = String::new();
    while let Some(letter) = chars.next() {
        match (letter, open) {
            ('\\', _) => {
                chars.next();
                seen.push('x');
            }
            (quote, Some(at)) if quote == at => open = None,
            (quote @ ('"' | '\''), None) => {
                open = Some(quote);
                seen.push('x');
            }
            (_, Some(_)) => {}
            (letter, None) => seen.push(letter),
        }
    }
    seen
}

/// What of a line only a shell would read, if there is such. `find` has its `;` from whoever runs it.
fn of_shells(line: &str) -> Option<&'static str> {
    let seen = unquoted(line);
    let mut before = "";
    for word in seen.split_whitespace() {
        let number = word.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let sign = match word {
            "|" | "&" => Some(if word == "|" { "|" } else { "&" }),
            _ if word.contains("&&") => Some("&&"),
            _ if word.contains("||") => Some("||"),
            _ if word.ends_with(';') && before != "{}" => Some(";"),
            _ if number.starts_with('>') => Some(">"),
            _ if number.starts_with('<') => Some("<"),
            _ => None,
        };
        if sign.is_some() {
            return sign;
        }
        before = word;
    }
    None
}

/// Warns of lines that are split into words and have what is for shells among them.
pub(in crate::file) fn warn_of_shells(tree: &mut Node, reading: &mut Reading<'_>) {
    for service in environment::under(tree, "services") {
        let Value::Mapping(keys) = &service.node.value else { continue };
        for Entry { key, node, .. } in
            keys.iter().filter(|key| ["command", "entrypoint"].contains(&&*key.key))
        {
            let Value::Scalar(line) = &node.value else { continue };
            let Some(sign) = of_shells(line) else { continue };
            let path = join(&join("services", &service.key), key);
            let message =
                format!("{} is given to the program as it stands: no shell reads this line", quote(sign));
            let warning = Problem::found(node.span, &path, line, message);
            reading.warnings.push(warning.hint(format!("write `{key}: [sh, -c, \"…\"]`")));
        }
    }
}

/// What is said of the owner of a file that is mounted.
const OWNERS: [&str; 3] = ["uid", "gid", "mode"];

/// Takes out of the uses of secrets and configs whose they are to be: warns where they are files, which are mounted as they
/// are, and refuses it of texts, which are made so that all can read them.
pub(in crate::file) fn owners(tree: &mut Node, reading: &mut Reading<'_>) {
    let files: BTreeSet<(&str, String)> = ["secrets", "configs"]
        .into_iter()
        .flat_map(|group| {
            let is_file = |entry: &&Entry| {
                matches!(&entry.node.value, Value::Mapping(keys) if keys.iter().any(|key| key.key == "file"))
            };
            let all = environment::under(tree, group).iter().filter(is_file);
            all.map(|entry| (group, entry.key.clone())).collect::<Vec<_>>()
        })
        .collect();
    for service in environment::under(tree, "services") {
        let Value::Mapping(keys) = &mut service.node.value else { continue };
        for group in ["secrets", "configs"] {
            let uses = keys.iter_mut().find(|key| key.key == group).map(|key| &mut key.node.value);
            let Some(Value::Sequence(uses)) = uses else { continue };
            for used in uses {
                let Value::Mapping(said) = &mut used.value else { continue };
                let source = said.iter().find_map(|key| match &key.node.value {
                    Value::Scalar(name) if key.key == "source" => Some(name.clone()),
                    Value::Null
                    | Value::Unknown
                    | Value::Scalar(_)
                    | Value::Sequence(_)
                    | Value::Mapping(_) => None,
                });
                let is_file = source.is_some_and(|name| files.contains(&(group, name)));
                for owner in said.extract_if(.., |key| OWNERS.contains(&key.key.as_str())) {
                    let path = format!("services.{}.{group}.{}", service.key, owner.key);
                    let said = quote(&owner.key);
                    let found = |message| Problem::found(owner.key_span, &path, &owner.key, message);
                    if is_file {
                        let message = format!(
                            "{said} changes nothing: the file is mounted with the owner and mode that it has"
                        );
                        reading.warnings.push(found(message).hint("leave it out"));
                    } else {
                        let message =
                            format!("{said} cannot be honoured: what is no file of yours all can read");
                        reading
                            .problems
                            .push(found(message).hint("leave it out, or write it to a file and name that"));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_shells_is_seen_and_what_looks_like_it_is_not() {
        for line in ["a && b", "a;  b", "a & b", "x 2>/dev/null", "echo x >/file", "a | b", "a||b", "a < b"] {
            assert!(of_shells(line).is_some(), "{line}");
        }
        for line in [
            "expr 1 '<' 2",
            "find . -exec rm {} ;",
            "find . -exec rm {} \\;",
            "--url http://x?a=1&b=2",
            "sh -c 'a && b'",
            "sh -c \"a | b\"",
            "a=>b",
            "",
        ] {
            assert_eq!(of_shells(line), None, "{line}");
        }
    }
}
