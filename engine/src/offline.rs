//! The offline layer: inspects a data directory that no engine has open.
//!
//! The layer owns `stats` and `verify`, and the scan that both functions start with.
//!
//! **Architecture Invariant:** this layer reports defects, repairs nothing, and never changes files
//! in `log/` or `blobs/`.

pub(crate) mod report;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod verify;
