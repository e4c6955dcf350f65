//! `top` and `stats`: what a machine's processes do, and what it uses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde::Serialize;

use stead_agent::message;
use stead_container::Usage;
use stead_host::linux::LinuxHost;
use stead_host::machine::{self, Files};
use stead_model::name::MachineId;
use stead_model::observed::Observed;

use crate::args::{Format, Global, StatsArgs, TopArgs};
use crate::failure::Failure;
use crate::output::{Output, raw, table};
use crate::session::look;

/// Between two looks: what a machine does is the difference.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file of users is no longer than this.
const PASSWD_MAX_BYTES: u64 = 1 << 20;

/// A process of a machine.
#[derive(Debug, PartialEq, Serialize)]
struct ProcessRow {
    /// Its number on this computer, or for the kernel of its guest.
    pid: u32,
    /// Its number in the machine.
    inner_pid: u32,
    parent: u32,
    /// As whom it runs in the machine: a name if the machine has one for it.
    user: String,
    /// The part of one processor that it has used since it was started.
    cpu_percent: f64,
    cpu_ms: u64,
    memory_bytes: u64,
    command: String,
}

impl ProcessRow {
    /// One of a guest, whose kernel counts for itself.
    fn of_guest(process: message::Process) -> Self {
        let message::Process { pid, inner_pid, parent, user, age_ms, cpu_ms, memory_bytes, command } =
            process;
        let cpu_percent = percent(u128::from(cpu_ms), u128::from(age_ms));
        Self { pid, inner_pid, parent, user, cpu_percent, cpu_ms, memory_bytes, command }
    }
}

/// `top`.
pub(crate) fn top(global: &Global, args: &TopArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let id = super::machines::chosen_one(global, &args.machine, &seen)?;
    let Some(pid) = init(&host, &id)? else {
        let what = format!("machine `{id}` does not run");
        return Err(Failure::request(&what, &format!("`stead start {id}`")));
    };
    let files = Files::new(host.home(), &id);
    if super::guest::is_guest(&id, &seen) {
        let found = super::guest::looks::processes(&files).with_context(|| format!("machine `{id}`"))?;
        return print_top(&found.into_iter().map(ProcessRow::of_guest).collect::<Vec<_>>(), output);
    }
    let pids = stead_container::processes(&files.present(), pid)?;
    let users = Users::observe(pid);
    let uptime = fs::read_to_string("/proc/uptime").context("cannot read `/proc/uptime`")?;
    let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    // Those that ended meanwhile are none.
    let rows: Vec<ProcessRow> = pids.iter().filter_map(|pid| process(*pid, &users, uptime)).collect();
    print_top(&rows, output)
}

fn print_top(rows: &[ProcessRow], output: Output) -> Result<(), Failure> {
    let text = || {
        let cells = |row: &ProcessRow| {
            vec![
                row.pid.to_string(),
                row.inner_pid.to_string(),
                row.user.clone(),
                format!("{:.1}", row.cpu_percent),
                clock(row.cpu_ms),
                size(row.memory_bytes),
                row.command.clone(),
            ]
        };
        let heading = ["PID", "INSIDE", "USER", "%CPU", "TIME", "MEMORY", "COMMAND"];
        table(&heading, &rows.iter().map(cells).collect::<Vec<_>>())
    };
    output.data(&rows, text).map_err(Failure::from)
}

/// The machine's first process; nothing if it does not run.
fn init(host: &LinuxHost, id: &MachineId) -> Result<Option<u32>, Failure> {
    let status = machine::status(host.home(), id)?;
    Ok(status.and_then(|status| status.init).map(|init| init.pid))
}

fn process(pid: u32, users: &Users, uptime_s: f64) -> Option<ProcessRow> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let stat = Stat::parse(&stat)?;
    let words = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::split_whitespace);
    let uid = words("Uid:")?.nth(1)?.parse().ok()?;
    let inner_pid = words("NSpid:").and_then(Iterator::last).and_then(|text| text.parse().ok());
    let command = read("cmdline").unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    let ms = |ticks: u64| ticks.saturating_mul(1000) / ticks_per_s.max(1);
    let cpu_ms = ms(stat.cpu_ticks);
    let age_ms = (Duration::try_from_secs_f64(uptime_s).unwrap_or_default().as_millis())
        .saturating_sub(u128::from(ms(stat.start_ticks)));
    Some(ProcessRow {
        pid,
        inner_pid: inner_pid.unwrap_or(pid),
        parent: stat.parent,
        user: users.name(uid),
        cpu_percent: percent(u128::from(cpu_ms), age_ms),
        cpu_ms,
        memory_bytes: stat.pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096)),
        command: if command.is_empty() { format!("[{}]", stat.name) } else { command },
    })
}

/// How much this is of that, with one digit after the point.
fn percent(part: u128, whole: u128) -> f64 {
    let tenths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    cpu_ticks: u64,
    start_ticks: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses too.
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // As proc(5) numbers them; the first of these is field 3.
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            parent: u32::try_from(field(4)?).ok()?,
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            start_ticks: field(22)?,
            pages: field(24)?,
        })
    }
}

