//! What the kernel draws random numbers from.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::sys::last_error;

/// The most that is given to the kernel's random numbers at once.
pub(crate) const ENTROPY_BYTES: usize = 64;

/// Adds to what the kernel draws random numbers from (`RNDADDENTROPY`), and has it count every bit.
pub(crate) fn add_entropy(file: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<()> {
    #[repr(C)]
    struct Pool {
        bits: i32,
        length: i32,
        bytes: [u8; ENTROPY_BYTES],
    }
    const RNDADDENTROPY: u32 = 0x4008_5203;
    let mut pool = Pool { bits: 0, length: 0, bytes: [0; ENTROPY_BYTES] };
    pool.bytes.get_mut(..bytes.len()).ok_or(Errno::TOOBIG)?.copy_from_slice(bytes);
    pool.length = i32::try_from(bytes.len()).map_err(|_| Errno::TOOBIG)?;
    pool.bits = pool.length * 8;
    // SAFETY: `Pool` is the kernel's `rand_pool_info`, with at least as many bytes as its length says; it lives, and is
    // only read.
    let done = unsafe { libc::syscall(libc::SYS_ioctl, file.as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Has the kernel draw random numbers from all that was added so far (`RNDRESEEDCRNG`).
pub(crate) fn reseed(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    const RNDRESEEDCRNG: u32 = 0x5207;
    // SAFETY: a descriptor that lives and a request that has no argument.
    let done = unsafe { libc::syscall(libc::SYS_ioctl, file.as_raw_fd(), RNDRESEEDCRNG, 0) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}
