//! A real anchor, as root and as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;
use stead_net::anchor::{Client, Domain, Kind, Label, SocketKind, SysctlPath, spawn};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stead-net-anchor");
const LIMIT: Duration = Duration::from_secs(10);
const ROUTE: SocketKind = SocketKind { domain: Domain::Netlink, kind: Kind::Raw, protocol: 0 };

/// A home with a live anchor, which ends with the test.
struct Home {
    dir: tempfile::TempDir,
    client: Client,
}

impl Home {
    #[track_caller]
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = start(dir.path()).unwrap_or_else(|error| panic!("{error:?}"));
        Self { dir, client }
    }

    /// Another connection to the same anchor.
    #[track_caller]
    fn again(&self) -> Client {
        Client::connect(self.dir.path()).unwrap().expect("the anchor lives")
    }

    fn socket_path(&self) -> PathBuf {
        self.dir.path().join("anchor.sock")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let process = self.client.process();
        process.kill(Signal::KILL).unwrap();
        assert!(process.wait_gone(LIMIT).unwrap());
    }
}

fn start(dir: &Path) -> anyhow::Result<Client> {
    spawn(Path::new(PROGRAM), &["serve".into(), dir.into()], dir)
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn sysctl(text: &str) -> SysctlPath {
    text.parse().unwrap()
}

/// The errno at the root of an error.
#[track_caller]
fn errno<T: std::fmt::Debug>(result: anyhow::Result<T>) -> Errno {
    let error = result.unwrap_err();
    *error.root_cause().downcast_ref::<Errno>().unwrap_or_else(|| panic!("{error:?}"))
}

/// What a namespace is to the kernel: device and inode.
fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).unwrap();
    (found.dev(), found.ino())
}

