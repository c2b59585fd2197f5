//! The table maps each namespace to the location of its newest frame, which is the current frame of
//! the namespace. The table is in memory, and is rebuilt each time the store is opened. Each entry
//! also contains the document if it is cached (`cache.rs`), so that a read finds the location and
//! the document with one lookup.
//!
//! The table contains the hashes of namespaces, but not their names. An entry has 40 bytes, and the
//! arrays of entries are usually 78 to 88 % full. The table therefore needs 45 to 52 bytes of
//! memory for each entry, plus the allocator's overhead.

pub(crate) mod buckets;
pub(crate) mod slots;

use std::collections::BTreeMap;

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::index::document::Document;
use crate::index::table::buckets::{Buckets, SlotChange};
use crate::index::table::slots::Slot;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// A frame that cannot be read and whose namespace is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostFrame {
    /// The highest revision that the lost frame can have.
    pub(crate) revision: u64,
    pub(crate) segment: SegmentId,
    pub(crate) offset: Offset,
}

/// The state of a namespace according to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewestFrame {
    /// The namespace has no document.
    Absent,
    /// The namespace has a document, which is stored in this frame.
    Document(FrameLocation),
    /// The newest frame of the namespace is damaged, or a lost frame may be the newest frame.
    Unreadable { segment: SegmentId, offset: Offset },
}

/// Number of entries whose slots are prefetched together. The number is large enough that the
/// processor handles many cache misses at the same time, and small enough that the prefetched slots
/// are still in the processor's cache when they are changed.
const PREFETCH_BATCH: usize = 32;

/// Maps the hash of each namespace to its newest frame.
#[derive(Default)]
pub(crate) struct Table {
    buckets: Buckets,
    /// The lost frame with the highest revision. Recovery sets this field before the store serves
    /// reads, so readers need no lock.
    loss: Option<LostFrame>,
}

impl Table {
    /// Returns the location of the newest frame of a namespace, which may be a tombstone or a
    /// damaged frame.
    pub(crate) fn entry(&self, hash: NamespaceHash) -> Option<FrameLocation> {
        self.buckets.read(hash, |slot| slot.map(Slot::entry))
    }

    /// Makes the processor load the table entry of a namespace into its cache, because a commit
    /// will read and change the entry soon.
    pub(crate) fn prefetch(&self, hash: NamespaceHash) {
        std::hint::black_box(self.entry(hash));
    }

    /// Returns the state of a namespace.
    pub(crate) fn newest(&self, hash: NamespaceHash) -> NewestFrame {
        self.classify(self.entry(hash))
    }

    /// Returns the state of a namespace, and its document if it is cached.
    pub(crate) fn newest_cached(&self, hash: NamespaceHash) -> (NewestFrame, Option<Document>) {
        let found = self.buckets.read(hash, |slot| {
            slot.map(|slot| (slot.entry(), slot.document.clone()))
        });
        match found {
            None => (self.classify(None), None),
            Some((entry, document)) => (self.classify(Some(entry)), document),
        }
    }

    /// Determines the state of a namespace from its entry and from the lost frame with the highest
    /// revision.
    fn classify(&self, entry: Option<FrameLocation>) -> NewestFrame {
        if let Some(loss) = self.loss
            && entry.is_none_or(|entry| entry.revision <= loss.revision)
        {
            return NewestFrame::Unreadable {
                segment: loss.segment,
                offset: loss.offset,
            };
        }
        match entry {
            None => NewestFrame::Absent,
            Some(entry) => match entry.kind {
                EntryKind::Put | EntryKind::PutWithMetadata => NewestFrame::Document(entry),
                EntryKind::Delete | EntryKind::Mark => NewestFrame::Absent,
                EntryKind::Damaged | EntryKind::Lost => NewestFrame::Unreadable {
                    segment: entry.segment,
                    offset: entry.offset,
                },
            },
        }
    }

    /// Makes `entry` the current entry of a namespace, unless the table has a newer entry. Returns
    /// the replaced entry. If `entry` is a copy of the current frame, which has the same revision,
    /// the cached document is kept.
    pub(crate) fn advance(
        &self,
        hash: NamespaceHash,
        entry: FrameLocation,
    ) -> Option<FrameLocation> {
        // The replaced document is returned from the closure, so that it is freed only after the
        // lock of the bucket is released.
        let (replaced, _freed) = self.buckets.update(hash, |slot| {
            let Some(slot) = slot else {
                let slot = Slot::new(hash, &entry, None);
                return (SlotChange::Insert(slot), (None, None));
            };
            let before = slot.entry();
            if before.revision > entry.revision {
                return (SlotChange::Keep, (None, None));
            }
            let document = slot.document.take();
            let (retained, freed) = if before.revision == entry.revision {
                (document, None)
            } else {
                (None, document)
            };
            *slot = Slot::new(hash, &entry, retained);
            (SlotChange::Keep, (Some(before), freed))
        });
        replaced
    }

