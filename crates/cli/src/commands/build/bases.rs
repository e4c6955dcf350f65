//! Images of our store that a build may start from. Builders look in registries, and buildah in a storage of its own: those
//! that the instructions may mean are laid out for them first.
//!
//! The instructions are not read, which are a language of its own: it is enough to see which names stand where one of an
//! image may. What is laid out and not meant is not used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use stead_image::Store;
use stead_model::file::Build;
use stead_model::image::{Digest, Platform, Reference};

use super::claims::{Claim, claim};
use crate::output::note;

/// An image that a build may start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// The OCI layout that it is in, below the build's own directory. Without capital letters, of which buildah would make
    /// a name that it refuses.
    pub(super) layout: String,
    pub(super) digest: Digest,
    /// What it is to be called: wherever the builder looks for it first.
    pub(super) names: Vec<String>,
}

/// Lays images out in this directory, by what each is to be called. Nothing is copied: a layout leads to the store.
pub(super) fn lay_out(
    store: &Store,
    meanings: impl IntoIterator<Item = (String, Digest)>,
    directory: &Path,
) -> Result<Vec<Base>> {
    let mut by_digest: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for (name, digest) in meanings {
        by_digest.entry(digest).or_default().push(name);
    }
    let mut bases = Vec::new();
    for (digest, names) in by_digest {
        let layout = format!("base-{}", bases.len());
        store.link_directory(&[(digest.clone(), BTreeSet::new())], &directory.join(&layout))?;
        bases.push(Base { layout, digest, names });
    }
    Ok(bases)
}

/// Claims the names that buildah looks up what the instructions may mean by, each for what our store has. A name that our
/// store had an image for and has none for now is lost.
pub(super) fn claims(
    store: &Store,
    (text, build): (&str, &Build),
    platform: &Platform,
    directory: &Path,
    lose: impl Fn(&str) -> Result<()>,
) -> Result<Vec<Claim>> {
    let mut known = BTreeMap::new();
    for reference in references(text, build) {
        known.extend(names(&reference).into_iter().map(|name| (name, reference.clone())));
    }
    let claims = known.iter().map(|(name, reference)| {
        // What is to be asked for anew is asked for where it comes from.
        let mean = || match build.pull {
            true => Ok(None),
            false => Ok(store.find(reference, platform)?.map(|image| image.digest)),
        };
        let waits = || note(&format!("waiting for another build, for which {reference} is another image"));
        claim(directory, name, mean, || lose(name), waits)
    });
    claims.collect()
}

/// Images of our store that the instructions may mean, by what BuildKit looks for before it asks registries.
pub(super) fn contexts(
    store: &Store,
    (text, build): (&str, &Build),
    platform: &Platform,
) -> Result<BTreeMap<String, Digest>> {
    let mut found = BTreeMap::new();
    if build.pull {
        return Ok(found);
    }
    let stages = stages(text);
    for reference in references(text, build) {
        let name = familiar(&reference);
        if let Some(image) = store.find(&reference, platform)? {
            // It would go before the stage, too.
            if stages.contains(&name) {
                note(&format!("the image {reference} that is here is not built upon: a stage has its name"));
            } else {
                found.insert(name, image.digest);
            }
        }
    }
    Ok(found)
}

/// The names behind `AS`, in lines that begin with `FROM`.
fn stages(text: &str) -> BTreeSet<String> {
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let froms = lines.filter(|words| words.first().is_some_and(|word| word.eq_ignore_ascii_case("FROM")));
    let names = froms.filter_map(|words| match words[..] {
        [.., before, name] if before.eq_ignore_ascii_case("AS") => Some(name.to_lowercase()),
        _ => None,
    });
    names.collect()
}

/// As short as Docker says it.
fn familiar(reference: &Reference) -> String {
    let text = reference.familiar().to_string();
    text.strip_suffix(":latest").map_or(text.clone(), str::to_owned)
}

fn names(reference: &Reference) -> Vec<String> {
    match (&reference.registry, reference.repository.contains('/')) {
        (Some(_), _) => vec![reference.to_string()],
        (None, true) => vec![format!("localhost/{reference}"), format!("docker.io/{reference}")],
        (None, false) => vec![format!("localhost/{reference}"), format!("docker.io/library/{reference}")],
    }
}

/// What stands for no image at all.
const NOTHING: &str = "scratch";

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
    let bare = found.into_iter().map(|word| word.trim_matches(['"', '\''])).filter(|word| *word != NOTHING);
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
        let text = "# used as base\nARG BASE=\"lab/base:1\"\nfrom --platform=linux/amd64 debian AS Small\nFROM scratch\nFROM $BASE\n\
                    COPY --from=lab/files /a /b\nRUN --mount=type=bind,from=lab/tools:3,target=/t echo lab/none\n\
                    FROM a@sha256:0000000000000000000000000000000000000000000000000000000000000000\n";
        let found: Vec<String> = references(text, &build).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["debian:latest", "lab/base:1", "lab/files:latest", "lab/other:2", "lab/tools:3"]);
        assert_eq!(stages(text), ["small".to_owned()].into());
    }

    #[test]
    fn an_image_is_called_as_it_is_looked_for() {
        let check = |name: &str, expected: &[&str]| assert_eq!(names(&name.parse().unwrap()), expected);
        check("debian:12", &["localhost/debian:12", "docker.io/library/debian:12"]);
        check("lab/base", &["localhost/lab/base:latest", "docker.io/lab/base:latest"]);
        check("127.0.0.1:5000/lab/base:1", &["127.0.0.1:5000/lab/base:1"]);
        let short = |name: &str, expected: &str| assert_eq!(familiar(&name.parse().unwrap()), expected);
        short("debian", "debian");
        short("docker.io/library/debian:12", "debian:12");
        short("lab/base:latest", "lab/base");
        short("127.0.0.1:5000/lab/base", "127.0.0.1:5000/lab/base");
    }
}
