//! Frames: the records of a segment. A frame is the put of a whole document, or a delete.
//!
//! A frame is valid only if all its checksums match. So a put is atomic: an incompletely
//! written frame is not valid.
//!
//! A frame consists of a frame header, metadata and an inline body. In version 2, at most one
//! of the last two is present: a small document has an inline body, a document in a blob has
//! metadata, and a delete has neither.
//!
//! There are two layouts: [`v2`] is written, and [`v1`] is only read. The version in the file
//! header of a segment determines the layout of its frames.
//!
//! Each frame has a control character among its first five bytes. JSON text cannot
//! contain one, so no document can contain bytes that look like a frame.
//!
//! Newer versions keep the magic, the version, the length and the checksum of the frame header
//! at their offsets. So a frame of a newer version can be distinguished from damage and from a
//! torn write.

pub(crate) mod encoded;
pub(crate) mod header;
pub(crate) mod meta;
pub(crate) mod v1;
pub(crate) mod v2;

use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{FrameHeader, HeaderError};
use crate::format::frame::meta::FrameMeta;
use crate::model::names::NamespaceHash;

/// A frame header whose checksum matches.
#[derive(Debug)]
pub(crate) struct DecodedHeader {
    pub(crate) header: FrameHeader,
    body: HeaderBody,
}

/// The fields of a frame header that describe the namespace and the members.
#[derive(Debug)]
enum HeaderBody {
    /// A version 1 header contains the namespace hash. The names and the members are in the
    /// metadata.
    V1 {
        hash: NamespaceHash,
    },
    V2(v2::HeaderBodyV2),
}

/// The first bytes of each frame of a version.
pub(crate) fn magic(version: FormatVersion) -> &'static [u8] {
    match version {
        FormatVersion::V1 => &v1::MAGIC,
        FormatVersion::V2 => &v2::MAGIC,
    }
}

/// Number of bytes from which [`header_bytes`] determines the length of a header, in each
/// version.
pub(crate) const HEADER_PROBE_BYTES: usize = v1::HEADER_BYTES;

/// The length of the frame header at the start of `bytes`. Does not check the checksum, so the
/// length may be wrong. Returns `None` if `bytes` does not begin with a frame header.
pub(crate) fn header_bytes(version: FormatVersion, bytes: &[u8]) -> Option<usize> {
    match version {
        FormatVersion::V1 => Some(v1::HEADER_BYTES),
        FormatVersion::V2 => v2::header_bytes(bytes),
    }
}

impl DecodedHeader {
    /// Decodes the frame header at the start of `bytes`. `offset` is the offset of `bytes` in
    /// the segment.
    pub(crate) fn decode(
        version: FormatVersion,
        bytes: &[u8],
        offset: u64,
    ) -> Result<Self, HeaderError> {
        match version {
            FormatVersion::V1 => {
                let (header, hash) = v1::decode(bytes)?;
                let body = HeaderBody::V1 { hash };
                Ok(Self { header, body })
            }
            FormatVersion::V2 => {
                let (header, body) = v2::decode(bytes, offset)?;
                let body = HeaderBody::V2(body);
                Ok(Self { header, body })
            }
        }
    }

    /// The namespace hash. `key` is the key of the hash from the manifest.
    pub(crate) fn hash(&self, key: &[u8; 16]) -> NamespaceHash {
        match &self.body {
            HeaderBody::V1 { hash } => *hash,
            HeaderBody::V2(body) => body.hash(key),
        }
    }

    /// Decodes the metadata of the frame. `section` is the metadata; it is empty if the frame
    /// has none. Returns an error message if the metadata is not valid.
    pub(crate) fn meta(self, section: &[u8]) -> Result<(FrameHeader, FrameMeta), &'static str> {
        if crc32fast::hash(section) != self.header.meta_crc {
            return Err("the frame metadata's checksum does not match");
        }
        let meta = match self.body {
            HeaderBody::V1 { .. } => v1::decode_meta(section)?,
            HeaderBody::V2(body) => body.meta(section)?,
        };
        Ok((self.header, meta))
    }
}

/// Determines the namespace and the length of a frame whose header is damaged. Returns `None`
/// if the remaining bytes do not determine them.
///
/// `bytes` begins with the damaged frame. The next valid frame header, or the end of the
/// segment, is `to_next` bytes after its start. `key` is the key of the namespace hash.
///
/// The length must be certain. If two adjacent damaged frames were treated as one, the second
/// frame would be missed, and a read of its namespace would return an older revision.
pub(crate) fn salvage(
    version: FormatVersion,
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    match version {
        FormatVersion::V1 => v1::salvage(bytes, to_next, key),
        FormatVersion::V2 => v2::salvage(bytes, to_next, key),
    }
}
