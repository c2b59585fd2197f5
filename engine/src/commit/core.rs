//! The state that everything in an open engine shares.
//!
//! # Lock order
//!
//! A thread that holds one of these locks may take only those after it:
//!
//! 1. the committer ([`crate::commit::group_commit`])
//! 2. the commit queue
//! 3. the segment accounting, or the names of blobs
//! 4. a bucket of the table
//! 5. one of: the queues of the document cache, the pins, the lists of obsolete files, the
//!    state of the catalogue, a wakeup. Nothing is taken while one of these is held.
//!
//! The turns to compact and to remove files ([`CompactionTurn`], [`PurgeTurn`], in this
//! order) are not locks: they guard no data, and are taken before any lock. Files are removed
//! while no lock is held, with one exception: the commit leader removes the reserve, whose
//! space it needs, and segment files that it failed to begin or has not used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::catalogue::Catalogue;
use crate::commit::counters::EngineCounters;
use crate::commit::queue::CommitQueue;
use crate::commit::writer::WriteContext;
use crate::index::accounting::SegmentAccounting;
use crate::index::cache::DocumentCache;
use crate::index::table::Table;
use crate::model::config::Durability;
use crate::model::damage::Damage;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::platform::semaphore::{Semaphore, SemaphorePermit};
use crate::platform::wakeup::Wakeup;
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::reader::FrameReader;
use crate::storage::pins::PinRegistry;

/// What namespaces, the committer, the compaction thread and engine handles share.
///
/// Functions take only the parts that they use.
pub(crate) struct Core {
    pub(crate) directory: LogDirectory,
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    /// Whether the reserve is in place. If not, the disk is full.
    pub(crate) has_reserve: AtomicBool,
    pub(crate) table: Arc<Table>,
    pub(crate) accounting: SegmentAccounting,
    pub(crate) reader: FrameReader,
    pub(crate) queue: CommitQueue,
    /// Wakes the compaction thread.
    pub(crate) compaction_wakeup: Arc<Wakeup>,
    pub(crate) pins: Arc<PinRegistry>,
    pub(crate) counters: EngineCounters,
    pub(crate) catalogue: Catalogue,
    pub(crate) write_context: Arc<WriteContext>,
    pub(crate) cache: DocumentCache,
    /// What recovery found damaged.
    pub(crate) damage: Vec<Damage>,
    pub(crate) state: CoreState,
}

/// What changes while an engine is open, other than its documents.
pub(crate) struct CoreState {
    compaction: Semaphore,
    purge: Semaphore,
    /// Segments that were taken out of the log and whose files still exist.
    obsolete_segments: Mutex<Vec<SegmentId>>,
    poison: OnceLock<Error>,
    is_closed: AtomicBool,
}

impl Default for CoreState {
    fn default() -> Self {
        Self {
            compaction: Semaphore::new(1),
            purge: Semaphore::new(1),
            obsolete_segments: Mutex::default(),
            poison: OnceLock::new(),
            is_closed: AtomicBool::new(false),
        }
    }
}

/// Proof that nobody else compacts.
pub(crate) struct CompactionTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

/// Proof that nobody else removes obsolete files.
pub(crate) struct PurgeTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

impl Core {
    /// Blocks until nobody else compacts.
    pub(crate) fn turn_to_compact(&self) -> CompactionTurn<'_> {
        CompactionTurn(self.state.compaction.acquire())
    }

    /// Blocks until nobody else removes obsolete files.
    pub(crate) fn turn_to_purge(&self) -> PurgeTurn<'_> {
        PurgeTurn(self.state.purge.acquire())
    }

    pub(crate) fn obsolete_segments(&self) -> MutexGuard<'_, Vec<SegmentId>> {
        self.state
            .obsolete_segments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses reads from here on, and ends all snapshots.
    pub(crate) fn close(&self) {
        self.pins.close();
        self.state.is_closed.store(true, Ordering::Release);
    }

    /// # Errors
    /// [`Error::Closed`] after [`Self::close`].
    pub(crate) fn refuse_closed(&self) -> Result<()> {
        if self.state.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Why writing has stopped, if it has.
    pub(crate) fn poison(&self) -> Option<Error> {
        self.state.poison.get().cloned()
    }

    /// Stops writing. Only the first error is kept, because it causes the later ones.
    pub(crate) fn set_poison(&self, error: Error) {
        self.state.poison.get_or_init(|| error);
    }

    /// Refuses a listing if a frame was lost whose namespace is unknown: the listing could
    /// be incomplete.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Corrupt`].
    pub(crate) fn refuse_partial(&self) -> Result<()> {
        self.refuse_closed()?;
        self.table.loss().map_or(Ok(()), |lost| {
            Err(self.directory.unreadable_frame(lost.segment, lost.offset))
        })
    }
}
