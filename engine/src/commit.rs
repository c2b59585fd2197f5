//! The commit layer: validates, commits and acknowledges writes.
//!
//! The streaming writer validates documents. The commit queue holds writes until they are
//! committed. The committer is the only part of an open engine that appends frames to the log. The
//! module [`core`] contains the state that all parts of an open engine share.
//!
//! **Architecture Invariant:** with [`Durability::Sync`](crate::Durability::Sync), a write
//! becomes visible and is acknowledged only after the log is synced. At most one thread at
//! a time is the commit leader. While a store is open, only the commit leader appends frames to
//! the log, and only the commit leader changes which frames are current in the table.

pub(crate) mod batch;
pub(crate) mod change;
pub(crate) mod committer;
pub(crate) mod core;
pub(crate) mod counters;
pub(crate) mod group_commit;
pub(crate) mod job;
pub(crate) mod one_pass;
pub(crate) mod promise;
pub(crate) mod queue;
pub(crate) mod segment_jobs;
pub(crate) mod writer;
