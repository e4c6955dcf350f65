//! DHCPv4, DHCPv6, router advertisements and DNS.
