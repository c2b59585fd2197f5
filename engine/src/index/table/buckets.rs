//! The table's map: from the hash of a namespace to its slot, in buckets that threads lock
//! one at a time, and of which there is one more each time that many entries have come
//! (linear hashing, Litwin 1980). So it takes about as much memory for an entry at any
//! size, and no writer ever waits until all of it was moved.
//!
//! Entries that are removed leave their bucket, but there are never fewer buckets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::index::table::slots::{Slot, Slots};
use crate::model::names::NamespaceHash;

/// Entries of a bucket, on average over all: so many that the bucket itself takes next to
/// nothing, and so few that a split takes some ten microseconds.
const AVERAGE_ENTRIES: usize = 384;
/// Buckets are made this many at a time, and there are that many at first, so that
/// threads seldom meet in one.
const CHUNK_BUCKETS: usize = 64;
/// Chunks are kept in levels: one, one, two, four, eight, and so on.
const LEVELS: usize = 33;
/// Splits that one entry pays for, at most: one that could not be, because somebody
/// walked over the map, is made up for.
const MAX_SPLITS: usize = 2;

pub(super) struct Buckets {
    levels: [OnceLock<Level>; LEVELS],
    /// How many buckets there are: it only grows.
    count: AtomicUsize,
    entries: AtomicUsize,
    /// Held while there may be one bucket more, or must not.
    growing: Mutex<()>,
}

type Level = Box<[OnceLock<Box<[Bucket]>>]>;

/// A lock and what it guards fill a cache line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket(RwLock<Slots>);

/// A panic elsewhere cannot leave a bucket half changed: nothing in here panics.
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
            growing: Mutex::default(),
        }
    }
}

/// The bucket for these bits of a hash where there are `buckets`: those below the highest
/// power of two that have been split since are told apart by one bit more.
fn bucket_of(bits: u64, buckets: usize) -> usize {
    let mask = buckets.next_power_of_two() - 1;
    #[allow(clippy::cast_possible_truncation, reason = "its low bits are taken")]
    let index = bits as usize & mask;
    if index < buckets {
        index
    } else {
        index & (mask >> 1)
    }
}

/// What a namespace holds after a change, and what is told of it.
pub(super) enum SlotChange {
    /// What it held before, changed in place or not.
    Keep,
    /// This, where there was nothing.
    Insert(Slot),
    /// Nothing.
    Remove,
}

/// Where a chunk is kept: its level, and the first chunk of that.
fn level_of(chunk: usize) -> (usize, usize) {
    match chunk.checked_ilog2() {
        None => (0, 0),
        Some(log) => (log as usize + 1, 1 << log),
    }
}

impl Buckets {
    fn bucket_mut(&mut self, index: usize) -> Option<&mut Slots> {
        let chunk = index / CHUNK_BUCKETS;
        let (level, first) = level_of(chunk);
        let chunks = self.levels.get_mut(level)?.get_mut()?;
        let buckets = chunks.get_mut(chunk - first)?.get_mut()?;
        let bucket = &mut buckets.get_mut(index % CHUNK_BUCKETS)?.0;
        Some(bucket.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    fn bucket(&self, index: usize) -> &Bucket {
        let chunk = index / CHUNK_BUCKETS;
        let (level, first) = level_of(chunk);
        let chunks = || (0..first.max(1)).map(|_| OnceLock::new()).collect();
        let buckets = || (0..CHUNK_BUCKETS).map(|_| Bucket::default()).collect();
        #[allow(
            clippy::indexing_slicing,
            reason = "a level has as many chunks as the number of its first one, and there \
                      is a level for each power of two of chunks"
        )]
        &self.levels[level].get_or_init(chunks)[chunk - first].get_or_init(buckets)
            [index % CHUNK_BUCKETS]
    }

    /// Makes room for this many entries, where there are none yet: nothing is moved then
    /// while they come.
    pub(super) fn reserve(&mut self, entries: usize) {
        let count = entries.div_ceil(AVERAGE_ENTRIES).max(CHUNK_BUCKETS);
        // Below this bucket, and from this one on, all have been split once more.
        let (split, whole) = (count - (1 << count.ilog2()), 1 << count.ilog2());
        for index in 0..count {
            let is_split = index < split || index >= whole;
            let share = entries / if is_split { whole * 2 } else { whole };
            // Twice as far from the mean as most are.
            let most = share + 2 * share.isqrt();
            self.bucket(index).write().reserve(most);
        }
        *self.count.get_mut() = count;
    }

