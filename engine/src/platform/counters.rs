//! Counters that cost next to nothing to add to.
//!
//! What one thread at a time counts ([`SingleWriterCounter`]) is read and written without
//! an atomic read-modify-write. What many threads count at once ([`ShardedCounter`]) is
//! counted in one shard per thread, because a single counter would move from processor to
//! processor with every addition.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::platform::cache_padded::CachePadded;

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
pub(crate) struct SingleWriterCounter(AtomicU64);

impl SingleWriterCounter {
    pub(crate) fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram that one thread at a time adds to.
pub(crate) struct SingleWriterHistogram<const BOUNDS: usize> {
    bounds: &'static [u64; BOUNDS],
    sum: SingleWriterCounter,
    counts: [SingleWriterCounter; BOUNDS],
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

/// Threads that have a place in each [`ShardedCounter`] to themselves, at most; 128 bytes each.
const OWN_SHARDS: usize = 64;

/// The place of a thread that has not asked for one yet, and of one that got none.
const UNASSIGNED: usize = usize::MAX;

const SHARED: usize = usize::MAX - 1;

/// Places that threads have given back.
static FREE_SHARDS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Those from here on nobody ever had.
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(UNASSIGNED) };
    static LEASE: ShardLease = ShardLease::take();
}

/// A thread's place, which the next one gets when it ends.
struct ShardLease(usize);

impl ShardLease {
    fn take() -> Self {
        let mut free = FREE_SHARDS.lock().unwrap_or_else(PoisonError::into_inner);
        let place = free.pop();
        Self(place.unwrap_or_else(|| NEXT_SHARD.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for ShardLease {
    fn drop(&mut self) {
        SHARD.set(SHARED);
        let mut free = FREE_SHARDS.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.0);
    }
}

/// A number that many threads add to, each in a place of its own, so that no processor
/// waits for another, nor for an atomic operation; those that come when there are many
/// already, in one.
pub(crate) struct ShardedCounter {
    own: [CachePadded<SingleWriterCounter>; OWN_SHARDS],
    shared: CachePadded<AtomicU64>,
}

impl Default for ShardedCounter {
    fn default() -> Self {
        Self {
            own: std::array::from_fn(|_| CachePadded::default()),
            shared: CachePadded::default(),
        }
    }
}

impl ShardedCounter {
    pub(crate) fn add_one(&self) {
        match self.own.get(SHARD.get()) {
            Some(CachePadded(count)) => count.add(1),
            None => self.add_one_slowly(),
        }
    }

    #[cold]
    fn add_one_slowly(&self) {
        if SHARD.get() == UNASSIGNED {
            // A thread that is ending can have none any more.
            let place = LEASE.try_with(|lease| lease.0);
            let own = place.ok().filter(|place| *place < OWN_SHARDS);
            SHARD.set(own.unwrap_or(SHARED));
        }
        match self.own.get(SHARD.get()) {
            Some(CachePadded(count)) => count.add(1),
            None => drop(self.shared.0.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        let own: u64 = self.own.iter().map(|CachePadded(count)| count.get()).sum();
        own + self.shared.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::metrics::{BATCH_WRITES_BOUNDS, LOG_SYNC_BOUNDS_US};

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let buckets = SingleWriterHistogram::new(&BATCH_WRITES_BOUNDS);
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
        let count = ShardedCounter::default();
        // More at once than there are places, and others after them.
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
                .own
                .iter()
                .filter(|CachePadded(n)| n.get() > 0)
                .count()
                > OWN_SHARDS / 2
        );
    }
}
