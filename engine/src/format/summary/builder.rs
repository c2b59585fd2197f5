//! Gathering a summary.

use crate::format::fields::push_short_text;
use crate::format::summary::entry::{Summary, SummaryEntry, narrow};
use crate::model::ids::BlobId;

/// Gathers a segment's summary while the segment is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct SummaryBuilder {
    entries: Vec<SummaryEntry>,
    blobs: Vec<(u32, BlobId)>,
    /// As version 1 has them: short to write down, and each on its own.
    pub(super) details: Vec<u8>,
}

impl SummaryBuilder {
    /// As it was before it was written and read.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(
        summary: Summary,
        details: &[crate::format::summary::entry::SummaryDetail],
    ) -> Self {
        let mut builder = Self {
            entries: summary.entries,
            blobs: summary.blobs,
            details: Vec::new(),
        };
        for detail in details {
            builder.push_detail(
                (&detail.user, &detail.client),
                detail.body_bytes,
                detail.modified_ms,
            );
        }
        builder
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> &[SummaryEntry] {
        &self.entries
    }

    /// (index of an entry, blob that its frame names)
    pub(crate) fn blobs(&self) -> &[(u32, BlobId)] {
        &self.blobs
    }

    /// The same as it is read from the disk.
    pub(crate) fn into_summary(self, segment_bytes: u64) -> Summary {
        Summary {
            segment_bytes,
            entries: self.entries,
            blobs: self.blobs,
        }
    }

    /// Takes up a readable frame.
    pub(crate) fn push(
        &mut self,
        entry: SummaryEntry,
        blobs: &[BlobId],
        (user, client): (&str, &str),
        body_bytes: u64,
        modified_ms: u64,
    ) {
        let index = narrow(self.entries.len());
        self.blobs.extend(blobs.iter().map(|blob| (index, *blob)));
        self.entries.push(entry);
        self.push_detail((user, client), body_bytes, modified_ms);
    }

    fn push_detail(&mut self, (user, client): (&str, &str), body_bytes: u64, modified_ms: u64) {
        push_short_text(&mut self.details, user);
        push_short_text(&mut self.details, client);
        self.details.extend_from_slice(&body_bytes.to_le_bytes());
        self.details.extend_from_slice(&modified_ms.to_le_bytes());
    }

    /// Takes up a frame that cannot be read.
    pub(crate) fn push_damage(&mut self, entry: SummaryEntry) {
        self.push(entry, &[], ("", ""), 0, 0);
    }

    /// Forgets what was pushed after the first `entries`.
    pub(crate) fn truncate(&mut self, entries: usize, details_bytes: usize) {
        self.entries.truncate(entries);
        self.details.truncate(details_bytes);
        self.blobs.retain(|(index, _)| (*index as usize) < entries);
    }

    pub(crate) fn details_bytes(&self) -> usize {
        self.details.len()
    }
}
