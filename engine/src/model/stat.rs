//! What is known of a document without reading it.

use std::time::{Duration, SystemTime};

use crate::model::limits::Usage;
use crate::model::revision::Revision;

/// What is known of a document without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Which write made it.
    pub revision: Revision,
    /// When, by the clock of the machine, to the millisecond.
    pub modified: SystemTime,
    /// Its keys, and its length in bytes as it is read.
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
