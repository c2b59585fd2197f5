//! The engine of prefd: an embeddable, durable store of one JSON document for each
//! namespace, a user and a client.
//!
//! A put replaces a whole document, atomically and durably; a get returns the very
//! text that was put. Start with [`Engine::open`].
//!
//! # Durability
//!
//! An acknowledged [`Durability::Sync`] write survives a crash of the machine:
//! `fdatasync` of the log returned before the acknowledgement, and a large
//! document's own file and its directory were synced before that.
//!
//! # Errors
//!
//! Damage on the disk is an [`Error::Corrupt`] that names file and offset, never
//! wrong bytes and never an older revision. A failed sync of the log stops writing
//! for good ([`Error::Poisoned`]); reads go on.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a test says what it expects by unwrapping it"
    )
)]

mod api;
mod catalogue;
mod commit;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod json;
mod maintenance;
mod model;
mod offline;
mod platform;
mod recovery;
mod storage;

pub use crate::platform::fs;

pub use crate::api::engine::Engine;
pub use crate::api::namespace::Namespace;
pub use crate::api::read::{Located, Peek};
pub use crate::catalogue::{CatalogueEntry, UserUsage};
pub use crate::commit::change::{Change, QueueFull, WriteOptions};
pub use crate::commit::promise::Commit;
pub use crate::commit::writer::{Prepared, Writer};
pub use crate::index::document::{Chunks, Document};
pub use crate::json::validate::check;
pub use crate::maintenance::erasure::Erased;
pub use crate::maintenance::snapshot::{Snapshot, SnapshotFile, SnapshotReader};
pub use crate::model::config::{Config, Durability};
pub use crate::model::damage::Damage;
pub use crate::model::error::{Error, Result};
pub use crate::model::limits::{Limits, Position, Usage, Violation};
pub use crate::model::metrics::{BATCH_WRITES_BOUNDS, LOG_SYNC_BOUNDS_US, Metrics, SpaceUsage};
pub use crate::model::progress::Progress;
pub use crate::model::revision::{Precondition, Revision, Revisions};
pub use crate::model::stat::Stat;
pub use crate::offline::report::{CatalogueCheck, Impact, Problem, Verification};
pub use crate::offline::scan::require_store;
pub use crate::offline::stats::{Stats, stats};
pub use crate::offline::verify::verify;
pub use crate::platform::counters::Histogram;
pub use crate::storage::lock::DirectoryLock;
