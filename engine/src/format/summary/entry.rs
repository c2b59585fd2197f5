//! What a summary consists of, whatever its version.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::fields::FieldReader;
use crate::format::file_header::{FileKind, FormatVersion};
use crate::format::frame::header::EntryKind;
use crate::model::ids::{BlobId, Offset, SegmentId};
use crate::model::names::NamespaceHash;

/// Summaries; those written are of version 2.
pub(super) const KIND: FileKind = FileKind {
    magic: *b"PREFDSUM",
    written: FormatVersion::V2,
};

pub(crate) const COUNTS_AT: usize = 28;

pub(super) const COUNTS_CRC_AT: usize = 60;

pub(crate) const ENTRIES_AT: usize = 64;

const BLOB_REFERENCE_BYTES: usize = 12;

/// One frame of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SummaryEntry {
    pub(crate) hash: NamespaceHash,
    /// Of a damaged or lost frame: the highest that it can have had.
    pub(crate) revision: u64,
    pub(crate) offset: Offset,
    pub(crate) bytes: u32,
    pub(crate) kind: EntryKind,
    pub(crate) keys: u32,
}

/// What the catalogue needs of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SummaryDetail {
    pub(crate) user: String,
    /// Few clients have many documents.
    pub(crate) client: Arc<str>,
    pub(crate) body_bytes: u64,
    pub(crate) modified_ms: u64,
}

/// A summary as it was read, its details still encoded.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) segment_bytes: u64,
    pub(crate) entries: Vec<SummaryEntry>,
    /// (index into `entries`, blob)
    pub(crate) blobs: Vec<(u32, BlobId)>,
}

pub(crate) fn path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.sum"))
}

/// What stands before the entries.
pub(crate) struct SummaryCounts {
    pub(crate) version: FormatVersion,
    pub(crate) segment_bytes: u64,
    pub(crate) entries: usize,
    pub(crate) entries_bytes: usize,
    pub(crate) blobs: usize,
    pub(crate) details_bytes: usize,
    pub(crate) opening_crc: OpeningCrc,
    pub(crate) details_crc: u32,
}

/// The checksum of what an open reads.
pub(crate) enum OpeningCrc {
    /// Of entries and of blob references.
    Separate(u32, u32),
    Together(u32),
}

impl SummaryCounts {
    /// Offset of the blob references in the file.
    pub(super) fn blobs_at(&self) -> usize {
        ENTRIES_AT + self.entries_bytes
    }

    /// Offset of the details in the file.
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

/// A summary of these parts: `counts` is what stands between the file header and its
/// own checksum.
pub(super) fn assemble(mut header: Vec<u8>, counts: &[u8], sections: &[&[u8]]) -> Vec<u8> {
    header.extend_from_slice(counts);
    header.extend_from_slice(&crc32fast::hash(counts).to_le_bytes());
    for section in sections {
        header.extend_from_slice(section);
    }
    header
}

/// A count or a length as it is written. A segment is sealed long before one outgrows this.
pub(super) fn narrow(len: usize) -> u32 {
    debug_assert!(u32::try_from(len).is_ok(), "{len} does not fit");
    u32::try_from(len).unwrap_or(u32::MAX)
}
