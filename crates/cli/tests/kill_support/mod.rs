//! A computer of its own for each test of the real program, which is then killed, starved or crowded there:
//! network and mount namespaces (as root), a home, a project, and judges that read back what is left.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../support/dice.rs"]
mod dice;
mod sys;
#[path = "../support/untested.rs"]
mod untested;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "not every program of tests has some that cannot run")]
pub(crate) use untested::untested;

#[allow(unused_imports, reason = "not every test is one of chance")]
pub(crate) use dice::Dice;

/// Every kind of network and machine, a volume, and a port. The comments are what `stead ps` is to say.
pub(crate) const FULL: &str = "\
# row: db on back,lan with 0
# row: web on fixed,lan,wire with 1
name: shop
networks:
  lan: {}
  back: { reach: isolated }
  fixed: { addressing: static, reach: isolated }
  wire: { addressing: none }
machines:
  web:
    kind: container
    driver: external
    networks: [fixed, lan, wire]
    ports: ['127.0.0.1:PORT:80']
  db:
    kind: vm
    driver: external
    networks: [lan, back]
    depends_on: [web]
volumes: { data: {} }
";

/// Nothing that the program does takes so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What surrounds the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// A way out, and a computer that forwards: the uplink is a veth pair.
    Forwards,
    /// A way out, but no forwarding: the uplink is pasta.
    ForwardsNot,
    /// No way out.
    Offline,
}

