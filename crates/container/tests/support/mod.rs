//! A `World`: an image of busybox and a place for one machine, for one kind of root.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod said;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use stead_model::container::{Container, Launch};
use stead_model::image::ImageConfig;

#[allow(unused_imports, reason = "each test program uses its own part")]
pub use said::{Said, cgroups_named, until};

/// The ordinary user where we are root.
const USER: u32 = 1000;

/// Which root makes containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This computer's.
    Root,
    /// An ordinary user's, with a single id.
    Single,
    /// An ordinary user's, with 65536 more ids.
    Many,
}

/// Those that can be had here.
pub fn roles() -> Vec<Role> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    if rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]) {
        vec![Role::Root, Role::Single, Role::Many]
    } else {
        vec![Role::Single]
    }
}

/// Makes the image. As mapped root with a single id nobody else can own anything.
const IMAGE: &str = r#"
    set -e; umask 022; cd "$1"
    mkdir -p layer/bin layer/etc layer/root layer/data/sub layer/tmp top/bin
    cp /usr/bin/busybox layer/bin/busybox
    for name in $(busybox --list); do [ -e layer/bin/$name ] || ln -s busybox layer/bin/$name; done
    printf 'root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n' > layer/etc/passwd
    printf 'root:x:0:\nwww:x:34:\nadm:x:4:web\n' > layer/etc/group
    echo hello > layer/data/file; ln layer/data/file layer/data/twin; ln -s file layer/data/link
    chown 33:34 layer/data/file 2>/dev/null || :; chmod 640 layer/data/file; chmod 1777 layer/tmp; chmod 750 layer/data
    touch -d '2001-02-03 04:05:06' layer/data/file
    echo 'not a program' > top/bin/text; printf '#!/nowhere\n' > top/bin/script; chmod 755 top/bin/script
    echo upper > top/covered; echo lower > layer/covered
    mkdir upper work root own state volumes share share/inner
    echo shared > share/file
"#;

