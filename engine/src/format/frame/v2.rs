//! The frame of version 2, the one that is written: a head as short as it can be, since
//! most documents are no longer than a few of them.
//!
//! ```text
//!  0  2B      magic 1E FF
//!  2  u8      format version, 2
//!  3  u8      kind: 1 put, 2 put with extents, 3 delete
//!  4  u32     CRC-32 of the 4 bytes before it and of the rest of the head
//!  8  varint  bytes of the head behind this
//!     varint  revision
//!     varint  modified, ms since 1970
//!     u32     bytes between the watermark and this frame
//!     u8 + user, u8 + client
//!     1: u32 CRC-32 of the inline bytes; for each member, up to the end of the head, the
//!        lengths of the JSON texts of its key and its value, two varints
//!     2: u8 codec of the metadata, u32 CRC-32 of it, varint bytes of it
//!  then the metadata (2) or the inline bytes (1)
//! ```
//!
//! A copy at another place has the same length: what depends on the place has a fixed one.
//!
//! What follows from something else is not there: the hash of the namespace from its
//! names, the length of the inline bytes from those of the members, their keys from the
//! inline bytes.
//!
//! Neither byte of the magic is ever in JSON text: 1E is a control character, and FF is in
//! no UTF-8.

use crate::format::codec;
use crate::format::fields::{FieldReader, MAX_VARINT_BYTES, push_short_text, push_varint};
use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{CommitInfo, FrameHeader, FrameKind, HeadError};
use crate::format::frame::meta::{FrameMeta, Member, MemberLayout, MemberSizes, body_bytes};
use crate::model::names::{self, NamespaceHash};

pub(super) const MAGIC: [u8; 2] = [0x1e, 0xff];
const VERSION: u8 = 2;
const KIND_PUT: u8 = 1;
const KIND_PUT_WITH_BLOBS: u8 = 2;
const KIND_DELETE: u8 = 3;
const CRC_AT: usize = 4;
const LENGTH_AT: usize = 8;
/// Bytes of a head before the names, at most: its length, revision, time, distance.
pub(super) const MAX_STAMP_BYTES: usize = LENGTH_AT + 3 * MAX_VARINT_BYTES + 4;
/// Bytes of a head from the names on, at most: as much as metadata may take.
#[allow(clippy::cast_possible_truncation, reason = "it is 16 MiB")]
pub(super) const MAX_TAIL_BYTES: usize = codec::MAX_ENCODED_BYTES as usize;
/// Bytes of a damaged head that are looked at for the bit that is wrong: all of one, but
/// where there are hundreds of members.
const MENDED_BYTES: usize = 1024;

/// What a head says besides numbers.
#[derive(Debug)]
pub(super) struct HeadBodyV2 {
    user: String,
    client: String,
    /// None where the metadata tells.
    sizes: Option<Vec<MemberSizes>>,
}

/// The names, in memory for what follows them.
pub(super) fn names(user: &str, client: &str, members: usize) -> Vec<u8> {
    // Most keys have a length of one byte, and most values one of up to two.
    let mut tail = Vec::with_capacity(user.len() + client.len() + 16 + 3 * members);
    push_short_text(&mut tail, user);
    push_short_text(&mut tail, client);
    tail
}

/// What follows the names where the document lies in the frame.
pub(super) fn push_inline(tail: &mut Vec<u8>, inline_crc: u32, members: &[Member]) {
    tail.extend_from_slice(&inline_crc.to_le_bytes());
    for member in members {
        push_varint(tail, member.key.len() as u64);
        push_varint(tail, member.value.bytes());
    }
}

/// What follows the names where the document lies in blobs.
pub(super) fn push_extents(tail: &mut Vec<u8>, section: &[u8]) {
    tail.push(codec::CODEC);
    tail.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
    push_varint(tail, section.len() as u64);
}

