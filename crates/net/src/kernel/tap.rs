//! TAPs: links whose other end is a file descriptor, which a VMM holds.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use stead_model::name::LinkName;

use super::sys;

/// A descriptor of `/dev/net/tun` belongs to the network namespace in which it was opened, whoever uses it.
pub const TUN_DEVICE: &str = "/dev/net/tun";

/// Ethernet frames (not IP packets), without the 4 bytes before each, with the header that lets a guest
/// leave checksums and segmentation to us.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Who may attach to a TAP without `CAP_NET_ADMIN`: the VMM's user, or group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapOwner {
    /// This user.
    pub user: Option<u32>,
    /// Members of this group.
    pub group: Option<u32>,
}

/// Opens [`TUN_DEVICE`] in the current network namespace.
pub fn open_tun() -> Result<OwnedFd> {
    rustix::fs::open(Path::new(TUN_DEVICE), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open `{TUN_DEVICE}`"))
}

/// Makes a TAP that stays when `tun`, which must be newly opened, is closed.
pub fn create(tun: &OwnedFd, name: &LinkName, owner: TapOwner) -> Result<()> {
    make(tun, name, owner)?;
    keep(tun)
}

/// Makes a TAP that is gone with `tun`, which must be newly opened, until it is told to stay: time to mark it.
pub fn make(tun: &OwnedFd, name: &LinkName, owner: TapOwner) -> Result<()> {
    attach(tun, name)?;
    if let Some(user) = owner.user {
        sys::tun_owner(tun.as_fd(), user)
            .with_context(|| format!("cannot give tap `{name}` to user {user}"))?;
    }
    if let Some(group) = owner.group {
        sys::tun_group(tun.as_fd(), group)
            .with_context(|| format!("cannot give tap `{name}` to group {group}"))?;
    }
    Ok(())
}

/// Has the TAP that `tun` is attached to stay when `tun` is closed.
pub fn keep(tun: &OwnedFd) -> Result<()> {
    sys::tun_persist(tun.as_fd(), true).context("cannot keep a tap")
}

/// Binds `tun`, which must be newly opened, to the TAP of this name: frames now pass by this descriptor. A
/// TAP that does not exist is made, and is gone with its descriptor.
pub fn attach(tun: &OwnedFd, name: &LinkName) -> Result<()> {
    let mut request = sys::InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        flags: libc::c_short::try_from(FLAGS).context("TAP flags do not fit")?,
        rest: [0; 22],
    };
    // A link's name is at most 15 bytes, so the last byte stays NUL.
    request.name.iter_mut().zip(name.as_str().bytes()).for_each(|(to, from)| *to = from);
    sys::tun_attach(tun.as_fd(), request).with_context(|| format!("cannot attach to tap `{name}`"))
}

/// Lets the TAP that `tun` is attached to go when its last descriptor does.
pub fn release(tun: &OwnedFd) -> Result<()> {
    sys::tun_persist(tun.as_fd(), false).context("cannot let a tap go")
}
