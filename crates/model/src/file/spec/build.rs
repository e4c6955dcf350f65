//! How an image is built, as written.

use super::Ground;
use super::mounts::{absolute, files};
use super::view::{At, Given, Place, View};
use crate::file::build::{Build, Dockerfile};
use crate::file::leaf::Wrong;
use crate::file::leaf::container as value;
use crate::file::problem::{Problem, nearest};

/// The instructions where nobody says which.
const DOCKERFILE: &str = "Dockerfile";

pub(super) fn read(
    view: &View<'_>,
    root: &View<'_>,
    ground: Ground<'_>,
    problems: &mut Vec<Problem>,
) -> Given<Box<Build>> {
    if view.node.is_none() {
        return Given::Absent;
    }
    // The directory alone, or among others.
    let context = view.read(value::any).value().or_else(|| view.get("context").read(value::any).value());
    let text = context.unwrap_or_else(|| ".".to_owned());
    let wrong = |wrong: Wrong, place: &Place, problems: &mut Vec<Problem>| {
        problems.push(wrong.at(place.span, &place.path, &place.text));
    };
    if is_elsewhere(&text) {
        let told = Wrong::found("the context of a build is a directory of this computer");
        wrong(told.hint("fetch it first, and write the directory"), &view.place, problems);
        return Given::Wrong;
    }
    let context = match absolute(ground, &text) {
        Ok(context) => context,
        Err(told) => {
            wrong(told, &view.place, problems);
            return Given::Wrong;
        }
    };
    let dockerfile = match view.get("dockerfile_inline").read(value::any).value() {
        Some(text) => Dockerfile::Inline(text),
        None => {
            let file = view.get("dockerfile").read(value::any).value();
            Dockerfile::File(context.join(file.unwrap_or_else(|| DOCKERFILE.to_owned())))
        }
    };
    if let (Some(inline), true) = (view.key_place("dockerfile_inline"), view.get("dockerfile").node.is_some())
    {
        let told = Wrong::found("the instructions stand here, and `dockerfile` names a file of them");
        wrong(told.hint("leave one of them out"), &inline, problems);
    }
    let known = files(&root.get("secrets"));
    let mut secrets = std::collections::BTreeMap::new();
    for item in view.get("secrets").items() {
        let alone = item.read(value::secret).is().cloned();
        let named = || item.get("source").read(value::secret).is().cloned();
        let Some(At { value: name, place }) = alone.or_else(named) else { continue };
        match known.get(&name) {
            Some(Some(path)) => match absolute(ground, path) {
                Ok(path) => drop(secrets.insert(name, path)),
                Err(told) => wrong(told, &place, problems),
            },
            Some(None) => {}
            None => {
                let hint = nearest(&name, known.keys().map(String::as_str)).map_or_else(
                    || "name its file under the file's own `secrets`".to_owned(),
                    |name| format!("did you mean `{name}`?"),
                );
                wrong(Wrong::found(format!("there is no secret `{name}`")).hint(hint), &place, problems);
            }
        }
    }
    let pairs = |key: &str| {
        let pairs = view.get(key).pairs().into_iter();
        pairs.map(|(name, value)| (name.value, value.unwrap_or_default())).collect()
    };
    let build = Build {
        context,
        dockerfile,
        args: pairs("args"),
        target: view.get("target").read(value::any).value(),
        labels: pairs("labels"),
        tags: view.get("tags").each(value::image).into_iter().map(|at| at.value).collect(),
        secrets,
        no_cache: view.flag("no_cache"),
        pull: view.flag("pull"),
    };
    Given::Is(At { value: Box::new(build), place: view.place.clone() })
}

/// Whether a context is no directory here: a repository, or an archive that is to be fetched.
fn is_elsewhere(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}
