//! What each segment of the log holds that is current, and what is only in the way:
//! counted as frames become current and stop being so, and what compaction chooses by.
//!
//! It knows places and sizes, no documents. Only the committer changes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::model::ids::SegmentId;

/// Sealed segments that may be far shorter than a full one, before they are merged.
const MAX_SHORT_SEGMENTS: usize = 8;

/// What one segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentUsage {
    /// Of all its frames.
    pub(crate) bytes: u64,
    pub(crate) frames: u32,
    /// Current documents.
    pub(crate) documents: u32,
    pub(crate) document_bytes: u64,
    /// Current deletes.
    pub(crate) tombstones: u32,
    pub(crate) tombstone_bytes: u64,
    /// Frames that cannot be read and may be current: it must stay as it is.
    pub(crate) damaged: u32,
    /// Its tombstones were looked at and are still needed.
    pub(crate) needs_tombstones: bool,
    /// The disk did not give back what is in it.
    is_passed_over: bool,
}

impl SegmentUsage {
    /// Whether a frame in it is current.
    pub(crate) fn is_needed(&self) -> bool {
        self.documents > 0 || self.tombstones > 0 || self.damaged > 0
    }

    /// Whether it holds frames that are not current.
    pub(crate) fn has_stale(&self) -> bool {
        self.frames > self.documents + self.tombstones
    }

    /// Bytes that rewriting it takes elsewhere, at most.
    pub(crate) fn current_bytes(&self) -> u64 {
        self.document_bytes + self.tombstone_bytes
    }

    /// Bytes that rewriting it may give back.
    pub(crate) fn reclaimable_bytes(&self) -> u64 {
        let tombstones = if self.needs_tombstones {
            self.tombstone_bytes
        } else {
            0
        };
        self.bytes
            .saturating_sub(self.document_bytes)
            .saturating_sub(tombstones)
    }

    fn count(&mut self, entry: &FrameLocation) {
        match entry.kind {
            EntryKind::Put | EntryKind::PutWithBlobs => {
                self.documents += 1;
                self.document_bytes += u64::from(entry.bytes);
            }
            EntryKind::Delete => {
                self.tombstones += 1;
                self.tombstone_bytes += u64::from(entry.bytes);
            }
            EntryKind::Damaged | EntryKind::Lost => self.damaged += 1,
        }
    }

    fn discount(&mut self, entry: &FrameLocation) {
        let bytes = u64::from(entry.bytes);
        match entry.kind {
            EntryKind::Put | EntryKind::PutWithBlobs => {
                self.documents = self.documents.saturating_sub(1);
                self.document_bytes = self.document_bytes.saturating_sub(bytes);
            }
            EntryKind::Delete => {
                self.tombstones = self.tombstones.saturating_sub(1);
                self.tombstone_bytes = self.tombstone_bytes.saturating_sub(bytes);
            }
            EntryKind::Damaged | EntryKind::Lost => {
                self.damaged = self.damaged.saturating_sub(1);
            }
        }
    }
}

/// A segment that is to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompactionVictim {
    pub(crate) id: SegmentId,
    /// However little that gives back.
    pub(crate) whole: bool,
}

#[derive(Default)]
pub(crate) struct SegmentAccounting(Mutex<SegmentUsages>);

/// The segments, by id.
#[derive(Debug, Default)]
pub(crate) struct SegmentUsages {
    held: BTreeMap<SegmentId, SegmentUsage>,
    /// The one that is being written.
    active: Option<SegmentId>,
    /// Bytes that stopped being current since compaction was told to look.
    died_bytes: u64,
}

impl SegmentAccounting {
    pub(crate) fn lock(&self) -> MutexGuard<'_, SegmentUsages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentUsages {
    /// Takes up a segment as it was found.
    pub(crate) fn found(&mut self, id: SegmentId, entries: &[SummaryEntry]) {
        let held = self.held.entry(id).or_default();
        for entry in entries {
            held.frames += 1;
            held.bytes += u64::from(entry.bytes);
            // It has no namespace, so it will never be known to be stale.
            held.damaged += u32::from(entry.kind == EntryKind::Lost);
        }
    }

    /// This is the segment that is being written.
    pub(crate) fn begun(&mut self, active: Option<SegmentId>) {
        self.active = active;
    }

