//! The metrics of an open engine: counters since the engine was opened, and its current state.

use crate::platform::counters::Histogram;

/// Upper bounds of the buckets of [`Metrics::batch_writes`]. The last bucket has no upper bound,
/// and thus no element in this array.
pub const BATCH_WRITES_BOUNDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];
/// Upper bounds of the buckets of [`Metrics::log_sync_us`], in microseconds. The last bucket has no
/// upper bound, and thus no element in this array.
pub const LOG_SYNC_BOUNDS_US: [u64; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000,
];

/// The metrics of an open engine, as returned by [`crate::Engine::metrics`].
///
/// Counters are exact, start at 0 when the engine is opened, and never decrease. The fields are
/// read one after another, so their values can be from slightly different times.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// engine.namespace("alice", "editor")?.write(b"{}", WriteOptions::default())?;
/// let metrics = engine.metrics();
/// assert_eq!((metrics.writes(), metrics.space.documents), (1, 1));
/// assert!(metrics.is_writable);
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Histogram of the number of puts and deletes in each committed batch. All writes of a batch
    /// share one sync of the log. A batch in which all writes have [`crate::Durability::Buffered`]
    /// is not synced. Writes without an effect, such as a delete of an absent document, are not
    /// counted.
    pub batch_writes: Histogram,
    /// Histogram of the durations of log syncs, in microseconds. Early syncs of buffered writes,
    /// which a separate thread performs, are not counted.
    pub log_sync_us: Histogram,
    /// Total size of the frames that were appended to the log for puts and deletes, in bytes. The
    /// frames that compaction and erasure copy are not counted.
    pub log_bytes: u64,
    /// Number of syncs of blob files.
    pub blob_syncs: u64,
    /// Number of reads of a document or its metadata that were served from memory. Reads that found
    /// no document are not counted.
    pub reads_from_memory: u64,
    /// Number of reads of a document or its metadata that accessed the disk. Reads that found no
    /// document are not counted.
    pub reads_from_disk: u64,
    /// Memory used by the cache of recently read documents, in bytes.
    pub cache_bytes: u64,
    /// The number and size of documents, segments and other data on disk.
    pub space: SpaceUsage,
    /// Number of segments that compaction and erasure rewrote and removed from the log.
    pub segments_rewritten: u64,
    /// Number of frames that were copied to rewrite segments.
    pub copied_frames: u64,
    /// Total size of the frames that were copied to rewrite segments, in bytes.
    pub copied_bytes: u64,
    /// Number of marks that were written to the log; see [`crate::Config::mark_delay`].
    pub marks: u64,
    /// Memory used by changes that are not yet in the catalogue, in bytes.
    pub catalogue_pending_bytes: u64,
    /// Number of writes in the commit queue.
    pub queued_writes: u64,
    /// Memory used by writes in the commit queue, in bytes.
    pub queued_bytes: u64,
    /// False after a failure has stopped all writes ([`crate::Error::Poisoned`]), for example a
    /// failed sync of the log.
    pub is_writable: bool,
}

impl Metrics {
    /// Number of committed batches in which at least one write had an effect.
    pub fn commits(&self) -> u64 {
        self.batch_writes.count()
    }

    /// Number of puts and deletes that were committed.
    pub fn writes(&self) -> u64 {
        self.batch_writes.sum
    }
}

/// The number and size of the documents, segments and other data of a store on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceUsage {
    /// Number of stored documents.
    pub documents: u64,
    /// Number of tombstones. A tombstone is the log frame of a delete. A tombstone must be kept as
    /// long as an older segment may contain a frame of the same namespace.
    pub tombstones: u64,
    /// Total size of the log frames of current documents, in bytes. Blob files are not included.
    pub live_bytes: u64,
    /// Total size of the log frames that do not belong to current documents, in bytes. Examples are
    /// tombstones and the frames of replaced documents.
    pub dead_bytes: u64,
    /// Number of log segments.
    pub segments: u64,
    /// Number of frames that cannot be read, but may be current. Compaction does not rewrite a
    /// segment in which a damaged frame may be current.
    pub damaged_frames: u64,
    /// Number of blob files that contain current documents.
    pub blobs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_bounds_are_in_ascending_order() {
        assert!(LOG_SYNC_BOUNDS_US.is_sorted() && BATCH_WRITES_BOUNDS.is_sorted());
    }
}
