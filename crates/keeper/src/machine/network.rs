//! The network namespace that a machine is put into.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use stead_host::machine::{Files, NetworkMark};
use stead_model::container::NetworkMode;
use stead_model::name::MachineId;
use stead_net::anchor::Client;

/// It: held by the anchor for the machine or for another, or this computer's, in which we are.
pub(super) fn namespace(
    client: &mut Client,
    id: &MachineId,
    mode: &NetworkMode,
    files: &Files,
) -> Result<OwnedFd> {
    let mut held =
        |id: &MachineId| client.namespace(&id.to_string().parse().context("its name is no label")?);
    match mode {
        NetworkMode::Own => held(id),
        NetworkMode::Host => {
            Ok(File::open("/proc/self/ns/net").context("cannot open this computer's network")?.into())
        }
        NetworkMode::Machine(other) => {
            let namespace = held(&MachineId::new(&id.project, other))?;
            NetworkMark::of(namespace.as_fd())?.store(files)?;
            Ok(namespace)
        }
    }
}
