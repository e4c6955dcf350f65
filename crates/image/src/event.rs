//! What is told while images are moved: for whoever shows progress. Nothing here prints.

use std::time::Duration;

use stead_model::image::Digest;

use crate::unpack::Skips;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is known which contents an image has.
    Resolved {
        /// The digest of its manifest.
        image: Digest,
        /// Its layers as they are stored.
        layers: Vec<LayerState>,
    },
    /// Another process receives this content, we wait for it.
    Waiting {
        /// Which.
        blob: Digest,
    },
    /// So much of a content has been moved.
    Progress {
        /// Which.
        blob: Digest,
        /// So far.
        done_bytes: u64,
        /// In the end.
        total_bytes: u64,
    },
    /// A content is where it belongs.
    Done {
        /// Which.
        blob: Digest,
    },
    /// Something went wrong, and is tried again.
    Retry {
        /// What was done, and why it failed.
        why: String,
        /// How long we wait before.
        after: Duration,
    },
    /// A source has no such image, or cannot be asked; the next one is.
    Passed {
        /// Which.
        from: String,
        /// And why.
        why: String,
    },
    /// An image is being built by a program, which says this.
    Building {
        /// A line.
        line: String,
    },
    /// A layer is being unpacked.
    Unpacking {
        /// Which, by the digest of its archive.
        layer: Digest,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Which, by the digest of its archive.
        layer: Digest,
        /// What of it could not be made here.
        skips: Skips,
    },
}

/// A layer that is about to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerState {
    /// Its digest as it is stored.
    pub blob: Digest,
    /// Its size as it is stored.
    pub size_bytes: u64,
    /// Whether it is there already.
    pub present: bool,
}
