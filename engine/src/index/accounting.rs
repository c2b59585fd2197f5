//! Counts the current and stale bytes of each segment, and selects the segments to compact.
//!
//! This module uses the locations and sizes of frames, but does not read documents. While a store
//! is open, the committer updates the counts, and compaction marks segments that it cannot rewrite.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::file_header::HEADER_BYTES;
use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::model::ids::SegmentId;

/// Maximum number of short sealed segments. A segment is short if it has less than a quarter of the
/// configured segment size. If the log has more than this number of short sealed segments,
/// compaction merges them.
const MAX_SHORT_SEGMENTS: usize = 8;

/// The current and stale frames of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentUsage {
    /// Number of bytes of all frames in the segment.
    pub(crate) bytes: u64,
    /// Number of all frames in the segment except marks.
    pub(crate) frames: u32,
    /// Number of current documents in the segment.
    pub(crate) documents: u32,
    /// Number of bytes of the frames of current documents.
    pub(crate) document_bytes: u64,
    /// Number of current tombstones in the segment.
    pub(crate) tombstones: u32,
    /// Number of bytes of the current tombstones.
    pub(crate) tombstone_bytes: u64,
    /// Number of damaged frames that may be current. A segment with a damaged frame that may be
    /// current must not be rewritten.
    pub(crate) damaged: u32,
    /// True if compaction has found that tombstones of the segment still hide older frames.
    pub(crate) needs_tombstones: bool,
    /// True if the disk did not return a frame of the segment when compaction or an erasure read
    /// the frame. Background compaction skips a deferred segment until the store is opened again.
    /// An explicit compaction or an erasure tries again to rewrite a deferred segment.
    is_deferred: bool,
}

impl SegmentUsage {
    /// Returns the end of the segment's frames, as an offset in the segment file.
    pub(crate) fn end(&self) -> u64 {
        HEADER_BYTES + self.bytes
    }

    /// Returns true if a frame in the segment is current or may be current.
    pub(crate) fn is_needed(&self) -> bool {
        self.documents > 0 || self.tombstones > 0 || self.damaged > 0
    }

    /// Returns true if the segment contains frames that are neither current documents nor current
    /// tombstones.
    pub(crate) fn has_stale(&self) -> bool {
        self.frames > self.documents + self.tombstones
    }

    /// Returns the maximum number of bytes that are copied if the segment is rewritten.
    pub(crate) fn current_bytes(&self) -> u64 {
        self.document_bytes + self.tombstone_bytes
    }

    /// Estimates how many bytes rewriting the segment frees. Tombstones count as freed unless
    /// compaction has found that they are still needed.
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

    /// Counts a frame as current.
    fn count(&mut self, entry: &FrameLocation) {
        match entry.kind {
            EntryKind::Put | EntryKind::PutWithMetadata => {
                self.documents += 1;
                self.document_bytes += u64::from(entry.bytes);
            }
            EntryKind::Delete => {
                self.tombstones += 1;
                self.tombstone_bytes += u64::from(entry.bytes);
            }
            EntryKind::Damaged | EntryKind::Lost => self.damaged += 1,
            EntryKind::Mark => {}
        }
    }

    /// Reverts [`Self::count`] for a frame that has become stale.
    fn discount(&mut self, entry: &FrameLocation) {
        let bytes = u64::from(entry.bytes);
        match entry.kind {
            EntryKind::Put | EntryKind::PutWithMetadata => {
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
            EntryKind::Mark => {}
        }
    }
}

/// A segment that compaction should rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompactionVictim {
    pub(crate) id: SegmentId,
    /// True if the segment must be rewritten even if the rewrite frees few bytes.
    pub(crate) is_forced: bool,
}

/// The usage of all segments, protected by a mutex.
#[derive(Default)]
pub(crate) struct SegmentAccounting(Mutex<SegmentUsages>);

/// The usage of all segments, by segment id.
#[derive(Debug, Default)]
pub(crate) struct SegmentUsages {
    segments: BTreeMap<SegmentId, SegmentUsage>,
    /// The id of the active segment.
    active: Option<SegmentId>,
    /// Number of bytes that became stale since the last call to [`Self::reset_newly_stale`].
    newly_stale_bytes: u64,
}

