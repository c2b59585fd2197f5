//! The frame layout of versions 2 and 3. Version 3 is the version of new frames. The header is
//! compact, because most documents are so small that the header is a large part of the frame.
//!
//! ```text
//!  0  2B      magic 1E FF
//!  2  u8      frame version, 2 or 3
//!  3  u8      kind: 1 plain put, 2 put with metadata, 3 delete, 4 mark (only in version 3)
//!  4  u32     CRC-32 of bytes 0..4 and of bytes 8 to the end of the header
//!  8  varint  length of the rest of the header
//!     varint  revision
//!     varint  version 2: time of the write, in milliseconds since 1970-01-01 UTC; version 3:
//!             difference of this time from the time that the revision contains, zigzag-encoded
//!     u32     offset of this frame minus its watermark
//!     u8 + user, u8 + client; absent in a mark
//!     kind 1: u32 CRC-32 of the inline body; for each member, to the end of the header, two
//!             varints: length of the key's JSON text, length of the value's JSON text
//!     kind 2: version 2: u8 codec of the metadata; u32 CRC-32 of the metadata, varint length of
//!             the metadata; version 3: u32 CRC-32 of the inline body, varint length of the inline
//!             body
//!  then the metadata (kind 2) and the inline body (kind 1, and kind 2 of version 3)
//! ```
//!
//! The only field that depends on the offset of the frame has a fixed width, so a copy of a frame
//! at another offset has the same length.
//!
//! The header omits redundant data: the namespace hash is computed from the names. In a plain put,
//! the length of the inline body is computed from the lengths of the members, and the keys are in
//! the inline body.
//!
//! Neither byte of the magic occurs in JSON text: 1E is a control character that must be escaped,
//! and FF never occurs in UTF-8.

use crate::format::codec;
use crate::format::fields::{
    FieldReader, MAX_VARINT_BYTES, decode_delta, encode_delta, push_short_text, push_varint,
};
use crate::format::file_header::FormatVersion;
use crate::format::frame::extents;
use crate::format::frame::header::{CommitInfo, FrameError, FrameHeader, FrameKind, Salvaged};
use crate::format::frame::inline_body::body_bytes;
use crate::format::frame::member::Member;
use crate::format::frame::meta::{FrameMeta, MemberLayout, MemberSizes};
use crate::format::frame::records;
use crate::format::revision_time::time_of_revision_ms;
use crate::model::names::{Names, NamespaceHash};

pub(super) const MAGIC: [u8; 2] = [0x1e, 0xff];
const KIND_PUT: u8 = 1;
const KIND_PUT_WITH_METADATA: u8 = 2;
const KIND_DELETE: u8 = 3;
const KIND_MARK: u8 = 4;
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
pub(super) struct CompactBody {
    names: Names,
    members: HeaderMembers,
}

