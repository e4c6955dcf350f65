//! Kernel parameters of a container's own namespaces.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use stead_model::container::Mode;

/// Sets them. Our root is the container's, and /proc can still be written.
pub(crate) fn set(sysctls: &BTreeMap<String, String>, mode: Mode, is_own_network: bool) -> Result<()> {
    if is_own_network && mode == Mode::Application {
        usual(sysctls);
    }
    for (name, value) in sysctls {
        let path = path(name, is_own_network)?;
        fs::write(&path, value).with_context(|| format!("cannot set `{name}` to `{value}`"))?;
    }
    Ok(())
}

/// As Docker has it: who is not root may use low ports and ping, since the network is the container's own.
fn usual(sysctls: &BTreeMap<String, String>) {
    let usual = [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
    for (name, value) in usual.iter().filter(|(name, _)| !sysctls.contains_key(*name)) {
        // Groups that a user namespace does not have are refused; then users other than root do not ping.
        if let Err(error) = fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value) {
            tracing::debug!("`{name}` stays as it is: {error}");
        }
    }
}

/// Refuses a parameter that a container with a network of its own does not have for itself.
pub fn check(name: &str) -> Result<()> {
    path(name, true).map(drop)
}

/// Where a parameter is; only those that are of namespaces, or we would change this computer.
pub(crate) fn path(name: &str, is_own_network: bool) -> Result<String> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = name.replace('/', ".");
    let is_ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
    let is_name = dotted == "kernel.domainname";
    let is_network = dotted.starts_with("net.");
    if dotted.split('.').any(str::is_empty) || !(is_ipc || is_name || is_network) {
        bail!("kernel parameter `{name}` is this computer's, not a container's own");
    }
    if is_network && !is_own_network {
        bail!("kernel parameter `{name}` is this computer's, as the container has no network of its own");
    }
    // In names of interfaces a dot is written as a slash, and the other way round, where the first separator is one.
    let slashed = if name.split_once('/').is_some_and(|(first, _)| !first.contains('.')) {
        name.to_owned()
    } else {
        name.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    };
    if slashed.split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!("`{name}` is no kernel parameter");
    }
    Ok(format!("/proc/sys/{slashed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        let said = path(name, true).unwrap_or_else(|error| error.to_string());
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn only_parameters_of_namespaces_are_set() {
        check("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward");
        check("net/ipv4/conf/eth0.5/forwarding", "/proc/sys/net/ipv4/conf/eth0.5/forwarding");
        check("net.ipv4.conf.eth0/5.forwarding", "/proc/sys/net/ipv4/conf/eth0.5/forwarding");
        check("kernel.shmmax", "/proc/sys/kernel/shmmax");
        check("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max");
        check("kernel.core_pattern", "is this computer's");
        check("kernel.shmmax/../core_pattern", "is this computer's");
        check("net/../kernel/core_pattern", "is this computer's");
        check("net//x", "is this computer's");
        check("vm.swappiness", "is this computer's");
        assert!(path("net.ipv4.ip_forward", false).is_err());
    }
}
