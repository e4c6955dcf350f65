//! One TCP stream from this side to a neighbour: straight over the bridge, and through `socat` as a published port.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::place::{Neighbour, Server, THEIRS, wait_for};
use super::{Comparison, Side, Unit};
use crate::programs::output;

/// The two peers beside each other.
pub(super) const SOCAT_AGAINST_DIRECT: Comparison = Comparison {
    name: "throughput-peers",
    first: Side { name: "socat", measure: socat },
    second: Side { name: "direct", measure: direct },
    unit: Unit::GigabitsPerSecond,
    target: None,
};

/// iperf3's own.
const PORT: &str = "5201";
/// Long enough for a steady stream, short enough to take turns often.
const SECONDS: &str = "2";

/// Over the bridge.
pub(super) fn direct() -> Result<f64> {
    let neighbour = Neighbour::new("tpd")?;
    let _server = iperf_server(&neighbour, "tpd0")?;
    iperf_client(THEIRS)
}

/// Through socat on 127.0.0.1.
pub(super) fn socat() -> Result<f64> {
    let neighbour = Neighbour::new("tps")?;
    let _server = iperf_server(&neighbour, "tps0")?;
    let mut command = Command::new("socat");
    command
        .args([&format!("TCP-LISTEN:{PORT},fork,reuseaddr,bind=127.0.0.1"), &format!("TCP:{THEIRS}:{PORT}")]);
    let _forward = Server::start(command)?;
    wait_for("socat", || listens(&[]))?;
    iperf_client("127.0.0.1")
}

/// A server in the neighbour's namespace, ready.
pub(super) fn iperf_server(neighbour: &Neighbour, namespace: &str) -> Result<Server> {
    let server = neighbour.serve("iperf3", &["--server", "--port", PORT])?;
    wait_for("iperf3", || listens(&["-netns", namespace]))?;
    Ok(server)
}

/// Gigabits a second that arrive there.
pub(super) fn iperf_client(address: &str) -> Result<f64> {
    let arguments = ["--client", address, "--port", PORT, "--time", SECONDS, "--omit", "1", "--json"];
    let report: Value = serde_json::from_str(&output(Command::new("iperf3").args(arguments))?)?;
    let rate = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(rate.context("iperf3 names no rate")? / 1e9)
}

fn listens(namespace: &[&str]) -> bool {
    let filter = format!("sport = :{PORT}");
    let mut command = Command::new("ss");
    if let [_, name] = namespace {
        command.args(["--net", name]);
    }
    output(command.args(["-H", "-l", "-t", "-n", &filter])).is_ok_and(|lines| !lines.is_empty())
}
