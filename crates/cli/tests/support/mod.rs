//! A `World`: a computer of its own for one test, with the real program on it.
//!
//! ```text
//! test ──▶ computer (network, mount and process namespaces; `lo`, perhaps `eth0` and a default route)
//!            ├─ person: who runs `stead`: root, or somebody without rights over the computer (STEAD_TEST_AS)
//!            └─ outside (another network namespace at the far end of `eth0`): web, DNS
//! ```
//!
//! Dropping a world purges every home that was used and compares what is left with what there was before. The
//! world's process 1 takes all other processes along when it ends, so nothing outlives a test however it ends.

#![allow(dead_code)] // Each test program uses its own part.

pub mod dice;
mod programs;
pub mod registry;
mod scripts;
mod untested;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each test program uses its own part")]
pub use self::programs::{Running, Said, said, said_after, said_within};
use self::programs::{first_line, running};
#[allow(unused_imports, reason = "each test program uses its own part")]
pub use self::scripts::executable;
pub(crate) use self::untested::untested;

/// What a test waits for happens within this.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who runs `stead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Root,
    User,
}

/// As `cargo xtask test` says it; by hand, whoever one is.
pub fn role() -> Role {
    match std::env::var("STEAD_TEST_AS").as_deref() {
        Ok("root") => Role::Root,
        Ok("user") => Role::User,
        Ok(other) => panic!("STEAD_TEST_AS is `{other}`, which is neither `root` nor `user`"),
        Err(_) if is_root() => Role::Root,
        Err(_) => Role::User,
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the computer, with rights over its network: whoever set it up.
    Computer,
    /// On the computer, as the one who runs `stead`.
    Person,
    /// Beyond the computer's `eth0`.
    Outside,
}

/// A machine's ear: tcpdump.
pub struct Judge {
    _capture: Running,
    _tcpdump: Running,
    heard: BufReader<std::process::ChildStdout>,
}

impl Judge {
    /// Everything up to the first line that holds this.
    #[track_caller]
    pub fn hear_until(&mut self, mark: &str) -> String {
        let mut heard = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.heard.read_line(&mut line).unwrap(), 0, "the judge went:\n{heard}");
            heard += &line;
            if line.contains(mark) {
                return heard;
            }
        }
    }
}

/// A computer for one test.
pub struct World {
    directory: tempfile::TempDir,
    holder: Running,
    /// Process 1 of the computer, seen from here.
    computer: u32,
    person: Option<(Running, u32)>,
    /// The cgroup of a person who is an ordinary user with subordinate ids.
    delegated: Option<PathBuf>,
    outside: Option<(Running, u32)>,
    services: Vec<Running>,
    before: Vec<String>,
    homes: RefCell<BTreeSet<PathBuf>>,
}

