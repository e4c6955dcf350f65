//! The long-lived processes.

pub mod machine;
mod revival;
pub mod switchboard;
pub mod watcher;
