//! What is to be known of a file of Compose before it is read: what its project is called, which services nobody asks for,
//! and commands that are likely meant for a shell.

use std::collections::BTreeSet;

use super::value;
use crate::file::interpolate::{Scope, Unset, Variables, fill};
use crate::file::leaf::container::words;
use crate::file::leaf::lawful_name;
use crate::file::problem::{Problem, quote};
use crate::file::yaml::{Entry, Node, Value, parse_over};
use crate::file::{Reading, Source, environment, join};

/// By which a file's texts call its project.
pub(in crate::file) const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// The variables, where one of them is to be the project's name and is not set.
pub(in crate::file) fn with_project_name(source: &Source<'_>) -> Option<Variables> {
    if source.env.get(PROJECT_NAME).is_some_and(|name| !name.is_empty()) {
        return None;
    }
    let name = match source.called {
        Some(name) => name.clone(),
        None => {
            let written = source.texts().filter_map(|text| written_name(text, source.env)).last();
            let directory = || Some(source.dir.file_name()?.to_string_lossy().into_owned());
            lawful_name(&written.or_else(directory)?)?
        }
    };
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
    fill(&name, &mut scope).ok()
}

/// Where the services stand that no active profile brings. What of them cannot be had is told once somebody asks for them.
pub(in crate::file) fn resting(tree: &mut Node, active: &BTreeSet<String>) -> BTreeSet<String> {
    let rests = |service: &Entry| {
        let Value::Mapping(keys) = &service.node.value else { return false };
        let Some(profiles) = keys.iter().find(|key| key.key == "profiles") else { return false };
        let Value::Sequence(profiles) = &profiles.node.value else { return false };
        let is_active = |node: &Node| matches!(&node.value, Value::Scalar(name) if active.contains(name));
        !profiles.is_empty() && !active.contains("*") && !profiles.iter().any(is_active)
    };
    let all = environment::under(tree, "services").iter().filter(|service| rests(service));
    let places = all.flat_map(|service| {
        let name = value::service(&service.key).map(|name| join("machines", name.as_str())).ok();
        name.into_iter().chain([join("services", &service.key)])
    });
    places.collect()
}

/// What a shell would read, and nobody does.
const OF_SHELLS: [&str; 9] = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"];

/// Warns of lines that are split into words and have such among them.
pub(in crate::file) fn warn_of_shells(tree: &mut Node, reading: &mut Reading<'_>) {
    for service in environment::under(tree, "services") {
        let Value::Mapping(keys) = &service.node.value else { continue };
        for Entry { key, node, .. } in
            keys.iter().filter(|key| ["command", "entrypoint"].contains(&&*key.key))
        {
            let Value::Scalar(line) = &node.value else { continue };
            let Ok(words) = words(line) else { continue };
            let Some(sign) = words.iter().find(|word| OF_SHELLS.contains(&word.as_str())) else { continue };
            let path = join(&join("services", &service.key), key);
            let message =
                format!("{} is given to the program as a word: no shell reads this line", quote(sign));
            let warning = Problem::found(node.span, &path, line, message);
            reading.warnings.push(warning.hint(format!("write `{key}: [sh, -c, \"…\"]`")));
        }
    }
}