impl World {
    /// A computer that is connected to nothing.
    pub fn offline() -> Self {
        let directory = tempfile::Builder::new().prefix("steadw").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        scripts::write(directory.path());
        let mut unshare = Command::new("unshare");
        if role() == Role::User {
            unshare.args(["-U", "-r"]);
        }
        unshare.args(["-n", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", scripts::COMPUTER]);
        unshare.arg("sh").arg(directory.path());
        let mut holder = running(unshare);
        assert_eq!(first_line(&mut holder), "ready", "no computer could be made");
        let parent = holder.pid();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let mut world = Self {
            directory,
            holder,
            computer: children.trim().parse().unwrap(),
            person: None,
            delegated: None,
            outside: None,
            services: Vec::new(),
            before: Vec::new(),
            homes: RefCell::default(),
        };
        if role() == Role::User {
            let line = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "sh", "-c", scripts::HOLD];
            world.person = Some(world.holder_at(&line));
        }
        world.before = world.snapshot();
        world
    }

    /// A computer that is connected to nothing, whose person is an ordinary user with subordinate ids and a cgroup of
    /// version 2, as people have them on a desktop. Nothing where nobody can make one.
    pub fn with_subids() -> Option<Self> {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let unified = unified.into_iter().find(|path| path.join("cgroup.procs").exists())?;
        if role() != Role::Root || !map.split_whitespace().eq(["0", "0", "4294967295"]) {
            return None;
        }
        let mut world = Self::offline();
        let cgroup = unified.join(world.path().file_name().unwrap());
        let line = format!(
            "sh -e {}/subids.sh {} {}",
            world.path().display(),
            world.path().display(),
            cgroup.display()
        );
        world.sh(Place::Computer, &line);
        world.delegated = Some(cgroup);
        world.settle();
        Some(world)
    }

    /// A computer with a way out. Outside are 203.0.113.1 and 2001:db8:9::1 with a web server each and a
    /// DNS server for `outside.test`, and no route to anything behind the computer.
    pub fn online() -> Self {
        let mut world = Self::offline();
        world.outside = Some(world.holder_at(&["unshare", "-n", "sh", "-c", scripts::HOLD]));
        let outside = world.outside.as_ref().unwrap().1;
        world.sh(Place::Computer, &scripts::COMPUTER_ONLINE.replace("OUTSIDE", &outside.to_string()));
        world.sh(Place::Outside, scripts::OUTSIDE_ONLINE);
        let web = world.directory.path().join("www").display().to_string();
        for address in ["203.0.113.1:80", "[2001:db8:9::1]:80"] {
            let line = ["busybox", "httpd", "-f", "-p", address, "-h", &web];
            let service = world.spawn(Place::Outside, &line);
            world.services.push(service);
        }
        let service = world.spawn(Place::Outside, &scripts::DNSMASQ);
        world.services.push(service);
        world.until("the outside serves", || {
            let dig =
                world.sh_said(Place::Computer, "dig +short +time=1 +tries=1 web.outside.test @192.0.2.1");
            (dig.out.trim() == "203.0.113.1").then_some(())
        });
        world.until("the outside's web servers run", || {
            let line = "curl -s -m 2 http://203.0.113.1/ && curl -s -m 2 http://[2001:db8:9::1]/";
            (world.sh_said(Place::Computer, line).code == 0).then_some(())
        });
        world.before = world.snapshot();
        world
    }

    /// Has the first home in memory: for large images, which a busy disk takes minutes for.
    pub fn keep_in_memory(&mut self) {
        self.keep_on_tmpfs("mode=777");
    }

    /// Has the first home on a disk of its own, of this size.
    pub fn keep_on_small_disk(&mut self, size: &str) {
        self.keep_on_tmpfs(&format!("mode=777,size={size}"));
    }

    fn keep_on_tmpfs(&mut self, options: &str) {
        let home = self.path().join("home").display().to_string();
        let line = format!("mkdir {home}; busybox mount -t tmpfs -o {options} home {home}");
        self.sh(Place::Computer, &line);
        self.settle();
    }

    /// What is there now is what has to be there when the world ends.
    pub fn settle(&mut self) {
        self.before = self.snapshot();
    }

    /// The process that holds the outside's namespace, as processes on the computer see it.
    pub fn outside_pid(&self) -> u32 {
        self.outside.as_ref().unwrap().1
    }

    /// Starts `stead` in the background, in the first home.
    pub fn spawn_stead(&self, directory: &Path, arguments: &[&str]) -> Running {
        running(self.stead_command("home", directory, arguments))
    }

    /// The directory of the test's own files.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A project with this file, in the first home.
    pub fn project(&self, name: &str, text: &str) -> Project<'_> {
        self.project_at("home", name, text)
    }

