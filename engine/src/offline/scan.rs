//! Builds the index of a closed store in memory, without changing the store. [`crate::stats()`] and
//! [`crate::verify()`] start with this scan.
//!
//! The scan reads the same files as recovery, but does not repair or change any file.

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
use crate::storage::log::scan::RevisionLimits;
use crate::storage::read_only_fs::ReadOnlyFs;

/// The index of a closed store.
pub(crate) struct OfflineScan {
    pub(crate) directory: LogDirectory,
    pub(crate) manifest: Manifest,
    pub(crate) documents: RecoveryLoader,
    /// The lock of the data directory, which prevents an engine from opening the store while the
    /// scan is used.
    _lock: DirectoryLock,
}

impl OfflineScan {
    /// Locks the data directory for reading, and builds the index of its store.
    ///
    /// # Errors
    /// Returns the same errors as [`crate::stats()`].
    pub(crate) fn run(config: &Config) -> Result<Self> {
        // A directory that does not exist cannot be locked, but the error must say that it is not a
        // store.
        require_store(config)?;
        let lock = DirectoryLock::acquire_shared(&config.data_dir)?;
        let manifest = read_manifest(config)?;
        let dir = config.data_dir.join("log");
        let fs = Arc::clone(&config.fs);
        let mut directory = LogDirectory::new(fs, &dir, manifest.store, manifest.hash_key);
        // As in recovery, these two calls find a manifest that is older than the segments.
        directory.unlisted_files(&manifest)?;
        let active = directory.scan_active(&manifest)?;
        let mut documents = RecoveryLoader::default();
        for record in &manifest.segments {
            let Some(sealed) = record.sealed else {
                continue;
            };
            match directory.sealed_summary(record.id, sealed) {
                Ok(summary) => {
                    documents.load(&directory, record.id, &summary.entries, &summary.blobs);
                }
                Err(error) if error.is_damage() => {
                    documents.load_unreadable(record.id, &error, sealed);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((record, scan)) = &active {
            let limits = RevisionLimits::of_active(&manifest);
            let summary = scan.summary(scan.valid_end(), limits);
            documents.load(&directory, record.id, summary.entries(), summary.blobs());
            // An interrupted seal may have left a summary that describes fewer frames.
            directory.ignore_summaries([record.id]);
        }
        documents.finish(active.map(|(record, _)| record.id));
        Ok(Self {
            directory,
            manifest,
            documents,
            _lock: lock,
        })
    }

    /// Returns true if `entry` of `segment` describes the current frame of its namespace.
    pub(crate) fn is_current(&self, segment: SegmentId, entry: &SummaryEntry) -> bool {
        let location = FrameLocation::at(segment, entry);
        self.documents.table.entry(entry.hash) == Some(location)
    }
}

/// Checks that [`Config::data_dir`] contains a store. The store may be open.
///
/// Reads only the manifest. Neither creates nor locks the directory. Blocks on disk I/O.
///
/// # Errors
/// - [`Error::NotAStore`]: the directory has no store.
/// - [`Error::Corrupt`], [`Error::Unreadable`]: the manifest is damaged.
/// - [`Error::UnsupportedFormat`]: the manifest was written by a newer version of prefd.
/// - [`Error::Io`]: any other failure.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Error, require_store};
/// # let dir = tempfile::tempdir().unwrap();
/// let empty = Config::new(dir.path());
/// assert!(matches!(require_store(&empty), Err(Error::NotAStore { .. })));
/// ```
pub fn require_store(config: &Config) -> Result<()> {
    read_manifest(config).map(drop)
}

fn read_manifest(config: &Config) -> Result<Manifest> {
    let found = manifest_file::read(&*config.fs, &config.data_dir.join("log"))?;
    found.ok_or_else(|| Error::NotAStore {
        path: config.data_dir.clone(),
    })
}

/// Returns the settings with a file system that refuses every change.
pub(crate) fn read_only(config: &Config) -> Config {
    let mut config = config.clone();
    config.fs = Arc::new(ReadOnlyFs(config.fs));
    config
}