    /// Takes up a segment of which nothing can be read.
    pub(crate) fn found_lost(&mut self, id: SegmentId, bytes: u64) {
        let held = self.held.entry(id).or_default();
        held.bytes += bytes;
        held.damaged += 1;
    }

    /// A frame that was found is current.
    pub(crate) fn is_current(&mut self, entry: &FrameLocation) {
        self.held.entry(entry.segment).or_default().count(entry);
    }

    /// A frame was written, and is current.
    pub(crate) fn appended(&mut self, entry: &FrameLocation) {
        self.active = Some(entry.segment);
        let held = self.held.entry(entry.segment).or_default();
        held.frames += 1;
        held.bytes += u64::from(entry.bytes);
        held.count(entry);
    }

    /// A frame is not current any more.
    pub(crate) fn superseded(&mut self, entry: &FrameLocation) {
        self.died_bytes += u64::from(entry.bytes);
        if let Some(held) = self.held.get_mut(&entry.segment) {
            held.discount(entry);
        }
    }

    /// A segment is no part of the log any more.
    pub(crate) fn retired(&mut self, id: SegmentId) {
        self.held.remove(&id);
        // Tombstones were needed for the sake of older frames, which may have gone.
        for held in self.held.values_mut() {
            held.needs_tombstones = false;
        }
    }

    /// Something in it cannot be read: it must stay as it is.
    pub(crate) fn spare(&mut self, id: SegmentId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.damaged += 1;
        }
    }

    /// The disk did not give back what is in it: the others come first.
    pub(crate) fn pass_over(&mut self, id: SegmentId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.is_passed_over = true;
        }
    }

    /// Its tombstones cannot go yet.
    pub(crate) fn keep_tombstones(&mut self, id: SegmentId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.needs_tombstones = true;
        }
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<SegmentUsage> {
        self.held.get(&id).copied()
    }

    /// The segment that is being written.
    pub(crate) fn active(&self) -> Option<SegmentId> {
        self.active
    }

    /// Bytes that stopped being current since compaction was told to look.
    pub(crate) fn died_bytes(&self) -> u64 {
        self.died_bytes
    }

    /// Compaction is told to look.
    pub(crate) fn look_again(&mut self) {
        self.died_bytes = 0;
    }

    /// What all segments hold together.
    pub(crate) fn sum(&self) -> SegmentUsage {
        let mut sum = SegmentUsage::default();
        for held in self.held.values() {
            sum.bytes += held.bytes;
            sum.frames = sum.frames.saturating_add(held.frames);
            sum.documents = sum.documents.saturating_add(held.documents);
            sum.document_bytes += held.document_bytes;
            sum.tombstones = sum.tombstones.saturating_add(held.tombstones);
            sum.tombstone_bytes += held.tombstone_bytes;
            sum.damaged = sum.damaged.saturating_add(held.damaged);
        }
        sum
    }

    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }

    /// All segments, by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (SegmentId, SegmentUsage)> + '_ {
        self.held.iter().map(|(id, held)| (*id, *held))
    }

    /// The segments that are not being written, by id.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (SegmentId, SegmentUsage)> + '_ {
        self.all().filter(|(id, _)| Some(*id) != self.active)
    }

    /// Those of them that can be rewritten, as far as is known.
    fn candidates(&self) -> impl Iterator<Item = (SegmentId, SegmentUsage)> + '_ {
        self.sealed()
            .filter(|(_, held)| held.damaged == 0 && !held.is_passed_over)
    }

    /// Whether the log has outgrown what it may take.
    pub(crate) fn is_overgrown(&self, segment_bytes: u64) -> bool {
        let sum = self.sum();
        sum.bytes > 2 * (sum.document_bytes + segment_bytes / 2)
    }

    /// The segment to rewrite on a full disk: the one that takes least room before it
    /// gives back more.
    pub(crate) fn cheapest(&self) -> Option<CompactionVictim> {
        self.candidates()
            .filter(|(_, held)| held.reclaimable_bytes() > held.current_bytes() / 8)
            .min_by_key(|(_, held)| held.current_bytes())
            .map(|(id, _)| CompactionVictim { id, whole: false })
    }

    /// The segment that is to be rewritten next, if one is.
    ///
    /// One in which nothing is current costs nothing. Otherwise what is in the way may
    /// grow to half of what is current, and a quarter of a segment, before the segment
    /// that gives back most for its size is rewritten: with the segment that is being
    /// written, the log stays below twice what is current, and one segment.
    pub(crate) fn victim(&self, segment_bytes: u64) -> Option<CompactionVictim> {
        let give_back = |(id, _)| CompactionVictim { id, whole: false };
        if let Some(empty) = self.candidates().find(|(_, held)| !held.is_needed()) {
            return Some(give_back(empty));
        }
        let reclaimable: u64 = self
            .candidates()
            .map(|(_, held)| held.reclaimable_bytes())
            .sum();
        if reclaimable > self.sum().document_bytes / 2 + segment_bytes / 4 {
            let share = |held: &SegmentUsage| per_mille(held.reclaimable_bytes(), held.bytes);
            return self
                .candidates()
                .max_by_key(|(_, held)| share(held))
                .map(give_back);
        }
        // Each life that ends leaves a segment, however short it was.
        let is_short = |held: &SegmentUsage| held.bytes < segment_bytes / 4;
        let mut short = self.candidates().filter(|(_, held)| is_short(held));
        let first = short.next();
        if short.count() < MAX_SHORT_SEGMENTS {
            return None;
        }
        first.map(|(id, _)| CompactionVictim { id, whole: true })
    }
}