    /// A project with this file, in a home.
    pub fn project_at(&self, home: &str, name: &str, text: &str) -> Project<'_> {
        let directory = self.path().join("projects").join(home).join(name);
        fs::create_dir_all(&directory).unwrap();
        let project = Project { world: self, directory, home: home.to_owned() };
        project.write(text);
        project
    }

    /// Runs `stead` in a home, with the words of a line as its arguments.
    #[track_caller]
    pub fn stead(&self, line: &str) -> Said {
        self.stead_at("home", self.path(), &words(line))
    }

    /// Runs `stead` in a home and a directory.
    #[track_caller]
    pub fn stead_at<S: AsRef<OsStr>>(&self, home: &str, directory: &Path, arguments: &[S]) -> Said {
        said(self.stead_command(home, directory, arguments))
    }

    /// `stead` as a command.
    pub fn stead_command<S: AsRef<OsStr>>(&self, home: &str, directory: &Path, arguments: &[S]) -> Command {
        let home = self.path().join(home);
        self.homes.borrow_mut().insert(home.clone());
        let mut command = self.command_in(directory, Place::Person, &[stead()]);
        command.args(arguments).env("STEAD_HOME", home);
        command
    }

    /// A program somewhere on the computer, or outside.
    pub fn command<S: AsRef<OsStr>>(&self, place: Place, line: &[S]) -> Command {
        self.command_in(self.path(), place, line)
    }

    fn command_in<S: AsRef<OsStr>>(&self, directory: &Path, place: Place, line: &[S]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.computer.to_string()]);
        if role() == Role::User {
            command.args(["-U", "--preserve-credentials"]);
        }
        // `nsenter -p` waits for its child: ended itself, it has to take the child along.
        command.args(["-n", "-m", "-p", "setpriv", "--pdeathsig", "KILL"]);
        match (place, &self.person, &self.outside) {
            (Place::Person, Some((_, pid)), _) => {
                command.args(["nsenter", "-t", &pid.to_string(), "-U", "--preserve-credentials"]);
            }
            (Place::Outside, _, Some((_, pid))) => {
                command.args(["nsenter", "-t", &pid.to_string(), "-n"]);
            }
            (Place::Outside, _, None) => panic!("there is no outside"),
            (Place::Computer | Place::Person, ..) => {}
        }
        for variable in [
            "XDG_DATA_HOME",
            "XDG_RUNTIME_DIR",
            "STEAD_FILE",
            "STEAD_LOG",
            "NO_COLOR",
            "SUDO_USER",
            "SUDO_UID",
        ] {
            command.env_remove(variable);
        }
        if let (Place::Person, Some(cgroup)) = (place, &self.delegated) {
            command.args(["sh", "-c", scripts::BECOME_USER]).arg(cgroup);
        }
        // `nsenter` starts programs at the root.
        command.arg("env").arg("-C").arg(directory).args(line).env("HOME", self.path().join("nobody"));
        command
    }

    /// Runs a line of shell; fails the test unless it ends well.
    #[track_caller]
    pub fn sh(&self, place: Place, line: &str) -> String {
        self.sh_said(place, line).ok()
    }

    /// Runs a line of shell.
    #[track_caller]
    pub fn sh_said(&self, place: Place, line: &str) -> Said {
        said(self.command(place, &["sh", "-e", "-c", line]))
    }

    /// Starts a program in the background.
    pub fn spawn<S: AsRef<OsStr>>(&self, place: Place, line: &[S]) -> Running {
        running(self.command(place, line))
    }

    /// Looks until there is something to see, and fails the test if that takes too long.
    #[track_caller]
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        until(what, look)
    }

    /// A process that holds a namespace.
    fn holder_at(&self, line: &[&str]) -> (Running, u32) {
        let mut holder = self.spawn(Place::Computer, line);
        let pid = first_line(&mut holder).parse().unwrap();
        (holder, pid)
    }

    /// All that `stead` could change and has to leave as it was, a line each.
    pub fn snapshot(&self) -> Vec<String> {
        let text = self.sh(Place::Computer, scripts::SNAPSHOT);
        text.lines().map(str::to_owned).collect()
    }

    /// Purges the homes and compares.
    fn finish(&mut self) {
        for home in std::mem::take(self.homes.get_mut()) {
            let name = home.file_name().unwrap().to_str().unwrap();
            self.stead_at(name, self.path(), &["purge", "--yes"]).ok();
            assert!(!home.join("state").exists() && !home.join("run").exists(), "purge left files");
        }
        let before = &self.before;
        let difference = self.until_some(|| {
            let now = self.snapshot();
            let left = now.iter().filter(|line| !before.contains(line)).map(|line| format!("+{line}"));
            let gone = before.iter().filter(|line| !now.contains(line)).map(|line| format!("-{line}"));
            left.chain(gone).collect::<Vec<_>>()
        });
        assert!(difference.is_empty(), "purge left the computer changed:\n{}", difference.join("\n"));
    }

    /// The last of several looks: an empty one, or when the time is up (processes take a moment to end).
    fn until_some(&self, mut look: impl FnMut() -> Vec<String>) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let seen = look();
            if seen.is_empty() || Instant::now() > deadline {
                return seen;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
        if let Some(cgroup) = &self.delegated {
            // Processes that were ended are gone when the kernel gets round to it.
            let _ = said(self.command(
                Place::Computer,
                &["sh", "-c", scripts::REMOVE_CGROUP, "sh", &cgroup.display().to_string()],
            ));
        }
    }
}

/// A directory with a `stead.yaml`.
pub struct Project<'w> {
    pub world: &'w World,
    pub directory: PathBuf,
    pub home: String,
}

