//! The file systems of a container. They are made first, attached to nothing, while this computer's are still to be
//! seen; then the container's root becomes ours, and each is attached at its place in it. So every path that an image
//! or a user says is looked up where it can lead nowhere else.

pub(crate) mod attach;
pub(crate) mod confined;
pub(crate) mod device;
pub(crate) mod here;
pub(crate) mod plan;
pub(crate) mod prepare;
pub(crate) mod root;
