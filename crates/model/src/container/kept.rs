//! What a keeper does for its machine beside running it: how much of its words it keeps, and how fast it starts it again.

use serde::{Deserialize, Serialize};

/// A file of a log that has grown so large is set aside, where nothing is said.
pub const LOG_FILE_BYTES: u64 = 10 << 20;

/// So many files of a log are kept, with the one that is written, where nothing is said.
pub const LOG_FILES: u32 = 3;

/// How much is kept of what a container writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// How large a file of it may become; [`LOG_FILE_BYTES`] where absent.
    pub file_bytes: Option<u64>,
    /// How many files there are; [`LOG_FILES`] where absent.
    pub files: Option<u32>,
}

/// How fast a container is started again, where its policy says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// What is waited before each start anew. Where absent the waits are short at first and become longer.
    pub delay_ms: Option<u64>,
    /// A container that ran for so long has recovered: its next failure is counted as the first. Where absent a limit of
    /// starts anew holds for ever.
    pub window_ms: Option<u64>,
}
