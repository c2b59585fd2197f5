//! Padding that keeps data of different threads off each other's cache lines.

/// A value that shares no cache line with anything else.
///
/// The alignment is two cache lines of 64 bytes, because some processors fetch lines in
/// pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);
