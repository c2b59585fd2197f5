//! The first step of recovery: loads the segments that the manifest lists, and scans the segment
//! that was active when the previous process ended.
//!
//! **Architecture Invariant:** this step writes nothing. A store in an unsupported format is thus
//! rejected before recovery changes it, and a read-only open can use the same code.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::file_header;
use crate::format::manifest::{MAX_SEGMENT_FRAMES, Manifest, SealedSegment, SegmentRecord};
use crate::index::loader::RecoveryLoader;
use crate::model::damage::DroppedTail;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::platform::fs::Fs;
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::reader::FrameReader;
use crate::storage::log::scan::{ScanFound, SegmentScan};

/// The log as the previous process has left it.
pub(super) struct LoadedLog {
    pub(super) directory: LogDirectory,
    pub(super) reader: FrameReader,
    pub(super) manifest: Manifest,
    /// The documents of the sealed segments.
    pub(super) documents: RecoveryLoader,
    /// The sealed segments whose summaries are written again, because they are missing or damaged.
    pub(super) missing_summaries: Vec<(SegmentId, SealedSegment)>,
    /// The segment that the manifest lists as active, if any. Its documents are not loaded yet.
    pub(super) previous_active: Option<(SegmentRecord, SegmentScan)>,
    /// The files of segments that the manifest does not list.
    pub(super) unlisted: Vec<PathBuf>,
}

impl LoadedLog {
    /// Reads the segments of the log in `dir`.
    ///
    /// # Errors
    /// - [`Error::Corrupt`]: the header of the active segment is damaged, or a segment file is
    ///   newer than the manifest.
    /// - [`Error::Unreadable`], [`Error::UnsupportedFormat`], [`Error::Io`].
    pub(super) fn read(
        fs: &Arc<dyn Fs>,
        dir: &Path,
        manifest: Manifest,
        open_segments: usize,
    ) -> Result<Self> {
        let directory = LogDirectory::new(Arc::clone(fs), dir, manifest.store, manifest.hash_key);
        let unlisted = directory.unlisted_files(&manifest)?;
        let mut documents = RecoveryLoader::default();
        let mut missing_summaries = Vec::new();
        documents.reserve(directory.count_entries(&manifest));
        for record in &manifest.segments {
            if let Some(sealed) = record.sealed
                && !directory.load_sealed(&mut documents, record.id, sealed)?
            {
                missing_summaries.push((record.id, sealed));
            }
        }
        let previous_active = directory.scan_active(&manifest)?;
        Ok(Self {
            reader: FrameReader::new(Arc::clone(fs), dir, manifest.store, open_segments),
            directory,
            manifest,
            documents,
            missing_summaries,
            previous_active,
            unlisted,
        })
    }
}

impl LogDirectory {
    /// Returns the number of entries in all readable summaries. The result is used as an estimate
    /// of the number of table entries.
    fn count_entries(&self, manifest: &Manifest) -> usize {
        let sealed = manifest.segments.iter().filter(|r| r.sealed.is_some());
        sealed
            .filter_map(|record| Some(self.open_summary(record.id).ok()?.entries()))
            // A damaged summary can state any number of entries, so the number is limited.
            .map(|entries| entries.min(MAX_SEGMENT_FRAMES))
            .sum()
    }

