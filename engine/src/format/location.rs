//! The location of a frame.

use crate::format::frame::header::EntryKind;
use crate::format::summary::entry::SummaryEntry;
use crate::model::ids::{Offset, SegmentId};

/// The location of a frame in the log, and the fields that a reader compares with the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLocation {
    pub(crate) revision: u64,
    pub(crate) segment: SegmentId,
    pub(crate) offset: Offset,
    /// Length of the frame in bytes.
    pub(crate) bytes: u32,
    /// The kind of the frame. A location in the table never has the kind [`EntryKind::Lost`] or
    /// [`EntryKind::Mark`], because such a frame has no known namespace.
    pub(crate) kind: EntryKind,
}

impl FrameLocation {
    /// Number of bits that store the length of a frame in a slot of the table.
    pub(crate) const LENGTH_BITS: u32 = 29;
    /// Maximum length that a location can store, in bytes. All valid frames are much shorter than
    /// this maximum. If a range of damaged bytes is longer than the maximum, the maximum is stored
    /// instead of the actual length.
    pub(crate) const MAX_BYTES: u32 = (1 << Self::LENGTH_BITS) - 1;

    /// Returns the location of the frame that the summary of `segment` describes with `entry`.
    pub(crate) fn at(segment: SegmentId, entry: &SummaryEntry) -> Self {
        Self {
            revision: entry.revision,
            segment,
            offset: entry.offset,
            bytes: entry.bytes.min(Self::MAX_BYTES),
            kind: entry.kind,
        }
    }
}
