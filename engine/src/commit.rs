//! The commit layer: the way of a write from a body to its acknowledgement.
//!
//! It owns taking a document in, the commit queue, the committer that alone writes to the
//! log, and the state that an open engine shares ([`core`]).
//!
//! **Architecture Invariant:** nothing is visible or acknowledged before what it rests on
//! is synced. One thread at a time is the commit leader; only it writes to the log and
//! changes the table.

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