    /// Returns the files of segments that the manifest does not list. A crash can leave unlisted
    /// files in two cases: a new segment was created, but not yet added to the manifest; or a
    /// retired segment was removed from the manifest, but its files were not yet removed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if an unlisted segment file is newer than the manifest.
    pub(crate) fn unlisted_files(&self, manifest: &Manifest) -> Result<Vec<PathBuf>> {
        let files = self.files()?;
        let is_listed = |id| manifest.segments.iter().any(|record| record.id == id);
        let unlisted = || files.iter().filter(|(id, _)| !is_listed(*id));
        let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "seg");
        let created =
            unlisted().filter(|(id, path)| *id >= manifest.next_segment && is_segment(path));
        for (id, path) in created {
            if self.is_newer_than_manifest(manifest, &files, *id)? {
                return Err(self.outdated_manifest(path));
            }
        }
        Ok(unlisted().map(|(_, path)| path.clone()).collect())
    }

    /// Creates the error for a manifest that is older than a segment file.
    fn outdated_manifest(&self, path: &Path) -> Error {
        let what = format!(
            "the manifest is older than {}: restore a manifest that is not older than the segments",
            path.display()
        );
        Error::corrupt(&Manifest::path(&self.dir), 0, what)
    }

    /// Scans the frames of the segment that the manifest lists as active. Returns `None` if the
    /// manifest lists no active segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the segment header is damaged, or if the segment is newer than the
    /// manifest.
    pub(crate) fn scan_active(
        &self,
        manifest: &Manifest,
    ) -> Result<Option<(SegmentRecord, SegmentScan)>> {
        let Some(record) = manifest.segments.iter().find(|r| r.sealed.is_none()) else {
            return Ok(None);
        };
        let scan = self.scan(record.id, None)?;
        // If the active segment is newer than the manifest, recovery must stop before it copies the
        // frames of the segment to a new segment. After a crash between the copy and the update of
        // the manifest, the next open would reject the new segment as newer than the manifest.
        if scan.last_revision >= manifest.reserved_revision {
            return Err(self.outdated_manifest(&file_header::segment_path(&self.dir, record.id)));
        }
        Ok(Some((*record, scan)))
    }

    /// Returns true if an unlisted segment was listed in a manifest that is newer than `manifest`.
    /// In this case, `manifest` is outdated, for example because it was restored from an older
    /// copy. Opening a store with an outdated manifest would discard documents.
    ///
    /// A segment that was never listed in a manifest has no frames, or only frames that recovery
    /// copied from the end of the active segment.
    fn is_newer_than_manifest(
        &self,
        manifest: &Manifest,
        files: &[(SegmentId, PathBuf)],
        id: SegmentId,
    ) -> Result<bool> {
        let scan = match self.scan(id, None) {
            Ok(scan) => scan,
            Err(Error::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let has_frames = scan
            .items
            .iter()
            .any(|item| matches!(item.found, ScanFound::Frame(_)));
        let has_active = manifest.segments.iter().any(|r| r.sealed.is_none());
        let is_present = |record: &SegmentRecord| {
            let path = file_header::segment_path(&self.dir, record.id);
            files.iter().any(|(_, file)| *file == path)
        };
        Ok(scan.last_revision >= manifest.reserved_revision
            || (has_frames && !(has_active && manifest.segments.iter().all(is_present))))
    }

    /// Loads a sealed segment from its summary, or from its frames if the summary is damaged. If
    /// both the summary and the segment file are damaged, no document of the segment can be read.
    /// Returns true if the summary file must be kept.
    ///
    /// A file whose read failed is kept if a frame is damaged, because the read may succeed later, and
    /// only the file knows the namespace of a damaged frame.
    fn load_sealed(
        &self,
        documents: &mut RecoveryLoader,
        id: SegmentId,
        sealed: SealedSegment,
    ) -> Result<bool> {
        let failure = match self.summary(id, sealed.bytes) {
            Ok(summary) => {
                documents.load(self, id, &summary.entries, &summary.blobs);
                return Ok(true);
            }
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        let may_be_intact = matches!(failure, Error::Unreadable { .. });
        match self.summary_from_frames(id, sealed.bytes, sealed.last_revision) {
            Ok(summary) => {
                documents.load(self, id, summary.entries(), summary.blobs());
                let has_damage = summary.entries().iter().any(|e| e.kind.is_damaged());
                Ok(may_be_intact && has_damage)
            }
            Err(error) if error.is_damage() => {
                documents.load_unreadable(id, &error, sealed);
                Ok(may_be_intact)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns at least the highest time of the frames in the sealed segments, in milliseconds
    /// since 1970-01-01 UTC.
    ///
    /// A manifest of version 1 does not contain the highest time, so it is computed from the
    /// details of all segments. Segments that cannot be read are ignored, because their documents
    /// cannot be read either.
    pub(super) fn highest_modified_ms(&self, manifest: &Manifest) -> Result<u64> {
        if let Some(highest) = manifest.highest_modified_ms {
            return Ok(highest);
        }
        let mut highest = 0;
        for record in &manifest.segments {
            let Some(sealed) = record.sealed else {
                continue;
            };
            match self.details(record.id, sealed.bytes) {
                Ok(details) => {
                    let times = details.iter().map(|(_, detail)| detail.modified_ms);
                    highest = times.fold(highest, u64::max);
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(highest)
    }

    /// Returns the bytes of the previously active segment that recovery drops, because they may be
    /// a torn write. Returns `None` if no bytes are dropped.
    pub(super) fn dropped_tail(&self, id: SegmentId, scan: &SegmentScan) -> Option<DroppedTail> {
        let valid_end = scan.valid_end();
        let dropped = scan
            .items
            .iter()
            .filter(|item| u64::from(item.offset) >= valid_end);
        let bytes = dropped.map(|item| u64::from(item.bytes)).sum();
        (bytes > 0).then(|| DroppedTail {
            path: file_header::segment_path(&self.dir, id),
            offset: valid_end,
            bytes,
        })
    }
}
