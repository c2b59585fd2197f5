//! The frame of version 1, which older stores hold. It is read, and not written any more.
//!
//! ```text
//!  0  u32  magic "PFRM"           32  u64  modified, ms since 1970
//!  4  u8   format version, 1      40  u64  watermark
//!  5  u8   codec of the metadata  48  u32  metadata length
//!  6  u8   kind                   52  u32  inline length
//!  7  u8   flags                  56  u32  CRC-32 of the metadata
//!  8  16B  namespace hash         60  u32  CRC-32 of the inline bytes
//! 24  u64  revision               64  u32  CRC-32 of the 64 bytes before it
//! 68  metadata, then inline bytes
//! ```

use serde::{Deserialize, Serialize};

use crate::format::codec;
use crate::format::fields::FieldReader;
use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{FrameHeader, FrameKind, HeadError};
use crate::format::frame::meta::{FrameMeta, Member, MemberLayout};
use crate::model::names::NamespaceHash;

pub(super) const MAGIC: [u8; 4] = *b"PFRM";
const VERSION: u8 = 1;
/// Bytes before the metadata.
pub(super) const HEAD_BYTES: usize = 68;
/// Bytes that the head's own checksum covers.
const HEAD_CRC_AT: usize = 64;
const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
/// The document has extents in blob files.
const FLAG_BLOBS: u8 = 1;

/// The head that `bytes` begins with, and the namespace's hash in it.
pub(super) fn decode(bytes: &[u8]) -> Result<(FrameHeader, NamespaceHash), HeadError> {
    let bytes = bytes
        .get(..HEAD_BYTES)
        .ok_or(HeadError::Invalid("the frame header is cut short"))?;
    let (covered, crc) = bytes.split_at(HEAD_CRC_AT);
    if crc32fast::hash(covered).to_le_bytes() != *crc {
        let what = "the frame header's checksum does not match";
        return Err(HeadError::Invalid(what));
    }
    // The checksum holds: what does not fit was written by somebody else.
    let mut fields = FieldReader::new(bytes);
    if fields.array() != Some(MAGIC) {
        return Err(HeadError::Invalid("there is no frame header"));
    }
    match fields.u8() {
        Some(VERSION) => header(&mut fields).ok_or(HeadError::Unknown),
        version => Err(HeadError::Version {
            found: version.unwrap_or_default(),
            supported: FormatVersion::V1.number(),
        }),
    }
}

/// What stands behind the version.
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
        has_blobs: flags & FLAG_BLOBS != 0,
        revision: fields.u64()?,
        modified_ms: fields.u64()?,
        watermark: fields.u64()?,
        head_bytes: u32::try_from(HEAD_BYTES).ok()?,
        meta_bytes: fields.u32()?,
        inline_bytes: fields.u32()?,
        meta_crc: fields.u32()?,
        inline_crc: fields.u32()?,
    };
    Some((header, hash))
}

/// The metadata as the codec has it.
#[derive(Serialize, Deserialize)]
struct EncodedMeta {
    user: String,
    client: String,
    members: Vec<Member>,
}

/// The metadata in `bytes`, or what is wrong with it.
pub(super) fn decode_meta(bytes: &[u8]) -> Result<FrameMeta, &'static str> {
    let meta: EncodedMeta =
        codec::decode(bytes).map_err(|_| "the frame metadata cannot be decoded")?;
    if !meta.members.iter().all(|member| member.value.is_covered()) {
        return Err("an extent in the frame metadata does not have a checksum for each chunk");
    }
    let members = MemberLayout::Placed(meta.members);
    Ok(FrameMeta::new(meta.user, meta.client, members))
}

/// By the metadata, where the damage spared it with its length and checksum, and what
/// tells that nothing but the frame's own inline bytes lies behind that.
pub(super) fn behind_damage(
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    let mut fields = FieldReader::new(bytes.get(48..HEAD_CRC_AT)?);
    let (meta_bytes, inline_bytes) = (fields.u32()?, fields.u32()?);
    let (meta_crc, inline_crc) = (fields.u32()?, fields.u32()?);
    let meta_end = HEAD_BYTES.saturating_add(meta_bytes as usize);
    let section = bytes.get(HEAD_BYTES..meta_end)?;
    if crc32fast::hash(section) != meta_crc {
        return None;
    }
    let meta = decode_meta(section).ok()?;
    let by_length = meta_end.saturating_add(inline_bytes as usize);
    let is_inline = |end: usize| bytes.get(meta_end..end).map(crc32fast::hash) == Some(inline_crc);
    let end = if by_length == to_next || is_inline(by_length) {
        by_length
    } else if is_inline(to_next) {
        to_next
    } else {
        return None;
    };
    Some((NamespaceHash::of(key, &meta.user, &meta.client), end))
}

/// The head that was decoded, encoded again, for the fuzzers.
#[cfg(feature = "fuzzing")]
pub(crate) fn head_again(bytes: &[u8]) -> Result<Vec<u8>, HeadError> {
    let (header, hash) = decode(bytes)?;
    let mut again = MAGIC.to_vec();
    again.extend_from_slice(&[
        VERSION,
        codec::CODEC,
        match header.kind {
            FrameKind::Put => KIND_PUT,
            FrameKind::Delete => KIND_DELETE,
        },
        if header.has_blobs { FLAG_BLOBS } else { 0 },
    ]);
    again.extend_from_slice(&hash.to_bytes());
    for field in [header.revision, header.modified_ms, header.watermark] {
        again.extend_from_slice(&field.to_le_bytes());
    }
    for field in [
        header.meta_bytes,
        header.inline_bytes,
        header.meta_crc,
        header.inline_crc,
    ] {
        again.extend_from_slice(&field.to_le_bytes());
    }
    let crc = crc32fast::hash(&again);
    again.extend_from_slice(&crc.to_le_bytes());
    Ok(again)
}

/// The same of the metadata.
#[cfg(feature = "fuzzing")]
pub(crate) fn meta_again(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let FrameMeta {
        user,
        client,
        members: MemberLayout::Placed(members),
    } = decode_meta(bytes)?
    else {
        return Err("it is of another version");
    };
    let encoded = EncodedMeta {
        user,
        client,
        members,
    };
    codec::encode(&encoded).map_err(|_| "it cannot be encoded")
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::meta::{EXTENT_CHUNK_BYTES, Extent, ValueLocation};

    /// Found by the fuzzer of segment replay, which makes checksums right: reading
    /// reserved the memory that such a document says it takes.
    #[test]
    fn an_extent_is_as_long_as_its_checksums_say() {
        let chunk = EXTENT_CHUNK_BYTES as u64;
        for (bytes, checksums, is_right) in [
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
            let member = Member {
                key: "\"k\"".to_owned(),
                value: ValueLocation::Extent(extent),
            };
            let encoded = codec::encode(&EncodedMeta {
                user: "u".to_owned(),
                client: "c".to_owned(),
                members: vec![member.clone(), member],
            });
            let decoded = decode_meta(&encoded.unwrap());
            assert_eq!(decoded.is_ok(), is_right, "{bytes} {checksums}");
        }
    }
}
