//! A real anchor, as root and as an ordinary user.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;
use stead_net::anchor::{Client, Domain, Kind, Label, SocketKind, SysctlPath, spawn};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stead-net-anchor");
const LIMIT: Duration = Duration::from_secs(10);
const ROUTE: SocketKind = SocketKind { domain: Domain::Netlink, kind: Kind::Raw, protocol: 0 };
const UNIX: SocketKind = SocketKind { domain: Domain::Unix, kind: Kind::Datagram, protocol: 0 };

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
