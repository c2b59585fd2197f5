//! The frame layout of version 2, the version of new frames. The header is compact, because most
//! documents are so small that the header is a large part of the frame.
//!
//! ```text
//!  0  2B      magic 1E FF
//!  2  u8      frame version, 2
//!  3  u8      kind: 1 put with inline body, 2 put with extents, 3 delete
//!  4  u32     CRC-32 of bytes 0..4 and of bytes 8 to the end of the header
//!  8  varint  length of the rest of the header
//!     varint  revision
//!     varint  time of the write, in milliseconds since 1970-01-01 UTC
//!     u32     offset of this frame minus its watermark
//!     u8 + user, u8 + client
//!     kind 1: u32 CRC-32 of the inline body; for each member, to the end of the header, two
//!             varints: length of the key's JSON text, length of the value's JSON text
//!     kind 2: u8 codec of the metadata, u32 CRC-32 of the metadata, varint length of the
//!             metadata
//!  then the inline body (kind 1) or the metadata (kind 2)
//! ```
//!
//! The only field that depends on the offset of the frame has a fixed width, so a copy of a frame
//! at another offset has the same length.
//!
//! The header omits redundant data: the namespace hash is computed from the names, the length of
//! the inline body is computed from the lengths of the members, and the keys are in the inline
//! body.
//!
//! Neither byte of the magic occurs in JSON text: 1E is a control character that must be escaped,
//! and FF never occurs in UTF-8.

use crate::format::codec;
use crate::format::fields::{FieldReader, MAX_VARINT_BYTES, push_short_text, push_varint};
use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{CommitInfo, FrameHeader, FrameKind, HeaderError};
use crate::format::frame::meta::{FrameMeta, Member, MemberLayout, MemberSizes, body_bytes};
use crate::model::names::{Names, NamespaceHash};

pub(super) const MAGIC: [u8; 2] = [0x1e, 0xff];
const VERSION: u8 = 2;
const KIND_PUT: u8 = 1;
const KIND_PUT_WITH_BLOBS: u8 = 2;
const KIND_DELETE: u8 = 3;
const CRC_AT: usize = 4;
const LENGTH_AT: usize = 8;
/// Maximum length of the header fields before the names, in bytes: the fixed fields, three varints
/// (length, revision, time), and the distance to the watermark.
pub(super) const MAX_LEAD_BYTES: usize = LENGTH_AT + 3 * MAX_VARINT_BYTES + 4;
/// Maximum length of the header fields from the user name to the end of the header, in bytes. The
/// metadata has the same maximum length.
#[allow(clippy::cast_possible_truncation, reason = "the value is 16 MiB")]
pub(super) const MAX_TAIL_BYTES: usize = codec::MAX_ENCODED_BYTES as usize;
/// Maximum number of bytes of a damaged header that are searched for a wrong bit. Only a document
/// with many members has a longer header than `MAX_REPAIR_BYTES`.
const MAX_REPAIR_BYTES: usize = 1024;

/// The fields of a header that describe the namespace and the members.
#[derive(Debug)]
pub(super) struct HeaderBodyV2 {
    names: Names,
    /// The lengths of the keys and values in the inline body. `None` for a delete. Also `None` for
    /// a document in a blob, because its members are in the metadata.
    sizes: Option<Vec<MemberSizes>>,
}

/// Encodes the user name and the client name. The returned vector usually has enough spare capacity
/// to append the lengths of `members` members.
pub(super) fn encode_names(user: &str, client: &str, members: usize) -> Vec<u8> {
    // Most key lengths are encoded in one byte, and most value lengths in one or two bytes.
    let mut tail = Vec::with_capacity(user.len() + client.len() + 16 + 3 * members);
    push_short_text(&mut tail, user);
    push_short_text(&mut tail, client);
    tail
}

