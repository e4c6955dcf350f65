//! Programs of people's that run among the networks (`stead network enter`): a namespace lives as long as a process
//! is in it, whatever becomes of its anchor.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use stead_net::process::ProcessId;

/// What was ended together with its namespaces is gone by then.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How often it is looked meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What anchors are called, in `/proc`.
const ANCHOR: &str = "stead-anchor";

/// Network namespaces, as `/proc` calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    names: BTreeSet<PathBuf>,
    /// Those that held them.
    anchors: Vec<ProcessId>,
}

/// The namespaces of these anchors and those that they hold.
pub(super) fn namespaces(anchors: &[ProcessId]) -> Namespaces {
    let own = anchors.iter().map(|anchor| PathBuf::from(format!("/proc/{}/ns/net", anchor.pid)));
    let held = anchors.iter().filter_map(|anchor| fs::read_dir(format!("/proc/{}/fd", anchor.pid)).ok());
    let held = held.flatten().flatten().map(|entry| entry.path());
    let targets = own.chain(held).filter_map(|link| fs::read_link(link).ok());
    let host = fs::read_link("/proc/self/ns/net").ok();
    let is_network = |target: &PathBuf| target.to_str().is_some_and(|text| text.starts_with("net:["));
    let names = targets.filter(|target| is_network(target) && Some(target) != host.as_ref()).collect();
    Namespaces { names, anchors: anchors.to_vec() }
}

impl Namespaces {
    /// Fails if somebody is in there and so keeps them, now that their anchor is gone.
    pub fn check_gone(&self) -> Result<()> {
        let start = Instant::now();
        let left = loop {
            let left = self.inhabitants()?;
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > END_LIMIT {
                break left;
            }
            std::thread::sleep(LOOK_INTERVAL);
        };
        let left: Vec<String> =
            left.iter().map(|(process, name)| format!("`{name}` (process {})", process.pid)).collect();
        bail!("{} still runs among the networks, which stay as long; hint: end it", left.join(", "))
    }

    fn inhabitants(&self) -> Result<Vec<(ProcessId, String)>> {
        let mut found: Vec<(PathBuf, ProcessId, String)> = Vec::new();
        if self.names.is_empty() {
            return Ok(Vec::new());
        }
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Others' processes do not show theirs; nobody but us gets in there.
            let Some(target) = fs::read_link(entry.path().join("ns/net")).ok() else { continue };
            if self.names.contains(&target) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                let process = ProcessId::observe(pid)?;
                found.extend(process.map(|process| (target, process, name.trim_end().to_owned())));
            }
        }
        // The kernel gives the names of those that are gone to others: an anchor that came later makes its own.
        let is_new = |(_, process, name): &&(PathBuf, ProcessId, String)| {
            name == ANCHOR && !self.anchors.contains(process)
        };
        let new: Vec<ProcessId> = found.iter().filter(is_new).map(|(_, process, _)| *process).collect();
        let theirs = namespaces(&new).names;
        found.retain(|(target, ..)| !theirs.contains(target));
        Ok(found.into_iter().map(|(_, process, name)| (process, name)).collect())
    }
}
