//! Prevents the removal of segment files while a reader iterates over all segments.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Allows any number of concurrent readers, or any number of concurrent removals, but never both at
/// the same time. The mutex is not held while files are read or removed.
#[derive(Default)]
pub(super) struct RemovalGate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    readers: usize,
    removals: usize,
}

/// The guard that a reader holds. No file is removed while a `FilesGuard` exists.
pub(crate) struct FilesGuard<'a>(&'a RemovalGate);

/// The guard that is held while files are removed. No reader starts while a `RemovalGuard` exists.
pub(super) struct RemovalGuard<'a>(&'a RemovalGate);

impl RemovalGate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&GateState) -> bool) -> MutexGuard<'_, GateState> {
        self.changed
            .wait_while(self.lock(), |state| condition(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a reader. Blocks until no file is being removed.
    pub(super) fn add_reader(&self) -> FilesGuard<'_> {
        self.wait_while(|state| state.removals > 0).readers += 1;
        FilesGuard(self)
    }

    /// Registers a removal. Returns `None` if a reader exists. Never blocks.
    pub(super) fn try_remove(&self) -> Option<RemovalGuard<'_>> {
        let mut state = self.lock();
        if state.readers > 0 {
            return None;
        }
        state.removals += 1;
        Some(RemovalGuard(self))
    }

    /// Blocks until no reader exists.
    pub(super) fn wait_for_readers(&self) {
        drop(self.wait_while(|state| state.readers > 0));
    }
}

impl Drop for FilesGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for RemovalGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().removals -= 1;
        self.0.changed.notify_all();
    }
}
