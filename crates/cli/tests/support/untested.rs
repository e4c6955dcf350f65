//! What a test says that cannot run here.

use std::io::Write;

/// Says that this test shows nothing here, and why; `cargo xtask test` then counts it as skipped.
///
/// Written past the test runner, which keeps to itself what tests print that do not fail.
pub(crate) fn untested(why: &str) {
    let _ = writeln!(std::io::stdout(), "NOT TESTED HERE: {why}");
}
