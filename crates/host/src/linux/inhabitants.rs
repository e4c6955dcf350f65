//! Programs of people's that run among the networks (`stead network enter`): a namespace lives as long as a process
//! is in it, whatever becomes of its anchor.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use stead_net::process::ProcessId;

/// What was ended together with its namespaces is gone by then.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How often it is looked meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What anchors are called, in `/proc`. Any program may call itself so.
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
        let own = program(Path::new("/proc/self"));
        let mut new = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Others' processes do not show theirs; nobody but us gets in there.
            let Some(target) = fs::read_link(entry.path().join("ns/net")).ok() else { continue };
            if !self.names.contains(&target) {
                continue;
            }
            let name = fs::read(entry.path().join("comm")).unwrap_or_default();
            let name = String::from_utf8_lossy(&name).trim_end().to_owned();
            let is_ours = own.is_some() && program(&entry.path()) == own;
            // Last, so that all of it was this process's.
            let Some(process) = ProcessId::observe(pid)? else { continue };
            if is_ours && self.is_later_anchor(process, &name) {
                new.push(process);
            }
            found.push((target, process, name));
        }
        // The kernel gives the names of those that are gone to others: an anchor that came later makes its own.
        let theirs = namespaces(&new).names;
        found.retain(|(target, ..)| !theirs.contains(target));
        Ok(found.into_iter().map(|(_, process, name)| (process, name)).collect())
    }

    /// Whether a process of our program is an anchor that started after those that held the namespaces.
    fn is_later_anchor(&self, process: ProcessId, name: &str) -> bool {
        let is_later = self.anchors.iter().all(|anchor| anchor.start_time <= process.start_time);
        name == ANCHOR && is_later && !self.anchors.contains(&process)
    }
}

/// Which file a process runs; `None` if we may not see that, as we may of our own.
fn program(process: &Path) -> Option<(u64, u64)> {
    fs::metadata(process.join("exe")).map(|file| (file.dev(), file.ino())).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_that_calls_itself_an_anchor_is_seen_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let impostor = directory.path().join(ANCHOR);
        // By another process: what another thread starts could hold it open for writing, and nobody could run it.
        assert!(Command::new("cp").arg("/bin/sleep").arg(&impostor).status().unwrap().success());
        let mut child = Command::new("unshare").arg("-rn").arg(&impostor).arg("60").spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_to_string(process.join("comm")).unwrap().trim() != ANCHOR {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        let target = fs::read_link(process.join("ns/net")).unwrap();
        let namespaces = Namespaces { names: [target].into(), anchors: Vec::new() };
        let said = namespaces.check_gone().unwrap_err().to_string();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(said.starts_with("`stead-anchor` (process "), "{said}");
        namespaces.check_gone().unwrap();
    }

    #[test]
    fn an_anchor_comes_later_than_the_one_before() {
        let anchor = |pid, start_time| ProcessId { pid, start_time };
        let namespaces = Namespaces { names: BTreeSet::new(), anchors: vec![anchor(5, 100)] };
        for (process, name, expected) in [
            (anchor(6, 101), ANCHOR, true),
            (anchor(6, 99), ANCHOR, false),
            (anchor(5, 100), ANCHOR, false),
            (anchor(6, 101), "sleep", false),
        ] {
            assert_eq!(namespaces.is_later_anchor(process, name), expected, "{process} {name}");
        }
    }
}
