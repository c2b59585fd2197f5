//! The frame layout of version 1. Version 1 is read, but no longer written.
//!
//! ```text
//!  0  u32  magic "PFRM"           32  u64  time, ms since 1970
//!  4  u8   format version, 1      40  u64  watermark
//!  5  u8   codec of the metadata  48  u32  metadata length
//!  6  u8   kind                   52  u32  inline length
//!  7  u8   flags                  56  u32  CRC-32 of the metadata
//!  8  16B  namespace hash         60  u32  CRC-32 of the inline body
//! 24  u64  revision               64  u32  CRC-32 of bytes 0..64
//! 68  metadata, then the inline body
//! ```

use serde::{Deserialize, Serialize};

use crate::format::codec;
use crate::format::fields::FieldReader;
use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{FrameError, FrameHeader, FrameKind};
use crate::format::frame::member::Member;
use crate::format::frame::meta::{FrameMeta, MemberLayout};
use crate::model::names::{Names, NamespaceHash};

pub(super) const MAGIC: [u8; 4] = *b"PFRM";
const VERSION: u8 = 1;
/// Length of the frame header in bytes. The metadata follows the header.
pub(super) const HEADER_BYTES: usize = 68;
/// Offset of the header checksum. The checksum covers all preceding bytes of the header.
const HEADER_CRC_AT: usize = 64;
/// Offset of four fields: the lengths of the metadata and the inline body, and then the checksums
/// of the metadata and the inline body.
const LENGTHS_AT: usize = 48;
const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
/// Flag: the document is in a blob.
const FLAG_BLOBS: u8 = 1;

/// Decodes the frame header at the start of `bytes`, including the namespace hash.
pub(super) fn decode(bytes: &[u8]) -> Result<(FrameHeader, NamespaceHash), FrameError> {
    let bytes = bytes
        .get(..HEADER_BYTES)
        .ok_or(FrameError::Invalid("the frame header is truncated"))?;
    let (covered, crc) = bytes.split_at(HEADER_CRC_AT);
    if crc32fast::hash(covered).to_le_bytes() != *crc {
        let what = "the frame header's checksum does not match";
        return Err(FrameError::Invalid(what));
    }
    // The checksum of the header matches, so the header is not damaged. A header with an unexpected
    // value was written by another version of the engine.
    let mut fields = FieldReader::new(bytes);
    if fields.array() != Some(MAGIC) {
        return Err(FrameError::Invalid("the frame magic is missing"));
    }
    match fields.u8() {
        Some(VERSION) => header(&mut fields).ok_or(FrameError::Unknown),
        version => Err(FrameError::Version {
            found: version.unwrap_or_default(),
            supported: FormatVersion::V1.number(),
        }),
    }
}

/// Decodes the header fields that follow the version.
fn header(fields: &mut FieldReader<'_>) -> Option<(FrameHeader, NamespaceHash)> {
    if fields.u8()? != codec::CODEC {
        return None;
    }
    let kind = match fields.u8()? {
        KIND_PUT => FrameKind::Put,
        KIND_DELETE => FrameKind::Delete,
        _ => return None,
    };
    let flags = fields.u8()?;
    if flags & !FLAG_BLOBS != 0 {
        return None;
    }
    let hash = NamespaceHash::from_bytes(fields.array()?);
    let header = FrameHeader {
        kind,
        has_metadata: flags & FLAG_BLOBS != 0,
        revision: fields.u64()?,
        modified_ms: fields.u64()?,
        watermark: fields.u64()?,
        header_bytes: u32::try_from(HEADER_BYTES).ok()?,
        meta_bytes: fields.u32()?,
        inline_bytes: fields.u32()?,
        meta_crc: fields.u32()?,
        inline_crc: fields.u32()?,
    };
    Some((header, hash))
}

/// The metadata in the form that the codec encodes.
#[derive(Serialize, Deserialize)]
struct EncodedMeta {
    user: String,
    client: String,
    members: Vec<Member>,
}

/// Decodes the metadata. Returns an error message if the metadata is not valid.
pub(super) fn decode_meta(bytes: &[u8]) -> Result<FrameMeta, &'static str> {
    let meta: EncodedMeta =
        codec::decode(bytes).map_err(|_| "the frame metadata cannot be decoded")?;
    if !meta
        .members
        .iter()
        .all(|member| member.value.has_all_checksums())
    {
        return Err("an extent in the frame metadata does not have a checksum for each chunk");
    }
    let members = MemberLayout::Located(meta.members);
    let names = Names::new(meta.user, meta.client)
        .map_err(|_| "the user or client name in the frame is not valid")?;
    Ok(FrameMeta::new(names, members))
}

