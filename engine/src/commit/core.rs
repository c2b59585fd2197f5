//! The state that all parts of an open engine share.
//!
//! # Lock order
//!
//! A thread that holds one of these locks may acquire only locks that come later in this
//! list:
//!
//! 1. the committer ([`crate::commit::group_commit`])
//! 2. the commit queue
//! 3. the segment accounting, or the map from namespaces to their blobs
//! 4. a bucket of the table
//! 5. the queues of the document cache, the pins, the lists of obsolete files, the state of the
//!    catalogue, or a wakeup. A thread that holds a lock of group 5 acquires no other lock.
//!
//! Two semaphores are acquired before any lock, in this order: [`CompactionTurn`], then
//! [`PurgeTurn`]. A turn does not count as a lock, because it guards no data, and only prevents two
//! threads from doing the same work at the same time.
//!
//! No listed lock is held while the files of obsolete segments and blobs are removed. The commit
//! leader holds the lock of the committer while it removes other files: the reserve, temporary
//! files, and segment files that could not be initialized or have no frames.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::catalogue::Catalogue;
use crate::commit::counters::EngineCounters;
use crate::commit::queue::CommitQueue;
use crate::commit::writer::WriteContext;
use crate::index::accounting::SegmentAccounting;
use crate::index::cache::DocumentCache;
use crate::index::table::{NewestFrame, Table};
use crate::model::config::Durability;
use crate::model::damage::{Damage, DroppedTail};
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::names::NamespaceHash;
use crate::platform::semaphore::{Semaphore, SemaphorePermit};
use crate::platform::wakeup::Wakeup;
use crate::storage::log::closed_time::ClosedTime;
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::reader::FrameReader;
use crate::storage::pins::PinRegistry;
use crate::storage::watch::DirectoryWatch;

/// The state that namespaces, the committer, the compaction thread and engine handles share.
///
/// A function that uses only a few parts of the state should receive these parts instead of `Core`.
pub(crate) struct Core {
    pub(crate) directory: LogDirectory,
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    /// True if the reserve is filled, or if the store is configured without a reserve. False
    /// usually means that the disk is full.
    pub(crate) has_reserve: AtomicBool,
    pub(crate) table: Arc<Table>,
    pub(crate) closed_time: Arc<ClosedTime>,
    pub(crate) accounting: Arc<SegmentAccounting>,
    pub(crate) reader: FrameReader,
    pub(crate) queue: CommitQueue,
    /// Wakes the compaction thread.
    pub(crate) compaction_wakeup: Arc<Wakeup>,
    pub(crate) pins: Arc<PinRegistry>,
    pub(crate) counters: EngineCounters,
    pub(crate) catalogue: Catalogue,
    pub(crate) write_context: Arc<WriteContext>,
    pub(crate) cache: DocumentCache,
    /// The damage that recovery found.
    pub(crate) damage: Vec<Damage>,
    /// The namespaces of damaged frames that recovery found. The names of these namespaces may be
    /// unknown.
    pub(crate) damaged_namespaces: Vec<NamespaceHash>,
    /// The bytes that recovery has dropped at the end of the log.
    pub(crate) dropped: Option<DroppedTail>,
    /// Checks that the directories of the store are still at their paths.
    pub(crate) watch: Arc<DirectoryWatch>,
    pub(crate) state: CoreState,
}

/// State that changes while the engine is open, but does not describe documents.
pub(crate) struct CoreState {
    compaction: Semaphore,
    purge: Semaphore,
    /// Segments that are no longer part of the log, but whose files still exist.
    obsolete_segments: Mutex<Vec<SegmentId>>,
    /// The error that stopped writing, or [`Error::ReadOnly`] from the beginning.
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

/// The right to compact the log or to erase a user. Only one thread at a time holds a
/// `CompactionTurn`.
pub(crate) struct CompactionTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

/// The right to remove obsolete files. Only one thread at a time holds a `PurgeTurn`.
pub(crate) struct PurgeTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

impl Core {
    /// Blocks while another thread compacts the log or erases a user.
    pub(crate) fn acquire_compaction_turn(&self) -> CompactionTurn<'_> {
        CompactionTurn(self.state.compaction.acquire())
    }

    /// Blocks while another thread removes obsolete files.
    pub(crate) fn acquire_purge_turn(&self) -> PurgeTurn<'_> {
        PurgeTurn(self.state.purge.acquire())
    }

    pub(crate) fn obsolete_segments(&self) -> MutexGuard<'_, Vec<SegmentId>> {
        self.state
            .obsolete_segments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes later reads fail with [`Error::Closed`], and invalidates all snapshots. The engine
    /// calls this function when it is closed.
    pub(crate) fn close(&self) {
        self.pins.close();
        self.state.is_closed.store(true, Ordering::Release);
    }

    /// Checks that the engine is open.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`Self::close`].
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.state.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Returns the error that stopped writing, or `None` if no error has stopped writing.
    pub(crate) fn poison(&self) -> Option<Error> {
        let poison = self.state.poison.get().or_else(|| self.watch.failure());
        poison.cloned()
    }

    /// Returns true if the store is open for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.state.poison.get(), Some(Error::ReadOnly { .. }))
    }

    /// Checks that the store is not open for reading only.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub(crate) fn check_not_read_only(&self) -> Result<()> {
        match self.state.poison.get() {
            Some(error @ Error::ReadOnly { .. }) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Makes all later writes fail with `error`. Only the first call has an effect, because later
    /// errors are consequences of the first error.
    pub(crate) fn set_poison(&self, error: Error) {
        self.state.poison.get_or_init(|| error);
    }

    /// Checks that recovery found no damage that may still hide a document from listings: damage
    /// that may belong to any namespace, or a damaged frame that is current.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the location of the damaged frame.
    pub(crate) fn check_listable(&self) -> Result<()> {
        let hidden = |hash: &NamespaceHash| match self.table.newest(*hash) {
            NewestFrame::Unreadable { segment, offset } => Some((segment, offset)),
            NewestFrame::Absent | NewestFrame::Document(_) => None,
        };
        let lost = self.table.loss().map(|lost| (lost.segment, lost.offset));
        let found = lost.or_else(|| self.damaged_namespaces.iter().find_map(hidden));
        found.map_or(Ok(()), |(segment, offset)| {
            Err(self.directory.unreadable_frame(segment, offset))
        })
    }
}
