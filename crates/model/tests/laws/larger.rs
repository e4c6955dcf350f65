//! Random larger projects.
