//! What an open store reports about itself: counts since it was opened, and its size.

use crate::platform::counters::Histogram;

/// The highest value of each bucket of [`Metrics::batch_writes`], the last one excepted.
pub const BATCH_WRITES_BOUNDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];
/// The highest value of each bucket of [`Metrics::log_sync_us`], in microseconds, the last
/// one excepted.
pub const LOG_SYNC_BOUNDS_US: [u64; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000,
];

/// What an engine has done since it was opened, and how it is. Counts only grow while it is
/// open, and each is exact; taken one after the other, they need not be of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Batches that were committed, by the puts and deletes that each had: how many writes
    /// shared a sync, where they asked for one. What changed nothing is not counted.
    pub batch_writes: Histogram,
    /// Syncs of the log that something waited for, by the time that they took, in
    /// microseconds.
    pub log_sync_us: Histogram,
    /// Bytes of frames that were appended to the log for puts and deletes.
    pub log_bytes: u64,
    /// Syncs of blob files.
    pub blob_syncs: u64,
    /// Reads of a document, or of what it takes, that were answered from memory.
    pub reads_from_memory: u64,
    /// Those for which the disk was asked. A read that finds nothing stored is in neither.
    pub reads_from_disk: u64,
    /// Memory that documents take which were read lately.
    pub cache_bytes: u64,
    /// What the store takes on the disk.
    pub space: SpaceUsage,
    /// Segments that were rewritten, by compaction and erasure, and removed.
    pub segments_rewritten: u64,
    /// Frames that were copied for that.
    pub copied_frames: u64,
    /// Bytes of these frames.
    pub copied_bytes: u64,
    /// Memory that changes take which wait for the catalogue.
    pub catalogue_pending_bytes: u64,
    /// Writes that wait to be committed.
    pub queued_writes: u64,
    /// Memory that these take.
    pub queued_bytes: u64,
    /// Whether writes are possible: no sync of the log has failed.
    pub is_writable: bool,
}

impl Metrics {
    /// Batches that were committed.
    pub fn commits(&self) -> u64 {
        self.batch_writes.count()
    }

    /// Puts and deletes that were committed.
    pub fn writes(&self) -> u64 {
        self.batch_writes.sum
    }
}

/// What a store takes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceUsage {
    /// Documents stored.
    pub documents: u64,
    /// Deletes that must be kept, because older frames of their namespaces are left.
    pub tombstones: u64,
    /// Bytes of the frames of the log that documents are in.
    pub live_bytes: u64,
    /// Bytes of all its other frames.
    pub dead_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Frames that cannot be read and may be current. Their segments are never
    /// rewritten.
    pub damaged_frames: u64,
    /// Blob files that documents lie in.
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
