//! Images of what machines wrote: the layers of another image, and one more.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stead_model::container::{Identity, identity};
use stead_model::image::{Digest, Image, Reference};

use crate::Store;
use crate::import::rfc3339;
use crate::manifest::{DOCUMENT_MAX_BYTES, LAYERS_MAX, media};
use crate::store::Arrival;
use crate::unpack::{Fate, Skips, XattrSpace, pack_diffs};

/// What an image is to be that is made of what a machine wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// What it is to be called.
    pub name: &'a Reference,
    /// The image that it was written over.
    pub base: &'a Digest,
    /// What was written, the uppermost first.
    pub uppers: Vec<&'a Path>,
    /// Where overlayfs notes there what is gone.
    pub space: XattrSpace,
    /// Where something was mounted, which is no file of the machine's: absolute paths.
    pub mounts: Vec<&'a str>,
    /// How it came to be, for its history.
    pub created_by: &'a str,
    /// Who says that he made it.
    pub author: Option<&'a str>,
    /// What there is to say of it.
    pub message: Option<&'a str>,
}

impl Store {
    /// Makes an image of what a machine wrote over one that is here. What the machine is known by, what of it is a secret, and
    /// what it had in `/run` and `/tmp` is not in it. Run it as root, or mapped to root.
    pub fn publish(&self, publish: &Publish<'_>) -> Result<(Image, Skips)> {
        let adding = self.adding()?;
        let base =
            self.inspect(publish.base)?.context("the image that it is made of is not here any more")?;
        if base.image.layers.len() >= LAYERS_MAX {
            bail!("its image has {LAYERS_MAX} layers, and none can have more");
        }
        let manifest = self.read_blob(publish.base, DOCUMENT_MAX_BYTES)?.context("its manifest is gone")?;
        let doing = "the documents of its image are no JSON";
        let mut manifest: Value = serde_json::from_slice(&manifest).context(doing)?;
        let mut config: Value = serde_json::from_slice(&base.config_json).context(doing)?;
        let fate = |path: &[u8]| fate(path, &publish.mounts);
        let mut encoder = flate2::write::GzEncoder::new(self.new_blob()?, flate2::Compression::fast());
        let layers = self.layer_paths(&base.image);
        let layers: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
        let packed = pack_diffs(&publish.uppers, &layers, publish.space, &fate, &mut encoder)
            .context("cannot pack what it wrote")?;
        let is_docker = base.manifest.config.media_type == media::CONFIGS[1];
        let (layer_type, manifest_type) = if is_docker {
            (media::LAYERS[7], media::MANIFESTS[1])
        } else {
            (media::LAYER_GZIP, media::MANIFESTS[0])
        };
        let blob = encoder.finish().context("cannot write a blob")?.finish(self, layer_type)?;
        let created =
            rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        describe(&mut config, publish, &packed.diff_id, &created)?;
        let config = self.keep(&base.manifest.config.media_type, config.to_string().as_bytes())?;
        let document = manifest.as_object_mut().context("its manifest is no object")?;
        // They are said of the other image.
        document.retain(|key, _| matches!(key.as_str(), "schemaVersion" | "mediaType" | "layers"));
        document.insert("config".to_owned(), json!(config));
        let layers = document.get_mut("layers").and_then(Value::as_array_mut);
        layers.context("its manifest has no layers")?.push(json!(blob));
        let manifest = self.keep(manifest_type, manifest.to_string().as_bytes())?;
        let names = vec![publish.name.clone()];
        let arrival = Arrival { digest: manifest.digest, names, indexes: Vec::new(), source: None };
        Ok((self.record(&adding, &arrival)?, packed.skips))
    }
}

/// What becomes of a path of what was written.
fn fate(path: &[u8], mounts: &[&str]) -> Fate {
    match identity(path) {
        Some(Identity::Emptied) => return Fate::Emptied,
        Some(Identity::LeftOut | Identity::Secret) => return Fate::LeftOut,
        None => {}
    }
    // What is there is of one run of a machine.
    let passes = path.starts_with(b"run/") || path.starts_with(b"tmp/");
    let is_mount = mounts.iter().any(|mount| mount.strip_prefix('/').is_some_and(|at| at.as_bytes() == path));
    if passes || is_mount { Fate::LeftOut } else { Fate::Kept }
}

/// Adds the layer to the configuration, and how it came to be.
fn describe(config: &mut Value, publish: &Publish<'_>, diff_id: &Digest, created: &str) -> Result<()> {
    let list = |value: &mut Value, pointer: &str| -> Result<Vec<Value>> {
        let list = value.pointer_mut(pointer).map(Value::take);
        match list {
            Some(Value::Array(list)) => Ok(list),
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => bail!("`{pointer}` of its image's configuration is no list"),
        }
    };
    let mut layers = list(config, "/rootfs/diff_ids")?;
    let mut history = list(config, "/history")?;
    let is_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
    // Makers need not write all of it; the new entry is that of the last layer.
    let missing = layers.len().saturating_sub(history.iter().filter(is_layer).count());
    history.extend((0..missing).map(|_| json!({})));
    layers.push(json!(diff_id));
    let mut entry = json!({"created": created, "created_by": publish.created_by});
    for (key, text) in [("author", publish.author), ("comment", publish.message)] {
        if let (Some(text), Some(entry)) = (text, entry.as_object_mut()) {
            entry.insert(key.to_owned(), json!(text));
        }
    }
    history.push(entry);
    let config = config.as_object_mut().context("its image's configuration is no object")?;
    config.insert("created".to_owned(), json!(created));
    if let Some(author) = publish.author {
        config.insert("author".to_owned(), json!(author));
    }
    config.insert("history".to_owned(), Value::Array(history));
    config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": layers}));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_machine_or_one_run_is_in_no_image() {
        let mounts = ["/dev", "/etc/hosts", "/srv/data"];
        for (path, expected) in [
            ("etc/passwd", Fate::Kept),
            ("etc/machine-id", Fate::Emptied),
            ("etc/ssh/ssh_host_rsa_key", Fate::LeftOut),
            ("etc/hosts", Fate::LeftOut),
            ("srv/data", Fate::LeftOut),
            ("srv", Fate::Kept),
            ("run", Fate::Kept),
            ("run/sshd.pid", Fate::LeftOut),
            ("tmp/a", Fate::LeftOut),
            ("var/tmp/a", Fate::Kept),
        ] {
            assert_eq!(fate(path.as_bytes(), &mounts), expected, "{path}");
        }
    }

    #[test]
    fn the_new_entry_of_the_history_is_that_of_the_new_layer() {
        let name = "a:b".parse().unwrap();
        let base = crate::digest_of(b"base");
        let publish = Publish {
            name: &name,
            base: &base,
            uppers: Vec::new(),
            space: XattrSpace::User,
            mounts: Vec::new(),
            created_by: "stead publish web a:b",
            author: None,
            message: Some("it works"),
        };
        let mut config = json!({
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ["x", "y"]},
            "history": [{"created_by": "x"}, {"empty_layer": true}],
        });
        describe(&mut config, &publish, &base, "now").unwrap();
        let expected = json!({
            "config": {"Cmd": ["sh"]}, "created": "now",
            "rootfs": {"type": "layers", "diff_ids": ["x", "y", base]},
            "history": [{"created_by": "x"}, {"empty_layer": true}, {},
                {"created": "now", "created_by": "stead publish web a:b", "comment": "it works"}],
        });
        assert_eq!(config, expected);
    }
}
