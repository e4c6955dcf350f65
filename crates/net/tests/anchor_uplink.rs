//! pasta as uplink, for real: an "outside" with a web server and an echo server, a "host" connected to it, the
//! engine behind pasta and a machine behind the engine's bridge. As root and as an ordinary user. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use stead_net::anchor::spawn;
use stead_net::process::ProcessId;
use stead_net::uplink::{self, Pasta, Target};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stead-net-anchor");
const LIMIT: Duration = Duration::from_secs(10);
const USER: u32 = 1234;
const MASQUERADE: &str = "table inet t {\n chain p {\n type nat hook postrouting priority 100;\n \
    oifname \"uplink\" masquerade\n }\n}\n";

/// Who runs the engine.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Root,
    User,
}

/// Makes this thread and what it starts the ordinary user's.
fn become_user() {
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
}

/// All processes end with it.
struct World {
    dir: tempfile::TempDir,
    who: Who,
    children: Vec<Child>,
    anchor: Option<ProcessId>,
}

impl World {
    /// This thread moves to a "host" of its own, with an outside behind `up0`.
    fn new(who: Who, families: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        #[expect(deprecated, reason = "the safe form; this thread shares nothing that these flags unshare")]
        rustix::thread::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS)
            .expect("this test needs namespaces");
        run("mount --make-rprivate / && mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200");
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut world = Self { dir, who, children: Vec::new(), anchor: None };
        fs::create_dir(world.run_dir()).unwrap();
        if who == Who::User {
            chown(world.run_dir(), Some(USER), Some(USER)).unwrap();
        }
        // By another process: while this one held them open for writing, what another thread starts could hold
        // them too, and nobody could run them.
        run(&format!(
            "install -m755 {PROGRAM} {}
             printf '%s\\n' '#!/bin/sh' 'exec setpriv --reuid=1234 --regid=1234 --clear-groups pasta \"$@\"' |
               install -m755 /dev/stdin {}",
            world.program("anchor").display(),
            world.program("pasta").display()
        ));
        let outside = world.namespace();
        run(&format!(
            "ip link set lo up; ip link add up0 type veth peer name out0 netns {outside}
             ip addr add 192.0.2.2/24 dev up0; ip -6 addr add 2001:db8::2/64 dev up0 nodad; ip link set up0 up
             nsenter -t {outside} -n sh -ec 'ip link set lo up
               ip addr add 192.0.2.1/24 dev out0; ip -6 addr add 2001:db8::1/64 dev out0 nodad; ip link set out0 up
               ip addr add 203.0.113.9/32 dev lo; ip -6 addr add 2001:db8:9::9/128 dev lo'
             echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range"
        ));
        for family in families {
            let gateway = if *family == "-4" { "192.0.2.1" } else { "2001:db8::1" };
            run(&format!("ip {family} route add default via {gateway}"));
        }
        let www = world.dir.path().join("www");
        fs::create_dir(&www).unwrap();
        fs::write(www.join("index.html"), "hello\n").unwrap();
        fs::write(www.join("big"), vec![7; 3_000_000]).unwrap();
        let www = www.display().to_string();
        let enter = format!("exec nsenter -t {outside} -n");
        world.background(&format!("{enter} busybox httpd -f -p '[::]:80' -h {www}"));
        world.background(&format!("{enter} socat UDP4-LISTEN:7,fork,reuseaddr EXEC:cat"));
        world.background(&format!("{enter} socat UDP6-LISTEN:7,ipv6only,fork,reuseaddr EXEC:cat"));
        world.background(&format!("exec busybox httpd -f -p 127.0.0.1:8888 -h {www}"));
        world
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn background(&mut self, script: &str) -> u32 {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// A process in a network namespace of its own.
    fn namespace(&mut self) -> u32 {
        let pid = self.background("exec unshare -n sleep 600");
        until("the namespace is made", || {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
            link(&pid.to_string()) != link("thread-self")
        });
        pid
    }

    fn engine(&mut self) -> ProcessId {
        let (program, dir, who) = (self.program("anchor"), self.run_dir(), self.who);
        // The anchor answers its own user only, so whoever starts it must be that user.
        let anchor = thread::spawn(move || {
            if who == Who::User {
                become_user();
            }
            spawn(&program, &["serve".into(), dir.clone().into()], &dir).unwrap().process()
        });
        let anchor = anchor.join().unwrap();
        self.anchor = Some(anchor);
        anchor
    }

    fn pasta(&mut self) -> anyhow::Result<ProcessId> {
        let anchor = self.engine();
        let (program, target) = match self.who {
            Who::Root => (PathBuf::from("pasta"), Target::Root(anchor)),
            Who::User => (self.program("pasta"), Target::User(anchor)),
        };
        uplink::start(&program, &Pasta { dir: self.run_dir(), target, way_out: None, mtu: None })
    }

    /// Runs a script in the engine's namespace and gives what it says.
    fn inside(&self, script: &str) -> String {
        let pid = self.anchor.unwrap().pid;
        let user = if self.who == Who::User { format!("-U/proc/{pid}/ns/user") } else { "-n".to_owned() };
        let output = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", &user, "bash", "-c", script])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let stopped = uplink::stop(&self.run_dir());
        for child in &mut self.children {
            // The servers have children of their own.
            let group = Pid::from_child(child);
            rustix::process::kill_process_group(group, Signal::KILL).unwrap();
            child.wait().unwrap();
        }
        if let Some(anchor) = self.anchor {
            anchor.kill(Signal::KILL).unwrap();
        }
        if !thread::panicking() {
            stopped.unwrap();
        }
    }
}

#[track_caller]
fn run(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited {LIMIT:?} until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn carries_everything(who: Who) {
    let mut world = World::new(who, &["-4", "-6"]);
    let pasta = world.pasta().unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(uplink::observe(&world.run_dir()).unwrap(), Some(pasta));
    assert_eq!(world.inside("curl -sm 5 http://203.0.113.9/"), "hello\n");
    assert_eq!(world.inside("curl -sm 5 'http://[2001:db8:9::9]/'"), "hello\n");
    // Neither the gateway's address nor the host's own leads to the host's loopback.
    assert_eq!(world.inside("curl -sm 1 http://192.0.2.1:8888/ || echo refused"), "refused\n");
    assert_eq!(world.inside("curl -sm 1 http://192.0.2.2:8888/ || echo refused"), "refused\n");
    fs::write(world.program("nat.nft"), MASQUERADE).unwrap();
    let nat = world.program("nat.nft");
    let machine = world.namespace();
    let made = world.inside(&format!(
        "set -e; exec 2>&1
         ip link add br0 type bridge; ip addr add 10.7.0.1/24 dev br0; ip -6 addr add fd07::1/64 dev br0 nodad
         ip link set br0 up; nft -f {}
         for family in 4 6; do echo 1 > /proc/sys/net/ipv$family/conf/all/forwarding; done",
        nat.display()
    ));
    assert_eq!(made, "");
    let engine = world.anchor.unwrap().pid;
    run(&format!(
        "ip link add port netns {engine} type veth peer name eth0 netns {machine}
         nsenter -t {engine} -n sh -ec 'ip link set port master br0 up'
         nsenter -t {machine} -n sh -ec 'ip addr add 10.7.0.2/24 dev eth0; ip -6 addr add fd07::2/64 dev eth0 nodad
           ip link set eth0 up; ip route add default via 10.7.0.1; ip -6 route add default via fd07::1'"
    ));
    let machine = |script: &str| {
        let pid = machine.to_string();
        let output = Command::new("nsenter").args(["-t", &pid, "-n", "bash", "-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // The bridge's port learns and forwards a moment after it is up.
    until("TCP passes over IPv4", || machine("curl -sm 1 http://203.0.113.9/") == "hello\n");
    until("TCP passes over IPv6", || machine("curl -sm 1 'http://[2001:db8:9::9]/'") == "hello\n");
    assert_eq!(machine("curl -sm 9 http://203.0.113.9/big | wc -c"), "3000000\n");
    assert_eq!(machine("curl -sm 9 'http://[2001:db8:9::9]/big' | wc -c"), "3000000\n");
    assert_eq!(machine("echo four | timeout 5 socat -t2 - UDP4:192.0.2.1:7"), "four\n");
    assert_eq!(machine("echo six | timeout 5 socat -t2 - 'UDP6:[2001:db8::1]:7'"), "six\n");
    for address in ["203.0.113.9", "2001:db8:9::9"] {
        let said = machine(&format!("busybox ping -c1 -W2 {address}"));
        assert!(said.contains("1 packets received"), "{said}");
    }
    uplink::stop(&world.run_dir()).unwrap();
    assert!(!pasta.is_alive().unwrap());
    assert_eq!(
        world.inside("ip -o link show uplink 2>&1 | wc -l; ip -o link show uplink 2>&1"),
        "1\nDevice \"uplink\" does not exist.\n"
    );
    assert_eq!(uplink::observe(&world.run_dir()).unwrap(), None);
}

#[test]
fn roots_pasta_carries_tcp_udp_and_echo_of_both_protocols() {
    carries_everything(Who::Root);
}

#[test]
fn a_users_pasta_carries_tcp_udp_and_echo_of_both_protocols() {
    carries_everything(Who::User);
}

#[test]
fn a_host_without_ipv6_gets_an_uplink_without_it() {
    let mut world = World::new(Who::User, &["-4"]);
    world.pasta().unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(world.inside("curl -sm 5 http://203.0.113.9/"), "hello\n");
    assert_eq!(world.inside("ip -6 route show default"), "");
}

#[test]
fn a_host_without_ipv4_gets_an_uplink_without_it() {
    let mut world = World::new(Who::User, &["-6"]);
    world.pasta().unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(world.inside("curl -sm 5 'http://[2001:db8:9::9]/'"), "hello\n");
    assert_eq!(world.inside("ip -4 route show default"), "");
}

#[test]
fn a_host_without_any_route_is_an_error_with_pastas_reason() {
    let mut world = World::new(Who::User, &[]);
    let error = format!("{:#}", world.pasta().unwrap_err());
    assert!(error.contains("External interface not usable"), "{error}");
    assert_eq!(uplink::observe(&world.run_dir()).unwrap(), None);
}

#[test]
fn a_pasta_whose_starter_was_killed_is_found_and_ended() {
    let mut world = World::new(Who::User, &["-4"]);
    let pasta = world.pasta().unwrap_or_else(|error| panic!("{error:?}"));
    fs::remove_file(world.run_dir().join("uplink.pid")).unwrap();
    assert_eq!(uplink::observe(&world.run_dir()).unwrap(), None);
    let dir = world.run_dir();
    let stopped = thread::spawn(move || {
        become_user();
        uplink::stop(&dir)
    });
    stopped.join().unwrap().unwrap();
    assert!(!pasta.is_alive().unwrap());
}
