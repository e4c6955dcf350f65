//! Links, addresses, routes and rules, by netlink alone.
