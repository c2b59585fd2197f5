//! The slots of one bucket: an array in which an entry lies at the place that its hash
//! names, or soon behind it (linear probing, as Robin Hood: Celis 1986). Entries stand in
//! the order of their keys, which is also that of these places, so that one that is not
//! there is missed after a few slots even where nearly all are taken, and an array is
//! filled from another one from front to end. What does not fit at the end is at the
//! front.
//!
//! It grows by an eighth, and not to double its length: between 78 % and 88 % of the
//! slots are taken, but for the smallest arrays.

#![allow(
    clippy::indexing_slicing,
    reason = "every index is below the length of the array: it comes from `home` or `after`"
)]

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::index::document::Document;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// Of 100 slots, so many may be taken: with more, what is put there moves too many.
const MAX_TAKEN_PERCENT: usize = 88;
const MIN_SLOTS: usize = 8;
/// What an array grows by: its length divided by this.
const GROWTH_DIVISOR: usize = 8;
/// Below this it doubles: there is little to waste.
const SMALL_SLOTS: usize = 64;
/// A cache line further on, and a bit.
const TOUCHED_AHEAD: usize = 2;

/// What a slot knows a namespace by: 96 bits of its hash. Of a billion namespaces, two
/// have the same ones with a probability of 10⁻¹¹.
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
            reason = "the other bits are not kept"
        )]
        let low = low as u32;
        Self { high, low }
    }
}

/// An entry of the table, and the document that it points to, if that is in memory. 40
/// bytes.
#[derive(Default)]
pub(super) struct Slot {
    /// The parts of its [`SlotKey`], which as one would take 4 bytes more.
    key_high: u64,
    key_low: u32,
    segment: u32,
    offset: u32,
    /// The kind in the high bits, never 0; a slot that is free has 0.
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
            // Only kinds are put there. Were it something else, reads would report damage.
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

    /// Bits of the hash, of which the low ones say nothing of its home.
    pub(super) fn bucket_bits(&self) -> u64 {
        self.key_high
    }
}

/// The length of an array that these fit in, and not many more.
fn slots_for(entries: usize) -> usize {
    (entries * 100 / MAX_TAKEN_PERCENT + 1).max(MIN_SLOTS)
}

#[derive(Default)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    taken: usize,
}

