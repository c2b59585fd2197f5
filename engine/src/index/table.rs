//! The table: where the newest frame of each namespace lies. In memory, rebuilt at
//! every open, and the one place that decides what is current. Beside each place it
//! holds the document, if the document cache has it (`cache.rs`): a read that finds the
//! one has found the other.
//!
//! It knows hashes and places, never names or bytes. An entry takes 40 bytes, in arrays
//! of which 78 to 88 % are taken: 45 to 52 bytes a document, and what the allocator adds.

pub(crate) mod buckets;
pub(crate) mod slots;

use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::index::document::Document;
use crate::index::table::buckets::{Buckets, SlotChange};
use crate::index::table::slots::Slot;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// A frame that cannot be read, of a namespace that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostFrame {
    /// The highest revision that the frame can have had.
    pub(crate) revision: u64,
    pub(crate) segment: SegmentId,
    pub(crate) offset: Offset,
}

/// What the table knows of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewestFrame {
    Absent,
    Document(FrameLocation),
    /// The newest frame cannot be read, or what is the newest cannot be told.
    Unreadable {
        segment: SegmentId,
        offset: Offset,
    },
}

/// Entries whose slots are fetched at once: about as many as a processor waits for at a
/// time, and few enough to still be there when they are changed.
const LOADED_AT_ONCE: usize = 32;

#[derive(Default)]
pub(crate) struct Table {
    held: Buckets,
    /// The loss with the highest revision. Found at the open or never, so that readers
    /// need no lock for it.
    loss: Option<LostFrame>,
}

impl Table {
    /// The entry as it is, damaged and deleted ones included.
    pub(crate) fn entry(&self, hash: NamespaceHash) -> Option<FrameLocation> {
        self.held.read(hash, |held| held.map(Slot::entry))
    }

    /// Has the processor fetch what a commit will look at and change.
    pub(crate) fn prefetch(&self, hash: NamespaceHash) {
        std::hint::black_box(self.entry(hash));
    }

    /// What is current in a namespace.
    pub(crate) fn newest(&self, hash: NamespaceHash) -> NewestFrame {
        self.judge(self.entry(hash))
    }

    /// The same, and the document, if it is in memory.
    pub(crate) fn newest_held(&self, hash: NamespaceHash) -> (NewestFrame, Option<Document>) {
        let found = self.held.read(hash, |held| {
            held.map(|held| (held.entry(), held.document.clone()))
        });
        match found {
            None => (self.judge(None), None),
            Some((entry, document)) => (self.judge(Some(entry)), document),
        }
    }

    fn judge(&self, entry: Option<FrameLocation>) -> NewestFrame {
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
                EntryKind::Put | EntryKind::PutWithBlobs => NewestFrame::Document(entry),
                EntryKind::Delete => NewestFrame::Absent,
                EntryKind::Damaged | EntryKind::Lost => NewestFrame::Unreadable {
                    segment: entry.segment,
                    offset: entry.offset,
                },
            },
        }
    }

    /// Makes `entry` current unless a newer one is there; returns the one that it
    /// replaced. A copy of what was current, under its revision, keeps the document.
    pub(crate) fn advance(
        &self,
        hash: NamespaceHash,
        entry: FrameLocation,
    ) -> Option<FrameLocation> {
        // The document is freed when nobody waits for its bucket any more.
        let (replaced, _freed) = self.held.change(hash, |held| {
            let Some(held) = held else {
                let slot = Slot::new(hash, &entry, None);
                return (SlotChange::Insert(slot), (None, None));
            };
            let before = held.entry();
            if before.revision > entry.revision {
                return (SlotChange::Keep, (None, None));
            }
            let document = held.document.take();
            let (kept, freed) = if before.revision == entry.revision {
                (document, None)
            } else {
                (None, document)
            };
            *held = Slot::new(hash, &entry, kept);
            (SlotChange::Keep, (Some(before), freed))
        });
        replaced
    }

    /// Makes room for this many entries, in a table that is empty.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.held.reserve(entries);
    }

    /// Gives back room that was made for entries that did not come, or were replaced.
    pub(crate) fn fit(&mut self) {
        self.held.fit();
    }

    /// Takes up a segment's entries, as one after the other by [`Self::advance`]; those of
    /// frames that are lost are not for the table.
    pub(crate) fn load(&mut self, segment: SegmentId, entries: &[SummaryEntry]) {
        for entries in entries.chunks(LOADED_AT_ONCE) {
            self.held.touch(entries.iter().map(|entry| entry.hash));
            for entry in entries.iter().filter(|e| e.kind != EntryKind::Lost) {
                self.advance(entry.hash, FrameLocation::at(segment, entry));
            }
        }
    }

    /// Holds a document, if it is the current one of its namespace, and there is none.
    /// Whether it does.
    pub(crate) fn hold(&self, hash: NamespaceHash, document: &Document) -> bool {
        let revision = document.stat().revision.get();
        self.held.change(hash, |held| {
            let held = held.filter(|held| held.document.is_none());
            let is_held = match held.filter(|held| held.entry().revision == revision) {
                Some(held) => held.document.replace(document.clone()).is_none(),
                None => false,
            };
            (SlotChange::Keep, is_held)
        })
    }

    /// Holds a document no longer.
    pub(crate) fn let_go(&self, hash: NamespaceHash, document: &Document) {
        let _freed = self.held.change(hash, |held| {
            let is_it =
                |held: &&mut Slot| held.document.as_ref().is_some_and(|d| d.is_same(document));
            (
                SlotChange::Keep,
                held.filter(is_it).map(|held| held.document.take()),
            )
        });
    }

    /// Whether `entry` is what is current.
    pub(crate) fn is_current(&self, hash: NamespaceHash, revision: u64) -> bool {
        self.entry(hash)
            .is_some_and(|entry| entry.revision == revision)
    }

    /// Forgets a delete, if it is what is current: nothing older is left that it
    /// could hide.
    pub(crate) fn forget_delete(&self, hash: NamespaceHash, entry: &FrameLocation) {
        self.held.change(hash, |held| {
            let is_it =
                entry.kind == EntryKind::Delete && held.is_some_and(|held| held.entry() == *entry);
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

    /// Visits what is current, deletes included, in no order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&FrameLocation)) {
        self.held.for_each(|held| visit(&held.entry()));
    }

    /// Remembers that a frame was lost.
    pub(crate) fn lose(&mut self, loss: LostFrame) {
        if self.loss.is_none_or(|worst| worst.revision < loss.revision) {
            self.loss = Some(loss);
        }
    }

    /// The loss with the highest revision.
    pub(crate) fn loss(&self) -> Option<LostFrame> {
        self.loss
    }

    /// Documents stored.
    pub(crate) fn documents(&self) -> u64 {
        let mut documents = 0;
        self.for_each(|entry| {
            let is_document = matches!(entry.kind, EntryKind::Put | EntryKind::PutWithBlobs);
            documents += u64::from(is_document);
        });
        documents
    }
}
