//! Newtypes for the ids of files and for offsets in segments.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of a log segment. A new segment has a higher id than every segment that the manifest has
/// ever listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SegmentId(u32);

impl SegmentId {
    /// The id of the first segment of a store.
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// Returns the next higher id, or `None` if `self` is the highest possible id.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// Formats the id as eight hexadecimal digits, as in the name of the segment file.
impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The id of a blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct BlobId(u64);

impl BlobId {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// Formats the id as sixteen hexadecimal digits, as in the name of the blob file.
impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The offset of a frame, in bytes from the start of its segment file. An offset has 32 bits,
/// because [`crate::Config::MAX_SEGMENT_BYTES`] ensures that segments are shorter than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offset(u32);

impl Offset {
    /// The offset of the first byte of a file.
    pub(crate) const START: Self = Self(0);

    /// Creates an offset. Returns `None` if the offset needs more than 32 bits.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        u32::try_from(bytes).ok().map(Self)
    }

    pub(crate) const fn from_u32(bytes: u32) -> Self {
        Self(bytes)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> Self {
        offset.0.into()
    }
}
