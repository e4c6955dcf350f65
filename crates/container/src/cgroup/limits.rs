//! How limits are written in the files of cgroups.

use stead_model::container::{DiskRates, Limits};

use super::disk::Disk;

/// A controller that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Cpuset,
    Memory,
    Pids,
    Io,
}

impl Controller {
    /// Its name in version 1.
    pub(crate) fn legacy(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
        }
    }

    /// Its name in version 2.
    pub(crate) fn unified(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Cpu | Self::Cpuset | Self::Memory | Self::Pids => self.legacy(),
        }
    }
}

/// Which version a controller is of here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Legacy,
    Unified,
}

/// A text for a file of a cgroup. The first file that exists is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What the limit is called by users.
    pub(crate) word: &'static str,
    pub(crate) controller: Controller,
    pub(crate) files: &'static [&'static str],
    pub(crate) text: String,
    /// Nobody asked for it: it is left out where the kernel has no such file.
    pub(crate) is_usual: bool,
}

impl Setting {
    /// Its text as this one of its files has it.
    pub(crate) fn text_for(&self, file: &str) -> String {
        text_for(file, &self.text)
    }
}

/// A text as this file has it: weights of `io.weight` are from 1 to 10000, those that people say and that all other files
/// have from 10 to 1000. As runc converts them.
pub(crate) fn text_for(file: &str, text: &str) -> String {
    match (file, text.parse::<u64>()) {
        ("io.weight", Ok(weight)) => (1 + weight.saturating_sub(10) * 9999 / 990).to_string(),
        _ => text.to_owned(),
    }
}

/// The kernel's own choice of how long a period of processor time is.
const PERIOD_US: u64 = 100_000;

/// What these limits are called by users, and the controller of each that is set.
pub(crate) fn asked(limits: &Limits) -> Vec<(&'static str, Controller)> {
    let Limits { cpus_milli, cpu_shares, cpuset, memory_bytes, .. } = limits;
    let Limits { memory_reservation_bytes, pids, io_weight, disk_rates, .. } = limits;
    let rates = DiskRates::default().each().into_iter().enumerate().map(|(place, (key, _))| {
        let mut rates = disk_rates.values().filter_map(|rates| rates.each().get(place)?.1);
        (rates.next().is_some(), key, Controller::Io)
    });
    let all = [
        (cpus_milli.is_some(), "cpus", Controller::Cpu),
        (cpu_shares.is_some(), "cpu_shares", Controller::Cpu),
        (cpuset.is_some(), "cpuset", Controller::Cpuset),
        (memory_bytes.is_some(), "memory", Controller::Memory),
        (limits.limited_swap_bytes().is_some(), "memory_swap", Controller::Memory),
        (memory_reservation_bytes.is_some(), "memory_reservation", Controller::Memory),
        (pids.is_some(), "pids", Controller::Pids),
        (io_weight.is_some(), "io_weight", Controller::Io),
    ];
    all.into_iter()
        .chain(rates)
        .filter(|(is_set, ..)| *is_set)
        .map(|(_, word, controller)| (word, controller))
        .collect()
}

