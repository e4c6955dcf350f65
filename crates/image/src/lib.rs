//! Images: registries, the store of what was pulled, and layers unpacked into directories.
