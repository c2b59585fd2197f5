//! The maintenance layer owns compaction, the removal of obsolete files, the erasure of users, and
//! snapshots. All of these run while the store serves reads and writes.
//!
//! **Architecture Invariant:** the maintenance layer never appends to the log. The layer submits
//! jobs to the committer, and truncates files to the length that the manifest records. The layer
//! removes obsolete files and the leftovers of a crash, but no other files.

pub(crate) mod compaction;
pub(crate) mod erasure;
pub(crate) mod purge;
pub(crate) mod snapshot;
