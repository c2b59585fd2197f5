//! The failure of a write to the log.

use std::io;
use std::path::Path;

use crate::model::error::Error;

/// The failure of a write to the log, which determines whether later writes are possible.
#[derive(Debug)]
pub(crate) enum LogFailure {
    /// The log is unchanged. Later writes may succeed.
    Refused(Error),
    /// The state of the disk is unknown, so nothing more may be written.
    Poisoned(Error),
}

impl LogFailure {
    /// Creates [`Self::Poisoned`] for a failed operation that leaves the disk in an unknown state.
    pub(super) fn poisoned(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Poisoned(Error::poisoned(op, path, source))
    }

    /// Converts the error of a failed operation that leaves the disk in an unknown state.
    pub(super) fn poison(error: Error) -> Self {
        Self::Poisoned(match error {
            Error::Io { op, path, source } => Error::Poisoned { op, path, source },
            Error::StorageFull { path } => {
                Error::poisoned("write", &path, io::ErrorKind::StorageFull.into())
            }
            other => other,
        })
    }

    /// Returns the error of either variant.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Poisoned(error) => error,
        }
    }
}