/// What is written where for these limits, with the disks that they name, in order.
pub(crate) fn settings(
    limits: &Limits,
    disks: &[Disk],
    version: impl Fn(Controller) -> Version,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    let is_usual = limits.limited_swap_bytes().is_none();
    let mut set = |word,
                   controller,
                   legacy: &'static [&'static str],
                   unified: &'static [&'static str],
                   texts: (String, String)| {
        let is_usual = is_usual && word == "memory_swap";
        let (files, text) = match version(controller) {
            Version::Legacy => (legacy, texts.0),
            Version::Unified => (unified, texts.1),
        };
        if !files.is_empty() {
            settings.push(Setting { word, controller, files, text, is_usual });
        }
    };
    let same = |text: String| (text.clone(), text);
    if let Some(cpuset) = &limits.cpuset {
        set("cpuset", Controller::Cpuset, &["cpuset.cpus"], &["cpuset.cpus"], same(cpuset.clone()));
    }
    if let Some(shares) = limits.cpu_shares {
        let texts = (shares.to_string(), weight(shares).to_string());
        set("cpu_shares", Controller::Cpu, &["cpu.shares"], &["cpu.weight"], texts);
    }
    if let Some(milli) = limits.cpus_milli {
        let quota = u64::from(milli) * PERIOD_US / 1000;
        set("cpus", Controller::Cpu, &["cpu.cfs_period_us"], &[], same(PERIOD_US.to_string()));
        let texts = (quota.to_string(), format!("{quota} {PERIOD_US}"));
        set("cpus", Controller::Cpu, &["cpu.cfs_quota_us"], &["cpu.max"], texts);
    }
    if let Some(bytes) = limits.memory_bytes {
        set(
            "memory",
            Controller::Memory,
            &["memory.limit_in_bytes"],
            &["memory.max"],
            same(bytes.to_string()),
        );
    }
    // As much swap as memory, where nothing is said of it: a limit that swap has no part in limits nothing.
    let usual_both = limits.memory_bytes.map(|bytes| bytes.saturating_mul(2));
    if let Some(both) = limits.memory_swap_bytes.or(usual_both) {
        // Version 1 counts memory and swap together, version 2 swap alone.
        let swap = both.saturating_sub(limits.memory_bytes.unwrap_or_default());
        let texts = match both {
            Limits::ALL_SWAP => ("-1".to_owned(), "max".to_owned()),
            both => (both.to_string(), swap.to_string()),
        };
        set("memory_swap", Controller::Memory, &["memory.memsw.limit_in_bytes"], &["memory.swap.max"], texts);
    }
    if let Some(bytes) = limits.memory_reservation_bytes {
        set(
            "memory_reservation",
            Controller::Memory,
            &["memory.soft_limit_in_bytes"],
            &["memory.low"],
            same(bytes.to_string()),
        );
    }
    if let Some(pids) = limits.pids {
        set("pids", Controller::Pids, &["pids.max"], &["pids.max"], same(pids.to_string()));
    }
    settings.extend(io(limits, disks, version(Controller::Io)));
    settings
}

fn io(limits: &Limits, disks: &[Disk], version: Version) -> impl Iterator<Item = Setting> {
    let files: &[&str] = match version {
        Version::Legacy => &["blkio.weight", "blkio.bfq.weight"],
        Version::Unified => &["io.bfq.weight", "io.weight"],
    };
    let weight = limits.io_weight.map(|weight| io_setting("io_weight", files, weight.to_string()));
    weight.into_iter().chain(disks.iter().flat_map(move |disk| rates(disk, version)))
}