/// Appends the header fields that describe an inline body.
pub(super) fn push_inline(tail: &mut Vec<u8>, inline_crc: u32, members: &[Member]) {
    tail.extend_from_slice(&inline_crc.to_le_bytes());
    for member in members {
        push_varint(tail, member.key.len() as u64);
        push_varint(tail, member.value.bytes());
    }
}

/// Appends the header fields that describe the metadata `section`.
pub(super) fn push_extents(tail: &mut Vec<u8>, section: &[u8]) {
    tail.push(codec::CODEC);
    tail.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
    push_varint(tail, section.len() as u64);
}

/// Appends a frame header to `to` and returns the length of the header. `tail` contains the header
/// fields from the user name to the end of the header.
pub(super) fn encode_header(
    (kind, has_blobs): (FrameKind, bool),
    commit: CommitInfo,
    tail: &[u8],
    to: &mut Vec<u8>,
) -> usize {
    let kind = match kind {
        FrameKind::Put if has_blobs => KIND_PUT_WITH_BLOBS,
        FrameKind::Put => KIND_PUT,
        FrameKind::Delete => KIND_DELETE,
    };
    let start = to.len();
    to.reserve(MAX_LEAD_BYTES + tail.len());
    let [first, second] = MAGIC;
    to.extend_from_slice(&[first, second, VERSION, kind, 0, 0, 0, 0]);
    let commit_bytes = varint_bytes(commit.revision) + varint_bytes(commit.modified_ms) + 4;
    push_varint(to, (commit_bytes + tail.len()) as u64);
    push_varint(to, commit.revision);
    push_varint(to, commit.modified_ms);
    to.extend_from_slice(&commit.unsynced_bytes.to_le_bytes());
    to.extend_from_slice(tail);
    let header = to.get_mut(start..).unwrap_or_default();
    let crc = header_crc(header);
    if let Some(field) = header.get_mut(CRC_AT..LENGTH_AT) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    header.len()
}

/// Computes the encoded length of a varint in bytes.
fn varint_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Computes the checksum of a header. The checksum field itself is not covered.
fn header_crc(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..CRC_AT).unwrap_or_default());
    hasher.update(header.get(LENGTH_AT..).unwrap_or_default());
    hasher.finalize()
}

/// Returns the length of the frame header at the start of `bytes`; see [`super::header_bytes`].
pub(super) fn header_bytes(bytes: &[u8]) -> Option<usize> {
    let from_length = bytes.strip_prefix(&MAGIC)?.get(LENGTH_AT - MAGIC.len()..)?;
    let mut fields = FieldReader::new(from_length);
    let rest = usize::try_from(fields.varint()?).ok()?;
    let length_bytes = from_length.len() - fields.rest().len();
    (rest <= MAX_LEAD_BYTES + MAX_TAIL_BYTES).then(|| LENGTH_AT + length_bytes + rest)
}

/// Decodes the frame header at the start of `bytes`. `offset` is the offset of `bytes` in the
/// segment.
pub(super) fn decode(
    bytes: &[u8],
    offset: u64,
) -> Result<(FrameHeader, HeaderBodyV2), HeaderError> {
    let len = header_bytes(bytes).ok_or(HeaderError::Invalid(
        "the frame magic is missing, or the header length is invalid",
    ))?;
    let header = bytes
        .get(..len)
        .ok_or(HeaderError::Invalid("the frame header is truncated"))?;
    let crc = header.get(CRC_AT..LENGTH_AT).unwrap_or_default();
    if header_crc(header).to_le_bytes() != *crc {
        let what = "the frame header's checksum does not match";
        return Err(HeaderError::Invalid(what));
    }
    // The checksum of the header matches, so the header is not damaged. A header with an unexpected
    // value was written by another version of the engine.
    let mut fields = FieldReader::new(header);
    match fields.take(MAGIC.len()).and_then(|_| fields.u8()) {
        Some(VERSION) => decode_fields(fields, len, offset).ok_or(HeaderError::Unknown),
        version => Err(HeaderError::Version {
            found: version.unwrap_or_default(),
            supported: FormatVersion::V2.number(),
        }),
    }
}

