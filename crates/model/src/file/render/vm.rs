//! A vm to the keys of its machine.

use super::container::Keys;
use super::quoted;
use crate::container::Restart;
use crate::vm::{CloudInit, Firmware, Vm};

pub(super) fn render(text: &mut String, vm: &Vm) {
    let mut keys = Keys { text };
    keys.value("image", quoted(&vm.image.to_string_lossy()));
    keys.maybe("disk", vm.disk_bytes);
    keys.maybe("firmware", Some("uefi").filter(|_| vm.firmware == Firmware::Uefi));
    keys.maybe("cpus", vm.cpus);
    keys.maybe("mem_limit", vm.memory_mib.map(|mib| format!("{mib}m")));
    keys.maybe("hostname", vm.hostname.as_deref().map(quoted));
    keys.pairs("labels", &vm.labels);
    if !vm.mounts.is_empty() {
        keys.text.push_str("    volumes:\n");
        keys.mounts(&vm.mounts);
    }
    match &vm.cloud_init {
        None => keys.value("cloud_init", "off"),
        Some(told) if *told == CloudInit::default() => {}
        Some(told) => keys.value("cloud_init", cloud_init(told)),
    }
    keys.maybe("stop_grace_period", vm.stop_grace_ms.map(|ms| format!("{ms}ms")));
    let restart = Some(vm.restart).filter(|restart| *restart != Restart::No);
    keys.maybe("restart", restart.map(|restart| quoted(&restart.to_string())));
    keys.health(&vm.health);
}

fn cloud_init(told: &CloudInit) -> String {
    let mut parts = Vec::new();
    parts.extend(told.user_data.as_ref().map(|text| format!("user_data: {}", quoted(text))));
    if !told.ssh_authorized_keys.is_empty() {
        let keys: Vec<String> = told.ssh_authorized_keys.iter().map(|key| quoted(key)).collect();
        parts.push(format!("ssh_authorized_keys: [{}]", keys.join(", ")));
    }
    format!("{{ {} }}", parts.join(", "))
}
