//! A switchboard's namespace with its bridges, clients in namespaces of their own, and a resolver to be asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // Tests give up by panic.

#[path = "../support/sys.rs"]
mod sys;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use stead_model::name::NetworkId;
use stead_model::project::Boot;
use stead_model::served::{ServedDhcp, ServedHost, ServedNetwork};
use stead_net::anchor::{Domain, Kind, SocketKind};
use stead_net::serve::leases::Lease;
use stead_net::serve::{Services, Upstream};

/// Nothing here takes more than a second or two; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(20);

enum Order {
    Set(BTreeMap<NetworkId, ServedNetwork>, mpsc::Sender<Vec<(String, String)>>),
    Leases(mpsc::Sender<Vec<Lease>>),
}

struct Switchboard {
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    thread: std::thread::JoinHandle<()>,
}

pub(crate) struct Lab {
    switchboard: Option<Switchboard>,
    upstream: Upstream,
    directory: tempfile::TempDir,
}

/// A network of project `shop`, with machines given by MAC, name and last number.
pub(crate) fn network(name: &str, number: u8, hosts: &[(&str, &str, u8)]) -> (NetworkId, ServedNetwork) {
    let hosts = hosts.iter().map(|(mac, name, last)| {
        let host = ServedHost {
            name: name.parse().unwrap(),
            project: None,
            aliases: if *name == "web" { vec!["www".parse().unwrap()] } else { Vec::new() },
            address: Some(format!("10.0.{number}.{last}").parse().unwrap()),
            address6: Some(format!("fd00:{number}::{last:x}").parse().unwrap()),
            calls: false,
        };
        (mac.parse().unwrap(), host)
    });
    let network = ServedNetwork {
        link: format!("br-{name}").parse().unwrap(),
        mac: bridge_mac(number).parse().unwrap(),
        mtu: 1400,
        gateway: Some(format!("10.0.{number}.1/24").parse().unwrap()),
        gateway6: Some(format!("fd00:{number}::1/64").parse().unwrap()),
        routes: true,
        resolves: true,
        dhcp: Some(ServedDhcp {
            pool: Some((
                format!("10.0.{number}.200").parse().unwrap(),
                format!("10.0.{number}.220").parse().unwrap(),
            )),
            lease_s: 3600,
            slaac: true,
            boot: Some(Boot { file: "pxelinux.0".into(), server: None }),
        }),
        domain: "shop.stead".into(),
        hosts: hosts.collect(),
        joins: Vec::new(),
    };
    (format!("{name}.shop").parse().unwrap(), network)
}

fn bridge_mac(number: u8) -> String {
    format!("02:aa:00:00:00:{number:02x}")
}

/// Puts this thread into a network namespace of its own; what it starts is there too.
fn enter_namespace() {
    sys::unshare_network();
    run("ip link set lo up");
    // Duplicate address detection takes a second and there are no duplicates.
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
}

