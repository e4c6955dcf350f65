//! Images of our store that a build may start from. buildah looks in registries and in a storage of its own: those that
//! the instructions may mean are put there first.
//!
//! The instructions are not read, which are a language of its own: it is enough to see which names stand where one of an
//! image may. What is put there and not meant is not used.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use stead_image::Store;
use stead_image::choose::host_platform;
use stead_model::file::Build;
use stead_model::image::{Platform, Reference};

/// An image that a build may start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// The OCI layout that it is in, below the build's own directory. Without capital letters, of which buildah would make
    /// a name that it refuses.
    pub(super) layout: String,
    /// What it is to be called: wherever a name without a registry is looked for first.
    pub(super) names: Vec<String>,
}

/// Lays those out that the instructions may mean, in this directory. Nothing is copied: a layout leads to the store.
pub(super) fn lay_out(
    store: &Store,
    (text, build): (&str, &Build),
    platform: Option<&Platform>,
    directory: &Path,
) -> Result<Vec<Base>> {
    let mut bases = Vec::new();
    // What is to be asked for anew is asked for where it comes from.
    if build.pull {
        return Ok(bases);
    }
    let platform = platform.cloned().unwrap_or_else(host_platform);
    for reference in references(text, build) {
        if let Some(image) = store.find(&reference, &platform)? {
            let layout = format!("base-{}", bases.len());
            store.link_directory(&[(image.digest, BTreeSet::new())], &directory.join(&layout))?;
            bases.push(Base { layout, names: names(&reference) });
        }
    }
    Ok(bases)
}

fn names(reference: &Reference) -> Vec<String> {
    match (&reference.registry, reference.repository.contains('/')) {
        (Some(_), _) => vec![reference.to_string()],
        (None, true) => vec![format!("localhost/{reference}"), format!("docker.io/{reference}")],
        (None, false) => vec![format!("localhost/{reference}"), format!("docker.io/library/{reference}")],
    }
}

/// The names that stand behind `FROM` and `from=`, and that arguments have for values. One with a digest means what it
/// means anywhere.
fn references(text: &str, build: &Build) -> BTreeSet<Reference> {
    let mut found: Vec<&str> = build.args.values().map(String::as_str).collect();
    let mut before = "";
    for word in text.split_whitespace() {
        let is_behind = |instruction: &str| before.eq_ignore_ascii_case(instruction);
        if is_behind("FROM") && !word.starts_with("--") {
            found.push(word);
        }
        let argument = word.split_once('=').filter(|_| is_behind("ARG")).map(|(_, value)| value);
        found.extend(argument);
        found.extend(word.split(',').filter_map(|part| Some(part.rsplit_once("from=")?.1)));
        // Between `FROM` and the name there may be flags.
        if !word.starts_with("--") {
            before = word;
        }
    }
    let bare = found.into_iter().map(|word| word.trim_matches(['"', '\'']));
    bare.filter_map(|word| word.parse().ok()).filter(|name: &Reference| name.digest.is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use stead_model::file::Dockerfile;

    #[test]
    fn names_of_images_are_seen_wherever_one_may_stand() {
        let build = Build {
            context: "/srv/web".into(),
            dockerfile: Dockerfile::File("/srv/web/Dockerfile".into()),
            args: [("OTHER".to_owned(), "lab/other:2".to_owned())].into(),
            target: None,
            labels: [].into(),
            tags: Vec::new(),
            secrets: [].into(),
            no_cache: false,
            pull: false,
        };
        let text = "ARG BASE=\"lab/base:1\"\nfrom --platform=linux/amd64 debian AS small\nFROM $BASE\n\
                    COPY --from=lab/files /a /b\nRUN --mount=type=bind,from=lab/tools:3,target=/t echo lab/none\n\
                    FROM a@sha256:0000000000000000000000000000000000000000000000000000000000000000\n";
        let found: Vec<String> = references(text, &build).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["debian:latest", "lab/base:1", "lab/files:latest", "lab/other:2", "lab/tools:3"]);
    }

    #[test]
    fn an_image_is_called_as_it_is_looked_for() {
        let check = |name: &str, expected: &[&str]| assert_eq!(names(&name.parse().unwrap()), expected);
        check("debian:12", &["localhost/debian:12", "docker.io/library/debian:12"]);
        check("lab/base", &["localhost/lab/base:latest", "docker.io/lab/base:latest"]);
        check("127.0.0.1:5000/lab/base:1", &["127.0.0.1:5000/lab/base:1"]);
    }
}
