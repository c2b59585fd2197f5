//! The offline layer: inspects a data directory that no engine has open.
//!
//! It owns `stats` and `verify`, and the scan that both start with.
//!
//! **Architecture Invariant:** this layer only reports, and repairs nothing. It never changes
//! files in `log/` and `blobs/`.

pub(crate) mod report;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod verify;
