//! Virtual machine monitors: their command lines as values, the jail they run in, what a guest boots from, and
//! whether this computer's processor can run guests itself.

mod accel;
mod computer;
mod initramfs;
mod iso;
mod jail;
mod program;
mod qemu;
mod qmp;
mod seed;
mod share;
mod sys;

pub use accel::{Accelerator, Chosen, choose};
pub use computer::{Computer, computer_args};
pub use initramfs::{Entry, initramfs};
pub use jail::{Jail, enter};
pub use program::{UEFI, missing_program, program, uefi_files};
pub use qemu::{Begins, Disk, Nic, SHARE_TAG, Vm, qemu_args};
pub use qmp::{Nonsense, Order, Qmp, Reason, Ticket, Told};
pub use seed::{SEED, Seed, SeedAddresses, SeedNic, seed};
pub use share::{VIRTIOFSD, leave_mounts, serve, virtiofsd};

/// The program that runs guests of this computer's architecture.
pub const QEMU: &str = "qemu-system-x86_64";