impl SegmentAccounting {
    pub(crate) fn lock(&self) -> MutexGuard<'_, SegmentUsages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentUsages {
    /// Adds a segment that was read from the log. The current frames of the segment are counted
    /// later, by [`Self::add_current`].
    pub(crate) fn add_segment(&mut self, id: SegmentId, entries: &[SummaryEntry]) {
        let usage = self.segments.entry(id).or_default();
        for entry in entries {
            usage.frames += u32::from(entry.kind != EntryKind::Mark);
            usage.bytes += u64::from(entry.bytes);
            // The namespace of a lost frame is unknown, so the frame always counts as possibly
            // current.
            usage.damaged += u32::from(entry.kind == EntryKind::Lost);
        }
    }

    /// Sets the active segment.
    pub(crate) fn set_active(&mut self, active: Option<SegmentId>) {
        self.active = active;
    }

    /// Adds a segment in which no frame can be read. `bytes` is the length of the segment.
    pub(crate) fn add_unreadable_segment(&mut self, id: SegmentId, bytes: u64) {
        let usage = self.segments.entry(id).or_default();
        usage.bytes += bytes;
        usage.damaged += 1;
    }

    /// Counts a current frame of a segment that was read from the log.
    pub(crate) fn add_current(&mut self, entry: &FrameLocation) {
        self.segments.entry(entry.segment).or_default().count(entry);
    }

    /// Adds a current frame that was appended to the log.
    pub(crate) fn appended(&mut self, entry: &FrameLocation) {
        self.active = Some(entry.segment);
        let usage = self.segments.entry(entry.segment).or_default();
        usage.frames += 1;
        usage.bytes += u64::from(entry.bytes);
        usage.count(entry);
    }

    /// Adds the bytes of a mark that was appended to a segment.
    pub(crate) fn marked(&mut self, segment: SegmentId, bytes: u64) {
        self.segments.entry(segment).or_default().bytes += bytes;
    }

    /// Counts a frame as stale, because a newer frame of its namespace or a copy of the frame was
    /// appended.
    pub(crate) fn superseded(&mut self, entry: &FrameLocation) {
        self.newly_stale_bytes += u64::from(entry.bytes);
        if let Some(usage) = self.segments.get_mut(&entry.segment) {
            usage.discount(entry);
        }
    }

    /// Removes a segment that was removed from the log.
    pub(crate) fn retired(&mut self, id: SegmentId) {
        self.segments.remove(&id);
        // Tombstones may have been needed only because of frames in the removed segment.
        for usage in self.segments.values_mut() {
            usage.needs_tombstones = false;
        }
    }

    /// Marks a segment as damaged, so that compaction does not rewrite it.
    pub(crate) fn mark_damaged(&mut self, id: SegmentId) {
        if let Some(usage) = self.segments.get_mut(&id) {
            usage.damaged += 1;
        }
    }

    /// Makes background compaction skip a segment until the store is opened again. Called after a
    /// read of the segment has failed.
    pub(crate) fn defer(&mut self, id: SegmentId) {
        if let Some(usage) = self.segments.get_mut(&id) {
            usage.is_deferred = true;
        }
    }

    /// Records that tombstones of a segment are still needed to hide older frames.
    pub(crate) fn mark_tombstones_needed(&mut self, id: SegmentId) {
        if let Some(usage) = self.segments.get_mut(&id) {
            usage.needs_tombstones = true;
        }
    }

    /// Returns the usage of one segment.
    pub(crate) fn get(&self, id: SegmentId) -> Option<SegmentUsage> {
        self.segments.get(&id).copied()
    }

    /// Returns the segments that contain current documents, each with the end of its committed
    /// frames.
    pub(crate) fn committed_ends(&self) -> BTreeMap<SegmentId, u64> {
        let segments = self.segments.iter();
        segments
            .filter(|(_, usage)| usage.documents > 0)
            .map(|(id, usage)| (*id, usage.end()))
            .collect()
    }

    /// Returns the id of the active segment.
    pub(crate) fn active(&self) -> Option<SegmentId> {
        self.active
    }

    /// Returns the number of bytes that became stale since the last call to
    /// [`Self::reset_newly_stale`].
    pub(crate) fn newly_stale_bytes(&self) -> u64 {
        self.newly_stale_bytes
    }

    /// Resets the count of newly stale bytes. The committer calls this function when it wakes
    /// compaction.
    pub(crate) fn reset_newly_stale(&mut self) {
        self.newly_stale_bytes = 0;
    }

