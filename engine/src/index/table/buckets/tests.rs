use std::collections::{HashMap, HashSet};

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::index::table::buckets::*;

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
    buckets.update(hash(n), |existing| match existing {
        None => (SlotChange::Insert(slot(n, revision)), None),
        Some(existing) => {
            let before = existing.entry().revision;
            *existing = slot(n, revision);
            (SlotChange::Keep, Some(before))
        }
    })
}

fn remove(buckets: &Buckets, n: u64) -> Option<u64> {
    buckets.update(hash(n), |slot| {
        (SlotChange::Remove, slot.map(|slot| slot.entry().revision))
    })
}

#[test]
fn bucket_fills_one_cache_line() {
    assert_eq!(size_of::<Bucket>(), 64);
}

#[test]
fn buckets_behave_like_a_map_through_every_split() {
    let buckets = Buckets::default();
    let mut model = HashMap::new();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for step in 0..300_000_u64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let n = random % 120_000;
        // Only a quarter of the steps are removals, so the map grows.
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
fn reserved_buckets_are_not_split_by_as_many_insertions() {
    for entries in [0, 1, 1000, 24_576, 24_577, 40_000, 60_000] {
        let mut buckets = Buckets::default();
        buckets.reserve(entries);
        let count = *buckets.count.get_mut();
        let room = |buckets: &Buckets| -> usize {
            let room = |index| buckets.bucket(index).read().capacity();
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
            "a bucket was split, although {entries} entries were reserved"
        );
        let grown = room(&buckets) - reserved;
        let most = reserved / 50 + count * 4;
        assert!(grown <= most, "{grown} more for {entries}");
        for n in 0..entries as u64 / 2 {
            remove(&buckets, n);
        }
        buckets.shrink_to_fit();
        let left = entries / 2;
        assert!(room(&buckets) <= left * 14 / 10 + count * 8, "for {left}");
        for n in 0..entries as u64 {
            assert_eq!(get(&buckets, n), (n >= entries as u64 / 2).then_some(n));
        }
    }
}

#[test]
fn readers_find_every_entry_during_splits() {
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
fn iteration_visits_no_entry_twice_if_a_split_is_due() {
    let buckets = Buckets::default();
    let is_first = |n: &u64| bucket_of(hash(*n).halves().1, CHUNK_BUCKETS) == 0;
    let full = (CHUNK_BUCKETS * AVERAGE_ENTRIES) as u64;
    for n in 0..full {
        set(&buckets, n, n);
    }
    // The insertion of `next` requires a split of the first bucket. The test inserts `next` during
    // the iteration, after the first bucket was visited.
    let mut next = (full..full * 2).find(is_first);
    let mut seen = HashSet::new();
    buckets.for_each(|slot| {
        let n = slot.entry().revision;
        assert!(seen.insert(n), "entry {n} was visited twice");
        if !is_first(&n)
            && let Some(next) = next.take()
        {
            set(&buckets, next, next);
        }
    });
    assert_eq!(buckets.count.load(Ordering::Relaxed), CHUNK_BUCKETS);
    // The next insertion performs the split that was skipped during the iteration.
    set(&buckets, full * 2, 1);
    assert_eq!(buckets.count.load(Ordering::Relaxed), CHUNK_BUCKETS + 1);
}
