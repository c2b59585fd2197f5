//! Numbers that name files and places in them, each with a type of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a segment of the log. Ids grow and are never used again.
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

    /// The id after this one; `None` if there is none left.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// As in the file's name: eight hexadecimal digits.
impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The number of a blob file.
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

/// As in the file's name: sixteen hexadecimal digits.
impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where in its segment a frame begins, in bytes from the start of the file. Segments stay
/// below 4 GiB ([`crate::Config::MAX_SEGMENT_BYTES`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offset(u32);

impl Offset {
    /// The start of the file.
    pub(crate) const START: Self = Self(0);

    /// `None` if the offset lies beyond what a segment can hold.
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
