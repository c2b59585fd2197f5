//! The table of contents of a backup.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::Damage;

/// Name of the last file of a backup, which contains the table of contents.
pub(super) const CONTENTS: &str = "backup.json";
/// Version of the backup format.
pub(super) const FORMAT: u32 = 1;

/// Mode of the files of a store, in a backup and after a restore. Only the owner may read the
/// documents.
pub(super) const FILE_MODE: u32 = 0o600;

/// The contents of a backup, stored in the backup as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupContents {
    pub(super) format: u32,
    /// Version of prefd that created the backup.
    pub(crate) prefd: String,
    /// Time of the backup in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Newest revision in the backup, or 0 if the store has no revision.
    pub(crate) revision: u64,
    pub(crate) documents: u64,
    /// Number of damaged frames that may be current, as known when the backup was taken.
    #[serde(default)]
    pub(crate) damaged_frames: u64,
    /// Places whose data could not be read from the disk. In the backup, unreadable data is
    /// replaced by zeros, or the complete file is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreadable: Vec<UnreadablePlace>,
    pub(super) files: Vec<BackupFile>,
}

/// The first place in a file that could not be read from the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnreadablePlace {
    /// Path of the file on the machine that created the backup.
    path: String,
    offset: u64,
    reason: String,
}

impl UnreadablePlace {
    pub(super) fn of(damage: &Damage) -> Self {
        Self {
            path: damage.path.display().to_string(),
            offset: damage.offset,
            reason: damage.what.clone(),
        }
    }
}

impl fmt::Display for UnreadablePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path, self.offset, self.reason)
    }
}

/// A file of the backup, with its length and checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BackupFile {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}
