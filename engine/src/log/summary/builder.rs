//! Gathering a summary.

use super::{Detail, Entry, Summary, v1, v2};
use crate::fields::push_short_text;
use crate::log::segment::StoreId;

/// Gathers a segment's summary while the segment is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Builder {
    entries: Vec<Entry>,
    blobs: Vec<(u32, u64)>,
    /// As version 1 has them: short to write down, and each on its own.
    pub(super) details: Vec<u8>,
}

impl Builder {
    /// As it was before it was written and read.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(summary: Summary, details: &[Detail]) -> Self {
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

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// (index of an entry, blob that its frame names)
    pub(crate) fn blobs(&self) -> &[(u32, u64)] {
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

    /// The details of the entries, in their order.
    pub(crate) fn details(&self) -> Vec<Detail> {
        v1::details(&self.details).unwrap_or_default()
    }

    /// Takes up a readable frame.
    pub(crate) fn push(
        &mut self,
        entry: Entry,
        blobs: &[u64],
        (user, client): (&str, &str),
        body_bytes: u64,
        modified_ms: u64,
    ) {
        // A segment is sealed long before its frames outnumber this.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
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
    pub(crate) fn push_damage(&mut self, entry: Entry) {
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

    /// The file.
    pub(crate) fn encode(&self, id: u32, store: StoreId, segment_bytes: u64) -> Vec<u8> {
        v2::encode(self, id, store, segment_bytes)
    }
}
