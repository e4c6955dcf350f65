//! Layers unpacked and packed for real. Most of it takes root, of a user namespace at least: run it by `cargo xtask test`,
//! as root, or under `unshare -Ur`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "unpack/hostile.rs"]
mod hostile;
#[path = "unpack/kinds.rs"]
mod kinds;
#[path = "unpack/pack.rs"]
mod pack;
#[path = "unpack/peers.rs"]
mod peers;
#[path = "unpack/reflinks.rs"]
mod reflinks;
#[path = "unpack/rootless.rs"]
mod rootless;
#[path = "unpack/support.rs"]
mod support;
#[path = "../../cli/tests/support/untested.rs"]
mod untested;
#[path = "unpack/whiteouts.rs"]
mod whiteouts;