/// Determines the namespace and the length of a frame whose header is damaged; see
/// [`super::salvage`].
///
/// In version 1, the namespace is stored in the metadata. The frame can be salvaged only if the
/// metadata matches the length and the checksum in the damaged header. The end of the inline body
/// is certain if the body's checksum matches. The end of the inline body is also certain if,
/// according to the length in the header, the body ends exactly at the next valid frame header or
/// at the end of the segment.
pub(super) fn salvage(
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    let mut fields = FieldReader::new(bytes.get(LENGTHS_AT..HEADER_CRC_AT)?);
    let (meta_bytes, inline_bytes) = (fields.u32()?, fields.u32()?);
    let (meta_crc, inline_crc) = (fields.u32()?, fields.u32()?);
    let meta_end = HEADER_BYTES.saturating_add(meta_bytes as usize);
    let section = bytes.get(HEADER_BYTES..meta_end)?;
    if crc32fast::hash(section) != meta_crc {
        return None;
    }
    let meta = decode_meta(section).ok()?;
    let by_length = meta_end.saturating_add(inline_bytes as usize);
    let is_body_end =
        |end: usize| bytes.get(meta_end..end).map(crc32fast::hash) == Some(inline_crc);
    let end = if by_length == to_next || is_body_end(by_length) {
        by_length
    } else if is_body_end(to_next) {
        to_next
    } else {
        return None;
    };
    Some((
        NamespaceHash::of(key, &meta.names.user, &meta.names.client),
        end,
    ))
}

/// Decodes a frame header and encodes the result, for the fuzzers.
#[cfg(feature = "fuzzing")]
pub(crate) fn reencode_header(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    let (header, hash) = decode(bytes)?;
    let mut encoded = MAGIC.to_vec();
    encoded.extend_from_slice(&[
        VERSION,
        codec::CODEC,
        match header.kind {
            FrameKind::Put => KIND_PUT,
            FrameKind::Delete | FrameKind::Mark => KIND_DELETE,
        },
        if header.has_metadata { FLAG_BLOBS } else { 0 },
    ]);
    encoded.extend_from_slice(&hash.to_bytes());
    for field in [header.revision, header.modified_ms, header.watermark] {
        encoded.extend_from_slice(&field.to_le_bytes());
    }
    for field in [
        header.meta_bytes,
        header.inline_bytes,
        header.meta_crc,
        header.inline_crc,
    ] {
        encoded.extend_from_slice(&field.to_le_bytes());
    }
    let crc = crc32fast::hash(&encoded);
    encoded.extend_from_slice(&crc.to_le_bytes());
    Ok(encoded)
}

/// Decodes metadata and encodes the result, for the fuzzers.
#[cfg(feature = "fuzzing")]
pub(crate) fn reencode_metadata(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let FrameMeta {
        names: Names { user, client },
        members: MemberLayout::Located(members),
    } = decode_meta(bytes)?
    else {
        return Err("the metadata is not in the layout of version 1");
    };
    let encoded = EncodedMeta {
        user: user.to_string(),
        client: client.to_string(),
        members,
    };
    codec::encode(&encoded).map_err(|_| "the metadata cannot be encoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::member::{EXTENT_CHUNK_BYTES, Extent, ValueLocation};

    /// Regression test for a bug that was found by fuzzing segment replay. A read trusted the
    /// length of an extent and allocated that much memory, even if the extent had too few checksums
    /// for the length.
    #[test]
    fn extent_without_a_checksum_for_each_chunk_is_rejected() {
        let chunk = EXTENT_CHUNK_BYTES as u64;
        for (bytes, checksums, is_valid) in [
            (0, 0, true),
            (1, 1, true),
            (chunk, 1, true),
            (chunk + 1, 2, true),
            (chunk + 1, 1, false),
            (1, 0, false),
            (0, 1, false),
            (u64::MAX, 1, false),
        ] {
            let extent = Extent {
                blob: crate::model::ids::BlobId::new(1),
                offset: 28,
                bytes,
                crcs: vec![0; checksums],
            };
            let member = Member::new("\"k\"".to_owned(), ValueLocation::Extent(extent));
            let encoded = codec::encode(&EncodedMeta {
                user: "u".to_owned(),
                client: "c".to_owned(),
                members: vec![member.clone(), member],
            });
            let decoded = decode_meta(&encoded.unwrap());
            assert_eq!(decoded.is_ok(), is_valid, "{bytes} {checksums}");
        }
    }
}
