//! TCP streams to a container: by a published port of ours, through `socat`, and straight over the bridge.
//!
//! All three reach the same container behind the same bridge and the same rules. `socat` has to be where the
//! bridge is to reach it, so it listens in the engine's namespace on 127.0.0.1 and its client is there as well; so
//! is the client of the direct stream. Our client is where a user is: in the computer's own namespace.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::lab::{Lab, project};
use super::place::{Server, wait_for};
use super::{Comparison, Side, Unit};
use crate::programs::output;

const OURS: Side = Side { name: "published port", measure: || measure(published, "1") };
const OURS_BY_4: Side = Side { name: "published port", measure: || measure(published, "4") };

/// One stream, and another program that carries bytes.
pub(super) const AGAINST_SOCAT: Comparison = Comparison {
    name: "port-socat",
    first: OURS,
    second: Side { name: "socat", measure: || measure(socat, "1") },
    unit: Unit::GigabitsPerSecond,
    target: Some(3.0),
};

/// One stream, and nobody in between.
pub(super) const AGAINST_DIRECT: Comparison = Comparison {
    name: "port-direct",
    first: OURS,
    second: Side { name: "over the bridge", measure: || measure(direct, "1") },
    unit: Unit::GigabitsPerSecond,
    target: Some(0.7),
};

/// Four streams at once.
pub(super) const AGAINST_SOCAT_BY_4: Comparison = Comparison {
    name: "ports4-socat",
    first: OURS_BY_4,
    second: Side { name: "socat", measure: || measure(socat, "4") },
    unit: Unit::GigabitsPerSecond,
    target: Some(3.0),
};

/// Four streams at once. Shown without a target: three programs share the processors here and two there, so on few of them
/// it says how many there are.
pub(super) const AGAINST_DIRECT_BY_4: Comparison = Comparison {
    name: "ports4-direct",
    first: OURS_BY_4,
    second: Side { name: "over the bridge", measure: || measure(direct, "4") },
    unit: Unit::GigabitsPerSecond,
    target: None,
};

/// iperf3's own.
const PORT: &str = "5201";
/// Where it is published.
const PUBLISHED: &str = "15201";
/// The container.
const MACHINE: &str = "10.9.0.2";
/// Long enough for a steady stream, short enough to take turns often.
const SECONDS: &str = "2";

/// Gigabits a second, one way of getting there.
fn measure(way: fn(&Lab, &str) -> Result<f64>, streams: &str) -> Result<f64> {
    let lab = Lab::up_with(&project(1, "static", &format!("\"{PUBLISHED}:{PORT}\"")))?;
    let _server = Server::start(&lab.within(Some("m0"), "iperf3", &["--server", "--port", PORT]))?;
    wait_for("iperf3", || listens(&lab, Some("m0")))?;
    way(&lab, streams)
}

fn published(_lab: &Lab, streams: &str) -> Result<f64> {
    let mut client = Command::new("iperf3");
    rate(client.args(arguments("127.0.0.1", PUBLISHED, streams)))
}

fn direct(lab: &Lab, streams: &str) -> Result<f64> {
    rate(&mut lab.within(None, "iperf3", &arguments(MACHINE, PORT, streams)))
}

fn socat(lab: &Lab, streams: &str) -> Result<f64> {
    let listen = format!("TCP-LISTEN:{PORT},fork,reuseaddr,bind=127.0.0.1");
    let _socat = Server::start(&lab.within(None, "socat", &[&listen, &format!("TCP:{MACHINE}:{PORT}")]))?;
    wait_for("socat", || listens(lab, None))?;
    rate(&mut lab.within(None, "iperf3", &arguments("127.0.0.1", PORT, streams)))
}

fn arguments<'a>(address: &'a str, port: &'a str, streams: &'a str) -> Vec<&'a str> {
    let wanted = ["--time", SECONDS, "--omit", "1", "--json"];
    ["--client", address, "--port", port, "--parallel", streams].into_iter().chain(wanted).collect()
}

/// Gigabits a second that arrive there.
fn rate(client: &mut Command) -> Result<f64> {
    let report: Value = serde_json::from_str(&output(client)?)?;
    let rate = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(rate.context("iperf3 names no rate")? / 1e9)
}

fn listens(lab: &Lab, machine: Option<&str>) -> bool {
    let filter = format!("sport = :{PORT}");
    output(&mut lab.within(machine, "ss", &["-H", "-l", "-t", "-n", &filter]))
        .is_ok_and(|lines| !lines.is_empty())
}
