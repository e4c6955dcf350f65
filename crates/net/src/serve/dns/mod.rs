//! DNS: the names of machines from what is configured, all else from the computer's own resolvers.

pub mod zone;
