//! Images: registries, the store of what was pulled, and layers unpacked into directories.

pub mod choose;
mod event;
pub mod manifest;
mod parallel;
pub mod registry;
mod store;
pub mod unpack;

pub use event::{Event, LayerState};
pub use registry::Client;
pub use store::{
    Details, HistoryEntry, Pruned, Removal, Sizes, Store, Unpack, UnpackedLayer, Which, digest_of,
};