/// Appends a head to `to`; its length.
pub(super) fn encode_head(
    (kind, has_blobs): (FrameKind, bool),
    stamp: CommitInfo,
    tail: &[u8],
    to: &mut Vec<u8>,
) -> usize {
    let kind = match kind {
        FrameKind::Put if has_blobs => KIND_PUT_WITH_BLOBS,
        FrameKind::Put => KIND_PUT,
        FrameKind::Delete => KIND_DELETE,
    };
    let start = to.len();
    to.reserve(MAX_STAMP_BYTES + tail.len());
    let [first, second] = MAGIC;
    to.extend_from_slice(&[first, second, VERSION, kind, 0, 0, 0, 0]);
    let stamp_bytes = varint_bytes(stamp.revision) + varint_bytes(stamp.modified_ms) + 4;
    push_varint(to, (stamp_bytes + tail.len()) as u64);
    push_varint(to, stamp.revision);
    push_varint(to, stamp.modified_ms);
    to.extend_from_slice(&stamp.unsynced_bytes.to_le_bytes());
    to.extend_from_slice(tail);
    let head = to.get_mut(start..).unwrap_or_default();
    let crc = head_crc(head);
    if let Some(place) = head.get_mut(CRC_AT..LENGTH_AT) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    head.len()
}

fn varint_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn head_crc(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head.get(..CRC_AT).unwrap_or_default());
    hasher.update(head.get(LENGTH_AT..).unwrap_or_default());
    hasher.finalize()
}

/// How long the head is that `bytes` begins with, if it is one.
pub(super) fn head_bytes(bytes: &[u8]) -> Option<usize> {
    let behind = bytes.strip_prefix(&MAGIC)?.get(LENGTH_AT - MAGIC.len()..)?;
    let mut fields = FieldReader::new(behind);
    let rest = usize::try_from(fields.varint()?).ok()?;
    let length_bytes = behind.len() - fields.rest().len();
    (rest <= MAX_STAMP_BYTES + MAX_TAIL_BYTES).then(|| LENGTH_AT + length_bytes + rest)
}

/// The head that `bytes` begins with, `at` bytes into its segment.
pub(super) fn decode(bytes: &[u8], at: u64) -> Result<(FrameHeader, HeadBodyV2), HeadError> {
    let len = head_bytes(bytes).ok_or(HeadError::Invalid("there is no frame header"))?;
    let head = bytes
        .get(..len)
        .ok_or(HeadError::Invalid("the frame header is cut short"))?;
    let crc = head.get(CRC_AT..LENGTH_AT).unwrap_or_default();
    if head_crc(head).to_le_bytes() != *crc {
        let what = "the frame header's checksum does not match";
        return Err(HeadError::Invalid(what));
    }
    // The checksum holds: what does not fit was written by somebody else.
    let mut fields = FieldReader::new(head);
    match fields.take(MAGIC.len()).and_then(|_| fields.u8()) {
        Some(VERSION) => rest(fields, len, at).ok_or(HeadError::Unknown),
        version => Err(HeadError::Version {
            found: version.unwrap_or_default(),
            supported: FormatVersion::V2.number(),
        }),
    }
}

/// What stands behind the version.
fn rest(mut fields: FieldReader<'_>, len: usize, at: u64) -> Option<(FrameHeader, HeadBodyV2)> {
    let kind = fields.u8()?;
    fields.take(LENGTH_AT - CRC_AT)?;
    fields.varint()?;
    let (revision, modified_ms) = (fields.varint()?, fields.varint()?);
    // One that would lie before the segment comes out as behind the frame, where none can
    // lie either.
    let watermark = at.wrapping_sub(fields.u32()?.into());
    let mut name = |which| names::validate_name(which, fields.short_text()?).ok();
    let said = HeadBodyV2 {
        user: name("user")?.to_owned(),
        client: name("client")?.to_owned(),
        sizes: None,
    };
    let mut found = FrameHeader {
        kind: FrameKind::Put,
        has_blobs: false,
        revision,
        modified_ms,
        watermark,
        head_bytes: u32::try_from(len).ok()?,
        meta_bytes: 0,
        inline_bytes: 0,
        meta_crc: 0,
        inline_crc: 0,
    };
    let mut sizes = None;
    match kind {
        KIND_PUT => {
            found.inline_crc = fields.u32()?;
            let members = members(&mut fields)?;
            let bytes = body_bytes(members.iter().map(|sizes| sizes.bytes()));
            found.inline_bytes = u32::try_from(bytes).ok()?;
            sizes = Some(members);
        }
        KIND_PUT_WITH_BLOBS => {
            found.has_blobs = true;
            if fields.u8()? != codec::CODEC {
                return None;
            }
            found.meta_crc = fields.u32()?;
            found.meta_bytes = fields.varint_u32()?;
        }
        KIND_DELETE => found.kind = FrameKind::Delete,
        _ => return None,
    }
    fields
        .is_empty()
        .then_some((found, HeadBodyV2 { sizes, ..said }))
}

