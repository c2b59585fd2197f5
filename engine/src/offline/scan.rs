//! A closed data directory as it lies there, looked at without changing it: what
//! [`crate::stats`] and [`crate::verify()`] go by.
//!
//! It reads what recovery reads, and mends nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::location::FrameLocation;
use crate::format::manifest::Manifest;
use crate::format::summary::entry::SummaryEntry;
use crate::index::loader::RecoveryLoader;
use crate::model::config::Config;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::storage::lock::DirectoryLock;
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::manifest_file;

/// A closed data directory, and what is current in it.
pub(crate) struct OfflineScan {
    pub(crate) directory: LogDirectory,
    pub(crate) manifest: Manifest,
    pub(crate) documents: RecoveryLoader,
    /// Nobody may open it meanwhile.
    _lock: DirectoryLock,
}

impl OfflineScan {
    pub(crate) fn of(config: &Config) -> Result<Self> {
        // First, because locking a directory creates it.
        manifest(config)?;
        let lock = DirectoryLock::acquire(&config.data_dir)?;
        let manifest = manifest(config)?;
        let dir = config.data_dir.join("log");
        let fs = Arc::clone(&config.fs);
        let directory = LogDirectory::new(fs, &dir, manifest.store, manifest.hash_key);
        let mut documents = RecoveryLoader::default();
        let mut active = None;
        for record in &manifest.segments {
            let Some(sealed) = record.sealed else {
                active = Some(record.id);
                let found = directory.scan(record.id, None)?;
                let summary = found.summary(found.valid_end());
                documents.load(&directory, record.id, summary.entries(), summary.blobs());
                continue;
            };
            match directory.sealed_summary(record.id, sealed) {
                Ok(found) => documents.load(&directory, record.id, &found.entries, &found.blobs),
                Err(error) if error.is_damage() => {
                    documents.load_unreadable(record.id, &error, sealed);
                }
                Err(error) => return Err(error),
            }
        }
        documents.finish(active);
        Ok(Self {
            directory,
            manifest,
            documents,
            _lock: lock,
        })
    }

    /// Whether the table points to this entry of this segment.
    pub(crate) fn is_current(&self, segment: SegmentId, entry: &SummaryEntry) -> bool {
        let there = FrameLocation::at(segment, entry);
        self.documents.table.entry(entry.hash) == Some(there)
    }
}

/// Checks that a data directory holds a store. Reads the manifest and nothing else, and does
/// not create the directory. Blocks.
///
/// # Errors
/// [`Error::NotAStore`] if there is none; [`Error::Corrupt`], [`Error::Unreadable`],
/// [`Error::UnsupportedFormat`] or [`Error::Io`] if the manifest cannot be read.
pub fn require_store(config: &Config) -> Result<()> {
    manifest(config).map(drop)
}

fn manifest(config: &Config) -> Result<Manifest> {
    let found = manifest_file::read(&*config.fs, &config.data_dir.join("log"))?;
    found.ok_or_else(|| Error::NotAStore {
        path: config.data_dir.clone(),
    })
}

/// The files of a directory. One that is not there has none: a copy of a store that has no
/// large document need not have a folder for them.
pub(crate) fn listed(config: &Config, dir: &Path) -> Result<Vec<PathBuf>> {
    match config.fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| Error::io("list", dir, error)),
    }
}
