//! The progress of a long-running operation.

/// The progress of a long-running operation, such as
/// [`Engine::compact_with`](crate::Engine::compact_with). Progress is measured in bytes.
///
/// ```
/// use prefd_engine::{Config, Engine, Progress};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// engine.compact_with(&mut |Progress { done_bytes, total_bytes }| {
///     println!("{done_bytes} of {total_bytes} bytes");
/// })?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of bytes that have been processed so far.
    pub done_bytes: u64,
    /// Total number of bytes to process.
    pub total_bytes: u64,
}