#[track_caller]
fn run(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Lab {
    pub(crate) fn new(upstream: Upstream) -> Self {
        enter_namespace();
        Self::here(upstream)
    }

    fn here(upstream: Upstream) -> Self {
        let mut lab = Self { switchboard: None, upstream, directory: tempfile::tempdir().unwrap() };
        lab.make_bridge("lan", 5);
        lab.make_bridge("far", 6);
        lab.restart();
        lab
    }

    pub(crate) fn make_bridge(&self, name: &str, number: u8) {
        let mac = bridge_mac(number);
        run(&format!(
            "ip link add br-{name} address {mac} type bridge && ip addr add 10.0.{number}.1/24 dev br-{name} \
             && ip addr add fd00:{number}::1/64 dev br-{name} nodad && ip link set br-{name} up"
        ));
    }

    pub(crate) fn delete_bridge(&self, name: &str) {
        run(&format!("ip link del br-{name}"));
    }

    /// Ends the switchboard, if there is one, and starts another.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let (orders, mut inbox) = tokio::sync::mpsc::unbounded_channel();
        let (upstream, file) = (self.upstream.clone(), self.directory.path().join("leases.json"));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut services = Services::new(Box::new(open), upstream, file);
                while let Some(order) = inbox.recv().await {
                    match order {
                        Order::Set(wanted, done) => {
                            let failed = services.set(&wanted).await.into_iter();
                            let failed = failed.map(|(id, error)| (id.to_string(), format!("{error:#}")));
                            done.send(failed.collect()).unwrap();
                        }
                        Order::Leases(done) => {
                            done.send(services.leases().into_values().flatten().collect()).unwrap();
                        }
                    }
                }
            });
        });
        self.switchboard = Some(Switchboard { orders, thread });
    }

    fn stop(&mut self) {
        if let Some(Switchboard { orders, thread }) = self.switchboard.take() {
            drop(orders);
            thread.join().unwrap();
        }
    }

    #[track_caller]
    pub(crate) fn set(&self, networks: &[(NetworkId, ServedNetwork)]) {
        assert_eq!(self.set_anyway(networks), []);
    }

    pub(crate) fn set_anyway(&self, networks: &[(NetworkId, ServedNetwork)]) -> Vec<(String, String)> {
        let (sender, done) = mpsc::channel();
        self.order(Order::Set(networks.iter().cloned().collect(), sender));
        done.recv_timeout(LIMIT).unwrap()
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        let (sender, done) = mpsc::channel();
        self.order(Order::Leases(sender));
        done.recv_timeout(LIMIT).unwrap()
    }

    fn order(&self, order: Order) {
        self.switchboard.as_ref().unwrap().orders.send(order).ok().unwrap();
    }

    /// A client with this MAC on a network's bridge.
    pub(crate) fn client(&self, network: &str, mac: &str) -> Client {
        let child = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut client = Client { child, directory: tempfile::tempdir().unwrap() };
        client.child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let pid = client.child.id();
        run(&format!(
            "ip link add v{pid} type veth peer name eth0 address {mac} netns {pid} \
             && ip link set v{pid} master br-{network} && ip link set v{pid} up"
        ));
        client.run("ip link set eth0 up");
        client
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open(socket: SocketKind) -> anyhow::Result<OwnedFd> {
    let domain = match socket.domain {
        Domain::Inet => AddressFamily::INET,
        Domain::Inet6 => AddressFamily::INET6,
        Domain::Packet => AddressFamily::PACKET,
        Domain::Netlink | Domain::Unix => unreachable!("no service asks for one"),
    };
    let kind = match socket.kind {
        Kind::Stream => SocketType::STREAM,
        Kind::Datagram => SocketType::DGRAM,
        Kind::Raw => SocketType::RAW,
    };
    let protocol = std::num::NonZeroU32::new(socket.protocol).map(Protocol::from_raw);
    Ok(socket_with(domain, kind, SocketFlags::CLOEXEC, protocol)?)
}

pub(crate) struct Client {
    child: Child,
    directory: tempfile::TempDir,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.child.id().to_string(), "sh", "-c"]).arg(line);
        command
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn set_address(&self, v4: &str, v6: &str) {
        self.run(&format!("ip addr add {v4} dev eth0; ip addr add {v6} dev eth0 nodad"));
    }

    #[track_caller]
    pub(crate) fn until(&self, line: &str, part: &str) {
        poll(
            || self.run(line).contains(part),
            || format!("`{line}` never said `{part}`: {}", self.run(line)),
        );
    }

    #[track_caller]
    pub(crate) fn until_not(&self, line: &str, part: &str) {
        poll(|| !self.run(line).contains(part), || format!("`{line}` still says `{part}`"));
    }

    fn script(&self) -> (PathBuf, PathBuf) {
        let (script, out) = (self.directory.path().join("script"), self.directory.path().join("out"));
        let text = format!("#!/bin/sh\necho \"reason=${{reason:-$1}}\" >>{0}\nenv >>{0}\n", out.display());
        std::fs::write(&script, text).unwrap();
        run(&format!("chmod +x {}; rm -f {}", script.display(), out.display()));
        (script, out)
    }

    #[track_caller]
    pub(crate) fn udhcpc(&self) -> BTreeMap<String, String> {
        let (script, out) = self.script();
        let wants = "-O search -O mtu -O broadcast -O hostname -O domain -O router -O dns";
        self.run(&format!("busybox udhcpc -f -q -n -t 8 -T 1 {wants} -i eth0 -s {}", script.display()));
        variables(&std::fs::read_to_string(out).unwrap())
    }

    #[track_caller]
    pub(crate) fn dhclient(&self, family: &str, reason: &str) -> BTreeMap<String, String> {
        let (script, out) = self.script();
        let directory = self.directory.path().display();
        self.until("ip -6 addr show dev eth0 scope link", "fe80::");
        let mut child = self
            .command(&format!(
                "exec dhclient {family} -1 -d -lf {directory}/leases{family} -pf {directory}/pid{family} -sf {} eth0",
                script.display()
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = || std::fs::read_to_string(&out).unwrap_or_default();
        let start = Instant::now();
        while !said().contains(&format!("reason={reason}\n")) && start.elapsed() < LIMIT {
            std::thread::yield_now();
        }
        // The rest of the variables follows in the same instant.
        poll(|| complete(&out, reason), || format!("dhclient {family} did not say {reason}: {}", said()));
        child.kill().unwrap();
        child.wait().unwrap();
        variables(&said())
    }

    /// Sends thirty packets of random bytes.
    #[track_caller]
    pub(crate) fn send_junk(&self, to: &str) {
        for round in 0..30 {
            let bytes = round * round % 700 + 1;
            // A stream may be closed before all is written: that is the server's right.
            let or = if to.starts_with("TCP") { "|| true" } else { "" };
            self.run(&format!("head -c {bytes} /dev/urandom | timeout 5 socat -u - '{to}' {or}"));
        }
    }

    #[track_caller]
    pub(crate) fn dig(&self, question: &str) -> String {
        self.dig_at("10.0.5.1", question)
    }

    #[track_caller]
    pub(crate) fn dig6(&self, question: &str) -> String {
        self.dig_at("fd00:5::1", question)
    }

    #[track_caller]
    pub(crate) fn dig_at(&self, server: &str, question: &str) -> String {
        self.run(&format!("dig +tries=1 +time=5 @{server} {question}"))
    }

    /// A program that has this many streams to the DNS server and says nothing on them, until it is dropped.
    #[track_caller]
    pub(crate) fn spawn_silent_streams(&self, count: usize) -> Silent {
        let open = "exec {fd}<>/dev/tcp/10.0.5.1/53";
        let line = format!("exec bash -c 'for ((i = 0; i < {count}; i++)); do {open}; done; echo; read -r'");
        let mut command = self.command(&line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Silent(child)
    }

    pub(crate) fn spawn_dig(&self, question: &str) -> Child {
        self.command(&format!("dig +tries=1 +time=5 @10.0.5.1 {question}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

pub(crate) struct Silent(Child);

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn complete(out: &Path, reason: &str) -> bool {
    let said = std::fs::read_to_string(out).unwrap_or_default();
    said.rsplit_once(&format!("reason={reason}\n")).is_some_and(|(_, rest)| rest.contains("new_"))
}

fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

#[track_caller]
fn poll(mut done: impl FnMut() -> bool, complaint: impl FnOnce() -> String) {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > LIMIT {
            panic!("{}", complaint());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A resolver that knows `one.example`, `slow.example` and `long.example`, and counts questions.
pub(crate) struct FakeResolver {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeResolver {
    /// Starts one, in a new namespace, which [`FakeResolver::lab`] then uses.
    pub(crate) fn start_lab() -> Self {
        enter_namespace();
        let (udp, asked) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Arc::new(Mutex::new(Vec::new())));
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = fake_answer(&buffer[..count], &log, true) {
                    udp.send_to(&answer, from).unwrap();
                }
            }
        });
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let answer = fake_answer(&question, &log, false).unwrap();
                stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        Self { address, asked }
    }

    pub(crate) fn lab(&self, servers: Vec<SocketAddr>) -> Lab {
        Lab::here(Upstream::Fixed(servers))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

fn fake_answer(question: &[u8], log: &Mutex<Vec<String>>, udp: bool) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] > 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8(question[at + 1..=at + length].to_vec()).unwrap());
        at += length + 1;
    }
    let name = labels.join(".");
    log.lock().unwrap().push(name.clone());
    let end = at + 5;
    let (code, answers, authorities, records) = match &*name {
        "one.example" | "slow.example" => (0, 1, 0, record(1, 300, &[192, 0, 2, 1])),
        "long.example" if udp => (0x0200, 0, 0, Vec::new()),
        "long.example" => (0, 40, 0, (0..40_u8).flat_map(|n| record(16, 300, &text(n))).collect()),
        _ => {
            let soa = [&[0, 0][..], &[0; 16], &60_u32.to_be_bytes()].concat();
            (3, 0, 1, record(6, 300, &soa))
        }
    };
    if name == "slow.example" {
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut answer = question[..2].to_vec();
    for field in [0x8180_u16 | code, 1, answers, authorities, 0] {
        answer.extend(field.to_be_bytes());
    }
    answer.extend(&question[12..end]);
    answer.extend(records);
    Some(answer)
}

fn text(number: u8) -> Vec<u8> {
    let text = format!("{number:040}");
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn record(kind: u16, ttl: u32, value: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    record.extend(value);
    record
}
