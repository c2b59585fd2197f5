//! The summary file of a sealed segment. A summary lists the frames of its segment, so that opening
//! a store does not need to read the frames.
//!
//! A summary file consists of the file header (see `file_header`), counts and checksums,
//! entries, blob references and details. A blob reference has 12 bytes: the index of an entry
//! (u32) and the id of a blob (u64).
//!
//! New summary files have the layout [`compact`]. The engine can read the older layout [`v1`], but
//! no longer writes it. The version of a summary file is independent of the version of its segment.
//!
//! Opening a store reads the entries and the blob references. The details, which contain the names,
//! are needed only to build or update the catalogue, to erase a user, to compute statistics and to
//! verify a store.

pub(crate) mod builder;
pub(crate) mod compact;
pub(crate) mod entry;
pub(crate) mod v1;

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

/// Encodes the summary file of a segment in the version of new files.
pub(crate) fn encode(
    builder: &SummaryBuilder,
    id: SegmentId,
    store: StoreId,
    segment_bytes: u64,
) -> Vec<u8> {
    compact::encode(KIND.written, builder, id, store, segment_bytes)
}

/// Encodes the summary file of a segment in the given version, for the fuzzers.
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
        FormatVersion::V2 | FormatVersion::V3 => {
            compact::encode(version, builder, id, store, segment_bytes)
        }
    }
}

/// Returns the details that were collected in `builder`, one for each entry, in the order of the
/// entries.
pub(crate) fn builder_details(builder: &SummaryBuilder) -> Vec<SummaryDetail> {
    let details = v1::details(&builder.details);
    debug_assert!(
        details.is_some(),
        "a detail that the builder encoded must decode"
    );
    details.unwrap_or_default()
}

/// Decodes the file header and the counts: the first [`ENTRIES_AT`] bytes of a summary file.
///
/// # Errors
/// - [`Error::Corrupt`]: the file header or the counts are damaged.
/// - [`Error::UnsupportedFormat`]: the summary file was written by a newer version of prefd.
pub(crate) fn decode_counts(
    path: &Path,
    header: &[u8],
    id: SegmentId,
    store: StoreId,
) -> Result<SummaryCounts> {
    let version = file_header::check_header(path, header, KIND, id.get(), store)?;
    let counts = header.get(COUNTS_AT..COUNTS_CRC_AT).unwrap_or_default();
    let crc = header.get(COUNTS_CRC_AT..ENTRIES_AT).unwrap_or_default();
    let fields = FieldReader::new(counts);
    let decoded = match version {
        FormatVersion::V1 => v1::counts(fields),
        FormatVersion::V2 | FormatVersion::V3 => compact::counts(version, fields),
    };
    let counts = decoded
        .filter(|_| crc32fast::hash(counts).to_le_bytes() == *crc)
        .ok_or_else(|| checksum_mismatch(path, COUNTS_AT, "the counts"))?;
    // The number of entries determines the size of an allocation, so a number that is too high is
    // rejected.
    if counts.entries > counts.entries_bytes / compact::MIN_ENTRY_BYTES {
        let what = "the number of entries is too high for the length of the entries";
        return Err(Error::corrupt(path, COUNTS_AT as u64, what));
    }
    Ok(counts)
}

/// Decodes the entries and the blob references. `opening` is the part of the file from
/// [`ENTRIES_AT`] to the details.
///
/// # Errors
/// [`Error::Corrupt`] if the entries or the blob references are damaged.
pub(crate) fn decode_entries(
    path: &Path,
    counts: &SummaryCounts,
    opening: &[u8],
) -> Result<Summary> {
    let (entries, blobs) = opening
        .split_at_checked(counts.entries_bytes)
        .unwrap_or_default();
    let is_intact = match counts.opening_crc {
        OpeningCrc::Separate(entries_crc, blobs_crc) => {
            crc32fast::hash(entries) == entries_crc && crc32fast::hash(blobs) == blobs_crc
        }
        OpeningCrc::Together(crc) => crc32fast::hash(opening) == crc,
    };
    if !is_intact {
        let whose = "the entries or the blob references";
        return Err(checksum_mismatch(path, ENTRIES_AT, whose));
    }
    let entries = match counts.version {
        FormatVersion::V1 => v1::entries(entries),
        FormatVersion::V2 | FormatVersion::V3 => {
            compact::entries(counts.version, entries, counts.entries)
        }
    };
    let (entries, blobs) = entries.zip(decode_blobs(blobs)).ok_or_else(|| {
        let what = "an entry or a blob reference cannot be decoded";
        Error::corrupt(path, ENTRIES_AT as u64, what)
    })?;
    Ok(Summary {
        segment_bytes: counts.segment_bytes,
        entries,
        blobs,
    })
}

/// Decodes the details, one for each entry, in the order of the entries.
///
/// # Errors
/// [`Error::Corrupt`] if the details are damaged.
pub(crate) fn decode_details(
    path: &Path,
    counts: &SummaryCounts,
    bytes: &[u8],
) -> Result<Vec<SummaryDetail>> {
    let at = counts.details_at();
    if crc32fast::hash(bytes) != counts.details_crc {
        return Err(checksum_mismatch(path, at, "the details"));
    }
    let details = match counts.version {
        FormatVersion::V1 => v1::details(bytes),
        FormatVersion::V2 | FormatVersion::V3 => compact::details(bytes, counts.entries),
    };
    details.ok_or_else(|| Error::corrupt(path, at as u64, "a detail cannot be decoded"))
}

fn checksum_mismatch(path: &Path, offset: usize, whose: &str) -> Error {
    Error::corrupt(
        path,
        offset as u64,
        format!("the checksum of {whose} does not match"),
    )
}
