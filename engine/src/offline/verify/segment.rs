//! Verifying one segment: its frames, and its summary against them.

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
use crate::storage::log::scan::{ScanFound, ScanItem, SegmentScan, ValidFrame};

/// The entries of a segment by its summary, with their details.
type SummaryRows = Vec<(SummaryEntry, SummaryDetail)>;

impl Verifier<'_> {
    pub(super) fn segment(&mut self, record: &SegmentRecord) -> Result<()> {
        self.found.segments += 1;
        let summary = match record.sealed {
            Some(sealed) => self.summary(record.id, sealed.bytes)?,
            None => None,
        };
        let scanned = self
            .scan
            .directory
            .scan(record.id, record.sealed.map(|sealed| sealed.bytes));
        let scan = match scanned {
            Ok(scan) => scan,
            Err(error) => return self.frame_by_frame(record.id, &error, summary.as_deref()),
        };
        let valid_end = record.sealed.map_or_else(|| scan.valid_end(), |s| s.bytes);
        for item in &scan.items {
            if u64::from(item.offset) >= valid_end {
                self.found.torn_bytes += u64::from(item.bytes);
            } else {
                self.item(record.id, item, summary.as_deref())?;
            }
            self.read(item.bytes.into());
        }
        if let Some(summary) = &summary {
            self.compare(record.id, &scan, valid_end, summary)?;
        }
        Ok(())
    }

    /// The summary of a sealed segment, whole; `None` where it is to be made again.
    fn summary(&mut self, id: SegmentId, segment_bytes: u64) -> Result<Option<SummaryRows>> {
        let directory = &self.scan.directory;
        let read = directory.summary(id, segment_bytes).and_then(|summary| {
            let details = directory.open_summary(id)?.details()?;
            Ok(summary.entries.into_iter().zip(details).collect())
        });
        match read {
            Ok(summary) => Ok(Some(summary)),
            Err(error) => {
                self.problem(&error, Impact::Derived, None)?;
                Ok(None)
            }
        }
    }

    /// A segment that cannot be read as a whole.
    fn frame_by_frame(
        &mut self,
        id: SegmentId,
        error: &Error,
        summary: Option<&[(SummaryEntry, SummaryDetail)]>,
    ) -> Result<()> {
        let Some(summary) = summary else {
            return self.problem(error, Impact::Document, None);
        };
        let mut impact = Impact::Nothing;
        let reader = self.reader();
        for (entry, detail) in summary {
            if !self.scan.is_current(id, entry) || entry.kind == EntryKind::Delete {
                continue;
            }
            let there = FrameLocation::at(id, entry);
            let is_right = |meta: &FrameMeta| meta.is_of((&detail.user, &detail.client));
            match reader.any_frame(&there, is_right) {
                Ok(_) => self.current(there),
                Err(error) => {
                    impact = Impact::Document;
                    self.problem(&error, impact, namespace(detail))?;
                }
            }
            self.read(entry.bytes.into());
        }
        if impact == Impact::Nothing {
            self.problem(error, impact, None)?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        id: SegmentId,
        item: &ScanItem,
        summary: Option<&[(SummaryEntry, SummaryDetail)]>,
    ) -> Result<()> {
        let path = file_header::path(&self.scan.directory.dir, id);
        let corrupt = |what: &str| Error::corrupt(&path, item.offset.into(), what);
        let written = summary.and_then(|summary| at(summary, item.offset));
        match &item.found {
            ScanFound::Frame(frame) => {
                self.found.frames += 1;
                let entry = entry_of(item, frame);
                let is_current = self.scan.is_current(id, &entry);
                if let Some(what) = self.wrong(frame) {
                    let impact = if is_current {
                        Impact::Document
                    } else {
                        Impact::Nothing
                    };
                    let meta = &frame.meta;
                    let namespace = Some((meta.user.clone(), meta.client.clone()));
                    return self.problem(&corrupt(what), impact, namespace);
                }
                if is_current {
                    self.current(FrameLocation::at(id, &entry));
                }
                Ok(())
            }
            ScanFound::Invalid(_) => {
                // Of a delete there is nothing to read, as long as the summary tells of it.
                let is_stale = written.is_some_and(|(entry, _)| match entry.kind {
                    EntryKind::Delete => true,
                    EntryKind::Lost => false,
                    _ => !self.scan.is_current(id, entry),
                });
                let impact = if is_stale {
                    Impact::Nothing
                } else {
                    Impact::Document
                };
                let namespace = written.and_then(|(_, detail)| namespace(detail));
                self.problem(&corrupt("no frame here holds"), impact, namespace)
            }
        }
    }

    /// A frame that holds is current.
    fn current(&mut self, entry: FrameLocation) {
        match entry.kind {
            EntryKind::Put => self.found.documents += 1,
            // Its bytes are in files that are read later.
            EntryKind::PutWithBlobs => self.spread.push(entry),
            EntryKind::Delete | EntryKind::Damaged | EntryKind::Lost => {}
        }
    }

    /// What is wrong with a frame whose checksums hold.
    fn wrong(&self, frame: &ValidFrame) -> Option<&'static str> {
        let ValidFrame { hash, header, meta } = frame;
        if *hash != self.scan.directory.hash(&meta.user, &meta.client) {
            return Some("the frame's hash is not that of its namespace");
        }
        let is_given_out = header.revision < self.scan.manifest.reserved_revision;
        (!is_given_out).then_some("the frame's revision is higher than any that was given out")
    }

    /// The summary must say what the frames say.
    fn compare(
        &mut self,
        id: SegmentId,
        scan: &SegmentScan,
        end: u64,
        summary: &[(SummaryEntry, SummaryDetail)],
    ) -> Result<()> {
        let frames = scan.summary(end);
        let details = summary::builder_details(&frames);
        let mut differs = None;
        for (entry, detail) in frames.entries().iter().zip(&details) {
            let is_readable = !matches!(entry.kind, EntryKind::Damaged | EntryKind::Lost);
            let written = at(summary, entry.offset);
            if is_readable && written != Some(&(*entry, detail.clone())) {
                differs.get_or_insert(entry.offset);
            }
        }
        match differs {
            None => Ok(()),
            Some(offset) => {
                let path = summary::entry::path(&self.scan.directory.dir, id);
                let what =
                    format!("it does not say what the frame at {offset} of its segment says");
                self.problem(&Error::corrupt(&path, 0, what), Impact::Document, None)
            }
        }
    }
}

/// The entry of the frame at an offset.
fn at(
    summary: &[(SummaryEntry, SummaryDetail)],
    offset: Offset,
) -> Option<&(SummaryEntry, SummaryDetail)> {
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
