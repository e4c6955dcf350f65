//! What is known of a project without reading its files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::name::Name;

/// Where a project's files are, and what of them is needed when they are not read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ProjectFiles {
    /// The directory of the first one.
    pub directory: PathBuf,
    /// Those that somebody named, each over those before; none where they are what is looked for in the directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<PathBuf>,
    /// What its machines depend on, where they do: who does so ends first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub order: BTreeMap<Name, BTreeSet<Name>>,
}

impl<P: Into<PathBuf>> From<P> for ProjectFiles {
    /// What is looked for in a directory.
    fn from(directory: P) -> Self {
        Self { directory: directory.into(), named: Vec::new(), order: BTreeMap::new() }
    }
}

impl ProjectFiles {
    /// Whether these are the same files.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        (&self.directory, &self.named) == (&other.directory, &other.named)
    }
}

impl fmt::Display for ProjectFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.directory.display())?;
        let mut before = " by ";
        for file in &self.named {
            let file = file.strip_prefix(&self.directory).unwrap_or(file);
            write!(f, "{before}{}", file.display())?;
            before = ", ";
        }
        Ok(())
    }
}
