//! What is said beside a file, and goes over it.

use super::leaf;

/// How many there are to be of a machine; or what is wrong with the text, and what to do.
pub fn replicas(text: &str) -> Result<u16, (String, String)> {
    leaf::replicas(text).map_err(|wrong| (wrong.message, wrong.hint))
}