impl Slots {
    /// The length of the array.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.slots.len()
    }

    /// The slot that `key` would have if it were alone.
    fn home(&self, key: SlotKey) -> usize {
        let length = self.slots.len() as u128;
        #[allow(clippy::cast_possible_truncation, reason = "below the length")]
        let home = ((u128::from(key.high) * length) >> 64) as usize;
        home
    }

    fn after(&self, index: usize) -> usize {
        if index + 1 == self.slots.len() {
            0
        } else {
            index + 1
        }
    }

    /// How far behind its home the entry in slot `index` lies.
    fn displacement(&self, index: usize) -> usize {
        let home = self.home(self.slots[index].key());
        if index >= home {
            index - home
        } else {
            index + self.slots.len() - home
        }
    }

    /// The slot of an entry; where there is none, the one that it would have.
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
            // Its home is behind that of the one that is looked for, or the same.
            let displacement = self.displacement(index);
            if displacement < distance || (displacement == distance && slot.key() > key) {
                return Err(index);
            }
            index = self.after(index);
        }
        Err(index)
    }

    pub(super) fn get(&self, hash: NamespaceHash) -> Option<&Slot> {
        let index = self.search(SlotKey::of(hash)).ok()?;
        Some(&self.slots[index])
    }

    pub(super) fn get_mut(&mut self, hash: NamespaceHash) -> Option<&mut Slot> {
        let index = self.search(SlotKey::of(hash)).ok()?;
        Some(&mut self.slots[index])
    }

    /// Has the processor fetch the slots that a search for this looks at first.
    pub(super) fn touch(&self, hash: NamespaceHash) -> u32 {
        let home = self.home(SlotKey::of(hash));
        let slots = [self.slots.get(home), self.slots.get(home + TOUCHED_AHEAD)];
        slots
            .into_iter()
            .flatten()
            .map(|slot| slot.kind_and_bytes)
            .fold(0, u32::wrapping_add)
    }

    /// Puts an entry there whose namespace has none.
    pub(super) fn insert(&mut self, slot: Slot) {
        if (self.taken + 1) * 100 > self.slots.len() * MAX_TAKEN_PERCENT {
            self.grow();
        }
        self.place(slot);
    }

    /// Everything from its place to the next free slot moves on by one.
    fn place(&mut self, slot: Slot) {
        let (Ok(index) | Err(index)) = self.search(slot.key());
        // There is a free one: what is put there grows the array first.
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
        self.taken += 1;
    }

    pub(super) fn remove(&mut self, hash: NamespaceHash) -> Option<Slot> {
        let mut index = self.search(SlotKey::of(hash)).ok()?;
        let removed = std::mem::take(&mut self.slots[index]);
        self.taken -= 1;
        // Those behind it that are not at home move up.
        loop {
            let next = self.after(index);
            if self.slots[next].is_free() || self.displacement(next) == 0 {
                return Some(removed);
            }
            self.slots.swap(index, next);
            index = next;
        }
    }

    fn grow(&mut self) {
        let slots = match self.slots.len() {
            few if few < SMALL_SLOTS => (few * 2).max(MIN_SLOTS),
            many => many + many / GROWTH_DIVISOR,
        };
        let before = std::mem::take(self);
        self.fill(slots, before.into_slots());
    }

    /// Replaces an empty array by one of this length, in which these are, that come in
    /// their order.
    fn fill(&mut self, slots: usize, with: impl Iterator<Item = Slot>) {
        self.slots = (0..slots).map(|_| Slot::default()).collect();
        let mut next = 0;
        for slot in with {
            let index = self.home(slot.key()).max(next);
            if index < slots {
                self.slots[index] = slot;
                self.taken += 1;
                next = index + 1;
            } else {
                self.place(slot);
            }
        }
    }

    /// All of them, in their order.
    fn into_slots(mut self) -> impl Iterator<Item = Slot> {
        let is_wrapped = |index: &usize| self.displacement(*index) > *index;
        let taken = (0..self.slots.len()).take_while(|index| !self.slots[*index].is_free());
        let wrapped = taken.take_while(is_wrapped).count();
        self.slots.rotate_left(wrapped);
        self.slots.into_iter().filter(|slot| !slot.is_free())
    }

    /// Makes room for this many, in an array that is empty.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.fill(slots_for(entries), std::iter::empty());
    }

    /// Makes the array smaller, where much of it is free.
    pub(super) fn fit(&mut self) {
        let needed = slots_for(self.taken);
        if self.slots.len().saturating_sub(needed) > self.slots.len() / GROWTH_DIVISOR {
            let before = std::mem::take(self);
            self.fill(needed, before.into_slots());
        }
    }

    /// Takes out those that `goes` says, into an array of their own.
    pub(super) fn split_off(&mut self, goes: impl Fn(&Slot) -> bool) -> Self {
        let before = std::mem::take(self);
        let (gone, stays): (Vec<_>, Vec<_>) = before.into_slots().partition(goes);
        let mut split = Self::default();
        for (half, slots) in [(&mut split, gone), (self, stays)] {
            half.fill(slots_for(slots.len()), slots.into_iter());
        }
        split
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.is_free())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn entry(revision: u64) -> FrameLocation {
        FrameLocation {
            revision,
            segment: SegmentId::new(3),
            offset: Offset::from_u32(28),
            bytes: 7,
            kind: EntryKind::Put,
        }
    }

    #[test]
    fn a_slot_takes_40_bytes_and_keeps_all_of_an_entry() {
        assert_eq!(size_of::<Slot>(), 40);
        let hash = NamespaceHash::of(&[7; 16], "u", "c");
        let kinds = [
            EntryKind::Put,
            EntryKind::PutWithBlobs,
            EntryKind::Delete,
            EntryKind::Damaged,
        ];
        for kind in kinds {
            let entry = FrameLocation {
                revision: u64::MAX,
                segment: SegmentId::new(u32::MAX - 1),
                offset: Offset::from_u32(u32::MAX - 2),
                bytes: FrameLocation::MAX_BYTES,
                kind,
            };
            assert_eq!(Slot::new(hash, &entry, None).entry(), entry);
        }
    }

    #[test]
    fn it_holds_what_a_map_holds() {
        let mut slots = Slots::default();
        let mut model = HashMap::new();
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for step in 0..60_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let n = random % 700;
            let hash = NamespaceHash::of(&[7; 16], &n.to_string(), "c");
            let found = slots.get(hash).map(|slot| slot.entry().revision);
            assert_eq!(found, model.get(&n).copied());
            if (random >> 32).is_multiple_of(3) {
                let removed = slots.remove(hash).map(|slot| slot.entry().revision);
                assert_eq!(removed, model.remove(&n));
            } else if let Some(slot) = slots.get_mut(hash) {
                *slot = Slot::new(hash, &entry(step), None);
                model.insert(n, step);
            } else {
                slots.insert(Slot::new(hash, &entry(step), None));
                model.insert(n, step);
            }
            assert_eq!(slots.taken, model.len());
        }
        assert_eq!(slots.iter().count(), model.len());
        let odd = |slot: &Slot| slot.entry().revision % 2 == 1;
        let gone = slots.split_off(odd);
        assert!(gone.iter().all(odd) && !slots.iter().any(odd));
        for (n, revision) in &model {
            let hash = NamespaceHash::of(&[7; 16], &n.to_string(), "c");
            let half = if revision % 2 == 1 { &gone } else { &slots };
            assert_eq!(half.get(hash).map(|s| s.entry().revision), Some(*revision));
        }
    }

    #[test]
    fn most_slots_are_taken_at_any_size() {
        let mut slots = Slots::default();
        for n in 0..5000_u64 {
            let hash = NamespaceHash::of(&[7; 16], &n.to_string(), "c");
            slots.insert(Slot::new(hash, &entry(n), None));
            let taken = slots.taken * 100 / slots.slots.len();
            let least = if n < 100 { 10 } else { 77 };
            assert!(
                (least..=MAX_TAKEN_PERCENT).contains(&taken),
                "{taken} % of {n}"
            );
        }
    }
}
