//! Where the image of a machine comes from, to the keys of the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::quoted;
use crate::file::{Build, Dockerfile, Pull};

pub(super) fn render(text: &mut String, pull: Option<&Pull>, build: Option<&Build>) {
    if let Some(pull) = pull {
        let word = match pull {
            Pull::Missing => "missing",
            Pull::Always => "always",
            Pull::Never => "never",
            Pull::Build => "build",
        };
        let _ = writeln!(text, "    pull_policy: {word}");
    }
    let Some(build) = build else { return };
    let _ = writeln!(text, "    build:\n      context: {}", path(&build.context));
    let _ = match &build.dockerfile {
        Dockerfile::File(file) => writeln!(text, "      dockerfile: {}", path(file)),
        Dockerfile::Inline(lines) => writeln!(text, "      dockerfile_inline: {}", quoted(lines)),
    };
    pairs(text, "args", &build.args);
    if let Some(target) = &build.target {
        let _ = writeln!(text, "      target: {}", quoted(target));
    }
    pairs(text, "labels", &build.labels);
    list(text, "tags", build.tags.iter().map(ToString::to_string));
    list(text, "secrets", build.secrets.keys().cloned());
    for (key, _) in [("no_cache", build.no_cache), ("pull", build.pull)].iter().filter(|(_, is_so)| *is_so) {
        let _ = writeln!(text, "      {key}: true");
    }
}

/// The files that builds may read, under the names that the file has for them.
pub(super) fn render_secrets<'b>(text: &mut String, builds: impl Iterator<Item = &'b Build>) {
    let secrets: BTreeMap<&String, &std::path::PathBuf> = builds.flat_map(|build| &build.secrets).collect();
    if !secrets.is_empty() {
        text.push_str("secrets:\n");
    }
    for (name, file) in secrets {
        let _ = writeln!(text, "  {}: {{ file: {} }}", quoted(name), path(file));
    }
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn pairs(text: &mut String, key: &str, pairs: &BTreeMap<String, String>) {
    list(text, key, pairs.iter().map(|(name, value)| format!("{name}={value}")));
}

fn list(text: &mut String, key: &str, values: impl Iterator<Item = String>) {
    let mut values = values.peekable();
    if values.peek().is_some() {
        let _ = writeln!(text, "      {key}:");
    }
    for value in values {
        let _ = writeln!(text, "        - {}", quoted(&value));
    }
}
