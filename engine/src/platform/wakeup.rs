//! Waking and stopping a background thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A signal that wakes one background thread when work arrives, or tells the thread to stop.
#[derive(Default)]
pub(crate) struct Wakeup {
    state: Mutex<WakeupState>,
    changed: Condvar,
}

#[derive(Default)]
struct WakeupState {
    is_notified: bool,
    is_closed: bool,
}

impl Wakeup {
    fn lock(&self) -> MutexGuard<'_, WakeupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread. If the thread is not waiting, the next [`Self::wait`] returns immediately.
    pub(crate) fn notify(&self) {
        self.lock().is_notified = true;
        self.changed.notify_all();
    }

    /// Tells the thread to stop. This cannot be undone.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Blocks until [`Self::notify`] or [`Self::close`] is called. If [`Self::notify`] was called
    /// since the last `wait`, returns immediately. Returns false after [`Self::close`].
    pub(crate) fn wait(&self) -> bool {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| !state.is_notified && !state.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_notified = false;
        !state.is_closed
    }

    /// Blocks for `time`, or until [`Self::close`] is called.
    pub(crate) fn sleep(&self, time: Duration) {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), time, |state| !state.is_closed);
        drop(waited);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }
}
