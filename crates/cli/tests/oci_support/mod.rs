//! A bundle of busybox, and the runtime: as root of the computer, or of a user namespace with a single id.

#![allow(dead_code, reason = "each test program uses its own part")]

#[path = "../../../container/tests/support/said.rs"]
mod said;
#[path = "../support/untested.rs"]
mod untested;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

#[allow(unused_imports, reason = "not every program of tests has some that cannot run")]
pub(crate) use untested::untested;

#[allow(unused_imports, reason = "each test program uses its own part")]
pub use said::{Said, cgroups_named, until};

const ROOT_FILES: &str = r#"
    set -e; umask 022; cd "$1"; mkdir -p rootfs/bin rootfs/etc rootfs/tmp rootfs/data share/inner
    cp /usr/bin/busybox rootfs/bin/busybox
    for name in $(busybox --list); do [ -e rootfs/bin/$name ] || ln -s busybox rootfs/bin/$name; done
    printf 'root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n' > rootfs/etc/passwd
    chmod 1777 rootfs/tmp; echo hello > rootfs/data/file; chmod 750 rootfs/data; echo shared > share/file; echo x > share/inner/file
"#;

/// Whether tests run as root of the computer, who can do what root of a user namespace cannot.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A bundle with its `config.json` as a value, and a place for containers.
pub struct Bundle {
    directory: tempfile::TempDir,
    pub config: Value,
    holder: Option<Child>,
}

impl Bundle {
    /// With what `spec` writes.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("steadoci").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let holder = (!is_root()).then(hold);
        let mut bundle = Self { directory, config: Value::Null, holder };
        let made = bundle.command(&["sh", "-c", ROOT_FILES, "sh", bundle.text("").as_str()]).output();
        Said::from(made.unwrap()).ok();
        bundle.oci(&["spec", "--bundle", &bundle.text("")]).ok();
        bundle.config = serde_json::from_slice(&fs::read(bundle.path("config.json")).unwrap()).unwrap();
        bundle
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path in it as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Where the config has something.
    #[track_caller]
    pub fn set(&mut self, pointer: &str, value: Value) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = self.config.pointer_mut(parent).unwrap_or_else(|| panic!("no {pointer}"));
        parent.as_object_mut().unwrap().insert(key.to_owned(), value);
    }

    /// One more entry in a list of the config.
    #[track_caller]
    pub fn add(&mut self, pointer: &str, value: Value) {
        if self.config.pointer(pointer).is_none() {
            self.set(pointer, json!([]));
        }
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
    }

    /// A shell's line as the program.
    pub fn line(&mut self, line: &str) {
        self.set("/process/args", json!(["sh", "-c", line]));
    }

    /// Writes the config.
    pub fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    /// The runtime, with these words.
    pub fn oci(&self, words: &[&str]) -> Said {
        self.oci_command(words).output().unwrap().into()
    }

    pub fn oci_command(&self, words: &[&str]) -> Command {
        let root = self.text("containers");
        let line = [&[env!("CARGO_BIN_EXE_stead"), "oci", "--root", root.as_str()], words].concat();
        let mut command = self.command(&line);
        command.stdin(Stdio::null());
        command
    }

    /// Makes a container; its streams go nowhere, or we would wait for its end.
    pub fn create(&self, id: &str) -> Said {
        self.write();
        let said = self.path("said");
        let file = || fs::File::create(&said).unwrap();
        let status = self
            .oci_command(&["create", "--bundle", &self.text(""), id])
            .stdout(file())
            .stderr(file())
            .status()
            .unwrap();
        let err = fs::read_to_string(&said).unwrap();
        Said { code: status.code().unwrap_or(-1), out: String::new(), err }
    }

    /// Runs the config's program to its end.
    pub fn run(&self) -> Said {
        self.write();
        self.oci(&["run", "--bundle", &self.text(""), "box"])
    }

    /// Runs a shell's line to its end.
    pub fn sh(&mut self, line: &str) -> Said {
        self.line(line);
        self.run()
    }

    /// What `state` says, or nothing if there is no such container.
    pub fn state(&self, id: &str) -> Value {
        let said = self.oci(&["state", id]);
        if said.code == 0 { serde_json::from_str(&said.out).unwrap() } else { Value::Null }
    }

    /// Waits until a container has this status.
    #[track_caller]
    pub fn until(&self, id: &str, status: &str) {
        until(&format!("{id} is {status}"), || self.state(id)["status"] == status);
    }

    /// Fails the test if anything is left of any container.
    #[track_caller]
    pub fn is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.path("containers")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.text("")), "{mounts}");
    }

    /// A program as the root that this bundle is about.
    pub fn command(&self, words: &[&str]) -> Command {
        let pid = self.holder.as_ref().map(|holder| holder.id().to_string());
        let mut line = Vec::new();
        if let Some(pid) = &pid {
            line.extend(["nsenter", "-t", pid, "-U", "-m", "-n", "--preserve-credentials"]);
        }
        line.extend(words);
        let mut command = Command::new(line[0]);
        command.args(&line[1..]);
        command
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let left = fs::read_dir(self.path("containers")).into_iter().flatten().flatten();
        let left: Vec<String> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        for id in left {
            self.oci(&["delete", "--force", &id]);
        }
        if let Some(holder) = &mut self.holder {
            holder.kill().unwrap();
            holder.wait().unwrap();
        }
    }
}

/// Holds a user's namespaces.
fn hold() -> Child {
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "-n", "-m", "sh", "-c", "echo; exec cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut text).unwrap();
    child
}
