//! Whole scenarios by the real program, with real clients, each on a computer of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unreachable_pub, missing_docs)]

mod addresses;
mod autostart;
mod builds;
mod calls;
mod changes;
mod chosen;
mod clones;
mod commands;
mod completion;
mod containers;
mod debian;
mod devs;
mod disks;
mod events;
mod external;
mod flags;
mod floods;
mod guard;
mod half;
mod hardships;
mod hostile;
mod images;
mod kills;
mod lent;
mod logins;
mod looks;
mod loose;
mod microvms;
mod modes;
mod names;
mod one_offs;
mod ports;
mod projects;
mod provisions;
mod publishes;
mod quotas;
mod reach;
mod renames;
mod rewired;
mod samples;
mod scopes;
mod several;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod systems;
mod templates;
mod terminals;
mod told;
mod traces;
mod vms;
mod waiting;
mod warm;
