//! Images for real: against Debian's registry and skopeo, and against a server that misbehaves. All on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, missing_docs, unreachable_pub)]

mod account;
mod archive;
mod kill;
mod pull;
mod push;
mod store;
mod support;
mod tls;
