//! What an operator asks of an open store: how it is, to be copied, to take less room, to
//! forget somebody.

use crate::api::engine::Engine;
use crate::maintenance::compaction;
use crate::maintenance::erasure::{self, Erased};
use crate::maintenance::snapshot::Snapshot;
use crate::model::error::Result;
use crate::model::metrics::{Metrics, SpaceUsage};
use crate::model::progress::Progress;

impl Engine {
    /// What the store takes on the disk, and what of it is needed.
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

    /// Everything that is acknowledged, at one moment between this call and its return, to
    /// be copied while reads and writes go on: a backup.
    ///
    /// Blocks until the batch that is being committed is synced, and for a look at each
    /// file. Writes wait no longer than it takes to copy the summary of one segment in
    /// memory, some milliseconds at most. Nothing is written, so it is possible on a full
    /// disk, and once writing has stopped ([`crate::Error::Poisoned`]): a write of which the
    /// outcome is unknown is not in it then. Of a damaged segment it has the bytes as they
    /// are, and the copy is damaged there as the store is.
    ///
    /// # Errors
    /// [`crate::Error::Closed`]; [`crate::Error::Io`] where a file cannot be looked at.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self.core())
    }

    /// What the engine has done since it was opened, and how it is. Takes a few locks for a
    /// moment each, and looks at every segment's counts: cheap enough for once a second. No
    /// I/O.
    pub fn metrics(&self) -> Metrics {
        let core = self.core();
        let counts = core.counters.counts();
        let (queued_writes, queued_bytes) = core.queue.waiting();
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
            catalogue_pending_bytes: core.catalogue.pending_bytes(),
            queued_writes,
            queued_bytes,
            is_writable: core.poison().is_none(),
        }
    }

    /// Rewrites every segment of the log that holds anything stale, the one that is
    /// being written excepted, and removes what nothing needs any more. Blocks until
    /// that is done; reads and writes go on meanwhile. A thread of the engine does so
    /// too, for what is mostly stale, unless [`crate::Config::background_compaction`] is off.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where a segment could not be read: it stays as it is, and
    /// the others are rewritten; [`crate::Error::StorageFull`], since copies need room before
    /// they give any; those of [`crate::Commit::wait`].
    pub fn compact(&self) -> Result<()> {
        self.compact_with(&mut |_| {})
    }

    /// The same, telling how far it has come before each segment.
    ///
    /// # Errors
    /// As [`Self::compact`].
    pub fn compact_with(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        compaction::compact(self.core(), progress)
    }

    /// Deletes everything of a user, and leaves no byte of it in the data directory: nor of
    /// what was deleted or replaced before, nor the user's and the clients' names. Not
    /// even where nothing is stored of the user any more. What the file system and the
    /// disk keep of removed files is not in its reach.
    ///
    /// The documents are deleted durably, one by one. Then the segments of the log that
    /// hold anything of the user are written anew without it, as [`Self::compact`] does
    /// with all, and the catalogue is built again: listings wait for that, as after a
    /// crash. After an error, or a crash, what was deleted stays deleted, and another call
    /// completes it. What is put for the user during the call is either deleted or a
    /// document like any other, left with all that belongs to it.
    ///
    /// What could not be removed is told by [`Erased`], which is to be looked at: files
    /// that a [`Snapshot`] holds, segments that are damaged, and, because of these,
    /// deletes.
    ///
    /// Blocks until that is done; reads and writes go on meanwhile, and compaction waits.
    /// It reads the summaries of all segments. Memory: the names of the user's clients,
    /// and what is known of one segment's frames.
    ///
    /// # Errors
    /// [`crate::Error::InvalidName`]; [`crate::Error::StorageFull`], since what else is in a segment
    /// needs room before that gives any; [`crate::Error::Io`] where a file cannot be removed;
    /// those of [`crate::Commit::wait`].
    pub fn erase(&self, user: &str, progress: &mut dyn FnMut(Progress)) -> Result<Erased> {
        erasure::erase(self.core(), user, progress)
    }
}
