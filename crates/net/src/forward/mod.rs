//! Published ports: streams and datagrams carried from the host to a machine.
