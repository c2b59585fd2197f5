//! Counters that are cheap to increment.
//!
//! - [`SingleWriterCounter`]: only one thread at a time adds to the counter, so an addition needs
//!   no atomic read-modify-write operation.
//! - [`ShardedCounter`]: many threads add to the counter at the same time, each to a separate
//!   shard. If all threads added to the same atomic counter, its cache line would move between
//!   processors with every addition.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::platform::cache_padded::CachePadded;

/// A histogram of recorded values, such as the durations of syncs.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// engine.namespace("alice", "editor")?.write(b"{}", WriteOptions::default())?;
/// let syncs = engine.metrics().log_sync_us;
/// // The last bucket has no upper bound.
/// assert_eq!(syncs.counts.len(), syncs.bounds.len() + 1);
/// assert!(syncs.count() >= 1);
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// Upper bounds of the buckets, inclusive and in ascending order. The last bucket has no upper
    /// bound, and thus no element in `bounds`.
    pub bounds: &'static [u64],
    /// Number of values in each bucket. The numbers are not cumulative. `counts` has one element
    /// more than `bounds`.
    pub counts: Vec<u64>,
    /// Sum of all recorded values.
    pub sum: u64,
}

impl Histogram {
    /// Number of recorded values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A counter that only one thread at a time may add to. Any thread may read the counter.
#[derive(Default)]
pub(crate) struct SingleWriterCounter(AtomicU64);

impl SingleWriterCounter {
    pub(crate) fn add(&self, amount: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram that only one thread at a time may add to. Any thread may read the histogram.
pub(crate) struct SingleWriterHistogram<const BOUNDS: usize> {
    bounds: &'static [u64; BOUNDS],
    sum: SingleWriterCounter,
    counts: [SingleWriterCounter; BOUNDS],
    /// Number of values above the last bound.
    above: SingleWriterCounter,
}

impl<const BOUNDS: usize> SingleWriterHistogram<BOUNDS> {
    pub(crate) fn new(bounds: &'static [u64; BOUNDS]) -> Self {
        Self {
            bounds,
            sum: SingleWriterCounter::default(),
            counts: std::array::from_fn(|_| SingleWriterCounter::default()),
            above: SingleWriterCounter::default(),
        }
    }

    pub(crate) fn add(&self, value: u64) {
        self.sum.add(value);
        let mut counts = self.bounds.iter().zip(&self.counts);
        let bucket = counts.find(|(bound, _)| value <= **bound);
        bucket.map_or(&self.above, |(_, count)| count).add(1);
    }

    pub(crate) fn histogram(&self) -> Histogram {
        let counts = self.counts.iter().chain([&self.above]);
        Histogram {
            bounds: self.bounds,
            counts: counts.map(SingleWriterCounter::get).collect(),
            sum: self.sum.get(),
        }
    }
}

/// Maximum number of threads that have a separate shard in each [`ShardedCounter`]. A shard uses
/// 128 bytes. In each counter, all threads without a shard share one atomic counter.
const OWN_SHARDS: usize = 64;

/// Value of `SHARD` for a thread that has not requested a shard yet.
const UNASSIGNED: usize = usize::MAX;

/// Value of `SHARD` for a thread that uses the shared atomic counter.
const SHARED: usize = usize::MAX - 1;

/// Shard indexes that can be used again, because their threads have ended.
static FREE_SHARDS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// The lowest shard index that no thread has used yet.
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(UNASSIGNED) };
    static LEASE: ShardLease = ShardLease::acquire();
}

/// The shard index of a thread. When the thread ends, the index is returned to [`FREE_SHARDS`].
struct ShardLease(usize);

impl ShardLease {
    fn acquire() -> Self {
        let mut free = FREE_SHARDS.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = free.pop();
        Self(shard.unwrap_or_else(|| NEXT_SHARD.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for ShardLease {
    fn drop(&mut self) {
        SHARD.set(SHARED);
        let mut free = FREE_SHARDS.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.0);
    }
}

/// A counter that many threads may add to at the same time.
///
/// Up to [`OWN_SHARDS`] threads have a shard of their own. An addition to a shard does not wait
/// for other processors, and needs no atomic read-modify-write operation. All other threads add to
/// one shared atomic counter.
pub(crate) struct ShardedCounter {
    shards: [CachePadded<SingleWriterCounter>; OWN_SHARDS],
    shared: CachePadded<AtomicU64>,
}

impl Default for ShardedCounter {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| CachePadded::default()),
            shared: CachePadded::default(),
        }
    }
}

impl ShardedCounter {
    pub(crate) fn add_one(&self) {
        match self.shards.get(SHARD.get()) {
            Some(CachePadded(count)) => count.add(1),
            None => self.add_one_slow(),
        }
    }

    #[cold]
    fn add_one_slow(&self) {
        if SHARD.get() == UNASSIGNED {
            // If the thread is ending, the lease on its shard may already have been dropped, so the
            // thread uses the shared counter.
            let leased = LEASE.try_with(|lease| lease.0);
            let shard = leased.ok().filter(|shard| *shard < OWN_SHARDS);
            SHARD.set(shard.unwrap_or(SHARED));
        }
        match self.shards.get(SHARD.get()) {
            Some(CachePadded(count)) => count.add(1),
            None => drop(self.shared.0.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        let sharded: u64 = self
            .shards
            .iter()
            .map(|CachePadded(count)| count.get())
            .sum();
        sharded + self.shared.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

    #[test]
    fn value_is_counted_in_the_first_bucket_with_a_bound_not_below_it() {
        let buckets = SingleWriterHistogram::new(&BOUNDS);
        for value in [1, 1, 2, 3, 4, 5, 2048, 2049, 4000] {
            buckets.add(value);
        }
        let histogram = buckets.histogram();
        assert_eq!(histogram.counts, [2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((histogram.count(), histogram.sum), (9, 8113));
        assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
    }

    #[test]
    fn sharded_counter_with_more_threads_than_shards_is_exact() {
        let count = ShardedCounter::default();
        // Each round runs more threads than there are shards. Later rounds reuse shards.
        let barrier = std::sync::Barrier::new(OWN_SHARDS + 10);
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..OWN_SHARDS + 10 {
                    scope.spawn(|| {
                        count.add_one();
                        barrier.wait();
                        (0..1000).for_each(|_| count.add_one());
                    });
                }
            });
        }
        assert_eq!(count.sum(), 3 * 1001 * (OWN_SHARDS as u64 + 10));
        assert!(count.shared.0.load(Ordering::Relaxed) >= 3 * 10_000);
        assert!(
            count
                .shards
                .iter()
                .filter(|CachePadded(n)| n.get() > 0)
                .count()
                > OWN_SHARDS / 2
        );
    }
}
