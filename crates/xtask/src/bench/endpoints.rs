//! A network with 50 endpoints, up and down: `stead up` and `stead down`, what scripts do with `ip` and `nft`, and
//! what the reference CNI plug-ins do.
//!
//! Each endpoint is a namespace with an address, a default route and a port that lets no foreign address out;
//! the network is masqueraded. `stead up` makes the namespaces too, so the others' are made within their time as
//! well: `ip netns add` is what their users have. What the kernel does after a command has ended, it does outside
//! of everybody's time ([`settle`]).

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::lab::{Lab, project};
use super::place::{Namespaces, ip, settle};
use super::{Comparison, Side, Unit};
use crate::programs::output;

/// What scripts do.
pub(super) const AGAINST_COMMANDS: Comparison = Comparison {
    name: "endpoints-commands",
    first: Side { name: "stead", measure: stead },
    second: Side { name: "ip and nft", measure: commands },
    unit: Unit::Seconds,
    target: Some(5.0),
};

/// What runtimes of containers do.
pub(super) const AGAINST_CNI: Comparison = Comparison {
    name: "endpoints-cni",
    first: Side { name: "stead", measure: stead },
    second: Side { name: "CNI bridge", measure: cni },
    unit: Unit::Seconds,
    target: Some(5.0),
};

/// How many endpoints.
const COUNT: usize = 50;

/// Seconds that `stead up` and `stead down` take, from start to end, in a home that is empty before and after.
fn stead() -> Result<f64> {
    let lab = Lab::new(&project(COUNT, "static", ""))?;
    settle()?;
    let up = lab.up()?;
    let last = format!("m{}", COUNT - 1);
    output(&mut lab.within(Some(&last), "ping", &["-c1", "-W5", "-q", "10.9.0.1"]))?;
    let down = lab.down()?;
    Ok((up + down).as_secs_f64())
}

/// Seconds that one command after the other takes.
fn commands() -> Result<f64> {
    settle()?;
    let start = Instant::now();
    let namespaces = Namespaces::new("cmd", COUNT)?;
    network_up()?;
    for (index, name) in namespaces.0.iter().enumerate() {
        endpoint_up(index, name)?;
    }
    let up = start.elapsed();
    reaches(namespaces.0.last(), "10.9.0.1")?;
    let start = Instant::now();
    for index in 0..COUNT {
        ip(&format!("link delete cmd-p{index}"))?;
    }
    ip("link delete cmd-br")?;
    nft("delete table ip bench")?;
    nft("delete table bridge bench")?;
    drop(namespaces);
    Ok((up + start.elapsed()).as_secs_f64())
}

fn network_up() -> Result<()> {
    ip("link add cmd-br type bridge")?;
    ip("address add 10.9.0.1/24 dev cmd-br")?;
    ip("link set cmd-br up")?;
    nft("add table ip bench")?;
    nft("add chain ip bench out { type nat hook postrouting priority srcnat; }")?;
    nft("add rule ip bench out ip saddr 10.9.0.0/24 oifname != cmd-br masquerade")?;
    nft("add table bridge bench")?;
    nft("add chain bridge bench in { type filter hook prerouting priority -300; }")
}

fn endpoint_up(index: usize, name: &str) -> Result<()> {
    let (port, address) = (format!("cmd-p{index}"), format!("10.9.0.{}", index + 2));
    let mac = format!("02:00:00:00:09:{index:02x}");
    ip(&format!("link add {port} type veth peer name eth0 address {mac} netns {name}"))?;
    ip(&format!("link set {port} master cmd-br up"))?;
    ip(&format!("-netns {name} address add {address}/24 dev eth0"))?;
    ip(&format!("-netns {name} link set eth0 up"))?;
    ip(&format!("-netns {name} route add default via 10.9.0.1"))?;
    nft(&format!("add rule bridge bench in iifname {port} ether saddr != {mac} drop"))?;
    nft(&format!("add rule bridge bench in iifname {port} ether type ip ip saddr != {address} drop"))?;
    nft(&format!("add rule bridge bench in iifname {port} ether type arp arp saddr ip != {address} drop"))
}

fn nft(line: &str) -> Result<()> {
    output(Command::new("nft").arg(line)).map(drop)
}

/// Seconds that `bridge` with `host-local` takes, one call per endpoint as a runtime makes them.
fn cni() -> Result<f64> {
    settle()?;
    let data = tempfile::tempdir().context("could not make a directory")?;
    let config = serde_json::json!({
        "cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "cni-br",
        "isGateway": true, "ipMasq": true, "hairpinMode": true, "macspoofchk": true,
        "ipam": {
            "type": "host-local", "dataDir": data.path(), "subnet": "10.8.0.0/24",
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })
    .to_string();
    let start = Instant::now();
    let namespaces = Namespaces::new("cni", COUNT)?;
    for name in &namespaces.0 {
        plugin("ADD", name, &config)?;
    }
    let up = start.elapsed();
    reaches(namespaces.0.last(), "10.8.0.1")?;
    let start = Instant::now();
    for name in &namespaces.0 {
        plugin("DEL", name, &config)?;
    }
    drop(namespaces);
    let down = start.elapsed();
    // The plug-ins never take their bridge and tables away, so this is not their time.
    ip("link delete cni-br")?;
    nft("delete table ip nat")?;
    nft("delete table bridge nat")?;
    Ok((up + down).as_secs_f64())
}

fn plugin(command: &str, name: &str, config: &str) -> Result<()> {
    let mut child = Command::new("/usr/lib/cni/bridge")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", name)
        .env("CNI_NETNS", format!("/run/netns/{name}"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start the plug-in")?;
    child.stdin.take().context("no input to write to")?.write_all(config.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the plug-in failed: {}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// A network that does not work is not worth timing.
fn reaches(name: Option<&String>, address: &str) -> Result<()> {
    let name = name.context("no endpoint")?;
    output(Command::new("ip").args(["netns", "exec", name, "ping", "-c1", "-W5", "-q", address])).map(drop)
}