fn io_setting(word: &'static str, files: &'static [&'static str], text: String) -> Setting {
    Setting { word, controller: Controller::Io, files, text, is_usual: false }
}

/// For each rate the file of version 1 that has it, and its word in that of version 2.
const RATES: [(&[&str], &str); 4] = [
    (&["blkio.throttle.read_bps_device"], "rbps"),
    (&["blkio.throttle.write_bps_device"], "wbps"),
    (&["blkio.throttle.read_iops_device"], "riops"),
    (&["blkio.throttle.write_iops_device"], "wiops"),
];

/// A line for each rate, or in version 2 one for the disk.
fn rates(Disk { number, rates }: &Disk, version: Version) -> Vec<Setting> {
    let said: Vec<_> = RATES
        .into_iter()
        .zip(rates.each())
        .filter_map(|((files, name), (word, rate))| Some((files, name, word, rate?)))
        .collect();
    match version {
        Version::Legacy => said
            .into_iter()
            .map(|(files, _, word, rate)| io_setting(word, files, format!("{number} {rate}")))
            .collect(),
        Version::Unified => {
            let first = said.first().map(|(_, _, word, _)| *word);
            let rates: String = said.iter().map(|(_, name, _, rate)| format!(" {name}={rate}")).collect();
            first.map(|word| io_setting(word, &["io.max"], format!("{number}{rates}"))).into_iter().collect()
        }
    }
}

/// Version 1 has shares from 2 to 262144, version 2 weights from 1 to 10000; as runc converts them.
pub(crate) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Limits {
        Limits {
            cpus_milli: Some(1500),
            cpu_shares: Some(1024),
            cpuset: Some("0-1".to_owned()),
            memory_bytes: Some(64 << 20),
            memory_swap_bytes: Some(96 << 20),
            memory_reservation_bytes: Some(32 << 20),
            pids: Some(20),
            io_weight: Some(500),
            disk_rates: disks().into_iter().map(|disk| (disk.number.into(), disk.rates)).collect(),
            ..Limits::default()
        }
    }

    fn disks() -> Vec<Disk> {
        let slow = DiskRates { read_bps: Some(1 << 20), write_iops: Some(7), ..DiskRates::default() };
        let rates = DiskRates { write_bps: Some(2 << 20), read_iops: Some(9), ..slow };
        [("8:0", slow), ("254:16", rates)]
            .map(|(number, rates)| Disk { number: number.to_owned(), rates })
            .into()
    }

    #[track_caller]
    fn check(version: Version, expected: &[&str]) {
        let lines = settings(&all(), &disks(), |_| version);
        let texts = |line: &Setting| {
            line.files
                .iter()
                .map(|file| format!("{file} {}", line.text_for(file)))
                .collect::<Vec<_>>()
                .join(" | ")
        };
        let lines: Vec<String> = lines.iter().map(texts).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn limits_are_written_as_each_version_has_them() {
        check(
            Version::Legacy,
            &[
                "cpuset.cpus 0-1",
                "cpu.shares 1024",
                "cpu.cfs_period_us 100000",
                "cpu.cfs_quota_us 150000",
                "memory.limit_in_bytes 67108864",
                "memory.memsw.limit_in_bytes 100663296",
                "memory.soft_limit_in_bytes 33554432",
                "pids.max 20",
                "blkio.weight 500 | blkio.bfq.weight 500",
                "blkio.throttle.read_bps_device 8:0 1048576",
                "blkio.throttle.write_iops_device 8:0 7",
                "blkio.throttle.read_bps_device 254:16 1048576",
                "blkio.throttle.write_bps_device 254:16 2097152",
                "blkio.throttle.read_iops_device 254:16 9",
                "blkio.throttle.write_iops_device 254:16 7",
            ],
        );
        check(
            Version::Unified,
            &[
                "cpuset.cpus 0-1",
                "cpu.weight 39",
                "cpu.max 150000 100000",
                "memory.max 67108864",
                "memory.swap.max 33554432",
                "memory.low 33554432",
                "pids.max 20",
                "io.bfq.weight 500 | io.weight 4950",
                "io.max 8:0 rbps=1048576 wiops=7",
                "io.max 254:16 rbps=1048576 wbps=2097152 riops=9 wiops=7",
            ],
        );
    }

    #[test]
    fn what_nobody_said_of_swap_is_as_much_as_memory() {
        let swap = |said, version| {
            let limits =
                Limits { memory_bytes: Some(64 << 20), memory_swap_bytes: said, ..Limits::default() };
            let setting = settings(&limits, &[], |_| version).pop().unwrap();
            assert!(setting.is_usual);
            format!("{} {}", setting.files.join("|"), setting.text)
        };
        assert_eq!(swap(None, Version::Legacy), "memory.memsw.limit_in_bytes 134217728");
        assert_eq!(swap(None, Version::Unified), "memory.swap.max 67108864");
        let all = Some(Limits::ALL_SWAP);
        assert_eq!(swap(all, Version::Legacy), "memory.memsw.limit_in_bytes -1");
        assert_eq!(swap(all, Version::Unified), "memory.swap.max max");
        assert!(settings(&self::all(), &[], |_| Version::Unified).iter().all(|setting| !setting.is_usual));
    }

    #[test]
    fn the_lightest_weight_stays_the_lightest() {
        let said = |file| [10, 100, 500, 1000].map(|weight: u16| text_for(file, &weight.to_string()));
        assert_eq!(said("io.weight"), ["1", "910", "4950", "10000"]);
        assert_eq!(said("io.bfq.weight"), ["10", "100", "500", "1000"]);
    }

    #[test]
    fn shares_become_weights_as_runc_has_it() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 39, 10_000, 10_000]);
    }

    #[test]
    fn nothing_is_written_where_nothing_is_asked() {
        assert_eq!(settings(&Limits::default(), &[], |_| Version::Unified), []);
        assert_eq!(asked(&Limits::default()), []);
        assert_eq!(asked(&all()).len(), 12);
    }
}
