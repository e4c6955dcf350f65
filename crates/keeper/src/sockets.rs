//! Sockets among the networks, for processes that are not there.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};

use stead_host::home::Home;
use stead_net::anchor::{Client, SocketKind};

/// Makes sockets among the networks, by the anchor.
pub(crate) struct Sockets {
    run: PathBuf,
    anchor: Mutex<Option<Client>>,
}

impl Sockets {
    /// Among the networks of this home.
    pub(crate) fn new(home: &Home) -> Self {
        Self { run: home.run.clone(), anchor: Mutex::new(None) }
    }

    /// A socket in the engine's namespace. A connection that broke is made anew once.
    pub(crate) fn open(&self, socket: SocketKind) -> Result<OwnedFd> {
        let mut held = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = held.as_mut()
            && let Ok(fd) = client.socket(None, socket)
        {
            return Ok(fd);
        }
        *held = Client::connect(&self.run)?;
        let client = held.as_mut().ok_or_else(|| anyhow!("the engine's namespace is gone"))?;
        client.socket(None, socket)
    }
}
