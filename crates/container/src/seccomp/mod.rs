//! Which system calls the processes of a container may make.

mod compile;
mod profile;
mod syscalls;
mod usual;

use anyhow::{Context, Result};
use stead_model::container::{Rights, Seccomp};

use crate::capability::Capabilities;
use crate::sys::Instruction;
use profile::Circumstances;

/// The filter for a container with these rights, if it has one.
pub(crate) fn filter(rights: &Rights, capabilities: Capabilities) -> Result<Option<Vec<Instruction>>> {
    let profile = match &rights.seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default if rights.privileged => return Ok(None),
        Seccomp::Default => usual::profile(capabilities),
        Seccomp::Profile(path) => {
            let system = rustix::system::uname();
            let kernel = version(&system.release().to_string_lossy()).context("the kernel has no version")?;
            let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            profile::load(path, Circumstances { architecture, kernel, capabilities })?
        }
    };
    Ok(Some(compile::compile(&profile, &compile::PROCESSORS)))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
