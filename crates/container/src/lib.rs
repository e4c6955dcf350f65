//! Containers: namespaces, cgroups, mounts, and the processes started in them.
//!
//! Everything here is for a process with one thread that is root, of this computer or of a user namespace: the two
//! differ in what the kernel allows, not in the code.
//!
//! ```text
//! create ─▶ Created ─start─▶ Started        one process, which the caller waits for
//!    └ make: cgroups, then a child in new namespaces (`inside`) ─▶ mounts, its root, its user ─▶ the program
//! exec   ─▶ another process in the same namespaces
//! remove ─▶ nothing is left but the files
//! ```

mod capability;
mod cgroup;
mod channel;
mod control;
mod copy;
mod create;
mod entropy;
mod exec;
mod here;
mod init;
mod inside;
mod mounts;
pub mod oci;
mod parcel;
mod place;
mod process;
mod quota;
mod renew;
mod scope;
mod seal;
mod seccomp;
mod shares;
mod stamp;
mod standstill;
mod stat;
mod sys;
mod sysctl;
mod systemd;
mod transfer;
mod tree;
mod user;

pub use cgroup::watch::Usage;
pub use cgroup::{LimitRefusal, expect_joins, is_limited, limits_refused};
pub use control::{delete, is_paused, kill, pause, processes, remove, stop_signal, unpause, usage};
pub use copy::{copy_data, copy_layer, link_layer, reflink};
pub use create::{Created, Started, create};
pub use entropy::stir;
pub use exec::{ExecRequest, Executed, Executing, Progress, begin_exec, exec};
pub use here::{HereRequest, exec_here};
pub use mounts::here::mount_here;
pub use mounts::root::{is_mapped_here, overlay_refused};
pub use parcel::{pack, unpack};
pub use place::{CODE_OURS, Failure, Place, Stdio, WindowSize};
pub use quota::{Limited, Unlimitable, limit, limit_refused, limited, release};
pub use renew::renew_layer;
pub use scope::{enter_scope, leave_session, lingers};
pub use seal::{seal, sealed};
pub use seccomp::check as check_seccomp;
pub use shares::{Share, assemble};
pub use standstill::{Standstill, held_places, let_go_on};
pub use sysctl::check as check_sysctl;
pub use transfer::{End, Nothing, Owners, Root, running_root, stopped_root, transfer};
pub use user::ids_refused;
