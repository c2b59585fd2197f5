//! The platform layer: interfaces to the operating system and the processor.
//!
//! The platform layer contains the interfaces to the file system and the clock, aligned buffers,
//! cache-line padding, counters, a semaphore, and a signal that wakes a background thread.
//!
//! **Architecture Invariant:** this layer imports nothing from the other layers of the engine. The
//! layer handles files, bytes and threads, and does not use documents, segments or the engine's
//! error type.

pub(crate) mod aligned;
pub(crate) mod cache_padded;
pub mod clock;
pub(crate) mod counters;
pub mod fs;
pub(crate) mod semaphore;
pub(crate) mod wakeup;