    /// Gives back room that is not needed.
    pub(super) fn fit(&mut self) {
        for index in 0..*self.count.get_mut() {
            self.bucket(index).write().fit();
        }
    }

    /// Has the processor fetch what will be looked at for these namespaces, for all of them
    /// at once: one after the other, each would wait for the memory. No lock is taken,
    /// since that would end what is begun before it.
    pub(super) fn touch(&mut self, hashes: impl Iterator<Item = NamespaceHash>) {
        let count = *self.count.get_mut();
        let mut sum = 0_u32;
        for hash in hashes {
            let slots = self.bucket_mut(bucket_of(hash.halves().1, count));
            sum = sum.wrapping_add(slots.map_or(0, |slots| slots.touch(hash)));
        }
        std::hint::black_box(sum);
    }

    /// Hands what is held of a namespace to `see`. Whoever changes it waits meanwhile.
    pub(super) fn read<R>(&self, hash: NamespaceHash, see: impl FnOnce(Option<&Slot>) -> R) -> R {
        see(self.locked(hash, Bucket::read).get(hash))
    }

    /// Has `change` change what is held of a namespace. Whoever reads it waits meanwhile.
    pub(super) fn change<R>(
        &self,
        hash: NamespaceHash,
        change: impl FnOnce(Option<&mut Slot>) -> (SlotChange, R),
    ) -> R {
        let mut slots = self.locked(hash, Bucket::write);
        let (after, answer) = change(slots.get_mut(hash));
        match after {
            SlotChange::Keep => {}
            SlotChange::Insert(slot) => {
                slots.insert(slot);
                drop(slots);
                let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
                self.grow(entries);
            }
            SlotChange::Remove => {
                if slots.remove(hash).is_some() {
                    self.entries.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        answer
    }

    /// The bucket of a namespace, locked by `lock`. It may have been split until the lock
    /// was there: then the entry may be in another one.
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

    /// Visits everything, in no order. Whoever changes what is visited waits meanwhile.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Slot)) {
        // A split would have some visited twice.
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        for index in 0..self.count.load(Ordering::Acquire) {
            self.bucket(index).read().iter().for_each(&mut visit);
        }
    }

    /// Splits the bucket whose turn it is, where there are more entries than that.
    fn grow(&self, entries: usize) {
        if entries <= self.count.load(Ordering::Relaxed) * AVERAGE_ENTRIES {
            return;
        }
        let Ok(_growing) = self.growing.try_lock() else {
            return;
        };
        for _ in 0..MAX_SPLITS {
            let buckets = self.count.load(Ordering::Acquire);
            if entries > buckets * AVERAGE_ENTRIES {
                self.split(buckets);
            }
        }
    }

    /// Makes the bucket with this number, out of the one that held its entries so far.
    /// Both are locked until everybody can know of it.
    fn split(&self, new: usize) {
        let old = new - (1 << new.ilog2());
        let mut from = self.bucket(old).write();
        let mut to = self.bucket(new).write();
        *to = from.split_off(|slot| bucket_of(slot.bucket_bits(), new + 1) == new);
        self.count.store(new + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::format::frame::header::EntryKind;
    use crate::format::location::FrameLocation;

    fn hash(n: u64) -> NamespaceHash {
        NamespaceHash::of(&[7; 16], &n.to_string(), "client")
    }

    fn slot(n: u64, revision: u64) -> Slot {
        let entry = FrameLocation {
            revision,
            segment: crate::model::ids::SegmentId::FIRST,
            offset: crate::model::ids::Offset::from_u32(28),
            bytes: 7,
            kind: EntryKind::Put,
        };
        Slot::new(hash(n), &entry, None)
    }

    fn get(buckets: &Buckets, n: u64) -> Option<u64> {
        buckets.read(hash(n), |slot| Some(slot?.entry().revision))
    }

    fn set(buckets: &Buckets, n: u64, revision: u64) -> Option<u64> {
        buckets.change(hash(n), |held| match held {
            None => (SlotChange::Insert(slot(n, revision)), None),
            Some(held) => {
                let before = held.entry().revision;
                *held = slot(n, revision);
                (SlotChange::Keep, Some(before))
            }
        })
    }

    fn remove(buckets: &Buckets, n: u64) -> Option<u64> {
        buckets.change(hash(n), |held| {
            (SlotChange::Remove, held.map(|held| held.entry().revision))
        })
    }

    #[test]
    fn a_bucket_fills_a_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
    }

    #[test]
    fn it_holds_what_a_map_holds_through_every_split() {
        let buckets = Buckets::default();
        let mut model = HashMap::new();
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for step in 0..300_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let n = random % 120_000;
            // One in four goes, so that it grows.
            if (random >> 32).is_multiple_of(4) {
                assert_eq!(remove(&buckets, n), model.remove(&n));
            } else {
                assert_eq!(set(&buckets, n, step), model.insert(n, step));
            }
        }
        let count = buckets.count.load(Ordering::Relaxed);
        assert!(count > 3 * CHUNK_BUCKETS, "{count} buckets");
        let (mut seen, mut sum) = (0, 0);
        buckets.for_each(|slot| {
            seen += 1;
            sum += slot.entry().revision;
        });
        assert_eq!(seen, model.len());
        assert_eq!(sum, model.values().sum::<u64>());
        for n in 0..120_000 {
            assert_eq!(get(&buckets, n), model.get(&n).copied());
        }
    }

    #[test]
    fn room_is_made_for_as_many_as_come() {
        for entries in [0, 1, 1000, 24_576, 24_577, 40_000, 60_000] {
            let mut buckets = Buckets::default();
            buckets.reserve(entries);
            let count = *buckets.count.get_mut();
            let room = |buckets: &Buckets| -> usize {
                let room = |index| buckets.bucket(index).read().room();
                (0..count).map(room).sum()
            };
            let reserved = room(&buckets);
            assert!(
                reserved <= entries * 14 / 10 + count * 8,
                "{reserved} for {entries}"
            );
            for n in 0..entries as u64 {
                set(&buckets, n, n);
            }
            assert_eq!(
                *buckets.count.get_mut(),
                count,
                "{entries}: nothing is split"
            );
            let grown = room(&buckets) - reserved;
            let most = reserved / 50 + count * 4;
            assert!(grown <= most, "{grown} more for {entries}");
            for n in 0..entries as u64 / 2 {
                remove(&buckets, n);
            }
            buckets.fit();
            let left = entries / 2;
            assert!(room(&buckets) <= left * 14 / 10 + count * 8, "for {left}");
            for n in 0..entries as u64 {
                assert_eq!(get(&buckets, n), (n >= entries as u64 / 2).then_some(n));
            }
        }
    }

    #[test]
    fn readers_never_miss_what_is_there_while_it_grows() {
        let buckets = Buckets::default();
        for n in 0..1000 {
            set(&buckets, n, n);
        }
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1000..200_000 {
                    set(&buckets, n, n);
                }
            });
            while !writer.is_finished() {
                for n in 0..1000 {
                    assert_eq!(get(&buckets, n), Some(n));
                }
            }
        });
    }

    #[test]
    fn nothing_is_visited_twice_where_a_split_is_due() {
        let buckets = Buckets::default();
        let is_first = |n: &u64| bucket_of(hash(*n).halves().1, CHUNK_BUCKETS) == 0;
        let full = (CHUNK_BUCKETS * AVERAGE_ENTRIES) as u64;
        for n in 0..full {
            set(&buckets, n, n);
        }
        // The next entry splits the first bucket: it comes once that was visited.
        let mut next = (full..full * 2).find(is_first);
        let mut seen = HashSet::new();
        buckets.for_each(|slot| {
            let n = slot.entry().revision;
            assert!(seen.insert(n), "{n} is visited twice");
            if !is_first(&n)
                && let Some(next) = next.take()
            {
                set(&buckets, next, next);
            }
        });
        assert_eq!(buckets.count.load(Ordering::Relaxed), CHUNK_BUCKETS);
        // It is made up for.
        set(&buckets, full * 2, 1);
        assert_eq!(buckets.count.load(Ordering::Relaxed), CHUNK_BUCKETS + 1);
    }
}
