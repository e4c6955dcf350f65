//! Containers: namespaces, cgroups, mounts, and the processes started in them.
