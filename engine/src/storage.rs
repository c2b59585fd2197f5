//! The storage layer: the files of a data directory, except those of the catalogue.
//!
//! The layer owns the log (segments, summaries, the manifest), the blob files, the reserve, the
//! directory lock, the watch over the directories, and the pins that keep files for snapshots.
//!
//! **Architecture Invariant:** this layer tracks which bytes are on the disk and which are synced.
//! The index layer, not this layer, determines which frame of a namespace is current.

pub(crate) mod blobs;
pub(crate) mod commit_leader;
pub(crate) mod io;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod pins;
pub(crate) mod read_only_fs;
pub(crate) mod reserve;
pub(crate) mod watch;
