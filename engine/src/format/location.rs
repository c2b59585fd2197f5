//! Where a frame lies.

use crate::format::frame::header::EntryKind;
use crate::format::summary::entry::SummaryEntry;

/// The newest frame of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLocation {
    pub(crate) revision: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    /// Never [`EntryKind::Lost`], which has no namespace.
    pub(crate) kind: EntryKind,
}

impl FrameLocation {
    pub(crate) fn at(segment: u32, entry: &SummaryEntry) -> Self {
        Self {
            revision: entry.revision,
            segment,
            offset: entry.offset,
            bytes: entry.bytes.min(Self::MAX_BYTES),
            kind: entry.kind,
        }
    }
}
