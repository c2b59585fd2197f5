//! The offline layer: inspects a data directory that no engine has open.
//!
//! The layer owns the functions `stats` and `verify`, and the scan of the log that both functions
//! use.
//!
//! **Architecture Invariant:** this layer reports defects, but does not repair them, and never
//! changes files in `log/` or `blobs/`.

pub(crate) mod report;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod verify;
