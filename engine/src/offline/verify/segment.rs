//! Verification of one segment: checks the frames, and checks that the summary agrees with the
//! frames.

use crate::format::frame::header::EntryKind;
use crate::format::frame::meta::FrameMeta;
use crate::format::location::FrameLocation;
use crate::format::manifest::SegmentRecord;
use crate::format::summary::entry::{SummaryDetail, SummaryEntry};
use crate::format::{file_header, summary};
use crate::model::error::{Error, Result};
use crate::model::ids::{Offset, SegmentId};
use crate::offline::report::Impact;
use crate::offline::verify::verifier::Verifier;
use crate::storage::log::scan::{RevisionLimits, ScanFound, ScanItem, SegmentScan, ValidFrame};

/// One entry of a summary, with the detail record of the same frame.
type SummaryRow = (SummaryEntry, SummaryDetail);

impl Verifier<'_> {
    /// Verifies all frames and the summary of a segment.
    pub(super) fn verify_segment(&mut self, record: &SegmentRecord) -> Result<()> {
        self.report.segments += 1;
        let summary = match record.sealed {
            Some(sealed) => self.read_summary(record.id, sealed.bytes)?,
            None => None,
        };
        let scanned = self
            .scan
            .directory
            .scan(record.id, record.sealed.map(|sealed| sealed.bytes));
        let scan = match scanned {
            Ok(scan) => scan,
            Err(error) => return self.verify_by_summary(record.id, &error, summary.as_deref()),
        };
        let valid_end = record.sealed.map_or_else(|| scan.valid_end(), |s| s.bytes);
        for item in &scan.items {
            if u64::from(item.offset) >= valid_end {
                self.report.torn_bytes += u64::from(item.bytes);
            } else {
                self.verify_item(record.id, item, summary.as_deref())?;
            }
            self.add_read_bytes(item.bytes.into());
        }
        if let Some(summary) = &summary {
            self.compare_summary(record.id, &scan, valid_end, summary)?;
        }
        Ok(())
    }

    /// Reads the summary of a sealed segment. If the summary is damaged, records a problem and
    /// returns `None`.
    fn read_summary(
        &mut self,
        id: SegmentId,
        segment_bytes: u64,
    ) -> Result<Option<Vec<SummaryRow>>> {
        let directory = &self.scan.directory;
        let read = directory.summary(id, segment_bytes).and_then(|summary| {
            let details = directory.open_summary(id)?.details()?;
            Ok(summary.entries.into_iter().zip(details).collect())
        });
        match read {
            Ok(summary) => Ok(Some(summary)),
            Err(error) => {
                self.record_problem(&error, Impact::Derived, None)?;
                Ok(None)
            }
        }
    }

    /// Verifies a segment that cannot be scanned. Reads the frame of each current document at the
    /// location that the summary states. `error` is the error that the scan returned.
    fn verify_by_summary(
        &mut self,
        id: SegmentId,
        error: &Error,
        summary: Option<&[SummaryRow]>,
    ) -> Result<()> {
        let Some(summary) = summary else {
            return self.record_problem(error, Impact::Document, None);
        };
        let mut impact = Impact::Nothing;
        let reader = self.reader();
        for (entry, detail) in summary {
            if !self.scan.is_current(id, entry) || entry.kind == EntryKind::Delete {
                continue;
            }
            let location = FrameLocation::at(id, entry);
            let is_expected = |meta: &FrameMeta| meta.belongs_to((&detail.user, &detail.client));
            match reader.any_frame(&location, is_expected) {
                Ok(_) => self.record_current(location),
                Err(error) => {
                    impact = Impact::Document;
                    self.record_problem(&error, impact, namespace(detail))?;
                }
            }
            self.add_read_bytes(entry.bytes.into());
        }
        if impact == Impact::Nothing {
            self.record_problem(error, impact, None)?;
        }
        Ok(())
    }

    /// Verifies one item of the scan: a frame, or bytes that are not a valid frame.
    fn verify_item(
        &mut self,
        id: SegmentId,
        item: &ScanItem,
        summary: Option<&[SummaryRow]>,
    ) -> Result<()> {
        let path = file_header::segment_path(&self.scan.directory.dir, id);
        let corrupt = |what: &str| Error::corrupt(&path, item.offset.into(), what);
        let row = summary.and_then(|summary| row_at(summary, item.offset));
        match &item.found {
            ScanFound::Frame(frame) => {
                self.report.frames += 1;
                let entry = entry_of(item, frame);
                let is_current = self.scan.is_current(id, &entry);
                if let Some(what) = self.frame_defect(frame) {
                    let impact = if is_current {
                        Impact::Document
                    } else {
                        Impact::Nothing
                    };
                    let meta = &frame.meta;
                    let namespace =
                        Some((meta.names.user.to_string(), meta.names.client.to_string()));
                    return self.record_problem(&corrupt(what), impact, namespace);
                }
                if is_current {
                    self.record_current(FrameLocation::at(id, &entry));
                }
                Ok(())
            }
            ScanFound::Mark(Some(_)) => {
                self.report.frames += 1;
                Ok(())
            }
            ScanFound::Mark(None) => {
                let error = corrupt("the mark at this offset is not valid");
                self.record_problem(&error, Impact::Nothing, None)
            }
            ScanFound::Invalid(_) => {
                // A damaged frame of a delete is harmless, because the summary entry of the frame
                // contains all data of the delete.
                let is_harmless = row.is_some_and(|(entry, _)| match entry.kind {
                    EntryKind::Delete | EntryKind::Mark => true,
                    EntryKind::Lost => false,
                    _ => !self.scan.is_current(id, entry),
                });
                let impact = if is_harmless {
                    Impact::Nothing
                } else {
                    Impact::Document
                };
                let namespace = row.and_then(|(_, detail)| namespace(detail));
                self.record_problem(&corrupt("the frame is not valid"), impact, namespace)
            }
        }
    }

    /// Counts the document of a valid current frame.
    fn record_current(&mut self, entry: FrameLocation) {
        match entry.kind {
            EntryKind::Put => self.report.documents += 1,
            // Documents in blobs are verified after all segments.
            EntryKind::PutWithMetadata => self.blob_documents.push(entry),
            EntryKind::Delete | EntryKind::Damaged | EntryKind::Lost | EntryKind::Mark => {}
        }
    }

    /// Returns the defect of a frame whose checksums are correct, or `None` if the frame has no
    /// defect.
    fn frame_defect(&self, frame: &ValidFrame) -> Option<&'static str> {
        let ValidFrame { hash, header, meta } = frame;
        if *hash
            != self
                .scan
                .directory
                .hash(&meta.names.user, &meta.names.client)
        {
            return Some("the namespace hash does not match the names in the frame");
        }
        let is_allocated = header.revision < self.scan.manifest.reserved_revision;
        (!is_allocated).then_some("the frame's revision has not been allocated yet")
    }

    /// Checks that the summary agrees with the readable frames. If the summary and the frames
    /// differ, records one problem, which describes the first difference.
    fn compare_summary(
        &mut self,
        id: SegmentId,
        scan: &SegmentScan,
        end: u64,
        summary: &[SummaryRow],
    ) -> Result<()> {
        let limits = RevisionLimits::up_to(scan.last_revision);
        let frames = scan.summary(end, limits);
        let details = summary::builder_details(&frames);
        let mut difference = None;
        for (entry, detail) in frames.entries().iter().zip(&details) {
            let is_readable = !matches!(
                entry.kind,
                EntryKind::Damaged | EntryKind::Lost | EntryKind::Mark
            );
            let row = row_at(summary, entry.offset);
            if is_readable && row != Some(&(*entry, detail.clone())) {
                difference.get_or_insert(entry.offset);
            }
        }
        match difference {
            None => Ok(()),
            Some(offset) => {
                let path = summary::entry::summary_path(&self.scan.directory.dir, id);
                let what =
                    format!("the summary does not match the frame at byte {offset} of its segment");
                self.record_problem(&Error::corrupt(&path, 0, what), Impact::Document, None)
            }
        }
    }
}

/// Returns the summary row of the frame at an offset.
fn row_at(summary: &[SummaryRow], offset: Offset) -> Option<&SummaryRow> {
    let index = summary.binary_search_by_key(&offset, |(entry, _)| entry.offset);
    summary.get(index.ok()?)
}

fn namespace(detail: &SummaryDetail) -> Option<(String, String)> {
    (!detail.user.is_empty()).then(|| (detail.user.clone(), detail.client.to_string()))
}

fn entry_of(item: &ScanItem, frame: &ValidFrame) -> SummaryEntry {
    let ValidFrame { hash, header, meta } = frame;
    let keys = meta.usage(header.kind).keys;
    item.entry(*hash, header.revision, EntryKind::of(header), keys)
}
