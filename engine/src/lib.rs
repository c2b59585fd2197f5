//! An embeddable, durable storage engine that keeps one JSON document for each user and client.
//!
//! This crate is the engine of prefd, a preferences server. The engine is suited to settings,
//! preferences and other small documents that are read often, replaced as a whole, and must not be
//! lost.
//!
//! # Quick start
//!
//! A *namespace* is identified by two names: a user and a client. A namespace contains at most one
//! document, which is a JSON object. [`Engine`] opens a store, and [`Namespace`] reads and writes
//! the document of one namespace.
//!
//! ```
//! use prefd_engine::{Config, Engine, Precondition, WriteOptions};
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! let engine = Engine::open(Config::new(path))?;
//! let namespace = engine.namespace("alice", "editor")?;
//!
//! // The document is on stable storage when this call returns.
//! namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
//!
//! let document = namespace.get()?.expect("a document is stored");
//! assert_eq!(document.read()?, br#"{"theme":"dark"}"#);
//!
//! // Replace the document only if no other write has happened since.
//! let if_unchanged = WriteOptions {
//!     precondition: Precondition::matches(document.stat().revision),
//!     ..WriteOptions::default()
//! };
//! namespace.write(br#"{"theme":"light"}"#, if_unchanged)?;
//!
//! engine.close()?;
//! # Ok::<(), prefd_engine::Error>(())
//! ```
//!
//! The folder `examples/` contains complete programs.
//!
//! # Guarantees
//!
//! - **Atomic.** A write replaces or deletes a whole document. Readers see the old document or the
//!   new one, never a mixture.
//! - **Durable.** With [`Durability::Sync`], the default, an acknowledged write survives a crash of
//!   the machine, because the log is synced with `fdatasync` before the acknowledgement. A large
//!   document is stored in a separate file, which is synced together with its directory before the
//!   log is synced. With [`Durability::Buffered`], an acknowledged write survives a crash of the
//!   process, but may be lost in a crash of the machine.
//! - **Linearizable.** A read returns the newest acknowledged write, or a newer write that has not
//!   been acknowledged yet. A [`Precondition`] is checked atomically with the write. If two writers
//!   require the same revision, at most one of them succeeds.
//! - **Text is preserved.** The order of members, the digits of numbers, escapes and the whitespace
//!   inside values are returned as they were sent. Only whitespace outside keys and values is
//!   removed.
//! - **Damage is an error.** All data has checksums. Damaged data is reported with its file and
//!   offset, and is never returned. If the current document of a namespace is damaged, reads of the
//!   namespace fail instead of returning an older revision.
//! - **Exact limits.** The [`Limits`] on keys and values are enforced to the byte, in bounded
//!   memory.
//!
//! # Synchronous and async use
//!
//! The API is synchronous, and the engine needs no async runtime. If a function can block on the
//! disk, its documentation says so. An async program can use the engine without blocking its worker
//! threads:
//!
//! - Reads: [`Engine::peek`] returns cached documents without disk access. If `peek` returns
//!   [`Peek::OnDisk`], read the document on a thread that may block.
//! - Writes: [`Commit`] is a [`Future`] that works on any executor. [`Writer::stays_in_memory`]
//!   returns true if the next chunk of a document can be validated without disk access.
//!
//! ```
//! use prefd_engine::{Engine, Result, Revision, WriteOptions};
//!
//! async fn save(engine: &Engine, body: &[u8]) -> Result<Option<Revision>> {
//!     let namespace = engine.namespace("alice", "editor")?;
//!     // With the default options, `submit` blocks only if the body is longer than
//!     // `Config::inline_bytes`.
//!     namespace.submit(body, WriteOptions::default()).await
//! }
//! ```
//!
//! An open engine has up to four threads of its own: one commits writes, one compacts the log, one
//! maintains the catalogue, and one checks every second that the directories of the store are still
//! at their paths. Short-lived threads sync files while large documents or many
//! buffered writes are written. sled, the catalogue's database, can start more threads.
//!
//! # Features
//!
//! - Streaming of large documents: each large document is stored in a separate file, and is written
//!   and read in chunks ([`Writer`], [`Document::chunks`]).
//! - Listing the documents of a user, and adding up their sizes ([`Engine::list`],
//!   [`Engine::usage`]).
//! - Backups of an open store ([`Engine::snapshot`]).
//! - Erasure of all data of a user ([`Engine::erase`]).
//! - Compaction in the background.
//! - Statistics and verification of a closed store ([`stats()`], [`verify()`]).
//! - Opening a store without changing it, also on a read-only file system ([`Config::read_only`]).
//!
//! The crate has one Cargo feature, `fuzzing`. The feature exposes internals to the engine's own
//! fuzzers, and is not part of the API.
//!
//! # Platforms
//!
//! The engine is developed for Linux and tested on Linux. The engine compiles only on Unix, because
//! it uses Unix file permissions and positioned reads and writes. The engine creates the data
//! directory with mode 700, and log and blob files with mode 600.
//!
//! The data directory must be on a file system on which `fdatasync` of a file and `fsync` of a
//! directory make data survive a power cut, `rename` replaces a file atomically, and files can be
//! locked. Local Linux file systems such as ext4 meet these requirements. Only one engine at a time
//! can have a data directory open. Opening the directory a second time fails with
//! [`Error::Locked`]. If the directory is removed, renamed or replaced while it is open, writing
//! stops ([`Error::Poisoned`]).
//!
//! # Memory
//!
//! The engine keeps a table of all documents in memory. The table usually uses less than 60 bytes
//! for each document and for each tombstone (the record of a delete). In addition, these fields of
//! [`Config`] limit the engine's main uses of memory:
//!
//! | setting | default | memory for |
//! | --- | --- | --- |
//! | `cache_bytes` | 32 MiB | recently read documents |
//! | `queue_bytes` | 64 MiB | documents that are waiting to be committed |
//! | `catalogue_pending_bytes` | 16 MiB | changes that the catalogue has not stored yet |
//! | `catalogue_cache_bytes` | 8 MiB | the cache of sled, the catalogue's database (sled uses more memory than this) |
//! | `value_checks` | 2 | concurrent validations of values in large documents; each validation uses one or two buffers of up to [`Limits::max_value_bytes`] |
//!
//! # Errors
//!
//! Functions that can fail return an [`Error`]. A write that fails has changed nothing, with one
//! exception: if a write fails with [`Error::Poisoned`], it is unknown whether the write is stored.
//!
//! | error | meaning | what to do |
//! | --- | --- | --- |
//! | [`Error::Rejected`] | the document is not a valid JSON object, or exceeds a limit | report the [`Violation`] |
//! | [`Error::PreconditionFailed`] | the precondition is false, usually because of another write | read the document again |
//! | [`Error::Overloaded`] | the commit queue is full | try again later |
//! | [`Error::StorageFull`] | the disk is full; deletes may still work | free disk space |
//! | [`Error::Corrupt`], [`Error::Unreadable`] | stored data is damaged | restore a backup; [`verify()`] finds all damage |
//! | [`Error::ReadOnly`] | the store was opened with [`Config::read_only`] | open the store for writing |
//! | [`Error::Poisoned`] | an operation on the log failed, usually a sync, or the data directory is no longer at its path; reads still work | check the disk, and open the store again |

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "in a test, a panic is a failed expectation"
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

