//! The directory of a log: lists the segments, and reads the contents of a segment from its summary
//! or from its frames.
//!
//! This module reads the files of the log, but does not determine which frames are current.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::file_header::{self, StoreId};
use crate::format::manifest::SealedSegment;
use crate::format::summary;
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::{self, Summary, SummaryDetail, SummaryEntry};
use crate::model::error::{Error, Result};
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;
use crate::platform::fs::Fs;
use crate::storage::io::remove_if_present;
use crate::storage::log::removal_gate::{FilesGuard, RemovalGate};
use crate::storage::log::scan::{RevisionLimits, SegmentScan, scan};
use crate::storage::log::summary_file::{SummaryReader, write_summary};

/// The directory of a log, with the store id and the hash key, which are needed to read the files
/// of the log.
#[derive(Clone)]
pub(crate) struct LogDirectory {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    pub(crate) hash_key: [u8; 16],
    removal_gate: Arc<RemovalGate>,
    /// The segments whose summary files must not be used.
    ignored_summaries: Arc<BTreeSet<SegmentId>>,
}

impl LogDirectory {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path, store: StoreId, hash_key: [u8; 16]) -> Self {
        Self {
            fs,
            dir: dir.to_owned(),
            store,
            hash_key,
            removal_gate: Arc::default(),
            ignored_summaries: Arc::default(),
        }
    }

    /// Ignores the summary files of these segments from now on, because the files are missing,
    /// damaged or outdated, and are not written again.
    pub(crate) fn ignore_summaries(&mut self, segments: impl IntoIterator<Item = SegmentId>) {
        Arc::make_mut(&mut self.ignored_summaries).extend(segments);
    }

    /// Returns true if [`Self::ignore_summaries`] was called for this segment.
    pub(crate) fn ignores_summary(&self, id: SegmentId) -> bool {
        self.ignored_summaries.contains(&id)
    }

    /// Computes the hash of a namespace with the key of this store.
    pub(crate) fn hash(&self, user: &str, client: &str) -> NamespaceHash {
        NamespaceHash::of(&self.hash_key, user, client)
    }

    /// Creates the error for a frame that cannot be read.
    pub(crate) fn unreadable_frame(&self, segment: SegmentId, offset: Offset) -> Error {
        Error::corrupt(
            &file_header::segment_path(&self.dir, segment),
            offset.into(),
            "the frame at this offset cannot be read",
        )
    }

    /// Lists the segment files, the summary files and the temporary summary files, each with the id
    /// of its segment.
    pub(crate) fn files(&self) -> Result<Vec<(SegmentId, PathBuf)>> {
        let listing = self
            .fs
            .list(&self.dir)
            .map_err(|error| Error::io("list", &self.dir, error))?;
        let numbered = listing
            .into_iter()
            .filter_map(|path| Some((segment_id(&path)?, path)));
        Ok(numbered.collect())
    }

    /// Prevents the removal of segment files until the returned guard is dropped. Blocks while
    /// files are being removed.
    pub(crate) fn hold_files(&self) -> FilesGuard<'_> {
        self.removal_gate.add_reader()
    }

    /// Removes the files of a segment, unless a guard of [`Self::hold_files`] exists. Returns true
    /// if the files no longer exist. Call this function only if the manifest no longer lists the
    /// segment. Files that remain are removed later, at the latest when the store is opened again.
    pub(crate) fn remove(&self, id: SegmentId) -> Result<bool> {
        let Some(_removal) = self.removal_gate.try_remove() else {
            return Ok(false);
        };
        for path in [
            file_header::segment_path(&self.dir, id),
            entry::summary_path(&self.dir, id),
        ] {
            remove_if_present(&*self.fs, &path)?;
        }
        Ok(true)
    }

    /// Blocks until no guard of [`Self::hold_files`] exists.
    pub(crate) fn wait_until_released(&self) {
        self.removal_gate.wait_for_readers();
    }

    /// Reads a segment frame by frame, up to `end`, or to the end of the file if `end` is `None`.
    pub(crate) fn scan(&self, id: SegmentId, end: Option<u64>) -> Result<SegmentScan> {
        scan(&*self.fs, &self.dir, (id, self.store, &self.hash_key), end)
    }

    /// Reads the summary of a sealed segment that has `segment_bytes` bytes.
    ///
    /// # Errors
    /// - [`Error::Corrupt`]: the summary is damaged or missing, or describes a segment of a
    ///   different length.
    /// - [`Error::Unreadable`]: the summary could not be read from the disk.
    /// - [`Error::Io`]: any other failure.
    pub(crate) fn summary(&self, id: SegmentId, segment_bytes: u64) -> Result<Summary> {
        let summary = self.open_summary(id)?.summary()?;
        if summary.segment_bytes == segment_bytes {
            return Ok(summary);
        }
        let path = entry::summary_path(&self.dir, id);
        let what = "the summary describes a segment of a different length";
        Err(Error::corrupt(&path, entry::COUNTS_AT as u64, what))
    }

    /// Reads the summary of a sealed segment. A damaged summary is rebuilt in memory from the
    /// frames of the segment.
    ///
    /// # Errors
    /// If the summary is damaged and the frames cannot be read, returns the error of reading the
    /// frames.
    pub(crate) fn sealed_summary(&self, id: SegmentId, sealed: SealedSegment) -> Result<Summary> {
        match self.summary(id, sealed.bytes) {
            Err(error) if error.is_damage() => {
                let builder = self.summary_from_frames(id, sealed.bytes, sealed.last_revision)?;
                Ok(builder.into_summary(sealed.bytes))
            }
            other => other,
        }
    }

    /// Opens the summary of a segment and checks the length of the summary file.
    pub(crate) fn open_summary(&self, id: SegmentId) -> Result<SummaryReader> {
        SummaryReader::open(&*self.fs, &self.dir, id, self.store)
    }

    /// Builds the summary of a sealed segment from its frames.
    pub(crate) fn summary_from_frames(
        &self,
        id: SegmentId,
        segment_bytes: u64,
        last_revision: u64,
    ) -> Result<SummaryBuilder> {
        let found = self.scan(id, Some(segment_bytes))?;
        Ok(found.summary(segment_bytes, RevisionLimits::up_to(last_revision)))
    }

    /// Reads the summary entries of a sealed segment. `frames_bytes` is the total length of the
    /// segment's frames. If the summary is damaged, the entries are rebuilt from the frames.
    pub(crate) fn entries(&self, id: SegmentId, frames_bytes: u64) -> Result<Vec<SummaryEntry>> {
        let segment_bytes = file_header::HEADER_BYTES + frames_bytes;
        match self.summary(id, segment_bytes) {
            Ok(summary) => Ok(summary.entries),
            Err(error) if error.is_damage() => {
                let summary = self.summary_from_frames(id, segment_bytes, u64::MAX)?;
                Ok(summary.entries().to_vec())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the summary of a segment durably.
    pub(crate) fn write_summary(
        &self,
        id: SegmentId,
        summary: &SummaryBuilder,
        segment_bytes: u64,
    ) -> Result<()> {
        write_summary(&*self.fs, &self.dir, id, self.store, summary, segment_bytes)
    }

    /// Reads the summary entries of a segment, each with its detail. `end` is the offset of the end
    /// of the segment's frames. If the summary cannot be read, does not exist yet, describes a
    /// segment of a different length or is ignored, the entries are rebuilt from the frames. If the
    /// file is shorter than `end`, the missing bytes are damage.
    ///
    /// # Errors
    /// Returns the errors of [`Self::scan`] if the summary cannot be read and the scan also fails.
    pub(crate) fn details(
        &self,
        id: SegmentId,
        end: u64,
    ) -> Result<Vec<(SummaryEntry, SummaryDetail)>> {
        let read = || {
            let reader = self.open_summary(id).ok()?;
            let summary = reader.summary().ok()?;
            (summary.segment_bytes == end).then_some((summary.entries, reader.details().ok()?))
        };
        let read = (!self.ignores_summary(id)).then(read).flatten();
        let (entries, details) = if let Some(both) = read {
            both
        } else {
            let scan = self.scan(id, Some(end))?;
            let summary = scan.summary(end, RevisionLimits::up_to(scan.last_revision));
            (
                summary.entries().to_vec(),
                summary::builder_details(&summary),
            )
        };
        Ok(entries.into_iter().zip(details).collect())
    }
}

/// Parses the segment id in the name of a segment or summary file. Returns `None` for other files.
fn segment_id(path: &Path) -> Option<SegmentId> {
    let (id, extension) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = id.len() == 8 && (extension.starts_with("seg") || extension.starts_with("sum"));
    ours.then(|| u32::from_str_radix(id, 16).ok().map(SegmentId::new))?
}