/// A machine of its own.
pub struct World {
    directory: tempfile::TempDir,
    role: Role,
    holder: Child,
    pub launch: Launch,
    /// More keys of the request.
    pub more: serde_json::Value,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl World {
    pub fn new(role: Role) -> Self {
        let directory = tempfile::Builder::new().prefix("steadc").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if role != Role::Root && is_root() {
            std::os::unix::fs::chown(directory.path(), Some(USER), Some(USER)).unwrap();
        }
        let config = ImageConfig {
            cmd: vec!["true".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            ..ImageConfig::default()
        };
        let container = Container::new("busybox".parse().unwrap());
        let launch = container.launch(&"box".parse().unwrap(), &config).unwrap();
        let holder = hold(role);
        let world = Self { directory, role, holder, launch, more: json!({}) };
        let made = world.command(&["sh", "-c", IMAGE, "sh", world.path("").to_str().unwrap()]).output();
        Said::from(made.unwrap()).ok();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A shell's line as the container's program.
    pub fn sh(&mut self, line: &str) -> Said {
        self.launch.args = ["sh", "-c", line].map(str::to_owned).into();
        self.run()
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Said {
        self.runtime(&["run", self.request().to_str().unwrap()]).output().unwrap().into()
    }

    /// Starts the container: what runs it, and its first process.
    pub fn start(&self) -> Running {
        let _ = fs::remove_file(self.path("state/pid"));
        let mut command = self.runtime(&["run", self.request().to_str().unwrap()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child, out, pid: 0, pidfd: None };
        running.hear("ready");
        running.pid = fs::read_to_string(self.path("state/pid")).unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(running.pid).unwrap()).unwrap();
        running.pidfd = Some(pidfd_open(pid, PidfdFlags::empty()).unwrap());
        running
    }

    /// Another process in the container.
    pub fn exec(&self, running: &Running, user: &str, command: &[&str]) -> Said {
        let file = self.path("request.json");
        let pid = running.pid.to_string();
        let mut args = vec!["exec", file.to_str().unwrap(), &pid, user];
        args.extend(command);
        self.runtime(&args).output().unwrap().into()
    }

    /// A verb of the runtime, about the container's state.
    pub fn verb(&self, verb: &str, pid: Option<u32>) -> Said {
        let state = self.path("state");
        let pid = pid.map(|pid| pid.to_string());
        let mut args = vec![verb, state.to_str().unwrap()];
        args.extend(pid.as_deref());
        self.runtime(&args).output().unwrap().into()
    }

    pub fn refused(&self) -> Said {
        self.runtime(&["refused", self.request().to_str().unwrap()]).output().unwrap().into()
    }

    fn request(&self) -> PathBuf {
        let name = self.directory.path().file_name().unwrap().to_str().unwrap();
        let mut request = json!({
            "launch": self.launch,
            "layers": [self.path("layer"), self.path("top")],
            "directory": self.path(""),
            "netns": "/proc/self/ns/net",
            "cgroup": format!("test/{name}"),
            "hosts": "127.0.0.1 localhost\n",
            "resolv_conf": "nameserver 192.0.2.53\n",
        });
        for (key, value) in self.more.as_object().unwrap() {
            request[key] = value.clone();
        }
        let path = self.path("request.json");
        fs::write(&path, request.to_string()).unwrap();
        path
    }

    fn runtime(&self, args: &[&str]) -> Command {
        let mut words = vec![env!("CARGO_BIN_EXE_stead-container")];
        words.extend(args);
        self.command(&words)
    }

    /// A program as the root that this world is about.
    pub fn command(&self, words: &[&str]) -> Command {
        let pid = self.holder.id().to_string();
        let mut line = Vec::new();
        match self.role {
            Role::Root => line.extend(["nsenter", "-t", &pid, "-n"]),
            Role::Single | Role::Many => {
                line.extend(ordinary());
                line.extend(["nsenter", "-t", &pid, "-U", "-m", "-n", "--preserve-credentials"]);
            }
        }
        line.extend(words);
        command(&line)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test may have left its container.
        let _ = self.verb("remove", None);
        let left = self.path("").display().to_string();
        // What its users own is theirs to delete.
        let _ = self.command(&["rm", "-rf", &format!("{left}/upper"), &format!("{left}/work")]).status();
        let _ = self.command(&["rm", "-rf", &format!("{left}/own"), &format!("{left}/volumes")]).status();
        let _ = self.command(&["rm", "-rf", &format!("{left}/layer")]).status();
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
        if !std::thread::panicking() {
            let name = self.directory.path().file_name().unwrap().to_str().unwrap();
            assert_eq!(cgroups_named(Path::new("/sys/fs/cgroup"), name), Vec::<PathBuf>::new());
        }
    }
}

fn ordinary() -> Vec<&'static str> {
    if is_root() { vec!["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"] } else { vec![] }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// Holds the namespaces: of network, and of the user where there is one.
fn hold(role: Role) -> Child {
    const HOLD: &str = "echo; exec cat";
    let mut line = match role {
        Role::Root => vec!["unshare", "-n", "sh", "-c", HOLD],
        Role::Single => [ordinary(), vec!["unshare", "-U", "-r", "-n", "-m", "sh", "-c", HOLD]].concat(),
        Role::Many => [ordinary(), vec!["unshare", "-U", "-n", "-m", "sh", "-c", HOLD]].concat(),
    };
    let mut child = command(&std::mem::take(&mut line));
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut text).unwrap();
    if role == Role::Many {
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", child.id());
            fs::write(path, format!("0 {USER} 1\n1 100000 65536\n")).unwrap();
        }
    }
    child
}

/// A container that runs, with what runs it. It ends when dropped.
pub struct Running {
    pub child: Child,
    out: BufReader<std::process::ChildStdout>,
    pub pid: u32,
    pidfd: Option<OwnedFd>,
}

impl Running {
    /// Waits for this line of the container's.
    #[track_caller]
    pub fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "it ended without saying `{wanted}`");
        }
    }

    /// Says something to the container.
    pub fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(self.pidfd.as_ref().unwrap(), signal).unwrap();
    }

    /// Its exit code.
    pub fn wait(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // They may have ended.
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
