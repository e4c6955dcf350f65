//! What is wanted, what exists, and the plan between them. Pure: no input or output, no clock, no
//! randomness, no async.
#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod address;
pub mod autostart;
pub mod capability;
pub mod container;
pub mod dev;
mod difference;
pub mod external;
pub mod file;
pub mod image;
pub mod lock;
pub mod name;
pub mod observed;
pub mod one_off;
pub mod plan;
pub mod pretend;
pub mod project;
pub mod provision;
pub mod resolve;
pub mod select;
pub mod served;
mod sharing;
pub mod step;
pub mod vm;
