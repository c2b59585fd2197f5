//! The summary file layout of version 1. Version 1 is read, but no longer written.
//!
//! ```text
//! 28  u64  length of the segment
//! 36  u32  number of entries
//! 40  u32  number of blob references
//! 44  u32  length of all details
//! 48  u32  CRC-32 of the entries
//! 52  u32  CRC-32 of the details
//! 56  u32  CRC-32 of the blob references
//! 60  u32  CRC-32 of bytes 28..60
//! 64  entries, 37 bytes each: hash 16B, revision u64, offset u32, length u32,
//!     kind u8, keys u32
//!     blob references
//!     details, for each entry: user u8 + bytes, client u8 + bytes, length of the body u64,
//!     time of the write u64
//! ```

use crate::format::fields::FieldReader;
use crate::format::file_header::FormatVersion;
use crate::format::frame::header::EntryKind;
use crate::format::summary::entry::{OpeningCrc, SummaryCounts, SummaryDetail, SummaryEntry};
use crate::model::ids::Offset;
use crate::model::names::NamespaceHash;

const ENTRY_BYTES: usize = 37;

pub(super) fn counts(mut fields: FieldReader<'_>) -> Option<SummaryCounts> {
    let segment_bytes = fields.u64()?;
    let (entries, blobs) = (fields.u32()? as usize, fields.u32()? as usize);
    let details_bytes = fields.u32()? as usize;
    let (entries_crc, details_crc, blobs_crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
    Some(SummaryCounts {
        version: FormatVersion::V1,
        segment_bytes,
        entries,
        entries_bytes: entries * ENTRY_BYTES,
        blobs,
        details_bytes,
        opening_crc: OpeningCrc::Separate(entries_crc, blobs_crc),
        details_crc,
    })
}

pub(super) fn entries(bytes: &[u8]) -> Option<Vec<SummaryEntry>> {
    bytes
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            let mut fields = FieldReader::new(entry);
            Some(SummaryEntry {
                hash: NamespaceHash::from_bytes(fields.array()?),
                revision: fields.u64()?,
                offset: Offset::from_u32(fields.u32()?),
                bytes: fields.u32()?,
                kind: EntryKind::from_byte(fields.u8()?).filter(|kind| *kind != EntryKind::Mark)?,
                keys: fields.u32()?,
            })
        })
        .collect()
}

/// A decoded detail that borrows the names from the encoded bytes.
pub(super) struct DetailRef<'a> {
    pub(super) user: &'a str,
    pub(super) client: &'a str,
    pub(super) body_bytes: u64,
    pub(super) modified_ms: u64,
}

/// Decodes the next detail.
pub(super) fn decode_detail<'a>(fields: &mut FieldReader<'a>) -> Option<DetailRef<'a>> {
    Some(DetailRef {
        user: fields.short_text()?,
        client: fields.short_text()?,
        body_bytes: fields.u64()?,
        modified_ms: fields.u64()?,
    })
}

pub(super) fn details(bytes: &[u8]) -> Option<Vec<SummaryDetail>> {
    let mut fields = FieldReader::new(bytes);
    let mut details = Vec::new();
    while !fields.is_empty() {
        let detail = decode_detail(&mut fields)?;
        details.push(SummaryDetail {
            user: detail.user.to_owned(),
            client: detail.client.into(),
            body_bytes: detail.body_bytes,
            modified_ms: detail.modified_ms,
        });
    }
    Some(details)
}

/// Encodes a summary file, for the fuzzers.
#[cfg(feature = "fuzzing")]
pub(super) fn encode(
    summary: &crate::format::summary::builder::SummaryBuilder,
    id: crate::model::ids::SegmentId,
    store: crate::format::file_header::StoreId,
    segment_bytes: u64,
) -> Vec<u8> {
    use crate::format::summary::entry;

    let mut entries = Vec::new();
    for entry in summary.entries() {
        entries.extend_from_slice(&entry.hash.to_bytes());
        entries.extend_from_slice(&entry.revision.to_le_bytes());
        entries.extend_from_slice(&entry.offset.get().to_le_bytes());
        entries.extend_from_slice(&entry.bytes.to_le_bytes());
        entries.push(entry.kind.to_byte());
        entries.extend_from_slice(&entry.keys.to_le_bytes());
    }
    let blobs = entry::encode_blobs(summary.blobs());
    let mut counts = segment_bytes.to_le_bytes().to_vec();
    for count in [
        summary.entries().len(),
        summary.blobs().len(),
        summary.details.len(),
    ] {
        counts.extend_from_slice(&entry::to_u32(count).to_le_bytes());
    }
    for section in [&entries, &summary.details, &blobs] {
        counts.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
    }
    let magic = entry::KIND.magic;
    let header =
        crate::format::file_header::encode_header_of(magic, FormatVersion::V1, id.get(), store);
    entry::assemble(header, &counts, &[&entries, &blobs, &summary.details])
}