fn identity_of(fd: &OwnedFd) -> (u64, u64) {
    identity(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The names of the links that a NETLINK_ROUTE socket sees: its namespace's.
fn links(socket: &OwnedFd) -> Vec<String> {
    // An RTM_GETLINK dump: header, then an empty ifinfomsg.
    let mut request = [0u8; 32];
    request[0] = 32;
    request[4] = 18;
    request[6..8].copy_from_slice(&0x0301u16.to_ne_bytes());
    rustix::net::send(socket, &request, rustix::net::SendFlags::empty()).unwrap();
    let mut names = Vec::new();
    loop {
        let mut buffer = vec![0u8; 64 * 1024];
        let (length, _) = rustix::net::recv(socket, &mut buffer, rustix::net::RecvFlags::empty()).unwrap();
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let size = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes(rest[4..6].try_into().unwrap());
            match kind {
                3 => return names,
                16 => names.push(name_of(&rest[32..size])),
                other => panic!("message {other}"),
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn name_of(mut attributes: &[u8]) -> String {
    loop {
        let size = u16::from_ne_bytes(attributes[..2].try_into().unwrap()) as usize;
        if u16::from_ne_bytes(attributes[2..4].try_into().unwrap()) == 3 {
            return String::from_utf8(attributes[4..size - 1].to_vec()).unwrap();
        }
        attributes = &attributes[size.next_multiple_of(4)..];
    }
}

#[test]
fn the_engine_has_namespaces_of_its_own() {
    let home = Home::new();
    let pid = home.client.process().pid;
    assert_ne!(identity(format!("/proc/{pid}/ns/net")), identity("/proc/self/ns/net"));
    let same_user = identity(format!("/proc/{pid}/ns/user")) == identity("/proc/self/ns/user");
    assert_eq!(same_user, rustix::process::geteuid().is_root());
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "stead-anchor\n");
}

#[test]
fn namespaces_are_made_listed_opened_and_dropped() {
    let mut home = Home::new();
    let (web, db) = (label("web.shop"), label("db.shop"));
    home.client.make(&web).unwrap();
    home.client.make(&db).unwrap();
    assert_eq!(errno(home.client.make(&db)), Errno::EXIST);
    assert_eq!(home.again().list().unwrap(), [db.clone(), web.clone()]);
    let opened = home.client.namespace(&web).unwrap();
    assert_eq!(identity_of(&opened), identity_of(&home.client.namespace(&web).unwrap()));
    assert_ne!(identity_of(&opened), identity_of(&home.client.namespace(&db).unwrap()));
    home.client.drop_namespace(&db).unwrap();
    assert_eq!(home.client.list().unwrap(), [web]);
    assert_eq!(errno(home.client.drop_namespace(&db)), Errno::NOENT);
    assert_eq!(errno(home.client.socket(Some(&db), ROUTE)), Errno::NOENT);
}

#[test]
fn a_namespace_gets_another_name_and_stays_what_it_is() {
    let mut home = Home::new();
    let (old, new, other) = (label("old.shop"), label("new.shop"), label("other.shop"));
    home.client.make(&old).unwrap();
    home.client.make(&other).unwrap();
    let before = identity_of(&home.client.namespace(&old).unwrap());
    home.client.relabel(&old, &old).unwrap();
    home.client.relabel(&old, &new).unwrap();
    assert_eq!(identity_of(&home.client.namespace(&new).unwrap()), before);
    assert_eq!(home.client.list().unwrap(), [new.clone(), other.clone()]);
    assert_eq!(errno(home.client.relabel(&new, &other)), Errno::EXIST);
    assert_eq!(errno(home.client.relabel(&old, &old)), Errno::NOENT);
    assert_eq!(home.client.list().unwrap(), [new, other]);
}

#[test]
fn sockets_live_in_their_namespace() {
    let mut home = Home::new();
    let web = label("web.shop");
    home.client.make(&web).unwrap();
    let engine = home.client.socket(None, ROUTE).unwrap();
    assert_eq!(links(&engine), ["lo"]);
    let inside = home.client.sockets(Some(&web), ROUTE, 32).unwrap();
    assert_eq!(inside.len(), 32);
    add_bridge(&inside[0], "inside0");
    assert_eq!(links(&inside[31]), ["lo", "inside0"]);
    assert_eq!(links(&engine), ["lo"]);
    add_bridge(&engine, "engine0");
    assert_eq!(links(&home.again().socket(None, ROUTE).unwrap()), ["lo", "engine0"]);
    assert_eq!(links(&inside[1]), ["lo", "inside0"]);
    for count in [0, 33] {
        assert_eq!(errno(home.client.sockets(None, ROUTE, count)), Errno::INVAL);
    }
}

/// RTM_NEWLINK for a bridge, by hand: works only with rights over the socket's namespace.
fn add_bridge(socket: &OwnedFd, name: &str) {
    let attribute = |kind: u16, data: &[u8]| {
        let mut bytes = Vec::from(u16::try_from(data.len() + 4).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut body = vec![0u8; 16];
    body.extend(attribute(3, format!("{name}\0").as_bytes()));
    body.extend(attribute(18, &attribute(1, b"bridge")));
    let mut message = Vec::from(u32::try_from(body.len() + 16).unwrap().to_ne_bytes());
    message.extend(16u16.to_ne_bytes());
    // Request, acknowledge, exclusive, create.
    message.extend(0x0605u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    rustix::net::send(socket, &message, rustix::net::SendFlags::empty()).unwrap();
    let mut answer = [0u8; 256];
    rustix::net::recv(socket, &mut answer, rustix::net::RecvFlags::empty()).unwrap();
    assert_eq!(i32::from_ne_bytes(answer[16..20].try_into().unwrap()), 0, "bridge `{name}`");
}

#[test]
fn kernel_parameters_are_a_namespaces_own() {
    let mut home = Home::new();
    let (web, forwarding) = (label("web.shop"), sysctl("ipv4/ip_forward"));
    home.client.make(&web).unwrap();
    home.client.set_sysctl(Some(&web), &forwarding, "1").unwrap();
    assert_eq!(home.client.sysctl(Some(&web), &forwarding).unwrap(), "1");
    assert_eq!(home.client.sysctl(None, &forwarding).unwrap(), "0");
    home.client.set_sysctl(None, &sysctl("ipv6/conf/all/forwarding"), "1").unwrap();
    assert_eq!(home.client.sysctl(Some(&web), &sysctl("ipv6/conf/all/forwarding")).unwrap(), "0");
    assert_eq!(errno(home.client.sysctl(None, &sysctl("ipv4/no_such"))), Errno::NOENT);
    assert_eq!(errno(home.client.set_sysctl(None, &forwarding, "many")), Errno::INVAL);
}

#[test]
fn a_held_claim_outlives_its_maker_and_ends_with_its_release() {
    let mut home = Home::new();
    let claim = label("10.7.0.0/24");
    let name = format!("stead-test-claim-{}", home.client.process());
    let bind = || {
        let socket = // Without the flag the programs of tests at the same time would hold it too.
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&socket, &address).map(|()| socket)
    };
    let socket = bind().unwrap();
    home.client.hold(&claim, socket.as_fd()).unwrap();
    assert_eq!(errno(home.client.hold(&claim, socket.as_fd())), Errno::EXIST);
    drop(socket);
    assert_eq!(home.again().held().unwrap(), std::slice::from_ref(&claim));
    let other =
        Command::new("socat").arg("-u").arg(format!("ABSTRACT-RECV:{name}")).arg("-").output().unwrap();
    let complaint = String::from_utf8(other.stderr).unwrap();
    assert!(complaint.contains("Address already in use"), "{complaint}");
    assert_eq!(bind().unwrap_err(), Errno::ADDRINUSE);
    home.client.release(&claim).unwrap();
    assert_eq!(home.client.held().unwrap(), []);
    bind().unwrap();
    assert_eq!(errno(home.client.release(&claim)), Errno::NOENT);
}

#[test]
fn two_hundred_namespaces() {
    let mut home = Home::new();
    let mut names: Vec<Label> = (0..200).map(|number| label(&format!("m{number}.shop"))).collect();
    for name in &names {
        home.client.make(name).unwrap();
    }
    names.sort();
    assert_eq!(home.client.list().unwrap(), names);
    let last = home.client.namespace(&names[199]).unwrap();
    assert_ne!(identity_of(&last), identity_of(&home.client.namespace(&names[0]).unwrap()));
}

/// A connection that keeps to no rules.
fn raw(home: &Home) -> OwnedFd {
    let socket = socket_with_limit();
    rustix::net::connect(&socket, &SocketAddrUnix::new(home.socket_path()).unwrap()).unwrap();
    socket
}

fn socket_with_limit() -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(LIMIT))
        .unwrap();
    socket
}

#[test]
fn who_breaks_the_rules_is_closed_and_others_are_served() {
    let mut home = Home::new();
    let long = vec![b'['; 100_000];
    let packets: [&[u8]; 6] = [b"", b"\0", b"{", br#"{"do":"format"}"#, br#"{"do":"make","name":""}"#, &long];
    for packet in packets {
        let socket = raw(&home);
        rustix::net::send(&socket, packet, rustix::net::SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0u8; 16];
        let got = rustix::net::recv(&socket, &mut answer, rustix::net::RecvFlags::empty());
        assert!(matches!(got, Ok((0, _)) | Err(Errno::CONNRESET)), "{packet:?}: {got:?}");
        assert_eq!(home.client.list().unwrap(), []);
    }
}

#[test]
fn clients_that_do_not_read_or_vanish_block_nobody() {
    let mut home = Home::new();
    let stuck = raw(&home);
    rustix::io::ioctl_fionbio(&stuck, true).unwrap();
    // Until the anchor's answers fill our buffer, and it closes us.
    for _ in 0..5000 {
        if rustix::net::send(&stuck, br#"{"do":"list"}"#, rustix::net::SendFlags::NOSIGNAL).is_err() {
            break;
        }
    }
    let vanished = raw(&home);
    rustix::net::send(&vanished, br#"{"do":"list"}"#, rustix::net::SendFlags::NOSIGNAL).unwrap();
    drop(vanished);
    let silent: Vec<OwnedFd> = (0..100).map(|_| raw(&home)).collect();
    assert_eq!(home.again().list().unwrap(), []);
    drop(silent);
    home.client = home.again();
    assert_eq!(home.client.list().unwrap(), []);
}

#[test]
fn a_killed_anchor_is_none_and_can_be_followed_by_another() {
    let home = Home::new();
    let first = home.client.process();
    first.kill(Signal::KILL).unwrap();
    assert!(first.wait_gone(LIMIT).unwrap());
    assert!(Client::connect(home.dir.path()).unwrap().is_none());
    let second = start(home.dir.path()).unwrap();
    assert_ne!(second.process(), first);
    second.quit().unwrap();
    assert!(Client::connect(home.dir.path()).unwrap().is_none());
    assert!(!home.socket_path().exists());
}

#[test]
fn two_starts_at_once_make_one_anchor_with_two_clients() {
    let dir = tempfile::tempdir().unwrap();
    let processes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| start(dir.path()).unwrap().process())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let killed = processes[0].kill(Signal::KILL).unwrap();
    assert!(killed);
    assert!(processes.iter().all(|process| *process == processes[0]), "{processes:?}");
}

#[test]
fn a_start_that_fails_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let error = format!("{:#}", start(&dir.path().join("absent")).unwrap_err());
    assert!(error.contains("absent") && error.contains("No such file"), "{error}");
    let error = format!("{:#}", spawn(Path::new("/bin/true"), &[], dir.path()).unwrap_err());
    assert!(error.contains("ended without a word"), "{error}");
}

#[test]
fn taps_appear_in_the_namespace_of_their_descriptor() {
    let mut home = Home::new();
    let web = label("web.shop");
    home.client.make(&web).unwrap();
    let tun = home.client.tun(Some(&web)).unwrap();
    // TUNSETIFF of a TAP without packet information, then TUNSETPERSIST, by a process that stays outside.
    let script = r#"my $request = pack("a16 s x22", "tap7", 0x1002);
        ioctl(STDIN, 0x400454ca, $request) or die $!; ioctl(STDIN, 0x400454cb, 1) or die $!"#;
    let output = Command::new("perl").args(["-e", script]).stdin(tun).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(links(&home.client.socket(Some(&web), ROUTE).unwrap()), ["lo", "tap7"]);
    assert_eq!(links(&home.client.socket(None, ROUTE).unwrap()), ["lo"]);
}

#[test]
fn a_command_entered_sees_the_namespaces_links() {
    let mut home = Home::new();
    let web = label("web.shop");
    home.client.make(&web).unwrap();
    add_bridge(&home.client.socket(Some(&web), ROUTE).unwrap(), "inside0");
    let enter = |namespace: &str| {
        let output = Command::new(PROGRAM)
            .arg("enter")
            .arg(home.dir.path())
            .args([namespace, "-", "sh", "-c", "ip -br link; exit 7"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(enter("web.shop").contains("inside0"));
    assert!(!enter("-").contains("inside0"));
}

#[test]
fn a_command_entered_has_a_resolv_conf_of_its_own_and_no_other_has() {
    let home = Home::new();
    let before = std::fs::read("/etc/resolv.conf").unwrap();
    let output = Command::new(PROGRAM)
        .arg("enter")
        .arg(home.dir.path())
        .args(["-", "nameserver 10.1.2.1\n", "sh", "-c"])
        // As DHCP clients do; the computer's file must not be what they change.
        .arg("cat /etc/resolv.conf; echo nameserver 10.9.9.9 > /etc/resolv.conf; ls \"$0\"")
        .arg(home.dir.path())
        .output()
        .unwrap();
    let (said, erred) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("nameserver 10.1.2.1\n"), "{said}{erred}");
    // What was covered for a moment is there again.
    assert!(said.contains("anchor.sock"), "{said}{erred}");
    assert_eq!(std::fs::read("/etc/resolv.conf").unwrap(), before);
}
