//! What a run left behind: processes, links, rules, mounts and files that were not there before it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{WaitOptions, wait};

use crate::programs::output;

/// The directories that a run has for itself; empty afterwards.
pub(crate) const SCRATCH: [&str; 3] = ["home", "run", "tmp"];

/// A process that was told to end may take this long: longer than any ordered end of ours.
const GRACE: Duration = Duration::from_secs(3);

/// Everything that a run could leave behind, as lines for people.
pub(crate) struct Seen(BTreeSet<String>);

impl Seen {
    /// Looks now, from within the namespaces.
    pub(crate) fn now(scratch: &Path) -> Result<Self> {
        let mut things = BTreeSet::new();
        things.extend(processes()?);
        things.extend(links()?);
        things.extend(mounts()?);
        things.extend(
            output(Command::new("nft").args(["list", "tables"]))?.lines().map(|line| format!("nft {line}")),
        );
        for directory in ["/run", "/var/lib/stead", "/var/log/stead"].map(Path::new) {
            things.extend(files(directory)?);
        }
        // Not `/tmp`, which others use: a run has `$TMPDIR`.
        for name in SCRATCH {
            things.extend(files(&scratch.join(name))?);
        }
        // `ip netns add` makes these once and for all; the namespaces in there are mounts with names of their own.
        // `mount` keeps its notes in the third.
        let standing = ["file /run/netns", "mount /run/netns", "file /run/mount"];
        things.retain(|thing| !standing.contains(&thing.as_str()));
        Ok(Self(things))
    }
}

/// What is there now and was not before. Processes get a moment to end.
pub(crate) fn after(before: &Seen, scratch: &Path) -> Result<Vec<String>> {
    let deadline = Instant::now() + GRACE;
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let now = Seen::now(scratch)?;
        let left: Vec<String> = now.0.difference(&before.0).cloned().collect();
        if Instant::now() > deadline || !left.iter().any(|thing| thing.starts_with("process")) {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("could not read /proc")?.filter_map(Result::ok) {
        let pid = entry.file_name().to_string_lossy().into_owned();
        // Process 1 is the one that looks. A process may end while being looked at.
        if pid == "1" || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if let Ok(words) = fs::read(entry.path().join("cmdline")) {
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            found.push(format!("process {pid} {}", line.trim()));
        }
    }
    Ok(found)
}

fn links() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/net/dev").context("could not list links")?;
    let names = table.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| format!("link {}", name.trim())).collect())
}

fn mounts() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mounts").context("could not list mounts")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points.map(|point| format!("mount {point}")).collect())
}

fn files(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("could not read {}", directory.display())),
    };
    Ok(entries.filter_map(Result::ok).map(|entry| format!("file {}", entry.path().display())).collect())
}
