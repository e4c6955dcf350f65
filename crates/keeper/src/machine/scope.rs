//! The scope of a machine: an ordinary user's has a cgroup of its own from the user's systemd, if that gives one. So it can
//! be limited and held still, and goes on when the session ends in which it was started.

use anyhow::{Context, Result};

use stead_container::{CODE_OURS, Failure};
use stead_host::autostart::unit_name;
use stead_host::home::{Environment, Home};
use stead_model::container::Launch;
use stead_model::name::MachineId;

/// Whether there is one, or why not.
pub(super) struct Scope(Result<()>);

/// Moves this process, which looks after a machine and has no children yet, into the machine's scope.
pub(super) fn enter(home: &Home, id: &MachineId) -> Scope {
    let name = format!("{}-{}", id.project, id.name);
    let before = unit_name(&Environment::observe(), home);
    let entered = stead_container::enter_scope(&name, &format!("stead: machine {id}"), &before);
    Scope(entered.context("systemd gives it no control group"))
}

impl Scope {
    /// Says so where a machine could not be started, which may be for want of it.
    pub(super) fn explain(self, failure: Failure, launch: &Launch) -> Failure {
        match self.0 {
            Err(why)
                if failure.code == CODE_OURS
                    && !rustix::process::geteuid().is_root()
                    && stead_container::is_limited(&launch.limits) =>
            {
                Failure { text: format!("{}; {why:#}", failure.text), ..failure }
            }
            Ok(()) | Err(_) => failure,
        }
    }
}
