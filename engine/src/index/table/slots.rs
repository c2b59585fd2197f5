//! The slots of one bucket form an open-addressing hash table with linear probing and Robin Hood
//! hashing (Celis 1986). Entries are sorted by key, which is also the order of their home slots.
//! Therefore, a search for a missing key ends after a few slots even in a nearly full array, and
//! the entries of one array can be moved to another array sequentially. Entries that do not fit at
//! the end of the array wrap around to the front.
//!
//! An array grows by an eighth of its length, instead of doubling. Therefore, between 78 % and 88 %
//! of the slots are in use, except in small arrays and after entries were removed.

#![allow(
    clippy::indexing_slicing,
    reason = "every index comes from `home` or `after`, so it is below the length of the array"
)]

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::index::document::Document;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// Maximum percentage of used slots. In a fuller array, an insertion would have to move too many
/// entries.
const MAX_LOAD_PERCENT: usize = 88;
/// Minimum length of an array that is not empty.
const MIN_SLOTS: usize = 8;
/// An array grows by its length divided by this number.
const GROWTH_DIVISOR: usize = 8;
/// Minimum length of an array that grows by [`GROWTH_DIVISOR`]. Shorter arrays double their length,
/// because their unused slots waste little memory.
const MIN_LARGE_SLOTS: usize = 64;
/// Distance between the two prefetched slots. Two slots of 40 bytes are longer than a cache line of
/// 64 bytes, so the second prefetched slot is in another cache line.
const PREFETCH_AHEAD_SLOTS: usize = 2;

/// The part of a namespace's hash that a slot stores: 96 bits. With a billion namespaces, the
/// probability that any two keys are equal is about 10⁻¹¹.
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

/// An entry of the table, with the document of the namespace if the document is cached. A slot has
/// 40 bytes.
#[derive(Default)]
pub(super) struct Slot {
    /// The high part of the [`SlotKey`]. The two parts of the key are stored as separate fields,
    /// because a field of type `SlotKey` would need 4 more bytes.
    key_high: u64,
    key_low: u32,
    segment: u32,
    offset: u32,
    /// The kind of the frame in the high bits, and the length of the frame in the low bits. No kind
    /// has the value 0, so a slot is free if `kind_and_bytes` is 0.
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
            // Slots are only created with valid kinds. If a kind were invalid, reads would report
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

    /// Returns the bits of the hash that select the bucket. The bucket is selected by the low bits
    /// of the result, because the high bits select the home slot.
    pub(super) fn bucket_bits(&self) -> u64 {
        self.key_high
    }
}

/// Returns the minimum length of an array for `entries` entries.
fn slots_for(entries: usize) -> usize {
    (entries * 100 / MAX_LOAD_PERCENT + 1).max(MIN_SLOTS)
}

/// The slots of one bucket: the array, and the number of used slots.
#[derive(Default)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    len: usize,
}

impl Slots {
    /// Returns the length of the array.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Returns the index of the home slot of `key`: the slot that `key` would have in an otherwise
    /// empty array.
    fn home(&self, key: SlotKey) -> usize {
        let length = self.slots.len() as u128;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the index is below the length of the array"
        )]
        let home = ((u128::from(key.high) * length) >> 64) as usize;
        home
    }

    /// Returns the index after `index`, or 0 if `index` is the last index of the array.
    fn after(&self, index: usize) -> usize {
        if index + 1 == self.slots.len() {
            0
        } else {
            index + 1
        }
    }

    /// Returns the distance of the entry in slot `index` from its home slot.
    fn displacement(&self, index: usize) -> usize {
        let home = self.home(self.slots[index].key());
        if index >= home {
            index - home
        } else {
            index + self.slots.len() - home
        }
    }

    /// Returns `Ok` with the index of the entry of `key`, or `Err` with the index at which the
    /// entry would have to be inserted.
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
            // If the entry at `index` sorts after `key`, the array does not contain `key`.
            let displacement = self.displacement(index);
            if displacement < distance || (displacement == distance && slot.key() > key) {
                return Err(index);
            }
            index = self.after(index);
        }
        Err(index)
    }

    /// Returns the entry of a namespace.
    pub(super) fn get(&self, hash: NamespaceHash) -> Option<&Slot> {
        let index = self.search(SlotKey::of(hash)).ok()?;
        Some(&self.slots[index])
    }

    /// Returns a mutable reference to the entry of a namespace. The caller must not change the key
    /// of the entry.
    pub(super) fn get_mut(&mut self, hash: NamespaceHash) -> Option<&mut Slot> {
        let index = self.search(SlotKey::of(hash)).ok()?;
        Some(&mut self.slots[index])
    }

    /// Makes the processor load the first slots that a search for the namespace reads. The returned
    /// value has no meaning, and only prevents the compiler from removing the reads.
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

    /// Inserts an entry. The namespace must not have an entry yet. Grows the array if necessary.
    pub(super) fn insert(&mut self, slot: Slot) {
        if (self.len + 1) * 100 > self.slots.len() * MAX_LOAD_PERCENT {
            self.grow();
        }
        self.shift_insert(slot);
    }

    /// Inserts an entry without growing the array. All entries between the index of the new entry
    /// and the next free slot are shifted by one slot.
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
        // The following entries are moved back by one slot, up to a free slot or an entry that is
        // in its home slot.
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

    /// Creates an array of `slots` slots that contains the entries in `with`. The array of `self`
    /// must be empty, and `with` must be sorted by key.
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

    /// Iterates over the entries in key order.
    fn into_slots(mut self) -> impl Iterator<Item = Slot> {
        let is_wrapped = |index: &usize| self.displacement(*index) > *index;
        let taken = (0..self.slots.len()).take_while(|index| !self.slots[*index].is_free());
        let wrapped = taken.take_while(is_wrapped).count();
        self.slots.rotate_left(wrapped);
        self.slots.into_iter().filter(|slot| !slot.is_free())
    }

    /// Reserves memory for `entries` entries. The array must be empty.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.fill(slots_for(entries), std::iter::empty());
    }

    /// Replaces the array with a shorter array if this removes more than an eighth of the slots.
    pub(super) fn shrink_to_fit(&mut self) {
        let needed = slots_for(self.len);
        if self.slots.len().saturating_sub(needed) > self.slots.len() / GROWTH_DIVISOR {
            let before = std::mem::take(self);
            self.fill(needed, before.into_slots());
        }
    }

    /// Moves the entries for which `is_moved` returns true to a new array.
    pub(super) fn split_off(&mut self, is_moved: impl Fn(&Slot) -> bool) -> Self {
        let before = std::mem::take(self);
        let (moved, stays): (Vec<_>, Vec<_>) = before.into_slots().partition(is_moved);
        let mut split = Self::default();
        for (half, slots) in [(&mut split, moved), (self, stays)] {
            half.fill(slots_for(slots.len()), slots.into_iter());
        }
        split
    }

    /// Iterates over the entries in slot order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.is_free())
    }
}

#[cfg(test)]
mod tests;
