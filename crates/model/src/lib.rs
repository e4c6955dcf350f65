//! What is wanted, what exists, and the plan between them. Pure: no input or output, no clock, no
//! randomness, no async.
#![forbid(unsafe_code)]

pub mod address;
pub mod file;
pub mod name;
pub mod project;
pub mod served;
