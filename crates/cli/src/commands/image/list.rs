//! `image ls`, `inspect` and `history`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use stead_image::{Details, Sizes, Store};
use stead_model::image::{Digest, Platform, Reference};
use stead_model::name::MachineId;

use super::progress::size;
use super::{in_use, meant};
use crate::args::OneImage;
use crate::failure::Failure;
use crate::output::{Output, printable, table};
use crate::session::look;

/// An image, as `ls` prints it.
#[derive(Serialize)]
struct Row {
    id: Digest,
    names: BTreeSet<Reference>,
    platform: Platform,
    created: String,
    added_unix_s: u64,
    size_bytes: u64,
    shared_bytes: u64,
    own_bytes: u64,
    machines: BTreeSet<MachineId>,
}

/// An image, as `inspect` prints it.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    row: Row,
    layers: Vec<LayerRow>,
    sources: BTreeSet<String>,
    indexes: BTreeSet<Digest>,
    config: Value,
}

#[derive(Serialize)]
struct LayerRow {
    digest: Digest,
    diff_id: Option<Digest>,
    media_type: String,
    stored_bytes: u64,
}

/// A change, as `history` prints it.
#[derive(Serialize)]
struct ChangeRow {
    created: String,
    by: String,
    comment: String,
    layer: Option<Digest>,
    stored_bytes: u64,
}

/// Lists images.
pub(super) fn ls(patterns: &[String], quiet: bool, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let root = host.home().images();
    let mut rows = Vec::new();
    if root.exists() {
        let store = Store::open(&root)?;
        let used = in_use(&mut host)?;
        let sizes = store.sizes()?;
        let list = store.list()?.into_iter();
        rows.extend(list.map(|details| row(details, &sizes, &used)));
    }
    for pattern in patterns {
        if !rows.iter().any(|row| fits(pattern, row)) {
            let what = format!("there is no image `{pattern}` here");
            return Err(Failure::request(&what, "`stead image ls` lists them all"));
        }
    }
    rows.retain(|row| patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, row)));
    rows.sort_by(|a, b| (&a.names, &a.platform, &a.id).cmp(&(&b.names, &b.platform, &b.id)));
    if quiet {
        let ids: Vec<&Digest> = rows.iter().map(|row| &row.id).collect();
        let text = || ids.iter().map(|id| format!("{}\n", id.short())).collect();
        return output.data(&ids, text).map_err(Failure::from);
    }
    let text = || {
        let lines: Vec<Vec<String>> = rows.iter().flat_map(lines).collect();
        table(&["IMAGE", "ID", "PLATFORM", "CREATED", "SIZE", "OWN", "MACHINES"], &lines)
    };
    output.data(&rows, text).map_err(Failure::from)
}

/// A line for each name.
fn lines(row: &Row) -> Vec<Vec<String>> {
    let mut names: Vec<String> = row.names.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        names.push("-".to_owned());
    }
    let line = |name| {
        let id = row.id.short().to_owned();
        let (all, own) = (size(row.size_bytes), size(row.own_bytes));
        let machines = row.machines.len().to_string();
        vec![name, id, row.platform.to_string(), day(&row.created), all, own, machines]
    };
    names.into_iter().map(line).collect()
}

/// The day of a time; makers that want the same bytes each time say none, or the first one of all.
fn day(created: &str) -> String {
    match created.split_once('T') {
        Some((day, _)) if !day.starts_with("0001-") && !day.starts_with("1970-") => day.to_owned(),
        Some(_) | None => "-".to_owned(),
    }
}

fn row(
    details: Details,
    sizes: &BTreeMap<Digest, Sizes>,
    used: &BTreeMap<Digest, BTreeSet<MachineId>>,
) -> Row {
    let Details { image, config, added_unix_s, .. } = details;
    let Sizes { shared_bytes, unique_bytes } = sizes.get(&image.digest).copied().unwrap_or_default();
    Row {
        machines: used.get(&image.digest).cloned().unwrap_or_default(),
        id: image.digest,
        names: image.names,
        platform: image.platform,
        created: config.created,
        added_unix_s,
        size_bytes: shared_bytes + unique_bytes,
        shared_bytes,
        own_bytes: unique_bytes,
    }
}

/// Whether a pattern means an image: by its names with and without tags, or by the first digits of its id.
fn fits(pattern: &str, row: &Row) -> bool {
    let is = |name: &Reference| glob(pattern, &name.to_string()) || glob(pattern, &name.name());
    let by_name = |name: &Reference| is(name) || is(&name.familiar());
    row.names.iter().any(by_name) || (pattern.len() >= 4 && row.id.hex().starts_with(pattern))
}

