//! The random numbers of a computer's kernel.

mod sys;

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result};

/// What the kernel takes at once.
const PART_BYTES: usize = sys::ENTROPY_BYTES;

/// Gives the kernel what nobody else knows, and has it draw random numbers from that at once. Those that it drew before stay
/// drawn. For root of the computer.
pub fn stir(bytes: &[u8]) -> Result<()> {
    let doing = || "cannot give the kernel random numbers";
    let device = File::options().read(true).write(true).open("/dev/urandom").with_context(doing)?;
    for part in bytes.chunks(PART_BYTES) {
        sys::add_entropy(device.as_fd(), part).with_context(doing)?;
    }
    sys::reseed(device.as_fd()).with_context(doing)
}
