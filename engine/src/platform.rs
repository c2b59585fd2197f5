//! The platform layer: what the engine needs of the operating system and the processor.
//!
//! It owns the file system interface, memory alignment, cache-line padding, counters that
//! are cheap to add to, and the wakeup of a background thread.
//!
//! **Architecture Invariant:** this layer imports nothing from the rest of the engine. It
//! knows files, bytes and threads, and nothing about documents, segments or errors of the
//! engine.

pub(crate) mod aligned;
pub(crate) mod cache_padded;
pub(crate) mod counters;
pub mod fs;
pub(crate) mod semaphore;
pub(crate) mod wakeup;
