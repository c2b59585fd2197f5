//! The error type of the engine.
//!
//! Each variant contains the facts that a caller needs to handle the error. Errors are `Clone`,
//! because all writes of a failed batch return the same error.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::limits::Violation;
use crate::model::revision::Revision;

/// The result type of the engine's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
///
/// A write that fails has changed nothing, with one exception: if a write fails with
/// [`Error::Poisoned`], it is unknown whether the write is stored. To find out whether such a write
/// is stored, open the store again and read the document.
///
/// ```
/// use prefd_engine::{Config, Engine, Error, Precondition, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// let revision = namespace.write(b"{}", WriteOptions::default())?;
/// let only_if_absent = WriteOptions {
///     precondition: Precondition::absent(),
///     ..WriteOptions::default()
/// };
/// match namespace.write(b"{}", only_if_absent) {
///     Err(Error::PreconditionFailed { current }) => assert_eq!(current, revision),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The document exceeds a limit, or is not a valid JSON object.
    #[error(transparent)]
    Rejected(#[from] Violation),

    /// A user or client name is not valid. A valid name has 1 to 255 bytes of UTF-8 and no control
    /// characters.
    #[error("the {which} name {reason}")]
    InvalidName {
        /// `"user"` or `"client"`.
        which: &'static str,
        /// The defect of the name, such as "is empty".
        reason: &'static str,
    },

    /// The precondition of the write is false for the current state of the document.
    #[error("the precondition of the write is not met")]
    PreconditionFailed {
        /// The current revision. `None` if no document is stored.
        current: Option<Revision>,
    },

    /// The commit queue is full. The write was not queued. The same write can succeed later.
    #[error("the commit queue is full; try again later")]
    Overloaded,

    /// The disk is full, or a quota or a limit on file sizes is reached. A write that fails with
    /// this error has changed nothing. Reads still work.
    #[error("no space left to write {}", path.display())]
    StorageFull {
        /// The file that could not grow.
        path: PathBuf,
    },

    /// An operation on the log, usually a sync, failed in a way that leaves the content of the disk
    /// unknown, or a directory of the store was removed, renamed or replaced. All later writes are
    /// refused until the store is opened again. Reads of files that still exist work.
    ///
    /// The writes of the batch that failed also return this error. Whether these writes are stored
    /// is unknown until the store is opened again.
    #[error("writing has stopped until the store is reopened: cannot {op} {}", path.display())]
    Poisoned {
        /// The operation that failed, such as "sync".
        op: &'static str,
        /// The file on which the operation failed.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },

    /// Stored bytes are damaged: they are not the bytes that were written.
    #[error("{}, byte {offset}: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Offset of the damage, in bytes from the start of the file.
        offset: u64,
        /// The defect, such as "the document's checksum does not match".
        what: String,
    },

    /// A read of stored bytes failed.
    #[error("a read failed at byte {offset} of {}", path.display())]
    Unreadable {
        /// The file that could not be read.
        path: PathBuf,
        /// Offset of the read, in bytes from the start of the file.
        offset: u64,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },

    /// A file operation failed.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// The operation that failed, such as "create".
        op: &'static str,
        /// The file or directory on which the operation failed.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },

    /// Another process or another engine has the data directory open.
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The lock file, or the subdirectory that is shared with another data directory.
        path: PathBuf,
        /// The holder of the lock, as described in the lock file.
        holder: String,
    },

    /// A file has a format version that this build cannot read.
    #[error("{} has format version {found}, but the newest supported version is {supported}", path.display())]
    UnsupportedFormat {
        /// The file that cannot be read.
        path: PathBuf,
        /// The format version of the file.
        found: u16,
        /// The newest format version that this build can read.
        supported: u16,
    },

    /// The directory does not contain a store.
    #[error("{} is not a data directory: it has no log/manifest", path.display())]
    NotAStore {
        /// The directory without a store.
        path: PathBuf,
    },

    /// A setting is out of range, or cannot be combined with another setting.
    #[error("{setting} {reason}")]
    InvalidConfig {
        /// The name of the invalid field of [`crate::Config`], or the names of several fields.
        setting: &'static str,
        /// The violated rule, such as "must be at most 16777216".
        reason: String,
    },

    /// The catalogue is disabled or has failed, or a rebuild of the catalogue started during the
    /// call. Reads and writes of documents still work.
    #[error("the catalogue is not available: {reason}")]
    CatalogueUnavailable {
        /// The reason why the catalogue is not available.
        reason: String,
    },

    /// An invariant of the engine is violated, which is a bug in the engine. A write that fails
    /// with this error has changed nothing.
    #[error("internal error: {what}")]
    Internal {
        /// The violated invariant.
        what: &'static str,
    },

    /// The store is open for reading only ([`crate::Config::read_only`]). The write has changed
    /// nothing.
    #[error("{} is open for reading only", path.display())]
    ReadOnly {
        /// The data directory.
        path: PathBuf,
    },

    /// The engine has been closed.
    #[error("the engine is closed")]
    Closed,
}

impl Error {
    /// Creates the error for a failed file operation. `op` is a verb that completes the message
    /// "cannot … PATH".
    ///
    /// If a file cannot grow, the error is [`Error::StorageFull`], because callers handle a full
    /// disk differently from other errors. A file cannot grow if the disk is full, or if a quota or
    /// the limit on file sizes (`RLIMIT_FSIZE`) is reached.
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

    /// Creates [`Error::Poisoned`] for a failed operation after which nothing may be written.
    pub(crate) fn poisoned(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Poisoned {
            op,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Returns true if stored bytes are damaged ([`Error::Corrupt`]) or cannot be read
    /// ([`Error::Unreadable`]).
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Unreadable { .. })
    }

    /// Creates the error for a violated invariant. `what` states the invariant. In builds with
    /// debug assertions, this function panics, so that tests detect the bug.
    #[track_caller]
    pub(crate) fn internal(what: &'static str) -> Self {
        debug_assert!(false, "{what}");
        Self::Internal { what }
    }

    /// Creates the error for a failed read of stored bytes. `offset` is in bytes from the start of
    /// the file.
    pub(crate) fn unreadable(path: &Path, offset: u64, source: io::Error) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            offset,
            source: Arc::new(source),
        }
    }

    /// Creates the error for damaged stored bytes. `offset` is in bytes from the start of the file.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }
}
