//! The errors of the engine: one enum, each variant with the facts that a caller
//! can act on.
//!
//! Errors are `Clone`, because one failed batch answers many writers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::limits::Violation;
use crate::model::revision::Revision;

/// What the engine's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not do what it was asked to.
///
/// A failed write has changed nothing, except for [`Error::Poisoned`], whose
/// outcome is unknown until the engine is opened again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The document breaks a limit or is not a JSON object.
    #[error(transparent)]
    Rejected(#[from] Violation),

    /// A user or client name that no namespace can have.
    #[error("the {which} name {reason}")]
    InvalidName {
        /// `"user"` or `"client"`.
        which: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The write's precondition does not hold on the newest revision.
    #[error("the precondition does not hold")]
    PreconditionFailed {
        /// The revision it was judged against; `None` where nothing is stored.
        current: Option<Revision>,
    },

    /// The queue of commits is full. Nothing was written; a later try can pass.
    #[error("too many writes are waiting to be committed")]
    Overloaded,

    /// The disk is full. Nothing was written; reads go on.
    #[error("no space is left for {}", path.display())]
    StorageFull {
        /// The file that could not grow.
        path: PathBuf,
    },

    /// An earlier sync of the log failed, so what is on disk is not known: no
    /// write is accepted until the engine is opened again. Reads go on.
    ///
    /// A write that waited for that very sync gets this error too; whether it is
    /// there after the next open is unknown.
    #[error("writing has stopped: {op} failed on {}", path.display())]
    Poisoned {
        /// The operation that failed.
        op: &'static str,
        /// The file it failed on.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },

    /// Bytes on disk are not what was written there.
    #[error("{} is corrupt at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What does not hold there.
        what: String,
    },

    /// The disk did not return stored bytes: a read failed.
    #[error("a read failed on {} at byte {offset}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Start of the read, in bytes from the start of the file.
        offset: u64,
        /// The error of the system.
        source: Arc<io::Error>,
    },

    /// The file system refused an operation.
    #[error("{op} failed on {}", path.display())]
    Io {
        /// The operation that failed.
        op: &'static str,
        /// The file or directory it failed on.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },

    /// The data directory belongs to another open engine.
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as the holder wrote it down.
        holder: String,
    },

    /// The directory was written by a version this one does not know.
    #[error("{} has format version {found}, and this version reads up to {supported}", path.display())]
    UnsupportedFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        found: u16,
        /// The newest version this build reads.
        supported: u16,
    },

    /// The directory holds no store.
    #[error("{} is no data directory: it has no log/manifest", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },

    /// A configuration that cannot work.
    #[error("{setting} {reason}")]
    InvalidConfig {
        /// The field of [`crate::Config`].
        setting: &'static str,
        /// What it must be.
        reason: String,
    },

    /// The catalogue cannot answer now. Documents are not touched by that.
    #[error("the catalogue is not available: {reason}")]
    CatalogueUnavailable {
        /// What it failed on.
        reason: String,
    },

    /// An invariant of the engine does not hold. This is a bug in the engine; nothing was
    /// written.
    #[error("internal error: {what}")]
    Internal {
        /// The invariant.
        what: &'static str,
    },

    /// The engine has been closed.
    #[error("the engine is closed")]
    Closed,
}

impl Error {
    /// The error of a failed file operation. That a file cannot grow, because the disk
    /// is full or a quota or limit (`RLIMIT_FSIZE`) is reached, has a variant of its
    /// own, because callers answer it differently.
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::StorageFull {
                path: path.to_owned(),
            },
            _ => Self::Io {
                op,
                path: path.to_owned(),
                source: Arc::new(source),
            },
        }
    }

    /// Whether stored bytes are lost: the disk returns other bytes than were written
    /// ([`Error::Corrupt`]), or none ([`Error::Unreadable`]).
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Unreadable { .. })
    }

    /// The error of a broken invariant. Panics in builds with debug assertions, so that
    /// tests find it.
    #[track_caller]
    pub(crate) fn internal(what: &'static str) -> Self {
        debug_assert!(false, "{what}");
        Self::Internal { what }
    }

    /// The error of a failed read of stored bytes.
    pub(crate) fn unreadable(path: &Path, offset: u64, source: io::Error) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            offset,
            source: Arc::new(source),
        }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }
}
