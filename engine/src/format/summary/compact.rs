//! The summary file layout of versions 2 and 3. Version 3 is the version of new summary files, and
//! differs from version 2 only in that it can describe marks. Each frame has an entry of about 20
//! bytes, which is read when a store is opened, and a detail of about 20 bytes.
//!
//! ```text
//! 28  u64  length of the segment
//! 36  u32  number of entries
//! 40  u32  length of all entries
//! 44  u32  number of blob references
//! 48  u32  length of all details
//! 52  u32  CRC-32 of the entries and the blob references
//! 56  u32  CRC-32 of the details
//! 60  u32  CRC-32 of bytes 28..60
//! 64  entries, each:
//!       u8      low three bits: kind; high five bits: number of keys, or 31 if there are more
//!               than 30
//!       varint  only if the high five bits are 31: number of keys, minus 31
//!       16B     namespace hash; absent in kinds 5 (lost) and 6 (mark)
//!       varint  revision, as a delta from the previous entry
//!       varint  length
//!     blob references
//!     details, one for each entry:
//!       u8 + user
//!       varint  index of the client in the list of clients
//!       u8 + client, only if the index equals the length of the list; the client is appended
//!       varint  length of the body
//!       varint  time of the write, as a delta from the previous detail
//! ```
//!
//! Together, the entries for frames and for ranges of damaged bytes cover the segment without gaps,
//! beginning after its file header. Offsets are not stored, because each offset is computed from
//! the lengths of the preceding entries.
//!
//! A delta is computed modulo 2⁶⁴ and zigzag-encoded: 0, −1, 1, −2, 2 are stored as
//! 0, 1, 2, 3, 4.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::fields::{
    FieldReader, decode_delta, encode_delta, push_short_text, push_varint,
};
use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::frame::header::EntryKind;
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::{
    KIND, OpeningCrc, SummaryCounts, SummaryDetail, SummaryEntry, assemble, encode_blobs, to_u32,
};
use crate::format::summary::v1;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

const KIND_BITS: u32 = 3;
/// The maximum value of the five-bit field that stores the number of keys. If the field has this
/// value, a varint with the number of keys minus 31 follows.
const MANY_KEYS: u32 = 31;
/// Minimum length of an entry in bytes. The shortest entries describe lost frames and marks, and
/// consist of one byte each for the kind, the revision and the length.
pub(super) const MIN_ENTRY_BYTES: usize = 3;
/// Minimum length of a detail in bytes: one byte each for the user, the client, the length of the
/// body and the time.
const MIN_DETAIL_BYTES: usize = 4;
/// Approximate length of an encoded entry in bytes, used to reserve memory before encoding.
const ESTIMATED_ENTRY_BYTES: usize = 24;

pub(super) fn counts(version: FormatVersion, mut fields: FieldReader<'_>) -> Option<SummaryCounts> {
    Some(SummaryCounts {
        version,
        segment_bytes: fields.u64()?,
        entries: fields.u32()? as usize,
        entries_bytes: fields.u32()? as usize,
        blobs: fields.u32()? as usize,
        details_bytes: fields.u32()? as usize,
        opening_crc: OpeningCrc::Together(fields.u32()?),
        details_crc: fields.u32()?,
    })
}

pub(super) fn encode(
    version: FormatVersion,
    summary: &SummaryBuilder,
    id: SegmentId,
    store: StoreId,
    segment_bytes: u64,
) -> Vec<u8> {
    let mut opening = encode_entries(summary.entries());
    let entries_bytes = opening.len();
    opening.extend_from_slice(&encode_blobs(summary.blobs()));
    let details = encode_details(&summary.details);
    let mut counts = segment_bytes.to_le_bytes().to_vec();
    for count in [
        summary.entries().len(),
        entries_bytes,
        summary.blobs().len(),
        details.len(),
    ] {
        counts.extend_from_slice(&to_u32(count).to_le_bytes());
    }
    for section in [&opening, &details] {
        counts.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
    }
    let header = file_header::encode_header_of(KIND.magic, version, id.get(), store);
    assemble(header, &counts, &[&opening, &details])
}

/// Returns true if entries of this kind contain a namespace hash.
fn has_hash(kind: EntryKind) -> bool {
    !matches!(kind, EntryKind::Lost | EntryKind::Mark)
}

/// Returns true if entries of this kind have keys.
fn has_keys(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Put | EntryKind::PutWithMetadata)
}

