//! The other programs that run containers, in a place of their own: Podman with runc, whose storage is an overlayfs
//! like ours; runc by itself; and the image that all of them run, busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::kept::kept;
use crate::programs::output;

/// What the image is called by everybody.
pub(super) const IMAGE: &str = "localhost/busybox";

/// The archive of a root file system with busybox and a name for each of its programs.
pub(super) struct Tree {
    place: tempfile::TempDir,
}

impl Tree {
    /// Made once.
    pub(super) fn kept() -> Result<std::rc::Rc<Self>> {
        kept(|| {
            let place = tempfile::tempdir().context("could not make a directory")?;
            let bin = place.path().join("root/bin");
            fs::create_dir_all(&bin)?;
            fs::create_dir_all(place.path().join("root/etc"))?;
            fs::copy("/usr/bin/busybox", bin.join("busybox")).context("could not copy busybox")?;
            for name in output(Command::new("busybox").arg("--list"))?.lines() {
                if name != "busybox" {
                    std::os::unix::fs::symlink("busybox", bin.join(name))?;
                }
            }
            let made = Self { place };
            let mut tar = Command::new("tar");
            tar.args(["--owner=0", "--group=0", "--numeric-owner", "--create", "--file"]).arg(made.archive());
            output(tar.arg("--directory").arg(made.root()).arg("."))?;
            Ok(made)
        })
    }

    /// The archive.
    pub(super) fn archive(&self) -> PathBuf {
        self.place.path().join("busybox.tar")
    }

    /// The same as a directory.
    pub(super) fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }
}

/// Podman with all that it keeps in one directory. Gone with its containers when dropped.
pub(super) struct Podman {
    place: tempfile::TempDir,
}

impl Podman {
    /// With nothing in it.
    pub(super) fn new() -> Result<Self> {
        let place = tempfile::tempdir().context("could not make a directory")?;
        let path = place.path().display();
        // crun refuses the hybrid layout of cgroups that some computers have; the limits are those that anybody may
        // set; images come from a registry on loopback.
        let files = [
            (
                "storage.conf",
                format!(
                    "[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}/graph\"\nrunroot = \"{path}/run\"\n"
                ),
            ),
            (
                "containers.conf",
                format!(
                    "[containers]\nlog_driver = \"k8s-file\"\n\
                     default_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n\
                     [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
                     tmp_dir = \"{path}/tmp\"\n\
                     [network]\nnetwork_config_dir = \"{path}/networks\"\n"
                ),
            ),
            ("registries.conf", "[[registry]]\nlocation = \"127.0.0.1:5000\"\ninsecure = true\n".to_owned()),
            ("policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n".to_owned()),
        ];
        for (name, text) in files {
            fs::write(place.path().join(name), text).with_context(|| format!("could not write {name}"))?;
        }
        Ok(Self { place })
    }

    /// With the image, made once.
    pub(super) fn kept() -> Result<std::rc::Rc<Self>> {
        let tree = Tree::kept()?;
        kept(|| {
            let podman = Self::new()?;
            let archive = tree.archive();
            output(podman.command("podman", &["import", "--quiet"]).arg(archive).arg(IMAGE))?;
            Ok(podman)
        })
    }

    /// A program that is Podman or drives it.
    pub(super) fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        for (variable, file) in [
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
        ] {
            command.env(variable, self.path().join(file));
        }
        command
    }

    /// Where it keeps everything.
    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let removed = output(&mut self.command("podman", &["rm", "--all", "--force", "--time", "0"]));
        if let Err(error) = removed {
            eprintln!("warning: {error:#}");
        }
        // What it leaves on a computer, each where it is there: it mounts its storage over itself, and never takes
        // away its rules and its directories.
        let _absent = output(Command::new("umount").arg(self.path().join("graph/overlay")));
        for table in ["ip nat", "ip filter", "ip6 nat", "ip6 filter"] {
            let _absent = output(Command::new("nft").args(["delete", "table"]).args(table.split(' ')));
        }
        for left in ["/run/libpod", "/run/runc", "/run/containers", "/run/lock", "/run/crun"] {
            let _absent = fs::remove_dir_all(left);
        }
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _absent = fs::remove_dir(controller.path().join("libpod_parent"));
        }
        let _absent = fs::remove_dir("/sys/fs/cgroup/libpod_parent");
    }
}

/// runc with a bundle of its own, whose program is `true`.
pub(super) struct Runc {
    place: tempfile::TempDir,
}

impl Runc {
    /// Made once, on the same root file system.
    pub(super) fn kept() -> Result<std::rc::Rc<Self>> {
        let tree = Tree::kept()?;
        kept(|| {
            let place = tempfile::tempdir().context("could not make a directory")?;
            output(Command::new("runc").args(["spec", "--bundle"]).arg(place.path()))?;
            let file = place.path().join("config.json");
            let text = fs::read(&file).context("could not read runc's own example")?;
            let mut config: serde_json::Value = serde_json::from_slice(&text)?;
            for (key, value) in [
                ("/process/args", serde_json::json!(["true"])),
                ("/process/terminal", false.into()),
                ("/root/path", tree.root().to_str().context("the path is not UTF-8")?.into()),
            ] {
                *config.pointer_mut(key).with_context(|| format!("no {key} in runc's example"))? = value;
            }
            fs::write(&file, config.to_string()).context("could not write a bundle")?;
            Ok(Self { place })
        })
    }

    /// `runc run`.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.place.path().join("state"));
        command.arg("run").arg("--bundle").arg(self.place.path()).arg("bench").stdin(Stdio::null());
        command
    }
}
