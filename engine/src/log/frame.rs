//! A frame: one whole-document replace, or one delete. Atomic by construction,
//! since it counts only where all of its checksums hold.
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
//!
//! Magic, version and the checksum of the header stay where they are in every version,
//! so that a frame of a newer one is told from damage and from a torn tail.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::Error;
use crate::fields::Fields;
use crate::limits::Usage;
use crate::names::NamespaceHash;

pub(crate) const MAGIC: [u8; 4] = *b"PFRM";
pub(crate) const VERSION: u8 = 1;
/// Bytes before the metadata.
pub(crate) const HEADER_BYTES: usize = 68;
/// Bytes that the header's own checksum covers.
const HEADER_CRC_AT: usize = 64;
/// The document has extents in blob files.
const FLAG_BLOBS: u8 = 1;

/// What a frame does to its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Delete,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Delete => 2,
        }
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) has_blobs: bool,
    pub(crate) hash: NamespaceHash,
    pub(crate) revision: u64,
    pub(crate) modified_ms: u64,
    /// The offset in this segment up to which everything was synced when this
    /// frame was written. Below it, what is invalid is corrupt; above, it may be
    /// the torn end of a batch that was never acknowledged.
    pub(crate) watermark: u64,
    pub(crate) meta_bytes: u32,
    pub(crate) inline_bytes: u32,
    pub(crate) meta_crc: u32,
    pub(crate) inline_crc: u32,
}

/// Why bytes are no frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// They are damaged, or are none at all.
    Invalid(&'static str),
    /// It is whole, and of another version.
    Version(u8),
    /// It is whole and of this version, and says what this version never says.
    Unknown,
}

impl NoHeader {
    /// As an error of the file in which they stand.
    pub(crate) fn at(self, path: &Path, offset: u64) -> Error {
        match self {
            Self::Invalid(what) => Error::corrupt(path, offset, what),
            Self::Version(found) => Error::UnsupportedFormat {
                path: path.to_owned(),
                found: found.into(),
                supported: VERSION.into(),
            },
            Self::Unknown => Error::corrupt(
                path,
                offset,
                "the frame has a codec, kind or flag that is not known",
            ),
        }
    }
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
            at += field.len();
        };
        put(&MAGIC);
        put(&[
            VERSION,
            codec::CODEC,
            self.kind.to_byte(),
            if self.has_blobs { FLAG_BLOBS } else { 0 },
        ]);
        put(&self.hash.to_bytes());
        put(&self.revision.to_le_bytes());
        put(&self.modified_ms.to_le_bytes());
        put(&self.watermark.to_le_bytes());
        put(&self.meta_bytes.to_le_bytes());
        put(&self.inline_bytes.to_le_bytes());
        put(&self.meta_crc.to_le_bytes());
        put(&self.inline_crc.to_le_bytes());
        let (covered, crc) = bytes.split_at_mut(HEADER_CRC_AT);
        crc.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
        bytes
    }

    /// The header that `bytes` begins with, or why there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let bytes = bytes
            .get(..HEADER_BYTES)
            .ok_or(NoHeader::Invalid("the frame header is cut short"))?;
        let (covered, crc) = bytes.split_at(HEADER_CRC_AT);
        if crc32fast::hash(covered).to_le_bytes() != *crc {
            let what = "the frame header's checksum does not match";
            return Err(NoHeader::Invalid(what));
        }
        // The checksum holds: what does not fit was written by somebody else.
        let mut fields = Fields::new(bytes);
        if fields.array() != Some(MAGIC) {
            return Err(NoHeader::Invalid("there is no frame header"));
        }
        match fields.u8() {
            Some(VERSION) => Self::fields(&mut fields).ok_or(NoHeader::Unknown),
            version => Err(NoHeader::Version(version.unwrap_or_default())),
        }
    }

    /// What stands behind the version.
    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        if fields.u8()? != codec::CODEC {
            return None;
        }
        let kind = Kind::from_byte(fields.u8()?)?;
        let flags = fields.u8()?;
        if flags & !FLAG_BLOBS != 0 {
            return None;
        }
        Some(Self {
            kind,
            has_blobs: flags & FLAG_BLOBS != 0,
            hash: NamespaceHash::from_bytes(fields.array()?),
            revision: fields.u64()?,
            modified_ms: fields.u64()?,
            watermark: fields.u64()?,
            meta_bytes: fields.u32()?,
            inline_bytes: fields.u32()?,
            meta_crc: fields.u32()?,
            inline_crc: fields.u32()?,
        })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.meta_bytes) + u64::from(self.inline_bytes)
    }
}

/// The metadata of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) user: String,
    pub(crate) client: String,
    /// In the document's order; empty in a delete.
    pub(crate) members: Vec<Member>,
}

/// One member of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The key's JSON text as sent, with its quotes.
    pub(crate) key: String,
    pub(crate) value: Place,
}

/// Where a value's JSON text lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In the inline bytes of the frame, which are then the whole body.
    Inline { offset: u32, bytes: u32 },
    /// In a blob file.
    Extent(Extent),
}

/// A run of bytes in a blob file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) blob: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// CRC-32 of each [`EXTENT_CHUNK_BYTES`] of the run, the last one shorter.
    pub(crate) crcs: Vec<u32>,
}

/// Bytes of a blob that one checksum covers: what a reader must read to trust any
/// byte of it.
pub(crate) const EXTENT_CHUNK_BYTES: usize = 64 * 1024;

