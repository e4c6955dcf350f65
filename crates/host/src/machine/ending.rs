//! How machines are ended, how they ended, and what that says of whether they are to run when the computer has started.

use serde::{Deserialize, Serialize};

use stead_model::autostart::Past;

use super::Files;

/// How a machine is ended for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The time of grace, if it is another than its own.
    pub grace_ms: Option<u64>,
    /// Whether that is only because the computer goes off: nobody wants it to stay ended.
    #[serde(default)]
    pub with_computer: bool,
}

/// How a machine ended, in a file of its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; 128 and the signal where one ended it.
    pub code: u8,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it had been started.
    pub started_ms: u64,
    /// Whether somebody told it to end.
    pub asked: bool,
    /// Whether that was only because the computer went off.
    #[serde(default)]
    pub with_computer: bool,
    /// Whether it had no memory left.
    pub out_of_memory: bool,
    /// How often its keeper had started it again.
    #[serde(default)]
    pub restarts: u32,
    /// Whether that is all that is known: its keeper did not live to see the end.
    #[serde(default)]
    pub lost: bool,
    /// Why it could not be started, or ended without a word of its own, if that was so.
    pub why: Option<String>,
}

impl Files {
    /// What is known of its last run, for whether it is started with the computer.
    pub fn past(&self) -> Past {
        match self.load_exit() {
            _ if !self.assignment().exists() => Past::New,
            // It may have ended before anybody wanted it to stay so.
            _ if self.stopping().exists() => Past::Stopped,
            Some(exit) if exit.asked && !exit.with_computer => Past::Stopped,
            Some(_) | None => Past::Ran,
        }
    }

    /// How the machine ended; nothing if it never did.
    pub fn load_exit(&self) -> Option<Exit> {
        serde_json::from_slice(&std::fs::read(self.exit()).ok()?).ok()
    }
}
