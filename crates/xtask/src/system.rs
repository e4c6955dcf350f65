//! The image of a system that the scenes boot: made by `stead` itself from Debian's packages, with the network as it is.
//! That takes a minute or more, so it is done once and kept below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs::run;

/// What the image is called, in the catalogue and in the scenes.
const NAME: &str = "lab/system:12";

/// Systemd, podman to run containers within, what Docker needs for it, and what people log in by.
const SOURCE: &str = "debian-packages:bookworm+systemd-sysv,libpam-systemd,dbus,iproute2,procps,podman,runc,\
    fuse-overlayfs,openssh-server,sudo,iptables,libdevmapper1.02.1";

/// The archive with the image; `target` is where cargo builds.
pub(crate) fn image(target: &Path, stead: &Path) -> Result<PathBuf> {
    // Named after what is in it: another list is another file.
    let name: String = SOURCE.chars().filter(char::is_ascii_alphanumeric).collect();
    let archive = target.join("images").join(format!("{name}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    println!("making an image of Debian's packages for the scenes of systems");
    let scratch = tempfile::tempdir().context("could not make a directory")?;
    let settings = scratch.path().join("config/stead");
    fs::create_dir_all(&settings)?;
    let text = serde_json::json!({ "catalogue": { NAME: [SOURCE] } });
    fs::write(settings.join("images.json"), text.to_string())?;
    fs::create_dir_all(target.join("images"))?;
    let partial = archive.with_extension("partial");
    let stead = |arguments: &[&str]| {
        let mut command = Command::new(stead);
        command.args(arguments).env("STEAD_HOME", scratch.path().join("home"));
        run(command.env("XDG_CONFIG_HOME", scratch.path().join("config")))
    };
    let made = stead(&["image", "pull", NAME])
        .and_then(|()| stead(&["image", "save", NAME, "--output", &partial.to_string_lossy()]));
    // Its files may belong to subordinate ids.
    stead(&["purge", "--yes"])?;
    made?;
    fs::rename(&partial, &archive).context("could not keep the image")?;
    Ok(archive)
}
