//! A frame: one whole-document replace, or one delete. Atomic by construction,
//! since it counts only where all of its checksums hold.
//!
//! A frame is a head, then, for a document that lies in blobs, metadata, and for one that
//! does not, the inline bytes, which are its body. Of the two layouts of that, [`v2`] is
//! the one that is written and [`v1`] one that is only read. Which of them a segment
//! holds, its file header says.
//!
//! In every layout, the magic holds a control character, which JSON text cannot hold, and
//! magic, version and checksum of the head stay where they are, so that a frame of a newer
//! version is told from damage and from a torn tail.

pub(crate) mod encoded;
pub(crate) mod header;
pub(crate) mod meta;
pub(crate) mod v1;
pub(crate) mod v2;

use crate::format::file_header::FormatVersion;
use crate::format::frame::header::{FrameHeader, HeadError};
use crate::format::frame::meta::FrameMeta;
use crate::model::names::NamespaceHash;

/// A head whose checksum holds.
#[derive(Debug)]
pub(crate) struct FrameHead {
    pub(crate) header: FrameHeader,
    said: HeadBody,
}

/// What a head says of its namespace and its document.
#[derive(Debug)]
enum HeadBody {
    /// The names and all else are in the metadata.
    V1 {
        hash: NamespaceHash,
    },
    V2(v2::HeadBodyV2),
}

/// What every frame of a version begins with.
pub(crate) fn magic(version: FormatVersion) -> &'static [u8] {
    match version {
        FormatVersion::V1 => &v1::MAGIC,
        FormatVersion::V2 => &v2::MAGIC,
    }
}

/// Bytes that tell how long a head is.
pub(crate) const MIN_HEAD_BYTES: usize = v1::HEAD_BYTES;

/// How long the head is that `bytes` begins with, if it is one: no checksum was looked at.
pub(crate) fn head_bytes(version: FormatVersion, bytes: &[u8]) -> Option<usize> {
    match version {
        FormatVersion::V1 => Some(v1::HEAD_BYTES),
        FormatVersion::V2 => v2::head_bytes(bytes),
    }
}

impl FrameHead {
    /// The head that `bytes` begins with, which stand at the offset `at` of their segment,
    /// or why there is none.
    pub(crate) fn decode(version: FormatVersion, bytes: &[u8], at: u64) -> Result<Self, HeadError> {
        match version {
            FormatVersion::V1 => {
                let (header, hash) = v1::decode(bytes)?;
                let said = HeadBody::V1 { hash };
                Ok(Self { header, said })
            }
            FormatVersion::V2 => {
                let (header, said) = v2::decode(bytes, at)?;
                let said = HeadBody::V2(said);
                Ok(Self { header, said })
            }
        }
    }

    /// Whose frame it is.
    pub(crate) fn hash(&self, key: &[u8; 16]) -> NamespaceHash {
        match &self.said {
            HeadBody::V1 { hash } => *hash,
            HeadBody::V2(said) => said.hash(key),
        }
    }

    /// What the frame says of its document, by its metadata, or what is wrong with that.
    pub(crate) fn meta(self, section: &[u8]) -> Result<(FrameHeader, FrameMeta), &'static str> {
        if crc32fast::hash(section) != self.header.meta_crc {
            return Err("the frame metadata's checksum does not match");
        }
        let meta = match self.said {
            HeadBody::V1 { .. } => v1::decode_meta(section)?,
            HeadBody::V2(said) => said.meta(section)?,
        };
        Ok((self.header, meta))
    }
}

/// The namespace and the length of a frame whose head is damaged, where the damage spared
/// enough to tell. `bytes` begin with it, and the next frame that holds, or the end, is
/// `to_next` bytes on. Were two damaged frames taken for one, an older revision of the
/// second one's namespace would be taken for the newest.
pub(crate) fn behind_damage(
    version: FormatVersion,
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    match version {
        FormatVersion::V1 => v1::behind_damage(bytes, to_next, key),
        FormatVersion::V2 => v2::behind_damage(bytes, to_next, key),
    }
}
