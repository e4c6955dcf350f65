//! What can be seen of the guest: what containers use, their processes, who listens.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use stead_agent::message::{Listener, Process, Protocol, Usage};
use stead_net::process::ProcessId;

use crate::boot::text;

/// A file of users is no longer than this.
const PASSWD_MAX_BYTES: u64 = 1 << 20;

/// What a container uses, whose first process this is.
pub(crate) fn usage(state: &Path, pid: u32) -> Result<Usage> {
    let used = stead_container::usage(state, pid)?;
    Ok(Usage {
        cpu_ns: used.cpu_ns,
        memory_bytes: used.memory_bytes,
        memory_limit_bytes: used.memory_limit_bytes,
        pids: used.pids,
        pids_limit: used.pids_limit,
        read_bytes: used.read_bytes,
        written_bytes: used.written_bytes,
        oom_kills: used.oom_kills,
        ..usage_around(pid)?
    })
}

/// What the whole guest uses, and is sent in the network of this process.
fn usage_around(pid: u32) -> Result<Usage> {
    let memory = text("/proc/meminfo")?;
    let (received_bytes, sent_bytes) =
        traffic(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
    let (all, free) = (kib(&memory, "MemTotal"), kib(&memory, "MemAvailable"));
    Ok(Usage {
        cpu_ns: None,
        memory_bytes: None,
        memory_limit_bytes: None,
        pids: None,
        pids_limit: None,
        read_bytes: None,
        written_bytes: None,
        oom_kills: None,
        received_bytes,
        sent_bytes,
        guest_memory_bytes: all,
        guest_used_bytes: all.saturating_sub(free),
    })
}

/// What a whole computer uses, in which we are a service.
pub(crate) fn usage_here() -> Result<Usage> {
    let around = usage_around(1)?;
    let (read_bytes, written_bytes) = disk_traffic(&text("/proc/diskstats")?);
    Ok(Usage {
        cpu_ns: busy_ticks(&text("/proc/stat")?)
            .map(|ticks| ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second())),
        memory_bytes: Some(around.guest_used_bytes),
        memory_limit_bytes: Some(around.guest_memory_bytes),
        pids: threads(&text("/proc/loadavg")?),
        read_bytes: Some(read_bytes),
        written_bytes: Some(written_bytes),
        ..around
    })
}

/// All time of all processors that was not idle, of the first line of `/proc/stat`: `cpu user nice system idle iowait irq
/// softirq steal …`.
fn busy_ticks(text: &str) -> Option<u64> {
    let mut words = text.lines().next()?.split_whitespace().skip(1).map(|word| word.parse::<u64>().ok());
    let mut next = || words.next().flatten();
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _wait, irq, softirq) = (next()?, next()?, next()?, next()?);
    Some(user + nice + system + irq + softirq)
}

/// Of `0.1 0.2 0.3 1/234 5678` the second number of the fourth word.
fn threads(text: &str) -> Option<u64> {
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// Read and written on all disks of QEMU's, of lines like `254 0 vda reads merged sectors ms writes merged sectors …`.
fn disk_traffic(text: &str) -> (u64, u64) {
    const SECTOR_BYTES: u64 = 512;
    let whole = |name: &str| name.strip_prefix("vd").is_some_and(|rest| !rest.contains(char::is_numeric));
    let disks = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let sectors = |place: usize| words.get(place)?.parse::<u64>().ok();
        words.get(2).filter(|name| whole(name))?;
        Some((sectors(5)?, sectors(9)?))
    });
    disks.fold((0, 0), |(read, written), (more, most)| {
        (read + more * SECTOR_BYTES, written + most * SECTOR_BYTES)
    })
}

fn kib(text: &str, name: &str) -> u64 {
    let value =
        |line: &str| line.strip_prefix(name)?.trim_start_matches(':').split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).map_or(0, |kib: u64| kib * 1024)
}

/// Received and sent on all nics but the one that leads nowhere.
fn traffic(text: &str) -> (u64, u64) {
    let nics = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    nics.fold((0, 0), |(received, sent), (_, numbers)| {
        let mut numbers = numbers.split_whitespace().map(|text| text.parse::<u64>().unwrap_or(0));
        (received + numbers.next().unwrap_or(0), sent + numbers.nth(7).unwrap_or(0))
    })
}

/// The processes of a container, whose first one this is.
pub(crate) fn processes(state: &Path, pid: u32) -> Result<Vec<Process>> {
    described(pid, stead_container::processes(state, pid)?)
}