/// Whether a text is of this pattern, where `*` is anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Shows all about an image.
pub(super) fn inspect(args: &OneImage, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let (store, details) = one(&host.home().images(), args)?;
    let (sizes, used) = (store.sizes()?, in_use(&mut host)?);
    let mut diff_ids = details.image.layers.iter().cloned();
    let layers = details.manifest.layers.iter().map(|layer| LayerRow {
        digest: layer.digest.clone(),
        diff_id: diff_ids.next(),
        media_type: layer.media_type.clone(),
        stored_bytes: layer.size_bytes,
    });
    let whole = Whole {
        layers: layers.collect(),
        sources: details.sources.clone(),
        indexes: details.indexes.clone(),
        config: serde_json::from_slice(&details.config_json).map_err(anyhow::Error::from)?,
        row: row(details.clone(), &sizes, &used),
    };
    output.data(&whole, || whole_text(&whole, &details)).map_err(Failure::from)
}

fn whole_text(whole: &Whole, details: &Details) -> String {
    fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
        let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    }
    let quoted = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(" ") }
    };
    let (row, config) = (&whole.row, &details.config.config);
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let sizes = format!("{} ({} its own)", size(row.size_bytes), size(row.own_bytes));
    let lines = [
        ("id", row.id.to_string()),
        ("names", list(&row.names)),
        ("platform", row.platform.to_string()),
        ("created", or(&row.created, "unknown")),
        ("from", list(&whole.sources)),
        ("size", sizes),
        ("machines", list(&row.machines)),
        ("entrypoint", quoted(&config.entrypoint)),
        ("command", quoted(&config.cmd)),
        ("user", or(&config.user, "root")),
        ("directory", or(&config.working_dir, "/")),
        ("signal", or(&config.stop_signal, "SIGTERM")),
        ("ports", list(config.exposed_ports.keys())),
        ("volumes", list(config.volumes.keys())),
        ("environment", list(&config.env)),
        ("labels", list(config.labels.iter().map(|(name, value)| format!("{name}={value}")))),
    ];
    let lines = lines.iter().map(|(key, value)| format!("{key:<11} {}\n", printable(value)));
    let layers: Vec<Vec<String>> = whole
        .layers
        .iter()
        .map(|layer| {
            let kind = layer.media_type.rsplit(['.', '+']).next().unwrap_or_default().to_owned();
            vec![layer.digest.short().to_owned(), size(layer.stored_bytes), kind]
        })
        .collect();
    lines.collect::<String>() + "\n" + &table(&["LAYER", "STORED", "PACKED"], &layers)
}

/// Shows the changes that made an image.
pub(super) fn history(args: &OneImage, output: Output) -> Result<(), Failure> {
    let (_, details) = one(&look()?.home().images(), args)?;
    let row = |entry: stead_image::HistoryEntry| ChangeRow {
        created: entry.change.created,
        by: entry.change.created_by,
        comment: entry.change.comment,
        stored_bytes: entry.layer.as_ref().map_or(0, |layer| layer.size_bytes),
        layer: entry.layer.map(|layer| layer.digest),
    };
    let rows: Vec<ChangeRow> = details.history().into_iter().map(row).collect();
    let text = || {
        let line = |row: &ChangeRow| {
            let layer = row.layer.as_ref().map_or("-", Digest::short).to_owned();
            let by = if row.by.is_empty() { &row.comment } else { &row.by };
            vec![day(&row.created), layer, size(row.stored_bytes), by.clone()]
        };
        let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
        table(&["CREATED", "LAYER", "STORED", "BY"], &lines)
    };
    output.data(&rows, text).map_err(Failure::from)
}

/// The image that is meant, with all its documents.
fn one(root: &std::path::Path, args: &OneImage) -> Result<(Store, Details), Failure> {
    let absent = || {
        let what = format!("there is no image `{}` here", args.image);
        Failure::request(&what, "`stead image ls` lists them, `stead image pull` gets one")
    };
    if !root.exists() {
        return Err(absent());
    }
    let store = Store::open(root)?;
    let image = meant(&store, &args.image, args.platform.platform.as_ref())?.image;
    let details = store.inspect(&image.digest)?.ok_or_else(absent)?;
    Ok((store, details))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("debian:12", "debian:12", true),
            ("debian", "debian:12", false),
            ("debian*", "debian:12", true),
            ("*/web:*", "registry.lab:5000/team/web:1", true),
            ("*web", "registry.lab:5000/team/web:1", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("aa*aa", "aaa", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_time_that_says_nothing_is_not_shown() {
        assert_eq!(day("2026-11-21T08:00:00Z"), "2026-11-21");
        assert_eq!(day("0001-01-01T00:00:00Z"), "-");
        assert_eq!(day("1970-01-01T00:00:00Z"), "-");
        assert_eq!(day(""), "-");
    }
}