pub use crate::platform::{clock, fs};

pub use crate::api::engine::Engine;
pub use crate::api::namespace::Namespace;
pub use crate::api::read::{Located, Peek};
pub use crate::catalogue::{CatalogueEntry, KnownDocuments, UserUsage};
pub use crate::commit::change::{Change, QueueFull, WriteOptions};
pub use crate::commit::promise::Commit;
pub use crate::commit::writer::{Prepared, Writer};
pub use crate::index::document::{Chunks, Document};
pub use crate::json::validate::check;
pub use crate::maintenance::erasure::Erased;
pub use crate::maintenance::snapshot::{Snapshot, SnapshotFile, SnapshotReader};
pub use crate::model::config::{Config, Durability};
pub use crate::model::damage::{Damage, DroppedTail};
pub use crate::model::error::{Error, Result};
pub use crate::model::limits::{Limits, Position, Usage, Violation};
pub use crate::model::metrics::{BATCH_WRITES_BOUNDS, LOG_SYNC_BOUNDS_US, Metrics, SpaceUsage};
pub use crate::model::names::{AsName, InvalidName, Name};
pub use crate::model::progress::Progress;
pub use crate::model::revision::{Precondition, Revision, Revisions};
pub use crate::model::stat::Stat;
pub use crate::offline::report::{CatalogueCheck, Impact, Problem, Verification};
pub use crate::offline::scan::require_store;
pub use crate::offline::stats::{Stats, stats};
pub use crate::offline::verify::verify;
pub use crate::platform::counters::Histogram;
pub use crate::storage::lock::DirectoryLock;
