//! A bundle's `config.json`, as far as we read it. What is not known is passed over, as the specification wants;
//! what is known but not honoured here is kept as [`Value`], to be refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) hooks: Hooks,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) linux: Linux,
    pub(crate) vm: Option<Value>,
    pub(crate) windows: Option<Value>,
    pub(crate) solaris: Option<Value>,
    pub(crate) zos: Option<Value>,
    pub(crate) freebsd: Option<Value>,
}

/// Programs written in Go say `null` for a list without entries.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Root {
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) readonly: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    #[serde(default)]
    pub(crate) destination: String,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) uid_mappings: Vec<IdMap>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) gid_mappings: Vec<IdMap>,
}

/// What the container's program, or one that joins it, is to be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    #[serde(default)]
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    #[serde(default)]
    pub(crate) cwd: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub(crate) apparmor_profile: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) capabilities: CapabilityLists,
    #[serde(default)]
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i64>,
    #[serde(default)]
    pub(crate) selinux_label: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) user: User,
    pub(crate) scheduler: Option<Value>,
    pub(crate) io_priority: Option<Value>,
    #[serde(rename = "execCPUAffinity")]
    pub(crate) exec_cpu_affinity: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConsoleSize {
    pub(crate) height: u16,
    pub(crate) width: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CapabilityLists {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) bounding: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) effective: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) inheritable: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) permitted: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ambient: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    pub(crate) umask: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hooks {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) prestart: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) create_runtime: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) create_container: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) start_container: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) poststart: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hook {
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    /// In seconds.
    pub(crate) timeout: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Linux {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) uid_mappings: Vec<IdMap>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) gid_mappings: Vec<IdMap>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sysctl: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) resources: Resources,
    #[serde(default)]
    pub(crate) cgroups_path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) namespaces: Vec<Namespace>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) devices: Vec<Device>,
    /// In Docker's form, of which this is a part.
    pub(crate) seccomp: Option<Value>,
    #[serde(default)]
    pub(crate) rootfs_propagation: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) masked_paths: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) readonly_paths: Vec<String>,
    #[serde(default)]
    pub(crate) mount_label: String,
    pub(crate) intel_rdt: Option<Value>,
    pub(crate) personality: Option<Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) time_offsets: BTreeMap<String, TimeOffset>,
    pub(crate) net_devices: Option<Value>,
    pub(crate) memory_policy: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMap {
    #[serde(rename = "containerID")]
    pub(crate) container_id: u32,
    #[serde(rename = "hostID")]
    pub(crate) host_id: u32,
    pub(crate) size: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) path: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct TimeOffset {
    #[serde(default)]
    pub(crate) secs: i64,
    #[serde(default)]
    pub(crate) nanosecs: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) file_mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resources {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) devices: Vec<DeviceRule>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) memory: Memory,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) cpu: Cpu,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) pids: Pids,
    #[serde(default, rename = "blockIO", deserialize_with = "or_default")]
    pub(crate) block_io: BlockIo,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) network: Network,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) rdma: BTreeMap<String, Rdma>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct DeviceRule {
    #[serde(default)]
    pub(crate) allow: bool,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    #[serde(default)]
    pub(crate) access: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    pub(crate) limit: Option<i64>,
    pub(crate) reservation: Option<i64>,
    pub(crate) swap: Option<i64>,
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: Option<i64>,
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub(crate) disable_oom_killer: Option<bool>,
    pub(crate) use_hierarchy: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cpu {
    pub(crate) shares: Option<u64>,
    pub(crate) quota: Option<i64>,
    pub(crate) burst: Option<u64>,
    pub(crate) period: Option<u64>,
    pub(crate) realtime_runtime: Option<i64>,
    pub(crate) realtime_period: Option<u64>,
    #[serde(default)]
    pub(crate) cpus: String,
    #[serde(default)]
    pub(crate) mems: String,
    pub(crate) idle: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Pids {
    pub(crate) limit: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockIo {
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<u16>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) weight_device: Vec<WeightDevice>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) throttle_read_bps_device: Vec<Throttle>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) throttle_write_bps_device: Vec<Throttle>,
    #[serde(default, rename = "throttleReadIOPSDevice", deserialize_with = "or_default")]
    pub(crate) throttle_read_iops_device: Vec<Throttle>,
    #[serde(default, rename = "throttleWriteIOPSDevice", deserialize_with = "or_default")]
    pub(crate) throttle_write_iops_device: Vec<Throttle>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WeightDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Throttle {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) rate: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    pub(crate) page_size: String,
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Network {
    #[serde(rename = "classID")]
    pub(crate) class_id: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) priorities: Vec<Priority>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Priority {
    pub(crate) name: String,
    pub(crate) priority: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rdma {
    pub(crate) hca_handles: Option<u32>,
    pub(crate) hca_objects: Option<u32>,
}