fn per_mille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000) / whole.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1000;

    fn entry(segment: u32, kind: EntryKind, bytes: u32) -> FrameLocation {
        FrameLocation {
            revision: 1,
            segment: SegmentId::new(segment),
            offset: crate::model::ids::Offset::from_u32(28),
            bytes,
            kind,
        }
    }

    fn victim(segments: &SegmentUsages) -> Option<u32> {
        segments.victim(SEGMENT).map(|victim| victim.id.get())
    }

    /// Segments, each full of puts of which so many bytes are stale.
    fn segments(stale: &[u32]) -> SegmentUsages {
        let mut segments = SegmentUsages::default();
        for (id, stale) in (1..).zip(stale) {
            for bytes in [*stale, 1000 - stale]
                .into_iter()
                .filter(|bytes| *bytes > 0)
            {
                segments.appended(&entry(id, EntryKind::Put, bytes));
            }
            if *stale > 0 {
                segments.superseded(&entry(id, EntryKind::Put, *stale));
            }
        }
        // The one that is being written.
        segments.appended(&entry(100, EntryKind::Put, 1));
        segments
    }

    #[test]
    fn what_is_stale_may_grow_to_half_of_what_is_current_and_a_quarter_of_a_segment() {
        assert_eq!(victim(&segments(&[400, 300, 300])), None);
        assert_eq!(victim(&segments(&[500, 700, 600])), Some(2));
    }

    #[test]
    fn a_segment_that_holds_nothing_current_goes_at_once() {
        assert_eq!(victim(&segments(&[0, 0, 0, 1000])), Some(4));
    }

    #[test]
    fn the_segment_that_is_written_and_damaged_ones_are_left_alone() {
        let mut segments = segments(&[900, 800]);
        segments.spare(SegmentId::new(1));
        assert_eq!(victim(&segments), Some(2));
        segments.pass_over(SegmentId::new(2));
        assert_eq!(victim(&segments), None);
        let active = entry(100, EntryKind::Put, 1);
        segments.superseded(&active);
        assert_eq!(victim(&segments), None);
    }

    #[test]
    fn tombstones_that_are_needed_do_not_count_until_a_segment_goes() {
        let mut segments = segments(&[0, 1000]);
        for _ in 0..10 {
            segments.appended(&entry(3, EntryKind::Delete, 100));
        }
        segments.appended(&entry(100, EntryKind::Put, 1));
        segments.retired(SegmentId::new(2));
        assert_eq!(victim(&segments), Some(3));
        segments.keep_tombstones(SegmentId::new(3));
        assert_eq!(victim(&segments), None);
        segments.retired(SegmentId::new(1));
        assert_eq!(victim(&segments), Some(3));
    }

    #[test]
    fn short_segments_are_merged_once_they_are_many() {
        let mut segments = SegmentUsages::default();
        for id in 1..=8 {
            segments.appended(&entry(id, EntryKind::Put, 10));
        }
        segments.appended(&entry(100, EntryKind::Put, 1));
        assert_eq!(victim(&segments), None);
        segments.appended(&entry(101, EntryKind::Put, 1));
        assert_eq!(victim(&segments), Some(1));
    }
}