/// The lengths of the members, up to the end of the head.
fn members(fields: &mut FieldReader<'_>) -> Option<Vec<MemberSizes>> {
    let mut members = Vec::new();
    while !fields.is_empty() {
        members.push(MemberSizes {
            key: fields.varint_u32()?,
            value: fields.varint_u32()?,
        });
    }
    Some(members)
}

impl HeadBodyV2 {
    pub(super) fn hash(&self, key: &[u8; 16]) -> NamespaceHash {
        NamespaceHash::of(key, &self.user, &self.client)
    }

    /// The same with what the metadata says, if there is any; its checksum holds.
    pub(super) fn meta(self, section: &[u8]) -> Result<FrameMeta, &'static str> {
        let members = match self.sizes {
            Some(sizes) => MemberLayout::Sized(sizes),
            None if section.is_empty() => MemberLayout::Placed(Vec::new()),
            None => MemberLayout::Placed(extents(section)?),
        };
        Ok(FrameMeta::new(self.user, self.client, members))
    }
}

/// The metadata: members all of which lie in blobs.
fn extents(section: &[u8]) -> Result<Vec<Member>, &'static str> {
    let members: Vec<Member> =
        codec::decode(section).map_err(|_| "the frame metadata cannot be decoded")?;
    if members.is_empty() || members.iter().any(|member| member.blob().is_none()) {
        return Err("the frame metadata has a value that lies in no blob");
    }
    if !members.iter().all(|member| member.value.is_covered()) {
        return Err("an extent in the frame metadata does not have a checksum for each chunk");
    }
    Ok(members)
}

/// Where one bit of a head is wrong, its checksum tells which one; and the rest of the
/// frame, and where the next one begins, whether that is what has happened. So the frame
/// is not read again: its namespace is what is wanted.
pub(super) fn behind_damage(
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    let (header, said) = mended(bytes)?;
    let end = usize::try_from(header.frame_bytes()).ok()?;
    let (head_bytes, meta_end) = (header.head_bytes as usize, header.meta_end());
    let (section, inline) = (bytes.get(head_bytes..meta_end)?, bytes.get(meta_end..end)?);
    let hash = said.hash(key);
    let is_whole = crc32fast::hash(section) == header.meta_crc
        && crc32fast::hash(inline) == header.inline_crc
        && said.meta(section).ok()?.fits(header.kind, inline);
    let is_there = if header.kind == FrameKind::Delete {
        end == to_next
    } else {
        end <= to_next
    };
    (is_whole && is_there).then_some((hash, end))
}

/// The head that `bytes` would begin with if one of its bits were another.
fn mended(bytes: &[u8]) -> Option<(FrameHeader, HeadBodyV2)> {
    let mut copy = bytes.get(..bytes.len().min(MENDED_BYTES))?.to_vec();
    // Where the length is what is wrong, that is among the first bytes.
    let first = LENGTH_AT + MAX_VARINT_BYTES;
    let len = head_bytes(&copy).unwrap_or_default().max(first);
    for index in 0..len.min(copy.len()) {
        for bit in 0..u8::BITS {
            *copy.get_mut(index)? ^= 1 << bit;
            if let Ok(found) = decode(&copy, 0) {
                return Some(found);
            }
            *copy.get_mut(index)? ^= 1 << bit;
        }
    }
    None
}

/// Encodes what was decoded, for the fuzzers: head and metadata.
#[cfg(feature = "fuzzing")]
pub(crate) fn again(bytes: &[u8]) -> Result<Vec<u8>, HeadError> {
    // Where the first one of a segment stands.
    let at = crate::format::file_header::HEADER_BYTES;
    let (header, said) = decode(bytes, at)?;
    let stamp = CommitInfo {
        revision: header.revision,
        modified_ms: header.modified_ms,
        unsynced_bytes: u32::try_from(at.wrapping_sub(header.watermark)).unwrap_or_default(),
    };
    let mut tail = names(&said.user, &said.client, 0);
    match &said.sizes {
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
    let mut again = Vec::new();
    let kind = (header.kind, header.has_blobs);
    encode_head(kind, stamp, &tail, &mut again);
    let section = bytes.get(header.head_bytes as usize..header.meta_end());
    if header.has_blobs
        && let Some(section) = section.filter(|s| crc32fast::hash(s) == header.meta_crc)
        && let Ok(members) = extents(section)
    {
        again.extend(codec::encode(&members).unwrap_or_default());
    }
    Ok(again)
}

#[cfg(test)]
mod tests;
