//! Images in files: OCI layouts, as directories and archives, and what `docker save` writes.

mod load;
mod save;

pub use load::Load;
pub use save::Chosen;
