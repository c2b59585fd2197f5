//! A summary: what a sealed segment holds, so that opening reads some bytes for
//! each frame and not the frames.
//!
//! Behind the file header (see `file_header`), magic "PREFDSUM", stand counts and checksums,
//! entries, blob references (12 bytes each: entry u32, blob u64) and details. Of the two
//! layouts of that, [`v2`] is the one that is written and [`v1`] one that is only read;
//! neither has to do with the version of the segment.
//!
//! Entries and blob references are read when the store is opened; the details, with
//! the names, only when the catalogue is rebuilt.

pub(crate) mod builder;
pub(crate) mod entry;
pub(crate) mod v1;
pub(crate) mod v2;

use std::path::Path;

use crate::format::fields::FieldReader;
use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::{
    COUNTS_AT, COUNTS_CRC_AT, ENTRIES_AT, KIND, OpeningCrc, Summary, SummaryCounts, SummaryDetail,
    decode_blobs,
};
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;

/// The summary file of a segment, in the version that is written.
pub(crate) fn encode(
    builder: &SummaryBuilder,
    id: SegmentId,
    store: StoreId,
    segment_bytes: u64,
) -> Vec<u8> {
    v2::encode(builder, id, store, segment_bytes)
}

/// The summary file of a segment in the given version, for the fuzzers.
#[cfg(feature = "fuzzing")]
pub(crate) fn encode_as(
    version: FormatVersion,
    builder: &SummaryBuilder,
    id: SegmentId,
    store: StoreId,
    segment_bytes: u64,
) -> Vec<u8> {
    match version {
        FormatVersion::V1 => v1::encode(builder, id, store, segment_bytes),
        FormatVersion::V2 => v2::encode(builder, id, store, segment_bytes),
    }
}

/// The details of a builder's entries, in their order.
pub(crate) fn builder_details(builder: &SummaryBuilder) -> Vec<SummaryDetail> {
    let details = v1::details(&builder.details);
    debug_assert!(details.is_some(), "a gathered detail does not decode");
    details.unwrap_or_default()
}

/// Decodes the first [`ENTRIES_AT`] bytes of a summary file.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::UnsupportedFormat`].
pub(crate) fn decode_counts(
    path: &Path,
    head: &[u8],
    id: SegmentId,
    store: StoreId,
) -> Result<SummaryCounts> {
    let version = file_header::check_header(path, head, KIND, id.get(), store)?;
    let counts = head.get(COUNTS_AT..COUNTS_CRC_AT).unwrap_or_default();
    let crc = head.get(COUNTS_CRC_AT..ENTRIES_AT).unwrap_or_default();
    let fields = FieldReader::new(counts);
    let decoded = match version {
        FormatVersion::V1 => v1::counts(fields),
        FormatVersion::V2 => v2::counts(fields),
    };
    let counts = decoded
        .filter(|_| crc32fast::hash(counts).to_le_bytes() == *crc)
        .ok_or_else(|| checksum_mismatch(path, COUNTS_AT, "the counts'"))?;
    // Memory is allocated for as many entries as are counted, before they are read.
    if counts.entries > counts.entries_bytes / v2::MIN_ENTRY_BYTES {
        let what = "the summary counts more entries than it has bytes for";
        return Err(Error::corrupt(path, COUNTS_AT as u64, what));
    }
    Ok(counts)
}

/// Decodes entries and blob references: the bytes from [`ENTRIES_AT`] to the details.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn decode_entries(
    path: &Path,
    counts: &SummaryCounts,
    opening: &[u8],
) -> Result<Summary> {
    let (entries, blobs) = opening
        .split_at_checked(counts.entries_bytes)
        .unwrap_or_default();
    let is_intact = match counts.opening_crc {
        OpeningCrc::Separate(of_entries, of_blobs) => {
            crc32fast::hash(entries) == of_entries && crc32fast::hash(blobs) == of_blobs
        }
        OpeningCrc::Together(crc) => crc32fast::hash(opening) == crc,
    };
    if !is_intact {
        let whose = "the entries' or the blob references'";
        return Err(checksum_mismatch(path, ENTRIES_AT, whose));
    }
    let entries = match counts.version {
        FormatVersion::V1 => v1::entries(entries),
        FormatVersion::V2 => v2::entries(entries, counts.entries),
    };
    let (entries, blobs) = entries.zip(decode_blobs(blobs)).ok_or_else(|| {
        let what = "an entry is not one of this version";
        Error::corrupt(path, ENTRIES_AT as u64, what)
    })?;
    Ok(Summary {
        segment_bytes: counts.segment_bytes,
        entries,
        blobs,
    })
}

/// Decodes the details, one for each entry.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn decode_details(
    path: &Path,
    counts: &SummaryCounts,
    bytes: &[u8],
) -> Result<Vec<SummaryDetail>> {
    let at = counts.details_at();
    if crc32fast::hash(bytes) != counts.details_crc {
        return Err(checksum_mismatch(path, at, "the details'"));
    }
    let details = match counts.version {
        FormatVersion::V1 => v1::details(bytes),
        FormatVersion::V2 => v2::details(bytes, counts.entries),
    };
    details.ok_or_else(|| Error::corrupt(path, at as u64, "a detail is not one of this version"))
}

fn checksum_mismatch(path: &Path, offset: usize, whose: &str) -> Error {
    Error::corrupt(
        path,
        offset as u64,
        format!("{whose} checksum does not match"),
    )
}
