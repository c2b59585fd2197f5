//! Pins protect the files that live snapshots need. When a segment or blob is removed from the
//! store, its files stay on the disk until they are no longer pinned.
//!
//! This module handles only the ids of segments and blobs, and does not access their files.
//!
//! The commit leader creates a pin at the snapshot point, between two commits. Only the commit
//! leader can make a file of the snapshot obsolete, so no purge can remove such a file before it is
//! pinned. Pins exist only in memory. If the process crashes, the next open removes the files that
//! only a pin has kept, because neither the manifest nor a current frame refers to these files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::platform::wakeup::Wakeup;

/// All pins of an open store.
#[derive(Default)]
pub(crate) struct PinRegistry {
    state: Mutex<PinState>,
    /// When a pin is dropped, this signal wakes the thread that removes files.
    wakeup: Arc<Wakeup>,
}

#[derive(Default)]
struct PinState {
    next_id: u64,
    live: BTreeMap<u64, PinnedFiles>,
    is_closed: bool,
}

/// The files of one pin. Each list is sorted by id.
struct PinnedFiles {
    segments: Vec<SegmentId>,
    blobs: Vec<BlobId>,
}

/// Keeps the files of one snapshot on the disk. Dropping a `Pin` ends the protection.
pub(crate) struct Pin {
    registry: Arc<PinRegistry>,
    id: u64,
}

impl PinRegistry {
    pub(crate) fn new(wakeup: Arc<Wakeup>) -> Self {
        Self {
            state: Mutex::default(),
            wakeup,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PinState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins the files of these segments and blobs. Both lists must be sorted by id.
    pub(crate) fn pin(self: &Arc<Self>, segments: Vec<SegmentId>, blobs: Vec<BlobId>) -> Pin {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.live.insert(id, PinnedFiles { segments, blobs });
        drop(state);
        Pin {
            registry: Arc::clone(self),
            id,
        }
    }

    fn any_pin(&self, has_file: impl Fn(&PinnedFiles) -> bool) -> bool {
        let state = self.lock();
        !state.is_closed && state.live.values().any(has_file)
    }

    /// Returns true if a live snapshot needs the files of this segment.
    pub(crate) fn is_segment_pinned(&self, id: SegmentId) -> bool {
        self.any_pin(|files| files.segments.binary_search(&id).is_ok())
    }

    /// Returns true if a live snapshot needs this blob.
    pub(crate) fn is_blob_pinned(&self, id: BlobId) -> bool {
        self.any_pin(|files| files.blobs.binary_search(&id).is_ok())
    }

    /// Makes all pins ineffective when the engine is closed, because another engine may then open
    /// the directory.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }
}

impl Pin {
    /// Checks that the files are still pinned.
    ///
    /// # Errors
    /// [`Error::Closed`] if the engine was closed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.registry.lock().is_closed {
            return Err(Error::Closed);
        }
        Ok(())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.registry.lock().live.remove(&self.id);
        self.registry.wakeup.notify();
    }
}
