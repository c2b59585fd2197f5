//! The progress of a long task.

/// How far a long task has come, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Done so far.
    pub done_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}
