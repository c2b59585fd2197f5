//! How a write to the log fails.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::model::error::Error;

/// Whether the log can still be written to after a failed write.
#[derive(Debug)]
pub(crate) enum LogFailure {
    /// Nothing has changed. Later writes may succeed.
    Refused(Error),
    /// It is not known what is on the disk, so no write may follow.
    Poisoned(Error),
}

impl LogFailure {
    /// The failure of an operation after which the state of the disk is unknown.
    pub(super) fn poisoned(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Poisoned(Error::Poisoned {
            op,
            path: path.to_owned(),
            source: Arc::new(source),
        })
    }

    /// Turns the error of such an operation into one that stops writing.
    pub(super) fn poison(error: Error) -> Self {
        Self::Poisoned(match error {
            Error::Io { op, path, source } => Error::Poisoned { op, path, source },
            Error::StorageFull { path } => Error::Poisoned {
                op: "write",
                path,
                source: Arc::new(io::ErrorKind::StorageFull.into()),
            },
            other => other,
        })
    }

    /// The error, whatever it means for later writes.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Poisoned(error) => error,
        }
    }
}
