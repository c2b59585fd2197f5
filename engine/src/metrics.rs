//! Metrics: what an open store has done, in plain numbers, for whoever shows them.
//!
//! To count must cost next to nothing. What a commit does is counted by who commits, one
//! thread at a time, so that a number is read and written without a lock on the memory;
//! what all readers do is counted in places of their own (`Sharded`), since one place would
//! go from processor to processor with every read.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::alignment::Apart;
use crate::shared::Shared;
use crate::space::SpaceUsage;

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

/// How often values of which size have come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// The highest value of each bucket but the last, which has none.
    pub bounds: &'static [u64],
    /// Values in each bucket: one more than there are bounds.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: u64,
}

impl Histogram {
    /// Values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A number that one thread at a time adds to.
#[derive(Default)]
struct Single(AtomicU64);

impl Single {
    fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram that one thread at a time adds to.
struct Buckets<const BOUNDS: usize> {
    bounds: &'static [u64; BOUNDS],
    sum: Single,
    counts: [Single; BOUNDS],
    above: Single,
}

impl<const BOUNDS: usize> Buckets<BOUNDS> {
    fn new(bounds: &'static [u64; BOUNDS]) -> Self {
        Self {
            bounds,
            sum: Single::default(),
            counts: std::array::from_fn(|_| Single::default()),
            above: Single::default(),
        }
    }

    fn add(&self, value: u64) {
        self.sum.add(value);
        let mut counts = self.bounds.iter().zip(&self.counts);
        let bucket = counts.find(|(bound, _)| value <= **bound);
        bucket.map_or(&self.above, |(_, count)| count).add(1);
    }

