//! Pins: what live snapshots keep on the disk. A segment or a blob that is out of the
//! store already stays a file for as long as one of them holds it.
//!
//! It knows ids, and nothing of what is in the files. Pins are made by who commits, before
//! anything that they hold can leave the store, so that a sweep cannot come in between;
//! and a process that ends takes them along: what they held is in nobody's list then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::platform::wakeup::Wakeup;

#[derive(Default)]
pub(crate) struct PinRegistry {
    state: Mutex<PinState>,
    /// Rung when one has gone.
    bell: Arc<Wakeup>,
}

#[derive(Default)]
struct PinState {
    next: u64,
    live: BTreeMap<u64, PinnedFiles>,
    is_closed: bool,
}

/// Ids in their order.
struct PinnedFiles {
    segments: Vec<SegmentId>,
    blobs: Vec<BlobId>,
}

/// What one snapshot holds, until it is dropped.
pub(crate) struct Pin {
    pins: Arc<PinRegistry>,
    id: u64,
}

impl PinRegistry {
    pub(crate) fn new(bell: Arc<Wakeup>) -> Self {
        Self {
            state: Mutex::default(),
            bell,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PinState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds these files, both in the order of their ids.
    pub(crate) fn pin(self: &Arc<Self>, segments: Vec<SegmentId>, blobs: Vec<BlobId>) -> Pin {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.live.insert(id, PinnedFiles { segments, blobs });
        drop(state);
        Pin {
            pins: Arc::clone(self),
            id,
        }
    }

    fn is_held(&self, holds: impl Fn(&PinnedFiles) -> bool) -> bool {
        let state = self.lock();
        !state.is_closed && state.live.values().any(holds)
    }

    pub(crate) fn holds_segment(&self, id: SegmentId) -> bool {
        self.is_held(|held| held.segments.binary_search(&id).is_ok())
    }

    pub(crate) fn holds_blob(&self, id: BlobId) -> bool {
        self.is_held(|held| held.blobs.binary_search(&id).is_ok())
    }

    /// Nothing is held from now on: another engine may open the directory.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }
}

impl Pin {
    /// Whether the files are still held.
    ///
    /// # Errors
    /// [`Error::Closed`] once the engine is.
    pub(crate) fn check(&self) -> Result<()> {
        if self.pins.lock().is_closed {
            return Err(Error::Closed);
        }
        Ok(())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.lock().live.remove(&self.id);
        self.pins.bell.notify();
    }
}