/// Decodes the header fields that follow the version. `len` is the length of the header.
fn decode_fields(
    mut fields: FieldReader<'_>,
    len: usize,
    offset: u64,
) -> Option<(FrameHeader, HeaderBodyV2)> {
    let kind = fields.u8()?;
    fields.take(LENGTH_AT - CRC_AT)?;
    fields.varint()?;
    let (revision, modified_ms) = (fields.varint()?, fields.varint()?);
    // If the distance to the watermark is larger than the offset, the watermark wraps to a value
    // above the offset. The scan of a segment rejects a watermark above the offset.
    let watermark = offset.wrapping_sub(fields.u32()?.into());
    let (user, client) = (fields.short_text()?, fields.short_text()?);
    let body = HeaderBodyV2 {
        names: Names::new(user, client).ok()?,
        sizes: None,
    };
    let mut header = FrameHeader {
        kind: FrameKind::Put,
        has_blobs: false,
        revision,
        modified_ms,
        watermark,
        header_bytes: u32::try_from(len).ok()?,
        meta_bytes: 0,
        inline_bytes: 0,
        meta_crc: 0,
        inline_crc: 0,
    };
    let mut sizes = None;
    match kind {
        KIND_PUT => {
            header.inline_crc = fields.u32()?;
            let members = decode_sizes(&mut fields)?;
            let bytes = body_bytes(members.iter().map(|sizes| sizes.bytes()));
            header.inline_bytes = u32::try_from(bytes).ok()?;
            sizes = Some(members);
        }
        KIND_PUT_WITH_BLOBS => {
            header.has_blobs = true;
            if fields.u8()? != codec::CODEC {
                return None;
            }
            header.meta_crc = fields.u32()?;
            header.meta_bytes = fields.varint_u32()?;
        }
        KIND_DELETE => header.kind = FrameKind::Delete,
        _ => return None,
    }
    fields
        .is_empty()
        .then_some((header, HeaderBodyV2 { sizes, ..body }))
}

/// Decodes the lengths of the members, which extend to the end of the header.
fn decode_sizes(fields: &mut FieldReader<'_>) -> Option<Vec<MemberSizes>> {
    let mut sizes = Vec::new();
    while !fields.is_empty() {
        sizes.push(MemberSizes {
            key: fields.varint_u32()?,
            value: fields.varint_u32()?,
        });
    }
    Some(sizes)
}

impl HeaderBodyV2 {
    pub(super) fn hash(&self, key: &[u8; 16]) -> NamespaceHash {
        NamespaceHash::of(key, &self.names.user, &self.names.client)
    }

    /// Combines the header fields with the decoded metadata `section`. `section` is empty if the
    /// frame has no metadata. The caller has verified the checksum of `section`.
    pub(super) fn meta(self, section: &[u8]) -> Result<FrameMeta, &'static str> {
        let members = match self.sizes {
            Some(sizes) => MemberLayout::Sized(sizes),
            None if section.is_empty() => MemberLayout::Located(Vec::new()),
            None => MemberLayout::Located(decode_extents(section)?),
        };
        Ok(FrameMeta::new(self.names, members))
    }
}

/// Decodes the metadata of a put with extents. Returns an error message if the metadata is not
/// valid, for example because a value is not in a blob.
fn decode_extents(section: &[u8]) -> Result<Vec<Member>, &'static str> {
    let members: Vec<Member> =
        codec::decode(section).map_err(|_| "the frame metadata cannot be decoded")?;
    if members.is_empty() || members.iter().any(|member| member.blob().is_none()) {
        return Err("the frame metadata has no members, or has a value that is not in a blob");
    }
    if !members
        .iter()
        .all(|member| member.value.has_all_checksums())
    {
        return Err("an extent in the frame metadata does not have a checksum for each chunk");
    }
    Ok(members)
}