    fn histogram(&self) -> Histogram {
        let counts = self.counts.iter().chain([&self.above]);
        Histogram {
            bounds: self.bounds,
            counts: counts.map(Single::get).collect(),
            sum: self.sum.get(),
        }
    }
}

/// How long syncs of the log took. Who commits adds to it.
pub(crate) struct SyncTimes(Buckets<{ LOG_SYNC_BOUNDS_US.len() }>);

impl Default for SyncTimes {
    fn default() -> Self {
        Self(Buckets::new(&LOG_SYNC_BOUNDS_US))
    }
}

impl SyncTimes {
    pub(crate) fn add(&self, took: Duration) {
        self.0
            .add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What commits have done. Who commits adds to it.
struct Commits {
    bytes: Single,
    batch_writes: Buckets<{ BATCH_WRITES_BOUNDS.len() }>,
    copied_frames: Single,
    copied_bytes: Single,
}

/// What is counted while a store is open.
pub(crate) struct Meters {
    commits: Apart<Commits>,
    log_syncs: Arc<SyncTimes>,
    segments_rewritten: AtomicU64,
    reads_from_memory: Sharded,
    /// In one place: to ask the disk takes far longer than to wait for that.
    reads_from_disk: Apart<AtomicU64>,
}

impl Meters {
    pub(crate) fn new(log_syncs: Arc<SyncTimes>) -> Self {
        Self {
            commits: Apart(Commits {
                bytes: Single::default(),
                batch_writes: Buckets::new(&BATCH_WRITES_BOUNDS),
                copied_frames: Single::default(),
                copied_bytes: Single::default(),
            }),
            log_syncs,
            segments_rewritten: AtomicU64::new(0),
            reads_from_memory: Sharded::default(),
            reads_from_disk: Apart::default(),
        }
    }

    /// A batch of so many writes was committed. By who commits.
    pub(crate) fn committed(&self, writes: u64, bytes: u64) {
        if writes > 0 {
            self.commits.0.batch_writes.add(writes);
            self.commits.0.bytes.add(bytes);
        }
    }

    /// Frames were copied. By who commits.
    pub(crate) fn copied(&self, frames: u64, bytes: u64) {
        if frames > 0 {
            self.commits.0.copied_frames.add(frames);
            self.commits.0.copied_bytes.add(bytes);
        }
    }

    pub(crate) fn rewritten(&self) {
        self.segments_rewritten.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read_from_memory(&self) {
        self.reads_from_memory.add_one();
    }

    pub(crate) fn read_from_disk(&self) {
        self.reads_from_disk.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// See [`crate::Engine::metrics`].
pub(crate) fn metrics(shared: &Shared, space: SpaceUsage) -> Metrics {
    let meters = &shared.meters;
    let commits = &meters.commits.0;
    let (queued_writes, queued_bytes) = shared.queue.waiting();
    Metrics {
        batch_writes: commits.batch_writes.histogram(),
        log_sync_us: meters.log_syncs.0.histogram(),
        log_bytes: commits.bytes.get(),
        blob_syncs: shared.intake.blobs.syncs(),
        reads_from_memory: meters.reads_from_memory.sum(),
        reads_from_disk: meters.reads_from_disk.0.load(Ordering::Relaxed),
        cache_bytes: shared.cache.bytes(),
        space,
        segments_rewritten: meters.segments_rewritten.load(Ordering::Relaxed),
        copied_frames: commits.copied_frames.get(),
        copied_bytes: commits.copied_bytes.get(),
        catalogue_pending_bytes: shared.catalogue.pending_bytes(),
        queued_writes,
        queued_bytes,
        is_writable: shared.poison().is_none(),
    }
}

/// Threads that have a place in each [`Sharded`] to themselves, at most; 128 bytes each.
const OWN_PLACES: usize = 64;
/// The place of a thread that has not asked for one yet, and of one that got none.
const UNKNOWN_PLACE: usize = usize::MAX;
const SHARED_PLACE: usize = usize::MAX - 1;

/// Places that threads have given back.
static FREE_PLACES: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// Those from here on nobody ever had.
static NEXT_PLACE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(UNKNOWN_PLACE) };
    static LEASE: Lease = Lease::take();
}

/// A thread's place, which the next one gets when it ends.
struct Lease(usize);

impl Lease {
    fn take() -> Self {
        let mut free = FREE_PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = free.pop();
        Self(place.unwrap_or_else(|| NEXT_PLACE.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        PLACE.set(SHARED_PLACE);
        let mut free = FREE_PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.0);
    }
}

/// A number that many threads add to, each in a place of its own, so that no processor
/// waits for another, nor for an atomic operation; those that come when there are many
/// already, in one.
struct Sharded {
    own: [Apart<Single>; OWN_PLACES],
    shared: Apart<AtomicU64>,
}

impl Default for Sharded {
    fn default() -> Self {
        Self {
            own: std::array::from_fn(|_| Apart::default()),
            shared: Apart::default(),
        }
    }
}

impl Sharded {
    fn add_one(&self) {
        match self.own.get(PLACE.get()) {
            Some(Apart(count)) => count.add(1),
            None => self.add_one_slowly(),
        }
    }

    #[cold]
    fn add_one_slowly(&self) {
        if PLACE.get() == UNKNOWN_PLACE {
            // A thread that is ending can have none any more.
            let place = LEASE.try_with(|lease| lease.0);
            let own = place.ok().filter(|place| *place < OWN_PLACES);
            PLACE.set(own.unwrap_or(SHARED_PLACE));
        }
        match self.own.get(PLACE.get()) {
            Some(Apart(count)) => count.add(1),
            None => drop(self.shared.0.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn sum(&self) -> u64 {
        let own: u64 = self.own.iter().map(|Apart(count)| count.get()).sum();
        own + self.shared.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let buckets = Buckets::new(&BATCH_WRITES_BOUNDS);
        for value in [1, 1, 2, 3, 4, 5, 2048, 2049, 4000] {
            buckets.add(value);
        }
        let histogram = buckets.histogram();
        assert_eq!(histogram.counts, [2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((histogram.count(), histogram.sum), (9, 8113));
        assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
        assert!(LOG_SYNC_BOUNDS_US.is_sorted() && BATCH_WRITES_BOUNDS.is_sorted());
    }

    #[test]
    fn what_many_threads_count_is_exact() {
        let count = Sharded::default();
        // More at once than there are places, and others after them.
        let barrier = std::sync::Barrier::new(OWN_PLACES + 10);
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..OWN_PLACES + 10 {
                    scope.spawn(|| {
                        count.add_one();
                        barrier.wait();
                        (0..1000).for_each(|_| count.add_one());
                    });
                }
            });
        }
        assert_eq!(count.sum(), 3 * 1001 * (OWN_PLACES as u64 + 10));
        assert!(count.shared.0.load(Ordering::Relaxed) >= 3 * 10_000);
        assert!(count.own.iter().filter(|Apart(n)| n.get() > 0).count() > OWN_PLACES / 2);
    }
}
