//! The protocol that the program inside guests and the keeper of a machine speak, and the keeper's end of it.
//!
//! ```text
//! keeper: Session ─ Mux ─ frames ══ one stream of bytes ══ frames ─ Mux ─ stead-agent: PID 1 of the guest
//! ```
//!
//! Nothing here waits, reads or writes: bytes that came are handed in, bytes to be sent are taken out. The stream may be
//! a virtio-serial port, a vsock or a unix socket. Neither end trusts the other one: what is malformed is dropped,
//! and memory has a limit whatever the peer sends.

mod frame;
pub mod message;
pub mod mux;
#[cfg(feature = "embed")]
mod program;
mod session;

#[cfg(feature = "embed")]
pub use program::{PROGRAM, PROGRAM_DIGEST};
pub use session::{AskError, Call, Happening, Session};

/// The name of the virtio-serial port that the program looks for.
pub const PORT_NAME: &str = "stead.agent";

/// The vsock port on which the program listens where there is no such virtio-serial port.
pub const VSOCK_PORT: u32 = 7313;

/// Where the program mounts the file systems that it is told to, each in a directory with its name.
pub const MOUNTS: &str = "/run/stead/mounts";
