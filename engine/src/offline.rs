//! The offline layer: inspecting a data directory that no engine has open.
//!
//! It owns `stats` and `verify`, and the scan that both start with.
//!
//! **Architecture Invariant:** it reports and repairs nothing. No byte of log or blobs is
//! changed.

pub(crate) mod report;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod verify;
