//! A flag that threads look at to end: it is raised however the test ends.

use std::sync::atomic::{AtomicBool, Ordering};

/// Raises the flag when it is dropped, by a panic too.
pub struct RaisedAtEnd<'a>(pub &'a AtomicBool);

impl Drop for RaisedAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
