//! DNS answers and DHCP exchanges per second, beside `dnsmasq`. The load is ours, and the same for both.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::lab::{Lab, project};
use super::place::{Namespaces, Server, ip, wait_for};
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
/// Where dnsmasq has its own.
const BESIDE: &str = "10.9.0.254";

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

/// Runs the load in machine `m0`, without the limit of its port, which is there to stop such a load.
fn ask(lab: &Lab, server: &str) -> Result<f64> {
    output(&mut lab.within(None, "nft", &["flush chain bridge stead asked"]))?;
    let words = load_command(&["dns", server])?;
    let mut words = words.iter().map(String::as_str);
    let program = words.next().context("no program")?;
    number(&mut lab.within(Some("m0"), program, &words.collect::<Vec<_>>()))
}

fn our_dns() -> Result<f64> {
    ask(&Lab::up_with(&project(COUNT, "static", ""))?, GATEWAY)
}

/// On the same bridge behind the same rules, with an address beside the gateway's.
fn dnsmasq_dns() -> Result<f64> {
    let lab = Lab::up_with(&project(COUNT, "static", ""))?;
    let bridge = bridge_of(&lab)?;
    output(&mut lab.within(None, "ip", &["address", "add", &format!("{BESIDE}/24"), "dev", &bridge]))?;
    // The rules let machines reach the services of their gateway alone.
    let gateway = format!("add element inet stead gateways4 {{ \"{bridge}\" . {BESIDE} }}");
    output(&mut lab.within(None, "nft", &[&gateway]))?;
    let hosts = (0..COUNT).map(|index| format!("--host-record=m{index}.bench,10.9.0.{}", index + 2));
    let listen = format!("--listen-address={BESIDE}");
    let _server = dnsmasq(&lab, hosts.chain([listen]))?;
    ask(&lab, BESIDE)
}

fn our_dhcp() -> Result<f64> {
    dhcp_exchanges(&Lab::up_with(&unstarted("managed"))?)
}

/// On the same bridge behind the same rules. Spared: looking by ping whether an address is free, its file of
/// leases, its log.
fn dnsmasq_dhcp() -> Result<f64> {
    let lab = Lab::up_with(&unstarted("static"))?;
    let hosts =
        (0..COUNT).map(|index| format!("--dhcp-host=02:dd:00:00:00:{index:02x},10.9.0.{}", index + 2));
    let more = ["--port=0", "--dhcp-range=10.9.0.2,static,1h", "--no-ping", "--leasefile-ro", "--quiet-dhcp"];
    let interface = format!("--interface={}", bridge_of(&lab)?);
    let _server = dnsmasq(&lab, hosts.chain(more.map(Into::into)).chain([interface]))?;
    dhcp_exchanges(&lab)
}

/// VMs that do not run: their ports are down, so what a server broadcasts goes to the load alone.
fn unstarted(addressing: &str) -> String {
    project(COUNT, addressing, "").replace("kind: container", "kind: vm")
}

/// Runs the load behind a port of its own, which has no limit: each port of a machine has one, which is there to
/// stop such a load.
fn dhcp_exchanges(lab: &Lab) -> Result<f64> {
    let _clients = Namespaces::new("clients", 1)?;
    let (engine, bridge) = (lab.pid("anchor")?, bridge_of(lab)?);
    ip(&format!("link add clients-port netns {engine} type veth peer name eth0 netns clients0"))?;
    output(&mut lab.within(None, "ip", &["link", "set", "clients-port", "master", &bridge, "up"]))?;
    // Without an address yet, as a machine that asks for one.
    ip("-netns clients0 link set eth0 up")?;
    ip("-netns clients0 route add default dev eth0")?;
    number(Command::new("ip").args(["netns", "exec", "clients0"]).args(load_command(&["dhcp"])?))
}

/// The name of the network's bridge.
fn bridge_of(lab: &Lab) -> Result<String> {
    let list = output(&mut lab.within(None, "ip", &["-json", "link", "show", "type", "bridge"]))?;
    let links: serde_json::Value = serde_json::from_str(&list)?;
    let name = links.pointer("/0/ifname").and_then(serde_json::Value::as_str);
    Ok(name.context("there is no bridge")?.to_owned())
}

/// dnsmasq where the bridge is.
fn dnsmasq(lab: &Lab, more: impl Iterator<Item = String>) -> Result<Server> {
    let plain = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"];
    let quiet = ["--bind-interfaces", "--user=root", "--pid-file=", "--dns-forward-max=1000"];
    let words: Vec<String> = plain.into_iter().chain(quiet).map(Into::into).chain(more).collect();
    Server::start(&lab.within(None, "dnsmasq", &words.iter().map(String::as_str).collect::<Vec<_>>()))
}
