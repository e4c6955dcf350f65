//! Network namespaces to test in: a *host* with a client of its own and one outside it, an *engine* with a
//! bridge, and a *machine* behind that. Nothing of the computer's own network is touched.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../support/sys.rs"]
mod sys;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stead_model::address::Mac;
use stead_model::project::Bind;
use stead_model::served::{Served, ServedNetwork, Target};
use stead_net::anchor::{Domain, Kind, SocketKind};
use stead_net::forward::{Forwards, PortStatus};

/// How long anything may take before a test fails.
pub const LIMIT: Duration = Duration::from_secs(20);

pub const MACHINE4: &str = "10.9.0.2";
pub const MACHINE6: &str = "fd09::2";
/// The host's address on the wire to the client outside, and that client's.
pub const HOST4: &str = "192.0.2.1";
pub const HOST6: &str = "2001:db8::1";
pub const OUTSIDE4: &str = "192.0.2.2";
pub const OUTSIDE6: &str = "2001:db8::2";

/// A network namespace.
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new one, with its loopback up.
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            sys::unshare_network();
            run("ip link set lo up");
            std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        Self(made.join().unwrap())
    }

    /// Moves this thread into it.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `body` in it, on a thread of its own.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let body = scope.spawn(|| {
                self.enter();
                body()
            });
            body.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs commands in it, one a line.
    pub fn run(&self, lines: &str) {
        self.within(|| lines.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(run));
    }

    /// A name for `ip link … netns`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

