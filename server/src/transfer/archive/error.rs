//! Errors that can occur while a backup is written or read.

use std::io;

use crate::io_error::IoError;
use crate::store::Error;
use crate::transfer::archive::contents::{CONTENTS, FORMAT};

/// A backup cannot be written, cannot be read, or is not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArchiveError {
    #[error("cannot read the backup: {0}")]
    Read(io::Error),
    /// A file of the backup cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] IoError),
    #[error("cannot write the backup: {0}")]
    Send(io::Error),
    #[error("cannot read the store: {0}")]
    Store(#[from] Error),
    #[error(
        "the backup is compressed with {format}. Decompress it first: {command} FILE | prefd restore \
         --from - --data-dir DIR"
    )]
    Compressed {
        format: &'static str,
        command: &'static str,
    },
    #[error("the file is not a backup: expected a tar archive that prefd backup has created")]
    NotABackup,
    #[error("the backup is truncated: it ends after {bytes} bytes, before the end of the archive")]
    Truncated { bytes: u64 },
    #[error("the backup is incomplete: {CONTENTS}, the last file of a backup, is missing")]
    Incomplete,
    #[error("the backup is damaged: {path}: {what}")]
    Damaged { path: String, what: &'static str },
    #[error("the backup is damaged: {CONTENTS}: {0}")]
    Contents(#[from] serde_json::Error),
    #[error("the backup has format {found}, but this version of prefd reads only format {FORMAT}")]
    Format { found: u32 },
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Send(error)
    }
}

pub(super) fn damaged(path: impl Into<String>, what: &'static str) -> ArchiveError {
    ArchiveError::Damaged {
        path: path.into(),
        what,
    }
}
