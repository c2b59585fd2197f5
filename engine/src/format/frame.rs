//! Frames: the records of a segment. A frame records the put of a document, a delete or a mark.
//!
//! A frame is valid only if all its checksums match. A put is atomic, because a partially written
//! frame is not valid.
//!
//! A frame consists of a frame header, optional metadata and an optional inline body. In version 3,
//! a plain put has an inline body and no metadata, a put with extents has both, and a delete and a
//! mark have neither.
//!
//! New frames have the layout of version 3, in [`compact`] and [`records`]. The engine can read
//! version 2, in [`compact`] and [`extents`], and version 1, in [`v1`], but no longer writes them.
//! The version in the file header of a segment determines the layout of its frames.
//!
//! The first five bytes of every valid frame include a control character, 01 in version 1 and 1E in
//! later versions, that never occurs in JSON text. A document therefore cannot contain bytes that
//! form a valid frame.
//!
//! Newer frame versions must keep the magic, the version, the length and the checksum of the frame
//! header at the current offsets. These fixed offsets allow the current engine to distinguish a
//! frame of a newer version from damage and from a torn write.

pub(crate) mod bounds;
pub(crate) mod compact;
pub(crate) mod encoded;
mod extents;
pub(crate) mod header;
mod inline_body;
pub(crate) mod member;
pub(crate) mod meta;
mod records;
pub(crate) mod v1;

use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{FrameError, FrameHeader, Salvaged};
use crate::format::frame::meta::FrameMeta;
use crate::model::names::NamespaceHash;

/// A frame header with a valid checksum.
#[derive(Debug)]
pub(crate) struct DecodedHeader {
    pub(crate) header: FrameHeader,
    body: HeaderBody,
}

/// The fields of a frame header that describe the namespace and the members.
#[derive(Debug)]
enum HeaderBody {
    /// A version 1 header contains the namespace hash. The names and the members are in the
    /// metadata of a version 1 frame.
    V1 {
        hash: NamespaceHash,
    },
    Compact(compact::CompactBody),
    /// A mark has no namespace and no members.
    Mark,
}

/// Returns the bytes with which every frame of the given version begins.
pub(crate) fn magic(version: FormatVersion) -> &'static [u8] {
    match version {
        FormatVersion::V1 => &v1::MAGIC,
        FormatVersion::V2 | FormatVersion::V3 => &compact::MAGIC,
    }
}

/// Number of bytes from the start of a frame that are sufficient for [`header_bytes`], in any
/// version.
pub(crate) const HEADER_PROBE_BYTES: usize = v1::HEADER_BYTES;

/// Returns the length of the frame header at the start of `bytes`. The length may be wrong, because
/// the checksum is not verified. In version 1, the length of the header is constant. In later
/// versions, returns `None` if `bytes` does not begin with the magic, or if the length field is
/// truncated or invalid.
pub(crate) fn header_bytes(version: FormatVersion, bytes: &[u8]) -> Option<usize> {
    match version {
        FormatVersion::V1 => Some(v1::HEADER_BYTES),
        FormatVersion::V2 | FormatVersion::V3 => compact::header_bytes(bytes),
    }
}

impl DecodedHeader {
    /// Decodes the frame header at the start of `bytes`. `offset` is the offset of `bytes` in
    /// the segment.
    pub(crate) fn decode(
        version: FormatVersion,
        bytes: &[u8],
        offset: u64,
    ) -> Result<Self, FrameError> {
        match version {
            FormatVersion::V1 => {
                let (header, hash) = v1::decode(bytes)?;
                let body = HeaderBody::V1 { hash };
                Ok(Self { header, body })
            }
            FormatVersion::V2 | FormatVersion::V3 => {
                let (header, body) = compact::decode(version, bytes, offset)?;
                let body = body.map_or(HeaderBody::Mark, HeaderBody::Compact);
                Ok(Self { header, body })
            }
        }
    }

    /// Returns the namespace hash of the frame, or `None` if the frame is a mark. `key` is the
    /// secret key from the manifest.
    pub(crate) fn hash(&self, key: &[u8; 16]) -> Option<NamespaceHash> {
        match &self.body {
            HeaderBody::V1 { hash } => Some(*hash),
            HeaderBody::Compact(body) => Some(body.hash(key)),
            HeaderBody::Mark => None,
        }
    }

    /// Decodes the metadata of the frame. `section` contains the bytes of the metadata, and is
    /// empty if the frame has no metadata.
    pub(crate) fn meta(self, section: &[u8]) -> Result<(FrameHeader, FrameMeta), FrameError> {
        if crc32fast::hash(section) != self.header.meta_crc {
            let what = "the frame metadata's checksum does not match";
            return Err(FrameError::Invalid(what));
        }
        let meta = match self.body {
            HeaderBody::V1 { .. } => v1::decode_meta(section).map_err(FrameError::Invalid)?,
            HeaderBody::Compact(body) => body.meta(section)?,
            HeaderBody::Mark => return Err(FrameError::Invalid("a mark has no metadata")),
        };
        Ok((self.header, meta))
    }
}

/// Determines the content and the length of a frame whose header is damaged. Returns `None` if the
/// content or the length remains uncertain.
///
/// `bytes` begins with the damaged frame. `to_next` is the distance from the start of `bytes` to
/// the next valid frame header or to the end of the segment. `key` is the secret key with which
/// namespace hashes are computed.
///
/// The length of a damaged frame must not be guessed. If two adjacent damaged frames were treated
/// as one frame, the namespace of the second frame would be lost, and reads of that namespace would
/// return an older revision.
pub(crate) fn salvage(
    version: FormatVersion,
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(Salvaged, usize)> {
    match version {
        FormatVersion::V1 => {
            let (hash, len) = v1::salvage(bytes, to_next, key)?;
            Some((Salvaged::Frame(hash), len))
        }
        FormatVersion::V2 | FormatVersion::V3 => compact::salvage(version, bytes, to_next, key),
    }
}
