//! `cargo xtask demo`: the tour of README, for real. Each scene is a command as a person types it, and what comes of
//! it; the commands and their whole output are printed, so what README shows can be taken from here.
//!
//! ```text
//! outside (a web server, 198.51.100.1) ── eth0 ─ this computer ─ uplink ─ engine: lan, back ─ web, db, build
//! ```
//! "This computer" is a network namespace, so the tour neither needs nor changes the real one's network. It is
//! taken as root, then as an ordinary user (unless the chore was started by one, who cannot become another).

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Outcome;
use crate::inside::{self, ORDINARY_ID, Role};
use crate::programs::{self, cargo, output, root};
use crate::setup::{self, Chore};

/// The word for the part within the namespaces.
pub(crate) const STAGE: &str = "__demo";

/// A server that does not listen by then does not start.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// A command of the tour. Its words are separated by spaces; there is no shell.
struct Scene {
    command: &'static str,
    ends: Ends,
    /// Each of these is somewhere in what it writes.
    holds: &'static [&'static str],
}

/// How a command of the tour ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With this exit code.
    With(i32),
    /// Not before the tour; it listens where the next scene connects to.
    Never,
}

const fn scene(command: &'static str, ends: Ends, holds: &'static [&'static str]) -> Scene {
    Scene { command, ends, holds }
}

/// Where the published port is before and after the file is changed.
const PORT: u16 = 8080;

#[rustfmt::skip]
const TOUR: &[Scene] = &[
    scene("cat stead.yaml", Ends::With(0), &["name: shop"]),
    scene("stead plan", Ends::With(0), &["+ network lan.shop 10.", "nat", "# machines.web.ports (stead.yaml:"]),
    scene("stead up", Ends::With(0), &["+ port 127.0.0.1:8080/tcp to web.shop:80"]),
    scene("stead up", Ends::With(0), &["nothing to do"]),
    // A container that somebody else runs gets its address as any other machine does.
    scene("stead network enter -m web -- busybox udhcpc -n -q -i eth0 -s ./dhcp.sh", Ends::With(0), &["lease of 10."]),
    scene("stead network enter -m web -- ping -c 1 db", Ends::With(0), &["PING db.shop.stead", "1 received"]),
    scene("stead network enter -m web -- busybox httpd -f -p 80 -h www", Ends::Never, &[]),
    scene("curl --silent --show-error http://127.0.0.1:8080/", Ends::With(0), &["hello from web"]),
    scene("stead network enter -m web -- curl --silent --show-error http://198.51.100.1/", Ends::With(0), &["hello from outside"]),
    // Its network is isolated: nobody answers, not even to say no.
    scene("stead network enter -m db -- curl --silent --show-error --max-time 1 http://198.51.100.1/", Ends::With(28), &["timed out"]),
    scene("sed -i s/8080:80/8081:80/ stead.yaml", Ends::With(0), &[]),
    scene("stead plan", Ends::With(0), &["- port 127.0.0.1:8080/tcp to web.shop:80", "+ port 127.0.0.1:8081/tcp to web.shop:80"]),
    scene("stead up", Ends::With(0), &["+ port 127.0.0.1:8081/tcp"]),
    scene("curl --silent --show-error http://127.0.0.1:8081/", Ends::With(0), &["hello from web"]),
    scene("stead ps", Ends::With(0), &["127.0.0.1:8081/tcp -> 80", "build.shop"]),
    scene("stead network inspect lan", Ends::With(0), &["reach     nat", "www"]),
    scene("stead down", Ends::With(0), &["- engine", "- project shop"]),
    // Containers: an image from an archive, as a computer without a registry has one.
    scene("stead image import busybox.tar tools -- sh", Ends::With(0), &["tools"]),
    scene("stead run --rm tools echo hello from a container", Ends::With(0), &["hello from a container"]),
    scene("stead run --detach --init --name box --publish 8082:80 --volume ./www:/www:ro tools httpd -f -p 80 -h /www", Ends::With(0), &["box"]),
    scene("curl --silent --show-error --retry 5 --retry-all-errors http://127.0.0.1:8082/", Ends::With(0), &["hello from web"]),
    scene("stead exec box wget -qO- http://198.51.100.1/", Ends::With(0), &["hello from outside"]),
    scene("stead run --rm tools wget -qO- http://box/", Ends::With(0), &["hello from web"]),
    scene("stead ps --all", Ends::With(0), &["box.default", "running", "127.0.0.1:8082/tcp -> 80"]),
    scene("stead rm --force box", Ends::With(0), &["- machine box.default"]),
    scene("stead purge --yes", Ends::With(0), &[]),
    scene("stead ls", Ends::With(0), &["PROJECT"]),
];

/// The chore.
pub(crate) fn run() -> Result<Outcome> {
    if !setup::ensure(&[Chore::Demo])? {
        return Ok(Outcome::Refused);
    }
    programs::run(&mut cargo(&["build", "--package", "stead"]))?;
    let scratch = inside::scratch()?;
    let mut command = inside::command(Role::Root, scratch.path())?;
    command.args([Path::new("/proc/self/exe"), Path::new(STAGE), &root().join("target/debug/stead")]);
    let start = Instant::now();
    let status = command.status().context("could not start the tour")?;
    if !status.success() {
        println!("the demo failed ({status})");
        return Ok(Outcome::Bad);
    }
    println!("all of it is as expected, and nothing is left behind ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(Outcome::Good)
}

/// The tours, with this program, in namespaces.
pub(crate) fn inside(program: &Path) -> Result<Outcome> {
    let place = tempfile::tempdir().context("could not make a directory")?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    // An ordinary user may not get to where it was built.
    fs::create_dir(place.path().join("bin"))?;
    fs::copy(program, place.path().join("bin/stead")).context("could not copy the program")?;
    let _outside = Outside::new(place.path())?;
    let is_root = fs::read_to_string("/proc/self/uid_map")?.split_whitespace().nth(2) != Some("1");
    Tour::new("root", place.path(), None)?.take()?;
    if is_root {
        Tour::new("an ordinary user", place.path(), Some(ORDINARY_ID))?.take()?;
    } else {
        println!("(as root this would be shown as an ordinary user, too)\n");
    }
    Ok(Outcome::Good)
}

/// What lies beyond this computer: a namespace with a web server.
struct Outside {
    _server: Server,
}

impl Outside {
    fn new(place: &Path) -> Result<Self> {
        let www = place.join("outside");
        fs::create_dir(&www)?;
        fs::write(www.join("index.html"), "hello from outside\n")?;
        for words in [
            "netns add outside",
            "link add eth0 type veth peer name eth0 netns outside",
            "address add 198.51.100.2/24 dev eth0",
            "link set eth0 up",
            "-netns outside address add 198.51.100.1/24 dev eth0",
            "-netns outside link set eth0 up",
            "route add default via 198.51.100.1",
        ] {
            output(Command::new("ip").args(words.split(' ')))?;
        }
        // As many computers do; where it is off, stead takes pasta as root too.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("could not switch forwarding on")?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "outside", "busybox", "httpd", "-f", "-p", "80", "-h"]).arg(&www);
        let server = Server(command.stdin(Stdio::null()).spawn().context("could not start a web server")?);
        wait_for_listener("198.51.100.1:80")?;
        Ok(Self { _server: server })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for words in ["link delete eth0", "netns delete outside"] {
            if let Err(error) = output(Command::new("ip").args(words.split(' '))) {
                eprintln!("warning: {error:#}");
            }
        }
    }
}

/// A running server, stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_listener(address: &str) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if start.elapsed() > LISTEN_LIMIT {
            bail!("nothing listens at {address} after {} s", LISTEN_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A root file system of one program with many names, in an archive.
fn make_archive(directory: &Path) -> Result<()> {
    let tree = tempfile::tempdir().context("could not make a directory")?;
    let bin = tree.path().join("bin");
    fs::create_dir(&bin)?;
    let program = output(Command::new("sh").args(["-c", "command -v busybox"]))?;
    fs::copy(program.trim(), bin.join("busybox")).context("could not copy busybox")?;
    for name in output(Command::new("busybox").arg("--list"))?.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755))?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--file"]);
    output(tar.arg(directory.join("busybox.tar")).arg("--directory").arg(tree.path()).arg(".")).map(drop)
}

/// One time through the scenes.
struct Tour {
    who: &'static str,
    /// Whom to become.
    user: Option<u32>,
    home: PathBuf,
    path: String,
    servers: Vec<Server>,
}

impl Drop for Tour {
    fn drop(&mut self) {
        // After a tour that went well there is nothing left to take away.
        let outcome = self.command("stead purge --yes").stdout(Stdio::null()).status();
        if !outcome.is_ok_and(|status| status.success()) {
            eprintln!("warning: `stead purge` as {} failed", self.who);
        }
    }
}

impl Tour {
    /// In a copy of the example.
    fn new(who: &'static str, place: &Path, user: Option<u32>) -> Result<Self> {
        let home = place.join(if user.is_some() { "user" } else { "root" });
        let project = home.join("shop");
        fs::create_dir_all(project.join("www"))?;
        for file in ["stead.yaml", "dhcp.sh", "www/index.html"] {
            let from = root().join("examples/shop").join(file);
            fs::copy(&from, project.join(file))
                .with_context(|| format!("could not copy {}", from.display()))?;
        }
        make_archive(&project)?;
        if let Some(user) = user {
            for path in [
                "",
                "shop",
                "shop/busybox.tar",
                "shop/stead.yaml",
                "shop/dhcp.sh",
                "shop/www",
                "shop/www/index.html",
            ] {
                chown(home.join(path), Some(user), Some(user))?;
            }
        }
        let usual = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{usual}:/usr/sbin:/sbin", place.join("bin").display());
        Ok(Self { who, user, home, path, servers: Vec::new() })
    }

    fn take(mut self) -> Result<()> {
        println!("=== as {} ===\n", self.who);
        for scene in TOUR {
            println!("$ {}{}", scene.command, if scene.ends == Ends::Never { " &" } else { "" });
            match scene.ends {
                Ends::With(code) => self.play(scene, code)?,
                Ends::Never => self.start(scene)?,
            }
            println!();
        }
        Ok(())
    }

    fn play(&self, scene: &Scene, code: i32) -> Result<()> {
        let start = Instant::now();
        let output = self
            .command(scene.command)
            .output()
            .with_context(|| format!("could not start `{}`", scene.command))?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        print!("{said}");
        if code != 0 {
            println!("(exit code {})", output.status.code().unwrap_or(-1));
        }
        let missing: Vec<_> = scene.holds.iter().filter(|text| !said.contains(**text)).collect();
        if output.status.code() != Some(code) || !missing.is_empty() {
            bail!(
                "`{}` as {}: {} (expected: {code}) after {:.1} s, without {missing:?}",
                scene.command,
                self.who,
                output.status,
                start.elapsed().as_secs_f64()
            );
        }
        Ok(())
    }

    /// Starts a server; the next scene finds it listening.
    fn start(&mut self, scene: &Scene) -> Result<()> {
        let mut command = self.command(scene.command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.servers
            .push(Server(command.spawn().with_context(|| format!("could not start `{}`", scene.command))?));
        // The port is open before the server is: then what is connected is closed again without a word.
        let start = Instant::now();
        loop {
            let answer =
                output(Command::new("curl").args(["--silent", &format!("http://127.0.0.1:{PORT}/")]));
            if answer.is_ok() {
                return Ok(());
            }
            if start.elapsed() > LISTEN_LIMIT {
                return answer.map(drop).with_context(|| format!("`{}` does not answer", scene.command));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn command(&self, line: &str) -> Command {
        // `env` looks the program up on the path that it is given, std on ours.
        let mut command = Command::new("env");
        command.arg(format!("PATH={}", self.path)).args(line.split(' '));
        command.current_dir(self.home.join("shop")).stdin(Stdio::null());
        command.env("HOME", &self.home).env("TMPDIR", &self.home).env_remove("XDG_RUNTIME_DIR");
        command.env("STEAD_HOME", self.home.join("stead"));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }
}