    /// Returns the usage of all segments together.
    pub(crate) fn sum(&self) -> SegmentUsage {
        let mut sum = SegmentUsage::default();
        for usage in self.segments.values() {
            sum.bytes += usage.bytes;
            sum.frames = sum.frames.saturating_add(usage.frames);
            sum.documents = sum.documents.saturating_add(usage.documents);
            sum.document_bytes += usage.document_bytes;
            sum.tombstones = sum.tombstones.saturating_add(usage.tombstones);
            sum.tombstone_bytes += usage.tombstone_bytes;
            sum.damaged = sum.damaged.saturating_add(usage.damaged);
        }
        sum
    }

    /// Returns the number of segments.
    pub(crate) fn count(&self) -> usize {
        self.segments.len()
    }

    /// Returns all segments, sorted by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (SegmentId, SegmentUsage)> + '_ {
        self.segments.iter().map(|(id, usage)| (*id, *usage))
    }

    /// Returns the sealed segments, sorted by id.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (SegmentId, SegmentUsage)> + '_ {
        self.all().filter(|(id, _)| Some(*id) != self.active)
    }

    /// Returns the sealed segments that background compaction may rewrite. Damaged and deferred
    /// segments are excluded.
    fn candidates(&self) -> impl Iterator<Item = (SegmentId, SegmentUsage)> + '_ {
        self.sealed()
            .filter(|(_, usage)| usage.damaged == 0 && !usage.is_deferred)
    }

    /// Returns true if the log exceeds its size limit, which is the length of one segment plus
    /// twice the total size of the current documents.
    pub(crate) fn is_overgrown(&self, segment_bytes: u64) -> bool {
        let sum = self.sum();
        sum.bytes > 2 * (sum.document_bytes + segment_bytes / 2)
    }

    /// Returns the segment to rewrite on a full disk, which is the segment with the fewest bytes to
    /// copy. A segment is ignored if rewriting it frees at most an eighth of the bytes that are
    /// copied.
    pub(crate) fn cheapest_victim(&self) -> Option<CompactionVictim> {
        self.candidates()
            .filter(|(_, usage)| usage.reclaimable_bytes() > usage.current_bytes() / 8)
            .min_by_key(|(_, usage)| usage.current_bytes())
            .map(|(id, _)| CompactionVictim {
                id,
                is_forced: false,
            })
    }

    /// Returns the segment to rewrite next, if any.
    ///
    /// A segment without current frames is returned first, because its removal copies nothing. If
    /// every segment has current frames, and the reclaimable bytes exceed a quarter of a segment
    /// plus half of the total size of the current documents, the segment with the largest share of
    /// reclaimable bytes is returned. Rewriting segments with many reclaimable bytes keeps the log
    /// below its size limit ([`Self::is_overgrown`]). If no other rule selects a segment, and the
    /// log has more than [`MAX_SHORT_SEGMENTS`] short sealed segments, the oldest short segment is
    /// returned.
    pub(crate) fn victim(&self, segment_bytes: u64) -> Option<CompactionVictim> {
        let give_back = |(id, _)| CompactionVictim {
            id,
            is_forced: false,
        };
        if let Some(empty) = self.candidates().find(|(_, usage)| !usage.is_needed()) {
            return Some(give_back(empty));
        }
        let reclaimable: u64 = self
            .candidates()
            .map(|(_, usage)| usage.reclaimable_bytes())
            .sum();
        if reclaimable > self.sum().document_bytes / 2 + segment_bytes / 4 {
            let share = |usage: &SegmentUsage| per_mille(usage.reclaimable_bytes(), usage.bytes);
            return self
                .candidates()
                .max_by_key(|(_, usage)| share(usage))
                .map(give_back);
        }
        // Each time a store is opened and closed, it can get another very short segment, so short
        // segments are merged.
        let is_short = |usage: &SegmentUsage| usage.bytes < segment_bytes / 4;
        let mut short = self.candidates().filter(|(_, usage)| is_short(usage));
        let first = short.next();
        if short.count() < MAX_SHORT_SEGMENTS {
            return None;
        }
        first.map(|(id, _)| CompactionVictim {
            id,
            is_forced: true,
        })
    }
}

fn per_mille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000) / whole.max(1)
}

#[cfg(test)]
mod tests;
