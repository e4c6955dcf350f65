//! This computer: what exists on it, the steps that change it, and what is kept of them.

pub mod apply;
pub mod autostart;
pub mod frame;
pub mod held;
pub mod history;
pub mod home;
pub mod journal;
pub mod linux;
pub mod lock;
pub mod log;
pub mod machine;
pub mod many;
pub mod person;
pub mod state;
pub mod switchboard;
pub mod template;
