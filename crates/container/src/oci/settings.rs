//! What is written in the files of a bundle's cgroups, for each version of cgroups.

use super::config::{BlockIo, Cpu, Memory, Resources, Throttle};
use crate::cgroup::limits::{Version, text_for, weight};

/// A text for a file of a cgroup. The first of these files that exists is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) files: Vec<String>,
    pub(super) text: String,
}

impl Setting {
    /// Its text as this one of its files has it.
    pub(super) fn text_for(&self, file: &str) -> String {
        text_for(file, &self.text)
    }
}

/// What is written where, in order. What a version does not have is said in `bad`.
pub(super) fn settings(
    resources: &Resources,
    version: &dyn Fn(&str) -> Version,
    bad: &mut Vec<String>,
) -> Vec<Setting> {
    let mut list = List { version, settings: Vec::new(), bad };
    cpu(&resources.cpu, &mut list);
    memory(&resources.memory, &mut list);
    if let Some(limit) = resources.pids.limit {
        list.both("pids", "pids.max", &unlimited(limit, "max"));
    }
    block_io(&resources.block_io, &mut list);
    for huge in &resources.hugepage_limits {
        let size = &huge.page_size;
        let file = |end: &str| format!("hugetlb.{size}.{end}");
        let limit = huge.limit.to_string();
        list.one(
            "hugetlb",
            &[&file("rsvd.limit_in_bytes"), &file("limit_in_bytes")],
            &[&file("rsvd.max"), &file("max")],
            &limit,
        );
    }
    if let Some(class) = resources.network.class_id {
        list.one("net_cls", &["net_cls.classid"], &[], &class.to_string());
    }
    for priority in &resources.network.priorities {
        list.one(
            "net_prio",
            &["net_prio.ifpriomap"],
            &[],
            &format!("{} {}", priority.name, priority.priority),
        );
    }
    for (name, limits) in &resources.rdma {
        let part =
            |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
        let text = format!(
            "{name}{}{}",
            part("hca_handle", limits.hca_handles),
            part("hca_object", limits.hca_objects)
        );
        list.both("rdma", "rdma.max", &text);
    }
    list.settings
}

fn cpu(cpu: &Cpu, list: &mut List<'_>) {
    for (text, file) in [(&cpu.cpus, "cpuset.cpus"), (&cpu.mems, "cpuset.mems")] {
        if !text.is_empty() {
            list.both("cpuset", file, text);
        }
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        list.legacy("cpu", "cpu.shares", &shares.to_string());
        list.unified("cpu", "cpu.weight", &weight(shares).to_string());
    }
    if let Some(idle) = cpu.idle {
        list.both("cpu", "cpu.idle", &idle.to_string());
    }
    if let Some(period) = cpu.period.filter(|period| *period > 0) {
        list.legacy("cpu", "cpu.cfs_period_us", &period.to_string());
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        list.legacy("cpu", "cpu.cfs_quota_us", &quota.to_string());
    }
    if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period > 0) {
        let quota =
            cpu.quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let period = cpu.period.filter(|period| *period > 0).unwrap_or(100_000);
        list.unified("cpu", "cpu.max", &format!("{quota} {period}"));
    }
    if let Some(burst) = cpu.burst {
        list.one("cpu", &["cpu.cfs_burst_us"], &["cpu.max.burst"], &burst.to_string());
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period > 0) {
        list.one("cpu", &["cpu.rt_period_us"], &[], &period.to_string());
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        list.one("cpu", &["cpu.rt_runtime_us"], &[], &runtime.to_string());
    }
}

