//! The slots of one bucket: an open-addressing hash table with linear probing and Robin Hood
//! hashing (Celis 1986). Entries are sorted by their keys, which is also the order of their
//! home slots. Therefore a search for a missing key ends after a few slots even in a nearly
//! full array, and an array can be filled from another one sequentially. Entries that do not
//! fit at the end wrap around to the front.
//!
//! Instead of doubling, an array grows by an eighth. Between 78 % and 88 % of the slots are in
//! use, except in the smallest arrays.

#![allow(
    clippy::indexing_slicing,
    reason = "every index is below the length of the array: it comes from `home` or `after`"
)]

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::index::document::Document;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// Maximum percentage of used slots. With more, an insertion has to move too many entries.
const MAX_LOAD_PERCENT: usize = 88;
/// Minimum length of an array that is not empty.
const MIN_SLOTS: usize = 8;
/// An array grows by its length divided by this.
const GROWTH_DIVISOR: usize = 8;
/// Arrays shorter than this double their length, because they waste little memory.
const MIN_LARGE_SLOTS: usize = 64;
/// Distance to the second prefetched slot: a little more than a cache line (64 bytes, a slot
/// has 40).
const PREFETCH_AHEAD_SLOTS: usize = 2;

/// The part of a namespace's hash that a slot stores: 96 bits. With a billion namespaces, the
/// probability that any two share them is about 10⁻¹¹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SlotKey {
    high: u64,
    low: u32,
}

impl SlotKey {
    fn of(hash: NamespaceHash) -> Self {
        let (low, high) = hash.halves();
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the other bits are not stored"
        )]
        let low = low as u32;
        Self { high, low }
    }
}

/// An entry of the table, with its document if it is cached. 40 bytes.
#[derive(Default)]
pub(super) struct Slot {
    /// The parts of the [`SlotKey`]. Storing the struct itself would need 4 bytes more.
    key_high: u64,
    key_low: u32,
    segment: u32,
    offset: u32,
    /// The frame's kind in the high bits, its length in the low ones. A kind is never 0, so 0
    /// means that the slot is free.
    kind_and_bytes: u32,
    revision: u64,
    pub(super) document: Option<Document>,
}

impl Slot {
    pub(super) fn new(
        hash: NamespaceHash,
        entry: &FrameLocation,
        document: Option<Document>,
    ) -> Self {
        let kind = u32::from(entry.kind.to_byte()) << FrameLocation::LENGTH_BITS;
        let key = SlotKey::of(hash);
        Self {
            key_high: key.high,
            key_low: key.low,
            segment: entry.segment.get(),
            offset: entry.offset.get(),
            kind_and_bytes: kind | entry.bytes.min(FrameLocation::MAX_BYTES),
            revision: entry.revision,
            document,
        }
    }

    pub(super) fn entry(&self) -> FrameLocation {
        let kind =
            u8::try_from(self.kind_and_bytes >> FrameLocation::LENGTH_BITS).unwrap_or_default();
        FrameLocation {
            revision: self.revision,
            segment: SegmentId::new(self.segment),
            offset: Offset::from_u32(self.offset),
            bytes: self.kind_and_bytes & FrameLocation::MAX_BYTES,
            // Slots are only created with valid kinds. An invalid one would make reads report
            // damage.
            kind: EntryKind::from_byte(kind).unwrap_or(EntryKind::Damaged),
        }
    }

    fn key(&self) -> SlotKey {
        SlotKey {
            high: self.key_high,
            low: self.key_low,
        }
    }

    fn is_free(&self) -> bool {
        self.kind_and_bytes == 0
    }

    /// The bits of the hash that select the bucket. The low bits are used, because the high
    /// bits select the home slot.
    pub(super) fn bucket_bits(&self) -> u64 {
        self.key_high
    }
}

/// Length of an array for this many entries, with little unused space.
fn slots_for(entries: usize) -> usize {
    (entries * 100 / MAX_LOAD_PERCENT + 1).max(MIN_SLOTS)
}

/// The array, and the number of its used slots.
#[derive(Default)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    len: usize,
}

impl Slots {
    /// Length of the array.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The index of the slot that `key` would have in an otherwise empty array.
    fn home(&self, key: SlotKey) -> usize {
        let length = self.slots.len() as u128;
        #[allow(clippy::cast_possible_truncation, reason = "below the length")]
        let home = ((u128::from(key.high) * length) >> 64) as usize;
        home
    }

    /// The next index, which wraps around at the end.
    fn after(&self, index: usize) -> usize {
        if index + 1 == self.slots.len() {
            0
        } else {
            index + 1
        }
    }

    /// The distance of the entry in slot `index` from its home slot.
    fn displacement(&self, index: usize) -> usize {
        let home = self.home(self.slots[index].key());
        if index >= home {
            index - home
        } else {
            index + self.slots.len() - home
        }
    }

