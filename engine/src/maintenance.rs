//! The maintenance layer: tasks that run while an open store serves reads and writes.
//!
//! The layer owns compaction, the removal of obsolete files, the erasure of users, and snapshots.
//!
//! **Architecture Invariant:** this layer never writes to the log. The layer gives jobs to the
//! committer, and removes only files that no longer belong to the store.

pub(crate) mod compaction;
pub(crate) mod erasure;
pub(crate) mod purge;
pub(crate) mod snapshot;