/// Determines the namespace and the length of a frame whose header is damaged; see
/// [`super::salvage`].
///
/// If a single bit of the header is wrong, the header checksum identifies the bit. Other bytes must
/// confirm the repair: the body and metadata of a put must be valid, and a delete must end exactly
/// at the next valid frame or at the end of the segment. The repaired header is used only to
/// determine the namespace and the length. The frame remains unreadable.
pub(super) fn salvage(
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    let (header, body) = repair_single_bit(bytes)?;
    let end = usize::try_from(header.frame_bytes()).ok()?;
    let (header_bytes, meta_end) = (header.header_bytes as usize, header.meta_end());
    let (section, inline) = (
        bytes.get(header_bytes..meta_end)?,
        bytes.get(meta_end..end)?,
    );
    let hash = body.hash(key);
    let is_valid = crc32fast::hash(section) == header.meta_crc
        && crc32fast::hash(inline) == header.inline_crc
        && body.meta(section).ok()?.matches_body(header.kind, inline);
    let has_valid_end = if header.kind == FrameKind::Delete {
        end == to_next
    } else {
        end <= to_next
    };
    (is_valid && has_valid_end).then_some((hash, end))
}

/// Inverts each bit of the header at the start of `bytes` in turn. Returns the decoded header if
/// the checksum matches after the inversion of one bit.
fn repair_single_bit(bytes: &[u8]) -> Option<(FrameHeader, HeaderBodyV2)> {
    let mut copy = bytes.get(..bytes.len().min(MAX_REPAIR_BYTES))?.to_vec();
    // If the wrong bit is in the length field, the length of the header is unknown. The search
    // therefore covers at least the bytes up to the end of the length field.
    let first = LENGTH_AT + MAX_VARINT_BYTES;
    let len = header_bytes(&copy).unwrap_or_default().max(first);
    for index in 0..len.min(copy.len()) {
        for bit in 0..u8::BITS {
            *copy.get_mut(index)? ^= 1 << bit;
            if let Ok(decoded) = decode(&copy, 0) {
                return Some(decoded);
            }
            *copy.get_mut(index)? ^= 1 << bit;
        }
    }
    None
}

/// Decodes a frame header and its metadata, and encodes the result, for the fuzzers.
#[cfg(feature = "fuzzing")]
pub(crate) fn reencode(bytes: &[u8]) -> Result<Vec<u8>, HeaderError> {
    // The offset of the first frame of a segment.
    let offset = crate::format::file_header::HEADER_BYTES;
    let (header, body) = decode(bytes, offset)?;
    let commit = CommitInfo {
        revision: header.revision,
        modified_ms: header.modified_ms,
        unsynced_bytes: u32::try_from(offset.wrapping_sub(header.watermark)).unwrap_or_default(),
    };
    let mut tail = encode_names(&body.names.user, &body.names.client, 0);
    match &body.sizes {
        Some(sizes) => {
            tail.extend_from_slice(&header.inline_crc.to_le_bytes());
            for sizes in sizes {
                push_varint(&mut tail, sizes.key.into());
                push_varint(&mut tail, sizes.value.into());
            }
        }
        None if header.has_blobs => {
            tail.push(codec::CODEC);
            tail.extend_from_slice(&header.meta_crc.to_le_bytes());
            push_varint(&mut tail, header.meta_bytes.into());
        }
        None => {}
    }
    let mut encoded = Vec::new();
    let kind = (header.kind, header.has_blobs);
    encode_header(kind, commit, &tail, &mut encoded);
    let section = bytes.get(header.header_bytes as usize..header.meta_end());
    if header.has_blobs
        && let Some(section) = section.filter(|s| crc32fast::hash(s) == header.meta_crc)
        && let Ok(members) = decode_extents(section)
    {
        encoded.extend(codec::encode(&members).unwrap_or_default());
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests;