    /// The index of an entry, or the index where it would have to be inserted.
    fn search(&self, key: SlotKey) -> Result<usize, usize> {
        let mut index = self.home(key);
        for distance in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.is_free() {
                return Err(index);
            }
            if slot.key() == key {
                return Ok(index);
            }
            // The entry sorts after `key`, so `key` is not in the array.
            let displacement = self.displacement(index);
            if displacement < distance || (displacement == distance && slot.key() > key) {
                return Err(index);
            }
            index = self.after(index);
        }
        Err(index)
    }

    /// The entry of a namespace.
    pub(super) fn get(&self, hash: NamespaceHash) -> Option<&Slot> {
        let index = self.search(SlotKey::of(hash)).ok()?;
        Some(&self.slots[index])
    }

    /// The entry of a namespace, to be changed in place. Its key must stay the same.
    pub(super) fn get_mut(&mut self, hash: NamespaceHash) -> Option<&mut Slot> {
        let index = self.search(SlotKey::of(hash)).ok()?;
        Some(&mut self.slots[index])
    }

    /// Makes the processor load the slots that a search begins with. The returned value only
    /// keeps the compiler from removing the reads.
    pub(super) fn prefetch(&self, hash: NamespaceHash) -> u32 {
        let home = self.home(SlotKey::of(hash));
        let slots = [
            self.slots.get(home),
            self.slots.get(home + PREFETCH_AHEAD_SLOTS),
        ];
        slots
            .into_iter()
            .flatten()
            .map(|slot| slot.kind_and_bytes)
            .fold(0, u32::wrapping_add)
    }

    /// Inserts an entry for a namespace that has none. Grows the array if necessary.
    pub(super) fn insert(&mut self, slot: Slot) {
        if (self.len + 1) * 100 > self.slots.len() * MAX_LOAD_PERCENT {
            self.grow();
        }
        self.shift_insert(slot);
    }

    /// Inserts an entry without growing the array. All entries from its index to the next free
    /// slot are shifted by one.
    fn shift_insert(&mut self, slot: Slot) {
        let (Ok(index) | Err(index)) = self.search(slot.key());
        // A free slot exists, because `insert` grows the array if necessary.
        if let Some(free) = self.slots[index..].iter().position(Slot::is_free) {
            self.slots[index..=index + free].rotate_right(1);
        } else {
            let free = self.slots.iter().position(Slot::is_free);
            self.slots[..=free.unwrap_or_default()].rotate_right(1);
            let last = self.slots.len() - 1;
            self.slots.swap(0, last);
            self.slots[index..].rotate_right(1);
        }
        self.slots[index] = slot;
        self.len += 1;
    }

    /// Removes the entry of a namespace and returns it.
    pub(super) fn remove(&mut self, hash: NamespaceHash) -> Option<Slot> {
        let mut index = self.search(SlotKey::of(hash)).ok()?;
        let removed = std::mem::take(&mut self.slots[index]);
        self.len -= 1;
        // Shift the following entries back by one, up to the first one in its home slot.
        loop {
            let next = self.after(index);
            if self.slots[next].is_free() || self.displacement(next) == 0 {
                return Some(removed);
            }
            self.slots.swap(index, next);
            index = next;
        }
    }

    /// Replaces the array with a longer one.
    fn grow(&mut self) {
        let slots = match self.slots.len() {
            few if few < MIN_LARGE_SLOTS => (few * 2).max(MIN_SLOTS),
            many => many + many / GROWTH_DIVISOR,
        };
        let before = std::mem::take(self);
        self.fill(slots, before.into_slots());
    }

    /// Replaces an empty array with one of `slots` slots that contains `with`, sorted by key.
    fn fill(&mut self, slots: usize, with: impl Iterator<Item = Slot>) {
        self.slots = (0..slots).map(|_| Slot::default()).collect();
        let mut next = 0;
        for slot in with {
            let index = self.home(slot.key()).max(next);
            if index < slots {
                self.slots[index] = slot;
                self.len += 1;
                next = index + 1;
            } else {
                self.shift_insert(slot);
            }
        }
    }

    /// Iterates over the entries in the order of their keys.
    fn into_slots(mut self) -> impl Iterator<Item = Slot> {
        let is_wrapped = |index: &usize| self.displacement(*index) > *index;
        let taken = (0..self.slots.len()).take_while(|index| !self.slots[*index].is_free());
        let wrapped = taken.take_while(is_wrapped).count();
        self.slots.rotate_left(wrapped);
        self.slots.into_iter().filter(|slot| !slot.is_free())
    }

    /// Reserves memory for this many entries. The array must be empty.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.fill(slots_for(entries), std::iter::empty());
    }

    /// Replaces the array with a shorter one, if much of it is unused.
    pub(super) fn shrink_to_fit(&mut self) {
        let needed = slots_for(self.len);
        if self.slots.len().saturating_sub(needed) > self.slots.len() / GROWTH_DIVISOR {
            let before = std::mem::take(self);
            self.fill(needed, before.into_slots());
        }
    }

    /// Moves the entries that `is_moved` selects to a new array.
    pub(super) fn split_off(&mut self, is_moved: impl Fn(&Slot) -> bool) -> Self {
        let before = std::mem::take(self);
        let (moved, stays): (Vec<_>, Vec<_>) = before.into_slots().partition(is_moved);
        let mut split = Self::default();
        for (half, slots) in [(&mut split, moved), (self, stays)] {
            half.fill(slots_for(slots.len()), slots.into_iter());
        }
        split
    }

    /// Iterates over the entries in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.is_free())
    }
}

#[cfg(test)]
mod tests;
