//! The index layer locates the current frame of each namespace, and caches documents in memory.
//!
//! The index layer owns the table, the accounting of current and stale bytes per segment, the
//! document cache, the public `Document` type, and the loader that rebuilds the table and the
//! accounting from the log.
//!
//! **Architecture Invariant:** all data in the index layer can be rebuilt from the log and the
//! blobs. The current frame of a namespace is changed only by the commit layer and by recovery.

pub(crate) mod accounting;
pub(crate) mod cache;
pub(crate) mod document;
pub(crate) mod loader;
pub(crate) mod table;