fn encode_entries(entries: &[SummaryEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ESTIMATED_ENTRY_BYTES);
    let mut revision = 0;
    for entry in entries {
        let keys = if has_keys(entry.kind) { entry.keys } else { 0 };
        // The high five bits of the first byte contain the number of keys.
        let high = u8::try_from(keys.min(MANY_KEYS)).unwrap_or_default();
        bytes.push(entry.kind.to_byte() | high << KIND_BITS);
        if let Some(more) = keys.checked_sub(MANY_KEYS) {
            push_varint(&mut bytes, more.into());
        }
        if has_hash(entry.kind) {
            bytes.extend_from_slice(&entry.hash.to_bytes());
        }
        push_varint(&mut bytes, encode_delta(revision, entry.revision));
        push_varint(&mut bytes, entry.bytes.into());
        revision = entry.revision;
    }
    bytes
}

/// Decodes `count` entries. Returns `None` if `bytes` does not consist of exactly `count` entries
/// that are valid in this version.
pub(super) fn entries(
    version: FormatVersion,
    bytes: &[u8],
    count: usize,
) -> Option<Vec<SummaryEntry>> {
    if count > bytes.len() / MIN_ENTRY_BYTES {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut fields = FieldReader::new(bytes);
    let (mut revision, mut offset) = (0, file_header::HEADER_BYTES);
    for _ in 0..count {
        let entry = decode_entry(&mut fields, revision, offset)?;
        if entry.kind == EntryKind::Mark && version < FormatVersion::V3 {
            return None;
        }
        revision = entry.revision;
        offset += u64::from(entry.bytes);
        entries.push(entry);
    }
    fields.is_empty().then_some(entries)
}

/// Decodes the entry for the frame at `offset` of the segment. `previous_revision` is the revision
/// of the previous entry.
fn decode_entry(
    fields: &mut FieldReader<'_>,
    previous_revision: u64,
    offset: u64,
) -> Option<SummaryEntry> {
    let first = fields.u8()?;
    let kind = EntryKind::from_byte(first & ((1 << KIND_BITS) - 1))?;
    let mut keys = u32::from(first >> KIND_BITS);
    if keys == MANY_KEYS {
        keys = keys.checked_add(fields.varint_u32()?)?;
    }
    if keys > 0 && !has_keys(kind) {
        return None;
    }
    let hash = if has_hash(kind) {
        fields.array()?
    } else {
        [0; NamespaceHash::BYTES]
    };
    Some(SummaryEntry {
        hash: NamespaceHash::from_bytes(hash),
        revision: decode_delta(previous_revision, fields.varint()?),
        offset: Offset::new(offset)?,
        bytes: fields.varint_u32()?,
        kind,
        keys,
    })
}

/// Encodes the details. `v1_details` are the details that a [`SummaryBuilder`] has collected, in
/// the layout of version 1.
fn encode_details(v1_details: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(v1_details.len());
    let mut clients = HashMap::new();
    let mut modified_ms = 0;
    let mut fields = FieldReader::new(v1_details);
    while let Some(detail) = v1::decode_detail(&mut fields) {
        push_short_text(&mut bytes, detail.user);
        let next = clients.len() as u64;
        let index = *clients.entry(detail.client).or_insert(next);
        push_varint(&mut bytes, index);
        if index == next {
            push_short_text(&mut bytes, detail.client);
        }
        push_varint(&mut bytes, detail.body_bytes);
        push_varint(&mut bytes, encode_delta(modified_ms, detail.modified_ms));
        modified_ms = detail.modified_ms;
    }
    debug_assert!(
        fields.is_empty(),
        "a detail that the builder encoded must decode"
    );
    bytes
}

/// Decodes `count` details. Returns `None` if `bytes` does not consist of exactly `count` valid
/// details.
pub(super) fn details(bytes: &[u8], count: usize) -> Option<Vec<SummaryDetail>> {
    if count > bytes.len() / MIN_DETAIL_BYTES {
        return None;
    }
    let mut details = Vec::with_capacity(count);
    let mut fields = FieldReader::new(bytes);
    let mut clients: Vec<Arc<str>> = Vec::new();
    let mut listed: HashSet<&str> = HashSet::new();
    let mut modified_ms = 0;
    for _ in 0..count {
        let user = fields.short_text()?.to_owned();
        let index = usize::try_from(fields.varint()?).ok()?;
        if index == clients.len() {
            let client = fields.short_text()?;
            // Each client name may be stored only once. Later details of the same client must refer
            // to the name by its index.
            if !listed.insert(client) {
                return None;
            }
            clients.push(client.into());
        }
        let client = Arc::clone(clients.get(index)?);
        let body_bytes = fields.varint()?;
        modified_ms = decode_delta(modified_ms, fields.varint()?);
        details.push(SummaryDetail {
            user,
            client,
            body_bytes,
            modified_ms,
        });
    }
    fields.is_empty().then_some(details)
}

#[cfg(test)]
mod tests;
