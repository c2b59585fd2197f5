//! The counters of an open engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::metrics::BATCH_WRITES_BOUNDS;
use crate::platform::cache_padded::CachePadded;
use crate::platform::counters::{
    Histogram, ShardedCounter, SingleWriterCounter, SingleWriterHistogram,
};
use crate::storage::commit_leader::CommitLeader;
use crate::storage::log::sync_latency::SyncLatency;

/// The counters of an open engine, which start at zero when the engine is opened.
/// [`crate::Metrics`] documents each counter.
pub(crate) struct EngineCounters {
    commits: CachePadded<CommitCounters>,
    log_syncs: Arc<SyncLatency>,
    segments_rewritten: AtomicU64,
    reads_from_memory: ShardedCounter,
    /// The number of reads from the disk needs no sharded counter, because a read from the disk
    /// takes far longer than an addition.
    reads_from_disk: CachePadded<AtomicU64>,
}

/// The counters that only the commit leader updates.
struct CommitCounters {
    bytes: SingleWriterCounter,
    batch_writes: SingleWriterHistogram<{ BATCH_WRITES_BOUNDS.len() }>,
    copied_frames: SingleWriterCounter,
    copied_bytes: SingleWriterCounter,
    marks: SingleWriterCounter,
}

/// The values of the counters. The values are read one after another, so they are not an atomic
/// snapshot.
pub(crate) struct Counts {
    pub(crate) batch_writes: Histogram,
    pub(crate) log_sync_us: Histogram,
    pub(crate) log_bytes: u64,
    pub(crate) reads_from_memory: u64,
    pub(crate) reads_from_disk: u64,
    pub(crate) segments_rewritten: u64,
    pub(crate) copied_frames: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) marks: u64,
}

impl EngineCounters {
    pub(crate) fn new(log_syncs: Arc<SyncLatency>) -> Self {
        Self {
            commits: CachePadded(CommitCounters {
                bytes: SingleWriterCounter::default(),
                batch_writes: SingleWriterHistogram::new(&BATCH_WRITES_BOUNDS),
                copied_frames: SingleWriterCounter::default(),
                copied_bytes: SingleWriterCounter::default(),
                marks: SingleWriterCounter::default(),
            }),
            log_syncs,
            segments_rewritten: AtomicU64::new(0),
            reads_from_memory: ShardedCounter::default(),
            reads_from_disk: CachePadded::default(),
        }
    }

    /// Counts a committed batch with `writes` frames of `bytes` bytes in total.
    pub(super) fn committed(&self, _leader: &CommitLeader, writes: u64, bytes: u64) {
        if writes > 0 {
            self.commits.0.batch_writes.add(writes);
            self.commits.0.bytes.add(bytes);
        }
    }

    /// Counts frames that were copied for compaction or erasure.
    pub(super) fn copied(&self, _leader: &CommitLeader, frames: u64, bytes: u64) {
        if frames > 0 {
            self.commits.0.copied_frames.add(frames);
            self.commits.0.copied_bytes.add(bytes);
        }
    }

    /// Counts a mark.
    pub(super) fn mark_written(&self, _leader: &CommitLeader) {
        self.commits.0.marks.add(1);
    }

    pub(crate) fn segment_rewritten(&self) {
        self.segments_rewritten.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read_from_memory(&self) {
        self.reads_from_memory.add_one();
    }

    pub(crate) fn read_from_disk(&self) {
        self.reads_from_disk.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let commits = &self.commits.0;
        Counts {
            batch_writes: commits.batch_writes.histogram(),
            log_sync_us: self.log_syncs.histogram(),
            log_bytes: commits.bytes.get(),
            reads_from_memory: self.reads_from_memory.sum(),
            reads_from_disk: self.reads_from_disk.0.load(Ordering::Relaxed),
            segments_rewritten: self.segments_rewritten.load(Ordering::Relaxed),
            copied_frames: commits.copied_frames.get(),
            copied_bytes: commits.copied_bytes.get(),
            marks: commits.marks.get(),
        }
    }
}
