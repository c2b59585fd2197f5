//! The hash map of the table maps the hash of a namespace to a slot. The map consists of buckets,
//! and each bucket has a lock. As entries are added, buckets are split one at a time (linear
//! hashing, Litwin 1980). Therefore, no writer waits for the entire map to be rehashed. The memory
//! per entry hardly depends on the number of entries, except in a very small map.
//!
//! Removing entries never reduces the number of buckets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::index::table::slots::{Slot, Slots};
use crate::model::names::NamespaceHash;

/// Average number of entries per bucket above which buckets are split. With 384 entries, the memory
/// for the lock and the header of a bucket is insignificant, and a split lasts only about ten
/// microseconds.
const AVERAGE_ENTRIES: usize = 384;
/// Number of buckets that are allocated together as a chunk. An empty map has one chunk. With 64 or
/// more buckets, threads rarely wait for the lock of the same bucket.
const CHUNK_BUCKETS: usize = 64;
/// Number of levels. The chunks of buckets are stored in levels, which have 1, 1, 2, 4, 8, …
/// chunks.
const LEVELS: usize = 33;
/// Maximum number of splits per insertion. One split is usually sufficient. A second split catches
/// up with splits that were skipped, for example during an iteration.
const MAX_SPLITS: usize = 2;

/// The buckets of the table.
pub(super) struct Buckets {
    levels: [OnceLock<Level>; LEVELS],
    /// Number of buckets, which never decreases.
    count: AtomicUsize,
    /// Number of entries in all buckets.
    entries: AtomicUsize,
    /// Held during splits and iterations, so that no bucket is split during an iteration.
    split_lock: Mutex<()>,
}

type Level = Box<[OnceLock<Box<[Bucket]>>]>;

/// One bucket, which occupies one cache line. The cache line contains the lock and the header of
/// the slots.
#[derive(Default)]
#[repr(align(64))]
struct Bucket(RwLock<Slots>);

/// Lock poisoning is ignored, because a panic cannot interrupt a change to a bucket.
impl Bucket {
    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            levels: [const { OnceLock::new() }; LEVELS],
            count: AtomicUsize::new(CHUNK_BUCKETS),
            entries: AtomicUsize::new(0),
            split_lock: Mutex::default(),
        }
    }
}

/// Returns the index of the bucket for the bits of a hash, if the map has `buckets` buckets. In
/// linear hashing, buckets that were already split in the current round are selected by one more
/// bit of the hash than other buckets.
fn bucket_of(bits: u64, buckets: usize) -> usize {
    let mask = buckets.next_power_of_two() - 1;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "only the low bits are used"
    )]
    let index = bits as usize & mask;
    if index < buckets {
        index
    } else {
        index & (mask >> 1)
    }
}

/// The change that the closure of [`Buckets::update`] requests.
pub(super) enum SlotChange {
    /// Do not insert or remove an entry. The closure may have changed an existing entry in place.
    Keep,
    /// Insert this entry. The namespace must not have an entry yet.
    Insert(Slot),
    /// Remove the entry.
    Remove,
}

/// Returns the level of a chunk, and the index of the first chunk in that level.
fn level_of(chunk: usize) -> (usize, usize) {
    match chunk.checked_ilog2() {
        None => (0, 0),
        Some(log) => (log as usize + 1, 1 << log),
    }
}

impl Buckets {
    /// Returns the slots of a bucket, without locking. Returns `None` if the bucket is not
    /// allocated.
    fn bucket_mut(&mut self, index: usize) -> Option<&mut Slots> {
        let chunk = index / CHUNK_BUCKETS;
        let (level, first) = level_of(chunk);
        let chunks = self.levels.get_mut(level)?.get_mut()?;
        let buckets = chunks.get_mut(chunk - first)?.get_mut()?;
        let bucket = &mut buckets.get_mut(index % CHUNK_BUCKETS)?.0;
        Some(bucket.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns a bucket, and allocates the chunk of the bucket if necessary.
    fn bucket(&self, index: usize) -> &Bucket {
        let chunk = index / CHUNK_BUCKETS;
        let (level, first) = level_of(chunk);
        let chunks = || (0..first.max(1)).map(|_| OnceLock::new()).collect();
        let buckets = || (0..CHUNK_BUCKETS).map(|_| Bucket::default()).collect();
        #[allow(
            clippy::indexing_slicing,
            reason = "level 0 has one chunk, level n has 2^(n-1) chunks, and `LEVELS` levels \
                      are sufficient for 2^32 chunks"
        )]
        &self.levels[level].get_or_init(chunks)[chunk - first].get_or_init(buckets)
            [index % CHUNK_BUCKETS]
    }