/// A computer with a home and a project.
pub(crate) struct World {
    directory: tempfile::TempDir,
    home: PathBuf,
    pub(crate) project: PathBuf,
    pub(crate) port: u16,
    before: String,
    has_own_disk: bool,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// An ordinary user's tests share one network namespace, and so the subnets that their projects ask for: they take
/// turns.
static TURN: Mutex<()> = Mutex::new(());

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Whether we are root in here; else we are the ordinary user of the test harness, in namespaces that it made.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Moves this test's thread to namespaces of its own, where a default route leads nowhere.
pub(crate) fn own_namespaces(outside: Outside) {
    if !is_root() {
        return;
    }
    sys::unshare();
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .expect("cannot make the mounts private");
    judge("ip", "link set lo up");
    if outside == Outside::Offline {
        return;
    }
    for line in [
        "link add out0 type veth peer name out1",
        "link set out0 addrgenmode none",
        "link set out1 addrgenmode none",
        "addr add 192.0.2.1/24 dev out0",
        "link set out0 up",
        "link set out1 up",
        "route add default via 192.0.2.2",
    ] {
        judge("ip", line);
    }
    until("the way out to be up", || judge("ip", "-o link").matches("state UP").count() == 2);
    let forward = if outside == Outside::Forwards { "1" } else { "0" };
    fs::write("/proc/sys/net/ipv4/ip_forward", forward).unwrap();
}

/// Runs a judge, a program that reads back or sets up, and gives its output.
#[track_caller]
pub(crate) fn judge(program: &str, line: &str) -> String {
    let done = Command::new(program).args(line.split(' ')).output().unwrap_or_else(|error| {
        panic!("cannot run `{program}`: {error}");
    });
    assert!(done.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl World {
    /// A computer on which nothing of ours is, and a project in it with this file.
    pub(crate) fn new(outside: Outside, file: &str) -> Self {
        let turn = (!is_root()).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        own_namespaces(outside);
        let mut world = Self::beside(file);
        world._turn = turn;
        world
    }

    /// The same, with a home on a small disk of its own (for root).
    pub(crate) fn on_small_disk(file: &str, size: &str) -> Self {
        let mut world = Self::new(Outside::Forwards, file);
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("small", &world.home, "tmpfs", flags, Some(options.as_c_str())).unwrap();
        world.has_own_disk = true;
        world.before = world.around();
        world
    }

    /// Fills the home's disk but for so many KiB.
    pub(crate) fn fill_disk(&self, left_kib: usize) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        let block = [0_u8; 1024];
        while ballast.write_all(&block).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        let left = u64::try_from(left_kib * 1024).unwrap();
        ballast.set_len(length.saturating_sub(left)).unwrap();
    }

    /// Frees the home's disk again.
    pub(crate) fn free_disk(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.home.join("ballast")
    }

    /// Another home on the computer that this thread is in.
    pub(crate) fn beside(file: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("kill").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = directory.path().join("home");
        let project = directory.path().join("project");
        fs::create_dir(&home).unwrap();
        fs::create_dir(&project).unwrap();
        let port = free_port();
        let before = String::new();
        let mut world = Self { directory, home, project, port, before, has_own_disk: false, _turn: None };
        world.write(file);
        world.before = world.around();
        world
    }

    /// Writes the project's file; `PORT` stands for a free port.
    pub(crate) fn write(&self, file: &str) {
        fs::write(self.project.join("stead.yaml"), file.replace("PORT", &self.port.to_string())).unwrap();
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn run_file(&self, name: &str) -> PathBuf {
        self.home.join("run").join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.home.join("state/state.db")
    }

    /// `stead …` in the project's directory.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command.args(line.split(' ')).current_dir(&self.project).env("STEAD_HOME", &self.home);
        command.env_remove("STEAD_FILE").env_remove("STEAD_LOG").stdin(Stdio::null());
        command
    }

    /// Starts a command whose words are collected.
    pub(crate) fn start(&self, line: &str) -> Started {
        Started::new(line, self.command(line))
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.start(line).end()
    }

    /// Runs a command that has to succeed, and gives its output.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "`stead {line}`:\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs a command that has to fail, and gives its words.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_ne!(ran.code, 0, "`stead {line}` succeeded:\n{}", ran.out);
        assert!(ran.err.contains("error: ") || ran.err.contains("hint: "), "`stead {line}`: {}", ran.err);
        assert!(!ran.err.contains("panicked"), "`stead {line}`: {}", ran.err);
        ran.err
    }

    /// Runs a command and kills it as soon as it has printed `lines` lines; whether it came to that.
    #[track_caller]
    pub(crate) fn cut_after(&self, line: &str, lines: usize) -> bool {
        let mut child = self.command(line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut seen = 0;
        let mut text = String::new();
        while seen < lines && reader.read_line(&mut text).unwrap() > 0 {
            seen += 1;
        }
        let cut = seen == lines;
        if cut {
            child.kill().unwrap();
        }
        wait(line, &mut child);
        cut
    }

    /// Runs a command and kills it after this time.
    pub(crate) fn cut_at(&self, line: &str, time: Duration) {
        let mut child = self.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Brings the project up, and checks that it arrived.
    #[track_caller]
    pub(crate) fn arrives(&self) {
        self.ok("up");
        self.stands();
    }

    /// Checks that the project is up: nothing is left to do, and the machines are there with all their nics.
    #[track_caller]
    pub(crate) fn stands(&self) {
        assert_eq!(self.ok("plan"), "nothing to do\n");
        let rows: serde_json::Value = serde_json::from_str(&self.ok("ps --format json")).unwrap();
        let rows: Vec<String> = rows.as_array().unwrap().iter().map(row).collect();
        let file = fs::read_to_string(self.project.join("stead.yaml")).unwrap();
        assert_eq!(rows, expected_rows(&file), "of `stead ps`");
    }

    /// Checks that machine `web` is served: it gets its address by DHCP, and its port answers.
    #[track_caller]
    pub(crate) fn serves(&self) {
        self.ok("network enter -m web -- busybox udhcpc -n -q -f -i eth1 -s /bin/true");
        let mut command = self.command("network enter -m web --");
        command.args(["socat", "TCP-LISTEN:80,reuseaddr,fork", "SYSTEM:echo hello"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let answer = loop {
            let mut answer = String::new();
            let stream = std::net::TcpStream::connect(("127.0.0.1", self.port));
            if let Ok(mut stream) = stream {
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let _closed = stream.read_to_string(&mut answer);
            }
            if !answer.is_empty() || start.elapsed() > Duration::from_secs(10) {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(answer, "hello\n", "at published port {}:\n{}", self.port, self.ok("ps"));
    }

    /// Takes everything away by `down` and `purge`, and checks that nothing is left.
    #[track_caller]
    pub(crate) fn leaves_nothing(&self) {
        self.ok("down --volumes --yes");
        self.ok("purge --yes");
        self.is_as_before();
    }

    /// Checks that nothing of ours is left on the computer.
    #[track_caller]
    pub(crate) fn is_as_before(&self) {
        let now = self.around();
        let only = |a: &str, b: &str| {
            let lines: Vec<_> = a.lines().filter(|line| !b.lines().any(|other| other == *line)).collect();
            lines.join("\n")
        };
        assert!(
            now == self.before,
            "left behind:\n{}\nmissing:\n{}",
            only(&now, &self.before),
            only(&self.before, &now)
        );
    }

    /// All that our doings could change: links, addresses, routes, rules, mounts, processes, files.
    fn around(&self) -> String {
        let mut text = String::new();
        if is_root() {
            for line in ["-o link", "-o addr", "route", "-6 route", "rule", "-6 rule"] {
                text += &judge("ip", line);
            }
            text += &judge("nft", "list ruleset");
            text += &fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        }
        text += "processes:\n";
        for (pid, words) in self.processes() {
            text += &format!("{pid} {words}\n");
        }
        text += "files:\n";
        let mut files = files(self.directory.path());
        files.retain(|path| !path.ends_with("/stead.lock"));
        text + &files.join("\n")
    }

    /// The living processes that have this home on their command line.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let home = self.home.to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            // Empty for a zombie.
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&line).replace('\0', " ");
            if words.contains(home) {
                found.push((pid, words));
            }
        }
        found
    }

    /// The one process of this home whose command line has this word.
    #[track_caller]
    pub(crate) fn process(&self, word: &str) -> u32 {
        let found: Vec<_> = self.processes().into_iter().filter(|(_, words)| words.contains(word)).collect();
        let [(pid, _)] = found.as_slice() else { panic!("not one process `{word}`: {found:?}") };
        *pid
    }

    /// Kills a process of this home, and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(&self, word: &str) {
        let pid = self.process(word);
        signal(pid, rustix::process::Signal::KILL);
        until(&format!("process {pid} to go"), || is_gone(pid));
    }

    /// Kills all processes of this home at once.
    pub(crate) fn kill_all(&self) {
        let all = self.processes();
        all.iter().for_each(|(pid, _)| signal(*pid, rustix::process::Signal::KILL));
        until("all processes to go", || all.iter().all(|(pid, _)| is_gone(*pid)));
    }
}

/// A failed test must not leave processes behind, and a mount would keep its directory.
impl Drop for World {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            let _gone = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        if self.has_own_disk {
            let _busy = rustix::mount::unmount(&self.home, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A command that runs.
pub(crate) struct Started {
    line: String,
    pub(crate) child: Child,
    out: Option<std::thread::JoinHandle<String>>,
    err: Option<std::thread::JoinHandle<String>>,
}

impl Started {
    pub(crate) fn new(line: &str, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(collect);
        let err = child.stderr.take().map(collect);
        Self { line: line.to_owned(), child, out, err }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let status = wait(&self.line, &mut self.child);
        let text = |thread: Option<std::thread::JoinHandle<String>>| thread.unwrap().join().unwrap();
        Ran { code: status.code().unwrap_or(-1), out: text(self.out.take()), err: text(self.err.take()) }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    })
}

/// Waits for a child, with a limit.
#[track_caller]
pub(crate) fn wait(line: &str, child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("`stead {line}` did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until something holds, with a limit.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process has ended. Its command line is empty a moment before that.
pub(crate) fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']) && threads() <= 1)
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => panic!("cannot signal process {pid:?}: {errno}"),
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// All files and directories below a directory.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            found.push(entry.path().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// A machine of `stead ps --format json`, with what it is on.
fn row(row: &serde_json::Value) -> String {
    let nics = row["nics"].as_array().unwrap();
    let networks: Vec<&str> = nics.iter().map(|nic| nic["network"].as_str().unwrap()).collect();
    let ports = row["ports"].as_array().unwrap().len();
    format!("{} on {} with {ports}", row["name"].as_str().unwrap(), networks.join(","))
}

/// The same, out of comments of the project's file: `# row: web on lan with 1`.
fn expected_rows(file: &str) -> Vec<String> {
    file.lines().filter_map(|line| line.strip_prefix("# row: ")).map(str::to_owned).collect()
}
