//! Programs of people's that run among the networks (`stead network enter`): a namespace lives as long as a process
//! is in it, whatever becomes of its anchor.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use stead_net::process::{ProcessId, raise_file_limit};

/// What was ended together with its namespaces is gone by then.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How often it is looked meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Network namespaces, kept open: the kernel gives the number of one that is gone to the next that anybody makes.
#[derive(Debug)]
pub struct Namespaces(Vec<File>);

/// The namespaces of these anchors and those that they hold.
pub(super) fn namespaces(anchors: &[ProcessId]) -> Result<Namespaces> {
    // There is one of each container.
    raise_file_limit()?;
    let own = anchors.iter().map(|anchor| PathBuf::from(format!("/proc/{}/ns/net", anchor.pid)));
    let held = anchors.iter().filter_map(|anchor| fs::read_dir(format!("/proc/{}/fd", anchor.pid)).ok());
    let held = held.flatten().flatten().map(|entry| entry.path());
    let host = number(Path::new("/proc/self/ns/net"));
    // What an anchor lets go of meanwhile may be another file by the time that it is open.
    let open = |link: PathBuf| {
        let file = is_network(&link).then(|| File::open(&link).ok()).flatten()?;
        let opened = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        (is_network(&opened) && number(&opened) != host).then_some(file)
    };
    Ok(Namespaces(own.chain(held).filter_map(open).collect()))
}

fn is_network(link: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| target.to_str().is_some_and(|text| text.starts_with("net:[")))
}

/// By which a namespace is known as long as it lives; `None` if we may not see that, as we may of our own.
fn number(namespace: &Path) -> Option<(u64, u64)> {
    fs::metadata(namespace).map(|file| (file.dev(), file.ino())).ok()
}

impl Namespaces {
    /// Lets go of them, and fails if somebody is in there and so keeps them, now that their anchor is gone.
    pub fn check_gone(self) -> Result<()> {
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
        let own: BTreeSet<(u64, u64)> = self
            .0
            .iter()
            .map(File::metadata)
            .map(|file| file.map(|file| (file.dev(), file.ino())))
            .collect::<Result<_, _>>()?;
        let mut found = Vec::new();
        if own.is_empty() {
            return Ok(found);
        }
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Others' processes do not show theirs; nobody but us gets in there.
            if number(&entry.path().join("ns/net")).is_none_or(|number| !own.contains(&number)) {
                continue;
            }
            let name = fs::read(entry.path().join("comm")).unwrap_or_default();
            let name = String::from_utf8_lossy(&name).trim_end().to_owned();
            // Last, so that all of it was this process's.
            found.extend(ProcessId::observe(pid)?.map(|process| (process, name)));
        }
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process in a network namespace of its own, which `namespaces` takes for an anchor.
    fn anchor() -> (Child, ProcessId) {
        let child = Command::new("unshare").args(["-rn", "sleep", "60"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let comm = format!("/proc/{}/comm", child.id());
        while fs::read_to_string(&comm).unwrap() != "sleep\n" {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        let process = ProcessId::observe(child.id()).unwrap().unwrap();
        (child, process)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_is_in_there_is_told() {
        let (child, process) = anchor();
        let said = namespaces(&[process]).unwrap().check_gone().unwrap_err().to_string();
        assert!(said.starts_with(&format!("`sleep` (process {})", process.pid)), "{said}");
        end(child);
    }

    #[test]
    fn who_came_after_its_end_is_in_another() {
        let (child, process) = anchor();
        let of_first = namespaces(&[process]).unwrap();
        assert_eq!(of_first.0.len(), 1);
        end(child);
        // The kernel would give them the number of the first, if that were gone.
        let others: Vec<_> = (0..8).map(|_| anchor().0).collect();
        let checked = of_first.check_gone();
        others.into_iter().for_each(end);
        checked.unwrap();
    }

    #[test]
    fn the_computers_own_is_none_of_them() {
        let own = ProcessId::observe(std::process::id()).unwrap().unwrap();
        assert!(namespaces(&[own]).unwrap().0.is_empty());
    }
}
