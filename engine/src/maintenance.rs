//! The maintenance layer: what runs beside reads and writes of an open store.
//!
//! It owns compaction, the removal of obsolete files, erasure of a user, and snapshots.
//!
//! **Architecture Invariant:** it never writes to the log itself. It hands jobs to the
//! committer, and removes only files that the committer has taken out of the store.

pub(crate) mod compaction;
pub(crate) mod erasure;
pub(crate) mod purge;
pub(crate) mod snapshot;
