//! The program, to be put into guests.

/// The program for guests of this program's own architecture: a static executable, to be `/init` of an initramfs.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stead-agent"));

/// What tells it from others that were built.
pub static PROGRAM_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/stead-agent.digest"));
