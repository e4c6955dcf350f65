//! The long-lived processes.

pub mod machine;
pub mod switchboard;
pub mod watcher;
