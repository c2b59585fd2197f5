//! What the head of a frame says, whatever its version.

use std::path::Path;

use crate::model::error::Error;

/// What a frame does to its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Put,
    Delete,
}

/// The numbers in a frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
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
    pub(super) meta_crc: u32,
    pub(crate) inline_crc: u32,
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        u64::from(self.head_bytes) + u64::from(self.meta_bytes) + u64::from(self.inline_bytes)
    }

    /// Where the metadata ends and the inline bytes begin.
    pub(crate) fn meta_end(&self) -> usize {
        self.head_bytes as usize + self.meta_bytes as usize
    }
}

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// They are damaged, or are none at all.
    Invalid(&'static str),
    /// It is whole, and of another version than its segment.
    Version { found: u8, supported: u16 },
    /// It is whole and of this version, and says what this version never says.
    Unknown,
}

impl HeadError {
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

/// What the commit gives a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitInfo {
    pub(crate) revision: u64,
    pub(crate) modified_ms: u64,
    /// Bytes between the watermark and the frame.
    pub(crate) unsynced_bytes: u32,
}

/// What stands at a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A document, all of it in its frame.
    Put,
    /// A document with extents in blob files.
    PutWithBlobs,
    Delete,
    /// A frame of this namespace that cannot be read: whatever is older is stale.
    Damaged,
    /// A frame of an unknown namespace that cannot be read: whatever is older may
    /// be stale, in every namespace.
    Lost,
}

impl EntryKind {
    pub(crate) fn of(header: &FrameHeader) -> Self {
        Self::new(header.kind, header.has_blobs)
    }

    pub(crate) fn new(kind: FrameKind, has_blobs: bool) -> Self {
        match kind {
            FrameKind::Put if has_blobs => Self::PutWithBlobs,
            FrameKind::Put => Self::Put,
            FrameKind::Delete => Self::Delete,
        }
    }

    /// Below 8, and never 0.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::PutWithBlobs => 2,
            Self::Delete => 3,
            Self::Damaged => 4,
            Self::Lost => 5,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::PutWithBlobs,
            3 => Self::Delete,
            4 => Self::Damaged,
            5 => Self::Lost,
            _ => return None,
        })
    }
}
