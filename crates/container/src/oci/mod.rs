//! Containers of OCI bundles, as the runtime specification has them: what `config.json` says is what is made, with
//! nothing of our own added, and what cannot be honoured is refused before anything is made.
//!
//! ```text
//! config.json ─parse─▶ Config ─check─▶ Plan ─create─▶ a first process that waits ─start─▶ the program
//! ```

mod cgroup;
mod check;
mod config;
mod create;
mod devices;
mod exec;
mod features;
mod hooks;
mod inside;
mod mounts;
mod namespaces;
mod place;
mod process;
mod program;
mod settings;
mod state;
mod verbs;

pub use check::Refused;
pub use create::{CreateRequest, First, create};
pub use exec::{ExecRequest, Executed, exec};
pub use features::features;
pub use state::{State, Status};
pub use verbs::{default_root, delete, freeze, kill, list, processes, start, state};
