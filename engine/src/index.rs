//! The index layer: which frame of a namespace is current, and the documents in memory.
//!
//! It owns the table, the accounting of current and stale bytes per segment, the document
//! cache, documents as readers use them, and loading all of that from the log.
//!
//! **Architecture Invariant:** everything in this layer is derived from the log and can be
//! rebuilt from it. Only the commit layer and recovery change what is current.

pub(crate) mod accounting;
pub(crate) mod cache;
pub(crate) mod document;
pub(crate) mod loader;
pub(crate) mod table;
