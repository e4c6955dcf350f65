//! What stands on the wire: links, addresses and rules by netlink; DHCP, DNS and router advertisements;
//! port forwards.

pub mod anchor;
pub mod facts;
pub mod forward;
pub mod kernel;
pub mod process;
pub mod serve;
mod sys;
pub mod unix;
pub mod uplink;
