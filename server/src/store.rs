//! The store of all documents. The current implementation is the embedded engine.
//!
//! A [`Store`] serves requests. A `Store` returns documents that are in memory without blocking,
//! and reads all other documents on blocking threads. A [`BlockingStore`] is for threads that may
//! block and read or write many documents, such as an export. [`offline`] and [`restore`] work on
//! data directories that no server has open.
//!
//! The store decides which calls run on blocking threads. The store must not know HTTP, tokens or
//! the network. It re-exports plain data types of the engine, such as limits and violations, for
//! the other layers.
//!
//! **Architecture Invariant:** the store imports only `settings` and `io_error`. No other part of
//! the server imports the crate of the engine.

mod blocking;
mod blocking_store;
mod cause;
mod data_dir;
mod document_text;
mod document_writer;
mod embedded;
mod limits;
mod lookup;
mod namespace;
pub(crate) mod offline;
pub(crate) mod owner;
pub(crate) mod restore;

pub(crate) use blocking_store::BlockingStore;
pub(crate) use cause::cause;
pub(crate) use data_dir::{
    OpenError, UnfinishedRestore, create_private_dir, is_store_file, writable_by_everyone,
};
pub(crate) use document_text::{DocumentStream, DocumentText};
pub(crate) use embedded::Store;
pub(crate) use limits::{UnstorableLimits, limits};
pub(crate) use namespace::Namespace;

// Plain data types of the engine, which need no wrappers.
#[cfg(feature = "fuzzing")]
pub(crate) use prefd_engine::Engine;
pub(crate) use prefd_engine::{
    CatalogueCheck, Change, Commit, Damage, Document, Durability, Erased, Error, Histogram, Impact,
    InvalidName, Limits, Metrics, Name, Position, Precondition, Prepared, Problem, Progress,
    Revision, Revisions, Snapshot, Stat, Stats, Violation,
};
