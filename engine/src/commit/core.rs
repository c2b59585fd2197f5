//! The state that everything in an open engine shares.
//!
//! # Lock order
//!
//! A thread that holds one of these locks may take only those after it:
//!
//! 1. the compaction turn ([`Core::turn_to_compact`])
//! 2. the purge turn ([`Core::turn_to_purge`])
//! 3. the committer ([`crate::commit::group_commit`])
//! 4. the commit queue
//! 5. the segment accounting, or the blob names
//! 6. a bucket of the table
//! 7. the queues of the document cache, the pins, the lists of obsolete files, the
//!    catalogue's state, and the wakeup: nothing is taken while one of these is held

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
#[derive(Default)]
pub(crate) struct CoreState {
    compacting: Mutex<()>,
    purging: Mutex<()>,
    /// Segments that were taken out of the log and whose files are still there.
    obsolete_segments: Mutex<Vec<SegmentId>>,
    poison: OnceLock<Error>,
    is_closed: AtomicBool,
}

/// Proof that the caller is the only one that compacts.
pub(crate) struct CompactionTurn<'a>(#[allow(dead_code, reason = "held")] MutexGuard<'a, ()>);

/// Proof that the caller is the only one that removes obsolete files.
pub(crate) struct PurgeTurn<'a>(#[allow(dead_code, reason = "held")] MutexGuard<'a, ()>);

impl Core {
    /// Blocks until nobody else compacts.
    pub(crate) fn turn_to_compact(&self) -> CompactionTurn<'_> {
        let turn = self.state.compacting.lock();
        CompactionTurn(turn.unwrap_or_else(PoisonError::into_inner))
    }

    /// Blocks until nobody else removes obsolete files.
    pub(crate) fn turn_to_purge(&self) -> PurgeTurn<'_> {
        let turn = self.state.purging.lock();
        PurgeTurn(turn.unwrap_or_else(PoisonError::into_inner))
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
