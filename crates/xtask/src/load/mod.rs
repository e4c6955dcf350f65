//! Load for the benchmarks: what many machines would ask of the switchboard.

pub mod dhcp;
pub mod dns;
