//! Operations for administrators of an open store: disk usage, metrics, snapshots, compaction,
//! and the erasure of users.

use crate::api::engine::Engine;
use crate::maintenance::compaction;
use crate::maintenance::erasure::{self, Erased};
use crate::maintenance::snapshot::Snapshot;
use crate::model::error::Result;
use crate::model::metrics::{Metrics, SpaceUsage};
use crate::model::names::{AsName, invalid_user};
use crate::model::progress::Progress;

impl Engine {
    /// Returns the number of documents, the total size of their frames in the log, and the total
    /// size of all other frames in the log. The sizes of blob files are not included. Does not
    /// access the disk.
    pub fn usage_on_disk(&self) -> SpaceUsage {
        let core = self.core();
        let segments = core.accounting.lock();
        let sum = segments.sum();
        let count = segments.count();
        drop(segments);
        let (_, blobs) = core.write_context.blobs.count();
        SpaceUsage {
            documents: sum.documents.into(),
            tombstones: sum.tombstones.into(),
            live_bytes: sum.document_bytes,
            dead_bytes: sum.bytes.saturating_sub(sum.document_bytes),
            segments: count as u64,
            damaged_frames: sum.damaged.into(),
            blobs,
        }
    }

    /// Takes a snapshot: a consistent view of the store that can be copied for a backup. Reads and
    /// writes continue while the snapshot is copied. See [`Snapshot`] for an example.
    ///
    /// Blocks until the writes that are being committed, and up to one more batch of queued writes,
    /// are committed. Then opens each file of the snapshot that is on disk, to determine its
    /// length. Writes wait while the summary of one segment is copied in memory, which usually
    /// takes at most a few milliseconds.
    ///
    /// Taking a snapshot writes nothing to disk, so it is possible on a full disk. A snapshot can
    /// also be taken after a failure has stopped all writes ([`crate::Error::Poisoned`]). Writes
    /// whose outcome is unknown are not included. Damaged segments are included unchanged, so the
    /// copy has the same damage as the store.
    ///
    /// # Errors
    /// - [`crate::Error::Closed`].
    /// - [`crate::Error::Io`]: a file cannot be opened for a reason other than damage, for example
    ///   because no file descriptor is available. Damaged files that cannot be opened are omitted
    ///   from the snapshot, and are listed in [`Snapshot::damage`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self.core())
    }

    /// Returns the current state of the engine, and counters that start at 0 when the engine is
    /// opened. Does not access the disk. The function locks a few mutexes for a short time and
    /// iterates over the segments. The function is cheap enough to be called every second.
    ///
    /// # Examples
    /// ```
    /// use prefd_engine::{Config, Engine};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let engine = Engine::open(Config::new(dir.path()))?;
    /// let metrics = engine.metrics();
    /// assert!(metrics.is_writable);
    /// assert_eq!(metrics.space.documents, 0);
    /// # Ok::<(), prefd_engine::Error>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        let core = self.core();
        let counts = core.counters.counts();
        let (queued_writes, queued_bytes) = core.queue.size();
        Metrics {
            batch_writes: counts.batch_writes,
            log_sync_us: counts.log_sync_us,
            log_bytes: counts.log_bytes,
            blob_syncs: core.write_context.blobs.syncs(),
            reads_from_memory: counts.reads_from_memory,
            reads_from_disk: counts.reads_from_disk,
            cache_bytes: core.cache.bytes(),
            space: self.usage_on_disk(),
            segments_rewritten: counts.segments_rewritten,
            copied_frames: counts.copied_frames,
            copied_bytes: counts.copied_bytes,
            marks: counts.marks,
            catalogue_pending_bytes: core.catalogue.pending_bytes(),
            queued_writes,
            queued_bytes,
            is_writable: core.poison().is_none(),
        }
    }

    /// Reclaims disk space: rewrites the sealed segments of the log that have stale frames, or
    /// tombstones that may no longer be needed, and removes obsolete files. A segment in which a
    /// damaged frame may be current is not rewritten. The active segment is not rewritten.
    ///
    /// Blocks until compaction is complete. Reads and writes continue. Calling this function is
    /// usually unnecessary: if [`crate::Config::background_compaction`] is true, a thread of the
    /// engine rewrites segments with many stale frames.
    ///
    /// # Errors
    /// - [`crate::Error::Corrupt`], [`crate::Error::Unreadable`],
    ///   [`crate::Error::UnsupportedFormat`]: a segment could not be read. Compaction leaves an
    ///   unreadable segment unchanged, and continues with the other segments.
    /// - [`crate::Error::StorageFull`]: the disk is full. Rewriting a segment needs disk space,
    ///   because its current frames are copied before the segment is removed.
    /// - [`crate::Error::Poisoned`], [`crate::Error::ReadOnly`], [`crate::Error::Io`],
    ///   [`crate::Error::Closed`].
    pub fn compact(&self) -> Result<()> {
        self.compact_with(&mut |_| {})
    }

    /// Reclaims disk space like [`Self::compact`], and calls `progress` on the calling thread
    /// before each segment is rewritten.
    ///
    /// # Errors
    /// The errors of [`Self::compact`].
    pub fn compact_with(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        compaction::compact(self.core(), progress)
    }

    /// Deletes all documents of a user, and removes all bytes of these documents from the data
    /// directory.
    ///
    /// Documents that were deleted or replaced earlier are also removed. The names of the user and
    /// of the user's clients are also removed. A user without current documents can also be erased,
    /// to remove the data of earlier documents. The engine cannot remove data that the file system
    /// or the disk retains after files are removed.
    ///
    /// The result reports data that could not be removed. Files that a [`Snapshot`] needs, damaged
    /// segments, and tombstones (the records of deletes) that hide frames in damaged segments
    /// cannot be removed. Check [`Erased::is_complete`].
    ///
    /// An erasure has three steps. First, the user's documents are deleted durably. Next, all
    /// segments with frames of the user are rewritten without these frames. Finally, the catalogue
    /// is removed and rebuilt in the background. Listings wait until the catalogue is rebuilt. If
    /// an erasure ends with an error or a crash, deleted documents stay deleted, and another call
    /// of `erase` completes the erasure. A document that is written for the user during the call is
    /// either erased or kept, but never partially erased.
    ///
    /// Blocks until the erasure is complete. Reads and writes continue, and compaction waits.
    /// `progress` is called on the calling thread before each segment is rewritten. An erasure
    /// reads the summaries of all segments. An erasure needs memory for the names of the user's
    /// clients, and for the summary of one segment.
    ///
    /// # Errors
    /// - [`crate::Error::InvalidName`]: `user` is not a valid name.
    /// - [`crate::Error::StorageFull`]: the disk is full. Rewriting a segment needs disk space,
    ///   because the data of other users is copied before the segment is removed.
    /// - [`crate::Error::Io`]: a file operation failed, for example the removal of a file.
    /// - [`crate::Error::Poisoned`], [`crate::Error::ReadOnly`], [`crate::Error::Closed`].
    pub fn erase(&self, user: impl AsName, progress: &mut dyn FnMut(Progress)) -> Result<Erased> {
        let user = user.to_name().map_err(invalid_user)?;
        erasure::erase(self.core(), &user, progress)
    }
}
