//! Where a frame lies.

use crate::format::frame::header::EntryKind;
use crate::format::summary::entry::SummaryEntry;
use crate::model::ids::{Offset, SegmentId};

/// The place of a frame in the log, and what must be known to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLocation {
    pub(crate) revision: u64,
    pub(crate) segment: SegmentId,
    pub(crate) offset: Offset,
    pub(crate) bytes: u32,
    /// Never [`EntryKind::Lost`], because a lost frame has no namespace.
    pub(crate) kind: EntryKind,
}

impl FrameLocation {
    /// Width of a length in bits: what a slot of the table has room for.
    pub(crate) const LENGTH_BITS: u32 = 29;
    /// The longest possible frame. No frame comes near it, but a damaged range of a segment
    /// can be longer.
    pub(crate) const MAX_BYTES: u32 = (1 << Self::LENGTH_BITS) - 1;

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
