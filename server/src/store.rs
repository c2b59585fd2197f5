//! The store: where documents are kept. Today that is the embedded engine.
//!
//! A [`Store`] serves requests: what memory knows is answered at once, and everything else
//! is awaited. [`Bulk`] is for threads that may block and go through many documents.
//! [`offline`] and [`restore`] look after a directory that no server has open.
//!
//! It decides which calls touch the disk, and runs those on blocking threads; callers
//! cannot tell. It must not know HTTP, tokens or the network. Limits and the check of a
//! document's JSON come with it, so that every store refuses the same bytes.
//!
//! **Architecture Invariant:** it imports only `settings`, and no other part of the server
//! names the engine's crate.

mod blocking;
mod bulk;
mod cause;
mod data_dir;
mod embedded;
mod limits;
mod name;
pub(crate) mod offline;
pub(crate) mod restore;
mod stored;
mod text;
mod writer;

pub(crate) use bulk::Bulk;
pub(crate) use cause::cause;
pub(crate) use data_dir::{OpenError, UnfinishedRestore, is_file_of_a_store, private_folder};
pub(crate) use embedded::Store;
pub(crate) use limits::limits;
pub(crate) use name::Name;
pub(crate) use text::{DocumentText, TextPieces};
pub(crate) use writer::Writer;

// What the engine says of documents, limits and itself. To wrap these would add nothing.
#[cfg(feature = "fuzzing")]
pub(crate) use prefd_engine::Engine;
pub(crate) use prefd_engine::{
    CatalogueCheck, Change, Commit, Damage, Document, Durability, Erased, Error, Histogram, Impact,
    Limits, Metrics, Position, Precondition, Prepared, Problem, Progress, Revision, Revisions,
    Snapshot, Stat, Stats, Violation,
};
