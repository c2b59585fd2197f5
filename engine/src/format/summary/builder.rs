//! Collects the entries, blob references and details of a summary.

use crate::format::fields::push_short_text;
use crate::format::summary::entry::{Summary, SummaryEntry, to_u32};
use crate::model::ids::BlobId;

/// Collects the summary of a segment while frames are appended to the segment.
#[derive(Debug, Default, Clone)]
pub(crate) struct SummaryBuilder {
    entries: Vec<SummaryEntry>,
    /// The blob references. Each blob reference is a pair: the index of an entry, and the id of a
    /// blob.
    blobs: Vec<(u32, BlobId)>,
    /// The encoded details, in the layout of version 1. Encoded details need less memory than
    /// decoded details. In the layout of version 1, details do not depend on each other, so the
    /// last details can be removed by truncation.
    pub(super) details: Vec<u8>,
}

impl SummaryBuilder {
    /// Recreates the builder of a decoded summary, for the fuzzers.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn from_decoded(
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

    /// The blob references. Each blob reference is a pair: the index of an entry, and the id of a
    /// blob.
    pub(crate) fn blobs(&self) -> &[(u32, BlobId)] {
        &self.blobs
    }

    /// Converts the builder to a summary, as if the summary had been read from a file.
    pub(crate) fn into_summary(self, segment_bytes: u64) -> Summary {
        Summary {
            segment_bytes,
            entries: self.entries,
            blobs: self.blobs,
        }
    }

    /// Adds a valid frame. `blobs` lists the blobs to which the frame refers.
    pub(crate) fn push(
        &mut self,
        entry: SummaryEntry,
        blobs: &[BlobId],
        (user, client): (&str, &str),
        body_bytes: u64,
        modified_ms: u64,
    ) {
        let index = to_u32(self.entries.len());
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

    /// Adds an entry for a mark or for damaged bytes, which have no details.
    pub(crate) fn push_without_details(&mut self, entry: SummaryEntry) {
        self.push(entry, &[], ("", ""), 0, 0);
    }

    /// Removes all entries after the first `entries`. `details_bytes` must be the value of
    /// [`Self::details_bytes`] at the time when the builder had `entries` entries.
    pub(crate) fn truncate(&mut self, entries: usize, details_bytes: usize) {
        self.entries.truncate(entries);
        self.details.truncate(details_bytes);
        self.blobs.retain(|(index, _)| (*index as usize) < entries);
    }

    /// Length of the collected details in bytes.
    pub(crate) fn details_bytes(&self) -> usize {
        self.details.len()
    }
}
