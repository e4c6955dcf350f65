//! DNS answers and DHCP exchanges per second, beside `dnsmasq`. The load is ours, and the same for both.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::lab::{Lab, project};
use super::place::{Namespaces, Neighbour, OURS, Server, ip, wait_for};
use super::{Comparison, Side, Unit};
use crate::Outcome;
use crate::load::{self, Load};
use crate::programs::output;

/// The word for the load, which runs in a machine's namespace.
pub(crate) const STAGE: &str = "__load";

/// Names of the server's own.
pub(super) const DNS: Comparison = Comparison {
    name: "dns",
    first: Side { name: "stead", measure: our_dns },
    second: Side { name: "dnsmasq", measure: dnsmasq_dns },
    unit: Unit::PerSecond,
    target: Some(1.0),
};

/// Shows how far two equal sides differ, hence how much a ratio means on this computer.
pub(super) const DNS_NOISE: Comparison = Comparison {
    name: "dns-noise",
    first: Side { name: "dnsmasq", measure: dnsmasq_dns },
    second: Side { name: "dnsmasq again", measure: dnsmasq_dns },
    unit: Unit::PerSecond,
    target: None,
};

/// Machines that the server knows, each with a fixed lease.
pub(super) const DHCP: Comparison = Comparison {
    name: "dhcp",
    first: Side { name: "stead", measure: our_dhcp },
    second: Side { name: "dnsmasq", measure: dnsmasq_dhcp },
    unit: Unit::PerSecond,
    target: Some(1.0),
};

/// Machines known to the server.
const COUNT: usize = 50;
/// Long enough for thousands of answers.
const ASKING: Duration = Duration::from_secs(1);
/// Questions under way at once: a server is to be kept busy, its socket's buffer not to overflow.
const WINDOW: u16 = 32;
/// Where our project's network has its server.
const GATEWAY: &str = "10.9.0.1";

/// `__load dns SERVER` and `__load dhcp`: puts load on a server and prints answers per second.
pub(crate) fn put_load(arguments: &[String]) -> Result<Outcome> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let load = match arguments.as_slice() {
        ["dns", server] => dns_load((server.parse::<Ipv4Addr>()?, 53).into())?,
        ["dhcp"] => dhcp_load()?,
        _ => bail!("no such load"),
    };
    if load.lost > load.answered / 100 {
        bail!("{} of {} were lost: that is no measurement", load.lost, load.answered + load.lost);
    }
    println!("{}", load.per_second());
    Ok(Outcome::Good)
}

fn dns_load(server: SocketAddr) -> Result<Load> {
    let names: Vec<String> = (0..COUNT).map(|index| format!("m{index}.bench")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let once =
        || load::dns::run(server, &names, 1, Duration::from_millis(1)).is_ok_and(|load| load.answered > 0);
    wait_for("the DNS server", once)?;
    load::dns::run(server, &names, WINDOW, ASKING).context("could not ask for names")
}

fn dhcp_load() -> Result<Load> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).context("could not be a DHCP client")?;
    socket.set_broadcast(true)?;
    let clients = u32::try_from(COUNT)?;
    let once =
        || load::dhcp::run(&socket, 1, 1, Duration::from_millis(1)).is_ok_and(|load| load.answered > 0);
    wait_for("the DHCP server", once)?;
    load::dhcp::run(&socket, clients, WINDOW.into(), ASKING).context("could not ask for leases")
}

/// This program, with these words.
fn load_command(words: &[&str]) -> Result<Vec<String>> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let program = program.to_str().context("this program's path is not UTF-8")?;
    Ok([program, STAGE].iter().chain(words).map(|word| (*word).to_owned()).collect())
}

fn number(command: &mut Command) -> Result<f64> {
    let text = output(command)?;
    text.trim().parse().with_context(|| format!("`{}` is no number", text.trim()))
}

fn our_dns() -> Result<f64> {
    let lab = Lab::up_with(&project(COUNT, "static", ""))?;
    let words = load_command(&["dns", GATEWAY])?;
    let mut words = words.iter().map(String::as_str);
    let program = words.next().context("no program")?;
    number(&mut lab.within(Some("m0"), program, &words.collect::<Vec<_>>()))
}

fn dnsmasq_dns() -> Result<f64> {
    let neighbour = Neighbour::new("dns")?;
    let hosts = (0..COUNT).map(|index| format!("--host-record=m{index}.bench,10.9.0.{}", index + 2));
    let _server = dnsmasq(&hosts.collect::<Vec<_>>())?;
    number(neighbour.within().args(load_command(&["dns", OURS])?))
}

/// Our machines ask through a port of their own, which has no limit: each port of a machine has one, which is there
/// to stop such a load.
fn our_dhcp() -> Result<f64> {
    let lab = Lab::up_with(&project(COUNT, "managed", ""))?;
    let clients = Namespaces::new("clients", 1)?;
    let engine = lab.pid("anchor")?;
    let bridge = bridge_of(&lab)?;
    ip(&format!("link add clients-port netns {engine} type veth peer name eth0 netns clients0"))?;
    output(&mut lab.within(None, "ip", &["link", "set", "clients-port", "master", &bridge, "up"]))?;
    no_address(&clients)?;
    let result =
        number(Command::new("ip").args(["netns", "exec", "clients0"]).args(load_command(&["dhcp"])?));
    output(&mut lab.within(None, "ip", &["link", "delete", "clients-port"]))?;
    result
}

/// The name of the network's bridge.
fn bridge_of(lab: &Lab) -> Result<String> {
    let list = output(&mut lab.within(None, "ip", &["-json", "link", "show", "type", "bridge"]))?;
    let links: serde_json::Value = serde_json::from_str(&list)?;
    Ok(links
        .pointer("/0/ifname")
        .and_then(serde_json::Value::as_str)
        .context("there is no bridge")?
        .to_owned())
}

fn dnsmasq_dhcp() -> Result<f64> {
    let neighbour = Neighbour::new("dhcp")?;
    ip("-netns dhcp0 address flush dev eth0")?;
    let hosts =
        (0..COUNT).map(|index| format!("--dhcp-host=02:dd:00:00:00:{index:02x},10.7.0.{}", index + 2));
    // Spared: looking by ping whether an address is free, its file of leases, its log.
    let mut words: Vec<String> = hosts.collect();
    words.extend(
        ["--dhcp-range=10.7.0.2,static,1h", "--no-ping", "--leasefile-ro", "--quiet-dhcp"].map(Into::into),
    );
    words.push("--domain=bench".into());
    let _server = dnsmasq(&words)?;
    ip("-netns dhcp0 route add default dev eth0")?;
    number(neighbour.within().args(load_command(&["dhcp"])?))
}

/// Without an address yet, as a machine that asks for one.
fn no_address(clients: &Namespaces) -> Result<()> {
    let there = clients.0.first().context("no namespace")?;
    ip(&format!("-netns {there} link set eth0 up"))?;
    ip(&format!("-netns {there} route add default dev eth0"))
}

/// dnsmasq on the neighbours' bridge.
fn dnsmasq(more: &[String]) -> Result<Server> {
    let listen = format!("--listen-address={OURS}");
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ])
        .args([listen.as_str(), "--user=root", "--pid-file=", "--dns-forward-max=1000"])
        .args(more);
    Server::start(command)
}
