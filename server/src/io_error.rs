//! The error of a failed operation on a file or another resource of the operating system.
//!
//! **Architecture Invariant:** this is one of the lowest layers. This layer imports nothing from
//! the rest of the crate.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on a file or another resource of the operating system failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", target.display())]
pub(crate) struct IoError {
    /// The failed action, such as `open` or `write to`.
    action: &'static str,
    target: PathBuf,
    source: io::Error,
}

/// Returns a function for `map_err` that adds the failed action and its target to the error.
/// The target is a path, or the name of another resource, such as `standard output`.
pub(crate) fn io_error(
    action: &'static str,
    target: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> IoError {
    let target = target.as_ref().to_owned();
    move |source| IoError {
        action,
        target,
        source,
    }
}
