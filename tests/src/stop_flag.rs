//! A guard that sets the stop flag of a test's threads, even if the test panics.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag to true when dropped.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
