//! Telling what is being worked on if it takes longer than a person likes to look at nothing.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::output::note;

/// Half a second is where waiting begins to feel like hanging.
pub(crate) const TELL_AFTER: Duration = Duration::from_millis(500);

/// For as long as this is there something is being worked on.
#[must_use = "it is told of what is worked on while this is there"]
pub(crate) struct Working {
    /// Dropped when the work is done, which wakes the thread.
    _done: mpsc::Sender<()>,
}

impl Working {
    /// Begins something that is called so: `deleting what was kept`. What is told is a plain line, on a terminal as well:
    /// it stays where it belongs among those about what was done.
    pub(crate) fn on(what: impl Into<String>) -> Self {
        let what = what.into();
        Self::telling(move || note(&format!("working on {what}")))
    }

    fn telling(tell: impl FnOnce() + Send + 'static) -> Self {
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if is_done.recv_timeout(TELL_AFTER) == Err(RecvTimeoutError::Timeout) {
                tell();
            }
        });
        Self { _done: done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_long_is_told() {
        let (sender, told) = mpsc::channel();
        let quick = Working::telling({
            let sender = sender.clone();
            move || sender.send("quick").unwrap()
        });
        drop(quick);
        let _long = Working::telling(move || sender.send("long").unwrap());
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("long"));
        // The quick one's thread has let go of its sender, or would have been first.
        assert!(told.recv_timeout(Duration::from_secs(20)).is_err());
    }
}
