//! The long-lived processes.

pub mod forward;
pub mod machine;
mod sockets;
pub mod switchboard;
pub mod watcher;
