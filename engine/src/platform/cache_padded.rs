//! Padding that keeps the data of different threads on different cache lines.

/// A value that shares no cache line with other data.
///
/// The alignment is two cache lines of 64 bytes, because some processors fetch cache lines
/// in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);
