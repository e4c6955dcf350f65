//! All files of an image as one archive: the other way round of [`crate::Import`].

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, Result};
use stead_model::image::Image;

use crate::Store;
use crate::store::remove_tree;
use crate::unpack::{Form, UnpackOptions, XattrSpace, flatten, pack_tree};

impl Store {
    /// Writes what machines of an image see as its files, of layers that were unpacked with these options. Run it as root,
    /// or mapped to root.
    pub fn export(&self, image: &Image, options: &UnpackOptions, to: impl Write) -> Result<()> {
        // So that nobody takes away what is not whole meanwhile.
        let _adding = self.adding()?;
        let whole = self.root().join("unpacking").join(format!("export-{}", std::process::id()));
        let space = match options.form {
            Form::Overlay { space, .. } => space,
            Form::Flat => XattrSpace::Trusted,
        };
        // Of a process of this number that was killed.
        remove_tree(&whole)?;
        let make = |path, mode| DirBuilder::new().mode(mode).create(path);
        let tree = whole.join("tree");
        let laid = make(&whole, 0o700).and_then(|()| make(&tree, 0o755));
        let written = laid
            .with_context(|| format!("cannot make {}", tree.display()))
            .and_then(|()| flatten(&self.layer_paths(image), space, &tree, options.owners))
            .and_then(|_| pack_tree(&tree, to));
        let removed = remove_tree(&whole);
        written.and(removed)
    }
}