impl Place {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => u64::from(*bytes),
            Self::Extent(extent) => extent.bytes,
        }
    }

    /// Whether it can be read: an extent has a checksum for each chunk. So no length is
    /// believed that the metadata is not itself long enough for.
    fn is_covered(&self) -> bool {
        match self {
            Self::Inline { .. } => true,
            Self::Extent(extent) => {
                let chunks = extent.bytes.div_ceil(EXTENT_CHUNK_BYTES as u64);
                extent.crcs.len() as u64 == chunks
            }
        }
    }
}

/// The same, of parts that somebody else has: what is encoded.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct MetaParts<'a> {
    pub(crate) user: &'a str,
    pub(crate) client: &'a str,
    pub(crate) members: &'a [Member],
}

impl Meta {
    pub(crate) fn parts(&self) -> MetaParts<'_> {
        MetaParts {
            user: &self.user,
            client: &self.client,
            members: &self.members,
        }
    }

    pub(crate) fn is_of(&self, (user, client): (&str, &str)) -> bool {
        self.user == user && self.client == client
    }

    /// The blob files that the document lies in, each once.
    pub(crate) fn blobs(&self) -> Vec<u64> {
        blobs(&self.members)
    }

    /// Bytes of the body, if all values lie in it, where they must: each behind its key,
    /// and nothing between them.
    pub(crate) fn inline_bytes(&self) -> Option<u64> {
        let end = self.members.iter().try_fold(1_u64, |at, member| {
            let at = at + member.key.len() as u64 + 1;
            match &member.value {
                Place::Inline { offset, bytes } if u64::from(*offset) == at => {
                    Some(at + u64::from(*bytes) + 1)
                }
                Place::Inline { .. } | Place::Extent(_) => None,
            }
        })?;
        // The comma that the last member has not stands for the closing brace.
        Some(end + u64::from(self.members.is_empty()))
    }

    /// What the document takes as it is read: braces, keys, colons, values, commas.
    /// Nothing, where the frame is a delete.
    pub(crate) fn usage(&self, kind: Kind) -> Usage {
        if kind == Kind::Delete {
            return Usage::default();
        }
        let members: u64 = self
            .members
            .iter()
            .map(|member| member.key.len() as u64 + 2 + member.value.bytes())
            .sum();
        Usage {
            keys: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            // The comma that the last member has not stands for the closing brace.
            bytes: members + 1 + u64::from(self.members.is_empty()),
        }
    }
}

fn blobs(members: &[Member]) -> Vec<u64> {
    let mut blobs: Vec<u64> = members
        .iter()
        .filter_map(|member| match &member.value {
            Place::Extent(extent) => Some(extent.blob),
            Place::Inline { .. } => None,
        })
        .collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs
}

/// A frame that lacks only what the commit gives it: revision, time, watermark.
/// Made by the writer's own thread, so that the committer has little to do.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) hash: NamespaceHash,
    pub(crate) blobs: Vec<u64>,
    pub(crate) meta: Vec<u8>,
    pub(crate) inline: Bytes,
    meta_bytes: u32,
    inline_bytes: u32,
    meta_crc: u32,
    inline_crc: u32,
}

impl Draft {
    /// `None` where the lengths do not fit the format.
    pub(crate) fn new(
        kind: Kind,
        hash: NamespaceHash,
        parts: MetaParts<'_>,
        inline: Bytes,
    ) -> Option<Self> {
        let blobs = blobs(parts.members);
        let meta = codec::encode(&parts).ok()?;
        Some(Self {
            kind,
            hash,
            blobs,
            meta_bytes: u32::try_from(meta.len()).ok()?,
            inline_bytes: u32::try_from(inline.len()).ok()?,
            meta_crc: crc32fast::hash(&meta),
            inline_crc: crc32fast::hash(&inline),
            meta,
            inline,
        })
    }

    pub(crate) fn header(&self, revision: u64, modified_ms: u64, watermark: u64) -> Header {
        Header {
            kind: self.kind,
            has_blobs: !self.blobs.is_empty(),
            hash: self.hash,
            revision,
            modified_ms,
            watermark,
            meta_bytes: self.meta_bytes,
            inline_bytes: self.inline_bytes,
            meta_crc: self.meta_crc,
            inline_crc: self.inline_crc,
        }
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.meta_bytes) + u64::from(self.inline_bytes)
    }
}

/// The metadata in `bytes`, or what is wrong with it.
pub(crate) fn decode_meta(bytes: &[u8], crc: u32) -> Result<Meta, &'static str> {
    if crc32fast::hash(bytes) != crc {
        return Err("the frame metadata's checksum does not match");
    }
    let meta: Meta = codec::decode(bytes).map_err(|_| "the frame metadata cannot be decoded")?;
    if !meta.members.iter().all(|member| member.value.is_covered()) {
        return Err("an extent in the frame metadata does not have a checksum for each chunk");
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;

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
                blob: 1,
                offset: 28,
                bytes,
                crcs: vec![0; checksums],
            };
            let member = Member {
                key: "\"k\"".to_owned(),
                value: Place::Extent(extent),
            };
            let meta = Meta {
                user: "u".to_owned(),
                client: "c".to_owned(),
                members: vec![member.clone(), member],
            };
            let encoded = codec::encode(&meta).unwrap();
            let decoded = decode_meta(&encoded, crc32fast::hash(&encoded));
            assert_eq!(decoded.is_ok(), is_right, "{bytes} {checksums}");
        }
    }
}