#[track_caller]
fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program of several words where one holds spaces.
#[track_caller]
pub fn run_words(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The namespaces, and a switchboard's thread in the host's.
pub struct Lab {
    pub host: Namespace,
    pub outside: Namespace,
    pub engine: Namespace,
    pub machine: Namespace,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
}

enum Order {
    Set(Served, mpsc::Sender<BTreeMap<Bind, String>>),
    Status(mpsc::Sender<BTreeMap<Bind, PortStatus>>),
}

impl Lab {
    pub fn new() -> Self {
        let (host, outside) = (Namespace::new(), Namespace::new());
        let (engine, machine) = (Namespace::new(), Namespace::new());
        engine.run(&format!(
            "ip link add br0 type bridge
             ip link set br0 up
             ip addr add 10.9.0.1/24 dev br0
             ip addr add fd09::1/64 dev br0 nodad
             ip link add port0 type veth peer name eth0 netns {}
             ip link set port0 master br0 up",
            machine.path()
        ));
        machine.run(
            "ip link set eth0 up
             ip addr add 10.9.0.2/24 dev eth0
             ip addr add fd09::2/64 dev eth0 nodad
             ip route add default via 10.9.0.1
             ip -6 route add default via fd09::1",
        );
        host.run(&format!(
            "ip link add out0 type veth peer name eth0 netns {}
             ip link set out0 up
             ip addr add 192.0.2.1/24 dev out0
             ip addr add 2001:db8::1/64 dev out0 nodad",
            outside.path()
        ));
        outside.run(
            "ip link set eth0 up
             ip addr add 192.0.2.2/24 dev eth0
             ip addr add 2001:db8::2/64 dev eth0 nodad",
        );
        let lab = Self { orders: switchboard(&host, &engine), host, outside, engine, machine };
        // IPv6 over a bridge works once its port forwards.
        lab.until("the machine answers", || {
            let nobody: SocketAddr = format!("[{MACHINE6}]:9").parse().unwrap();
            let limit = Duration::from_millis(200);
            let answer = lab.engine.within(|| TcpStream::connect_timeout(&nobody, limit));
            answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        lab
    }

    /// The rules that the engine's namespace has for transparent sockets.
    pub fn let_sockets_be_transparent(&self) {
        self.engine.within(|| {
            run("ip rule add fwmark 1 lookup 100");
            run("ip route add local default dev lo table 100");
            run("ip -6 rule add fwmark 1 lookup 100");
            run("ip -6 route add local default dev lo table 100");
            run_words(&[
                "nft",
                "add table inet stead
                 add chain inet stead pre { type filter hook prerouting priority mangle; }
                 add rule inet stead pre socket transparent 1 meta mark set 1",
            ]);
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
    }

    /// Publishes ports: `127.0.0.1:80/tcp 10.9.0.2:8000`, one a line. Gives the errors.
    pub fn set(&self, ports: &str) -> BTreeMap<Bind, String> {
        self.serve(served(ports))
    }

    pub fn serve(&self, served: Served) -> BTreeMap<Bind, String> {
        let (answer, answered) = mpsc::channel();
        self.orders.send(Order::Set(served, answer)).ok().unwrap();
        answered.recv_timeout(LIMIT).unwrap()
    }

    /// Publishes ports that can be had. One that was ours a moment ago may be in the hands of a child that another
    /// test's thread starts: it has this process' descriptors until it runs its program.
    #[track_caller]
    pub fn publish(&self, ports: &str) {
        self.until("nobody has what was ours", || {
            let Some(error) = self.set(ports).into_values().next() else { return true };
            assert!(error.ends_with("is taken by another process"), "{error}");
            false
        });
    }

    pub fn status(&self, bind: &str) -> PortStatus {
        let (answer, answered) = mpsc::channel();
        self.orders.send(Order::Status(answer)).ok().unwrap();
        answered.recv_timeout(LIMIT).unwrap().remove(&bind.parse().unwrap()).unwrap()
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < LIMIT, "waited for: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A listener in the machine.
    pub fn listen(&self, address: &str) -> TcpListener {
        self.machine.within(|| TcpListener::bind(address).unwrap())
    }

    /// A connection from the host itself.
    pub fn connect(&self, address: &str) -> TcpStream {
        connect(&self.host, address)
    }

    /// The same, if it comes about.
    pub fn try_connect(&self, address: &str) -> std::io::Result<TcpStream> {
        try_connect(&self.host, address)
    }
}

pub fn connect(from: &Namespace, address: &str) -> TcpStream {
    try_connect(from, address).unwrap()
}

fn try_connect(from: &Namespace, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    let stream = from.within(|| TcpStream::connect_timeout(&address, LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Accepts one connection.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A switchboard's configuration: the ports, and the lab's network.
pub fn served(ports: &str) -> Served {
    let ports = ports.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let (bind, target) = line.split_once(' ').unwrap();
        let target: SocketAddr = target.trim().parse().unwrap();
        let machine = "web.shop".parse().unwrap();
        (bind.parse().unwrap(), Target { machine, address: target.ip(), port: target.port() })
    });
    let network = ServedNetwork {
        link: "br0".parse().unwrap(),
        mac: Mac::derived(&["br0"]),
        mtu: 1500,
        gateway: Some("10.9.0.1/24".parse().unwrap()),
        gateway6: Some("fd09::1/64".parse().unwrap()),
        routes: true,
        resolves: true,
        dhcp: None,
        domain: "shop.stead".to_owned(),
        hosts: BTreeMap::new(),
        joins: Vec::new(),
    };
    Served {
        networks: BTreeMap::from([("lan.shop".parse().unwrap(), network)]),
        ports: ports.collect(),
        ..Served::default()
    }
}

/// A thread in the host's namespace that runs `Forwards`, and another in the engine's that makes sockets.
fn switchboard(host: &Namespace, engine: &Namespace) -> tokio::sync::mpsc::UnboundedSender<Order> {
    let (wanted, wants) = mpsc::channel::<(SocketKind, mpsc::Sender<OwnedFd>)>();
    let (ready, entered) = mpsc::channel();
    let (orders, mut received) = tokio::sync::mpsc::unbounded_channel();
    thread::scope(|scope| {
        let (host, engine) = (host.0.try_clone().unwrap(), engine.0.try_clone().unwrap());
        let also_ready = ready.clone();
        scope.spawn(move || {
            thread::spawn(move || {
                Namespace(engine).enter();
                also_ready.send(()).unwrap();
                for (socket, answer) in wants {
                    let _gone = answer.send(make(socket));
                }
            });
            thread::spawn(move || {
                Namespace(host).enter();
                ready.send(()).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut forwards = Forwards::new(move |socket| {
                        let (answer, answered) = mpsc::channel();
                        wanted.send((socket, answer))?;
                        Ok(answered.recv()?)
                    });
                    while let Some(order) = received.recv().await {
                        match order {
                            Order::Set(served, answer) => {
                                let errors = forwards.set(&served).await;
                                let text =
                                    errors.into_iter().map(|(bind, error)| (bind, format!("{error:#}")));
                                answer.send(text.collect()).unwrap();
                            }
                            Order::Status(answer) => answer.send(forwards.status()).unwrap(),
                        }
                    }
                });
            });
        });
    });
    entered.recv_timeout(LIMIT).unwrap();
    entered.recv_timeout(LIMIT).unwrap();
    orders
}

fn make(socket: SocketKind) -> OwnedFd {
    let family = if socket.domain == Domain::Inet { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if socket.kind == Kind::Stream { SocketType::STREAM } else { SocketType::DGRAM };
    socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