    /// Reserves memory for `entries` entries, so that no bucket is split while that many entries
    /// are inserted. The map must be empty.
    pub(super) fn reserve(&mut self, entries: usize) {
        let count = entries.div_ceil(AVERAGE_ENTRIES).max(CHUNK_BUCKETS);
        // Buckets below `split` and buckets from `base` on were split in the current round, so each
        // of them covers half as many hashes as the other buckets.
        let (split, base) = (count - (1 << count.ilog2()), 1 << count.ilog2());
        for index in 0..count {
            let is_split = index < split || index >= base;
            let share = entries / if is_split { base * 2 } else { base };
            // The number of entries in a bucket has a standard deviation of about the square root
            // of its mean. The reserved memory is sufficient for two standard deviations above the
            // mean.
            let most = share + 2 * share.isqrt();
            self.bucket(index).write().reserve(most);
        }
        *self.count.get_mut() = count;
    }

    /// Frees memory that is reserved for entries but is not used.
    pub(super) fn shrink_to_fit(&mut self) {
        for index in 0..*self.count.get_mut() {
            self.bucket(index).write().shrink_to_fit();
        }
    }

    /// Makes the processor load the slots of several namespaces concurrently, instead of one after
    /// another. The function acquires no lock, because acquiring a lock would wait until earlier
    /// loads are complete.
    pub(super) fn prefetch(&mut self, hashes: impl Iterator<Item = NamespaceHash>) {
        let count = *self.count.get_mut();
        let mut sum = 0_u32;
        for hash in hashes {
            let slots = self.bucket_mut(bucket_of(hash.halves().1, count));
            sum = sum.wrapping_add(slots.map_or(0, |slots| slots.prefetch(hash)));
        }
        std::hint::black_box(sum);
    }

    /// Calls `view` with the entry of a namespace, while the bucket is locked for reading.
    pub(super) fn read<R>(&self, hash: NamespaceHash, view: impl FnOnce(Option<&Slot>) -> R) -> R {
        view(self.locked(hash, Bucket::read).get(hash))
    }

    /// Calls `change` with the entry of a namespace, and applies the returned [`SlotChange`], while
    /// the bucket is locked for writing.
    pub(super) fn update<R>(
        &self,
        hash: NamespaceHash,
        change: impl FnOnce(Option<&mut Slot>) -> (SlotChange, R),
    ) -> R {
        let mut slots = self.locked(hash, Bucket::write);
        let (after, result) = change(slots.get_mut(hash));
        match after {
            SlotChange::Keep => {}
            SlotChange::Insert(slot) => {
                slots.insert(slot);
                drop(slots);
                let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
                self.split_if_due(entries);
            }
            SlotChange::Remove => {
                if slots.remove(hash).is_some() {
                    self.entries.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        result
    }

    /// Locks the bucket of a namespace. If a split moves the namespace to a new bucket before the
    /// lock is acquired, the new bucket is locked instead.
    fn locked<'a, G>(&'a self, hash: NamespaceHash, lock: impl Fn(&'a Bucket) -> G) -> G {
        let (_, bits) = hash.halves();
        let mut index = bucket_of(bits, self.count.load(Ordering::Acquire));
        loop {
            let guard = lock(self.bucket(index));
            let now = bucket_of(bits, self.count.load(Ordering::Acquire));
            if now == index {
                return guard;
            }
            index = now;
        }
    }

    /// Visits all entries in no particular order. Each bucket is locked for reading while its
    /// entries are visited.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Slot)) {
        // A split during the iteration could move visited entries to a bucket that has not been
        // visited yet, so that these entries would be visited twice.
        let _split_guard = self
            .split_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for index in 0..self.count.load(Ordering::Acquire) {
            self.bucket(index).read().iter().for_each(&mut visit);
        }
    }

    /// Splits up to [`MAX_SPLITS`] buckets if the average number of entries per bucket exceeds
    /// [`AVERAGE_ENTRIES`]. Does nothing during an iteration or while another thread splits a
    /// bucket.
    fn split_if_due(&self, entries: usize) {
        if entries <= self.count.load(Ordering::Relaxed) * AVERAGE_ENTRIES {
            return;
        }
        let Ok(_split_guard) = self.split_lock.try_lock() else {
            return;
        };
        for _ in 0..MAX_SPLITS {
            let buckets = self.count.load(Ordering::Acquire);
            if entries > buckets * AVERAGE_ENTRIES {
                self.split(buckets);
            }
        }
    }

    /// Splits the next bucket: creates bucket `new`, and moves about half of the entries of the old
    /// bucket to the new bucket. The old and the new bucket are locked until the new number of
    /// buckets is visible.
    fn split(&self, new: usize) {
        let old = new - (1 << new.ilog2());
        let mut from = self.bucket(old).write();
        let mut to = self.bucket(new).write();
        *to = from.split_off(|slot| bucket_of(slot.bucket_bits(), new + 1) == new);
        self.count.store(new + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