impl Project<'_> {
    /// Writes the file anew.
    pub fn write(&self, text: &str) {
        fs::write(self.directory.join("stead.yaml"), text).unwrap();
    }

    /// Runs `stead` here, with the words of a line as its arguments.
    #[track_caller]
    pub fn stead(&self, line: &str) -> Said {
        self.world.stead_at(&self.home, &self.directory, &words(line))
    }

    /// Writes the file anew, shows the plan, and brings the project up. The plan's text, with what differs
    /// between two runs (this test's directory) left out.
    #[track_caller]
    pub fn change(&self, text: &str) -> String {
        self.write(text);
        let plan = self.plan();
        let done = self.stead("up").ok();
        let planned: BTreeSet<String> = plan.lines().map(|line| step_of(line).to_owned()).collect();
        let carried_out: BTreeSet<String> =
            self.plain(&done).lines().map(|line| step_of(line).to_owned()).collect();
        assert_eq!(planned, carried_out, "`up` did something else than `plan` had said");
        assert_eq!(self.stead("plan").ok(), "nothing to do\n");
        plan
    }

    /// The plan's text without this test's directory.
    #[track_caller]
    pub fn plan(&self) -> String {
        let text = self.stead("plan").ok();
        self.plain(&text)
    }

    /// Without this test's directory, the columns' widths, and the uplink: it depends on who asks and where.
    fn plain(&self, text: &str) -> String {
        let text = text.replace(&*self.directory.to_string_lossy(), "HERE");
        let lines = text.lines().filter(|line| !line[1..].starts_with(" uplink "));
        let squeezed = lines.map(|line| match line.split_once("  #") {
            Some((step, why)) => format!("{}  #{why}\n", step.trim_end()),
            None => format!("{line}\n"),
        });
        squeezed.collect()
    }

    /// Runs a line of shell on a machine.
    #[track_caller]
    pub fn on(&self, machine: &str, line: &str) -> Said {
        said(self.on_command(machine, &["sh", "-e", "-c", line]))
    }

    /// A program on a machine, as a command.
    pub fn on_command<S: AsRef<OsStr>>(&self, machine: &str, line: &[S]) -> Command {
        let arguments = ["network", "enter", "-m", machine, "--"].map(OsStr::new).into_iter();
        let arguments: Vec<&OsStr> = arguments.chain(line.iter().map(AsRef::as_ref)).collect();
        self.world.stead_command(&self.home, &self.directory, &arguments)
    }

    /// What a machine hears on its nics, as lines of tcpdump. It captures in the machine, and reads that as
    /// nobody: tcpdump itself gives up its rights in a way that a user namespace of one id does not allow.
    pub fn listen(&self, machine: &str) -> Judge {
        let mut capture = self.on_command(machine, &["perl", "-e", scripts::CAPTURE]);
        let mut capture = capture.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut tcpdump = Command::new("unshare");
        tcpdump.args(["-U", "--map-user=1000", "--map-group=1000", "tcpdump", "-l", "-n", "-e", "-r", "-"]);
        tcpdump.stdin(capture.stdout.take().unwrap()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = tcpdump.spawn().unwrap();
        let heard = BufReader::new(child.stdout.take().unwrap());
        Judge { _capture: Running::deaf(capture), _tcpdump: Running::deaf(child), heard }
    }

    /// A program on a machine, in the background.
    pub fn spawn_on<S: AsRef<OsStr>>(&self, machine: &str, line: &[S]) -> Running {
        running(self.on_command(machine, line))
    }

    /// A shell line on a machine until it ends well.
    #[track_caller]
    pub fn until_on(&self, machine: &str, line: &str) -> String {
        let mut last = None;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            let said = self.on(machine, line);
            if said.code == 0 {
                return said.out;
            }
            last = Some(said);
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("{last:?} did not come to a good end within {LIMIT:?}")
    }

    /// Asks for an address over DHCP on a machine's nic, as any machine does; the lease's fields.
    #[track_caller]
    pub fn udhcpc(&self, machine: &str, nic: &str) -> String {
        let script = self.world.path().join("udhcpc.sh");
        let line = format!(
            "busybox udhcpc -i {nic} -f -q -n -t 8 -T 1 -O mtu -O search -s {} 2>&1",
            script.display()
        );
        self.on(machine, &line).ok()
    }

    /// The machine's addresses as `ps` has them.
    #[track_caller]
    pub fn address(&self, machine: &str, nic: usize) -> (String, String) {
        let project = self.directory.file_name().unwrap().to_str().unwrap();
        let rows = self.stead(&format!("ps {machine}.{project} --format json")).json();
        let nic = &rows[0]["nics"][nic];
        let text = |key: &str| nic[key].as_str().unwrap_or_default().to_owned();
        (text("address"), text("address6"))
    }
}

/// The step of a line of a plan, without why it is there.
fn step_of(line: &str) -> &str {
    line.split("  #").next().unwrap().trim_end()
}

/// Looks until there is something to see, and fails the test if that takes too long.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The address that the page `who` saw, however the web server writes it.
pub fn who(page: &str) -> &str {
    page.trim().trim_start_matches("[").trim_start_matches("::ffff:").trim_end_matches(']')
}

/// The program.
pub fn stead() -> &'static str {
    env!("CARGO_BIN_EXE_stead")
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
