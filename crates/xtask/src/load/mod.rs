//! Load for the benchmarks: what many machines would ask of the switchboard.

pub(crate) mod dhcp;
pub(crate) mod dns;

pub(crate) use dns::Load;
