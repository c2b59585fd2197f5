//! The platform layer: interfaces to the operating system and the processor.
//!
//! The layer owns the file system interface, aligned buffers, cache-line padding, cheap counters, a
//! semaphore, and the wakeup of a background thread.
//!
//! **Architecture Invariant:** this layer imports nothing from the rest of the engine. The layer
//! knows files, bytes and threads, but not documents, segments or the engine's error type.

pub(crate) mod aligned;
pub(crate) mod cache_padded;
pub(crate) mod counters;
pub mod fs;
pub(crate) mod semaphore;
pub(crate) mod wakeup;
