//! Seals the previous active segment in memory, for a store that is opened with
//! [`crate::Config::read_only`].
//!
//! The segment is sealed at its last valid frame. Recovery of a writable store keeps the same
//! frames, but copies those after the watermark to a new segment, because it is unknown whether
//! they are on stable storage. A read-only open makes no frame durable, so it need not copy them.

use crate::model::damage::DroppedTail;
use crate::model::error::Result;
use crate::recovery::in_place::{last_valid_byte, manifest_sealed_at};
use crate::recovery::load::LoadedLog;
use crate::storage::log::scan::RevisionLimits;

impl LoadedLog {
    /// Seals the previous active segment, if any, in memory, and loads its documents. Returns the
    /// bytes that are dropped at its end.
    ///
    /// From then on, the summaries that recovery would have written are built from the frames when
    /// they are needed.
    pub(super) fn seal_in_memory(&mut self) -> Result<Option<DroppedTail>> {
        let Self {
            directory,
            manifest,
            documents,
            ..
        } = self;
        let mut highest_modified_ms = directory.highest_modified_ms(manifest)?;
        let mut unusable: Vec<_> = self.missing_summaries.iter().map(|(id, _)| *id).collect();
        let mut dropped = None;
        if let Some((record, scan)) = self.previous_active.take() {
            let id = record.id;
            highest_modified_ms = highest_modified_ms.max(scan.last_modified_ms);
            dropped = directory.dropped_tail(id, &scan);
            let end = last_valid_byte(&scan);
            let summary = scan.summary(end, RevisionLimits::of_active(manifest));
            *manifest = manifest_sealed_at(manifest, id, &scan, end);
            if summary.len() > 0 {
                documents.load(directory, id, summary.entries(), summary.blobs());
            }
            // An interrupted seal may have left a summary that describes fewer frames.
            unusable.push(id);
        }
        directory.ignore_summaries(unusable);
        manifest.highest_modified_ms = Some(highest_modified_ms);
        Ok(dropped)
    }
}