fn memory(memory: &Memory, list: &mut List<'_>) {
    if let Some(limit) = memory.limit {
        list.legacy("memory", "memory.limit_in_bytes", &limit.to_string());
        list.unified("memory", "memory.max", &unlimited(limit, "max"));
    }
    if let Some(reservation) = memory.reservation {
        list.legacy("memory", "memory.soft_limit_in_bytes", &reservation.to_string());
        list.unified("memory", "memory.low", &unlimited(reservation, "max"));
    }
    if let Some(both) = memory.swap.filter(|both| *both != 0) {
        // Version 1 counts memory and swap together, version 2 swap alone.
        list.legacy("memory", "memory.memsw.limit_in_bytes", &both.to_string());
        match (both, memory.limit) {
            (..=-1, _) => list.unified("memory", "memory.swap.max", "max"),
            (_, Some(limit)) if limit >= 0 && both >= limit => {
                list.unified("memory", "memory.swap.max", &(both - limit).to_string());
            }
            _ => list.bad.push("`memory.swap` is not more than `memory.limit`".to_owned()),
        }
    }
    if let Some(limit) = memory.kernel_tcp {
        list.one("memory", &["memory.kmem.tcp.limit_in_bytes"], &[], &limit.to_string());
    }
    if let Some(swappiness) = memory.swappiness {
        list.one("memory", &["memory.swappiness"], &[], &swappiness.to_string());
    }
    if memory.disable_oom_killer == Some(true) {
        list.one("memory", &["memory.oom_control"], &[], "1");
    }
    if memory.use_hierarchy == Some(true) {
        list.legacy("memory", "memory.use_hierarchy", "1");
    }
}

fn block_io(io: &BlockIo, list: &mut List<'_>) {
    const WEIGHT: [&str; 2] = ["blkio.weight", "blkio.bfq.weight"];
    const WEIGHT_DEVICE: [&str; 2] = ["blkio.weight_device", "blkio.bfq.weight_device"];
    if let Some(weight) = io.weight.filter(|weight| *weight > 0) {
        list.one("blkio", &WEIGHT, &["io.bfq.weight", "io.weight"], &weight.to_string());
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight > 0) {
        list.one("blkio", &["blkio.leaf_weight"], &[], &weight.to_string());
    }
    for device in &io.weight_device {
        let text = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight {
            list.one("blkio", &WEIGHT_DEVICE, &["io.bfq.weight"], &text(weight));
        }
        if let Some(weight) = device.leaf_weight {
            list.one("blkio", &["blkio.leaf_weight_device"], &[], &text(weight));
        }
    }
    let all: [(&[Throttle], &str, &str); 4] = [
        (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
        (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
        (&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops"),
        (&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops"),
    ];
    for (throttles, file, key) in all {
        for Throttle { major, minor, rate } in throttles {
            list.legacy("blkio", file, &format!("{major}:{minor} {rate}"));
            list.unified("blkio", "io.max", &format!("{major}:{minor} {key}={rate}"));
        }
    }
}

fn unlimited(value: i64, word: &str) -> String {
    if value < 0 { word.to_owned() } else { value.to_string() }
}

/// Settings, as they are collected.
struct List<'a> {
    version: &'a dyn Fn(&str) -> Version,
    settings: Vec<Setting>,
    bad: &'a mut Vec<String>,
}

impl List<'_> {
    /// In files of either version; a version that has none cannot do it.
    fn one(&mut self, controller: &'static str, legacy: &[&str], unified: &[&str], text: &str) {
        let files = match (self.version)(controller) {
            Version::Legacy => legacy,
            Version::Unified => unified,
        };
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        if files.is_empty() {
            self.bad.push(format!("version 2 of cgroups has no `{}`", legacy.join("` or `")));
        }
        self.settings.push(Setting { controller, files, text: text.to_owned() });
    }

    fn both(&mut self, controller: &'static str, file: &str, text: &str) {
        self.one(controller, &[file], &[file], text);
    }

    fn legacy(&mut self, controller: &'static str, file: &str, text: &str) {
        if (self.version)(controller) == Version::Legacy {
            self.both(controller, file, text);
        }
    }

    fn unified(&mut self, controller: &'static str, file: &str, text: &str) {
        if (self.version)(controller) == Version::Unified {
            self.both(controller, file, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_written_as_its_file_has_it() {
        let said = |weight: u16, file: &str| {
            let io = BlockIo { weight: Some(weight), ..BlockIo::default() };
            let resources = Resources { block_io: io, ..Resources::default() };
            let settings = settings(&resources, &|_| Version::Unified, &mut Vec::new());
            settings.iter().map(|setting| setting.text_for(file)).collect::<String>()
        };
        assert_eq!(
            [10, 100, 500, 1000].map(|weight| said(weight, "io.weight")),
            ["1", "910", "4950", "10000"]
        );
        assert_eq!([10, 500].map(|weight| said(weight, "io.bfq.weight")), ["10", "500"]);
    }
}
