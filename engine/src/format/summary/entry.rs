//! The parts of a summary that all format versions have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::fields::FieldReader;
use crate::format::file_header::{FileKind, FormatVersion};
use crate::format::frame::header::EntryKind;
use crate::model::ids::{BlobId, Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// The file kind of summary files.
pub(super) const KIND: FileKind = FileKind {
    magic: *b"PREFDSUM",
    written: FormatVersion::V3,
};

/// Offset of the counts.
pub(crate) const COUNTS_AT: usize = 28;

/// Offset of the checksum of the counts.
pub(super) const COUNTS_CRC_AT: usize = 60;

/// Offset of the entries.
pub(crate) const ENTRIES_AT: usize = 64;

const BLOB_REFERENCE_BYTES: usize = 12;

/// The summary of one frame, or of one range of damaged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SummaryEntry {
    pub(crate) hash: NamespaceHash,
    /// The revision of the frame. For damaged bytes, the highest revision that a frame in these
    /// bytes could have.
    pub(crate) revision: u64,
    pub(crate) offset: Offset,
    /// Length of the frame or of the damaged range in bytes.
    pub(crate) bytes: u32,
    pub(crate) kind: EntryKind,
    /// Number of keys of the document.
    pub(crate) keys: u32,
}

/// The details of a frame: the user and client names, the length of the body, and the time of the
/// write. Details are needed only to build or update the catalogue, to erase a user, to compute
/// statistics and to verify a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SummaryDetail {
    pub(crate) user: String,
    /// The name is an `Arc`, so that details with the same client can share one copy of the name.
    pub(crate) client: Arc<str>,
    /// Length of the document's body in bytes.
    pub(crate) body_bytes: u64,
    /// Time of the write in milliseconds since 1970-01-01 UTC.
    pub(crate) modified_ms: u64,
}

/// The decoded entries and blob references of a summary file.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) segment_bytes: u64,
    pub(crate) entries: Vec<SummaryEntry>,
    /// The blob references. Each blob reference is a pair: an index into `entries`, and the id of a
    /// blob.
    pub(crate) blobs: Vec<(u32, BlobId)>,
}

/// The path of the summary file in the log directory `dir`.
pub(crate) fn summary_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.sum"))
}

/// The decoded counts of a summary file: the numbers and lengths of its parts, and their
/// checksums.
pub(crate) struct SummaryCounts {
    pub(crate) version: FormatVersion,
    pub(crate) segment_bytes: u64,
    /// Number of entries.
    pub(crate) entries: usize,
    pub(crate) entries_bytes: usize,
    /// Number of blob references.
    pub(crate) blobs: usize,
    pub(crate) details_bytes: usize,
    pub(crate) opening_crc: OpeningCrc,
    pub(crate) details_crc: u32,
}

/// The checksums of the entries and the blob references, the parts of a summary file that are read
/// when a store is opened.
pub(crate) enum OpeningCrc {
    /// The checksum of the entries, and the checksum of the blob references (version 1).
    Separate(u32, u32),
    /// One checksum that covers both the entries and the blob references (versions 2 and 3).
    Together(u32),
}

impl SummaryCounts {
    /// Returns the offset of the blob references in the file.
    pub(super) fn blobs_at(&self) -> usize {
        ENTRIES_AT + self.entries_bytes
    }

    /// Returns the offset of the details in the file.
    pub(crate) fn details_at(&self) -> usize {
        self.blobs_at() + self.blobs * BLOB_REFERENCE_BYTES
    }
}

pub(super) fn encode_blobs(blobs: &[(u32, BlobId)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blobs.len() * BLOB_REFERENCE_BYTES);
    for (index, blob) in blobs {
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&blob.get().to_le_bytes());
    }
    bytes
}

pub(super) fn decode_blobs(bytes: &[u8]) -> Option<Vec<(u32, BlobId)>> {
    bytes
        .chunks_exact(BLOB_REFERENCE_BYTES)
        .map(|reference| {
            let mut fields = FieldReader::new(reference);
            Some((fields.u32()?, BlobId::new(fields.u64()?)))
        })
        .collect()
}

/// Assembles a summary file. `counts` are the bytes between the file header and the checksum of
/// the counts.
pub(super) fn assemble(mut header: Vec<u8>, counts: &[u8], sections: &[&[u8]]) -> Vec<u8> {
    header.extend_from_slice(counts);
    header.extend_from_slice(&crc32fast::hash(counts).to_le_bytes());
    for section in sections {
        header.extend_from_slice(section);
    }
    header
}

/// Converts a count or a length to 32 bits, its width on disk. A segment is sealed long before a
/// count or a length of its summary exceeds 32 bits.
pub(super) fn to_u32(len: usize) -> u32 {
    debug_assert!(u32::try_from(len).is_ok(), "{len} exceeds 32 bits");
    u32::try_from(len).unwrap_or(u32::MAX)
}
