//! Programs of people's that run among the networks (`stead network enter`): a namespace lives as long as a process
//! is in it, whatever becomes of its anchor.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use stead_net::process::ProcessId;

/// What was ended together with its namespaces is gone by then.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Network namespaces, as `/proc` calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(BTreeSet<PathBuf>);

/// The namespaces of these anchors and those that they hold.
pub(super) fn namespaces(anchors: &[ProcessId]) -> Namespaces {
    let own = anchors.iter().map(|anchor| PathBuf::from(format!("/proc/{}/ns/net", anchor.pid)));
    let held = anchors.iter().filter_map(|anchor| fs::read_dir(format!("/proc/{}/fd", anchor.pid)).ok());
    let held = held.flatten().flatten().map(|entry| entry.path());
    let targets = own.chain(held).filter_map(|link| fs::read_link(link).ok());
    let host = fs::read_link("/proc/self/ns/net").ok();
    let is_network = |target: &PathBuf| target.to_str().is_some_and(|text| text.starts_with("net:["));
    Namespaces(targets.filter(|target| is_network(target) && Some(target) != host.as_ref()).collect())
}

impl Namespaces {
    /// Fails if somebody is in there and so keeps them, now that their anchor is gone.
    pub fn check_gone(&self) -> Result<()> {
        let mut left = Vec::new();
        for (process, name) in self.inhabitants()? {
            if !process.wait_gone(END_LIMIT)? {
                left.push(format!("`{name}` (process {})", process.pid));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        bail!("{} still runs among the networks, which stay as long; hint: end it", left.join(", "))
    }

    fn inhabitants(&self) -> Result<Vec<(ProcessId, String)>> {
        let mut found = Vec::new();
        if self.0.is_empty() {
            return Ok(found);
        }
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Others' processes do not show theirs; nobody but us gets in there.
            if !fs::read_link(entry.path().join("ns/net")).is_ok_and(|target| self.0.contains(&target)) {
                continue;
            }
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.extend(ProcessId::observe(pid)?.map(|process| (process, name.trim_end().to_owned())));
        }
        Ok(found)
    }
}