/// Who is who in a machine.
#[derive(Debug, Default)]
struct Users {
    /// Its user namespace: the first number inside, the first here, and how many follow each other.
    map: Vec<(u32, u32, u32)>,
    names: BTreeMap<u32, String>,
}

impl Users {
    /// As the machine with this first process has it.
    fn observe(pid: u32) -> Self {
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
        Self { map: parse_map(&map), names: parse_passwd(&passwd(pid).unwrap_or_default()) }
    }

    fn name(&self, uid: u32) -> String {
        let inside = self.map.iter().find_map(|(inner, outer, count)| {
            let offset = uid.checked_sub(*outer).filter(|offset| offset < count)?;
            inner.checked_add(offset)
        });
        match inside {
            Some(uid) => self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            None => format!("{uid} here"),
        }
    }
}

/// The machine's file of users. Its links lead nowhere but into the machine.
fn passwd(pid: u32) -> rustix::io::Result<String> {
    let root = format!("/proc/{pid}/root");
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: OwnedFd = openat2(&root, "etc/passwd", flags, Mode::empty(), how)?;
    let mut text = Vec::new();
    let mut file = fs::File::from(file).take(PASSWD_MAX_BYTES);
    if file.read_to_end(&mut text).is_err() {
        text.clear();
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse_map(text: &str) -> Vec<(u32, u32, u32)> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some((next()?, next()?, next()?))
    };
    text.lines().filter_map(line).collect()
}

fn parse_passwd(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(uid))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// `1:02` or `1:02:03`.
fn clock(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Bytes in the unit in which they have at most four digits.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut whole = bytes;
    let mut tenth = 0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while whole >= 1024
        && let Some(next) = units.next()
    {
        tenth = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = Some(next);
    }
    let digit = if bytes < 1024 || whole >= 100 { String::new() } else { format!(".{tenth}") };
    format!("{whole}{digit} {}", unit.copied().unwrap_or_default())
}

/// What a machine uses. Absent is what cannot be known here.
#[derive(Debug, Serialize)]
struct UsageRow {
    machine: String,
    /// The part of one processor in the last second.
    cpu_percent: Option<f64>,
    cpu_ns: Option<u64>,
    memory_bytes: Option<u64>,
    /// None if it has no limit.
    memory_limit_bytes: Option<u64>,
    pids: Option<u64>,
    pids_limit: Option<u64>,
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
}

/// A look at a machine.
struct Look {
    at: Instant,
    usage: Usage,
    traffic: Option<(u64, u64)>,
}

/// `stats`.
pub(crate) fn stats(global: &Global, args: &StatsArgs, output: Output) -> Result<(), Failure> {
    let mut host = look()?;
    let seen = host.observe()?;
    let ids = wanted(global, args, &seen)?;
    let mut before = looks(&host, &seen, &ids);
    let clears = !args.no_stream && output.format == Format::Text && std::io::stdout().is_terminal();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = looks(&host, &seen, &ids);
        let rows: Vec<UsageRow> = now.iter().map(|(id, look)| usage_row(id, look, before.get(id))).collect();
        if clears {
            // From the top, on an empty screen.
            raw("\x1b[H\x1b[2J")?;
        }
        match (output.format, args.no_stream) {
            (Format::Json, false) => {
                let line = serde_json::to_string(&rows).context("cannot write JSON")?;
                raw(&(line + "\n"))?;
            }
            _ => output.data(&rows, || usage_table(&rows))?,
        }
        // With nobody left to look at, there is no more to see.
        if args.no_stream || now.is_empty() || !is_read() {
            return Ok(());
        }
        before = now;
    }
}

/// Whether somebody still reads what we print: writing to a pipe without a reader is no failure here.
fn is_read() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _unknown = poll(&mut fds, Some(&now));
    fds.iter().all(|fd| !fd.revents().contains(PollFlags::ERR))
}

fn wanted(global: &Global, args: &StatsArgs, seen: &Observed) -> Result<Vec<MachineId>, Failure> {
    let is_of_none = global.project_name.is_none() && crate::project::is_none_here(global);
    let ids = if args.machines.is_empty() && is_of_none {
        seen.running.keys().cloned().collect()
    } else {
        super::machines::choose(global, &args.machines, seen)?
    };
    if !args.machines.is_empty()
        && let Some(id) = ids.iter().find(|id| !seen.running.contains_key(*id))
    {
        let what = format!("machine `{id}` does not run");
        return Err(Failure::request(&what, &format!("`stead start {id}`")));
    }
    Ok(ids)
}

