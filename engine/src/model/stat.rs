//! The metadata of a document.

use std::time::{Duration, SystemTime};

use crate::model::limits::Usage;
use crate::model::revision::Revision;

/// The metadata of a document: its revision, modification time and size. The metadata can be read
/// without the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The revision of the document.
    pub revision: Revision,
    /// The time of the write that stored the document, with a resolution of one millisecond. The
    /// time is that of the system clock, but is never earlier than the time of an earlier write to
    /// the store. If the clock is found behind an earlier write, the time is up to one second later
    /// than the highest earlier time until the clock has caught up. If that time has the second of
    /// a date that may have been shown (see [`crate::Engine::latest_date`]), the time is the
    /// beginning of the next second.
    pub modified: SystemTime,
    /// The number of keys and the length of the body.
    pub usage: Usage,
}

impl Stat {
    pub(crate) fn new(revision: u64, modified_ms: u64, usage: Usage) -> Self {
        Self {
            revision: Revision::new(revision),
            modified: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_millis(modified_ms))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            usage,
        }
    }
}
