//! The storage layer: the files of a data directory, except those of the catalogue.
//!
//! It owns the log (segments, summaries, the manifest), the blob files, the reserve, the
//! directory lock, and the pins that keep files for snapshots.
//!
//! **Architecture Invariant:** it knows what is on the disk and what is synced, and nothing
//! about which frame is current.

pub(crate) mod blobs;
pub(crate) mod io;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod pins;
pub(crate) mod reserve;
