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

mod draft;
mod meta;
pub(crate) mod v1;
pub(crate) mod v2;

use std::path::Path;

use crate::error::Error;
use crate::log::segment::Version;
use crate::names::NamespaceHash;
pub(crate) use draft::{Draft, Stamp};
pub(crate) use meta::{EXTENT_CHUNK_BYTES, Extent, Member, Meta, Place, blobs};

/// What a frame does to its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Delete,
}

/// The numbers in a frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) has_blobs: bool,
    pub(crate) revision: u64,
    pub(crate) modified_ms: u64,
    /// The offset in this segment up to which everything was synced when this
    /// frame was written. Below it, what is invalid is corrupt; above, it may be
    /// the torn end of a batch that was never acknowledged.
    pub(crate) watermark: u64,
    pub(crate) head_bytes: u32,
    pub(crate) meta_bytes: u32,
    pub(crate) inline_bytes: u32,
    meta_crc: u32,
    pub(crate) inline_crc: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        u64::from(self.head_bytes) + u64::from(self.meta_bytes) + u64::from(self.inline_bytes)
    }

    /// Where the metadata ends and the inline bytes begin.
    pub(crate) fn meta_end(&self) -> usize {
        self.head_bytes as usize + self.meta_bytes as usize
    }
}

/// A head whose checksum holds.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) header: Header,
    said: Said,
}

/// What a head says of its namespace and its document.
#[derive(Debug)]
enum Said {
    /// The names and all else are in the metadata.
    V1 {
        hash: NamespaceHash,
    },
    V2(v2::Said),
}

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHead {
    /// They are damaged, or are none at all.
    Invalid(&'static str),
    /// It is whole, and of another version than its segment.
    Version { found: u8, supported: u16 },
    /// It is whole and of this version, and says what this version never says.
    Unknown,
}

impl NoHead {
    /// As an error of the file in which they stand.
    pub(crate) fn at(self, path: &Path, offset: u64) -> Error {
        match self {
            Self::Invalid(what) => Error::corrupt(path, offset, what),
            Self::Version { found, supported } => Error::UnsupportedFormat {
                path: path.to_owned(),
                found: found.into(),
                supported,
            },
            Self::Unknown => Error::corrupt(
                path,
                offset,
                "the frame has a codec, kind or flag that is not known",
            ),
        }
    }
}

/// What every frame of a version begins with.
pub(crate) fn magic(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => &v1::MAGIC,
        Version::V2 => &v2::MAGIC,
    }
}

/// Bytes that tell how long a head is.
pub(crate) const MIN_HEAD_BYTES: usize = v1::HEAD_BYTES;

/// How long the head is that `bytes` begins with, if it is one: no checksum was looked at.
pub(crate) fn head_bytes(version: Version, bytes: &[u8]) -> Option<usize> {
    match version {
        Version::V1 => Some(v1::HEAD_BYTES),
        Version::V2 => v2::head_bytes(bytes),
    }
}

impl Head {
    /// The head that `bytes` begins with, which stand at the offset `at` of their segment,
    /// or why there is none.
    pub(crate) fn decode(version: Version, bytes: &[u8], at: u64) -> Result<Self, NoHead> {
        match version {
            Version::V1 => {
                let (header, hash) = v1::decode(bytes)?;
                let said = Said::V1 { hash };
                Ok(Self { header, said })
            }
            Version::V2 => {
                let (header, said) = v2::decode(bytes, at)?;
                let said = Said::V2(said);
                Ok(Self { header, said })
            }
        }
    }

    /// Whose frame it is.
    pub(crate) fn hash(&self, key: &[u8; 16]) -> NamespaceHash {
        match &self.said {
            Said::V1 { hash } => *hash,
            Said::V2(said) => said.hash(key),
        }
    }

    /// What the frame says of its document, by its metadata, or what is wrong with that.
    pub(crate) fn meta(self, section: &[u8]) -> Result<(Header, Meta), &'static str> {
        if crc32fast::hash(section) != self.header.meta_crc {
            return Err("the frame metadata's checksum does not match");
        }
        let meta = match self.said {
            Said::V1 { .. } => v1::decode_meta(section)?,
            Said::V2(said) => said.meta(section)?,
        };
        Ok((self.header, meta))
    }
}

/// The namespace and the length of a frame whose head is damaged, where the damage spared
/// enough to tell. `bytes` begin with it, and the next frame that holds, or the end, is
/// `to_next` bytes on. Were two damaged frames taken for one, an older revision of the
/// second one's namespace would be taken for the newest.
pub(crate) fn behind_damage(
    version: Version,
    bytes: &[u8],
    to_next: usize,
    key: &[u8; 16],
) -> Option<(NamespaceHash, usize)> {
    match version {
        Version::V1 => v1::behind_damage(bytes, to_next, key),
        Version::V2 => v2::behind_damage(bytes, to_next, key),
    }
}
