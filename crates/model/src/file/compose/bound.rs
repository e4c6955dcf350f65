//! Volumes that are a path of this computer: the driver's options `type: none`, `o: bind` and `device`. Wherever such a one is
//! mounted the path is, and no volume is made.

use std::collections::BTreeMap;

use super::{entry, mapping, text, value};
use crate::container::Access;
use crate::file::leaf::Wrong;
use crate::file::leaf::mount::{self, Volume, VolumeSource};
use crate::file::spec::absolute;
use crate::file::yaml::{Entry, Node, Value};
use crate::file::{Reading, join};
use crate::name::Name;

/// The paths, by what the volumes are called here.
pub(super) type Bound = BTreeMap<Name, String>;

/// Those of a file; options that do not go together are told.
pub(super) fn read(entries: &[Entry], reading: &mut Reading<'_>) -> Bound {
    let mut bound = Bound::new();
    let Some(volumes) = entries.iter().find(|entry| entry.key == "volumes") else { return bound };
    let Value::Mapping(volumes) = &volumes.node.value else { return bound };
    for volume in volumes {
        let (Some(Value::Mapping(options)), Ok(name)) =
            (get(&volume.node, "driver_opts").map(|options| &options.value), value::resource(&volume.key))
        else {
            continue;
        };
        let path = join(&join("volumes", &volume.key), "driver_opts");
        let external = get(&volume.node, "external").map(|node| &node.value);
        let is_other = external.is_some_and(|value| match value {
            Value::Scalar(text) => text != "false",
            Value::Mapping(_) => true,
            Value::Null | Value::Unknown | Value::Sequence(_) => false,
        });
        match device(options, reading) {
            Ok(Some(_)) if is_other => {
                let wrong =
                    Wrong::found("the volume is another project's and a path of this computer at once");
                let wrong = wrong.hint("leave `external` or `driver_opts` out");
                reading.problems.push(wrong.at(volume.key_span, &path, &volume.key));
            }
            Ok(device) => bound.extend(device.map(|device| (name, device))),
            Err(wrong) => reading.problems.push(wrong.at(volume.key_span, &path, &volume.key)),
        }
    }
    bound
}

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Mapping(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

/// The path that options of a volume name, if they do; absolute.
fn device(options: &[Entry], reading: &Reading<'_>) -> Result<Option<String>, Wrong> {
    let has = |key: &str| options.iter().any(|option| option.key == key && option.node.value != Value::Null);
    let Some(device) = options.iter().find(|option| option.key == "device") else {
        let is_bound = has("type") || has("o");
        let wrong = Wrong::found("nothing says which path the volume is").hint("write its `device`");
        return if is_bound { Err(wrong) } else { Ok(None) };
    };
    let Some(way) = options.iter().find(|option| option.key == "o") else {
        return Err(Wrong::found("a `device` is mounted as a path of this computer, or not at all")
            .hint("write `type: none` and `o: bind` beside it"));
    };
    // Another way was told, and nothing follows from it.
    if way.node.value != Value::Scalar("bind".to_owned()) {
        return Ok(None);
    }
    if has("size") {
        return Err(
            Wrong::found("what is in a path of this computer is not limited").hint("leave `size` out")
        );
    }
    let Value::Scalar(path) = &device.node.value else { return Ok(None) };
    Ok(Some(absolute(reading.ground(), path)?.to_string_lossy().into_owned()))
}

/// Puts the paths in place of the volumes that machines mount.
pub(super) fn put(machines: &mut Node, bound: &Bound) {
    let Value::Mapping(machines) = &mut machines.value else { return };
    for machine in machines {
        let Value::Mapping(keys) = &mut machine.node.value else { continue };
        for volumes in keys.iter_mut().filter(|key| key.key == "volumes") {
            let Value::Sequence(items) = &mut volumes.node.value else { continue };
            items.iter_mut().for_each(|item| bind(item, bound));
        }
    }
}

fn bind(item: &mut Node, bound: &Bound) {
    let span = item.span;
    // Where it is missing, Docker does not make it, either.
    let more = entry("bind", span, mapping(span, vec![text("create_host_path", span, "false")]));
    match &mut item.value {
        Value::Scalar(said) => {
            let Ok(Volume { source: VolumeSource::Named(name), target, access, .. }) = mount::volume(said)
            else {
                return;
            };
            let Some(path) = bound.get(&name) else { return };
            let mut keys =
                vec![text("type", span, "bind"), text("source", span, path), text("target", span, &target)];
            keys.extend((access == Access::Read).then(|| text("read_only", span, "true")));
            keys.push(more);
            item.value = Value::Mapping(keys);
        }
        Value::Mapping(keys) => {
            let has = |key: &str, value: &str| {
                keys.iter()
                    .any(|entry| entry.key == key && entry.node.value == Value::Scalar(value.to_owned()))
            };
            let is_volume = has("type", "volume") || keys.iter().all(|entry| entry.key != "type");
            // What says nothing of a volume is told as of any.
            let is_plain = keys.iter().all(|entry| !matches!(entry.key.as_str(), "bind" | "tmpfs"));
            let source = keys.iter().find(|entry| entry.key == "source").map(|entry| &entry.node.value);
            let Some(Value::Scalar(name)) = source else { return };
            let path = name.parse::<Name>().ok().and_then(|name| bound.get(&name));
            let Some(path) = path.filter(|_| is_volume && is_plain) else { return };
            keys.retain(|entry| !matches!(entry.key.as_str(), "type" | "source"));
            keys.extend([text("type", span, "bind"), text("source", span, path), more]);
        }
        Value::Null | Value::Unknown | Value::Sequence(_) => {}
    }
}