/// The fields of a header that describe the members.
#[derive(Debug)]
enum HeaderMembers {
    /// A delete has no members.
    None,
    /// A plain put: the lengths of the keys and values in the inline body.
    Sizes(Vec<MemberSizes>),
    /// A put whose members are described in the metadata, in the layout of this version.
    InMetadata(FormatVersion),
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

/// Appends the header fields that describe the metadata `section` and the inline body.
pub(super) fn push_metadata(tail: &mut Vec<u8>, section: &[u8], inline: &[u8]) {
    for part in [section, inline] {
        tail.extend_from_slice(&crc32fast::hash(part).to_le_bytes());
        push_varint(tail, part.len() as u64);
    }
}

/// Appends a frame header of the version of new frames to `to` and returns the length of the
/// header. `tail` contains the header fields from the user name to the end of the header.
pub(super) fn encode_header(
    (kind, has_metadata): (FrameKind, bool),
    commit: CommitInfo,
    tail: &[u8],
    to: &mut Vec<u8>,
) -> usize {
    let kind = match kind {
        FrameKind::Put if has_metadata => KIND_PUT_WITH_METADATA,
        FrameKind::Put => KIND_PUT,
        FrameKind::Delete => KIND_DELETE,
        FrameKind::Mark => KIND_MARK,
    };
    encode_header_of(FormatVersion::V3, kind, commit, tail, to)
}

/// Appends a frame header of the given version and kind to `to`.
fn encode_header_of(
    version: FormatVersion,
    kind: u8,
    commit: CommitInfo,
    tail: &[u8],
    to: &mut Vec<u8>,
) -> usize {
    let start = to.len();
    to.reserve(MAX_LEAD_BYTES + tail.len());
    let [first, second] = MAGIC;
    to.extend_from_slice(&[first, second, version_byte(version), kind, 0, 0, 0, 0]);
    let time = match version {
        FormatVersion::V1 | FormatVersion::V2 => commit.modified_ms,
        FormatVersion::V3 => encode_delta(time_of_revision_ms(commit.revision), commit.modified_ms),
    };
    let commit_bytes = varint_bytes(commit.revision) + varint_bytes(time) + 4;
    push_varint(to, (commit_bytes + tail.len()) as u64);
    push_varint(to, commit.revision);
    push_varint(to, time);
    to.extend_from_slice(&commit.unsynced_bytes.to_le_bytes());
    to.extend_from_slice(tail);
    let header = to.get_mut(start..).unwrap_or_default();
    let crc = header_crc(header);
    if let Some(field) = header.get_mut(CRC_AT..LENGTH_AT) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    header.len()
}

/// Returns the number that represents the version in frame headers.
fn version_byte(version: FormatVersion) -> u8 {
    version.number().to_le_bytes()[0]
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

/// Decodes the frame header at the start of `bytes`. `version` is the version of the segment, and
/// `offset` is the offset of `bytes` in the segment. The body is `None` for a mark.
pub(super) fn decode(
    version: FormatVersion,
    bytes: &[u8],
    offset: u64,
) -> Result<(FrameHeader, Option<CompactBody>), FrameError> {
    let len = header_bytes(bytes).ok_or(FrameError::Invalid(
        "the frame magic is missing, or the header length is invalid",
    ))?;
    let header = bytes
        .get(..len)
        .ok_or(FrameError::Invalid("the frame header is truncated"))?;
    let crc = header.get(CRC_AT..LENGTH_AT).unwrap_or_default();
    if header_crc(header).to_le_bytes() != *crc {
        let what = "the frame header's checksum does not match";
        return Err(FrameError::Invalid(what));
    }
    // The checksum of the header matches, so the header is not damaged. A header with an unexpected
    // value was written by another version of the engine.
    let mut fields = FieldReader::new(header);
    match fields.take(MAGIC.len()).and_then(|_| fields.u8()) {
        Some(found) if found == version_byte(version) => {
            decode_fields(version, fields, len, offset).ok_or(FrameError::Unknown)
        }
        found => Err(FrameError::Version {
            found: found.unwrap_or_default(),
            supported: version.number(),
        }),
    }
}

/// Decodes the header fields that follow the version. `len` is the length of the header.
fn decode_fields(
    version: FormatVersion,
    mut fields: FieldReader<'_>,
    len: usize,
    offset: u64,
) -> Option<(FrameHeader, Option<CompactBody>)> {
    let kind = fields.u8()?;
    fields.take(LENGTH_AT - CRC_AT)?;
    fields.varint()?;
    let (revision, time) = (fields.varint()?, fields.varint()?);
    let modified_ms = match version {
        FormatVersion::V1 | FormatVersion::V2 => time,
        FormatVersion::V3 => decode_delta(time_of_revision_ms(revision), time),
    };
    // If the distance to the watermark is larger than the offset, the watermark wraps to a value
    // above the offset. The scan of a segment rejects a watermark above the offset.
    let watermark = offset.wrapping_sub(fields.u32()?.into());
    let mut header = FrameHeader {
        kind: FrameKind::Put,
        has_metadata: false,
        revision,
        modified_ms,
        watermark,
        header_bytes: u32::try_from(len).ok()?,
        meta_bytes: 0,
        inline_bytes: 0,
        meta_crc: 0,
        inline_crc: 0,
    };
    if kind == KIND_MARK && version >= FormatVersion::V3 {
        header.kind = FrameKind::Mark;
        return fields.is_empty().then_some((header, None));
    }
    let (user, client) = (fields.short_text()?, fields.short_text()?);
    let names = Names::new(user, client).ok()?;
    let members = match kind {
        KIND_PUT => {
            header.inline_crc = fields.u32()?;
            let sizes = decode_sizes(&mut fields)?;
            let bytes = body_bytes(sizes.iter().map(|sizes| sizes.bytes()));
            header.inline_bytes = u32::try_from(bytes).ok()?;
            HeaderMembers::Sizes(sizes)
        }
        KIND_PUT_WITH_METADATA => {
            header.has_metadata = true;
            if version < FormatVersion::V3 && fields.u8()? != codec::CODEC {
                return None;
            }
            header.meta_crc = fields.u32()?;
            header.meta_bytes = fields.varint_u32()?;
            if version >= FormatVersion::V3 {
                header.inline_crc = fields.u32()?;
                header.inline_bytes = fields.varint_u32()?;
            }
            HeaderMembers::InMetadata(version)
        }
        KIND_DELETE => {
            header.kind = FrameKind::Delete;
            HeaderMembers::None
        }
        _ => return None,
    };
    let body = CompactBody { names, members };
    fields.is_empty().then_some((header, Some(body)))
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

impl CompactBody {
    pub(super) fn hash(&self, key: &[u8; 16]) -> NamespaceHash {
        NamespaceHash::of(key, &self.names.user, &self.names.client)
    }

    /// Combines the header fields with the decoded metadata `section`. `section` is empty if the
    /// frame has no metadata. The caller has verified the checksum of `section`.
    pub(super) fn meta(self, section: &[u8]) -> Result<FrameMeta, FrameError> {
        let members = match self.members {
            HeaderMembers::None => MemberLayout::Located(Vec::new()),
            HeaderMembers::Sizes(sizes) => MemberLayout::Sized(sizes),
            HeaderMembers::InMetadata(FormatVersion::V1 | FormatVersion::V2) => {
                let members = extents::decode(section).map_err(FrameError::Invalid)?;
                MemberLayout::Located(members)
            }
            HeaderMembers::InMetadata(FormatVersion::V3) => {
                MemberLayout::Recorded(records::decode(section)?)
            }
        };
        Ok(FrameMeta::new(self.names, members))
    }
}

/// Determines the content and the length of a frame whose header is damaged; see
/// [`super::salvage`].
///
/// If a single bit of the header is wrong, the header checksum identifies the bit. Other bytes must
/// confirm the repair: the body and metadata of a put must be valid, and a delete or a mark must
/// end exactly at the next valid frame or at the end of the segment. The repaired header is used
/// only to determine the content and the length. The frame remains unreadable.
pub(super) fn salvage(
    version: FormatVersion,
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(Salvaged, usize)> {
    let (header, body) = repair_single_bit(version, bytes)?;
    let end = usize::try_from(header.frame_bytes()).ok()?;
    let (header_bytes, meta_end) = (header.header_bytes as usize, header.meta_end());
    let (section, inline) = (
        bytes.get(header_bytes..meta_end)?,
        bytes.get(meta_end..end)?,
    );
    let Some(body) = body else {
        return (end == to_next).then_some((Salvaged::Mark, end));
    };
    let hash = body.hash(key);
    let is_valid = crc32fast::hash(section) == header.meta_crc
        && crc32fast::hash(inline) == header.inline_crc
        && body.meta(section).ok()?.matches_body(header.kind, inline);
    let has_valid_end = if header.kind == FrameKind::Delete {
        end == to_next
    } else {
        end <= to_next
    };
    (is_valid && has_valid_end).then_some((Salvaged::Frame(hash), end))
}

/// Inverts each bit of the header at the start of `bytes` in turn. Returns the decoded header if
/// the checksum matches after the inversion of one bit.
fn repair_single_bit(
    version: FormatVersion,
    bytes: &[u8],
) -> Option<(FrameHeader, Option<CompactBody>)> {
    let mut copy = bytes.get(..bytes.len().min(MAX_REPAIR_BYTES))?.to_vec();
    // If the wrong bit is in the length field, the length of the header is unknown. The search
    // therefore covers at least the bytes up to the end of the length field.
    let first = LENGTH_AT + MAX_VARINT_BYTES;
    let len = header_bytes(&copy).unwrap_or_default().max(first);
    for index in 0..len.min(copy.len()) {
        for bit in 0..u8::BITS {
            *copy.get_mut(index)? ^= 1 << bit;
            if let Ok(decoded) = decode(version, &copy, 0) {
                return Some(decoded);
            }
            *copy.get_mut(index)? ^= 1 << bit;
        }
    }
    None
}

/// Decodes a frame header and its metadata, and encodes the result, for the fuzzers. The version in
/// the header determines the layout.
#[cfg(feature = "fuzzing")]
pub(crate) fn reencode(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    // The offset of the first frame of a segment.
    let offset = crate::format::file_header::HEADER_BYTES;
    let version = match bytes.get(MAGIC.len()) {
        Some(2) => FormatVersion::V2,
        _ => FormatVersion::V3,
    };
    let (header, body) = decode(version, bytes, offset)?;
    let commit = CommitInfo {
        revision: header.revision,
        modified_ms: header.modified_ms,
        unsynced_bytes: u32::try_from(offset.wrapping_sub(header.watermark)).unwrap_or_default(),
    };
    let section = bytes
        .get(header.header_bytes as usize..header.meta_end())
        .filter(|section| crc32fast::hash(section) == header.meta_crc);
    let (tail, section) = body.map_or_else(Default::default, |body| {
        body.reencode(&header, section.unwrap_or_default())
    });
    let kind = bytes.get(CRC_AT - 1).copied().unwrap_or_default();
    let mut encoded = Vec::new();
    encode_header_of(version, kind, commit, &tail, &mut encoded);
    encoded.extend(section);
    Ok(encoded)
}

#[cfg(feature = "fuzzing")]
impl CompactBody {
    /// Encodes the header fields from the user name to the end of the header, and the metadata.
    fn reencode(self, header: &FrameHeader, section: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut tail = encode_names(&self.names.user, &self.names.client, 0);
        let mut encoded = Vec::new();
        match self.members {
            HeaderMembers::None => {}
            HeaderMembers::Sizes(sizes) => {
                tail.extend_from_slice(&header.inline_crc.to_le_bytes());
                for sizes in sizes {
                    push_varint(&mut tail, sizes.key.into());
                    push_varint(&mut tail, sizes.value.into());
                }
            }
            HeaderMembers::InMetadata(version) => {
                if version < FormatVersion::V3 {
                    tail.push(codec::CODEC);
                }
                tail.extend_from_slice(&header.meta_crc.to_le_bytes());
                push_varint(&mut tail, header.meta_bytes.into());
                if version < FormatVersion::V3 {
                    if let Ok(members) = extents::decode(section) {
                        encoded = extents::encode(&members);
                    }
                } else {
                    tail.extend_from_slice(&header.inline_crc.to_le_bytes());
                    push_varint(&mut tail, header.inline_bytes.into());
                    if let Ok(records) = records::decode(section) {
                        encoded = records::encode_records(&records);
                    }
                }
            }
        }
        (tail, encoded)
    }
}

#[cfg(test)]
mod tests;