/// Those that run.
fn looks(host: &LinuxHost, seen: &Observed, ids: &[MachineId]) -> BTreeMap<MachineId, Look> {
    let look = |id: &MachineId| {
        let pid = init(host, id).ok().flatten()?;
        if super::guest::is_guest(id, seen) {
            return Some((id.clone(), look_at_guest(&Files::new(host.home(), id), pid)?));
        }
        let usage = stead_container::usage(&Files::new(host.home(), id).present(), pid).ok()?;
        let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok();
        let traffic = text.map(|text| parse_traffic(&text));
        Some((id.clone(), Look { at: Instant::now(), usage, traffic }))
    };
    ids.iter().filter_map(look).collect()
}

/// What a guest takes of this computer, and what of that its machine uses, as the guest counts; a guest that comes up or
/// is held does not say.
fn look_at_guest(files: &Files, pid: u32) -> Option<Look> {
    let of_vmm = usage_of_vmm(pid)?;
    let inside = super::guest::looks::usage(files).ok();
    let traffic = inside.map(|inside| (inside.received_bytes, inside.sent_bytes));
    let usage = inside.map_or(of_vmm, |inside| Usage {
        memory_limit_bytes: Some(inside.guest_memory_bytes),
        pids: inside.pids,
        pids_limit: inside.pids_limit,
        read_bytes: inside.read_bytes,
        written_bytes: inside.written_bytes,
        ..of_vmm
    });
    Some(Look { at: Instant::now(), usage, traffic })
}

/// What the VMM of a guest takes of this computer, the guest's memory within.
fn usage_of_vmm(pid: u32) -> Option<Usage> {
    let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let ticks_per_s = rustix::param::clock_ticks_per_second().max(1);
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    Some(Usage {
        cpu_ns: Some(stat.cpu_ticks.saturating_mul(1_000_000_000 / ticks_per_s)),
        memory_bytes: Some(stat.pages.saturating_mul(page_bytes)),
        ..Usage::default()
    })
}

/// Received and sent on all nics but the one that leads nowhere.
fn parse_traffic(text: &str) -> (u64, u64) {
    let nics = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    nics.fold((0, 0), |(received, sent), (_, numbers)| {
        let mut numbers = numbers.split_whitespace().map(|text| text.parse::<u64>().unwrap_or(0));
        let more = (numbers.next().unwrap_or(0), numbers.nth(7).unwrap_or(0));
        (received + more.0, sent + more.1)
    })
}

fn usage_row(id: &MachineId, look: &Look, before: Option<&Look>) -> UsageRow {
    let usage = look.usage;
    let cpu_percent = before.and_then(|before| {
        // Less than before is another run of the machine.
        let used = usage.cpu_ns?.checked_sub(before.usage.cpu_ns?)?;
        Some(percent(u128::from(used), look.at.duration_since(before.at).as_nanos()))
    });
    UsageRow {
        machine: id.to_string(),
        cpu_percent,
        cpu_ns: usage.cpu_ns,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        received_bytes: look.traffic.map(|(received, _)| received),
        sent_bytes: look.traffic.map(|(_, sent)| sent),
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
    }
}

fn usage_table(rows: &[UsageRow]) -> String {
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
    let pair = |one, other| format!("{} / {}", bytes(one), bytes(other));
    let cells = |row: &UsageRow| {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        vec![
            row.machine.clone(),
            row.cpu_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}")),
            pair(row.memory_bytes, row.memory_limit_bytes),
            number(row.pids),
            pair(row.received_bytes, row.sent_bytes),
            pair(row.read_bytes, row.written_bytes),
        ]
    };
    let heading = ["MACHINE", "%CPU", "MEMORY / LIMIT", "PIDS", "RECEIVED / SENT", "READ / WRITTEN"];
    table(&heading, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 12 5 0 0 20 0 1 0 999 4096 33 1844 1";
        let expected = Stat { name: "a) b (c".into(), parent: 1, cpu_ticks: 17, start_ticks: 999, pages: 33 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (x) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn users_have_the_names_that_the_machine_has_for_them() {
        let names = parse_passwd("root:x:0:0:root:/root:/bin/sh\nbad\nweb:x:33:33::/:\nalso:x:33:33::/:\n");
        let users = Users { map: parse_map("0 1000 1\n1 100000 65536\n"), names };
        let named: Vec<String> = [1000, 100_032, 100_000, 0].map(|uid| users.name(uid)).into();
        assert_eq!(named, ["root", "web", "1", "0 here"]);
    }

    #[test]
    fn traffic_is_that_of_all_nics_but_loopback() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
            lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n\
            eth0: 100 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n eth1:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        assert_eq!(parse_traffic(text), (105, 27));
        assert_eq!(parse_traffic(""), (0, 0));
    }

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 1023, 1024, 1536, 102_400, 1 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 KiB", "1.0 GiB", "16383 PiB"]);
        assert_eq!([0, 61_000, 3_661_000].map(clock), ["0:00", "1:01", "1:01:01"]);
        assert_eq!([percent(1, 3), percent(2, 1), percent(5, 0)], [33.3, 200.0, 0.0]);
    }
}
