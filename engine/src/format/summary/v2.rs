//! The summary of version 2, the one that is written: some 20 bytes for each frame are
//! read at an open, and as many more with the names.
//!
//! ```text
//! 28  u64  length of the segment
//! 36  u32  entries          40  u32  bytes of them
//! 44  u32  blob references  48  u32  bytes of the details
//! 52  u32  CRC-32 of entries and blob references
//! 56  u32  CRC-32 of the details
//! 60  u32  CRC-32 of bytes 28..60
//! 64  entries, each:
//!       u8      kind in the low three bits, above them the keys of a document, or 31
//!       varint  where it is 31: the keys, less 31
//!       16B     hash, unless the frame is lost
//!       varint  revision, as a difference from that of the entry before
//!       varint  length
//!     blob references
//!     details, for each entry:
//!       u8 + user
//!       varint  client: its place among those named so far; that behind them stands for
//!               one that was not, and u8 + client follows
//!       varint  body bytes
//!       varint  modified, as a difference from that of the detail before
//! ```
//!
//! The entries follow each other as what they stand for does in the segment, without gaps
//! from its header on: a damaged stretch is an entry too. So no offset is written.
//!
//! A difference can be negative: 0, 1, 2, 3, 4 stand for 0, -1, 1, -2, 2. It wraps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::fields::{FieldReader, push_short_text, push_varint};
use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::frame::header::EntryKind;
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::{
    KIND, OpeningCrc, SummaryCounts, SummaryDetail, SummaryEntry, assemble, encode_blobs, narrow,
};
use crate::format::summary::v1;
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;

const KIND_BITS: u32 = 3;
/// What the bits above the kind say at most, where the rest of it follows.
const MANY_KEYS: u32 = 31;
/// Of a frame that is lost: kind, revision, length. No count is believed for which there
/// are not so many bytes.
pub(super) const MIN_ENTRY_BYTES: usize = 3;
/// User, client, body bytes, time.
const MIN_DETAIL_BYTES: usize = 4;
/// An entry or a detail, about: what is reserved for one.
const USUAL_BYTES: usize = 24;

pub(super) fn counts(mut fields: FieldReader<'_>) -> Option<SummaryCounts> {
    Some(SummaryCounts {
        version: FormatVersion::V2,
        segment_bytes: fields.u64()?,
        entries: fields.u32()? as usize,
        entries_bytes: fields.u32()? as usize,
        blobs: fields.u32()? as usize,
        details_bytes: fields.u32()? as usize,
        opening_crc: OpeningCrc::Together(fields.u32()?),
        details_crc: fields.u32()?,
    })
}

/// What is written for a number that mostly differs little from the one before.
fn difference(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from);
    (difference << 1) ^ (difference >> 63).wrapping_neg()
}

/// The number that differs so from the one before.
fn differing(from: u64, difference: u64) -> u64 {
    from.wrapping_add((difference >> 1) ^ (difference & 1).wrapping_neg())
}

pub(super) fn encode(
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
        counts.extend_from_slice(&narrow(count).to_le_bytes());
    }
    for section in [&opening, &details] {
        counts.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
    }
    let header = file_header::encode_header(KIND, id.get(), store);
    assemble(header, &counts, &[&opening, &details])
}

/// Whether the keys of such an entry are written: others have none.
fn has_keys(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Put | EntryKind::PutWithBlobs)
}

fn encode_entries(entries: &[SummaryEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * USUAL_BYTES);
    let mut revision = 0;
    for entry in entries {
        let keys = if has_keys(entry.kind) { entry.keys } else { 0 };
        // Five bits, above three.
        let high = u8::try_from(keys.min(MANY_KEYS)).unwrap_or_default();
        bytes.push(entry.kind.to_byte() | high << KIND_BITS);
        if let Some(more) = keys.checked_sub(MANY_KEYS) {
            push_varint(&mut bytes, more.into());
        }
        if entry.kind != EntryKind::Lost {
            bytes.extend_from_slice(&entry.hash.to_bytes());
        }
        push_varint(&mut bytes, difference(revision, entry.revision));
        push_varint(&mut bytes, entry.bytes.into());
        revision = entry.revision;
    }
    bytes
}

/// Exactly `count` entries.
pub(super) fn entries(bytes: &[u8], count: usize) -> Option<Vec<SummaryEntry>> {
    if count > bytes.len() / MIN_ENTRY_BYTES {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut fields = FieldReader::new(bytes);
    let (mut revision, mut offset) = (0, file_header::HEADER_BYTES);
    for _ in 0..count {
        let entry = entry(&mut fields, revision, offset)?;
        revision = entry.revision;
        offset += u64::from(entry.bytes);
        entries.push(entry);
    }
    fields.is_empty().then_some(entries)
}

/// The entry behind one of this revision, at this offset of the segment.
fn entry(fields: &mut FieldReader<'_>, revision: u64, offset: u64) -> Option<SummaryEntry> {
    let first = fields.u8()?;
    let kind = EntryKind::from_byte(first & ((1 << KIND_BITS) - 1))?;
    let mut keys = u32::from(first >> KIND_BITS);
    if keys == MANY_KEYS {
        keys = keys.checked_add(fields.varint_u32()?)?;
    }
    if keys > 0 && !has_keys(kind) {
        return None;
    }
    let hash = match kind {
        EntryKind::Lost => [0; NamespaceHash::BYTES],
        _ => fields.array()?,
    };
    Some(SummaryEntry {
        hash: NamespaceHash::from_bytes(hash),
        revision: differing(revision, fields.varint()?),
        offset: Offset::new(offset)?,
        bytes: fields.varint_u32()?,
        kind,
        keys,
    })
}

fn encode_details(gathered: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(gathered.len());
    let mut clients = HashMap::new();
    let mut modified_ms = 0;
    let mut fields = FieldReader::new(gathered);
    while let Some(detail) = v1::detail(&mut fields) {
        push_short_text(&mut bytes, detail.user);
        let next = clients.len() as u64;
        let place = *clients.entry(detail.client).or_insert(next);
        push_varint(&mut bytes, place);
        if place == next {
            push_short_text(&mut bytes, detail.client);
        }
        push_varint(&mut bytes, detail.body_bytes);
        push_varint(&mut bytes, difference(modified_ms, detail.modified_ms));
        modified_ms = detail.modified_ms;
    }
    debug_assert!(fields.is_empty(), "a gathered detail does not decode");
    bytes
}

/// Exactly `count` details.
pub(super) fn details(bytes: &[u8], count: usize) -> Option<Vec<SummaryDetail>> {
    if count > bytes.len() / MIN_DETAIL_BYTES {
        return None;
    }
    let mut details = Vec::with_capacity(count);
    let mut fields = FieldReader::new(bytes);
    let mut clients: Vec<Arc<str>> = Vec::new();
    let mut named: HashSet<&str> = HashSet::new();
    let mut modified_ms = 0;
    for _ in 0..count {
        let user = fields.short_text()?.to_owned();
        let place = usize::try_from(fields.varint()?).ok()?;
        if place == clients.len() {
            let client = fields.short_text()?;
            // One that was named before has a place.
            if !named.insert(client) {
                return None;
            }
            clients.push(client.into());
        }
        let client = Arc::clone(clients.get(place)?);
        let body_bytes = fields.varint()?;
        modified_ms = differing(modified_ms, fields.varint()?);
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
