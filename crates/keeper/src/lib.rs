//! The long-lived processes.

pub mod switchboard;
