//! The engine of prefd: an embeddable, durable store of one JSON document for each
//! namespace, a user and a client.
//!
//! A put replaces a whole document, atomically and durably; a get returns the very
//! text that was put. Start with [`Engine::open`].
//!
//! # Layout
//!
//! In the order in which a write passes them:
//!
//! - [`Engine`] opens and ties together; a [`Namespace`] is where callers read and
//!   write.
//! - [`Writer`] takes a document in: `splitter` and `key` find its members and
//!   enforce the [`Limits`], `judge` has `serde_json` check the values, `blob` takes
//!   what is large. [`check`] does the same without a store.
//! - `commit` queues it, and the `committer`, the only writer of the log, decides on
//!   its [`Precondition`], appends, syncs and acknowledges.
//! - `log` is the truth: segments of frames, summaries, the manifest. `codec` is how
//!   structures are laid out in it.
//! - `table` finds: in memory, where the newest frame of each namespace is.
//! - `catalogue` lists: sled, derived, thrown away when in doubt.
//! - `erasure` rewrites whatever holds a byte of one user.
//! - `space` counts what is current in each segment of the log, `compaction` rewrites
//!   those that are mostly stale, and `reserve` keeps room for that on a full disk.
//! - [`Snapshot`] is the store at one moment, to be copied while it is written; `pins` has
//!   its files stay.
//! - [`Metrics`] is what an open store has done, counted where it does it.
//! - `recovery` makes the table and the log from what is on the disk.
//! - [`verify()`] and [`stats`] look at a closed directory, by a `survey` that changes
//!   nothing.
//! - [`fs`] is the seam that every file operation of log and blobs passes.
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

mod alignment;
mod blob;
mod cache;
mod catalogue;
mod codec;
mod commit;
mod committer;
mod compaction;
mod config;
mod document;
mod documents;
mod engine;
mod erasure;
mod error;
mod fields;
pub mod fs;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod judge;
mod key;
mod limits;
mod lock;
mod log;
mod lookup;
mod metrics;
mod names;
mod namespace;
mod pins;
mod recovery;
mod reserve;
mod revision;
mod shared;
mod snapshot;
mod space;
mod splitter;
mod survey;
mod table;
mod verify;
mod whole;
mod writer;

pub use catalogue::{Entry, UserUsage};
pub use commit::Commit;
pub use config::{Config, Durability};
pub use document::{Chunks, Document, Stat};
pub use engine::Engine;
pub use erasure::Erased;
pub use error::{Error, Result};
pub use judge::check;
pub use limits::{Limits, Position, Usage, Violation};
pub use lock::DirectoryLock;
pub use metrics::{BATCH_WRITES_BOUNDS, Histogram, LOG_SYNC_BOUNDS_US, Metrics};
pub use namespace::{Namespace, Peek, WriteOptions};
pub use revision::{Precondition, Revision, Revisions};
pub use snapshot::{Snapshot, SnapshotFile, SnapshotReader};
pub use space::SpaceUsage;
pub use survey::{Stats, stats};
pub use verify::{Catalogue, Harm, Problem, Progress, Verification, verify};
pub use writer::{Prepared, Writer};
