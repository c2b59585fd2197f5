//! The fields of a frame header that all format versions have in common.

use std::path::Path;

use crate::model::error::Error;
use crate::model::names::NamespaceHash;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Put,
    Delete,
    /// A frame without a namespace, which records that all bytes before it are synced.
    Mark,
}

/// The fields of a frame header, without the fields that describe the namespace and the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// True if the frame is a put whose members are described in the metadata. The values of the
    /// members can be in blobs.
    pub(crate) has_metadata: bool,
    pub(crate) revision: u64,
    /// Time of the write in milliseconds since 1970-01-01 UTC.
    pub(crate) modified_ms: u64,
    /// Length of the part of the segment that was known to be synced when this frame was written.
    /// Invalid bytes before the watermark are damage, because they were synced. Invalid bytes after
    /// the watermark may be a torn write of a batch that was not synced.
    pub(crate) watermark: u64,
    pub(crate) header_bytes: u32,
    pub(crate) meta_bytes: u32,
    pub(crate) inline_bytes: u32,
    pub(super) meta_crc: u32,
    pub(crate) inline_crc: u32,
}

impl FrameHeader {
    /// Length of the complete frame in bytes.
    pub(crate) fn frame_bytes(&self) -> u64 {
        u64::from(self.header_bytes) + u64::from(self.meta_bytes) + u64::from(self.inline_bytes)
    }

    /// Offset in the frame at which the metadata ends and the inline body begins.
    pub(crate) fn meta_end(&self) -> usize {
        self.header_bytes as usize + self.meta_bytes as usize
    }
}

/// The reason why a frame header or the metadata of a frame could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The bytes are damaged, or are not a frame header or metadata.
    Invalid(&'static str),
    /// The header is intact, but its version differs from the frame version of the segment.
    Version { found: u8, supported: u16 },
    /// The header or metadata is intact and its version is supported, but the value of a field is
    /// not valid in this version.
    Unknown,
}

impl FrameError {
    /// Converts the error. `path` and `offset` are the location of the frame header.
    pub(crate) fn into_error(self, path: &Path, offset: u64) -> Error {
        match self {
            Self::Invalid(what) => Error::corrupt(path, offset, what),
            Self::Version { found, supported } => Error::UnsupportedFormat {
                path: path.to_owned(),
                found: found.into(),
                supported,
            },
            Self::Unknown => {
                Error::corrupt(path, offset, "the frame has a field with an unknown value")
            }
        }
    }
}

/// The fields of a frame that are determined at the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitInfo {
    pub(crate) revision: u64,
    /// Time of the write in milliseconds since 1970-01-01 UTC.
    pub(crate) modified_ms: u64,
    /// The offset of the frame minus its watermark.
    pub(crate) unsynced_bytes: u32,
}

/// The content of a frame whose header is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Salvaged {
    /// A put or a delete of this namespace.
    Frame(NamespaceHash),
    Mark,
}

/// The kind of a summary entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A put whose values are all in the frame, as sent, with the revision and time of the frame.
    Put,
    /// A put whose members are described in the metadata. The values can be in blobs.
    PutWithMetadata,
    /// A delete.
    Delete,
    /// A damaged frame of a known namespace. The damaged frame supersedes all older frames of the
    /// namespace.
    Damaged,
    /// Damaged bytes that may have contained frames of any namespace. Any frame that is older than
    /// the lost frames may be stale.
    Lost,
    /// A mark, which belongs to no namespace.
    Mark,
}

impl EntryKind {
    pub(crate) fn of(header: &FrameHeader) -> Self {
        Self::new(header.kind, header.has_metadata)
    }

    pub(crate) fn new(kind: FrameKind, has_metadata: bool) -> Self {
        match kind {
            FrameKind::Put if has_metadata => Self::PutWithMetadata,
            FrameKind::Put => Self::Put,
            FrameKind::Delete => Self::Delete,
            FrameKind::Mark => Self::Mark,
        }
    }

    /// Returns true if the entry describes damaged bytes.
    pub(crate) fn is_damaged(self) -> bool {
        matches!(self, Self::Damaged | Self::Lost)
    }

    /// The number that represents the kind on disk. The number fits in three bits and is not 0.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::PutWithMetadata => 2,
            Self::Delete => 3,
            Self::Damaged => 4,
            Self::Lost => 5,
            Self::Mark => 6,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::PutWithMetadata,
            3 => Self::Delete,
            4 => Self::Damaged,
            5 => Self::Lost,
            6 => Self::Mark,
            _ => return None,
        })
    }
}
