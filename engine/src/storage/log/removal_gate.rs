//! Keeps the files of segments in place while somebody reads through all of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Readers of all files on one side, removals of files on the other. No lock is held while
/// files are read or removed.
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

/// No file is removed while this lives.
pub(crate) struct FilesHeld<'a>(&'a RemovalGate);

/// No reader begins while this lives.
pub(super) struct Removal<'a>(&'a RemovalGate);

impl RemovalGate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&GateState) -> bool) -> MutexGuard<'_, GateState> {
        self.changed
            .wait_while(self.lock(), |state| condition(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until no file is being removed.
    pub(super) fn hold(&self) -> FilesHeld<'_> {
        self.wait_while(|state| state.removals > 0).readers += 1;
        FilesHeld(self)
    }

    /// `None` if the files are held. Never blocks.
    pub(super) fn try_remove(&self) -> Option<Removal<'_>> {
        let mut state = self.lock();
        if state.readers > 0 {
            return None;
        }
        state.removals += 1;
        Some(Removal(self))
    }

    /// Blocks until nobody holds the files.
    pub(super) fn wait_for_readers(&self) {
        drop(self.wait_while(|state| state.readers > 0));
    }
}

impl Drop for FilesHeld<'_> {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.0.lock().removals -= 1;
        self.0.changed.notify_all();
    }
}
