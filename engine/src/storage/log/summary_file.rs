//! Reads summary files section by section, and writes summary files durably.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::file_header::StoreId;
use crate::format::summary;
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::{self, ENTRIES_AT, Summary, SummaryCounts, SummaryDetail};
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::platform::fs::{File, Fs};
use crate::storage::io::{install_file, open_stored, read_into, stage_file, stored_len};

/// An open summary file.
pub(crate) struct SummaryReader {
    path: PathBuf,
    file: Arc<dyn File>,
    counts: SummaryCounts,
}

impl SummaryReader {
    /// Opens the summary of a segment, and checks the counts and the length of the file.
    pub(crate) fn open(fs: &dyn Fs, dir: &Path, id: SegmentId, store: StoreId) -> Result<Self> {
        let path = entry::summary_path(dir, id);
        let file = open_stored(fs, &path)?;
        let mut head = [0; ENTRIES_AT];
        read_into(&*file, || path.clone(), 0, &mut head)?;
        let counts = summary::decode_counts(&path, &head, id, store)?;
        let expected = (counts.details_at() + counts.details_bytes) as u64;
        let found = stored_len(&*file, &path)?;
        if found != expected {
            return Err(Error::corrupt(
                &path,
                found.min(expected),
                format!(
                    "the summary file has {found} bytes, but its counts require {expected} bytes"
                ),
            ));
        }
        Ok(Self { path, file, counts })
    }

    /// Reads a section. [`Self::open`] has checked that the file is long enough.
    fn section(&self, at: usize, bytes: usize) -> Result<Vec<u8>> {
        let mut section = vec![0; bytes];
        read_into(&*self.file, || self.path.clone(), at as u64, &mut section)?;
        Ok(section)
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> usize {
        self.counts.entries
    }

    /// Reads the entries and the blob references.
    pub(crate) fn summary(&self) -> Result<Summary> {
        let opening = self.section(ENTRIES_AT, self.counts.details_at() - ENTRIES_AT)?;
        summary::decode_entries(&self.path, &self.counts, &opening)
    }

    /// Reads the details, one for each entry.
    pub(crate) fn details(&self) -> Result<Vec<SummaryDetail>> {
        let bytes = self.section(self.counts.details_at(), self.counts.details_bytes)?;
        summary::decode_details(&self.path, &self.counts, &bytes)
    }

    /// Reads the summary and re-encodes it in the same version, for the fuzzers.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn reencode(&self, id: SegmentId, store: StoreId) -> Result<Vec<u8>> {
        let (found, details) = (self.summary()?, self.details()?);
        let segment_bytes = found.segment_bytes;
        let builder = SummaryBuilder::from_decoded(found, &details);
        let version = self.counts.version;
        Ok(summary::encode_as(
            version,
            &builder,
            id,
            store,
            segment_bytes,
        ))
    }
}

/// Writes the summary of a segment durably. Replaces an existing summary.
pub(crate) fn write_summary(
    fs: &dyn Fs,
    dir: &Path,
    id: SegmentId,
    store: StoreId,
    builder: &SummaryBuilder,
    segment_bytes: u64,
) -> Result<()> {
    let path = entry::summary_path(dir, id);
    let temporary = path.with_extension("sum.new");
    let bytes = summary::encode(builder, id, store, segment_bytes);
    stage_file(fs, &temporary, &bytes)?;
    install_file(fs, dir, &temporary, &path)
}
