//! Reports of stored bytes that are damaged or cannot be read.

use std::path::{Path, PathBuf};

use crate::model::error::Error;

/// A location at which stored bytes are damaged or cannot be read.
///
/// ```
/// use prefd_engine::{Damage, Error};
/// let error = Error::Corrupt {
///     path: "log/00000007.seg".into(),
///     offset: 28,
///     what: "the document's checksum does not match".to_owned(),
/// };
/// let damage = Damage::from_error(&error).unwrap();
/// assert_eq!(
///     damage.to_string(),
///     "log/00000007.seg at byte 28: the document's checksum does not match",
/// );
/// assert_eq!(Damage::from_error(&Error::Closed), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The damaged file.
    pub path: PathBuf,
    /// Offset of the damage, in bytes from the start of the file.
    pub offset: u64,
    /// A description of the damage, such as "a read failed: Input/output error (os error 5)".
    pub what: String,
}

impl Damage {
    pub(crate) fn new(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }

    /// Converts an error to the damage that the error reports. Returns `None` if
    /// [`Error::is_damage`] returns false for the error.
    pub fn from_error(error: &Error) -> Option<Self> {
        match error {
            Error::Corrupt { path, offset, what } => Some(Self::new(path, *offset, what)),
            Error::Unreadable {
                path,
                offset,
                source,
            } => Some(Self::new(path, *offset, format!("a read failed: {source}"))),
            _ => None,
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, offset, what } = self;
        write!(f, "{} at byte {offset}: {what}", path.display())
    }
}

/// The bytes at the end of the log that were dropped when a store was opened; see
/// [`crate::Engine::dropped_tail`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedTail {
    /// The segment file.
    pub path: PathBuf,
    /// Offset of the first dropped byte.
    pub offset: u64,
    /// Number of dropped bytes.
    pub bytes: u64,
}
