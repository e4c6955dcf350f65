//! How fast published ports are, beside `socat` and beside no forwarding at all. By hand, alone on the computer:
//! `cargo test --release -p stead-net --test forward_bench -- --ignored --nocapture --test-threads=1`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "forward/lab.rs"]
mod lab;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Lab, Namespace, accept};

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn start(within: &Namespace, line: &str) -> Running {
    let words: Vec<&str> = line.split_whitespace().collect();
    within.within(|| {
        let child =
            Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Running(child.unwrap())
    })
}

/// Gigabits per second, as the receiving side saw them.
fn iperf(from: &Namespace, to: &str, streams: u32, more: &str) -> f64 {
    let (address, port) = to.rsplit_once(':').unwrap();
    let line = format!("iperf3 -c {address} -p {port} -t 3 -P {streams} -J {more}");
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = from.within(|| Command::new(words[0]).args(&words[1..]).output().unwrap());
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    result["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_else(|| panic!("{result}")) / 1e9
}

#[test]
#[ignore = "takes a minute and both processors"]
fn throughput() {
    let lab = Lab::new();
    let _server = start(&lab.machine, "iperf3 -s -p 5201");
    let _socat = start(&lab.engine, "socat TCP-LISTEN:80,fork,reuseaddr,bind=127.0.0.1 TCP:10.9.0.2:5201");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:5201");
    lab.until("the server listens", || {
        lab.engine.within(|| std::net::TcpStream::connect("127.0.0.1:80")).is_ok()
    });
    std::thread::sleep(Duration::from_millis(500));
    for (streams, more) in [(1, ""), (4, ""), (1, "-R")] {
        for _ in 0..3 {
            let direct = iperf(&lab.engine, "10.9.0.2:5201", streams, more);
            let ours = iperf(&lab.host, "127.0.0.1:80", streams, more);
            let socat = iperf(&lab.engine, "127.0.0.1:80", streams, more);
            println!(
                "-P {streams} {more}: direct {direct:.1} Gbit/s, ours {ours:.1}, socat {socat:.1}: \
                 {:.2} of direct, {:.1} times socat",
                ours / direct,
                ours / socat
            );
        }
    }
}

#[test]
#[ignore = "takes some seconds and both processors"]
fn connections() {
    const CONNECTIONS: u32 = 5000;
    let lab = Lab::new();
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    for (name, from, to) in [("direct", &lab.engine, "10.9.0.2:8000"), ("ours", &lab.host, "127.0.0.1:80")] {
        let start = Instant::now();
        from.within(|| {
            for _ in 0..CONNECTIONS {
                let client = std::net::TcpStream::connect(to).unwrap();
                drop((accept(&listener), client));
            }
        });
        println!(
            "{name}: {:.0} connections per second",
            f64::from(CONNECTIONS) / start.elapsed().as_secs_f64()
        );
    }
}

#[test]
#[ignore = "measures this process's memory, so it runs alone"]
fn memory() {
    let lab = Lab::new();
    let _limit = stead_net::forward::Forwards::new(|_| anyhow::bail!("unused"));
    let listener = lab.listen("10.9.0.2:8000");
    lab.publish("127.0.0.1:80/tcp 10.9.0.2:8000");
    let before = resident_kib();
    let pairs: Vec<_> = (0..3000).map(|_| (lab.connect("127.0.0.1:80"), accept(&listener))).collect();
    lab.until("all stand", || lab.status("127.0.0.1:80/tcp").live == pairs.len());
    println!("idle: {before} KiB; with {} connections: {} KiB", pairs.len(), resident_kib());
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
