//! The anchor: one tiny process per home that owns the engine's namespaces and makes sockets inside them.
//!
//! Nobody else ever enters the user namespace. That works because the kernel checks a socket's rights
//! against the user namespace that owns the *socket's* network namespace, and whoever created that user
//! namespace holds every capability over it from outside. Three things depend on the *calling process*
//! instead, so the anchor does them for others: entering a network namespace, opening `/dev/net/tun`, and
//! writing below `/proc/sys/net`.
//!
//! ```text
//! spawn ──▶ isolated (user and network namespace) ──▶ listening ──Quit, SIGTERM, SIGKILL──▶ gone, and with
//!            │ a failure is told to the spawner                      it every namespace that nobody else holds
//! ```

mod client;
mod enter;
mod isolate;
mod mapped;
mod protocol;
mod serve;
mod state;
mod sys;
mod trial;
mod wire;

pub use client::{Client, spawn};
pub use enter::{Entrance, Resolver, enter, join_users};
pub use mapped::{become_root, order, order_as_root, own_mounts, run_as_root, run_as_root_at};
pub use protocol::{Domain, Kind, Label, LabelError, MAX_SOCKETS, SocketKind, SysctlError, SysctlPath};
pub use serve::serve;
pub use trial::{Trial, try_networks};