/// All processes of a whole computer.
pub(crate) fn processes_here() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("cannot read `/proc`")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    described(1, pids.collect())
}

fn described(first: u32, all: Vec<u32>) -> Result<Vec<Process>> {
    let users = passwd(first).unwrap_or_default();
    let uptime = text("/proc/uptime")?;
    let uptime = uptime.split(' ').next().and_then(|text| text.parse().ok());
    let now = Duration::try_from_secs_f64(uptime.unwrap_or_default()).unwrap_or_default();
    Ok(all.into_iter().filter_map(|pid| process(pid, &users, now)).collect())
}

/// The container's file of users. Its links lead nowhere but into the container.
fn passwd(pid: u32) -> Result<String> {
    let container = ProcessId::observe(pid)?.context("the container has just ended")?;
    let root = stead_container::running_root(container.pid, container.start_time)?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat2(&root, "etc/passwd", flags, Mode::empty(), how)?;
    let mut text = Vec::new();
    fs::File::from(file).take(PASSWD_MAX_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn user(users: &str, uid: u32) -> String {
    let number = uid.to_string();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}

/// A process; nothing if it has ended meanwhile.
fn process(pid: u32, users: &str, now: Duration) -> Option<Process> {
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    // Its name comes first, in parentheses, and may hold anything.
    let stat = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let (before, rest) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    // Fields 4, 14, 15, 22 and 24 of proc(5); the first of these is field 3.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let tick_ms = 1000 / rustix::param::clock_ticks_per_second();
    let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let inner_pid = inner.and_then(|line| line.split_whitespace().next_back()?.parse().ok());
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Some(Process {
        pid,
        inner_pid: inner_pid.unwrap_or(pid),
        parent: u32::try_from(field(4)).unwrap_or_default(),
        user: user(users, uid),
        age_ms: now_ms.saturating_sub(field(22) * tick_ms),
        cpu_ms: (field(14) + field(15)) * tick_ms,
        memory_bytes: field(24) * page_bytes,
        command: if words.is_empty() { format!("[{name}]") } else { words },
    })
}

/// Who listens in the network of this process.
pub(crate) fn listeners(pid: u32) -> Vec<Listener> {
    // The states of a socket that listens: TCP_LISTEN, and for UDP one that is connected to nobody.
    let tables = [
        ("tcp", Protocol::Tcp, "0A"),
        ("tcp6", Protocol::Tcp, "0A"),
        ("udp", Protocol::Udp, "07"),
        ("udp6", Protocol::Udp, "07"),
    ];
    let mut found = BTreeSet::new();
    for (table, protocol, state) in tables {
        // A kernel without IPv6 has not all of them.
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(|line| listener(line, protocol, state)));
    }
    found.into_iter().collect()
}

/// A line of `/proc/net/tcp` and its like: `0: 0100007F:0016 00000000:0000 0A …`, addresses in the computer's byte order
/// word by word.
fn listener(line: &str, protocol: Protocol, state: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    (fields.nth(1)? == state).then_some(())?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(Listener { protocol, address, port: u16::from_str_radix(port, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let said = listener(line, Protocol::Tcp, "0A")
            .map_or("nothing".to_owned(), |found| format!("{} {}", found.address, found.port));
        assert_eq!(said, expected);
    }

    #[test]
    fn what_a_whole_computer_uses_is_read_as_its_kernel_writes_it() {
        assert_eq!(busy_ticks("cpu  10 20 30 4000 500 6 7 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0"), Some(73));
        assert_eq!(busy_ticks("intr 1"), None);
        assert_eq!(threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        let disks = " 254 0 vda 10 0 100 5 20 0 200 6 0 0 0\n 254 1 vda1 9 0 99 5 20 0 200 6 0 0 0\n 11 0 sr0 1 0 8 0 0 0 0 0 0 0 0\n 254 16 vdb 1 0 1 0 0 0 0 0 0 0 0\n";
        assert_eq!(disk_traffic(disks), (101 * 512, 200 * 512));
    }

    #[test]
    fn listeners_are_read_as_the_kernel_writes_them() {
        check("   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000", "127.0.0.1 22");
        check("   1: 0100007F:0016 0100007F:C001 01 00000000:00000000 00:00000000", "nothing");
        check(
            "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0",
            "::1 8080",
        );
        check("  sl  local_address", "nothing");
        check("", "nothing");
    }
}
