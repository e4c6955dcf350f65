//! What stands on the wire: links, addresses and rules by netlink; DHCP, DNS and router advertisements;
//! port forwards.

pub mod forward;
pub mod kernel;
pub mod serve;
pub mod unix;
