//! The maintenance layer: tasks that run while an open store serves reads and writes.
//!
//! It owns compaction, the removal of obsolete files, the erasure of users, and snapshots.
//!
//! **Architecture Invariant:** this layer never writes to the log. It gives jobs to the
//! committer, and removes only files that the committer has removed from the store.

pub(crate) mod compaction;
pub(crate) mod erasure;
pub(crate) mod purge;
pub(crate) mod snapshot;
