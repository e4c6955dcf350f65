//! Links that the kernel takes away while we go on. It waits for all processors before it says that one is gone, which
//! is long after nobody finds it any more.

use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use stead_model::name::LinkName;
use stead_net::kernel::RouteSocket;
use stead_net::kernel::nft::NftRequest;

use super::LinuxHost;

/// Links on their way, and what is left to be done when they are gone. Dropped, they are waited for.
#[derive(Debug)]
pub(super) struct Leaving {
    links: Vec<LinkName>,
    /// A nic never speaks unguarded: its rules go when it is gone.
    rules: Vec<NftRequest>,
    deletion: Option<JoinHandle<Result<()>>>,
}

impl Leaving {
    /// Has the kernel begin, by a socket of this thread's own.
    pub(super) fn begin(route: RouteSocket, links: Vec<LinkName>, rules: Vec<NftRequest>) -> Result<Self> {
        let those = links.clone();
        let thread = std::thread::Builder::new().name("leaving".into());
        let deletion = thread.spawn(move || route.delete_links(&those)).context("cannot start a thread")?;
        Ok(Self { links, rules, deletion: Some(deletion) })
    }

    /// Waits for all of it.
    fn wait(&mut self) -> Result<()> {
        let Some(deletion) = self.deletion.take() else { return Ok(()) };
        deletion.join().map_err(|_| anyhow!("the thread that was to do it died"))?
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // Whoever gave up on it has said why.
        let _given_up = self.wait();
    }
}

impl LinuxHost {
    /// Sees links off that are on their way: they are gone after this, and so are their rules. What the kernel then still
    /// does to them it does by itself.
    pub fn see_off(&mut self) -> Result<()> {
        let Some(mut leaving) = self.leaving.take() else { return Ok(()) };
        let inside = self.inside()?;
        let is_left = inside.route.own_links()?.iter().any(|link| leaving.links.contains(&link.name));
        if is_left {
            leaving.wait().context("cannot delete the nics")?;
        }
        drop(leaving.deletion.take());
        inside.nft.run(&leaving.rules).context("cannot take the nics' rules away")
    }
}
