//! Stored bytes that are lost.

use std::path::{Path, PathBuf};

use crate::model::error::Error;

/// A place where stored bytes are lost: they are damaged, or the disk does not return them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in the file the damage was first met, in bytes from its start.
    pub offset: u64,
    /// What is wrong, such as "a read failed: Input/output error (os error 5)".
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

    /// The damage that an error reports; `None` if [`Error::is_damage`] is false.
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
