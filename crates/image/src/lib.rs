//! Images: registries, the store of what was pulled, and layers unpacked into directories.

mod archive;
pub mod catalogue;
pub mod choose;
mod debian;
pub mod disk;
mod event;
mod export;
mod import;
mod kernel;
pub mod manifest;
mod obtain;
pub mod parallel;
mod publish;
mod reflink;
pub mod registry;
pub mod room;
mod root;
mod store;
pub mod unpack;

pub use archive::{Chosen, Load};
pub use debian::DebianSettings;
pub use event::{Event, LayerState};
pub use import::Import;
pub use kernel::{Kernel, KernelStore, Pulled, SHARING_MODULE};
pub use obtain::{Fetch, Origins, Wanted};
pub use publish::Publish;
pub use registry::Client;
pub use store::{Before, Details, HistoryEntry, Pruned, Removal, Sizes, Store, Which, digest_of};