    /// Reserves memory for `entries` entries. The table must be empty.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.buckets.reserve(entries);
    }

    /// Frees memory that was reserved for entries but is not used.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.buckets.shrink_to_fit();
    }

    /// Adds the entries of a segment by calling [`Self::advance`] for each entry. Lost frames and
    /// marks are skipped, because the namespaces of lost frames are unknown, and marks have none.
    pub(crate) fn load(&mut self, segment: SegmentId, entries: &[SummaryEntry]) {
        for entries in entries.chunks(PREFETCH_BATCH) {
            self.buckets
                .prefetch(entries.iter().map(|entry| entry.hash));
            let has_namespace =
                |e: &&SummaryEntry| !matches!(e.kind, EntryKind::Lost | EntryKind::Mark);
            for entry in entries.iter().filter(has_namespace) {
                self.advance(entry.hash, FrameLocation::at(segment, entry));
            }
        }
    }

    /// Caches a document if its revision is current and no document is cached for the namespace.
    /// Returns true if the document was cached.
    pub(crate) fn attach_document(&self, hash: NamespaceHash, document: &Document) -> bool {
        let revision = document.stat().revision.get();
        self.buckets.update(hash, |slot| {
            let slot = slot.filter(|slot| slot.document.is_none());
            let is_attached = match slot.filter(|slot| slot.entry().revision == revision) {
                Some(slot) => slot.document.replace(document.clone()).is_none(),
                None => false,
            };
            (SlotChange::Keep, is_attached)
        })
    }

    /// Removes a cached document from the entry of its namespace. Does nothing if the entry
    /// contains another document.
    pub(crate) fn detach_document(&self, hash: NamespaceHash, document: &Document) {
        let _freed = self.buckets.update(hash, |slot| {
            let is_it =
                |slot: &&mut Slot| slot.document.as_ref().is_some_and(|d| d.is_same(document));
            (
                SlotChange::Keep,
                slot.filter(is_it).map(|slot| slot.document.take()),
            )
        });
    }

    /// Returns true if `revision` is the current revision of the namespace.
    pub(crate) fn is_current(&self, hash: NamespaceHash, revision: u64) -> bool {
        self.entry(hash)
            .is_some_and(|entry| entry.revision == revision)
    }

    /// Returns true if `entry` of `segment` describes damaged bytes that may contain a current
    /// document of this table. `ends` contains the end of the frames of each segment that is
    /// searched for current documents.
    pub(crate) fn may_hide_document(
        &self,
        segment: SegmentId,
        entry: &SummaryEntry,
        ends: &BTreeMap<SegmentId, u64>,
    ) -> bool {
        // If the table has a lost frame, it is known that documents may be missing.
        if entry.kind == EntryKind::Lost {
            return self.loss.is_none();
        }
        let Some(newest) = self.entry(entry.hash) else {
            return false;
        };
        let is_document = matches!(newest.kind, EntryKind::Put | EntryKind::PutWithMetadata);
        let is_here = (newest.segment, newest.offset) == (segment, entry.offset);
        // A frame beyond the ends is newer, or is a copy of the damaged frame.
        let end = ends.get(&newest.segment).copied().unwrap_or_default();
        is_document && (is_here || u64::from(newest.offset) >= end)
    }

    /// Removes a tombstone from the table if the tombstone is current. Call this function only if
    /// no older frame of the namespace exists.
    pub(crate) fn remove_tombstone(&self, hash: NamespaceHash, entry: &FrameLocation) {
        self.buckets.update(hash, |slot| {
            let is_it =
                entry.kind == EntryKind::Delete && slot.is_some_and(|slot| slot.entry() == *entry);
            (
                if is_it {
                    SlotChange::Remove
                } else {
                    SlotChange::Keep
                },
                (),
            )
        });
    }

    /// Visits the newest frame of each namespace, including tombstones and damaged frames, in no
    /// particular order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&FrameLocation)) {
        self.buckets.for_each(|slot| visit(&slot.entry()));
    }

    /// Records a lost frame. Only the lost frame with the highest revision is kept.
    pub(crate) fn record_loss(&mut self, loss: LostFrame) {
        if self.loss.is_none_or(|worst| worst.revision < loss.revision) {
            self.loss = Some(loss);
        }
    }

    /// Returns the lost frame with the highest revision.
    pub(crate) fn loss(&self) -> Option<LostFrame> {
        self.loss
    }

    /// Counts the stored documents by iterating over the entire table.
    pub(crate) fn documents(&self) -> u64 {
        let mut documents = 0;
        self.for_each(|entry| {
            let is_document = matches!(entry.kind, EntryKind::Put | EntryKind::PutWithMetadata);
            documents += u64::from(is_document);
        });
        documents
    }
}
